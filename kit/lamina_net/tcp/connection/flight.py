"""What was sent and is not acknowledged: records of segments, which of them arrived, which are lost.

The estimate of what is still on its way ("pipe") is kept, not computed: every record is counted in it while it may be
on its way. A record is lost when a timeout says so, when something sent later arrived and the time has passed that the
path's reordering may take (RFC 8985, 6.2: RACK), or, where none was seen, when three records above it arrived (RFC
6675, 4: IsLost). Without SACK each duplicate ACK says that one segment arrived, nobody knows which (RFC 6582; Linux
counts alike).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from operator import attrgetter

from lamina_net.tcp.connection.ranges import Ranges
from lamina_net.tcp.connection.reordering import DUPLICATES, Reordering

_START = attrgetter("start")


class Sent:
    """A segment that was sent: sequence numbers [start, end), SYN and FIN with one each."""

    __slots__ = ("counted", "end", "fin", "lost", "sacked", "sends", "sent_ns", "start", "syn")

    def __init__(self, start: int, end: int, now_ns: int, *, syn: bool = False, fin: bool = False) -> None:
        self.start = start
        self.end = end
        self.sent_ns = now_ns
        self.syn = syn
        self.fin = fin
        self.sends = 1
        self.sacked = False
        self.lost = False
        self.counted = True


class Flight:
    """The records between SND.UNA and SND.NXT, in their order."""

    __slots__ = (
        "_lost", "_lost_below", "_newest_end", "_newest_ns", "_resent", "_round_trip_ns", "ambiguous", "credit",
        "overtaken_at", "pipe", "queue", "reordering", "sacked", "sacked_records",
    )  # fmt: skip

    def __init__(self) -> None:
        self.queue: list[Sent] = []
        self.pipe = 0
        """Sequence numbers that are on their way, as far as one can tell."""
        self.ambiguous = False
        self.credit = 0
        """Without SACK: bytes that duplicate ACKs say have arrived."""
        self.sacked = Ranges()
        self.sacked_records = 0
        self.reordering = Reordering()
        self._lost: list[int] = []  # a heap of starts; entries may be out of date
        self._lost_below = 0
        self._newest_ns = self._newest_end = -1
        self._round_trip_ns = 0
        """Of what was sent last of all that arrived: when it was sent, its end, how long it took."""
        self.overtaken_at = 0
        """When the next record will be lost as others overtook it, 0 if none was overtaken."""
        self._resent: deque[Sent] = deque()

    @property
    def on_the_way(self) -> int:
        """Sequence numbers on their way, duplicate ACKs considered."""
        return max(0, self.pipe - self.credit)

    def add(self, record: Sent) -> None:
        """Take a record that was just sent, above all others."""
        self.queue.append(record)
        self.pipe += record.end - record.start

    def acknowledge(self, una: int, now_ns: int) -> int:
        """Drop what lies below `una`; return when the last of it that had not arrived before was sent, -1 for none.

        `ambiguous` tells then whether some of it was sent again, so that nobody knows what is acknowledged (Karn).
        """
        queue, reordering = self.queue, self.reordering
        gone = 0
        sample = -1
        self.ambiguous = False
        before = reordering.edge_before
        for record in queue:
            if record.end > una:
                break
            gone += 1
            if record.counted:
                self.pipe -= record.end - record.start
                record.counted = False
            record.lost = False
            if record.sends > 1:
                self.ambiguous = True
            if record.sacked:
                self.sacked_records -= 1
                continue
            if record.sent_ns > sample:
                sample = record.sent_ns
            if record.end < before and record.sends == 1:
                reordering.seen = True
        del queue[:gone]
        reordering.edge = max(reordering.edge, una)
        if queue and queue[0].start < una:
            self._cut(queue[0], una)
        if sample >= self._newest_ns and not self.ambiguous and sample >= 0:
            self._arrived(sample, una, now_ns)
        if self.sacked.starts:
            self.sacked.remove_below(una)
        while self._resent and not self._resent[0].counted:
            self._resent.popleft()
        return sample

    def _cut(self, record: Sent, una: int) -> None:
        """Drop the acknowledged front of a record."""
        if record.counted:
            self.pipe -= una - record.start
        record.start = una
        if record.lost:
            heapq.heappush(self._lost, una)

    def sack(self, blocks: list[tuple[int, int]], now_ns: int, shortest_ns: int) -> int:
        """Mark what lies in `blocks` as arrived; return how many bytes of it are news.

        `shortest_ns`: a record that was sent again and arrives sooner than any round trip was the first one.
        """
        news = 0
        for start, end in blocks:
            merged = self.sacked.add(start, end)
            if merged is not None:
                news += self._mark(start, end, merged, now_ns, shortest_ns)
        return news

    def _mark(self, start: int, end: int, merged: tuple[int, int], now_ns: int, shortest_ns: int) -> int:
        left, right = merged
        queue = self.queue
        place = max(0, bisect_right(queue, start, key=_START) - 1)
        news = 0
        while place < len(queue) and (record := queue[place]).end <= right and record.start < end:
            place += 1
            if record.sacked or record.start < left:
                continue
            size = record.end - record.start
            news += size
            if record.counted:
                self.pipe -= size
            record.counted = record.lost = False
            record.sacked = True
            self.sacked_records += 1
            self.reordering.seen |= record.end < self.reordering.edge_before and record.sends == 1
            self.reordering.edge = max(self.reordering.edge, record.end)
            if record.sends == 1 or now_ns - record.sent_ns >= shortest_ns:
                self._arrived(record.sent_ns, record.end, now_ns)
        return news

    def _arrived(self, sent_ns: int, end: int, now_ns: int) -> None:
        """Remember what was sent last of all that arrived."""
        if (sent_ns, end) > (self._newest_ns, self._newest_end):
            self._newest_ns, self._newest_end = sent_ns, end
            self._round_trip_ns = now_ns - sent_ns

    def find_overtaken(self, reordering_ns: int, now_ns: int) -> bool:
        """Mark as lost what others have overtaken for long enough; return whether there was anything."""
        self.overtaken_at = 0
        queue, found = self.queue, False
        if not queue or (queue[0].sends == 1 and queue[0].sent_ns > self._newest_ns):
            return False
        place = bisect_left(queue, self._lost_below, key=_START)
        while place < len(queue) and (record := queue[place]):
            if record.sends == 1 and not record.sacked and not record.lost:
                if (record.sent_ns, record.end) >= (self._newest_ns, self._newest_end):
                    break
                due = record.sent_ns + self._round_trip_ns + reordering_ns
                if now_ns < due:
                    self.overtaken_at = due
                    break
                self.lose(record)
                found = True
            self._lost_below = record.end
            place += 1
        return found

    def find_lost(self, reordering_ns: int, now_ns: int) -> bool:
        """Mark as lost what the arrival of others says is lost; return whether there was anything."""
        found = False
        edge = 0 if self.reordering.seen else self._edge()
        if edge > self._lost_below:
            place = bisect_left(self.queue, self._lost_below, key=_START)
            while place < len(self.queue) and (record := self.queue[place]).start < edge:
                place += 1
                if not record.sacked and record.sends == 1 and not record.lost:
                    self.lose(record)
                    found = True
            self._lost_below = edge
        resent = self._resent
        while resent and (not resent[0].counted or resent[0].sent_ns + reordering_ns < self._newest_ns):
            record = resent.popleft()
            if record.counted:
                self.lose(record)
                found = True
        return self.find_overtaken(reordering_ns, now_ns) or found

    def _edge(self) -> int:
        """Return the sequence number below which at least `DUPLICATES` records are known to have arrived."""
        missing = DUPLICATES
        for place in range(len(self.sacked) - 1, -1, -1):
            first = bisect_left(self.queue, self.sacked.starts[place], key=_START)
            after = bisect_left(self.queue, self.sacked.ends[place], key=_START)
            if after - first >= missing:
                return self.queue[after - missing].start
            missing -= after - first
        return 0

    def lose(self, record: Sent) -> None:
        """Mark a record as lost, to be sent again."""
        if record.counted:
            self.pipe -= record.end - record.start
            record.counted = False
        record.lost = True
        heapq.heappush(self._lost, record.start)

    def lose_all(self, forget: bool = False) -> None:
        """Mark everything as lost that is not known to have arrived; `forget` also what is."""
        if forget or (self.queue and self.queue[0].sacked):  # the receiver dropped what it had: RFC 2018, 8
            self.sacked.clear()
            self.sacked_records = 0
            for record in self.queue:
                record.sacked = False
        self._lost.clear()
        self._resent.clear()
        for record in self.queue:
            record.lost = False
            if not record.sacked:
                self.lose(record)
        self.credit = 0
        if self.queue:
            self._lost_below = self.queue[-1].end

    def revive(self) -> None:
        """Take back that everything is lost: it was late."""
        self._lost.clear()
        for record in self.queue:
            if record.lost:
                record.lost = False
                record.counted = True
                self.pipe += record.end - record.start
        self._lost_below = self.queue[0].start if self.queue else 0

    def lose_longer(self, size: int) -> None:
        """Mark as lost what has more than `size` sequence numbers: it does not fit through the path."""
        for record in self.queue:
            if record.end - record.start > size and record.counted:
                self.lose(record)

    def next_lost(self) -> Sent | None:
        """Return the lowest record that is lost and was not sent again since."""
        while self._lost:
            start = self._lost[0]
            place = bisect_left(self.queue, start, key=_START)
            if place < len(self.queue) and (record := self.queue[place]).start == start and record.lost:
                return record
            heapq.heappop(self._lost)
        return None

    def split(self, record: Sent, size: int) -> None:
        """Cut a lost record in two, of which the first has `size` sequence numbers."""
        rest = Sent(record.start + size, record.end, record.sent_ns, fin=record.fin)
        rest.sends = record.sends
        rest.counted = False
        record.end = rest.start
        record.fin = False
        self.queue.insert(bisect_right(self.queue, record.start, key=_START), rest)
        self.lose(rest)

    def sent_again(self, record: Sent, now_ns: int) -> None:
        """Count a lost record as on its way again."""
        record.lost = False
        record.counted = True
        record.sends += 1
        record.sent_ns = now_ns
        self.pipe += record.end - record.start
        self._resent.append(record)
