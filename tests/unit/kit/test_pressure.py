"""Pressure: how long work waited, over windows, without sampling."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina_kit.telemetry.pressure import WINDOWS_S, Pressure

_S = 1_000_000_000


def test_half_of_the_time() -> None:
    """Waiting five of ten seconds is half of the window of ten and a twelfth of the one of sixty."""
    pressure = Pressure()
    pressure.note(100 * _S, waiting=1, going=1)
    pressure.note(105 * _S, waiting=0, going=1)
    read = pressure.read(110 * _S)
    assert (read.some_ns, read.full_ns) == (5 * _S, 0)
    assert read.some_ppm == (500_000, 83_333, 16_666)
    assert read.full_ppm == (0, 0, 0)


def test_all_wait() -> None:
    """When nobody can go on, that time is full pressure as well."""
    pressure = Pressure()
    pressure.note(0, waiting=2, going=0)
    pressure.note(4 * _S, waiting=1, going=1)
    read = pressure.read(10 * _S)
    assert (read.some_ns, read.full_ns) == (10 * _S, 4 * _S)
    assert (read.some_ppm[0], read.full_ppm[0]) == (1_000_000, 400_000)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2), st.integers(0, 2)), max_size=60), st.integers(0, 400))
def test_as_counted_second_by_second(changes: list[tuple[int, int, int]], rest: int) -> None:
    """Over whole seconds, every window's share is what counting each second gives."""
    pressure, seconds, now = Pressure(), [], 0
    state = (0, 0)
    for gap, waiting, going in changes:
        seconds += [state] * gap
        now += gap
        state = (waiting, going)
        pressure.note(now * _S, waiting, going)
    seconds += [state] * rest
    read = pressure.read((now + rest) * _S)
    for window, some, full in zip(WINDOWS_S, read.some_ppm, read.full_ppm, strict=True):
        last = seconds[-window:] if window else []
        assert some == sum(waiting > 0 for waiting, _ in last) * 1_000_000 // window
        assert full == sum(waiting > 0 and not going for waiting, going in last) * 1_000_000 // window
    assert read.some_ns == sum(waiting > 0 for waiting, _ in seconds) * _S


def test_many_changes_stay_bounded() -> None:
    """Very many changes keep few corners, and totals stay exact."""
    pressure = Pressure()
    for step in range(200_000):
        pressure.note(step * 1_000_000, waiting=step % 2, going=1)
    read = pressure.read(200 * _S)
    assert read.some_ns == 100 * _S
    assert abs(read.some_ppm[0] - 500_000) < 2_000


def test_any_window_can_be_asked_for() -> None:
    """The time waited within the last nanoseconds is that of the window alone, a wait that goes on included."""
    pressure = Pressure()
    pressure.note(2 * _S, waiting=1, going=0)
    pressure.note(3 * _S, waiting=0, going=1)
    pressure.note(4 * _S, waiting=1, going=1)
    assert [pressure.waited(9 * _S // 2, window) for window in (_S // 4, _S, 2 * _S, 10 * _S)] == [
        _S // 4,
        _S // 2,
        _S,
        3 * _S // 2,
    ]
