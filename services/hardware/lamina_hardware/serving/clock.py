"""The stack's clock as a service: `lamina.hardware.v1.Clock`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from grpc import aio
from lamina.hardware.v1 import clock_pb2 as pb
from lamina.hardware.v1 import clock_pb2_grpc as rpc

from lamina_kit.clock import Clock
from lamina_kit.clock_control import ClockReading, control_of

SERVICE_NAME = "lamina.hardware.v1.Clock"

_MODES = {
    "real": pb.CLOCK_MODE_REAL,
    "scaled": pb.CLOCK_MODE_SCALED,
    "stepped": pb.CLOCK_MODE_STEPPED,
    "virtual": pb.CLOCK_MODE_VIRTUAL,
}


class ClockServicer(rpc.ClockServicer):
    """Serves a clock through whoever controls it at the moment of the call."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def GetClock(self, request: pb.GetClockRequest, context: aio.ServicerContext[Any, Any]) -> pb.ClockState:
        """Returns the clock."""
        return state(control_of(self._clock).read())

    async def SetClock(self, request: pb.SetClockRequest, context: aio.ServicerContext[Any, Any]) -> pb.ClockState:
        """Changes how the clock goes."""
        rate = request.rate_permille if request.HasField("rate_permille") else None
        paused = request.paused if request.HasField("paused") else None
        return state(await control_of(self._clock).change(rate, paused))

    async def AdvanceClock(
        self, request: pb.AdvanceClockRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.AdvanceClockResponse:
        """Lets time pass."""
        kind = request.WhichOneof("target")
        done = await control_of(self._clock).advance(
            request.duration_ns if kind == "duration_ns" else None, request.time_ns if kind == "time_ns" else None
        )
        return pb.AdvanceClockResponse(
            start_time_ns=done.start_ns, clock=state(done.clock), real_duration_ns=done.real_ns
        )

    async def WatchClock(
        self, request: pb.WatchClockRequest, context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.ClockState]:
        """Streams the clock."""
        async for reading in control_of(self._clock).watch(request.interval_ms):
            yield state(reading)


def state(reading: ClockReading) -> pb.ClockState:
    """Returns a reading of the clock as the contract has it."""
    return pb.ClockState(
        mode=_MODES[reading.mode],
        now_ns=reading.now_ns,
        wall_time_ns=reading.wall_ns,
        rate_permille=reading.rate_permille,
        paused=reading.paused,
        next_event_time_ns=reading.next_event_ns,
        seed=reading.seed,
        waiting_call_count=reading.waiting_calls,
        advance_count=reading.advances,
        behind_ns=reading.behind_ns,
    )
