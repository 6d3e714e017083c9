"""A host under fire: any frames, valid ones changed, floods. It never raises, its bounds hold, and it still answers."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.net.lan import NETWORK, SECOND, Host, Lan
from tests.unit.net.test_stack import PING, opened, ping, received, to_host

from lamina_net.ip.neighbours import LOCK_NS
from lamina_net.ip.reassembly import MAX_BYTES, MAX_DATAGRAMS
from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.arp import ArpPacket
from lamina_net.packets.ipv4 import Packet
from lamina_net.tcp import segment as tcp
from lamina_net.tcp.interface import Endpoint
from lamina_net.tcp.segment import Options, Segment

EVIL = b"\x02\x00\x00\x00\x00\xee"
ME, PEER = NETWORK + 1, NETWORK + 2


def arp_frame(sender: int, operation: int = arp.REQUEST, mac: bytes = EVIL) -> bytes:
    """Return an ARP packet to the first host."""
    data = arp.build(ArpPacket(operation, mac, sender, bytes(6), ME))
    return ethernet.build(b"\xff" * 6, mac, ethernet.ARP, data)


def valid_frames(host: Host) -> list[bytes]:
    """Return one frame of each kind that the first host takes."""
    question = ipv4.build(Packet(ME, PEER, ipv4.UDP, udp.build(ME, PEER, udp.Datagram(9, 9, b"x"))))
    packets = [
        Packet(PEER, ME, ipv4.ICMP, icmp.build(icmp.echo_request(1, 1, b"data"))),
        Packet(PEER, ME, ipv4.ICMP, icmp.build(icmp.error(3, 3, question))),
        Packet(PEER, ME, ipv4.UDP, udp.build(PEER, ME, udp.Datagram(5, 9, b"payload"))),
        Packet(PEER, ME, ipv4.TCP, tcp.build(PEER, ME, Segment(5, 80, 7, 0, tcp.SYN, 100, b"", Options(mss=1460)))),
        Packet(PEER, ME, ipv4.UDP, bytes(16), more=True, identification=3),
        Packet(PEER, ME, ipv4.UDP, bytes(16), offset=8, identification=3),
        Packet(PEER, ME, 99, b"who knows"),
    ]
    return [to_host(host, packet) for packet in packets] + [arp_frame(PEER), arp_frame(PEER, arp.REPLY)]


def busy_host() -> tuple[Lan, Host]:
    """Return a host whose ports of UDP and TCP are open."""
    lan = Lan()
    host = lan.hosts[0]
    sockets = host.stack.sockets
    sockets.bind(opened(sockets.open_udp()), Endpoint(0, 9))
    listener = opened(sockets.open_tcp())
    sockets.bind(listener, Endpoint(0, 80))
    sockets.listen(listener, 4)
    lan.run()
    return lan, host


def expect_alive(lan: Lan, host: Host) -> None:
    """The other host is still answered, once it has told where it is: a forged answer may have come before its own."""
    other = lan.hosts[1]
    lan.run(2 * LOCK_NS)
    other.stack.internet.interfaces["eth0"].announce(other.address)
    handle = ping(lan, other, host.address)
    lan.run(10 * SECOND)
    assert len(received(lan, other, handle)) == 1


changes = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=3)
shots = st.lists(
    st.tuples(st.integers(0, 8), changes, st.integers(0, 100), st.sampled_from([0, 1000, SECOND]))
    | st.binary(max_size=60),
    max_size=30,
)


@given(shots)
@settings(max_examples=80)
def test_any_frames_leave_a_host_alive(drawn: list[tuple[int, list[tuple[int, int]], int, int] | bytes]) -> None:
    """Garbage and changed frames of each kind: nothing raises, and a ping afterwards is answered."""
    lan, host = busy_host()
    valid = valid_frames(host)
    for shot in drawn:
        if isinstance(shot, bytes):
            lan.inject(host, shot)
            continue
        number, edits, size, wait_ns = shot
        frame = bytearray(valid[number])
        for place, value in edits:
            if place < len(frame):
                frame[place] = value
        lan.inject(host, bytes(frame[:size]) if size < 20 else bytes(frame))
        lan.run(wait_ns)
    expect_alive(lan, host)


def test_an_arp_storm_is_bounded() -> None:
    """20,000 requests of invented senders at once are all answered, and fill no more than the table."""
    lan, host = busy_host()
    interface = host.stack.internet.interfaces["eth0"]
    interface.addresses[0] = interface.addresses[0]._replace(
        subnet=interface.addresses[0].subnet._replace(network=0, length=0)
    )
    for n in range(20_000):
        host.stack.frame("eth0", arp_frame(0x0B000000 + n), lan.now_ns)
    frames, _ = host.stack.drain()
    assert len(frames) == 20_000
    assert len(interface.neighbours) <= 1024


def test_a_flood_of_fragments_is_bounded() -> None:
    """30,000 first fragments of invented datagrams hold no more than their share of memory."""
    lan, host = busy_host()
    body = bytes(1480)
    for n in range(30_000):
        packet = Packet(0x0B000000 + (n >> 8), ME, ipv4.UDP, body, identification=n & 0xFFFF, more=True)
        host.stack.frame("eth0", to_host(host, packet), lan.now_ns)
    assert len(host.stack.internet.reassembly) <= MAX_DATAGRAMS
    assert host.stack.internet.reassembly.held_bytes <= MAX_BYTES
    lan.run(60 * SECOND)
    assert len(host.stack.internet.reassembly) == 0
    expect_alive(lan, host)


def test_a_flood_of_datagrams_is_bounded() -> None:
    """20,000 datagrams to a socket that nobody reads and to closed ports: a full queue, a bounded number of errors."""
    lan, host = busy_host()
    rng = random.Random(7)
    frames = [
        to_host(host, Packet(PEER, ME, ipv4.UDP, udp.build(PEER, ME, udp.Datagram(7, port, PING))))
        for port in (9, 10, 11, 12)
    ]
    host.sent.clear()
    for _ in range(20_000):
        host.stack.frame("eth0", frames[rng.randrange(4)], lan.now_ns)
    output = host.stack.drain()
    assert host.stack.icmp.suppressed > 14_000
    assert len([frame for _, frame in output.frames if frame[12:14] == b"\x08\x00"]) <= 50
    assert len(output.events) < 1000
    expect_alive(lan, host)


def test_a_flood_of_syns_is_bounded() -> None:
    """5,000 SYNs of invented clients keep no more half-open connections than the backlog, and others are served."""
    lan, host = busy_host()
    for n in range(5000):
        src = 0x0B000000 + n
        syn = tcp.build(src, ME, Segment(5, 80, n, 0, tcp.SYN, 100, b"", Options(mss=1460)))
        host.stack.frame("eth0", to_host(host, Packet(src, ME, ipv4.TCP, syn)), lan.now_ns)
    assert len(host.stack.tcp.connections()) <= 256
    expect_alive(lan, host)
    lan.run(lan.now_ns + 600 * SECOND)
    assert host.stack.tcp.connections() == []
    expect_alive(lan, host)


bindings = st.tuples(st.sampled_from([0, ME, 0x7F000001]), st.sampled_from([0, 5, 6]), st.booleans())


@given(
    st.lists(bindings, max_size=8),
    st.lists(st.tuples(st.sampled_from([ME, 0x7F000001]), st.sampled_from([5, 6])), max_size=8),
)
@settings(max_examples=150)
def test_datagrams_find_the_socket_that_a_search_finds(
    opened_as: list[tuple[int, int, bool]], sends: list[tuple[int, int]]
) -> None:
    """Sockets bound to all or one address, connected or not: a plain search through all of them agrees."""
    lan = Lan(1)
    sockets = lan.hosts[0].stack.sockets
    senders = {port: opened(sockets.open_udp()) for port in (5, 6)}
    for port, handle in senders.items():
        assert sockets.bind(handle, Endpoint(0, port)) is None
    model: list[tuple[int, int, int]] = []  # handle, address it is bound to, port of its peer or 0
    options = lan.hosts[0].stack.udp.options(senders[5])
    for address, peer, _ in opened_as:
        handle = opened(sockets.open_udp())
        assert sockets.set_options(handle, type(options)(reuse=True), 0) is None
        assert sockets.bind(handle, Endpoint(address, 9)) is None
        if peer:
            assert sockets.connect(handle, Endpoint(0x7F000001 if address == 0x7F000001 else ME, peer), 0) is None
            address = address or ME
        model.append((handle, address, peer))
    for n, (to, port) in enumerate(sends):
        sockets.send(senders[port], b"%d" % n, 0, Endpoint(to, 9))
        fitting = [
            (4 * bool(peer) + 2 * bool(address), -order, handle)
            for order, (handle, address, peer) in enumerate(model)
            if address in (0, to) and peer in (0, port)
        ]
        heard = [handle for handle, _, _ in model if sockets.recv(handle, 9, 0) == b"%d" % n]
        assert heard == ([max(fitting)[2]] if fitting else [])
