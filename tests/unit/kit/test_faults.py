"""The fault table: kinds, requests, idempotency, expiry."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lamina_kit.errors import FailedPrecondition, InvalidArgument, LaminaError, NotFound
from lamina_kit.faults.kinds import Breakage, FaultKind, Parameter
from lamina_kit.faults.table import FaultState, FaultTable, Wish
from lamina_kit.layer.state import LayerState
from lamina_kit.names import Pattern
from lamina_kit.operations.metrics_text import render
from lamina_kit.rng import Rng
from lamina_kit.telemetry.events import EventLog

DISK = Pattern("hosts/{host}/disks/{disk}")


class Disks:
    """Something that breaks: disks that are slow by a number of nanoseconds, or lose a sector once."""

    def __init__(self, clock: Any) -> None:
        self.slow: dict[str, int] = {}
        self.lost: list[str] = []
        self.gate: asyncio.Future[None] | None = None
        self.clock = clock
        self.events = EventLog("hardware", "h1", clock)
        self.table = FaultTable("h1", clock, Rng(3), self.events)
        self.table.register(
            FaultKind(
                "slow",
                DISK,
                "Slow.",
                self.slow_down,
                self.recover,
                (Parameter("ns", "delay", 1, 1000, default="10"), Parameter("mode", "what", choices=("read", "all"))),
            )
        )
        self.table.register(FaultKind("bad-sector", DISK, "Bad.", self.lose))

    async def slow_down(self, breakage: Breakage) -> dict[str, object]:
        if breakage.ids["disk"] == "none":
            raise NotFound("No such disk.", reason="DISK_UNKNOWN")
        if self.gate is not None:
            await self.gate
        self.slow[breakage.object] = breakage.numbers["ns"]
        return {"queue": 4}

    def recover(self, breakage: Breakage) -> None:
        del self.slow[breakage.object]

    async def lose(self, breakage: Breakage) -> dict[str, object]:
        if self.gate is not None:
            await self.gate
        self.lost.append(breakage.object)
        return {}


@pytest.fixture
def disks(manual_clock: Any) -> Disks:
    """Returns disks on a clock that stands still."""
    return Disks(manual_clock)


def wish(kind: str = "slow", disk: str = "d1", duration: int = 0, **parameters: object) -> Wish:
    """Returns a wish; `mode` is `all` unless given."""
    given = {"mode": "all", **parameters} if kind == "slow" else parameters
    return Wish(kind, f"hosts/h1/disks/{disk}", tuple((key, str(value)) for key, value in given.items()), duration)


async def test_a_fault_is_in_effect_until_cleared(disks: Disks) -> None:
    """Injecting breaks the thing with its parameters, clearing mends it, clearing again changes nothing."""
    fault = await disks.table.inject(wish(ns="0x20"), cause="t" * 32)
    assert disks.slow == {"hosts/h1/disks/d1": 32}
    assert fault.parameters == (("ns", "32"), ("mode", "all"))
    assert (fault.state, fault.effects, fault.end_ns) == (FaultState.ACTIVE, (("queue", "4"),), 0)
    await disks.table.clear(fault.name)
    assert disks.slow == {} and fault.state is FaultState.CLEARED
    assert (await disks.table.clear(fault.name)).state is FaultState.CLEARED


async def test_a_duration_ends_it_by_the_clock(disks: Disks) -> None:
    """A fault with a duration expires at its nanosecond, and its end is known from the start."""
    fault = await disks.table.inject(wish(duration=500))
    await asyncio.sleep(0)
    assert fault.end_ns == 500
    await disks.clock.advance(499)
    assert disks.table.list(active_only=True) == [fault]
    await disks.clock.advance(1)
    assert fault.state is FaultState.EXPIRED and disks.slow == {}


async def test_a_kind_that_does_not_last_is_done_at_once(disks: Disks) -> None:
    """It cannot be cleared or given a duration, and the same object may break so again."""
    first = await disks.table.inject(wish("bad-sector"))
    await disks.table.inject(wish("bad-sector"))
    assert first.state is FaultState.DONE and len(disks.lost) == 2
    with pytest.raises(FailedPrecondition, match="happens once") as caught:
        await disks.table.clear(first.name)
    assert caught.value.reason == "FAULT_NOT_CLEARABLE"
    with pytest.raises(InvalidArgument):
        await disks.table.inject(wish("bad-sector", duration=1))


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (wish("melt"), "FAULT_KIND_UNKNOWN"),
        (wish(ns=0), "FAULT_INVALID"),
        (wish(ns=1001), "FAULT_INVALID"),
        (wish(ns="ten"), "FAULT_INVALID"),
        (wish(ns="9" * 41), "FAULT_INVALID"),
        (wish(mode="write"), "FAULT_INVALID"),
        (Wish("slow", "hosts/h1/disks/d1"), "FAULT_INVALID"),
        (wish(depth=1), "FAULT_INVALID"),
        (Wish("slow", "hosts/h1/disks/d1", (("mode", "all"), ("mode", "all"))), "FAULT_INVALID"),
        (Wish("slow", "disks/d1", (("mode", "all"),)), "FAULT_INVALID"),
        (wish(duration=-1), "FAULT_INVALID"),
        (wish(disk="none"), "DISK_UNKNOWN"),
    ],
)
async def test_a_wrong_fault_is_refused_and_breaks_nothing(disks: Disks, asked: Wish, reason: str) -> None:
    """Unknown kinds, objects and parameters and values out of range are named; nothing is kept of them."""
    with pytest.raises(LaminaError) as caught:
        await disks.table.inject(asked)
    assert caught.value.reason == reason
    assert not disks.slow and not disks.table.list() and not len(disks.events)


async def test_a_parameter_that_is_missing_is_called_so(disks: Disks) -> None:
    """It is told from one that is no number."""
    with pytest.raises(InvalidArgument) as caught:
        await disks.table.inject(Wish("slow", "hosts/h1/disks/d1", (("ns", ""), ("mode", "all"))))
    assert [(item.field, item.description) for item in caught.value.violations] == [
        ("fault.parameters[ns]", "is missing")
    ]


async def test_an_object_breaks_once_in_one_way(disks: Disks) -> None:
    """A second active fault of a kind on an object is refused, also while the first begins; another object may."""
    disks.gate = asyncio.get_running_loop().create_future()
    first = asyncio.ensure_future(disks.table.inject(wish()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(FailedPrecondition) as caught:
        await disks.table.inject(wish())
    assert caught.value.reason == "FAULT_ACTIVE"
    disks.gate.set_result(None)
    await first
    await disks.table.inject(wish(disk="d2"))
    with pytest.raises(FailedPrecondition):
        await disks.table.inject(wish())


async def test_a_request_id_makes_it_idempotent(disks: Disks) -> None:
    """A repetition, even at the same time, answers with the same fault; with another wish it is refused."""
    both = await asyncio.gather(disks.table.inject(wish(), "r1"), disks.table.inject(wish(), "r1"))
    assert both[0] is both[1] and len(disks.table.list()) == 1
    with pytest.raises(InvalidArgument) as caught:
        await disks.table.inject(wish(ns=11), "r1")
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_a_refused_request_may_be_repeated(disks: Disks) -> None:
    """The request id of a fault that did not come about is free again."""
    with pytest.raises(NotFound):
        await disks.table.inject(wish(disk="none"), "r1")
    assert (await disks.table.inject(wish(), "r1")).state is FaultState.ACTIVE


@pytest.mark.real_time("counts turns in asyncio's own order")
async def test_a_caller_that_gives_up_leaves_nothing_half_broken(disks: Disks) -> None:
    """The injection goes on without its caller; the fault is in the table and can be cleared."""
    disks.gate = asyncio.get_running_loop().create_future()
    caller = asyncio.ensure_future(disks.table.inject(wish()))
    await asyncio.sleep(0)
    caller.cancel()
    disks.gate.set_result(None)
    for _ in range(3):
        await asyncio.sleep(0)
    (fault,) = disks.table.list(active_only=True)
    await disks.table.clear(fault.name)
    assert disks.slow == {}


async def test_each_step_is_an_event_with_its_cause(disks: Disks) -> None:
    """The log names fault, parameters and effects; the cause of injection is the call's trace, of the end the fault."""
    fault = await disks.table.inject(wish(), cause="a" * 32)
    await disks.table.clear(fault.name)
    begin, end = disks.events.list("hosts/h1/disks/d1")
    assert (begin.event, begin.cause, end.event, end.cause) == (
        "fault.injected",
        "a" * 32,
        "fault.cleared",
        fault.name,
    )
    assert dict(begin.inputs)["parameters"] == "ns=10 mode=all" and dict(begin.inputs)["effect_queue"] == "4"


async def test_an_object_that_is_gone_takes_its_faults_along(disks: Disks) -> None:
    """Its faults end without anything being undone, and their clocks stop."""
    fault = await disks.table.inject(wish(duration=100))
    disks.table.gone("hosts/h1/disks/d1")
    await disks.clock.advance(200)
    assert fault.state is FaultState.CLEARED and disks.slow == {"hosts/h1/disks/d1": 10}


async def test_old_faults_are_forgotten_and_active_ones_not(disks: Disks) -> None:
    """The latest 1000 ended faults are kept, beside the active ones."""
    active = await disks.table.inject(wish())
    for _ in range(1005):
        await disks.table.inject(wish("bad-sector"))
    assert disks.table.get(active.name) is active and len(disks.table.list()) == 1001


async def test_what_happens_once_may_happen_twice_at_a_time(disks: Disks) -> None:
    """A second fault of a kind that does not last does not wait for the first, and neither fails."""
    disks.gate = asyncio.get_running_loop().create_future()
    both = [asyncio.ensure_future(disks.table.inject(wish("bad-sector"))) for _ in range(2)]
    for _ in range(4):
        await asyncio.sleep(0)
    disks.gate.set_result(None)
    faults = await asyncio.gather(*both)
    assert [fault.state for fault in faults] == [FaultState.DONE] * 2 and len(disks.lost) == 2


async def test_the_gauge_counts_faults_in_force(manual_clock: Any) -> None:
    """One that was cleared, or happened once, is not in force any more."""
    state = LayerState("hardware", "h1", manual_clock, Rng(1))
    state.faults.register(FaultKind("bad-sector", DISK, "Bad.", lambda breakage: {}))
    state.faults.register(FaultKind("slow", DISK, "Slow.", lambda breakage: {}, lambda breakage: None))
    await state.faults.inject(wish("bad-sector"))
    slow = await state.faults.inject(Wish("slow", "hosts/h1/disks/d1"))
    assert 'lamina_layer_faults{host="h1",layer="hardware"} 1\n' in render(state.metrics.families())
    await state.faults.clear(slow.name)
    assert 'lamina_layer_faults{host="h1",layer="hardware"} 0\n' in render(state.metrics.families())
