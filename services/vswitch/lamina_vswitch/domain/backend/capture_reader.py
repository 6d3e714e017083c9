"""Frames out of capture files, pcap or pcapng by their content. Fed with pieces of a file; trusts none of its bytes.

    pcap      magic 0xa1b2c3d4 (microseconds) or 0xa1b23c4d (nanoseconds) in either byte order, version, 8 bytes,
              snap length, link type; then for each frame: seconds, fraction, bytes here, bytes on the wire, bytes
    pcapng    blocks: type, total length, body, total length again; a section header says the byte order

Source: draft-ietf-opsawg-pcap-04; draft-ietf-opsawg-pcapng-03.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

LINKTYPE_ETHERNET = 1
MAX_BLOCK_BYTES = 1 << 20
"""Longest block or record that is read: a frame of 64 KiB with a thousand words about it, and some."""

_SECTION, _INTERFACE, _OBSOLETE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_PCAP_MAGICS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
_PCAP_HEAD, _RECORD_HEAD, _BLOCK_LEAST = 24, 16, 12
_TSRESOL, _TSOFFSET = 9, 14
_NS_PER_SECOND = 1_000_000_000
_MICROSECONDS = 6
_MAX_TIME = 1 << 62


class Stamped(NamedTuple):
    """A frame of a file, with nanoseconds of Unix time; a simple packet block has no time, and so that before it."""

    time_ns: int
    frame: bytes


class Malformed(Exception):
    """The bytes are no capture file of Ethernet frames; the text says where and why, as the end of a sentence."""


class _Interface(NamedTuple):
    """Units of its time stamps in a second, seconds to add, and most bytes that a frame keeps, 0 for all."""

    units: int
    offset_s: int
    snap_bytes: int


class CaptureReader:
    """Reads one file, piece by piece. It holds at most one block."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._place = 0
        self._order = ""
        self._unit_ns = 0
        self._interfaces: list[_Interface] = []
        self._last_ns = 0

    def feed(self, data: bytes) -> list[Stamped]:
        """Return the frames that are complete now. Raises `Malformed`; nothing more can be read then."""
        self._held += data
        found: list[Stamped] = []
        at = 0
        while (size := self._next_bytes(at)) and size <= len(self._held) - at:
            piece = bytes(self._held[at : at + size])
            frame = self._block(piece) if not self._unit_ns else self._record(piece)
            if frame is not None:
                self._last_ns = frame.time_ns
                found.append(frame)
            at += size
            self._place += size
        del self._held[:at]
        return found

    def finish(self) -> None:
        """Say that the file ends here. Raises `Malformed` when it ends in the middle of something."""
        if self._held or not self._place:
            raise Malformed(f"ends in the middle of what begins at byte {self._place}")

    def _next_bytes(self, at: int) -> int:
        """Return the size of what comes next, 0 while that cannot be told."""
        if not self._place:
            return self._first_bytes(at)
        left = len(self._held) - at
        if self._unit_ns:
            if left < _RECORD_HEAD:
                return 0
            size = _RECORD_HEAD + int(struct.unpack_from(f"{self._order}I", self._held, at + 8)[0])
        else:
            if left < _BLOCK_LEAST:
                return 0
            if self._held[at : at + 4] == _SECTION.to_bytes(4, "big"):
                self._take_order(at)
            size = int(struct.unpack_from(f"{self._order}I", self._held, at + 4)[0])
        self._check_size(size, _RECORD_HEAD if self._unit_ns else _BLOCK_LEAST)
        return size

    def _first_bytes(self, at: int) -> int:
        if len(self._held) < _BLOCK_LEAST:
            return 0
        if self._held[:4] == _SECTION.to_bytes(4, "big"):
            self._take_order(at)
            size = int(struct.unpack_from(f"{self._order}I", self._held, 4)[0])
            self._check_size(size, _BLOCK_LEAST)
            return size
        for order in "<>":
            magic = struct.unpack_from(f"{order}I", self._held)[0]
            if magic in _PCAP_MAGICS:
                self._order = order
                return _PCAP_HEAD
        raise Malformed("is neither pcap nor pcapng")

    def _take_order(self, at: int) -> None:
        for order in "<>":
            if struct.unpack_from(f"{order}I", self._held, at + 8)[0] == _BYTE_ORDER_MAGIC:
                self._order = order
                self._interfaces = []
                return
        raise Malformed(f"has a section without a byte order at byte {self._place}")

    def _check_size(self, size: int, least: int) -> None:
        if not least <= size <= MAX_BLOCK_BYTES or (not self._unit_ns and size % 4):
            raise Malformed(f"has something of {size} bytes at byte {self._place}")

    # pcap

    def _pcap_head(self, piece: bytes) -> None:
        magic, _, _, _, _, _, link = struct.unpack(f"{self._order}IHHIIII", piece)
        if link & 0xFFFF != LINKTYPE_ETHERNET:
            raise Malformed(f"has frames of link type {link & 0xFFFF}, not of Ethernet")
        self._unit_ns = _PCAP_MAGICS[magic]

    def _record(self, piece: bytes) -> Stamped:
        seconds, fraction, size, _ = struct.unpack_from(f"{self._order}IIII", piece)
        return Stamped(seconds * _NS_PER_SECOND + fraction * self._unit_ns, piece[_RECORD_HEAD : _RECORD_HEAD + size])

    # pcapng

    def _block(self, piece: bytes) -> Stamped | None:
        if not self._place and len(piece) == _PCAP_HEAD and piece[:4] != _SECTION.to_bytes(4, "big"):
            self._pcap_head(piece)
            return None
        kind, size = struct.unpack_from(f"{self._order}II", piece)
        if struct.unpack_from(f"{self._order}I", piece, size - 4)[0] != size:
            raise Malformed(f"has a block at byte {self._place} whose two lengths differ")
        body = piece[8:-4]
        if kind == _INTERFACE:
            self._interfaces.append(self._interface(body))
        elif kind == _ENHANCED:
            return self._enhanced(body)
        elif kind == _OBSOLETE:
            return self._enhanced(body, "HH")
        elif kind == _SIMPLE:
            return self._simple(body)
        return None

    def _interface(self, body: bytes) -> _Interface:
        if len(body) < 8:
            raise Malformed(f"has a cut interface at byte {self._place}")
        if len(self._interfaces) >= 65536:
            raise Malformed(f"has one interface too many at byte {self._place}")
        link, _, snap = struct.unpack_from(f"{self._order}HHI", body)
        if link != LINKTYPE_ETHERNET:
            raise Malformed(f"has frames of link type {link}, not of Ethernet")
        units, offset = 10**_MICROSECONDS, 0
        for code, value in self._options(body[8:]):
            if code == _TSRESOL and len(value) == 1:
                power = value[0] & 0x7F
                units = (1 << power) if value[0] & 0x80 else 10 ** min(power, 30)
            elif code == _TSOFFSET and len(value) == 8:
                offset = int(struct.unpack(f"{self._order}q", value)[0])
        return _Interface(units, offset, snap)

    def _options(self, data: bytes) -> list[tuple[int, bytes]]:
        found, at = [], 0
        while at + 4 <= len(data):
            code, size = struct.unpack_from(f"{self._order}HH", data, at)
            if code == 0 or at + 4 + size > len(data):
                break
            found.append((code, data[at + 4 : at + 4 + size]))
            at += 4 + size + -size % 4
        return found

    def _enhanced(self, body: bytes, number: str = "I") -> Stamped:
        """Return the frame of an enhanced packet block, or of an old packet block, whose interface has two bytes."""
        if len(body) < 20:
            raise Malformed(f"has a cut packet at byte {self._place}")
        interface, *_, high, low, size, _ = struct.unpack_from(f"{self._order}{number}IIII", body)
        if interface >= len(self._interfaces) or size > len(body) - 20:
            raise Malformed(f"has a packet at byte {self._place} that is cut, or of no interface")
        found = self._interfaces[interface]
        time_ns = (high << 32 | low) * _NS_PER_SECOND // found.units + found.offset_s * _NS_PER_SECOND
        return Stamped(max(-_MAX_TIME, min(time_ns, _MAX_TIME)), body[20 : 20 + size])

    def _simple(self, body: bytes) -> Stamped:
        if len(body) < 4 or not self._interfaces:
            raise Malformed(f"has a packet at byte {self._place} that is cut, or of no interface")
        size = int(struct.unpack_from(f"{self._order}I", body)[0])
        size = min(size, self._interfaces[0].snap_bytes or size)
        if size > len(body) - 4:
            raise Malformed(f"has a cut packet at byte {self._place}")
        return Stamped(self._last_ns, body[4 : 4 + size])
