"""`lamina.hardware.v1.Clock`: read, set, advanced and watched, on the machine's clock and on one that is stepped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.hardware.v1 import clock_pb2 as pb
from lamina.hardware.v1 import clock_pb2_grpc as rpc
from tests.contract import outside

from lamina_hardware.config import HardwareConfig
from lamina_hardware.server import build
from lamina_hardware.serving.clock import SERVICE_NAME
from lamina_kit.clock import RealClock
from lamina_kit.clock_control import MAX_ADVANCE_NS, MAX_RATE_PERMILLE
from lamina_kit.errors import LaminaError
from lamina_kit.gateway.gateway import Gateway
from lamina_kit.gateway.log import EventTally
from lamina_kit.gateway.pace import Pace
from lamina_kit.gateway.ports import serve_port
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc import status
from lamina_kit.rpc.channel import connect
from lamina_kit.rpc.inproc.local import LocalServer
from lamina_kit.virtual.clock import WALL_EPOCH_NS, VirtualClock
from lamina_kit.virtual.loop import VirtualLoop

pytestmark = pytest.mark.real_time("callers outside of a clock: they live on a real loop")

SECOND = 10**9
SEED = 11


def machine(folder: Path, clock: Any) -> tuple[Any, LayerState]:
    """Returns a small machine that lives on a clock, not started yet."""
    layer = LayerState("hardware", "h1", clock, Rng(7), engine="model")
    environment = Environment("h1", clock, Rng(7), folder, layer, bus_path=folder / "ram")
    return build(environment, HardwareConfig(memory_bytes=64 << 20, run_pages=64)), layer


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[rpc.ClockStub]:
    """The clock service of a machine in real time, or of the one that runs outside."""
    if outside.targets():
        async with outside.channels()["hardware"] as channel:
            yield rpc.ClockStub(channel)
        return
    service, layer = machine(tmp_path, RealClock())
    await service.start()
    yield rpc.ClockStub(local(service, layer))
    await service.stop()


@dataclass
class Stepped:
    """A machine on a stepped clock, from outside."""

    loop: VirtualLoop
    clock: rpc.ClockStub


async def behind_gateway(folder: Path, pace: Pace) -> AsyncIterator[Stepped]:
    """Yields a machine on a virtual loop, served as `lamina up --clock` serves it."""
    loop = VirtualLoop(SEED)
    service, layer = machine(folder, VirtualClock(loop, mode=pace.mode))
    gateway = Gateway(loop, pace, None, EventTally())

    async def start() -> dict[str, LocalServer]:
        await service.start()
        return {"hardware": local(service, layer).server}

    gateway.add(await gateway.within(start))
    served = await serve_port(gateway, service, [f"unix:{folder}/hw.sock"], layer, beside=(SERVICE_NAME,))
    async with connect(served.addresses[0]) as channel:
        yield Stepped(loop, rpc.ClockStub(channel))
    await gateway.shut(0)
    await served.stop(0)
    await gateway.stop(service.stop)


@pytest.fixture
async def stepped(short_dir: Path) -> AsyncIterator[Stepped]:
    """A machine on a clock that stands still until it is advanced."""
    async for found in behind_gateway(short_dir, Pace("stepped")):
        yield found


@pytest.fixture
async def virtual(short_dir: Path) -> AsyncIterator[Stepped]:
    """A machine on a clock that goes as fast as the work allows."""
    async for found in behind_gateway(short_dir, Pace("virtual")):
        yield found


async def refusal(call: Any) -> LaminaError:
    """Returns the error with which a call ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status.rpc_error(caught.value)


async def read(watch: Any) -> pb.ClockState:
    """Returns the next reading of a watch."""
    state: pb.ClockState = await watch.read()
    return state


# ── the machine's clock ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_machine_s_clock_is_told(real: rpc.ClockStub) -> None:
    """Its time goes on by itself, at the rate of real time; it has no seed and knows of no next event."""
    first = await real.GetClock(pb.GetClockRequest())
    second = await real.GetClock(pb.GetClockRequest())
    assert first.mode == pb.CLOCK_MODE_REAL and first.rate_permille == 1000 and not first.paused
    assert 0 <= first.now_ns < second.now_ns and first.wall_time_ns > WALL_EPOCH_NS
    assert not first.HasField("seed") and not first.HasField("next_event_time_ns")
    assert (first.waiting_call_count, first.advance_count, first.behind_ns) == (0, 0, 0)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("AdvanceClock", pb.AdvanceClockRequest(duration_ns=SECOND)),
        ("AdvanceClock", pb.AdvanceClockRequest()),
        ("SetClock", pb.SetClockRequest(rate_permille=1000)),
        ("SetClock", pb.SetClockRequest(paused=False)),
    ],
)
async def test_nobody_moves_the_machine_s_clock(real: rpc.ClockStub, method: str, request_: Any) -> None:
    """Setting and advancing it fail, and the error says which stack could be."""
    error = await refusal(getattr(real, method)(request_))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "CLOCK_NOT_STEPPED")
    assert error.metadata["mode"] == "real" and "--clock stepped" in error.next_step


async def test_a_change_of_nothing_is_no_change(real: rpc.ClockStub) -> None:
    """A request without fields returns the clock, whatever it is."""
    assert (await real.SetClock(pb.SetClockRequest())).mode == pb.CLOCK_MODE_REAL


async def test_the_machine_s_clock_is_watched(real: rpc.ClockStub) -> None:
    """A watch begins with the time and goes on."""
    watch = real.WatchClock(pb.WatchClockRequest(interval_ms=10))
    first, second = await read(watch), await read(watch)
    assert second.now_ns > first.now_ns
    watch.cancel()


@pytest.mark.parametrize("interval", [-1, 9, 60_001])
async def test_a_watch_has_an_interval_of_sense(real: rpc.ClockStub, stepped: Stepped, interval: int) -> None:
    """An interval out of its range is refused on every clock, with the field."""
    for clock in (real, stepped.clock):
        error = await refusal(clock.WatchClock(pb.WatchClockRequest(interval_ms=interval)).read())
        assert error.code == "INVALID_ARGUMENT"
        assert [violation.field for violation in error.violations] == ["interval_ms"]


# ── a stepped clock ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stepped_clock_stands(stepped: Stepped) -> None:
    """Reading it lets no time pass; wall time is that of a fixed date."""
    first = await stepped.clock.GetClock(pb.GetClockRequest())
    second = await stepped.clock.GetClock(pb.GetClockRequest())
    assert first == second
    assert first.mode == pb.CLOCK_MODE_STEPPED and first.seed == SEED
    assert first.wall_time_ns == WALL_EPOCH_NS + first.now_ns


async def test_a_duration_counts_from_now_and_a_time_from_the_start(stepped: Stepped) -> None:
    """Both targets are reached to the nanosecond; advancing to now is an advance of nothing."""
    start = (await stepped.clock.GetClock(pb.GetClockRequest())).now_ns
    done = await stepped.clock.AdvanceClock(pb.AdvanceClockRequest(duration_ns=3600 * SECOND))
    assert (done.start_time_ns, done.clock.now_ns) == (start, start + 3600 * SECOND)
    done = await stepped.clock.AdvanceClock(pb.AdvanceClockRequest(time_ns=7200 * SECOND + 1))
    assert done.clock.now_ns == stepped.loop.now_ns == 7200 * SECOND + 1
    done = await stepped.clock.AdvanceClock(pb.AdvanceClockRequest(time_ns=7200 * SECOND + 1))
    assert done.start_time_ns == done.clock.now_ns
    assert (await stepped.clock.AdvanceClock(pb.AdvanceClockRequest(duration_ns=0))).clock.now_ns == done.clock.now_ns


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        (pb.AdvanceClockRequest(), "INVALID_ARGUMENT", "CLOCK_TARGET_MISSING", "target"),
        (pb.AdvanceClockRequest(duration_ns=-1), "OUT_OF_RANGE", "CLOCK_BACKWARDS", "duration_ns"),
        (pb.AdvanceClockRequest(time_ns=SECOND - 1), "OUT_OF_RANGE", "CLOCK_BACKWARDS", "time_ns"),
        (pb.AdvanceClockRequest(time_ns=-(2**63)), "OUT_OF_RANGE", "CLOCK_BACKWARDS", "time_ns"),
        (
            pb.AdvanceClockRequest(duration_ns=MAX_ADVANCE_NS + 1),
            "OUT_OF_RANGE", "CLOCK_ADVANCE_TOO_LONG", "duration_ns",
        ),
        (pb.AdvanceClockRequest(time_ns=2**63 - 1), "OUT_OF_RANGE", "CLOCK_ADVANCE_TOO_LONG", "time_ns"),
    ],
)  # fmt: skip
async def test_an_impossible_advance_moves_nothing(
    stepped: Stepped, request_: pb.AdvanceClockRequest, code: str, reason: str, field: str
) -> None:
    """Backwards, too far and nowhere end with the reason and the field of the contract, and the clock stands."""
    await stepped.clock.AdvanceClock(pb.AdvanceClockRequest(time_ns=SECOND))
    error = await refusal(stepped.clock.AdvanceClock(request_))
    assert (error.code, error.reason) == (code, reason) and error.next_step
    assert [violation.field for violation in error.violations] == [field]
    assert stepped.loop.now_ns == SECOND


async def test_the_longest_advance_is_ten_years(stepped: Stepped) -> None:
    """An idle machine passes ten years at once."""
    done = await stepped.clock.AdvanceClock(pb.AdvanceClockRequest(duration_ns=MAX_ADVANCE_NS), timeout=60)
    assert done.clock.now_ns == done.start_time_ns + MAX_ADVANCE_NS


async def test_rate_and_pause_are_set_apart(stepped: Stepped) -> None:
    """A field that is not given stays as it is; setting it again changes nothing."""
    assert (await stepped.clock.SetClock(pb.SetClockRequest(rate_permille=0))).rate_permille == 0
    state = await stepped.clock.SetClock(pb.SetClockRequest(paused=True))
    assert state.paused and state.rate_permille == 0
    assert await stepped.clock.SetClock(pb.SetClockRequest(paused=True)) == state
    assert not (await stepped.clock.SetClock(pb.SetClockRequest(paused=False, rate_permille=5))).paused


@pytest.mark.parametrize("rate", [-1, MAX_RATE_PERMILLE + 1, 2**63 - 1])
async def test_a_rate_out_of_range_is_refused(stepped: Stepped, rate: int) -> None:
    """The rate stays as it was, and the error names the field."""
    error = await refusal(stepped.clock.SetClock(pb.SetClockRequest(rate_permille=rate, paused=True)))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "CLOCK_RATE_INVALID")
    assert [violation.field for violation in error.violations] == ["rate_permille"]
    state = await stepped.clock.GetClock(pb.GetClockRequest())
    assert state.rate_permille == 1000 and not state.paused


async def test_a_virtual_clock_has_no_rate(virtual: Stepped) -> None:
    """It says 0, and a rate for it is refused; it can be paused and advanced."""
    state = await virtual.clock.GetClock(pb.GetClockRequest())
    assert state.mode == pb.CLOCK_MODE_VIRTUAL and state.rate_permille == 0
    error = await refusal(virtual.clock.SetClock(pb.SetClockRequest(rate_permille=1000)))
    assert error.reason == "CLOCK_RATE_INVALID"
    assert (await virtual.clock.SetClock(pb.SetClockRequest(paused=True))).paused
    done = await virtual.clock.AdvanceClock(pb.AdvanceClockRequest(duration_ns=SECOND))
    assert done.clock.now_ns == done.start_time_ns + SECOND


async def test_a_watch_tells_each_advance(stepped: Stepped) -> None:
    """The clock as it is at once, then as it has become; the watch itself lets no time pass."""
    watch = stepped.clock.WatchClock(pb.WatchClockRequest(interval_ms=10))
    assert (await read(watch)).now_ns == stepped.loop.now_ns
    following = asyncio.ensure_future(read(watch))
    done = await stepped.clock.AdvanceClock(pb.AdvanceClockRequest(duration_ns=SECOND))
    assert (await following).now_ns == done.clock.now_ns
    watch.cancel()


async def test_an_advance_whose_deadline_passes_stays_where_it_came_to(stepped: Stepped) -> None:
    """The clock of a busy machine is somewhere on its way, and can be advanced from there."""
    loop = stepped.loop

    def again() -> None:
        loop.call_at_ns(loop.now_ns + 1000, again)

    loop.call_soon(again)
    error = await refusal(stepped.clock.AdvanceClock(pb.AdvanceClockRequest(time_ns=MAX_ADVANCE_NS), timeout=0.2))
    assert error.code == "DEADLINE_EXCEEDED"

    while (await stepped.clock.GetClock(pb.GetClockRequest())).advance_count:
        pass  # the port has not told it yet that its caller left
    reached = loop.now_ns
    assert 0 < reached < MAX_ADVANCE_NS
    done = await stepped.clock.AdvanceClock(pb.AdvanceClockRequest(duration_ns=1))
    assert done.start_time_ns == reached
