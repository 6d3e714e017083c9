"""When a virtual loop that serves the outside world lets time pass by itself. Pure: real time is an argument.

- `scaled`: always, at its rate; behind it when the work takes longer.
- `stepped`: while a call from outside waits, at its rate (default: real time), and only as far as the call needs.
- `virtual`: as fast as the work allows, while a call from outside waits for its one answer, and for `SETTLE_NS` of
  virtual time after its start and the last input or answer; so an idle stack with its periodic timers costs nothing.

A paused clock, and any clock between these, goes by advances alone. No clock goes beyond `MAX_TIME_NS`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.clock_control import MAX_TIME_NS, REAL_TIME_PERMILLE

SETTLE_NS = 60 * 10**9
"""How much virtual time a free-running stack gets after its start and each input or answer, for what follows."""

STANDING = ("OpenSession", "ServerReflectionInfo")
"""Streams that stand open for as long as their caller lives, beside those whose name begins with `Watch`."""


@dataclass
class Pace:
    """How far a stack's clock may go by itself. `mode` is `scaled`, `stepped` or `virtual`."""

    mode: str
    rate_permille: int = REAL_TIME_PERMILLE
    paused: bool = False
    active_ns: int = 0
    """Virtual time of the last input or answer."""
    _base_ns: int = 0
    _base_real_ns: int | None = None
    """From where virtual time is counted while it goes at the rate; None while it does not."""

    def goes(self, waiting: int) -> bool:
        """Says whether the clock goes at its rate now, with so many calls waiting."""
        if self.paused or self.mode == "virtual":
            return False
        return self.mode == "scaled" or (waiting > 0 and self.rate_permille > 0)

    def rebase(self) -> None:
        """Forgets what the clock owes: it goes on from where it stands."""
        self._base_real_ns = None

    def due_ns(self, now_ns: int, real_ns: int, waiting: int) -> int:
        """Returns the virtual time that the rate allows now: `now_ns`, or later when the clock goes."""
        if not self.goes(waiting):
            self._base_real_ns = None
            return now_ns
        if self._base_real_ns is None:
            self._base_ns, self._base_real_ns = now_ns, real_ns
        passed = (real_ns - self._base_real_ns) * self.rate_permille // REAL_TIME_PERMILLE
        return max(now_ns, min(self._base_ns + passed, MAX_TIME_NS))

    def real_until(self, when_ns: int, real_ns: int) -> int:
        """Returns the real time from `real_ns` until the rate allows `when_ns`, rounded up; 0 when it does already."""
        if self._base_real_ns is None or self.rate_permille == 0:
            return 0
        needed = -(-(when_ns - self._base_ns) * REAL_TIME_PERMILLE // self.rate_permille)
        return max(0, self._base_real_ns + needed - real_ns)

    def free_until(self, waiting_for_one: int) -> int | None:
        """Returns until when a free-running clock goes; None without a limit, a past time when it stands still.

        `waiting_for_one` is the number of calls that wait for their one answer: until it is there, time is no object.
        """
        if self.mode != "virtual" or self.paused:
            return -1
        return None if waiting_for_one else self.active_ns + SETTLE_NS


def waits_for_time(method: str) -> bool:
    """Says whether an open call of this method makes a clock go: not one that stands open by its nature.

    An informer that watches pods must not turn a stepped cluster into one that goes by itself.
    """
    name = method.rpartition("/")[2]
    return not name.startswith("Watch") and name not in STANDING
