"""IPv4 packets with a TCP segment longer than the link carries: what they are cut into later, or by whom.

A `LongPacket` is bytes to all that only hands it on, and so is the `LongFrame` around it. The TCP checksum in it is the
sum of the pseudo header (virtio 1.2, 5.1.6.2). Slices are plain bytes.
"""

from __future__ import annotations

from lamina_net.offload.headers import ETHERNET_BYTES, ETHERTYPE_IPV4, parse
from lamina_net.offload.segments import cut_tcp
from lamina_net.packets import ipv4
from lamina_net.packets.ipv4 import Packet

_LINK_HEADER = bytes(ETHERNET_BYTES - 2) + ETHERTYPE_IPV4.to_bytes(2, "big")


class LongPacket(bytes):
    """A packet that becomes segments of `segment_bytes` bytes of payload each, the last one perhaps fewer."""

    segment_bytes: int


class LongFrame(bytes):
    """An Ethernet frame without tag whose TCP checksum is that of the pseudo header: of a long packet, or,
    with `segment_bytes` 0, of one that is as long as it will be.
    """

    segment_bytes: int

    @property
    def tcp_at(self) -> int:
        """Where the TCP header begins; its checksum lies 16 bytes behind."""
        return ETHERNET_BYTES + (self[ETHERNET_BYTES] & 15) * 4

    @property
    def header_bytes(self) -> int:
        """Bytes before the payload."""
        at = self.tcp_at
        return at + (self[at + 12] >> 4) * 4


def long_frame(frame: bytes, segment_bytes: int) -> LongFrame:
    """Return a frame whose packet is to be cut."""
    found = LongFrame(frame)
    found.segment_bytes = segment_bytes
    return found


def long_packet(packet: bytes, segment_bytes: int) -> LongPacket:
    """Return a packet that is to be cut."""
    found = LongPacket(packet)
    found.segment_bytes = segment_bytes
    return found


def cut(packet: LongPacket) -> list[bytes]:
    """Return the packets that it stands for, complete with their sums."""
    frame = _LINK_HEADER + packet
    return [bytes(piece[ETHERNET_BYTES:]) for piece in cut_tcp(frame, parse(frame), packet.segment_bytes)]


def cut_packet(packet: Packet, segment_bytes: int) -> list[Packet]:
    """Return the packets that a TCP packet stands for; with `segment_bytes` 0 it is one already."""
    if not segment_bytes:
        return [packet]
    pieces = [ipv4.parse(piece) for piece in cut(long_packet(ipv4.build(packet), segment_bytes))]
    return [piece for piece in pieces if isinstance(piece, Packet)]
