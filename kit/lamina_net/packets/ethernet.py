"""Ethernet II frames as a host sees them. Pure.

    byte   0         6         12      14
           |   dst   |   src   | type  | payload …          untagged
           |   dst   |   src   | 0x8100|  TCI  | type  | payload …   802.1Q

Without preamble and frame check sequence. Source: IEEE 802.3-2022, 3.1.1; IEEE 802.1Q-2022, 9.6.
"""

from __future__ import annotations

from typing import NamedTuple

from lamina_net.packets.address import Mac
from lamina_net.packets.refusal import Refusal

IPV4 = 0x0800
ARP = 0x0806
IPV6 = 0x86DD
HEADER_BYTES = 14

_TPID_8021Q = b"\x81\x00"
_TAG_BYTES = 4


class Frame(NamedTuple):
    """A parsed frame. `tci` is the tag's priority, DEI and VLAN id, 16 bits, or None without a tag.

    `payload` keeps the padding that short frames have: only the protocol within knows its own length.
    """

    dst: Mac
    src: Mac
    ethertype: int
    payload: bytes
    tci: int | None = None


def parse(data: bytes) -> Frame | Refusal:
    """Return the frame in `data`, or why there is none: TRUNCATED. Never raises."""
    kind = data[12:14]
    if kind != _TPID_8021Q:
        if len(data) < HEADER_BYTES:
            return Refusal.TRUNCATED
        return Frame(data[0:6], data[6:12], kind[0] << 8 | kind[1], data[HEADER_BYTES:])
    if len(data) < HEADER_BYTES + _TAG_BYTES:
        return Refusal.TRUNCATED
    tci, ethertype = data[14] << 8 | data[15], data[16] << 8 | data[17]
    return Frame(data[0:6], data[6:12], ethertype, data[HEADER_BYTES + _TAG_BYTES :], tci)


def build(dst: Mac, src: Mac, ethertype: int, payload: bytes, tci: int | None = None) -> bytes:
    """Return the frame; not padded, as no wire here needs 60 bytes."""
    if tci is None:
        return b"%b%b%b%b" % (dst, src, ethertype.to_bytes(2, "big"), payload)
    return b"%b%b\x81\x00%b%b%b" % (dst, src, tci.to_bytes(2, "big"), ethertype.to_bytes(2, "big"), payload)
