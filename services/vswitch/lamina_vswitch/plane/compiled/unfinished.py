"""Frames that the kernel leaves unfinished, compiled: which of them pass to another device of the kernel as they are.

Right before each frame from the kernel lies its header (`domain/backend/vnet.py`). What is certain to be in order by
the rules of `domain/offload/ingress.py` is CARRIED: a sum that is missing, or TCP over IPv4 or IPv6 in segments,
without a tag, options of IPv6 or fragments. Everything else is LADEN, and the reference looks at it.
"""

from __future__ import annotations

from lamina_vswitch.domain.frames.metadata import ECN, NEEDS_CHECKSUM, TCP4, TCP6
from lamina_vswitch.domain.offload.ingress import MOST_PIECES
from lamina_vswitch.plane.compiled import layout
from lamina_vswitch.plane.compiled.intrinsics import Word, compiled, i64, load8, load16, load_big16, store16, store64
from lamina_vswitch.plane.compiled.pipeline import HEADER_BYTES, TPID

HEAD_BYTES = 10
"""Bytes of the kernel's header."""
KIND, HEADERS, SEGMENT, SUM_START, SUM_OFFSET = 1, 2, 4, 6, 8
_IP4, _IP6, _TCP = 0x0008, 0xDD86, 6  # types of frames as little-endian numbers
_IP6_BYTES, _LEAST_TCP = 40, 20


@compiled(i64(i64, i64))
def _transport4(frame: Word, length: Word) -> Word:
    """Returns where TCP begins in a whole packet of IPv4 that fills the frame, 0 when it is no such packet."""
    if length < HEADER_BYTES + 20 or load16(frame + 12) != _IP4 or load8(frame + 14) >> 4 != 4:
        return 0
    size = (load8(frame + 14) & 15) * 4
    is_fragment = load_big16(frame + 20) & 0x3FFF != 0
    if size < 20 or is_fragment or load8(frame + 23) != _TCP or load_big16(frame + 16) != length - HEADER_BYTES:
        return 0
    return HEADER_BYTES + size


@compiled(i64(i64, i64))
def _transport6(frame: Word, length: Word) -> Word:
    """Returns where TCP begins in a packet of IPv6 that fills the frame, 0 when it is no such packet."""
    start = HEADER_BYTES + _IP6_BYTES
    if length < start or load16(frame + 12) != _IP6 or load8(frame + 14) >> 4 != 6:
        return 0
    return start if load8(frame + 20) == _TCP and load_big16(frame + 18) == length - start else 0


@compiled(i64(i64, i64, i64, i64, i64))
def _cuttable(frame: Word, length: Word, mtu: Word, kind: Word, segment: Word) -> Word:
    """Returns the bytes of a frame's headers when its segments are as many and as long as they may be, else 0."""
    if kind == TCP4:
        start = _transport4(frame, length)
    elif kind == TCP6:
        start = _transport6(frame, length)
    else:
        return 0
    if start == 0 or length < start + _LEAST_TCP:
        return 0
    size = (load8(frame + start + 12) >> 4) * 4
    data = start + size
    if size < _LEAST_TCP or data > length or segment == 0 or data + segment > mtu + HEADER_BYTES:
        return 0
    return data if length - data <= segment * MOST_PIECES else 0


@compiled(i64(i64, i64, i64))
def weighed(frame: Word, length: Word, mtu: Word) -> Word:
    """Returns the length of a frame from the kernel with what its header makes of it: nothing, CARRIED or LADEN.

    The header of one that may pass is made what another device of the kernel is given; that of a LADEN one is left.
    A tag has to be taken off, so that a frame with one is LADEN too.
    """
    head = frame - HEAD_BYTES
    flags, kind = load8(head) & NEEDS_CHECKSUM, load8(head + KIND)
    if length >= HEADER_BYTES and load16(frame + 12) == TPID:
        return length | layout.LADEN
    if flags == 0 and kind == 0:
        store64(head, 0)
        store16(head + 8, 0)
        return length
    start = load16(head + SUM_START)
    if flags == 0 or start < HEADER_BYTES or start + load16(head + SUM_OFFSET) + 2 > length:
        return length | layout.LADEN
    if kind == 0:
        if length > mtu + HEADER_BYTES:
            return length | layout.LADEN
        store16(head, flags)
        store16(head + HEADERS, 0)
        store16(head + SEGMENT, 0)
        return length | layout.CARRIED
    data = _cuttable(frame, length, mtu, kind & ~ECN, load16(head + SEGMENT))
    if data == 0:
        return length | layout.LADEN
    store16(head, flags | kind << 8)
    store16(head + HEADERS, data)
    return length | layout.CARRIED
