"""When a clock behind a gateway goes by itself, how far, and which advances it is asked for in vain."""

from __future__ import annotations

import pytest

from lamina_kit.clock_control import (
    MAX_ADVANCE_NS,
    MAX_RATE_PERMILLE,
    MAX_TIME_NS,
    MachineControl,
    check_interval,
    check_rate,
    control_of,
    target_of,
)
from lamina_kit.errors import FailedPrecondition, InvalidArgument, LaminaError, OutOfRange
from lamina_kit.gateway.pace import SETTLE_NS, Pace, waits_for_time

SECOND = 10**9


# ── pace ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stepped_clock_goes_while_a_call_waits() -> None:
    """It counts from the moment at which the first call waits, and stands again when none does."""
    pace = Pace("stepped")
    assert pace.due_ns(100, 5 * SECOND, 0) == 100
    assert pace.due_ns(100, 5 * SECOND, 1) == 100
    assert pace.due_ns(100, 8 * SECOND, 1) == 100 + 3 * SECOND
    assert pace.due_ns(3 * SECOND, 9 * SECOND, 0) == 3 * SECOND
    assert pace.due_ns(3 * SECOND, 20 * SECOND, 1) == 3 * SECOND


def test_a_stepped_clock_of_rate_zero_stands_still() -> None:
    """Rate 0 means that calls from outside do not make it go."""
    assert not Pace("stepped", rate_permille=0).goes(5)


def test_a_scaled_clock_goes_at_its_rate() -> None:
    """Virtual time is real time times the rate, in whole nanoseconds; the next look is when the next event is due."""
    pace = Pace("scaled", rate_permille=2500)
    assert pace.due_ns(0, 0, 0) == 0
    assert pace.due_ns(0, 2 * SECOND, 0) == 5 * SECOND
    assert pace.real_until(10 * SECOND, 2 * SECOND) == 2 * SECOND
    assert pace.real_until(1, 10 * SECOND) == 0
    assert Pace("scaled", 3).real_until(7, 0) == 0, "nothing is owed before the first look"


def test_a_change_of_rate_owes_nothing() -> None:
    """After a change the clock goes on from where it stands: it neither jumps nor catches up."""
    pace = Pace("scaled", rate_permille=1000)
    pace.due_ns(0, 0, 0)
    pace.rate_permille = 1_000_000
    pace.rebase()
    assert pace.due_ns(SECOND, 10 * SECOND, 0) == SECOND
    assert pace.due_ns(SECOND, 10 * SECOND + 1000, 0) == SECOND + 1_000_000


def test_a_paused_clock_does_not_go_by_itself() -> None:
    """Whatever its mode, it goes by advances alone."""
    for mode in ("scaled", "stepped", "virtual"):
        pace = Pace(mode, paused=True)
        assert not pace.goes(3) and pace.due_ns(7, 10**12, 3) == 7
        assert (pace.free_until(1) or 0) < 0


def test_a_virtual_clock_runs_while_there_is_work_from_outside() -> None:
    """Without a limit while a call waits for its answer, a minute beyond the last input or answer, and no further."""
    pace = Pace("virtual", active_ns=5)
    assert pace.free_until(1) is None
    assert pace.free_until(0) == 5 + SETTLE_NS
    assert not pace.goes(1), "it has no rate"


def test_no_clock_goes_beyond_what_a_log_can_hold() -> None:
    """The fastest clock ends at year 250 and does not overflow."""
    pace = Pace("scaled", rate_permille=MAX_RATE_PERMILLE)
    pace.due_ns(0, 0, 0)
    assert pace.due_ns(0, 10**18, 0) == MAX_TIME_NS


@pytest.mark.parametrize(
    ("method", "waits"),
    [
        ("/lamina.orchestrator.v1.Objects/WatchObjects", False),
        ("/lamina.common.v1.Layer/OpenSession", False),
        ("/lamina.container_runtime.v1.Containers/Exec", True),
        ("/a.Watcher/Get", True),
        ("/a.B/Rewatch", True),
    ],
)
def test_streams_that_stand_open_do_not_make_a_clock_go(method: str, waits: bool) -> None:
    """A watch or a session is open for as long as its caller lives; that is no reason for time to pass."""
    assert waits_for_time(method) is waits


# ── what can be asked of a clock ─────────────────────────────────────────────────────────────────────────────────────


def test_an_advance_has_a_target() -> None:
    """A duration counts from now, a time from the stack's start; no time at all may pass."""
    assert target_of(10, 5, None) == 15
    assert target_of(10, None, 10) == 10
    assert target_of(10, 0, None) == 10
    assert target_of(0, MAX_ADVANCE_NS, None) == MAX_ADVANCE_NS


@pytest.mark.parametrize(
    ("now", "duration", "time", "kind", "reason", "field"),
    [
        (0, None, None, InvalidArgument, "CLOCK_TARGET_MISSING", "target"),
        (10, -1, None, OutOfRange, "CLOCK_BACKWARDS", "duration_ns"),
        (10, None, 9, OutOfRange, "CLOCK_BACKWARDS", "time_ns"),
        (0, MAX_ADVANCE_NS + 1, None, OutOfRange, "CLOCK_ADVANCE_TOO_LONG", "duration_ns"),
        (MAX_TIME_NS - 5, None, MAX_TIME_NS + 1, OutOfRange, "CLOCK_ADVANCE_TOO_LONG", "time_ns"),
        (0, 2**63 - 1, None, OutOfRange, "CLOCK_ADVANCE_TOO_LONG", "duration_ns"),
    ],
)
def test_an_impossible_advance_names_its_field(
    now: int, duration: int | None, time: int | None, kind: type[LaminaError], reason: str, field: str
) -> None:
    """Backwards, too far and nowhere are refused, each with the field that is wrong and what to do."""
    with pytest.raises(kind) as caught:
        target_of(now, duration, time)
    assert caught.value.reason == reason and caught.value.next_step
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("mode", "rate", "fits"),
    [
        ("scaled", 1, True), ("scaled", 0, False), ("scaled", MAX_RATE_PERMILLE, True),
        ("scaled", MAX_RATE_PERMILLE + 1, False), ("stepped", 0, True), ("stepped", -1, False),
        ("virtual", 1000, False),
    ],
)  # fmt: skip
def test_each_mode_has_its_rates(mode: str, rate: int, fits: bool) -> None:
    """A scaled clock goes at 1 thousandth at least, a stepped one may stand, a virtual one has no rate."""
    if fits:
        check_rate(mode, rate)
        return
    with pytest.raises(InvalidArgument) as caught:
        check_rate(mode, rate)
    assert caught.value.reason == "CLOCK_RATE_INVALID"
    assert [violation.field for violation in caught.value.violations] == ["rate_permille"]


def test_a_watch_has_an_interval_of_sense() -> None:
    """10 ms to a minute, or the default."""
    for interval in (0, 10, 60_000):
        check_interval(interval)
    for interval in (-1, 9, 60_001):
        with pytest.raises(InvalidArgument, match="cannot be watched every"):
            check_interval(interval)


async def test_a_clock_that_nobody_controls_is_read_alone(manual_clock: object) -> None:
    """It tells its time, takes a change of nothing, and refuses every other with the way out."""
    control = control_of(manual_clock)  # type: ignore[arg-type]
    assert isinstance(control, MachineControl)
    assert control.read().mode == "stepped" and control.read().rate_permille == 0
    assert (await control.change(None, None)).now_ns == 0
    for refused in (control.change(5, None), control.change(None, False), control.advance(1, None)):
        with pytest.raises(FailedPrecondition) as caught:
            await refused
        assert caught.value.reason == "CLOCK_NOT_STEPPED" and "--clock stepped" in caught.value.next_step
