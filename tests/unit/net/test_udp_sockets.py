"""UDP sockets: who hears what, who may have which port, what waits and what does not fit."""

from __future__ import annotations

import pytest
from tests.unit.net.lan import NETWORK, Host, Lan
from tests.unit.net.test_stack import opened, packets, received, to_host

from lamina_net.packets import icmp, ipv4
from lamina_net.packets.address import BROADCAST, LOOPBACK
from lamina_net.packets.ipv4 import Packet
from lamina_net.sockets.datagrams import DatagramOptions
from lamina_net.stack import StackConfig
from lamina_net.tcp.interface import Endpoint, Errno, EventKind, Handle, Readiness, Refused

GROUP = 0xE0010203


def bound(host: Host, local: Endpoint, options: DatagramOptions | None = None) -> Handle:
    """Return a socket that is bound."""
    handle = opened(host.stack.sockets.open_udp())
    if options is not None:
        assert host.stack.sockets.set_options(handle, options, 0) is None
    assert host.stack.sockets.bind(handle, local) is None
    return handle


def send(lan: Lan, host: Host, handle: Handle, data: bytes, to: Endpoint | None = None) -> None:
    """Send a datagram, which has to go."""
    assert host.stack.sockets.send(handle, data, lan.now_ns, to) == len(data)


def test_a_question_and_its_answer() -> None:
    """A server hears from an ephemeral port and answers to it; the client, connected, needs no address."""
    lan = Lan()
    a, b = lan.hosts
    server, client = bound(b, Endpoint(0, 53)), opened(a.stack.sockets.open_udp())
    assert a.stack.sockets.connect(client, Endpoint(b.address, 53), 0) is None
    send(lan, a, client, b"who?")
    lan.run()
    ((question, source),) = received(lan, b, server)
    assert (question, source.address) == (b"who?", a.address)
    assert 49152 <= source.port <= 65535
    send(lan, b, server, b"me", source)
    lan.run()
    assert received(lan, a, client) == [(b"me", Endpoint(b.address, 53))]
    assert (b.kinds(server), a.kinds(client)) == ([EventKind.READABLE], [EventKind.READABLE])


def test_datagrams_keep_their_bounds() -> None:
    """Empty ones arrive too, and of one that is read in part the rest is lost."""
    lan = Lan(1)
    (a,) = lan.hosts
    server, client = bound(a, Endpoint(0, 9)), opened(a.stack.sockets.open_udp())
    for data in (b"first", b"", b"third"):
        send(lan, a, client, data, Endpoint(LOOPBACK, 9))
    sockets = a.stack.sockets
    assert [sockets.recv(server, 2, 0), sockets.recv(server, 9, 0), sockets.recv(server, 9, 0)] == [
        b"fi",
        b"",
        b"third",
    ]
    assert sockets.recv(server, 9, 0) == Refused(Errno.AGAIN)


def test_the_largest_datagram_and_one_more() -> None:
    """65507 bytes go in fragments, which wait for the neighbour together; one byte more does not go."""
    lan = Lan()
    a, b = lan.hosts
    server, client = bound(b, Endpoint(0, 9)), opened(a.stack.sockets.open_udp())
    data = bytes(range(256)) * 256
    send(lan, a, client, data[:65507], Endpoint(b.address, 9))
    lan.run()
    assert [found for found, _ in received(lan, b, server)] == [data[:65507]]
    assert a.stack.sockets.send(client, data[:65508], 0, Endpoint(b.address, 9)) == Refused(Errno.MSGSIZE)


def test_the_socket_that_says_most_hears() -> None:
    """Connected goes before bound to an address, and that before bound to all."""
    lan = Lan(1)
    (a,) = lan.hosts
    share = DatagramOptions(reuse=True)
    wide = bound(a, Endpoint(0, 9), share)
    near = bound(a, Endpoint(LOOPBACK, 9), share)
    peer = bound(a, Endpoint(LOOPBACK, 9), share)
    client, stranger = bound(a, Endpoint(LOOPBACK, 1000)), bound(a, Endpoint(LOOPBACK, 1001))
    assert a.stack.sockets.connect(peer, Endpoint(LOOPBACK, 1000), 0) is None
    send(lan, a, client, b"from the peer", Endpoint(LOOPBACK, 9))
    send(lan, a, stranger, b"from a stranger", Endpoint(LOOPBACK, 9))
    send(lan, a, opened(a.stack.sockets.open_udp()), b"to the host", Endpoint(a.address, 9))
    heard = [[data for data, _ in received(lan, a, handle)] for handle in (peer, near, wide)]
    assert heard == [[b"from the peer"], [b"from a stranger"], [b"to the host"]]


@pytest.mark.parametrize(
    ("first", "second", "reuse", "refused"),
    [
        (Endpoint(0, 9), Endpoint(0, 9), False, Errno.ADDRINUSE),
        (Endpoint(0, 9), Endpoint(LOOPBACK, 9), False, Errno.ADDRINUSE),
        (Endpoint(LOOPBACK, 9), Endpoint(0, 9), False, Errno.ADDRINUSE),
        (Endpoint(LOOPBACK, 9), Endpoint(NETWORK + 1, 9), False, None),
        (Endpoint(0, 9), Endpoint(0, 10), False, None),
        (Endpoint(0, 9), Endpoint(0, 9), True, None),
        (Endpoint(0, 9), Endpoint(NETWORK + 7, 10), False, Errno.ADDRNOTAVAIL),
        (Endpoint(0, 9), Endpoint(0, 65536), False, Errno.INVAL),
    ],
)
def test_who_may_have_a_port(first: Endpoint, second: Endpoint, reuse: bool, refused: Errno | None) -> None:
    """An address and a port have one socket, unless all that want them share."""
    lan = Lan(1)
    (a,) = lan.hosts
    bound(a, first, DatagramOptions(reuse=reuse))
    handle = opened(a.stack.sockets.open_udp())
    assert a.stack.sockets.set_options(handle, DatagramOptions(reuse=reuse), 0) is None
    assert a.stack.sockets.bind(handle, second) == (None if refused is None else Refused(refused))


def test_a_closed_socket_gives_its_port_back() -> None:
    """After the end the port is free and the handle means nothing."""
    lan = Lan(1)
    (a,) = lan.hosts
    handle = bound(a, Endpoint(0, 9))
    assert a.stack.sockets.close(handle, 0) is None
    assert a.stack.sockets.close(handle, 0) == Refused(Errno.BADF)
    assert bound(a, Endpoint(0, 9)) != handle


def test_ephemeral_ports_are_different_and_end() -> None:
    """Each socket gets a port of its own, in an order that the seed decides, until none is left."""
    config = StackConfig()
    ports = range(config.tcp.first_ephemeral_port, config.tcp.last_ephemeral_port + 1)
    lan = Lan(1)
    (a,) = lan.hosts
    first = [a.stack.sockets.names(bound(a, Endpoint(0, 0))) for _ in range(50)]
    assert len(set(first)) == 50
    assert first != sorted(first, key=str)
    for port in ports:
        handle = opened(a.stack.sockets.open_udp())
        a.stack.sockets.bind(handle, Endpoint(0, port))
    handle = opened(a.stack.sockets.open_udp())
    assert a.stack.sockets.bind(handle, Endpoint(0, 0)) == Refused(Errno.ADDRNOTAVAIL)


def test_what_waits_in_a_socket_is_bounded() -> None:
    """Beyond the receive buffer datagrams are dropped and counted, empty ones too."""
    lan = Lan(1)
    (a,) = lan.hosts
    server = bound(a, Endpoint(0, 9), DatagramOptions(receive_buffer=1000))
    client = opened(a.stack.sockets.open_udp())
    for _ in range(100):
        send(lan, a, client, b"", Endpoint(LOOPBACK, 9))
    assert len(received(lan, a, server)) == 3
    send(lan, a, client, b"room again", Endpoint(LOOPBACK, 9))
    assert len(received(lan, a, server)) == 1


def test_broadcasts_need_leave_and_reach_everybody() -> None:
    """A socket that may sends to all hosts of the subnet, itself included."""
    lan = Lan(3)
    servers = [(host, bound(host, Endpoint(0, 9))) for host in lan.hosts]
    sender = lan.hosts[0]
    client = opened(sender.stack.sockets.open_udp())
    for address in (NETWORK + 255, BROADCAST):
        assert sender.stack.sockets.send(client, b"x", 0, Endpoint(address, 9)) == Refused(Errno.ACCES)
    sender.stack.sockets.set_options(client, DatagramOptions(broadcast=True), 0)
    send(lan, sender, client, b"all", Endpoint(NETWORK + 255, 9))
    assert sender.stack.sockets.send(client, b"x", 0, Endpoint(BROADCAST, 9)) == Refused(Errno.NETUNREACH)
    sender.stack.sockets.set_options(client, DatagramOptions(broadcast=True, interface="eth0"), 0)
    send(lan, sender, client, b"link", Endpoint(BROADCAST, 9))
    lan.run()
    assert [[data for data, _ in received(lan, host, handle)] for host, handle in servers] == [[b"all", b"link"]] * 3


def test_groups_are_joined_and_left() -> None:
    """Multicast reaches the hosts with a member, as long as there is one, and does not pass routers."""
    lan = Lan(3)
    a, b, c = lan.hosts
    members = [(host, bound(host, Endpoint(0, 9))) for host in (b, c)]
    for host, handle in members:
        assert host.stack.sockets.join(handle, GROUP, "eth0") is None
    client = bound(a, Endpoint(0, 0), DatagramOptions(interface="eth0"))
    send(lan, a, client, b"one", Endpoint(GROUP, 9))
    lan.run()
    assert c.stack.sockets.close(members[1][1], 0) is None
    again = bound(c, Endpoint(0, 9))
    send(lan, a, client, b"two", Endpoint(GROUP, 9))
    lan.run()
    assert [data for data, _ in received(lan, b, members[0][1])] == [b"one", b"two"]
    assert received(lan, c, again) == []
    assert a.sent[-1][:6] == b"\x01\x00\x5e\x01\x02\x03"
    assert a.sent[-1][14 + 8] == 1


def test_a_host_without_address_asks_for_one() -> None:
    """Bound to an interface, a socket sends from 0.0.0.0 to everybody and hears what goes to everybody."""
    lan = Lan(1)
    (a,) = lan.hosts
    a.stack.internet.add_interface("eth1", b"\x02\x00\x00\x00\x01\x01", 1500)
    client = bound(a, Endpoint(0, 68), DatagramOptions(broadcast=True, interface="eth1"))
    send(lan, a, client, b"discover", Endpoint(BROADCAST, 67))
    frames, _ = a.stack.drain()
    ((name, frame),) = [entry for entry in frames if entry[0] == "eth1"]
    assert (name, frame[:6], frame[26:34]) == ("eth1", b"\xff" * 6, bytes(4) + b"\xff" * 4)
    answer = frame[:6] + b"\x02\x00\x00\x00\x00\x63" + frame[12:]
    a.stack.frame("eth1", answer, 1)
    assert received(lan, a, client) == []  # to port 67
    a.stack.sockets.close(client, 0)
    server = bound(a, Endpoint(0, 67), DatagramOptions(interface="eth1"))
    a.stack.frame("eth1", answer, 1)
    a.stack.frame("eth0", answer, 1)
    assert received(lan, a, server) == [(b"discover", Endpoint(0, 68))]


def test_only_a_connected_socket_is_refused() -> None:
    """An unconnected one hears of errors only if it wants to hear of all; an error is told once."""
    lan = Lan()
    a, b = lan.hosts
    plain = bound(a, Endpoint(0, 1001))
    curious = bound(a, Endpoint(0, 1002), DatagramOptions(all_errors=True))
    for handle in (plain, curious):
        send(lan, a, handle, b"x", Endpoint(b.address, 9))
    lan.run()
    sockets = a.stack.sockets
    assert sockets.poll(plain) == Readiness(writable=True)
    assert sockets.poll(curious) == Readiness(readable=True, writable=True, error=Errno.CONNREFUSED)
    assert sockets.recv(curious, 1, lan.now_ns) == Refused(Errno.CONNREFUSED)
    assert sockets.recv(curious, 1, lan.now_ns) == Refused(Errno.AGAIN)


def test_datagrams_that_may_not_be_fragmented() -> None:
    """With DF a datagram larger than the link's MTU is refused."""
    lan = Lan(mtu=576)
    a, b = lan.hosts
    handle = bound(a, Endpoint(0, 1001), DatagramOptions(dont_fragment=True))
    assert a.stack.sockets.send(handle, bytes(549), 0, Endpoint(b.address, 9)) == Refused(Errno.MSGSIZE)
    send(lan, a, handle, bytes(548), Endpoint(b.address, 9))


def test_a_way_that_is_narrower_is_told() -> None:
    """A router's word that a datagram with DF was too long reaches its socket; others need none."""
    lan = Lan()
    a, b = lan.hosts
    strict = bound(a, Endpoint(0, 1001), DatagramOptions(dont_fragment=True))
    loose = bound(a, Endpoint(0, 1002))
    for handle in (strict, loose):
        send(lan, a, handle, bytes(1000), Endpoint(b.address, 9))
    lan.run()
    datagrams = [packet for packet in packets(a.sent) if packet.protocol == ipv4.UDP]
    a.stack.sockets.recv(strict, 1, lan.now_ns)
    for packet in datagrams:
        narrow = icmp.error(icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED, ipv4.build(packet), 576)
        lan.inject(a, to_host(a, Packet(NETWORK + 9, a.address, ipv4.ICMP, icmp.build(narrow))))
    answers = [a.stack.sockets.recv(handle, 1, lan.now_ns) for handle in (strict, loose)]
    assert answers == [Refused(Errno.MSGSIZE), Refused(Errno.AGAIN)]


def test_errors_come_round_on_loopback() -> None:
    """A port of our own that nobody has refuses as any other does."""
    lan = Lan(1)
    (a,) = lan.hosts
    handle = opened(a.stack.sockets.open_udp())
    assert a.stack.sockets.connect(handle, Endpoint(LOOPBACK, 9), 0) is None
    send(lan, a, handle, b"x")
    assert a.stack.sockets.recv(handle, 1, 0) == Refused(Errno.CONNREFUSED)


def test_calls_that_do_not_fit() -> None:
    """A handle that is none, a call of another kind of socket and destinations that are missing are refused."""
    lan = Lan(1, config=StackConfig(max_sockets=2))
    (a,) = lan.hosts
    sockets = a.stack.sockets
    udp = opened(sockets.open_udp())
    tcp = opened(sockets.open_tcp())
    assert sockets.open_ping() == Refused(Errno.NOBUFS)
    assert sockets.send(99, b"x", 0) == sockets.recv(99, 1, 0) == sockets.poll(99) == Refused(Errno.BADF)
    assert sockets.send(udp, b"x", 0) == Refused(Errno.DESTADDRREQ)
    assert sockets.listen(udp, 1) == sockets.accept(udp, 0) == sockets.shutdown(udp, 0) == Refused(Errno.INVAL)
    assert sockets.recv(udp, -1, 0) == sockets.send(udp, b"x", 0, Endpoint(LOOPBACK, 0)) == Refused(Errno.INVAL)
    assert sockets.set_options(tcp, DatagramOptions(), 0) == Refused(Errno.INVAL)
    assert sockets.set_options(udp, DatagramOptions(interface="none"), 0) == Refused(Errno.INVAL)
    assert sockets.join(udp, LOOPBACK, "eth0") == sockets.join(tcp, GROUP, "eth0") == Refused(Errno.INVAL)
    assert sockets.send(tcp, b"x", 0, Endpoint(LOOPBACK, 1)) == Refused(Errno.ISCONN)
    assert sockets.send(tcp, b"x", 0) == sockets.recv(tcp, 1, 0) == Refused(Errno.NOTCONN)


def test_a_lossy_link_loses_datagrams_and_makes_none() -> None:
    """What arrives was sent, once and whole; ARP gets through in spite of the losses."""
    lan = Lan(loss=0.2, seed=3)
    a, b = lan.hosts
    server, client = bound(b, Endpoint(0, 9)), opened(a.stack.sockets.open_udp())
    sent = [b"%d" % n + bytes(2000) for n in range(200)]
    for data in sent:
        send(lan, a, client, data, Endpoint(b.address, 9))
        lan.run(10_000_000)
    lan.run()
    heard = [data for data, _ in received(lan, b, server)]
    assert 50 < len(heard) < 190
    assert heard == [data for data in sent if data in heard]
