"""How long a segment may be late before it is taken for lost: what the path's reordering has taught.

While nothing has come out of order, three that arrived above it are enough, and so is one during recovery. Once a
segment has come after later ones, time alone decides: a quarter of the shortest round trip, and another quarter for
each round in which the receiver told that something came twice. After 16 recoveries without that, it is one again.

Source: RFC 8985, 6.2 (steps 3 and 4); RFC 2883 for what came twice.
"""

from __future__ import annotations

DUPLICATES = 3
"""Records that must have arrived above one that is taken for lost. Source: RFC 5681, 3.2 (duplicate threshold)."""
_PERSIST = 16


class Reordering:
    """What one sender knows of it. Sequence numbers are unwrapped."""

    __slots__ = ("_told", "edge", "edge_before", "multiplier", "persist", "round_end", "seen")

    def __init__(self) -> None:
        self.seen = False
        """Whether a segment that was sent once arrived after what was sent behind it."""
        self.edge = self.edge_before = 0
        """The end of the highest that arrived (RACK.fack), now and before the ACK that is being taken."""
        self.multiplier = 1
        self.persist = _PERSIST
        self.round_end = 0
        """What ends the round in which something came twice, 0 for none (RACK.dsack_round)."""
        self._told = 0

    def came_twice(self, una: int, nxt: int, retransmitted: int) -> None:
        """Learn that bytes came twice, of which all up to `una` is acknowledged and all below `nxt` was sent.

        What comes twice more often than we sent again (`retransmitted`, since the beginning) was doubled on its way.
        """
        self._told += 1
        if self._told > retransmitted:
            return
        self.seen = True
        if una >= self.round_end:
            self.round_end = nxt
            self.multiplier += 1
            self.persist = _PERSIST

    def recovered(self) -> None:
        """Learn that a recovery ended."""
        self.persist -= 1
        if self.persist <= 0:
            self.multiplier = 1

    def window(self, shortest_ns: int, smoothed_ns: int, *, is_sure: bool) -> int:
        """Return how long to wait for what others overtook; 0 where nothing came out of order and others say so.

        `is_sure`: a recovery is going on, or `DUPLICATES` records arrived out of order.
        """
        if is_sure and not self.seen:
            return 0
        return min(self.multiplier * shortest_ns >> 2, smoothed_ns)
