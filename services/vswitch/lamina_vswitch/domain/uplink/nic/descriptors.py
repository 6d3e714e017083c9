"""Descriptors of a NIC's rings: 16 bytes each, little-endian, as a driver writes and reads them.

    receive, given        0  buffer address                 8  0
    receive, written      8  status: bit 0 done, bit 1 last of its frame      12  length
    transmit, context     0  IP header bytes 0–8, Ethernet bytes 9–15
                          8  IPv4 bit 10, TCP bit 11, type 20–23 = 2, format bit 29, TCP header bytes 40–47, MSS 48–63
    transmit, data        0  buffer address
                          8  bytes 0–15, type 20–23 = 3, last 24, report 27, format bit 29, segment 31, IP sum 40,
                             TCP or UDP sum 41, payload bytes 46–63
    transmit, written     8  bit 32 done

Source: Intel 82599 datasheet 331520, chapters 7.1.5, 7.1.6 and 7.2.3, which `Nics` of hardware's contract names.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

BYTES = 16
_PAIR = struct.Struct("<QQ")
_WRITTEN = struct.Struct("<IHH")

_FORMAT = 1 << 29
_CONTEXT, _DATA = 2 << 20, 3 << 20
_LAST, _REPORT, _SEGMENT = 1 << 24, 1 << 27, 1 << 31
_IP_SUM, _L4_SUM = 1 << 40, 1 << 41
_IPV4, _TCP = 1 << 10, 1 << 11
_TRANSMIT_DONE = 1 << 32
_RECEIVE_DONE, _END_OF_FRAME = 1, 2

MOST_ETHERNET_BYTES, MOST_IP_BYTES = 0x7F, 0x1FF
"""Longest headers that a context can name."""


class Work(NamedTuple):
    """What the NIC does to one frame: header lengths in bytes, and `mss` bytes of payload a segment, 0 for one frame.

    The transport checksum is filled in either way, that of IPv4 with segments only: frames of the switch have it.
    """

    ethernet_bytes: int
    ip_bytes: int
    transport_bytes: int
    ipv4: bool
    tcp: bool
    mss: int = 0
    payload_bytes: int = 0


def given(address: int) -> bytes:
    """Return a receive descriptor that gives the NIC the buffer at a DMA address."""
    return _PAIR.pack(address, 0)


def received(raw: bytes) -> tuple[bool, bool, int]:
    """Return of a receive descriptor whether the NIC wrote it, whether a frame ends there, and how many bytes came."""
    status, length, _ = _WRITTEN.unpack_from(raw, 8)
    return bool(status & _RECEIVE_DONE), bool(status & _END_OF_FRAME), length


def context(work: Work) -> bytes:
    """Return the context descriptor that data descriptors of a frame with work refer to."""
    first = work.ip_bytes | work.ethernet_bytes << 9
    kind = (_IPV4 if work.ipv4 else 0) | (_TCP if work.tcp else 0)
    return _PAIR.pack(first, _CONTEXT | _FORMAT | kind | work.transport_bytes << 40 | work.mss << 48)


def data(address: int, size: int, work: Work | None, *, last: bool) -> bytes:
    """Return a data descriptor of one buffer; the last of a frame asks for a report."""
    second = size | _DATA | _FORMAT | (_LAST | _REPORT if last else 0)
    if work is not None:
        second |= _L4_SUM
        if work.mss:
            second |= _SEGMENT | (_IP_SUM if work.ipv4 else 0) | work.payload_bytes << 46
    return _PAIR.pack(address, second)


def sent(raw: bytes) -> bool:
    """Tell of a transmit descriptor whether the NIC has reported it."""
    return bool(_PAIR.unpack(raw)[1] & _TRANSMIT_DONE)
