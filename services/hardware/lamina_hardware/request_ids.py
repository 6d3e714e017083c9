"""Calls that were made before, by request id, so that a repeated one returns what the first one made."""

from __future__ import annotations

from typing import Any

from lamina_kit.checks import Checks

MAX_REQUESTS = 4096
MAX_ID = 128


class Requests:
    """The last 4096 of them. An empty id is no request."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Any] = {}

    def find(self, kind: str, request_id: str) -> Any:
        """Returns what a request of this kind made, or None. Raises `InvalidArgument` for an id that is too long."""
        with Checks() as check:
            check.max_bytes("request_id", request_id, MAX_ID)
        return self._made.get((kind, request_id)) if request_id else None

    def remember(self, kind: str, request_id: str, made: Any) -> None:
        """Keeps what a request made."""
        if request_id:
            self._made[kind, request_id] = made
            while len(self._made) > MAX_REQUESTS:
                del self._made[next(iter(self._made))]
