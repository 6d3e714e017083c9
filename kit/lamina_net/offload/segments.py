"""Cutting long packets for a wire: TCP into segments, datagrams into datagrams or into fragments; partial checksums.

All that cuts a packet after its sender is done with it does it here: the modelled NIC, and the switch at the way out of
a port whose device takes no long frames. Callers have bounded the number of pieces. Pure.

Source: RFC 9293, 3.1; RFC 768; RFC 791, 3.2; RFC 8200, 4.5; RFC 3168, 6.1.2 (CWR); Linux
Documentation/networking/segmentation-offloads.rst.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

from lamina_net.offload.headers import (
    CWR,
    FIN,
    PSH,
    UDP,
    Headers,
    fill_ipv4_sum,
    fill_transport_sum,
    ones_sum,
    pseudo_sum,
)
from lamina_net.offload.piece_rows import FEW, cut_rows, is_regular
from lamina_net.packets import ipv4
from lamina_net.packets.refusal import Refusal

UDP_SUM_PLACE = 6
"""Where the checksum of a datagram lies in its header: there 0 means none, so a sum of 0 is written as 0xffff."""

_IPV6_BYTES = 40
_FRAGMENT_HEADER = 44
_MORE = 0x2000


def with_sum(frame: bytes, start: int, offset: int) -> bytes:
    """Return a frame with the sum from `start` on, put `offset` bytes behind it, where the pseudo header's sum lies.

    The place is inside of the frame.
    """
    place = start + offset
    value = 0xFFFF ^ ones_sum(frame[start:])
    if not value and offset == UDP_SUM_PLACE:
        value = 0xFFFF
    return frame[:place] + value.to_bytes(2, "big") + frame[place + 2 :]


def cut_tcp(frame: bytes | bytearray, headers: Headers, segment: int) -> list[bytearray]:
    """Return a TCP packet as frames of at most `segment` bytes of payload each, with all sums right.

    `headers` says where everything lies; what the frame has behind `headers.end` is left out.
    """
    l4 = headers.l4
    header, payload = frame[: headers.payload], memoryview(frame)[headers.payload : headers.end]
    sequence = int.from_bytes(frame[l4 + 4 : l4 + 8], "big")
    pseudo = pseudo_sum(header, headers, 0)
    before_last = (len(payload) - 1) // segment
    pieces = cut_rows(frame, headers, segment, before_last) if before_last >= FEW and is_regular(headers) else []
    for number in range(len(pieces), max(before_last, 0) + 1):
        begin = number * segment
        piece = bytearray(header) + payload[begin : begin + segment]
        is_first, is_last = begin == 0, begin + segment >= len(payload)
        piece[l4 + 13] &= 0xFF ^ ((0 if is_last else FIN | PSH) | (0 if is_first else CWR))
        piece[l4 + 4 : l4 + 8] = ((sequence + begin) & 0xFFFFFFFF).to_bytes(4, "big")
        _set_length(piece, headers, number)
        piece[l4 + 16 : l4 + 18] = b"\0\0"
        total = ones_sum(piece[l4:], pseudo + len(piece) - l4)
        piece[l4 + 16 : l4 + 18] = (0xFFFF ^ total).to_bytes(2, "big")
        pieces.append(piece)
    return pieces


def cut_udp(frame: bytes | bytearray, headers: Headers, segment: int) -> list[bytearray]:
    """Return a datagram as datagrams of at most `segment` bytes of payload each, with all sums right."""
    payload = frame[headers.payload : headers.end]
    pieces = []
    for number, begin in enumerate(range(0, max(len(payload), 1), segment)):
        piece = bytearray(frame[: headers.payload]) + payload[begin : begin + segment]
        length = len(piece) - headers.l4
        piece[headers.l4 + 4 : headers.l4 + 6] = length.to_bytes(2, "big")
        _set_length(piece, headers, number)
        fill_transport_sum(piece, replace(headers, end=len(piece)))
        pieces.append(piece)
    return pieces


def fragment_udp(frame: bytes | bytearray, headers: Headers, segment: int) -> list[bytearray]:
    """Return one datagram as IP fragments with at most `segment` bytes of it each, its sum right.

    `segment` is at least 8 and is lowered to a multiple of 8; `headers` are what `parse` found in the frame.
    """
    whole = bytearray(frame[: headers.end])
    fill_transport_sum(whole, headers)
    step, datagram = segment & ~7, whole[headers.l4 :]
    if headers.version == 4:
        return _ipv4_fragments(whole, headers, headers.l4 - headers.l3 + step)
    return [_ipv6_fragment(whole, headers, datagram, begin, step) for begin in range(0, len(datagram), step)]


def _ipv4_fragments(whole: bytearray, headers: Headers, mtu: int) -> list[bytearray]:
    """Whoever asks for fragments means it, whatever the packet says of them."""
    packet = ipv4.parse(bytes(whole[headers.l3 :]), quoted=True)
    parts = packet if isinstance(packet, Refusal) else ipv4.fragment(packet._replace(dont_fragment=False), mtu)
    if isinstance(parts, Refusal):
        raise ValueError(f"headers at {headers.l3} are not those of an IPv4 packet: {parts.name}")
    return [whole[: headers.l3] + ipv4.build(part) for part in parts]


def _ipv6_fragment(whole: bytearray, headers: Headers, datagram: bytearray, begin: int, step: int) -> bytearray:
    """The identification, which IPv6 has in fragments only, is a digest of the datagram: the same frame, the same."""
    l3, part = headers.l3, datagram[begin : begin + step]
    piece = whole[: l3 + _IPV6_BYTES]
    piece[l3 + 4 : l3 + 6] = (8 + len(part)).to_bytes(2, "big")
    piece[l3 + 6] = _FRAGMENT_HEADER
    place = begin | (1 if begin + step < len(datagram) else 0)
    piece += bytes((UDP, 0)) + place.to_bytes(2, "big") + zlib.crc32(datagram).to_bytes(4, "big")
    return piece + part


def _set_length(piece: bytearray, headers: Headers, number: int) -> None:
    """Write the packet's length, and over IPv4 the identification of piece `number` and the header's sum."""
    l3 = headers.l3
    if headers.version == 4:
        identification = int.from_bytes(piece[l3 + 4 : l3 + 6], "big")
        piece[l3 + 2 : l3 + 4] = (len(piece) - l3).to_bytes(2, "big")
        piece[l3 + 4 : l3 + 6] = ((identification + number) & 0xFFFF).to_bytes(2, "big")
        fill_ipv4_sum(piece, l3, headers.l4 - l3)
    else:
        piece[l3 + 4 : l3 + 6] = (len(piece) - l3 - _IPV6_BYTES).to_bytes(2, "big")
