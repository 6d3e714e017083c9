"""Bursts: frames where they lie in memory, as compiled code takes them. Bounds are checked here, once."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from lamina_vswitch.domain.offload.columns import with_header
from lamina_vswitch.domain.port import ring_layout
from lamina_vswitch.plane.compiled import layout


class Burst:
    """Frames in order: `places` has a row for each, its address and its length; `memory` keeps the bytes alive."""

    private = False
    """Whether nobody but this process and the kernel writes the memory."""

    def __init__(self, places: Any, memory: object) -> None:
        self.places = places
        self.address: int = places.ctypes.data
        self._memory = memory

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def of(cls, frames: Sequence[bytes]) -> Burst:
        """Return a burst with copies of frames."""
        lengths = np.fromiter(map(len, frames), np.int64, len(frames))
        data: Any = np.frombuffer(b"".join(frames) or b"\0", np.uint8)
        return cls(_places(data, np.cumsum(lengths) - lengths, lengths), data)

    @classmethod
    def at(cls, data: Any, offsets: Any, lengths: Any) -> Burst | None:
        """Return the frames that lie in an array of bytes, or None when one of them does not lie in it wholly.

        `offsets` (int64) and `lengths` (int32 or int64) come from anybody.
        """
        where, sizes = np.asarray(offsets, np.int64), np.asarray(lengths, np.int64)
        if where.shape != sizes.shape or where.ndim != 1 or data.dtype != np.uint8 or not data.flags.c_contiguous:
            return None
        if ((where < 0) | (sizes < 0) | (sizes > data.size) | (where > data.size - sizes)).any():
            return None
        return cls(_places(data, where, sizes), data)

    def frame(self, index: int) -> bytes:
        """Return a copy of one frame, with what it carries."""
        return _copy(*self.places[index].tolist())

    def frames(self) -> list[bytes]:
        """Return copies of all frames."""
        return [_copy(address, length) for address, length in self.places.tolist()]


def _copy(address: int, length: int) -> bytes:
    """Return the frame at an address; one that is LADEN lies in a slot of a ring, behind its columns."""
    frame = ctypes.string_at(address, length & (layout.LADEN - 1))
    if not length & layout.LADEN:
        return frame
    slot = address - ring_layout.FRAME
    header = ctypes.string_at(slot + ring_layout.OFFLOAD, ring_layout.OFFLOAD_BYTES)
    record = ctypes.string_at(slot + ring_layout.RECORD, ring_layout.RECORD_BYTES)
    return with_header(frame, header, record if any(record) else None)


def _places(data: Any, offsets: Any, lengths: Any) -> Any:
    places: Any = np.empty((len(offsets), 2), np.int64)
    places[:, 0] = offsets + data.ctypes.data
    places[:, 1] = lengths
    return places
