"""Idempotent creation: which request made which object, for as long as the object exists."""

from __future__ import annotations

from lamina_kit.errors import InvalidArgument
from lamina_vswitch.domain.definitions.switches import Origin


class RequestLedger:
    """Requests by kind of object and request id. Keys are the ids that name an object within its kind."""

    def __init__(self) -> None:
        self._origins: dict[tuple[str, ...], Origin] = {}
        self._made: dict[tuple[str, str], tuple[str, ...]] = {}

    def replayed(self, kind: str, key: tuple[str, ...], origin: Origin) -> bool:
        """Tell whether this very request has been served before.

        Raises InvalidArgument `REQUEST_ID_REUSED` when its request id came with another request.
        """
        made = self._made.get((kind, origin.request_id)) if origin.request_id else None
        if made is None:
            return False
        if made != key or self._origins[kind, *made].content != origin.content:
            raise InvalidArgument(
                f"The request id {origin.request_id} came with another request before.",
                reason="REQUEST_ID_REUSED",
                next_step="Use a new request id for a new request.",
                request_id=origin.request_id,
            )
        return True

    def knows(self, kind: str, key: tuple[str, ...]) -> bool:
        """Tell whether it is known which request made an object."""
        return (kind, *key) in self._origins

    def remember(self, kind: str, key: tuple[str, ...], origin: Origin) -> None:
        """Note which request made an object."""
        self._origins[kind, *key] = origin
        if origin.request_id:
            self._made[kind, origin.request_id] = key

    def forget(self, kind: str, key: tuple[str, ...]) -> None:
        """Drop what is known of an object that is gone; its request id may be used again."""
        origin = self._origins.pop((kind, *key))
        if origin.request_id:
            del self._made[kind, origin.request_id]
