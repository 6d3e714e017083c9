"""Resets in somebody else's name, with the numbers that make them believed.

Source: RFC 9293, 3.5.2 and 3.5.3; RFC 5961, 3.2.
"""

from __future__ import annotations

from lamina_net.packets import ipv4
from lamina_net.tcp import segment
from lamina_net.tcp.segment import Segment
from lamina_vswitch.domain.nat.flows.entry import Endpoint, Entry
from lamina_vswitch.domain.nat.packets.packet import ACK, FIN, RST, SYN, View


def reset(source: Endpoint, to: Endpoint, sequence: int, acknowledgment: int) -> bytes:
    """Return a packet from `source` that ends `to`'s connection: it expects `sequence` and has sent below
    `acknowledgment`."""
    wanted = Segment(source[1], to[1], sequence, acknowledgment, RST | ACK, 0)
    data = segment.build(source[0], to[0], wanted)
    return ipv4.build(ipv4.Packet(source[0], to[0], ipv4.TCP, data, dont_fragment=True))


def refusal(packet: bytes, view: View) -> bytes | None:
    """Return what answers a segment that no connection takes; None for a reset, which nobody answers."""
    if view.flags & RST:
        return None
    sequence = int.from_bytes(packet[view.header + 4 : view.header + 8], "big")
    acknowledged = int.from_bytes(packet[view.header + 8 : view.header + 12], "big") if view.flags & ACK else 0
    data_offset = (packet[view.header + 12] >> 4) * 4
    length = max(0, view.total - view.header - data_offset) + (view.flags & FIN) + ((view.flags & SYN) >> 1)
    key = view.key
    end = (sequence + length) & 0xFFFFFFFF
    return reset((key.dst, key.dst_port), (key.src, key.src_port), acknowledged, end)


def both_ends(entry: Entry) -> tuple[bytes, bytes]:
    """Return the packets that end a TCP flow: to its inside, and to its peer."""
    to_inside = reset(entry.dialled, entry.inside, entry.sent.acknowledged, entry.sent.next_sequence)
    expected = entry.received.acknowledged or entry.sent.next_sequence
    return to_inside, reset(entry.outside, entry.peer, expected, entry.received.next_sequence)
