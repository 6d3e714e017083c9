"""Calls to a layer below in the name of this layer's session, made again while their answers are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError
from lamina_kit.layer.owner_session import OwnerSession
from lamina_kit.rng import Rng
from lamina_kit.rpc.retry import Retry, is_lost
from lamina_kit.telemetry.events import EventLog


class SessionCalls:
    """One layer below, with the session that owns what is made there."""

    def __init__(self, session: OwnerSession, clock: Clock, rng: Rng, events: EventLog) -> None:
        self.session = session
        self._rng = rng
        self._events = events
        self._retry = Retry(clock, self._left_behind, passing=("RUN_GROUP_IN_USE",))

    async def call(self, method: Any, request: Any) -> Any:
        """Makes a call that may be made twice. Its error is a `LaminaError`."""
        return await self._retry.call(lambda: method(request, metadata=self.session.metadata))

    async def call_once(self, method: Any, request: Any) -> Any:
        """Makes a call that may not be made twice without its request id, which the request gets here."""
        request.request_id = self._rng.id("r")
        return await self.call(method, request)

    async def make(self, method: Any, request: Any, unmake: Callable[[Any], Awaitable[Any]]) -> Any:
        """Makes an object, once, whatever becomes of the answers; the request gets its id here.

        When nobody answers for good, or the caller gives up, whatever may have been made is deleted in the background.
        """
        request.request_id = self._rng.id("r")

        async def undo() -> None:
            await unmake(await method(request, metadata=self.session.metadata))

        try:
            return await self.call(method, request)
        except LaminaError as error:
            if is_lost(error):
                self._retry.later(type(request).__name__, undo)
            raise
        except asyncio.CancelledError:
            self._retry.later(type(request).__name__, undo)
            raise

    async def delete(self, name: str, method: Any, request: Any) -> None:
        """Deletes an object; while nobody answers the background goes on with it."""
        try:
            await self.call(method, request)
        except LaminaError as error:
            if not self._retry.will_pass(error):
                raise
            self._retry.later(name, lambda: method(request, metadata=self.session.metadata))

    async def close(self) -> None:
        """Ends what goes on in the background. Idempotent."""
        await self._retry.close()

    def _left_behind(self, name: str, error: LaminaError) -> None:
        if error.code != "NOT_FOUND" and error.reason != "HANDLE_STALE":
            self._events.record(name, "object.left-behind", cause=error.reason, message=error.message)
