"""Descriptors of 16 bytes in the advanced formats of Intel's 82599, little-endian.

    receive, read        0  packet buffer address          8  header buffer address
    receive, written     0  hash type | packet type        4  hash       8  status 0–19, errors 20–31
                        12  length                        14  VLAN tag
    transmit, context    0  IPLEN 0–8, MACLEN 9–15, VLAN 16–31
                         8  IPv4 bit 10, L4T 11–12, DTYP 20–23 = 2, DEXT 29, L4LEN 40–47, MSS 48–63
    transmit, data       0  buffer address
                         8  DTALEN 0–15, DTYP 20–23 = 3, EOP 24, IFCS 25, RS 27, DEXT 29, VLE 30, TSE 31, DD 32,
                            IXSM 40, TXSM 41, PAYLEN 46–63
    transmit, written    8  DD 32

Source: Intel 82599 datasheet 331520, chapters 7.1.5–7.1.7 and 7.2.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag

BYTES = 16
_PAIR = struct.Struct("<QQ")
_WRITTEN = struct.Struct("<IIIHH")

_DTYP_CONTEXT, _DTYP_DATA = 2, 3
_EOP, _RS, _DEXT, _VLE, _TSE = 1 << 24, 1 << 27, 1 << 29, 1 << 30, 1 << 31
DONE = 1 << 32
_IXSM, _TXSM = 1 << 40, 1 << 41
_IPV4 = 1 << 10


class Status(IntFlag):
    """Bits of a written receive descriptor's status."""

    DONE = 1
    END_OF_PACKET = 2
    VLAN_STRIPPED = 8
    UDP_SUM_CHECKED = 1 << 4
    L4_SUM_CHECKED = 1 << 5
    IP_SUM_CHECKED = 1 << 6
    # errors
    L4_SUM_WRONG = 1 << 30
    IP_SUM_WRONG = 1 << 31


class PacketType(IntFlag):
    """Bits of a written receive descriptor's packet type (without VMDq filters)."""

    IPV4 = 1
    IPV6 = 4
    TCP = 1 << 4
    UDP = 1 << 5


class Malformed(ValueError):
    """A transmit descriptor that says nothing that the NIC can do; the text says what."""


@dataclass(frozen=True, slots=True)
class TransmitContext:
    """What later data descriptors of the queue refer to. Lengths in bytes."""

    mac_bytes: int
    ip_bytes: int
    l4_bytes: int
    mss: int
    vlan: int
    is_ipv4: bool
    l4_type: int
    """0 UDP, 1 TCP, 2 SCTP, 3 reserved."""


@dataclass(frozen=True, slots=True)
class TransmitData:
    """One buffer of a frame, with what is to be done to the frame. `payload_bytes` counts without headers with TSO."""

    address: int
    size: int
    is_last: bool
    wants_report: bool
    insert_vlan: bool
    segment: bool
    ip_sum: bool
    l4_sum: bool
    payload_bytes: int


def read_receive(raw: bytes) -> int:
    """Returns the address of the packet buffer."""
    address: int = _PAIR.unpack(raw)[0]
    return address


def write_receive(kind: int, types: int, value: int, status: int, length: int, vlan: int, joined: int = 0) -> bytes:
    """Returns a written receive descriptor: hash type, packet types, hash, status, bytes in this buffer, tag.

    `joined` is how many frames were joined into this one (RSCCNT, 4 bits; more are told as 15), 0 for none.
    """
    first = (kind & 15) | (types & 0x1FFF) << 4 | min(joined, 15) << 17
    return _WRITTEN.pack(first, value & 0xFFFFFFFF, status & 0xFFFFFFFF, length & 0xFFFF, vlan & 0xFFFF)


def read_transmit(raw: bytes) -> TransmitContext | TransmitData:
    """Returns a transmit descriptor. Raises `Malformed`."""
    first, second = _PAIR.unpack(raw)
    kind = (second >> 20) & 15
    if not second & _DEXT:
        raise Malformed("legacy format (DEXT is 0)")
    if kind == _DTYP_CONTEXT:
        return TransmitContext(
            mac_bytes=(first >> 9) & 0x7F,
            ip_bytes=first & 0x1FF,
            l4_bytes=(second >> 40) & 0xFF,
            mss=(second >> 48) & 0xFFFF,
            vlan=(first >> 16) & 0xFFFF,
            is_ipv4=bool(second & _IPV4),
            l4_type=(second >> 11) & 3,
        )
    if kind != _DTYP_DATA:
        raise Malformed(f"descriptor type {kind}")
    return TransmitData(
        address=first,
        size=second & 0xFFFF,
        is_last=bool(second & _EOP),
        wants_report=bool(second & _RS),
        insert_vlan=bool(second & _VLE),
        segment=bool(second & _TSE),
        ip_sum=bool(second & _IXSM),
        l4_sum=bool(second & _TXSM),
        payload_bytes=(second >> 46) & 0x3FFFF,
    )


def context_descriptor(context: TransmitContext) -> bytes:
    """Returns the bytes of a context descriptor, as a driver writes them."""
    first = context.ip_bytes | context.mac_bytes << 9 | context.vlan << 16
    second = _DTYP_CONTEXT << 20 | _DEXT | context.l4_type << 11 | context.l4_bytes << 40 | context.mss << 48
    return _PAIR.pack(first, second | (_IPV4 if context.is_ipv4 else 0))


def data_descriptor(data: TransmitData) -> bytes:
    """Returns the bytes of a data descriptor, as a driver writes them."""
    flags = (
        (data.is_last, _EOP),
        (data.wants_report, _RS),
        (data.insert_vlan, _VLE),
        (data.segment, _TSE),
        (data.ip_sum, _IXSM),
        (data.l4_sum, _TXSM),
    )
    bits = sum(bit for wanted, bit in flags if wanted)
    return _PAIR.pack(data.address, data.size | _DTYP_DATA << 20 | _DEXT | bits | data.payload_bytes << 46)
