"""How long to wait for an acknowledgment. Source: RFC 6298."""

from __future__ import annotations

from lamina_net.tcp.config import SECOND, TcpConfig


class RoundTrip:
    """The smoothed round trip of a connection and the timeout that follows. All in ns.

    As in Linux the variance's part never falls below the smallest timeout, so that a steady path does not make the
    timeout equal the round trip: RTO = SRTT + max(rto_min, 4 * RTTVAR).
    """

    __slots__ = ("_backoff", "_base", "_config", "minimum", "smoothed", "variance")

    def __init__(self, config: TcpConfig) -> None:
        self._config = config
        self._base = config.rto_initial_ns
        self._backoff = 0
        self.smoothed = 0
        self.variance = 0
        self.minimum = 0
        """The shortest round trip so far."""

    @property
    def timeout(self) -> int:
        """The retransmission timeout now, backed off as often as it has passed in vain."""
        return min(self._base << self._backoff, self._config.rto_max_ns)

    def sample(self, measured: int) -> None:
        """Take a round trip of a segment that was sent once, or that a timestamp names (Karn). Ends the backoff."""
        measured = max(1, measured)
        if not self.smoothed:
            self.smoothed = measured
            self.variance = measured >> 1
            self.minimum = measured
        else:
            self.variance += (abs(self.smoothed - measured) - self.variance) >> 2
            self.smoothed = max(1, self.smoothed + ((measured - self.smoothed) >> 3))
            self.minimum = min(self.minimum, measured)
        self._base = self.smoothed + max(self._config.rto_min_ns, 4 * self.variance)
        self._backoff = 0

    def back_off(self) -> None:
        """Double the timeout. Source: RFC 6298, 5.5."""
        if self._base << self._backoff < self._config.rto_max_ns:
            self._backoff += 1

    def reopened(self) -> None:
        """End the backoff of probes: the window has opened."""
        self._backoff = 0

    def begin_data(self) -> None:
        """Be careful after a SYN that was lost. Source: RFC 6298, 5.7."""
        if self._backoff and not self.smoothed:
            self._base = 3 * SECOND
        self._backoff = 0
