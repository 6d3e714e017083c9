"""Segments that leave as one packet, to be cut behind us: how long, how they are cut, and what comes in as one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.net.tcp_script import PLAIN, Script

from lamina_net.offload.long_packets import LongFrame, LongPacket, cut, long_packet
from lamina_net.packets import ipv4
from lamina_net.stack import Stack, StackConfig
from lamina_net.tcp.config import TcpConfig
from lamina_net.tcp.interface import Endpoint, Packet, Refused
from lamina_net.tcp.segment import CWR, Segment, parse

STEP_NS = 100_000
A, B = 0x0A000001, 0x0A000002
MACS = {A: bytes.fromhex("020000000001"), B: bytes.fromhex("020000000002")}


def opened(burst: int) -> Script:
    """Returns a script of a connection whose segments leave together up to `burst` bytes."""
    script = Script(replace(PLAIN, burst=burst))
    script.expect("""
        +0    listen
        +0    < S 0 win 60000 mss 1000 sackOK
        +0    > SA 0 ack 1
        +0.1  < A 1 ack 1 win 60000
        +0    accept
    """)
    return script


def sent(script: Script, size: int) -> list[Packet]:
    """Return what leaves when `size` bytes are given."""
    assert script.layer.send(script.handle, bytes(size), script.now) == size
    return script.layer.drain().packets


def pieces(packet: Packet) -> list[Segment]:
    """Return the segments that a packet is cut into, each with a right sum."""
    whole = ipv4.build(ipv4.Packet(packet.src, packet.dst, ipv4.TCP, packet.data))
    parts = cut(long_packet(whole, packet.segment_bytes)) if packet.segment_bytes else [whole]
    found = []
    for part in parts:
        inner = ipv4.parse(part)
        assert isinstance(inner, ipv4.Packet)
        segment = parse(inner.src, inner.dst, inner.payload)
        assert isinstance(segment, Segment), segment
        found.append(segment)
    return found


def test_what_leaves_together_is_what_would_leave_alone() -> None:
    """Packets of up to 4,500 bytes are cut into the segments that go without bursts; PSH is on the last one."""
    packets = sent(opened(4500), 9000)
    assert [(len(each.data) - 20, each.segment_bytes) for each in packets] == [(4000, 1000), (4000, 1000), (1000, 0)]
    together = [segment for packet in packets for segment in pieces(packet)]
    alone = [segment for packet in sent(opened(0), 9000) for segment in pieces(packet)]
    assert together == alone
    assert [bool(segment.flags & 8) for segment in together] == [False] * 8 + [True]


def test_what_is_lost_goes_alone() -> None:
    """A hole in the middle of a long packet is sent again as one segment of its own."""
    script = opened(65_000)
    assert len(sent(script, 9500)) == 1
    script.sent += 9500
    script.come("A", "1", "ack", "2001", "win", "60000", "sack", "3001-7001")
    packets = script.layer.drain().packets
    again = parse(packets[0].src, packets[0].dst, packets[0].data)
    assert isinstance(again, Segment) and len(again.payload) == 1000
    assert packets[0].segment_bytes == 0
    assert again.sequence == ((script.isn or 0) + 2001) & 0xFFFFFFFF


def test_a_long_segment_is_acknowledged_at_once() -> None:
    """What is longer than a segment was several: nobody waits for the next."""
    script = opened(0)
    script.expect("""
        +0    < A 1:3001 ack 1
        +0    > A 1 ack 3001
        +0    < A 3001:3501 ack 1
        +0.04 > A 1 ack 3501
    """)


def test_what_is_held_is_answered_together() -> None:
    """Between hold and release ten segments in order bring one ACK; a hole is told of at once all the same."""
    script = opened(0)
    script.layer.hold()
    for first in range(1, 10_001, 1000):
        script.come("A", f"{first}:{first + 1000}", "ack", "1")
    assert script.layer.drain().packets == []
    script.layer.release(script.now)
    script.collect()
    script.expect("+0 > A 1 ack 10001")
    script.layer.hold()
    script.come("A", "11001:12001", "ack", "1")
    script.collect()
    script.expect("+0 > A 1 ack 10001 sack 11001-12001")
    script.layer.release(script.now)


def test_what_is_not_the_next_is_answered_at_once_and_by_itself() -> None:
    """While answers wait each segment out of order brings an ACK of its own, and each that comes again does."""
    script = opened(0)
    script.layer.hold()
    for span in ("1:1001", "1001:2001", "3001:4001", "4001:5001"):
        script.come("A", span, "ack", "1")
    script.collect()
    script.expect("""
        +0 > A 1 ack 2001
        +0 > A 1 ack 2001 sack 3001-4001
        +0 > A 1 ack 2001 sack 3001-5001
    """)
    for span in ("2001:3001", "1:1001", "1001:2001"):
        script.come("A", span, "ack", "1")
    script.collect()
    script.expect("""
        +0 > A 1 ack 5001
        +0 > A 1 ack 5001 sack 1-1001
        +0 > A 1 ack 5001 sack 1001-2001
    """)
    script.layer.release(script.now)
    assert script.layer.drain().packets == []


def test_a_batch_that_breaks_off_holds_nothing_back() -> None:
    """Frames for an interface that is not there raise, and later ones are answered as ever."""
    hosts = stacks(False, False)
    assert carried(hosts, bytes(1000))[0] == bytes(1000)
    with pytest.raises(KeyError):
        hosts[B].frames("eth7", [b"frame"], STEP_NS)
    hosts[B].drain()
    (handle,) = hosts[A].tcp.connections()
    assert hosts[A].tcp.send(handle, bytes(2896), STEP_NS) == 2896
    hosts[A].timer(STEP_NS)
    for _, frame in hosts[A].drain().frames:
        hosts[B].frame("eth0", frame, STEP_NS)
    assert len(hosts[B].drain().frames) == 1


def test_what_cannot_be_cut_leaves_alone() -> None:
    """The segment that says CWR is one of its own, as devices copy flags; urgent data are, as their end differs."""
    script = opened(65_000)
    assert script.layer.send(script.handle, bytes(3000), script.now, urgent=True) == 3000
    assert [each.segment_bytes for each in script.layer.drain().packets] == [0, 0, 0]
    script = Script(replace(PLAIN, burst=65_000))
    script.expect("""
        +0    listen
        +0    < SEW 0 win 60000 mss 1000 sackOK
        +0    > SAE 0 ack 1
        +0.1  < A 1 ack 1 win 60000
        +0    accept
        +0    send 1000
        +0    > A 1:1001
        +0.1  < AE 1 ack 1001 win 60000
    """)
    packets = sent(script, 2000)
    assert [each.segment_bytes for each in packets] == [0, 0]
    assert [bool(segment.flags & CWR) for each in packets for segment in pieces(each)] == [True, False]


def stacks(*takes: bool) -> dict[int, Stack]:
    """Return two hosts on a link, each of whose devices takes long frames or not."""
    made = {}
    for address, long in zip((A, B), takes, strict=True):
        made[address] = Stack(bytes(MACS[address]), StackConfig(tcp=TcpConfig(burst=65_160)))
        made[address].internet.add_interface("eth0", MACS[address], 1500).takes_long = long
        assert made[address].internet.add_address("eth0", address, 24)
    return made


def carried(hosts: dict[int, Stack], data: bytes, mtu: int = 1500) -> tuple[bytes, list[bytes]]:
    """Return what arrives of `data` from A to B, and the frames that A sent; its link has `mtu` once they talk."""
    listener, client = hosts[B].sockets.open_tcp(), hosts[A].sockets.open_tcp()
    assert not isinstance(listener, Refused) and not isinstance(client, Refused)
    assert hosts[B].sockets.bind(listener, Endpoint(0, 80)) is None
    assert hosts[B].sockets.listen(listener, 4) is None
    assert hosts[A].sockets.connect(client, Endpoint(B, 80), 0) is None
    frames: list[bytes] = []
    got, server, given = b"", 0, 0
    for now in range(1, 2000):
        from_a, from_b = ([frame for _, frame in hosts[end].drain().frames] for end in (A, B))
        frames += from_a
        hosts[B].frames("eth0", from_a, now * STEP_NS)
        hosts[A].frames("eth0", from_b, now * STEP_NS)
        taken = hosts[A].sockets.send(client, data[given:], now * STEP_NS)
        given += 0 if isinstance(taken, Refused) else taken
        accepted = hosts[B].sockets.accept(listener, now * STEP_NS)
        if not isinstance(accepted, Refused):
            server = accepted
            hosts[A].internet.interfaces["eth0"].mtu = mtu
        piece = hosts[B].sockets.recv(server, 1 << 20, now * STEP_NS)
        got += b"" if isinstance(piece, Refused) else piece
        if len(got) == len(data):
            break
    return got, frames


def test_stacks_speak_in_long_frames_where_devices_take_them() -> None:
    """200,000 bytes arrive; frames are long with such a device, and cut to the MTU by the stack without one."""
    data = bytes(range(250)) * 800
    got, frames = carried(stacks(True, True), data)
    assert got == data
    long = [frame for frame in frames if isinstance(frame, LongFrame)]
    assert max(map(len, long)) > 20_000
    assert all(frame.header_bytes == 66 and frame.tcp_at == 34 and frame.segment_bytes == 1448 for frame in long)
    got, frames = carried(stacks(False, True), data)
    assert got == data
    assert not any(isinstance(frame, LongFrame) for frame in frames)
    assert max(map(len, frames)) == 1514


@pytest.mark.parametrize("mtu", [500, 900])
def test_long_packets_pass_a_link_that_became_narrow(mtu: int) -> None:
    """Segments become shorter, or fragments where TCP does not follow; every byte arrives with a right sum."""
    data = bytes(range(250)) * 80
    got, frames = carried(stacks(True, True), data, mtu=mtu)
    assert got == data
    long = [frame for frame in frames if isinstance(frame, LongFrame)]
    too_long = [frame for frame in long if frame.header_bytes - 14 + frame.segment_bytes > mtu]
    assert len(too_long) <= 1, "what left before, and no more"


def test_to_oneself_long_packets_go_as_they_are() -> None:
    """Within a host nothing is cut, and nothing is summed."""
    hosts = stacks(False, False)
    hosts[B] = hosts[A]
    stack = hosts[A]
    listener, client = stack.sockets.open_tcp(), stack.sockets.open_tcp()
    assert not isinstance(listener, Refused) and not isinstance(client, Refused)
    assert stack.sockets.bind(listener, Endpoint(0, 80)) is None
    assert stack.sockets.listen(listener, 4) is None
    assert stack.sockets.connect(client, Endpoint(A, 80), 0) is None
    server = stack.sockets.accept(listener, 0)
    assert not isinstance(server, Refused)
    assert stack.sockets.send(client, bytes(200_000), 0) == 200_000
    got = b""
    while not isinstance(piece := stack.sockets.recv(server, 1 << 20, 0), Refused):
        got += piece
    assert got == bytes(200_000)
    assert LongPacket(b"ab")[:1] == b"a" and type(LongPacket(b"ab")[:1]) is bytes
