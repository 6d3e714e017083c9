"""A naive reader of pcapng files, as an oracle: it knows the format from its specification and nothing of Lamina.

It reads block by block and is as strict as it can be: lengths must agree, padding must be zero, options must end, every
packet's interface must be described before. Source: draft-ietf-opsawg-pcapng-03.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass
class Packet:
    """One enhanced packet."""

    interface: str
    time_ns: int
    data: bytes
    length: int
    direction: int
    comments: list[str]


@dataclass
class Statistics:
    """One block of interface statistics."""

    interface: str
    received: int
    dropped: int
    accepted: int
    delivered: int
    start_ns: int
    end_ns: int


@dataclass
class File:
    """What is in a file."""

    application: str = ""
    interfaces: list[str] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)
    snap_bytes: list[int] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    statistics: list[Statistics] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)


def read(data: bytes) -> File:
    """Reads a whole file; fails on the first thing that the specification does not allow."""
    found, at = File(), 0
    while at < len(data):
        kind, total = struct.unpack_from("<II", data, at)
        assert total >= 12 and total % 4 == 0 and at + total <= len(data), "the block's length is impossible"
        assert struct.unpack_from("<I", data, at + total - 4)[0] == total, "the lengths of a block differ"
        _block(found, kind, data[at + 8 : at + total - 4], at == 0)
        at += total
    return found


def _block(found: File, kind: int, body: bytes, first: bool) -> None:
    assert first == (kind == 0x0A0D0D0A), "a section header begins the file, and nothing else does"
    if kind == 0x0A0D0D0A:
        magic, major, minor, length = struct.unpack_from("<IHHq", body)
        assert (magic, major, minor, length) == (0x1A2B3C4D, 1, 0, -1)
        found.application = dict(_options(body[16:]))[4].decode()
        found.blocks.append("section")
    elif kind == 1:
        linktype, reserved, snap_bytes = struct.unpack_from("<HHI", body)
        options = dict(_options(body[8:]))
        assert (linktype, reserved, options[9]) == (1, 0, b"\x09")
        found.interfaces.append(options[2].decode())
        found.filters.append(options[11][1:].decode() if 11 in options else "")
        found.snap_bytes.append(snap_bytes)
        found.blocks.append("interface")
    elif kind == 6:
        found.packets.append(_packet(found, body))
        found.blocks.append("packet")
    elif kind == 5:
        found.statistics.append(_statistics(found, body))
        found.blocks.append("statistics")
    else:
        raise AssertionError(f"block type {kind} is unknown")


def _packet(found: File, body: bytes) -> Packet:
    interface, high, low, captured, length = struct.unpack_from("<IIIII", body)
    padded = captured + -captured % 4
    assert captured <= length and not any(body[20 + captured : 20 + padded])
    options = _options(body[20 + padded :])
    flags = [struct.unpack("<I", value)[0] for code, value in options if code == 2]
    comments = [value.decode() for code, value in options if code == 1]
    assert len(flags) == 1 and {code for code, _ in options} <= {1, 2}
    name = found.interfaces[interface]
    return Packet(name, high << 32 | low, body[20 : 20 + captured], length, flags[0], comments)


def _statistics(found: File, body: bytes) -> Statistics:
    interface, high, low = struct.unpack_from("<III", body)
    options = dict(_options(body[12:]))
    counts = [struct.unpack("<Q", options[code])[0] for code in (4, 5, 6, 8)]
    start, end = (struct.unpack("<II", options[code]) for code in (2, 3))
    times = [value[0] << 32 | value[1] for value in (start, end)]
    assert times[1] == high << 32 | low
    return Statistics(found.interfaces[interface], *counts, *times)


def _options(data: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    at = 0
    while True:
        code, length = struct.unpack_from("<HH", data, at)
        if code == 0:
            assert length == 0 and at + 4 == len(data), "something follows the end of options"
            return found
        padded = length + -length % 4
        assert not any(data[at + 4 + length : at + 4 + padded])
        found.append((code, data[at + 4 : at + 4 + length]))
        at += 4 + padded
