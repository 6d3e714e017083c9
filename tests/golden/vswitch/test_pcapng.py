"""A capture's bytes, told block by block in hexadecimal: the same for the same frames, and known to Wireshark."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from lamina_vswitch.domain.capture.capture import Capture
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.capture.selection import Selection
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.metadata import laden

SWITCH = "hosts/h1/switches/s1"
FRAME = bytes.fromhex("ffffffffffff 020000000001 88b5") + b"hello"
TRACE = bytes(range(16)) + bytes(8) + b"\x01" + bytes(7)


def listing(data: bytes) -> str:
    """Returns a line of four columns for each 16 bytes, with a heading for each block."""
    lines, at = [], 0
    while at < len(data):
        kind, total = struct.unpack_from("<II", data, at)
        lines.append(f"block 0x{kind:08x}, {total} bytes")
        for start in range(at, at + total, 16):
            lines.append("  " + data[start : min(start + 16, at + total)].hex(" ", 4))
        at += total
    return "\n".join(lines) + "\n"


def test_a_capture_is_these_bytes(golden: Any) -> None:
    """Two ports, a filter, a cut frame, a drop, a trace, and statistics; one seed's bytes are another run's too."""
    capture = Capture(Selection(SWITCH, drops=True, filter="not ip", snap_bytes=64), 0, lambda: None)
    capture.see(f"{SWITCH}/ports/a", Direction.INGRESS, [FRAME, FRAME.ljust(70, b"!")], 5_000_000_001)
    capture.see(f"{SWITCH}/ports/b", Direction.EGRESS, [laden(FRAME, None, TRACE)], 5_000_000_001)
    capture.see(f"{SWITCH}/ports/b", Direction.EGRESS, [FRAME], 5_000_000_002, DropReason.QUEUE_FULL)
    capture.end(6_000_000_000)
    piece = capture.take(6_000_000_000)
    assert piece is not None and (piece.frames, piece.lost) == (4, 0)
    golden(listing(piece.data), Path(__file__).with_name("capture.pcapng.txt"))
