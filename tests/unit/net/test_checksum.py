"""The Internet checksum against the vectors of its RFCs and against the loop that they describe."""

from __future__ import annotations

import pytest

from lamina_net.packets.checksum import checksum, is_right, pseudo_sum, updated, word_sum


def looped_sum(data: bytes) -> int:
    """Return the folded sum as RFC 1071, 4.1 computes it."""
    total = 0
    for place in range(0, len(data), 2):
        total += data[place] << 8 | (data[place + 1] if place + 1 < len(data) else 0)
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_the_example_of_rfc_1071() -> None:
    """The eight bytes of RFC 1071, 3 sum to ddf2."""
    data = bytes.fromhex("0001 f203 f4f5 f6f7")
    assert (word_sum(data), checksum(data)) == (0xDDF2, 0x220D)


def test_the_example_of_rfc_1624() -> None:
    """The update of RFC 1624, 4 gives 0000, where the equation before it gave ffff."""
    assert updated(0xDD2F, 0x5555, 0x3285) == 0x0000


def test_a_header_with_its_checksum_is_right() -> None:
    """A well-known header verifies, and not after a bit of it changed."""
    header = bytes.fromhex("4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7")
    assert is_right(header)
    assert not is_right(header[:-1] + b"\xc6")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 19, 20, 1023, 1024, 1025, 1026, 1027, 9001, 65535])
@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x01\xfe\x80"])
def test_sums_of_every_kind_of_length(size: int, fill: bytes) -> None:
    """Short and long, even and odd sizes sum as the loop does; all zeros and all ones too."""
    data = (fill * size)[:size]
    assert word_sum(data) == looped_sum(data)


def test_zeros_are_not_right() -> None:
    """Zeros sum to 0, which is not the ffff of a packet with a right checksum."""
    assert not is_right(bytes(20))
    assert not is_right(bytes(2000))


def test_the_pseudo_header_counts() -> None:
    """The sum of the pseudo header is that of its twelve bytes."""
    pseudo = bytes.fromhex("c0a80001 c0a800c7 0011 0010")
    assert checksum(b"", pseudo_sum(0xC0A80001, 0xC0A800C7, 17, 16)) == checksum(pseudo)
