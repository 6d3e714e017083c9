"""Logs of frames that were written. Pure.

The memory bus has one DIRTY bit a frame; logs may overlap. Whoever takes bits off the bus gives them to every log that
covers the frame, so a log that is read takes nothing from the others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lamina_hardware.domain.contexts.context import Handle
from lamina_hardware.domain.slots import Slots
from lamina_kit.errors import ResourceExhausted

MAX_LOGS = 64
PIECE_FRAMES = 32_768
"""Frames of one piece: a bitmap of 4096 bytes. Pieces without a set bit do not exist."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Frames from `first` on, one bit each, the low bit of the first byte first."""

    first: int
    bitmap: bytes
    dirty: int


@dataclass(slots=True, eq=False)
class DirtyLog:
    """One log over ranges (first frame, frames), ascending and apart. `pieces` are bitmaps by (range, piece of it)."""

    handle: Handle
    ranges: Sequence[tuple[int, int]]
    owner: str
    pieces: dict[tuple[int, int], bytearray] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """How many frames it covers."""
        return sum(count for _, count in self.ranges)

    def note(self, frames: Iterable[int]) -> None:
        """Says that frames were written; those that it does not cover are passed over."""
        starts = [first for first, _ in self.ranges]
        for frame in frames:
            place = bisect_right(starts, frame) - 1
            if place < 0 or frame >= starts[place] + self.ranges[place][1]:
                continue
            piece, bit = divmod(frame - starts[place], PIECE_FRAMES)
            bitmap = self.pieces.get((place, piece))
            if bitmap is None:
                left = self.ranges[place][1] - piece * PIECE_FRAMES
                bitmap = self.pieces[place, piece] = bytearray((min(left, PIECE_FRAMES) + 7) // 8)
            bitmap[bit >> 3] |= 1 << (bit & 7)

    def read(self, *, clear: bool) -> list[Piece]:
        """Returns what was written, in the order of frames, and with `clear` forgets it."""
        found = [
            Piece(self.ranges[place][0] + piece * PIECE_FRAMES, bytes(bitmap), int.from_bytes(bitmap).bit_count())
            for (place, piece), bitmap in sorted(self.pieces.items())
        ]
        if clear:
            self.pieces.clear()
        return found


class DirtyLogs:
    """All logs of a host, at most 64."""

    def __init__(self) -> None:
        self._slots: Slots[DirtyLog] = Slots("dirty log")

    def start(self, ranges: Sequence[tuple[int, int]], owner: str) -> DirtyLog:
        """Makes a log. Raises `ResourceExhausted` `TOO_MANY_DIRTY_LOGS`."""
        if len(self._slots) >= MAX_LOGS:
            raise ResourceExhausted(
                f"{MAX_LOGS} dirty logs are kept already.",
                reason="TOO_MANY_DIRTY_LOGS",
                next_step="Stop those that nobody reads.",
            )
        handle = self._slots.claim()
        log = DirtyLog(handle, ranges, owner)
        self._slots.put(handle, log)
        return log

    def get(self, handle: Handle) -> DirtyLog:
        """Returns a log. Raises `FailedPrecondition` `HANDLE_STALE`."""
        return self._slots.get(handle)

    def stop(self, log: DirtyLog) -> None:
        """Forgets a log."""
        self._slots.remove(log.handle)

    def entries(self) -> list[DirtyLog]:
        """Returns all logs."""
        return self._slots.entries()

    def note(self, frames: Sequence[int]) -> None:
        """Gives frames that were written to every log."""
        for log in self._slots.entries():
            log.note(frames)
