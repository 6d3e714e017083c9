"""What came: bytes in order, bytes that wait for a gap to fill, the window that is offered, what SACK says of them.

    read by the user │ ready (in order, unread) │ nxt … gap … waiting … │ advertised
                                                 └── `ranges` says which bytes of `waiting` are there ──┘

`waiting` is one run of bytes that begins at `nxt`, with holes; so its memory is the window's, however small the
segments are that come. The right edge that was offered is never taken back; where the window's scale cannot express
the edge, less is offered, and what was offered before is still taken (RFC 7323, 2.4).
Source: RFC 9293, 3.8.6 and 3.10.7.4; RFC 2018 for SACK, RFC 2883 for its block about duplicates.
"""

from __future__ import annotations

from lamina_net.tcp.config import TcpConfig
from lamina_net.tcp.connection.byte_queue import ByteQueue
from lamina_net.tcp.connection.ranges import Ranges

_MOST_BLOCKS = 4


class Receiver:
    """The receiving half of a connection. Sequence numbers are unwrapped."""

    __slots__ = (
        "_anchors", "_config", "_drained", "_measure_at", "advertised", "duplicate", "fin_at", "finished", "nxt",
        "ranges", "ready", "shift", "size", "urgent", "waiting",
    )  # fmt: skip

    def __init__(self, config: TcpConfig) -> None:
        self._config = config
        self.size = config.buffer
        """Bytes that may be unread or on their way; grows with what the user reads in a round trip."""
        self.shift = 0
        """The scale of the windows that we offer."""
        self.nxt = 0
        self.advertised = 0
        """The right edge of what was offered."""
        self.ready = ByteQueue()
        self.waiting = bytearray()
        self.ranges = Ranges()
        self.fin_at: int | None = None
        self.finished = False
        """All came, the FIN too; `nxt` is one more than its number."""
        self.urgent: int | None = None
        """Where urgent data end (RCV.UP)."""
        self.duplicate: tuple[int, int] | None = None
        self._anchors: list[int] = []
        self._measure_at = 0
        self._drained = 0

    def begin(self, first: int) -> None:
        """Expect `first` as the next number; nothing was offered yet."""
        self.nxt = self.advertised = self._measure_at = first

    def take(self, start: int, payload: bytes) -> bool:
        """Take the bytes from `start` on, cut to the window; return whether they came in order, with no gap left.

        `start` is at most `advertised`. What lies below `nxt` or beyond the FIN is cut off, too.
        """
        end = min(start + len(payload), self.advertised)
        if self.fin_at is not None:
            end = min(end, self.fin_at)
        nxt = self.nxt
        if start < nxt:
            self.duplicate = (start, min(end, nxt)) if end > start else None
            payload = payload[nxt - start :]
            start = nxt
        if end <= start:
            return False
        if len(payload) > end - start:
            payload = payload[: end - start]
        if start == nxt and not self.ranges.starts:
            self.ready.append(payload)
            self.nxt = end
            return True
        self._wait(start, end, payload)
        return False

    def _wait(self, start: int, end: int, payload: bytes) -> None:
        """Put bytes among those that wait, and move what is in order now to the ready ones."""
        ranges = self.ranges
        if start > self.nxt and len(ranges) >= self._config.max_ranges and ranges.around(start) is None:
            return  # not acknowledged, so it will come again
        merged = ranges.add(start, end)
        if merged is None:
            self.duplicate = (start, end)
            return
        offset = start - self.nxt
        waiting = self.waiting
        if len(waiting) < offset:
            waiting += bytes(offset - len(waiting))
        waiting[offset : offset + len(payload)] = payload
        if merged[0] == self.nxt:
            complete = merged[1] - self.nxt
            self.ready.append(waiting[:complete])
            del waiting[:complete]
            self.nxt = merged[1]
            ranges.remove_below(self.nxt)
            self._anchors = [anchor for anchor in self._anchors if anchor >= self.nxt]
        else:
            left, right = merged
            self._anchors = [start, *(anchor for anchor in self._anchors if not left <= anchor < right)][:_MOST_BLOCKS]

    def finish(self, number: int) -> bool:
        """Take a FIN with this number; return whether everything is there now. One that contradicts is ignored."""
        if self.fin_at is None and number >= self.nxt and not (self.ranges.ends and self.ranges.ends[-1] > number):
            self.fin_at = number
        return self.check_finished()

    def check_finished(self) -> bool:
        """Step over the FIN when it is the next; return whether that happened now."""
        if self.finished or self.nxt != self.fin_at:
            return False
        self.nxt += 1
        self.finished = True
        return True

    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Return the SACK blocks to send: a duplicate that came, then what came last, up to four in all."""
        found: list[tuple[int, int]] = []
        if self.duplicate is not None:
            found.append(self.duplicate)
            self.duplicate = None
        for anchor in self._anchors:
            block = self.ranges.around(anchor)
            if block is not None and block[1] == self.fin_at:
                block = (block[0], block[1] + 1)  # FIN came with it, and has a number as a byte has
            if block is not None and block not in found:
                found.append(block)
        return tuple(found[:_MOST_BLOCKS])

    def edge(self, mss: int) -> int:
        """Return the right edge to offer: it moves only by what is worth a segment (RFC 9293, 3.8.6.2.2)."""
        room = self.nxt + self._room()
        if room - self.advertised >= min(self.size >> 1, mss):
            return room
        return max(self.advertised, self.nxt)

    def _room(self) -> int:
        """Return the bytes beyond `nxt` that can be taken, and offered in the field that there is."""
        return min(self.size - len(self.ready), 0xFFFF << self.shift)

    def window(self, mss: int) -> int:
        """Return the window field to send, scaled, and remember the edge that it offers."""
        field = min((self.edge(mss) - self.nxt) >> self.shift, 0xFFFF)
        self.advertised = max(self.advertised, self.nxt + (field << self.shift))
        return field

    def read(self, size: int) -> bytes:
        """Give the user up to `size` bytes, and let the buffer grow with what a round trip brings."""
        data = self.ready.take(size)
        self._drained += len(data)
        if self.nxt >= self._measure_at:  # at least one round trip since the edge was offered
            if 2 * self._drained > self.size:
                self.size = min(2 * self.size, max(self.size, self._config.max_buffer))
            self._measure_at = self.advertised + 1
            self._drained = 0
        return data

    def should_tell(self, mss: int) -> bool:
        """Tell whether the window has at least doubled by what was read, so that the peer should hear of it at once."""
        offered = self.advertised - self.nxt
        gain = self._room() - offered
        return gain >= offered and gain >= min(self.size >> 1, mss)
