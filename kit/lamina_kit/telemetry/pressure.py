"""How long work waited for a resource, as /proc/pressure has it, in closed form: nothing samples, nothing ticks.

The time that was spent waiting is a function of time that rises with slope 1 while somebody waits and stays level
otherwise. Only its corners are kept, so a window's share is the difference of two of its values. Source: Linux,
Documentation/accounting/psi.rst; unlike there the averages are those of the window itself, not decaying ones.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

WINDOWS_S = (10, 60, 300)
_NS = 1_000_000_000
_LONGEST_NS = WINDOWS_S[-1] * _NS
_MILLION = 1_000_000
_CORNERS = 4096


@dataclass(frozen=True, slots=True)
class Reading:
    """Times in nanoseconds since the beginning; shares of the windows of 10, 60 and 300 s, in parts a million."""

    some_ns: int
    full_ns: int
    some_ppm: tuple[int, ...]
    full_ppm: tuple[int, ...]


class Pressure:
    """Pressure on one resource of those that are measured together.

    Tell every change of how many wait and how many have work and do not wait; `now_ns` must not fall.
    """

    def __init__(self, now_ns: int = 0) -> None:
        self._some = _Slope(now_ns)
        self._full = _Slope(now_ns)

    def note(self, now_ns: int, waiting: int, going: int) -> None:
        """Says that from now on `waiting` wait and `going` have work and could do it."""
        self._some.turn(now_ns, waiting > 0)
        self._full.turn(now_ns, waiting > 0 and going == 0)

    def read(self, now_ns: int) -> Reading:
        """Returns times and shares as of now. A window that reaches before the beginning counts that as no waiting."""
        return Reading(
            self._some.value(now_ns), self._full.value(now_ns), self._some.shares(now_ns), self._full.shares(now_ns)
        )

    def waited(self, now_ns: int, window_ns: int) -> int:
        """Returns for how many nanoseconds of the last `window_ns`, at most 300 s, some waited."""
        return self._some.risen(now_ns, window_ns)


class _Slope:
    """A function of time with slope 0 or 1, known by its corners; those before the longest window are forgotten.

    More than 4096 corners within the longest window are thinned: between two that are kept the function is then taken
    as straight, which errs by less than the time between them.
    """

    def __init__(self, now_ns: int) -> None:
        self._times = [now_ns]
        self._values = [0]
        self._rises = False

    def turn(self, now_ns: int, rises: bool) -> None:
        """Sets the slope from now on."""
        if rises == self._rises:
            return
        value = self.value(now_ns)
        self._rises = rises
        if now_ns > self._times[-1]:
            self._times.append(now_ns)
            self._values.append(value)
            self._forget(now_ns)

    def value(self, now_ns: int) -> int:
        """Returns the function at a time that is not before the last corner."""
        return self._values[-1] + (now_ns - self._times[-1] if self._rises else 0)

    def shares(self, now_ns: int) -> tuple[int, ...]:
        """Returns by how much it rose in each window, in parts a million of the window."""
        return tuple(self.risen(now_ns, window * _NS) * _MILLION // (window * _NS) for window in WINDOWS_S)

    def risen(self, now_ns: int, window_ns: int) -> int:
        """Returns by how much it rose in the last `window_ns`."""
        return self.value(now_ns) - self._at(now_ns - window_ns)

    def _at(self, when_ns: int) -> int:
        place = bisect_right(self._times, when_ns)
        if place == 0:
            return self._values[0]
        if place == len(self._times):
            return self.value(when_ns)
        begin, end = self._times[place - 1], self._times[place]
        low, high = self._values[place - 1], self._values[place]
        return low + (high - low) * (when_ns - begin) // (end - begin)

    def _forget(self, now_ns: int) -> None:
        old = bisect_right(self._times, now_ns - _LONGEST_NS) - 1
        if old > len(self._times) // 2:
            del self._times[:old], self._values[:old]
        if len(self._times) > _CORNERS:
            del self._times[1:-1:2], self._values[1:-1:2]
