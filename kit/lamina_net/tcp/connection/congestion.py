"""Congestion control: how many bytes may be on their way. One interface, two algorithms.

Windows are bytes of payload. An algorithm hears of acknowledged bytes, of a loss (once a round trip) and of a timeout;
when it was not the congestion window that held the sender back, it does not hear (RFC 7661's concern).
Source: RFC 5681; RFC 6928 for the first window; RFC 3465 for counting bytes.
"""

from __future__ import annotations

from lamina_net.tcp.config import Congestion

_INITIAL_SEGMENTS = 10
_INITIAL_BYTES = 14_600
_UNLIMITED = 1 << 40


class NewReno:
    """One segment more in each round trip, half after a loss. The base of what grows otherwise."""

    __slots__ = ("_credit", "mss", "threshold", "window")

    def __init__(self, mss: int) -> None:
        self.mss = mss
        self.threshold = _UNLIMITED
        """Below it the window doubles in each round trip (slow start)."""
        self.window = self.initial()
        self._credit = 0

    def initial(self) -> int:
        """Return the window that a connection begins with. Source: RFC 6928, 2."""
        return min(_INITIAL_SEGMENTS * self.mss, max(2 * self.mss, _INITIAL_BYTES))

    def resize(self, mss: int) -> None:
        """Go on with another length of segments; before the first data the window follows."""
        was_initial = self.window == self.initial()
        self.mss = mss
        self.window = self.initial() if was_initial else max(self.window, mss)

    def acknowledged(self, size: int, now_ns: int, round_trip_ns: int, careful: bool) -> None:
        """Grow by `size` acknowledged bytes; `careful` after a timeout, where an ACK may cover what was old."""
        if self.window < self.threshold:
            self.window += min(size, self.mss if careful else 2 * self.mss)
            return
        self._avoid(size, now_ns, round_trip_ns)

    def lost(self, flight: int, now_ns: int) -> None:
        """Shrink, as a segment was lost while `flight` bytes were on their way."""
        self.threshold = max(flight // 2, 2 * self.mss)
        self.window = self.threshold
        self._credit = 0

    def timed_out(self, flight: int, now_ns: int, again: bool) -> None:
        """Begin anew with one segment. `again`: nothing was acknowledged since the last time, the threshold stays."""
        if not again:
            self.lost(flight, now_ns)
        self.window = self.mss

    def saved(self) -> tuple[int, ...]:
        """Return what `restore` needs to be as now."""
        return self.window, self.threshold, self._credit

    def restore(self, saved: tuple[int, ...]) -> None:
        """Be as at `saved`: a timeout was none. Slow start leads back to the window of then (RFC 4015, 3.2)."""
        self.window, threshold, self._credit = saved[:3]
        self.threshold = max(threshold, self.window)

    def idle(self) -> None:
        """Forget a window that nothing has confirmed for a timeout. Source: RFC 5681, 4.1."""
        self.window = min(self.window, self.initial())

    def _avoid(self, size: int, now_ns: int, round_trip_ns: int) -> None:
        self._credit += self.mss * size
        grown = self._credit // self.window
        self._credit -= grown * self.window
        self.window += grown


class Cubic(NewReno):
    """The window follows a cubic curve of the time since the last loss. Source: RFC 9438.

    Integers only, so that a seed gives the same bytes everywhere: bytes, and milliseconds since the loss.
    """

    __slots__ = ("_curve_ms", "_epoch_ns", "_friendly", "_friendly_credit", "_highest", "_origin", "_prior")

    def __init__(self, mss: int) -> None:
        super().__init__(mss)
        self._forget()
        self._highest = 0
        self._prior = 0

    def _forget(self) -> None:
        self._epoch_ns = -1
        self._curve_ms = self._origin = self._friendly = self._friendly_credit = 0

    def lost(self, flight: int, now_ns: int) -> None:
        """Shrink to 0.7 of it; a top lower than the last one leaves room for others (4.7, fast convergence)."""
        self._prior = self.window
        self._highest = self.window * 17 // 20 if self.window < self._highest else self.window
        self.threshold = max(flight * 7 // 10, 2 * self.mss)
        self.window = self.threshold
        self._credit = 0
        self._forget()

    def timed_out(self, flight: int, now_ns: int, again: bool) -> None:
        """Begin anew; after it the curve begins where slow start ends (4.8)."""
        super().timed_out(flight, now_ns, again)
        self._forget()

    def saved(self) -> tuple[int, ...]:
        """Return windows and curve."""
        curve = self._epoch_ns, self._curve_ms, self._origin, self._friendly, self._friendly_credit
        return *super().saved(), self._highest, self._prior, *curve

    def restore(self, saved: tuple[int, ...]) -> None:
        """Be on the curve of then."""
        super().restore(saved)
        self._highest, self._prior = saved[3:5]
        self._epoch_ns, self._curve_ms, self._origin, self._friendly, self._friendly_credit = saved[5:]

    def idle(self) -> None:
        """Forget the window and the curve."""
        super().idle()
        self._forget()

    def _avoid(self, size: int, now_ns: int, round_trip_ns: int) -> None:
        if self._epoch_ns < 0:
            self._begin(now_ns)
        elapsed = (now_ns - self._epoch_ns) // 1_000_000
        self._grow_friendly(size)
        if self._curve(elapsed) < self._friendly:
            self.window = max(self.window, self._friendly)
            return
        target = self._curve(elapsed + round_trip_ns // 1_000_000)
        target = min(max(target, self.window), self.window * 3 // 2)
        self._credit += (target - self.window) * size
        grown = self._credit // self.window
        self._credit -= grown * self.window
        self.window += grown

    def _begin(self, now_ns: int) -> None:
        self._epoch_ns = now_ns
        self._friendly = self.window
        if self.window < self._highest:
            self._origin = self._highest
            self._curve_ms = cube_root((self._highest - self.window) * 25 * 10**8 // self.mss)
        else:
            self._origin = self.window
            self._curve_ms = 0

    def _curve(self, elapsed_ms: int) -> int:
        """W_cubic (4.2): origin + C (t - K)³ segments, with C = 0.4 per s³."""
        away = elapsed_ms - self._curve_ms
        return self._origin + 4 * self.mss * away * away * away // 10**10

    def _grow_friendly(self, size: int) -> None:
        """W_est (4.3): what Reno would have, with alpha = 3 (1 - 0.7) / (1 + 0.7) = 9/17 until the last top."""
        scaled = 17 if self._friendly >= self._prior else 9
        self._friendly_credit += scaled * self.mss * size
        step = 17 * self.window
        self._friendly += self._friendly_credit // step
        self._friendly_credit %= step


def cube_root(number: int) -> int:
    """Return the integer part of the cube root of a number that is not negative."""
    if number == 0:
        return 0
    root = 1 << (number.bit_length() + 2) // 3
    while True:
        better = (2 * root + number // (root * root)) // 3
        if better >= root:
            return root
        root = better


def controller(kind: Congestion, mss: int) -> NewReno:
    """Return a new congestion control for segments of `mss` bytes."""
    return Cubic(mss) if kind is Congestion.CUBIC else NewReno(mss)
