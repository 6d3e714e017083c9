"""Watches the machine for memory that fails, and takes it out of use (ADR 0012, who learns of physical faults).

    hardware ── WatchMachine: memory errors so far, `current`, news ──▶ uncorrected ──▶ the engine's `offline_frames`

What is told and acted upon is never asked for again; a stream that breaks goes on after that. Corrected errors leave
their bytes as they were: nothing is done about them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from lamina.hardware.v1 import topology_pb2

from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError
from lamina_kit.paging import PAGE_SHIFT
from lamina_kit.rpc.retry import is_lost
from lamina_kit.rpc.status import rpc_error

PAUSE_NS = 1_000_000_000
"""Pause before a stream that ended is asked for again."""
FORGOTTEN = "EVENTS_FORGOTTEN"
_NEVER = ("UNIMPLEMENTED", "PERMISSION_DENIED", "INVALID_ARGUMENT")
"""Codes of refusals that no waiting mends."""

TakeOut = Callable[[int], Awaitable[object]]
"""Takes a frame out of use whose bytes are lost."""


Record = Callable[..., object]
"""Writes into the layer's event log."""


class FailingMemory:
    """Follows what one machine tells. `hosts` is a stub of the hardware's `Hosts`; `frames`: those that the MMU has."""

    def __init__(self, hosts: Any, clock: Clock, host: str, frames: int, take_out: TakeOut, record: Record) -> None:
        self._hosts = hosts
        self._clock = clock
        self._subject = f"hosts/{host}"
        self._frames = frames
        self._take_out = take_out
        self._record = record
        self._after = 0

    async def follow(self) -> None:
        """Watches until it is cancelled; returns when the hardware does not tell such things at all."""
        while True:
            try:
                await self._watch()
            except grpc.aio.AioRpcError as failure:
                error = rpc_error(failure)
                if error.reason == FORGOTTEN:
                    self._after = 0
                    continue
                if error.code in _NEVER:
                    self._tell("machine.unwatched", error)
                    return
            except LaminaError as error:  # a shootdown got lost: the hardware is away
                self._tell("offlining.failed", error)
            await self._clock.sleep_ns(PAUSE_NS)

    async def _watch(self) -> None:
        """Acts on what is told until the stream ends; what it is resumed after is what was acted upon."""
        stream = self._hosts.WatchMachine(topology_pb2.WatchMachineRequest(after_sequence=self._after))
        is_current = self._after > 0
        try:
            async for event in stream:
                kind = event.WhichOneof("event")
                if kind == "memory" and not event.memory.corrected:
                    await self._offline(event.memory)
                is_current = is_current or kind == "current"
                if is_current:  # the present state has no order that one could go on in
                    self._after = max(self._after, event.sequence)
        finally:
            stream.cancel()

    async def _offline(self, failed: topology_pb2.MemoryError) -> None:
        for frame in self._touched(failed):
            try:
                await self._take_out(frame)
            except LaminaError as error:
                if is_lost(error):
                    raise
                self._tell("offlining.failed", error)

    def _touched(self, failed: topology_pb2.MemoryError) -> Iterable[int]:
        """Returns the frames of an error that are the MMU's."""
        first, last = failed.address >> PAGE_SHIFT, failed.address + max(failed.size_bytes, 1) - 1 >> PAGE_SHIFT
        return range(first, min(last + 1, self._frames))

    def _tell(self, kind: str, error: LaminaError) -> None:
        self._record(self._subject, kind, reason=error.reason, message=error.message)
