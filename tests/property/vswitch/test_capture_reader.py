"""Capture files, read in pieces: what a naive writer wrote comes out, and no bytes make the reader fail otherwise."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_vswitch.domain.backend.capture_reader import MAX_BLOCK_BYTES, CaptureReader, Malformed, Stamped

FRAMES = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 999_999), st.binary(max_size=300)).map(tuple), max_size=8
)
ORDERS = st.sampled_from("<>")


def pcap(order: str, nanoseconds: bool, frames: list[tuple[int, int, bytes]]) -> bytes:
    """Return a pcap file."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    head = struct.pack(f"{order}IHHIIII", magic, 2, 4, 0, 0, 262144, 1)
    records = [
        struct.pack(f"{order}IIII", second, part, len(frame), len(frame) + 9) + frame for second, part, frame in frames
    ]
    return head + b"".join(records)


def block(order: str, kind: int, body: bytes) -> bytes:
    """Return a block of a pcapng file."""
    body += bytes(-len(body) % 4)
    size = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + size + body + size


def section(order: str, options: bytes = b"", link: int = 1) -> bytes:
    """Return a section header with one interface."""
    head = block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))
    return head + block(order, 1, struct.pack(f"{order}HHI", link, 0, 0) + options)


def enhanced(order: str, units: int, frame: bytes) -> bytes:
    """Return an enhanced packet block."""
    head = struct.pack(f"{order}IIIII", 0, units >> 32, units & 0xFFFFFFFF, len(frame), len(frame))
    return block(order, 6, head + frame)


def read(data: bytes, cuts: list[int]) -> list[Stamped]:
    """Return the frames of a file that comes in pieces of these sizes, the rest in one."""
    reader, found, at = CaptureReader(), [], 0
    for size in cuts:
        found += reader.feed(data[at : at + size])
        at += size
    found += reader.feed(data[at:])
    reader.finish()
    return found


CUTS = st.lists(st.integers(0, 60), max_size=12)


@given(ORDERS, st.booleans(), FRAMES, CUTS)
def test_pcap_comes_back(order: str, nanoseconds: bool, frames: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    """Frames and times of either byte order and unit, however the file is cut."""
    unit = 1 if nanoseconds else 1000
    expected = [Stamped(second * 10**9 + part * unit, frame) for second, part, frame in frames]
    assert read(pcap(order, nanoseconds, frames), cuts) == expected


RESOLUTIONS = st.sampled_from([(b"", 10**6), (b"\x09", 10**9), (b"\x03", 10**3), (b"\x8a", 1024)])


@given(ORDERS, RESOLUTIONS, st.integers(-1000, 1000), FRAMES, CUTS, st.booleans())
def test_pcapng_comes_back(
    order: str,
    resolution: tuple[bytes, int],
    offset: int,
    frames: list[tuple[int, int, bytes]],
    cuts: list[int],
    twice: bool,
) -> None:
    """Frames and times of any resolution and offset; unknown blocks are passed over; a second section starts anew."""
    code, units = resolution
    options = struct.pack(f"{order}HHB3x", 9, 1, code[0]) if code else b""
    options += struct.pack(f"{order}HHq", 14, 8, offset) + bytes(4)
    body = block(order, 0x0BAD, b"something else")
    body += b"".join(enhanced(order, second << 8, frame) for second, _, frame in frames)
    expected = [Stamped((second << 8) * 10**9 // units + offset * 10**9, frame) for second, _, frame in frames]
    data = section(order, options) + body
    if twice:
        other = "<" if order == ">" else ">"
        data += section(other) + enhanced(other, 5, b"last")
        expected.append(Stamped(5000, b"last"))
    assert read(data, cuts) == expected


def test_simple_and_old_packets() -> None:
    """A simple packet has the time of the one before it, and an old packet block its own."""
    old = struct.pack("<HHIIII", 0, 0, 0, 7, 2, 2) + b"ab"
    data = section("<") + block("<", 2, old) + block("<", 3, struct.pack("<I", 3) + b"xyz")
    assert read(data, []) == [Stamped(7000, b"ab"), Stamped(7000, b"xyz")]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GIF89a and no capture", "neither pcap nor pcapng"),
        (b"", "ends in the middle"),
        (pcap("<", False, [(1, 1, b"abc")])[:-1], "ends in the middle"),
        (pcap("<", False, [])[:20] + struct.pack("<I", 105), "link type 105"),
        (pcap("<", False, []) + struct.pack("<IIII", 0, 0, MAX_BLOCK_BYTES, 0), "something of"),
        (section("<", link=113), "link type 113"),
        (section("<") + struct.pack("<II", 6, 13) + bytes(12), "something of 13"),
        (section("<")[:-4] + bytes(4), "two lengths"),
        (section("<") + block("<", 6, struct.pack("<IIIII", 1, 0, 0, 0, 0)), "no interface"),
        (section("<") + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 5, 5)), "cut"),
        (section("<") + block("<", 6, b""), "cut packet"),
        (section("<") + block("<", 3, struct.pack("<I", 9)), "cut packet"),
        (section("<") + block("<", 1, b"abcd"), "cut interface"),
        (section("<") + block("<", 0x0A0D0D0A, b"no byte order"), "byte order"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, why: str) -> None:
    """Each defect has its words."""
    with pytest.raises(Malformed, match=why):
        read(data, [])


@given(st.data(), CUTS)
def test_mutated_files_are_read_or_refused(data: st.DataObject, cuts: list[int]) -> None:
    """Whatever bytes are changed, frames come out or `Malformed`, and never more bytes than went in."""
    base = data.draw(st.sampled_from([b"", pcap("<", True, [(1, 2, b"abcdefgh")] * 3), section(">")]))
    whole = bytearray(base + enhanced(">", 9, b"frame") + data.draw(st.binary(max_size=80)))
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(whole), cuts)
    except Malformed:
        return
    assert sum(len(each.frame) for each in found) <= len(whole)
