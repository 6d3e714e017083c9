"""Frames that the kernel has not finished become those that hardware would have sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.offload_frames import packet

from lamina_hardware.domain.nic.completion import HEADER, Unfinished, complete, read
from lamina_hardware.domain.nic.descriptors import Malformed
from lamina_net.offload.headers import is_ipv4_sum_good, is_transport_sum_good, parse

TCPV4, TCPV6, UDP_L4, ECN = 1, 4, 5, 0x80


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize("payload", [b"", b"odd", bytes(1000)])
def test_a_checksum_is_filled_in(version: int, protocol: int, payload: bytes) -> None:
    """The sum of a whole packet is right afterwards, and nothing else has changed."""
    frame = packet(version, protocol, payload)
    headers = parse(frame)
    offset = 16 if protocol == 6 else 6
    [done] = complete(frame, Unfinished(1, 0, 0, headers.l4, offset))
    assert is_transport_sum_good(done, headers)
    place = headers.l4 + offset
    assert done[place : place + 2] != b"\0\0"
    assert done[:place] + done[place + 2 :] == frame[:place] + frame[place + 2 :]


@pytest.mark.parametrize(("version", "kind"), [(4, TCPV4), (4, TCPV4 | ECN), (6, TCPV6)])
def test_a_tcp_packet_is_cut(version: int, kind: int) -> None:
    """Segments are of the asked size, in order, with sums of their own and numbers that go on."""
    payload = bytes(range(256)) * 20
    pieces = complete(packet(version, 6, payload), Unfinished(1, kind, 1400, 0, 0))
    parsed = [(piece, parse(piece)) for piece in pieces]
    assert b"".join(piece[headers.payload : headers.end] for piece, headers in parsed) == payload
    assert [len(piece) - headers.payload for piece, headers in parsed] == [1400, 1400, 1400, 920]
    assert all(is_transport_sum_good(piece, headers) for piece, headers in parsed)
    assert all(version == 6 or is_ipv4_sum_good(piece, headers) for piece, headers in parsed)
    sequences = [int.from_bytes(piece[headers.l4 + 4 : headers.l4 + 8], "big") for piece, headers in parsed]
    assert sequences == [1000, 2400, 3800, 5200]
    assert [piece[headers.l4 + 13] & 8 for piece, headers in parsed] == [0, 0, 0, 8]  # PSH on the last


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_are_cut(version: int) -> None:
    """Each becomes a datagram with its own length and sum."""
    payload = b"abcdefg" * 100
    pieces = complete(packet(version, 17, payload), Unfinished(1, UDP_L4, 300, 0, 0))
    parsed = [(piece, parse(piece)) for piece in pieces]
    assert [headers.end - headers.payload for _, headers in parsed] == [300, 300, 100]
    assert b"".join(piece[headers.payload : headers.end] for piece, headers in parsed) == payload
    assert all(is_transport_sum_good(piece, headers) for piece, headers in parsed)


@pytest.mark.parametrize(
    "left",
    [
        Unfinished(1, 0, 0, 50, 6),
        Unfinished(1, 0, 0, 65535, 65535),
        Unfinished(0, TCPV4, 0, 0, 0),
        Unfinished(0, TCPV4, 100, 0, 0),
        Unfinished(0, UDP_L4, 0, 0, 0),
        Unfinished(0, 3, 100, 0, 0),
        Unfinished(0, 0x20 | TCPV4, 100, 0, 0),
    ],
)
def test_what_cannot_be_done_is_refused(left: Unfinished) -> None:
    """A sum outside the frame, a size of 0, another protocol and kinds that no NIC here knows are malformed."""
    with pytest.raises(Malformed):
        complete(packet(4, 17, b"abc"), left)


@given(st.binary(min_size=14, max_size=200), st.binary(min_size=HEADER.size, max_size=HEADER.size))
def test_anything_is_finished_or_refused(frame: bytes, raw: bytes) -> None:
    """Whatever stands in frame and header, there are frames of at least an Ethernet header, or it is malformed."""
    try:
        pieces = complete(frame, read(raw))
    except Malformed:
        return
    assert pieces and all(len(piece) >= 14 for piece in pieces)
