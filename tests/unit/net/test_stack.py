"""A host on a link: ARP, ping, ICMP errors, fragments, what is for it and what is not."""

from __future__ import annotations

import pytest
from tests.unit.net.lan import NETWORK, SECOND, Host, Lan

from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.address import BROADCAST_MAC, LOOPBACK
from lamina_net.packets.ethernet import Frame
from lamina_net.packets.icmp import Message
from lamina_net.packets.ipv4 import Packet
from lamina_net.packets.refusal import Refusal
from lamina_net.tcp.interface import Endpoint, Errno, EventKind, Handle, Refused

PING = bytes([8, 0, 0, 0, 0, 0, 0, 1]) + b"payload"


def opened(handle: Handle | Refused) -> Handle:
    """Return a handle that was given."""
    assert not isinstance(handle, Refused), handle
    return handle


def ping(lan: Lan, host: Host, to: int, data: bytes = PING) -> Handle:
    """Send an echo request from a new socket."""
    handle = opened(host.stack.sockets.open_ping())
    assert host.stack.sockets.send(handle, data, lan.now_ns, Endpoint(to, 0)) == len(data)
    return handle


def received(lan: Lan, host: Host, handle: Handle) -> list[tuple[bytes, Endpoint]]:
    """Return all that waits in a socket."""
    found = []
    while not isinstance(entry := host.stack.sockets.recv_from(handle, 65535, lan.now_ns), Refused):
        found.append(entry)
    assert entry == Refused(Errno.AGAIN)
    return found


def packets(frames: list[bytes]) -> list[Packet]:
    """Return the IPv4 packets in frames."""
    parsed = [ethernet.parse(frame) for frame in frames]
    payloads = [frame.payload for frame in parsed if isinstance(frame, Frame) and frame.ethertype == ethernet.IPV4]
    return [packet for payload in payloads if isinstance(packet := ipv4.parse(payload), Packet)]


def messages(frames: list[bytes]) -> list[Message]:
    """Return the ICMP messages in frames."""
    found = [icmp.parse(packet.payload) for packet in packets(frames) if packet.protocol == ipv4.ICMP]
    return [message for message in found if isinstance(message, Message)]


def to_host(host: Host, packet: Packet, dst: bytes | None = None) -> bytes:
    """Return a frame of a stranger with a packet."""
    return ethernet.build(dst or host.mac, b"\x02\x00\x00\x00\x00\xee", ethernet.IPV4, ipv4.build(packet))


def test_an_address_is_announced_and_asked_for() -> None:
    """Who gets an address announces it; the first packet asks for its neighbour, and the answer tells."""
    lan = Lan()
    a, b = lan.hosts
    ping(lan, a, b.address)
    lan.run()
    announced, question, *_ = [arp.parse(frame[14:]) for frame in a.sent if frame[12:14] == b"\x08\x06"]
    assert announced == arp.ArpPacket(arp.REQUEST, a.mac, a.address, bytes(6), a.address)
    assert question == arp.ArpPacket(arp.REQUEST, a.mac, a.address, bytes(6), b.address)
    assert [frame[:6] for frame in a.sent] == [BROADCAST_MAC, BROADCAST_MAC, b.mac, b.mac]


def test_a_ping_comes_back() -> None:
    """The reply has the request's data and sequence, and the identifier of the socket."""
    lan = Lan()
    a, b = lan.hosts
    handle = ping(lan, a, b.address)
    lan.run()
    assert a.kinds(handle) == [EventKind.READABLE]
    ((data, source),) = received(lan, a, handle)
    assert (data[0], data[6:], source) == (icmp.ECHO_REPLY, PING[6:], Endpoint(b.address, 0))
    names = a.stack.sockets.names(handle)
    assert not isinstance(names, Refused)
    assert int.from_bytes(data[4:6], "big") == names[0].port


def test_pings_of_two_sockets_do_not_mix() -> None:
    """Each socket has an identifier of its own and hears its own replies."""
    lan = Lan()
    a, b = lan.hosts
    one, two = ping(lan, a, b.address, PING + b"1"), ping(lan, a, b.address, PING + b"2")
    lan.run()
    assert [received(lan, a, handle)[0][0][-1:] for handle in (one, two)] == [b"1", b"2"]


def test_large_pings_travel_in_fragments() -> None:
    """What does not fit into a frame is fragmented and put together again, both ways."""
    lan = Lan(mtu=576)
    a, b = lan.hosts
    handle = ping(lan, a, b.address, PING + bytes(range(256)) * 20)
    lan.run()
    assert received(lan, a, handle)[0][0][8:] == PING[8:] + bytes(range(256)) * 20
    assert sum(packet.is_fragment for packet in packets(b.sent)) == 10


def test_a_neighbour_that_does_not_answer() -> None:
    """After three questions the socket is told that there is no way to the host, if it asked to hear of it."""
    lan = Lan()
    a, _ = lan.hosts
    sockets = a.stack.sockets
    handle, told = opened(sockets.open_ping()), opened(sockets.open_udp())
    options = a.stack.udp.options(told)
    assert sockets.set_options(told, type(options)(all_errors=True), 0) is None
    for each in (handle, told):
        sockets.send(each, PING, lan.now_ns, Endpoint(NETWORK + 99, 7))
    lan.run(4 * SECOND)
    assert sum(frame[12:14] == b"\x08\x06" for frame in a.sent) == 1 + 3
    assert a.kinds(told) == [EventKind.ERROR]
    assert sockets.recv(told, 9, lan.now_ns) == Refused(Errno.HOSTUNREACH)
    assert sockets.recv(handle, 9, lan.now_ns) == Refused(Errno.AGAIN)


def test_reachable_neighbours_fade_and_are_asked_again() -> None:
    """After 30 s without a question the next packet goes at once, and a question to that neighbour alone with it."""
    lan = Lan()
    a, b = lan.hosts
    ping(lan, a, b.address)
    lan.run(40 * SECOND)
    a.sent.clear()
    handle = ping(lan, a, b.address)
    lan.run()
    assert [(frame[:6], frame[12:14].hex(), frame[20:22].hex()) for frame in a.sent if frame[12:14] == b"\x08\x06"] == [
        (b.mac, "0806", "0001"),  # our question
        (b.mac, "0806", "0002"),  # and the answer to theirs, as we are as stale to them
    ]
    assert a.sent[0][12:14] == b"\x08\x00"
    assert len(received(lan, a, handle)) == 1


def test_a_port_that_nobody_has_is_unreachable() -> None:
    """A datagram to it meets with an ICMP error that quotes it; a connected socket hears that it was refused."""
    lan = Lan()
    a, b = lan.hosts
    handle = opened(a.stack.sockets.open_udp())
    assert a.stack.sockets.connect(handle, Endpoint(b.address, 9), 0) is None
    a.stack.sockets.send(handle, b"anybody?", 0)
    lan.run()
    assert [(message.type, message.code) for message in messages(b.sent)] == [(3, 3)]
    assert a.stack.sockets.send(handle, b"again", lan.now_ns) == Refused(Errno.CONNREFUSED)
    assert a.stack.sockets.send(handle, b"again", lan.now_ns) == 5


def test_an_unknown_protocol_is_unreachable() -> None:
    """A packet of a protocol that nobody speaks is answered by an error."""
    lan = Lan(1)
    (a,) = lan.hosts
    lan.inject(
        a,
        ethernet.build(
            a.mac, b"\x02\x00\x00\x00\x00\xee", 0x0806, arp.request(b"\x02\0\0\0\0\xee", NETWORK + 9, a.address)
        ),
    )
    lan.inject(a, to_host(a, Packet(NETWORK + 9, a.address, 99, b"whatever")))
    assert [(message.type, message.code) for message in messages(a.sent)] == [(3, 2)]


def test_errors_have_a_rate() -> None:
    """A thousand datagrams at once to no port are answered by 50 errors, later ones at 100 a second."""
    lan = Lan()
    a, b = lan.hosts
    handle = ping(lan, a, b.address)
    lan.run()
    frames = [
        to_host(b, Packet(a.address, b.address, ipv4.UDP, udp.build(a.address, b.address, udp.Datagram(1, n, b""))))
        for n in range(1000)
    ]
    b.sent.clear()
    for frame in frames:
        lan.inject(b, frame)
    assert len(messages(b.sent)) == 50
    assert b.stack.icmp.suppressed == 950
    lan.run(SECOND // 10)
    for frame in frames:
        lan.inject(b, frame)
    assert len(messages(b.sent)) == 60
    assert len(received(lan, a, handle)) == 1


@pytest.mark.parametrize(
    ("src", "dst", "to_mac"),
    [
        (NETWORK + 9, NETWORK + 3, None),
        (NETWORK + 9, NETWORK + 1, BROADCAST_MAC),
        (NETWORK + 1, NETWORK + 1, None),
        (0, NETWORK + 1, None),
        (LOOPBACK, NETWORK + 1, None),
        (NETWORK + 255, NETWORK + 1, None),
        (0xE0000001, NETWORK + 1, None),
        (NETWORK + 9, LOOPBACK, None),
        (NETWORK + 9, 0xE0000005, b"\x01\x00\x5e\x00\x00\x01"),
        (NETWORK + 9, NETWORK + 1, b"\x02\x00\x00\x00\x00\x63"),
    ],
)
def test_what_is_not_for_us_is_left_alone(src: int, dst: int, to_mac: bytes | None) -> None:
    """Other hosts' packets, sources that cannot be, groups we are not in: counted, and never answered."""
    lan = Lan(1)
    (a,) = lan.hosts
    lan.run()
    a.sent.clear()
    request = icmp.build(icmp.echo_request(1, 1))
    lan.inject(a, to_host(a, Packet(src, dst, ipv4.ICMP, request), to_mac))
    lan.run(5 * SECOND)
    assert a.sent == []
    assert a.stack.internet.refused == {Refusal.ADDRESS: 1}


def test_pings_to_groups_are_not_answered() -> None:
    """A broadcast ping would make every host answer at once."""
    lan = Lan(1)
    (a,) = lan.hosts
    lan.run()
    a.sent.clear()
    request = icmp.build(icmp.echo_request(1, 1))
    lan.inject(a, to_host(a, Packet(NETWORK + 9, NETWORK + 255, ipv4.ICMP, request), BROADCAST_MAC))
    lan.inject(a, to_host(a, Packet(NETWORK + 9, 0xE0000001, ipv4.ICMP, request), b"\x01\x00\x5e\x00\x00\x01"))
    assert (a.sent, a.stack.internet.refused) == ([], {})


def test_a_datagram_that_stays_in_parts_is_told() -> None:
    """After 30 s the sender of a first fragment hears that the rest did not come."""
    lan = Lan()
    a, b = lan.hosts
    ping(lan, a, b.address)
    lan.run()
    b.sent.clear()
    lan.inject(b, to_host(b, Packet(a.address, b.address, ipv4.UDP, bytes(64), more=True)))
    lan.run(31 * SECOND)
    assert [(message.type, message.code) for message in messages(b.sent)] == [(11, 1)]


def test_our_own_address_is_ours() -> None:
    """Who claims an address of ours is counted and not believed."""
    lan = Lan(1)
    (a,) = lan.hosts
    evil = b"\x02\x00\x00\x00\x00\xee"
    lan.inject(a, ethernet.build(BROADCAST_MAC, evil, ethernet.ARP, arp.announcement(evil, a.address)))
    assert a.stack.internet.interfaces["eth0"].conflicts == 1


def test_a_ping_of_oneself_never_leaves() -> None:
    """Loopback and the own address answer without a frame."""
    lan = Lan(1)
    (a,) = lan.hosts
    lan.run()
    a.sent.clear()
    for address in (LOOPBACK, 0x7F000002, a.address):
        handle = ping(lan, a, address)
        ((data, source),) = received(lan, a, handle)
        assert (data[0], source.address) == (icmp.ECHO_REPLY, address)
    assert a.sent == []


def test_without_a_route_there_is_no_way() -> None:
    """An address beyond the subnet is reached through a router, or not at all."""
    lan = Lan()
    a, b = lan.hosts
    sockets = a.stack.sockets
    handle = opened(sockets.open_udp())
    assert sockets.send(handle, b"x", 0, Endpoint(0x08080808, 53)) == Refused(Errno.NETUNREACH)
    lan.default_route(a, b)
    assert sockets.send(handle, b"x", 0, Endpoint(0x08080808, 53)) == 1
    lan.run()
    assert [(frame[:6], packet.dst) for frame, packet in zip(a.sent[-1:], packets(a.sent), strict=True)] == [
        (b.mac, 0x08080808)
    ]


def test_garbage_is_counted() -> None:
    """Frames of all kinds of nonsense change nothing but counters."""
    lan = Lan(1)
    (a,) = lan.hosts
    whole = to_host(a, Packet(NETWORK + 9, a.address, ipv4.UDP, bytes(7)))
    for frame in (b"", b"x" * 13, whole[:20], whole[:12] + b"\x86\xdd" + whole[14:], whole):
        lan.inject(a, frame)
    assert sum(a.stack.internet.refused.values()) == 4
    assert a.stack.udp.refused == {Refusal.TRUNCATED: 1}


def test_the_same_seed_and_inputs_give_the_same_bytes() -> None:
    """Two runs agree in every frame, another seed does not."""

    def story(seed: int) -> list[bytes]:
        lan = Lan(3, seed=seed, loss=0.1)
        for host in lan.hosts:
            for other in lan.hosts:
                ping(lan, host, other.address, PING + bytes(3000))
        lan.run(20 * SECOND)
        return [frame for host in lan.hosts for frame in host.sent]

    assert story(1) == story(1)
    assert story(1) != story(2)
