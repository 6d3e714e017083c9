"""One capture: frames become blocks of a pcapng file that wait, within a bound, for whoever reads them.

The data plane never waits: what finds no room is lost and counted, at its port too. The blocks that were taken, one
after the other, are a valid file at every moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lamina_vswitch.domain.capture import pcapng
from lamina_vswitch.domain.capture.expression import compile_filter
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.capture.selection import Selection
from lamina_vswitch.domain.frames.drop_reasons import DropReason

MAX_PIECE_BYTES = 256 << 10
APPLICATION = "lamina vswitch capture"
TRACE_ID_BYTES = 16


class Piece(NamedTuple):
    """Whole blocks, at most 256 KiB; frames in them; frames lost since the capture began."""

    data: bytes
    frames: int
    lost: int


@dataclass(slots=True)
class _Interface:
    """A port in the file: its number there, and what became of its frames; `missed` ones were never had."""

    number: int
    start_ns: int
    received: int = 0
    accepted: int = 0
    lost: int = 0
    missed: int = 0
    lost_told: int = 0


class Capture:
    """Blocks of the frames that a selection chooses. `offset_ns` is added to every time: the epoch of the file."""

    def __init__(self, selection: Selection, offset_ns: int, wake: Callable[[], None]) -> None:
        self.selection = selection
        self.lost = 0
        self.frames = 0
        self._closed = False
        self._passes = compile_filter(selection.filter)
        self._offset_ns = offset_ns
        self._wake = wake
        self._interfaces: dict[str, _Interface] = {}
        self._waiting: deque[tuple[bytes, bool]] = deque([(pcapng.section_header(APPLICATION), False)])
        self._waiting_bytes = 0

    @property
    def full(self) -> bool:
        """Whether the limit of frames is reached."""
        return 0 < self.selection.frame_limit <= self.frames

    def see(
        self, port: str, direction: Direction, frames: Sequence[bytes], now_ns: int, drop: DropReason | None = None
    ) -> None:
        """Take what is wanted of frames that went this way at a port, or were dropped there."""
        chosen = self.selection
        wanted = chosen.drops or chosen.only_drops if drop is not None else not chosen.only_drops
        if not wanted or self.full or self._closed or not chosen.chooses(port, direction):
            return
        time_ns = now_ns + self._offset_ns
        interface = self._interfaces.get(port) or self._describe(port, time_ns)
        passes = self._passes
        for frame in frames:
            interface.received += 1
            if passes(frame, len(frame)):
                interface.accepted += 1
                self._put(interface, direction, frame, time_ns, drop)
                if 0 < chosen.frame_limit <= self.frames:
                    break
        if self._waiting:
            self._wake()

    def miss(self, port: str, direction: Direction, count: int, now_ns: int) -> None:
        """Count frames as lost that went this way at a port, and that nobody had for this capture."""
        if self.full or self._closed or not self.selection.chooses(port, direction):
            return
        interface = self._interfaces.get(port) or self._describe(port, now_ns + self._offset_ns)
        interface.received += count
        interface.missed += count
        self.lost += count
        self._wake()

    def take(self, now_ns: int) -> Piece | None:
        """Take the next blocks, or None when nothing waits. Losses are told behind what waited while they happened."""
        data: list[bytes] = []
        size = frames = 0
        while self._waiting and size + len(self._waiting[0][0]) <= MAX_PIECE_BYTES:
            block, is_frame = self._waiting.popleft()
            data.append(block)
            size += len(block)
            if is_frame:
                frames += 1
                self._waiting_bytes -= len(block)
        if not self._waiting:
            for interface in self._interfaces.values():
                if interface.lost + interface.missed > interface.lost_told:
                    self._waiting.append((self._statistics(interface, now_ns), False))
        return Piece(b"".join(data), frames, self.lost) if data else None

    def end(self, now_ns: int) -> None:
        """Put the statistics of every port behind what waits; nothing more is seen."""
        self._closed = True
        for interface in self._interfaces.values():
            self._waiting.append((self._statistics(interface, now_ns), False))

    def _describe(self, port: str, time_ns: int) -> _Interface:
        block = pcapng.interface_description(port, self.selection.filter, self.selection.snap_bytes)
        self._waiting.append((block, False))
        interface = self._interfaces[port] = _Interface(len(self._interfaces), time_ns)
        return interface

    def _put(
        self, interface: _Interface, direction: Direction, frame: bytes, time_ns: int, drop: DropReason | None
    ) -> None:
        length = len(frame)
        piece = frame[: self.selection.snap_bytes] if self.selection.snap_bytes else frame
        comments = () if drop is None and type(frame) is bytes else _comments(frame, drop)
        block = pcapng.enhanced_packet(interface.number, time_ns, piece, length, direction, comments)
        # The block of the longest frame is larger than the smallest buffer: alone, any may wait.
        if self._waiting_bytes and self._waiting_bytes + len(block) > self.selection.buffer_bytes:
            interface.lost += 1
            self.lost += 1
            return
        self._waiting.append((block, True))
        self._waiting_bytes += len(block)
        self.frames += 1

    def _statistics(self, interface: _Interface, now_ns: int) -> bytes:
        interface.lost_told = interface.lost + interface.missed
        return pcapng.interface_statistics(
            interface.number,
            interface.start_ns,
            now_ns + self._offset_ns,
            received=interface.received,
            dropped=interface.lost_told,
            accepted=interface.accepted,
            delivered=interface.accepted - interface.lost,
        )


def _comments(frame: bytes, drop: DropReason | None) -> tuple[str, ...]:
    said = []
    if drop is not None:
        said.append(f"drop: {drop.name}")
    record: bytes | None = getattr(frame, "record", None)
    if record and any(record[:TRACE_ID_BYTES]):
        said.append(f"trace: {record[:TRACE_ID_BYTES].hex()}")
    return tuple(said)
