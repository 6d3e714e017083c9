"""The side columns of a batch, and what a switch admits of them."""

from __future__ import annotations

import struct

import pytest
from tests.offload_frames import packet

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.header import Header, parse
from lamina_vswitch.domain.frames.metadata import LadenFrame, Offload, laden, load_of, with_tag, without_tag
from lamina_vswitch.domain.offload import columns
from lamina_vswitch.domain.offload.flow_hash import flow_hash
from lamina_vswitch.domain.offload.ingress import admitted

HEADER = struct.Struct("<BBHHHHHHHI")
PLAIN = bytes(60)
RECORD = bytes(range(32))


def test_a_batch_without_columns_is_plain() -> None:
    """Frames that carry nothing stay bytes, and make no columns."""
    frames = columns.joined([PLAIN, PLAIN], b"", b"")
    assert [type(frame) for frame in frames] == [bytes, bytes]
    assert columns.parted(frames) == ([PLAIN, PLAIN], b"", b"")


def test_columns_come_back_as_they_were() -> None:
    """Headers and records of a batch are the same on the way out, and none are zeros."""
    header = HEADER.pack(1, 0, 0, 0, 14, 6, 0, 0, 0, 77)
    frames = columns.joined([PLAIN, PLAIN, PLAIN], header + bytes(40), bytes(32) + RECORD + bytes(32))
    assert [type(frame) for frame in frames] == [LadenFrame, LadenFrame, bytes]
    assert load_of(frames[0]) == (Offload(flags=1, sum_start=14, sum_offset=6, flow_hash=77), None)
    assert load_of(frames[1]) == (None, RECORD)
    assert columns.parted(frames) == ([PLAIN] * 3, header + bytes(40), bytes(32) + RECORD + bytes(32))


def test_a_tag_beside_the_frame_goes_into_it() -> None:
    """The switch decides about VLANs by the frame alone, and offsets count from its beginning."""
    header = HEADER.pack(1 | 4, 0, 0, 0, 34, 6, 0, 0x8100, 0x2064, 0)
    (frame,) = columns.joined([PLAIN], header, b"")
    assert frame == bytes(12) + bytes.fromhex("81002064") + bytes(48)
    assert load_of(frame)[0] == Offload(flags=1, sum_start=38, sum_offset=6)


def test_tags_come_and_go_with_the_load() -> None:
    """A tag that a laden frame gets or loses moves the places that its header names."""
    offload = Offload(flags=1, kind=1, header_bytes=54, segment_bytes=500, sum_start=34, sum_offset=16)
    tagged = with_tag(laden(PLAIN, offload, RECORD), b"\x81\x00\x00\x64")
    found = load_of(tagged)[0]
    assert found is not None and (found.header_bytes, found.sum_start) == (58, 38)
    assert load_of(without_tag(tagged)) == (offload, RECORD)
    assert without_tag(tagged) == PLAIN


@pytest.mark.parametrize(("headers", "records", "fit"), [(0, 0, True), (40, 64, True), (20, 0, False), (0, 63, False)])
def test_columns_have_one_entry_a_frame(headers: int, records: int, fit: bool) -> None:
    """A column is empty, or as long as the frames ask for."""
    assert columns.fits([PLAIN, PLAIN], bytes(headers), bytes(records)) is fit


LONG = packet(4, 6, bytes(5000))
GOOD: dict[str, int] = {
    "flags": 1,
    "kind": 1,
    "header_bytes": 54,
    "segment_bytes": 1446,
    "sum_start": 34,
    "sum_offset": 16,
}


def test_a_header_that_fits_is_admitted() -> None:
    """A long TCP packet passes with segments that the MTU allows."""
    frame = laden(LONG, Offload(**GOOD), None)
    assert admitted([frame, PLAIN], 1500) == ([frame, PLAIN], [])


@pytest.mark.parametrize(
    "change",
    [
        {"flags": 8},
        {"flags": 4},
        {"tag": 1},
        {"kind": 2},
        {"kind": 4},
        {"kind": 3},
        {"kind": 0x83},
        {"kind": 0x80},
        {"header_bytes": 50},
        {"segment_bytes": 0},
        {"segment_bytes": 1447 + 14},
        {"segment_bytes": 4},
        {"sum_start": 0},
        {"sum_start": 5040},
        {"sum_offset": 65535},
    ],
)
def test_a_header_that_does_not_fit_is_refused(change: dict[str, int]) -> None:
    """Unknown flags and kinds, other headers than the frame has, too many or too long pieces, sums outside of it."""
    frame = laden(LONG, Offload(**{**GOOD, **change}), None)
    assert admitted([frame], 1500) == ([], [frame])


STACKED = bytes.fromhex("88a8006481000007")


@pytest.mark.parametrize(
    ("tags", "mss", "fits"), [(STACKED, 1460, True), (STACKED, 1461, False), (STACKED + STACKED, 1, False)]
)
def test_long_packets_behind_stacked_tags_are_admitted(tags: bytes, mss: int, fits: bool) -> None:
    """Two tags may make each piece longer; behind three or more the switch does not look."""
    frame = packet(4, 6, bytes(5000), tag=tags)
    at = 34 + len(tags)
    found = admitted([laden(frame, Offload(1, 1, at + 20, mss, at, 16), None)], 1500)
    assert found == (([frame], []) if fits else ([], [frame]))


@pytest.mark.parametrize(("provider", "vlan"), [(True, 100), (False, DropReason.OVERSIZE)])
def test_stacked_tags_count_where_a_provider_reads_them(provider: bool, vlan: object) -> None:
    """Pieces longer by two tags pass on a provider's trunk; elsewhere tags are payload, and that is too long."""
    frame = packet(4, 6, bytes(5000), tag=STACKED)
    long = laden(frame, Offload(1, 1, 62, 1460, 42, 16), None)
    found = parse(long, 1500, provider=provider)
    assert (found.tag_vid if isinstance(found, Header) else found) == vlan
    short = parse(laden(frame, Offload(1, 1, 62, 1452, 42, 16), None), 1500, provider=provider)
    assert isinstance(short, Header)


def test_flows_keep_to_one_hash() -> None:
    """Packets of one flow hash alike, those of others differ, and a hash beside the frame counts first."""
    first, second = packet(4, 6, b"a"), packet(4, 6, b"other words")
    assert flow_hash(first) == flow_hash(second) != flow_hash(packet(4, 17, b"a"))
    assert flow_hash(laden(first, Offload(flow_hash=9), None)) == 9
    assert flow_hash(b"") and flow_hash(PLAIN) and flow_hash(packet(6, 6, b"a"))
