"""VXLAN: an Ethernet frame in UDP, with the number of its network before it. Pure.

    byte  0       1          4      7          8
          | flags | reserved | VNI  | reserved | Ethernet frame, without frame check sequence …

Of the flags only the I bit, 0x08, has a meaning: the VNI is valid. Reserved bits are sent as zero and not looked at.
Source: RFC 7348, 5.
"""

from __future__ import annotations

from typing import NamedTuple

from lamina_net.packets import ipv4, udp
from lamina_net.packets.refusal import Refusal
from lamina_vswitch.domain.frames.header import HEADER_BYTES as ETHERNET_BYTES
from lamina_vswitch.domain.offload.flow_hash import flow_hash

PORT = 4789
"""UDP port that IANA gave to VXLAN."""
HEADER_BYTES = 8
MAX_VNI = (1 << 24) - 1
OVERHEAD_BYTES = ETHERNET_BYTES + HEADER_BYTES + udp.HEADER_BYTES + ipv4.HEADER_BYTES
"""What a tunnel takes of the payload of the network below: 50 bytes."""

FIRST_SOURCE_PORT, SOURCE_PORTS = 49152, 16384

_VNI_VALID = 0x08


class Encapsulated(NamedTuple):
    """What a tunnel packet carries: the number of a network, 0 to 16777215, and a frame of any length."""

    vni: int
    frame: bytes


def parse(data: bytes) -> Encapsulated | Refusal:
    """Return what is in the payload of a UDP datagram, or why there is nothing. Never raises.

    TRUNCATED; OPERATION when the flags do not say that the VNI is valid.
    """
    if len(data) < HEADER_BYTES:
        return Refusal.TRUNCATED
    if not data[0] & _VNI_VALID:
        return Refusal.OPERATION
    return Encapsulated(int.from_bytes(data[4:7], "big"), data[HEADER_BYTES:])


def build(vni: int, frame: bytes) -> bytes:
    """Return the payload of the datagram that carries a frame of a network, 0 to 16777215."""
    return b"\x08\0\0\0%b\0%b" % (vni.to_bytes(3, "big"), frame)


def source_port(frame: bytes) -> int:
    """Return the source port, 49152 to 65535, of the datagram that carries a frame.

    It is a hash of the frame's flow, by which routers on the way spread flows and keep each in order.
    """
    mixed = flow_hash(frame) * 0x9E3779B1 & 0xFFFFFFFF  # the low bits of a CRC alone spread neighbouring ports badly
    return FIRST_SOURCE_PORT + (mixed >> 18) % SOURCE_PORTS
