"""Idempotency: what calls with a request id made, so that a repeated call returns the same. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from lamina_kit.errors import InvalidArgument

MOST = 4096
"""How many results are kept; the oldest are forgotten first."""


class RequestLog:
    """Results of creating calls by request id."""

    def __init__(self) -> None:
        self._done: OrderedDict[str, tuple[Hashable, Any]] = OrderedDict()
        self._working: dict[str, Hashable] = {}

    def find(self, request: str, meaning: Hashable) -> Any:
        """Returns what the first call made, or None; REQUEST_ID_REUSED when that call meant something else."""
        if request not in self._done:
            return None
        first, result = self._done[request]
        self._compare(request, first, meaning)
        return result

    def working(self, request: str, meaning: Hashable) -> bool:
        """Returns whether the first call with this id is still at work."""
        if request not in self._working:
            return False
        self._compare(request, self._working[request], meaning)
        return True

    def begin(self, request: str, meaning: Hashable) -> None:
        """Notes that the first call is at work."""
        self._working[request] = meaning

    def end(self, request: str, result: Any) -> None:
        """Notes what the first call made; None when it failed, and may be tried again."""
        meaning = self._working.pop(request)
        if result is None:
            return
        self._done[request] = (meaning, result)
        if len(self._done) > MOST:
            self._done.popitem(last=False)

    def _compare(self, request: str, first: Hashable, meaning: Hashable) -> None:
        if first != meaning:
            raise InvalidArgument(
                f"The request id {request} was used for another call.",
                reason="REQUEST_ID_REUSED",
                next_step="Take a new request id for each thing to create.",
            )
