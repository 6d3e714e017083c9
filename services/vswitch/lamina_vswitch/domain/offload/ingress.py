"""What a device may leave to the switch: offload headers are checked where their frames enter.

A frame that passed has headers and sums where its offload header says, and becomes a bounded number of pieces, each of
which the switch's MTU allows with the tags that the frame has. Behind the entry nobody has to doubt it. Where a
provider's tags count for nothing, the switch holds pieces to less (`domain/frames/header.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina_net.offload import headers as net
from lamina_net.offload.headers import Headers, parse
from lamina_vswitch.domain.frames.header import HEADER_BYTES, MAX_FRAME_BYTES, TAG_BYTES
from lamina_vswitch.domain.frames.metadata import (
    DATA_VALID,
    ECN,
    NEEDS_CHECKSUM,
    TCP4,
    TCP6,
    UDP,
    LadenFrame,
    Offload,
    laden,
    longest_piece,
)

MOST_PIECES = 1024
"""Most frames that one becomes. 64 KiB in segments of the smallest sensible size are fewer; a header that asks for one
byte a segment would cost its sender nothing and everybody else much."""
MOST_TAGS = 2
"""Tags before the packet of a frame that is to be cut: a provider's and its customer's."""

_KNOWN_FLAGS = NEEDS_CHECKSUM | DATA_VALID
_IS = {TCP4: (4, net.TCP), TCP6: (6, net.TCP), UDP: (0, net.UDP)}


def admitted(frames: Sequence[bytes], mtu_bytes: int) -> tuple[list[bytes], list[bytes]]:
    """Return the frames whose offload headers fit, in order, and those that have to be dropped as OFFLOAD_INVALID."""
    good: list[bytes] = []
    bad: list[bytes] = []
    for frame in frames:
        if type(frame) is bytes:
            good.append(frame)
            continue
        kept = _admitted(frame, mtu_bytes)
        (bad if kept is None else good).append(frame if kept is None else kept)
    return good, bad


def _admitted(frame: bytes, mtu_bytes: int) -> bytes | None:
    """Return a frame with what of its header matters; None when the header does not fit it."""
    if not isinstance(frame, LadenFrame) or frame.offload is None:
        return frame
    offload = frame.offload
    if offload.flags & ~_KNOWN_FLAGS or offload.tag_type or offload.tag:
        return None
    if offload.flags & NEEDS_CHECKSUM:
        place = offload.sum_start + offload.sum_offset
        if offload.sum_start < HEADER_BYTES or place + 2 > len(frame):
            return None
    if offload.segments and not _is_cuttable(frame, offload, mtu_bytes):
        return None
    if not offload.segments and offload.kind:
        return None
    if not offload.segments and not offload.flags & NEEDS_CHECKSUM and not offload.flow_hash:
        return laden(frame, None, frame.record)
    return frame


def _is_cuttable(frame: bytes, offload: Offload, mtu_bytes: int) -> bool:
    if offload.segments not in _IS or (offload.kind & ECN and offload.segments == UDP) or len(frame) > MAX_FRAME_BYTES:
        return False
    headers = parse(frame, stacked=True)
    if headers.l3 > HEADER_BYTES + MOST_TAGS * TAG_BYTES:
        return False
    version, protocol = _IS[offload.segments]
    if not headers.l4 or headers.protocol != protocol or (version and headers.version != version):
        return False
    if headers.end != len(frame) or offload.header_bytes != headers.payload:
        return False
    return _pieces_fit(frame, headers, offload, mtu_bytes)


def _pieces_fit(frame: bytes, headers: Headers, offload: Offload, mtu_bytes: int) -> bool:
    if offload.segments == UDP:  # fragments: a multiple of eight bytes behind the IP header
        step, size = offload.segment_bytes & ~7, headers.end - headers.l4
    else:
        step, size = offload.segment_bytes, headers.end - headers.payload
    fits = longest_piece(offload, headers.version) <= mtu_bytes + headers.l3
    return step > 0 and fits and size <= step * MOST_PIECES
