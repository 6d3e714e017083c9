"""TCP segments and their options."""

from __future__ import annotations

import pytest

from lamina_net.packets.refusal import Refusal
from lamina_net.tcp import segment as tcp
from lamina_net.tcp.segment import ACK, FIN, NO_OPTIONS, PSH, SYN, Options, Segment

A, B = 0x0A000001, 0x0A000002


def test_a_syn_byte_by_byte() -> None:
    """A SYN with the options of Linux has 40 bytes, and is read as it was."""
    options = Options(mss=1460, window_scale=7, sack_permitted=True, timestamp=(0x01020304, 0))
    syn = Segment(49152, 80, 0x11223344, 0, SYN, 64240, b"", options)
    data = tcp.build(A, B, syn)
    assert data.hex() == (
        "c0000050" + "11223344" + "00000000" + "a002faf0" + data[16:18].hex() + "0000"
        + "020405b4" + "0402080a0102030400000000" + "01030307"
    )  # fmt: skip
    assert tcp.parse(A, B, data) == syn


def test_data_with_a_timestamp() -> None:
    """What every segment of a connection looks like takes 32 bytes of header."""
    segment = Segment(1, 2, 3, 4, ACK | PSH, 512, b"hello", Options(timestamp=(5, 6)))
    data = tcp.build(A, B, segment)
    assert (len(data), tcp.parse(A, B, data)) == (37, segment)


def test_sack_blocks() -> None:
    """Four blocks fit alone, three beside a timestamp; the first ones count (RFC 2018, 3)."""
    blocks = tuple((n * 100, n * 100 + 50) for n in range(5))
    assert tcp.parse_options(tcp.build_options(Options(sack=blocks))).sack == blocks[:4]
    assert tcp.parse_options(tcp.build_options(Options(sack=blocks, timestamp=(1, 2)))).sack == blocks[:3]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", NO_OPTIONS),
        ("00020405b4", NO_OPTIONS),
        ("01010101", NO_OPTIONS),
        ("020405b4", Options(mss=1460)),
        ("0200", NO_OPTIONS),
        ("0201", NO_OPTIONS),
        ("02", NO_OPTIONS),
        ("0204", NO_OPTIONS),
        ("0203aa020405b4", Options(mss=1460)),
        ("fe04aaaa030307", Options(window_scale=7)),
        ("0402020805b4", Options(sack_permitted=True)),
        ("0502", NO_OPTIONS),
        ("050a0000000100000002", Options(sack=((1, 2),))),
        ("080a0000000100000002", Options(timestamp=(1, 2))),
        ("0101080a0000000100000002", Options(timestamp=(1, 2))),
        ("0303070303ff", Options(window_scale=255)),
    ],
)
def test_options_good_and_broken(text: str, options: Options) -> None:
    """Unknown options and wrong sizes are skipped; one that cannot be walked over ends the walk."""
    assert tcp.parse_options(bytes.fromhex(text)) == options


@pytest.mark.parametrize(
    ("place", "new", "refusal"),
    [(12, "40", Refusal.LENGTH), (12, "f0", Refusal.TRUNCATED), (4, "ff", Refusal.CHECKSUM)],
)
def test_segments_that_cannot_be(place: int, new: str, refusal: Refusal) -> None:
    """A header below 20 bytes, beyond the segment, or with a wrong sum is refused."""
    data = tcp.build(A, B, Segment(1, 2, 3, 4, ACK, 5, b"abc"))
    assert tcp.parse(A, B, data[:place] + bytes.fromhex(new) + data[place + 1 :]) is refusal
    assert tcp.parse(A, B, data[:19]) is Refusal.TRUNCATED


def test_a_device_completes_the_checksum() -> None:
    """A segment without checksum carries the sum of its pseudo header, from which a device makes it right."""
    segment = Segment(1, 2, 3, 4, ACK, 5, b"abc")
    whole, partial = tcp.build(A, B, segment), tcp.build(A, B, segment, with_checksum=False)
    assert tcp.parse(A, B, partial) is Refusal.CHECKSUM
    assert tcp.parse(A, B, partial, verify=False) == segment
    total = sum(int.from_bytes(partial[place : place + 2].ljust(2, b"\0"), "big") for place in range(0, 23, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert partial[:16] + (total ^ 0xFFFF).to_bytes(2, "big") + partial[18:] == whole


def test_a_segment_takes_up_sequence_numbers() -> None:
    """SYN and FIN take one each, beside the data."""
    assert [Segment(1, 2, 3, 4, flags, 5, b"ab").length for flags in (ACK, SYN, FIN, SYN | FIN)] == [2, 3, 3, 4]


def test_a_segment_reads_as_a_line() -> None:
    """Logs and tests show ports, flags, span, acknowledgement and window."""
    assert str(Segment(49152, 80, 0xFFFFFFFF, 9, SYN | ACK, 512)) == "49152>80 SA 4294967295:0 ack 9 win 512"
