"""Dirty logs over the memory bus: every store is seen, whoever makes it, and nothing is paid while no log is kept.

Services, devices and `WriteMemory` mark frames with each store. A core marks a frame when it takes a translation that
it may write through, and only while the mark is not set: with the mark on the frame it stores without a trace. So
whoever takes marks away also empties the TLB of every core before he says what he found. What a core stored in between
went to a frame that is in the answer, and the caller copies after the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from lamina_hardware.domain.contexts.context import Handle
from lamina_hardware.domain.dirty_logs import DirtyLog, DirtyLogs, Piece
from lamina_hardware.engines.interface import SharedState
from lamina_hardware.request_ids import Requests
from lamina_kit.bus.memory import MemoryBus

_AT_ONCE = 1 << 20
"""Frames whose marks are taken in one call of compiled code."""


class HostDirtyLogs:
    """The logs of one host. `forget` is awaited to empty the TLBs of all cores."""

    def __init__(self, bus: MemoryBus, forget: Callable[[], Awaitable[int]], shared: SharedState) -> None:
        self._bus = bus
        self._forget = forget
        self._shared = shared
        self._requests = Requests()
        self.logs = DirtyLogs()

    async def start(self, ranges: Sequence[tuple[int, int]], owner: str, request_id: str) -> DirtyLog:
        """Starts a log of ranges (first frame, frames), once for a request id. Raises `TOO_MANY_DIRTY_LOGS`."""
        known = self._requests.find("log", request_id)
        if isinstance(known, DirtyLog) and known in self.logs.entries():
            return known
        self._shared.collect_writes(keep=True)
        self._collect(ranges)
        log = self.logs.start(ranges, owner)
        self._requests.remember("log", request_id, log)
        await self._forget()
        return log

    async def read(self, handle: Handle, *, clear: bool) -> list[Piece]:
        """Returns what a log has, and with `clear` empties it. Raises `FailedPrecondition` `HANDLE_STALE`."""
        log = self.logs.get(handle)
        self._shared.collect_writes(keep=True)
        self._collect(log.ranges)
        found = log.read(clear=clear)
        if clear:
            await self._forget()
        return found

    def stop(self, handle: Handle) -> None:
        """Ends a log. Raises `FailedPrecondition` `HANDLE_STALE`."""
        self.logs.stop(self.logs.get(handle))
        self._shared.collect_writes(keep=bool(self.logs.entries()))

    def count_owned(self, owner: str) -> int:
        """Returns how many logs belong to a session's owner."""
        return sum(log.owner == owner for log in self.logs.entries())

    def free_owned(self, owner: str) -> None:
        """Ends the logs of an owner that did not come back."""
        for log in self.logs.entries():
            if log.owner == owner:
                self.logs.stop(log)
        self._shared.collect_writes(keep=bool(self.logs.entries()))

    def _collect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Takes the marks of ranges off the bus and gives them to all logs."""
        for first, count in ranges:
            for start in range(first, first + count, _AT_ONCE):
                self.logs.note(self._bus.collect_dirty(start, min(_AT_ONCE, first + count - start)))
