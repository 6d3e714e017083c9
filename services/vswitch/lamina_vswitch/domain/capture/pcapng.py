"""Blocks of a pcapng file: section header, interface description, enhanced packet, interface statistics.

    bytes    4     4       …       0–3      4
           +------+-------+------+---------+-------+
           | type | total | body | padding | total |     little-endian; `total` counts the whole block
           +------+-------+------+---------+-------+
    option: code (2), length without padding (2), value, padding to 4; code 0 ends the list

Time stamps are nanoseconds (if_tsresol 9), split into high and low 32 bits. The functions are total: every text and
frame has a block.

Source: draft-ietf-opsawg-pcapng-03, 3 and 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

LINKTYPE_ETHERNET = 1
MAX_TEXT_BYTES = 65535

_SECTION, _INTERFACE, _PACKET, _STATISTICS = 0x0A0D0D0A, 1, 6, 5
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_COMMENT = 1
_SHB_HARDWARE, _SHB_OS, _SHB_USERAPPL = 2, 3, 4
_IF_NAME, _IF_TSRESOL, _IF_FILTER = 2, 9, 11
_EPB_FLAGS = 2
_ISB_START, _ISB_END, _ISB_RECEIVED, _ISB_DROPPED, _ISB_ACCEPTED, _ISB_DELIVERED = 2, 3, 4, 5, 6, 8
_NANOSECONDS = 9
_PADDING = (b"", bytes(3), bytes(2), bytes(1))
"""What a length needs to be a multiple of four, by its remainder."""
_PACKET_HEAD = struct.Struct("<IIIIIII")
_FLAGS_AND_END = {direction: struct.pack("<HHIHH", _EPB_FLAGS, 4, direction, 0, 0) for direction in (0, 1, 2)}


def section_header(application: str) -> bytes:
    """Return the first block. What it tells of the machine is the same everywhere: equal runs give equal files."""
    options = ((_SHB_HARDWARE, b"Lamina virtual switch"), (_SHB_OS, b"Lamina"), (_SHB_USERAPPL, application.encode()))
    return _block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1) + _options(options))


def interface_description(name: str, expression: str, snap_bytes: int) -> bytes:
    """Return the block of a port; `expression` is the filter, empty for none, `snap_bytes` 0 for whole frames."""
    options = [(_IF_NAME, name.encode()), (_IF_TSRESOL, bytes((_NANOSECONDS,)))]
    if expression:
        options.append((_IF_FILTER, b"\0" + expression.encode()))
    return _block(_INTERFACE, struct.pack("<HHI", LINKTYPE_ETHERNET, 0, snap_bytes) + _options(options))


def enhanced_packet(
    interface: int, time_ns: int, piece: bytes, length: int, direction: int, comments: Sequence[str] = ()
) -> bytes:
    """Return the block of a frame of `length` bytes of which `piece` is kept; `direction` is 1 inbound, 2 outbound."""
    size = len(piece)
    said = b"".join(_option(_COMMENT, comment.encode()) for comment in comments) if comments else b""
    total = 44 + size + -size % 4 + len(said)
    head = _PACKET_HEAD.pack(_PACKET, total, interface, time_ns >> 32 & 0xFFFFFFFF, time_ns & 0xFFFFFFFF, size, length)
    return b"".join((head, piece, _PADDING[size % 4], said, _FLAGS_AND_END[direction], total.to_bytes(4, "little")))


def interface_statistics(
    interface: int, start_ns: int, end_ns: int, *, received: int, dropped: int, accepted: int, delivered: int
) -> bytes:
    """Return the block with what became of the frames of a port from start to end.

    `received` came by, `accepted` of them passed the filter; those were `delivered` or, for want of room, `dropped`.
    """
    options = [
        (_ISB_START, _time(start_ns)),
        (_ISB_END, _time(end_ns)),
        *(
            (code, struct.pack("<Q", count))
            for code, count in (
                (_ISB_RECEIVED, received),
                (_ISB_DROPPED, dropped),
                (_ISB_ACCEPTED, accepted),
                (_ISB_DELIVERED, delivered),
            )
        ),
    ]
    return _block(_STATISTICS, struct.pack("<I", interface) + _time(end_ns) + _options(options))


def _time(ns: int) -> bytes:
    return struct.pack("<II", ns >> 32 & 0xFFFFFFFF, ns & 0xFFFFFFFF)


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(_option(code, value) for code, value in options) + bytes(4)


def _option(code: int, value: bytes) -> bytes:
    value = value[:MAX_TEXT_BYTES]
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    total = len(body) + 12
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)
