"""Who is at a gateway: the calls from outside that are open, let in while there is room and sent away at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator

from lamina_kit.errors import LaminaError
from lamina_kit.gateway.outer_call import OutsideCall
from lamina_kit.rpc.inflight import shutting_down


class Callers:
    """The calls at a gateway, on the real loop."""

    def __init__(self) -> None:
        self._calls: dict[OutsideCall, None] = {}
        self._left = asyncio.Event()
        self._shutting = False
        self._hastened = False

    def __len__(self) -> int:
        return len(self._calls)

    @contextlib.contextmanager
    def held(self, call: OutsideCall) -> Iterator[None]:
        """Counts a call among those that are open for the length of a `with` block."""
        self._calls[call] = None
        try:
            yield
        finally:
            del self._calls[call]
            self._left.set()

    def check_open(self, call: OutsideCall) -> None:
        """Raises `Unavailable` `SHUTTING_DOWN` when no new call is let in any more."""
        if self._shutting:
            raise shutting_down(call.layer)

    async def shut(self, grace_s: float) -> None:
        """Ends streams, lets no call in, and gives those with one answer `grace_s` seconds of real time. Idempotent.

        Callers whose calls end so see UNAVAILABLE `SHUTTING_DOWN`.
        """
        self._shutting = True
        self._refuse((call for call in self._calls if call.kind[1]), lambda call: shutting_down(call.layer))
        with contextlib.suppress(TimeoutError):  # who has no answer by then gets none
            async with asyncio.timeout(grace_s):
                while self._calls and not self._hastened:
                    self._left.clear()
                    await self._left.wait()
        self.refuse_all(lambda call: shutting_down(call.layer))

    def hasten(self) -> None:
        """Ends the grace of a `shut` that waits, or is to come."""
        self._hastened = True
        self._left.set()

    def refuse_all(self, error: Callable[[OutsideCall], LaminaError]) -> None:
        """Ends every call with an error."""
        self._refuse(self._calls, error)

    @staticmethod
    def _refuse(calls: Iterable[OutsideCall], error: Callable[[OutsideCall], LaminaError]) -> None:
        for call in list(calls):
            call.refuse(error(call))
