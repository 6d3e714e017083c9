"""The clock of a service process, and how the time of a stack goes on."""

from __future__ import annotations

from pathlib import Path

from lamina_kit.process.clock import START_FILE, JoinedClock, end_time, ground_clock
from lamina_kit.process.main import ids_of

SECOND = 10**9


def test_a_joined_clock_shows_the_time_of_its_stack() -> None:
    """After joining, both the time and the wall time at the stack's start are the stack's."""
    clock = JoinedClock()
    before = clock.wall_ns()
    clock.join(5000 * SECOND)
    assert 5000 * SECOND <= clock.now_ns() < 5060 * SECOND
    assert abs(clock.wall_ns() - before) < 60 * SECOND


def test_time_goes_on_after_a_kill(tmp_path: Path) -> None:
    """A process that comes back without having stopped in order continues the time of its predecessor."""
    first = ground_clock(tmp_path)
    then = first.now_ns()
    second = ground_clock(tmp_path)
    assert second.now_ns() >= then
    assert abs(second.now_ns() - first.now_ns()) < 60 * SECOND


def test_time_ends_with_an_orderly_stop(tmp_path: Path) -> None:
    """The next start after an orderly stop counts from 0."""
    ground_clock(tmp_path)
    end_time(tmp_path)
    assert not (tmp_path / START_FILE).exists()
    assert ground_clock(tmp_path).now_ns() < SECOND


def test_a_cut_or_foreign_start_is_passed_over(tmp_path: Path) -> None:
    """A file that was cut, or is of another boot of the machine, starts a new time."""
    for text in ("", "{", '{"kernel_boot": "another", "start_ns": 5}', '{"start_ns": 1}', "[]"):
        (tmp_path / START_FILE).write_text(text)
        assert ground_clock(tmp_path).now_ns() < SECOND


def test_each_start_of_a_seeded_process_has_its_own_ids() -> None:
    """The same start of the same seed makes the same ids; the start after a kill makes others, as without a seed."""
    first, again, second = ids_of(7, 1), ids_of(7, 1), ids_of(7, 2)
    made = first.id("boot")
    assert again.id("boot") == made and second.id("boot") != made
    assert ids_of(None, 1).id("boot") != ids_of(None, 1).id("boot")
