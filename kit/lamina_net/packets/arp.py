"""ARP for IPv4 on Ethernet. Pure.

    byte  0      2      4    5    6     8           14          18          24
          | 1    | 0800 | 6  | 4  | op  | sender MAC | sender IP | target MAC | target IP |

Source: RFC 826; RFC 5227 for probes and announcements.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from lamina_net.packets.address import BROADCAST, ZERO_MAC, Mac, is_multicast
from lamina_net.packets.refusal import Refusal

REQUEST = 1
REPLY = 2
PACKET_BYTES = 28

_LAYOUT = struct.Struct("!HHBBH6sI6sI")
_ETHERNET_IPV4 = (1, 0x0800, 6, 4)


class ArpPacket(NamedTuple):
    """A parsed packet: `operation` is REQUEST or REPLY, addresses are numbers."""

    operation: int
    sender_mac: Mac
    sender: int
    target_mac: Mac
    target: int

    @property
    def is_probe(self) -> bool:
        """Whether the sender only asks if an address is in use, and claims none. Source: RFC 5227, 1.1."""
        return self.sender == 0

    @property
    def is_gratuitous(self) -> bool:
        """Whether the sender announces its own address. Source: RFC 5227, 3."""
        return self.sender == self.target != 0


def parse(payload: bytes) -> ArpPacket | Refusal:
    """Return the packet in the payload of a frame, or why there is none. Never raises.

    TRUNCATED; VERSION for other hardware or protocols; OPERATION but request and reply; ADDRESS for a sender whose MAC
    address is zero or of a group, or whose address is broadcast or multicast: nobody can be reached there.
    """
    if len(payload) < PACKET_BYTES:
        return Refusal.TRUNCATED
    *kind, operation, sender_mac, sender, target_mac, target = _LAYOUT.unpack_from(payload)
    if tuple(kind) != _ETHERNET_IPV4:
        return Refusal.VERSION
    if operation not in (REQUEST, REPLY):
        return Refusal.OPERATION
    if sender_mac[0] & 1 or sender_mac == ZERO_MAC or sender == BROADCAST or is_multicast(sender):
        return Refusal.ADDRESS
    return ArpPacket(operation, sender_mac, sender, target_mac, target)


def build(packet: ArpPacket) -> bytes:
    """Return the 28 bytes of a packet."""
    return _LAYOUT.pack(*_ETHERNET_IPV4, *packet)


def request(sender_mac: Mac, sender: int, target: int) -> bytes:
    """Return the question who has `target`."""
    return build(ArpPacket(REQUEST, sender_mac, sender, ZERO_MAC, target))


def reply_to(packet: ArpPacket, mac: Mac) -> bytes:
    """Return the answer that `mac` has the address that a request asks for."""
    return build(ArpPacket(REPLY, mac, packet.target, packet.sender_mac, packet.sender))


def announcement(mac: Mac, address: int) -> bytes:
    """Return a gratuitous request, by which neighbours learn a changed MAC address. Source: RFC 5227, 2.3."""
    return build(ArpPacket(REQUEST, mac, address, ZERO_MAC, address))
