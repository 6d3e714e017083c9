"""TCP segments that came one behind the other become one: what a receiver need not look at one by one. Pure.

A run is frames of one length and one flow whose headers differ in nothing but what has to differ: number,
identification, sums, PSH. All sums of a run are right, and each number is the one before plus its payload. Who takes a
run may be told no; the frames are still there.

Source: Linux, Documentation/networking/segmentation-offloads.rst (generic receive offload).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from lamina_net.offload.headers import ACK, ETHERNET_BYTES, PSH, TCP
from lamina_net.offload.piece_rows import row_sums

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.uint8]

FEW = 4
"""Frames of one length below which nothing is merged: an array would cost more."""
MOST = 256
"""Frames that are looked at together, so that memory is bounded."""

_L4 = ETHERNET_BYTES + 20
_LEAST_BYTES = _L4 + 20
_IS_TCP = ((12, 0x08), (13, 0x00), (14, 0x45), (20, 0x40), (21, 0x00), (23, TCP))
"""Bytes of a frame without tag, of IPv4 without options that is no fragment and must not become one, with TCP."""
_FLAGS = 47
_DIFFERENT = (18, 19, 24, 25, 38, 39, 40, 41, _FLAGS, 50, 51)
"""Where frames of a run differ: identification, sums, sequence number, and PSH of the flags, which are looked at."""


class Run(NamedTuple):
    """Frames of one flow in order, at least two; `payload` is that of all of them."""

    frames: list[bytes]
    payload: bytes


def merged(frames: Sequence[bytes]) -> Iterator[bytes | Run]:
    """Yield what came together in its order, as runs where it can be and by the frame where not.

    Frames that are more than bytes (`LongFrame`, say) are never in a run.
    """
    for (kind, size), same in groupby(frames, key=lambda frame: (type(frame), len(frame))):
        while group := list(islice(same, MOST)):
            if kind is bytes and size > _LEAST_BYTES and len(group) >= FEW:
                yield from _parted(group, size)
            else:
                yield from group


def _parted(group: list[bytes], size: int) -> Iterator[bytes | Run]:
    """Yield the runs in frames of `size` bytes."""
    import numpy as np

    rows = np.frombuffer(b"".join(group), np.uint8).reshape(len(group), size)
    header = _L4 + (int(rows[0, _L4 + 12]) >> 4) * 4
    if header < _LEAST_BYTES or header >= size:
        yield from group
        return
    follows = _follows(rows, header, size)
    first = 0
    for place, is_next in enumerate([*follows, False], 1):
        if is_next:
            continue
        if place - first > 1:
            yield Run(group[first:place], rows[first:place, header:].tobytes())
        else:
            yield group[first]
        first = place


def _follows(rows: Rows, header: int, size: int) -> list[bool]:
    """Return for each row but the first whether it goes on where the one before ends."""
    import numpy as np

    difference = rows[1:, :header] ^ rows[:-1, :header]
    difference[:, _DIFFERENT] = 0
    sequences: Any = np.ascontiguousarray(rows[:, 38:42]).view(">u4").ravel().astype(np.int64)
    steps = (sequences[1:] - sequences[:-1]) & 0xFFFFFFFF
    good = _are_good(rows, size)
    good &= rows[:, _L4 + 12] >> 4 == (header - _L4) >> 2
    found: list[bool] = (good[1:] & good[:-1] & ~difference.any(axis=1) & (steps == size - header)).tolist()
    return found


def _are_good(rows: Rows, size: int) -> NDArray[np.bool_]:
    """Return for each row whether it is data of TCP, whole and with right sums."""
    import numpy as np

    good: Any = (rows[:, _FLAGS] & (0xFF ^ PSH)) == ACK
    for place, value in _IS_TCP:
        good &= rows[:, place] == value
    words = rows[:, 16:18].astype(np.int64)
    good &= (words[:, 0] << 8 | words[:, 1]) == size - ETHERNET_BYTES
    good &= row_sums(rows[:, ETHERNET_BYTES:_L4]) == 0xFFFF
    pseudo = row_sums(rows[:, 26:_L4]) + TCP + size - _L4
    found: NDArray[np.bool_] = good & ((row_sums(rows[:, _L4:]) + pseudo) % 0xFFFF == 0)
    return found
