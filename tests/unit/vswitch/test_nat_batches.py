"""What guests send together, and what they leave to their devices to finish, at a gateway of sockets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.unit.vswitch.test_nat_gateway import Bench

from lamina_net.packets import ipv4
from lamina_net.tcp.config import Ecn, TcpConfig
from lamina_net.tcp.layer import TcpLayer
from lamina_net.tcp.segment import ACK, SYN, Segment, parse


def packets_of(bench: Bench, handle: int, size: int) -> list[bytes]:
    """Return the packets in which a guest sends zeros."""
    assert bench.tcp.send(handle, bytes(size), bench.now_ns) == size
    return [
        ipv4.build(ipv4.Packet(each.src, each.dst, ipv4.TCP, each.data, ttl=64)) for each in bench.tcp.drain().packets
    ]


def without_sum(packet: bytes) -> bytes:
    """Return a packet whose TCP checksum is yet to be filled in."""
    return packet[:36] + b"\x12\x34" + packet[38:]


def with_ttl_of_one(packet: bytes) -> bytes:
    """Return a packet that no router passes on."""
    parsed = ipv4.parse(packet)
    assert isinstance(parsed, ipv4.Packet)
    return ipv4.build(parsed._replace(ttl=1))


def test_segments_that_come_together_are_answered_at_release() -> None:
    """Four segments of a step bring their bytes at once and one acknowledgment at its end."""
    bench = Bench()
    handle, socket = bench.joined()
    bench.gateway.inside.hold()
    for packet in packets_of(bench, handle, 4 * 1448):
        assert bench.out(packet).inside == ()
    bench.gateway.inside.release(0)
    (answer,) = bench.gateway.take()
    parsed = ipv4.parse(answer)
    assert isinstance(parsed, ipv4.Packet)
    segment = parse(parsed.src, parsed.dst, parsed.payload)
    assert isinstance(segment, Segment) and segment.flags == ACK and segment.payload == b""
    assert sum(map(len, socket.sent)) == 4 * 1448
    bench.gateway.inside.release(0)
    assert bench.gateway.take() == ()


def test_a_packet_without_a_sum_is_taken_as_it_is() -> None:
    """Its bytes reach the socket, and its entry counts the packets that a device would have made of it."""
    bench = Bench()
    handle, socket = bench.joined()
    (entry,) = bench.table.entries(0)
    before = entry.sent.packets, entry.sent.octets
    (packet,) = packets_of(bench, handle, 900)
    assert bench.gateway.unfinished(without_sum(packet), 300, 0) is not None
    assert b"".join(socket.sent) == bytes(900)
    header = len(packet) - 900
    assert entry.sent.packets - before[0] == 3
    assert entry.sent.octets - before[1] == 900 + 3 * header


def test_marks_of_a_guests_packets_are_seen() -> None:
    """A guest that asked for marks hears of one that a router in between has set."""
    bench = Bench()
    bench.tcp = TcpLayer(TcpConfig(ecn=Ecn.ASK), b"guest")
    handle, _ = bench.joined()
    (packet,) = packets_of(bench, handle, 1000)
    parsed = ipv4.parse(packet)
    assert isinstance(parsed, ipv4.Packet)
    bench.out(ipv4.build(parsed._replace(tos=3)))
    assert bench.gateway.inside.layer.repairs.marks == 1


@pytest.mark.parametrize(
    "spoil",
    [
        with_ttl_of_one,
        lambda packet: packet[:10] + bytes((packet[10] ^ 1,)) + packet[11:],
        lambda packet: packet[:33] + bytes((SYN,)) + packet[34:],
        lambda packet: packet[:21] + bytes((packet[21] ^ 1,)) + packet[22:],
    ],
    ids=["at its last router", "header damaged", "begins a connection", "of nobody's"],
)
def test_other_packets_have_to_be_finished_first(spoil: Callable[[bytes], bytes]) -> None:
    """What is not plainly of a connection that is made changes nothing and counts nowhere."""
    bench = Bench()
    handle, socket = bench.joined()
    (entry,) = bench.table.entries(0)
    before = entry.sent.packets
    (packet,) = packets_of(bench, handle, 1000)
    assert bench.gateway.unfinished(spoil(without_sum(packet)), 300, 0) is None
    assert (entry.sent.packets, socket.sent) == (before, [])
