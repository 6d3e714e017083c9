"""What ends the slices of KVM cores: late, never early, and only of the run that is still the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamina_hardware.io.kvm.slice_timer import Watch

SLICE = 1000


class Core:
    """A core as it is watched: what runs in it, and how often it was paused."""

    def __init__(self) -> None:
        self.run: tuple[object, int] | None = None
        self.paused = 0

    def slice_now(self) -> tuple[object, int, int] | None:
        """Returns the run that the test has put there."""
        return None if self.run is None else (*self.run, SLICE)

    def pause(self) -> None:
        """Counts it."""
        self.paused += 1


def test_a_slice_ends_when_a_run_was_seen_for_as_long() -> None:
    """A run is paused once it was in the core for its slice, again a slice later, and not before."""
    watch, core = Watch(), Core()
    watch.add(core)
    assert not watch.look(0)
    core.run = ("vcpu", 1)
    seen = []
    for now in (10, 10 + SLICE - 1, 10 + SLICE, 11 + SLICE, 10 + 2 * SLICE, 11 + 2 * SLICE):
        assert watch.look(now)
        seen.append(core.paused)
    assert seen == [0, 0, 1, 1, 1, 2]


def test_another_run_has_a_slice_of_its_own() -> None:
    """The next run of a context, and a run of another one, are not ended for the time of those before."""
    watch, core = Watch(), Core()
    watch.add(core)
    for now, run in enumerate((("a", 1), ("a", 2), ("b", 2), ("b", 3))):
        core.run = run
        assert watch.look(now * SLICE)
    core.run = None
    assert not watch.look(5 * SLICE)
    assert core.paused == 0


async def test_a_watch_that_sleeps_is_woken(eventually: Callable[..., Any]) -> None:
    """A watch sleeps until something runs, ends that run's slice, and sleeps again when nothing runs."""
    watch, core = Watch(), Core()
    watch.add(core)
    assert watch.sleeps
    for turn in (1, 2):
        core.run = ("vcpu", turn)
        if watch.sleeps:
            watch.wake()
        paused = core.paused
        await eventually(lambda paused=paused: core.paused > paused, "the slice ends")
        core.run = None
        await eventually(lambda: watch.sleeps, "nothing runs")
    watch.stop()
