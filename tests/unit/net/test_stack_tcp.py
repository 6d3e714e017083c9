"""TCP through the whole stack: sockets above, frames below."""

from __future__ import annotations

from tests.unit.net.lan import NETWORK, SECOND, Host, Lan
from tests.unit.net.test_stack import opened

from lamina_net.packets.address import LOOPBACK
from lamina_net.tcp.config import SocketOptions
from lamina_net.tcp.interface import Endpoint, Errno, EventKind, Handle, Readiness, Refused


def listening(host: Host, local: Endpoint) -> Handle:
    """Return a socket that listens."""
    handle = opened(host.stack.sockets.open_tcp())
    assert host.stack.sockets.bind(handle, local) is None
    assert host.stack.sockets.listen(handle, 8) is None
    return handle


def connecting(lan: Lan, host: Host, remote: Endpoint) -> Handle:
    """Return a socket that connects."""
    handle = opened(host.stack.sockets.open_tcp())
    assert host.stack.sockets.connect(handle, remote, lan.now_ns) is None
    return handle


def transfer(lan: Lan, source: tuple[Host, Handle], sink: tuple[Host, Handle], data: bytes) -> bytes:
    """Send all of `data`, close that half, and return what arrived at its end."""
    (from_host, sender), (to_host, receiver) = source, sink
    arrived, at, closed = bytearray(), 0, False
    for _ in range(100_000):
        if at < len(data):
            taken = from_host.stack.sockets.send(sender, data[at : at + 65536], lan.now_ns)
            at += 0 if isinstance(taken, Refused) else taken
        elif not closed:
            assert from_host.stack.sockets.shutdown(sender, lan.now_ns) is None
            closed = True
        lan.run(2_000_000)
        while not isinstance(piece := to_host.stack.sockets.recv(receiver, 65536, lan.now_ns), Refused):
            if not piece:
                return bytes(arrived)
            arrived += piece
        assert piece == Refused(Errno.AGAIN)
    raise AssertionError(f"{len(arrived)} of {len(data)} bytes arrived")


def test_a_connection_over_the_link() -> None:
    """A client connects, both sides know each other, bytes and the end of the stream arrive."""
    lan = Lan()
    a, b = lan.hosts
    listener = listening(b, Endpoint(0, 80))
    client = connecting(lan, a, Endpoint(b.address, 80))
    assert b.stack.sockets.accept(listener, 0) == Refused(Errno.AGAIN)
    lan.run()
    assert a.kinds(client) == [EventKind.CONNECTED]
    assert b.kinds(listener) == [EventKind.ACCEPTABLE]
    server = opened(b.stack.sockets.accept(listener, lan.now_ns))
    names = b.stack.sockets.names(server)
    assert not isinstance(names, Refused)
    assert names == a.stack.sockets.names(client)[::-1]
    assert transfer(lan, (a, client), (b, server), b"GET /") == b"GET /"
    assert transfer(lan, (b, server), (a, client), b"page") == b"page"
    for host, handle in ((a, client), (b, server)):
        assert host.stack.sockets.close(handle, lan.now_ns) is None
    lan.run(120 * SECOND)
    assert (a.stack.tcp.connections(), b.stack.tcp.connections()) == ([], [])


def test_bytes_pass_a_lossy_link() -> None:
    """A megabyte arrives whole over a link that loses one frame of twenty, ARP's included."""
    lan = Lan(loss=0.05, seed=5)
    a, b = lan.hosts
    listener = listening(b, Endpoint(b.address, 80))
    client = connecting(lan, a, Endpoint(b.address, 80))
    lan.run(20 * SECOND)
    server = opened(b.stack.sockets.accept(listener, lan.now_ns))
    data = bytes(range(251)) * 4000
    assert transfer(lan, (a, client), (b, server), data) == data


def test_a_connection_to_oneself() -> None:
    """Over loopback all happens within the calls, and no frame leaves."""
    lan = Lan(1)
    (a,) = lan.hosts
    sockets = a.stack.sockets
    listener = listening(a, Endpoint(LOOPBACK, 80))
    client = connecting(lan, a, Endpoint(LOOPBACK, 80))
    server = opened(sockets.accept(listener, 0))
    assert sockets.send(client, bytes(100_000), 0) == 100_000
    assert len(b"".join(piece for _ in range(9) if isinstance(piece := sockets.recv(server, 65536, 0), bytes))) > 0
    lan.run()
    assert all(frame[12:14] == b"\x08\x06" for frame in a.sent)


def test_a_port_that_nobody_has_refuses() -> None:
    """A SYN to it is answered by RST, and the socket says so."""
    lan = Lan()
    a, b = lan.hosts
    client = connecting(lan, a, Endpoint(b.address, 81))
    lan.run()
    assert [(event.kind, event.errno) for event in a.events] == [(EventKind.ERROR, Errno.CONNREFUSED)]
    ready = a.stack.sockets.poll(client)
    assert isinstance(ready, Readiness)
    assert (ready.hangup, ready.error) == (True, Errno.CONNREFUSED)


def test_a_host_that_is_not_there() -> None:
    """When ARP has failed, a connection that was to be opened is over, as in Linux."""
    lan = Lan(1)
    (a,) = lan.hosts
    handle = connecting(lan, a, Endpoint(NETWORK + 77, 80))
    lan.run(3 * SECOND)
    assert [(event.kind, event.handle, event.errno) for event in a.events] == [
        (EventKind.ERROR, handle, Errno.HOSTUNREACH)
    ]
    assert a.stack.tcp.connections() == []


def test_ways_that_are_not_there() -> None:
    """No route, a group and 0.0.0.0 cannot be connected to; a second connection of a socket neither."""
    lan = Lan()
    a, b = lan.hosts
    sockets = a.stack.sockets
    for address in (0x08080808, NETWORK + 255, 0xE0000001, 0):
        assert sockets.connect(opened(sockets.open_tcp()), Endpoint(address, 80), 0) == Refused(Errno.NETUNREACH)
    client = connecting(lan, a, Endpoint(b.address, 80))
    assert sockets.connect(client, Endpoint(b.address, 80), 0) == Refused(Errno.ISCONN)


def test_ports_of_tcp_are_given_once() -> None:
    """Two listeners, or a listener and a bound socket, do not share a port; after the end it is free."""
    lan = Lan(1)
    (a,) = lan.hosts
    sockets = a.stack.sockets
    listener = listening(a, Endpoint(0, 80))
    other = opened(sockets.open_tcp())
    assert sockets.bind(other, Endpoint(LOOPBACK, 80)) == Refused(Errno.ADDRINUSE)
    assert sockets.bind(other, Endpoint(NETWORK + 9, 81)) == Refused(Errno.ADDRNOTAVAIL)
    assert sockets.close(listener, 0) is None
    assert sockets.bind(other, Endpoint(LOOPBACK, 80)) is None
    assert sockets.bind(other, Endpoint(LOOPBACK, 81)) == Refused(Errno.INVAL)


def test_a_connection_comes_from_where_it_is_bound() -> None:
    """The peer sees the address and the port that the client chose."""
    lan = Lan()
    a, b = lan.hosts
    assert a.stack.internet.add_address("eth0", NETWORK + 50, 24)
    listener = listening(b, Endpoint(0, 80))
    client = opened(a.stack.sockets.open_tcp())
    assert a.stack.sockets.bind(client, Endpoint(NETWORK + 50, 1234)) is None
    assert a.stack.sockets.connect(client, Endpoint(b.address, 80), 0) is None
    lan.run()
    server = opened(b.stack.sockets.accept(listener, lan.now_ns))
    assert b.stack.sockets.names(server) == (Endpoint(b.address, 80), Endpoint(NETWORK + 50, 1234))


def test_segments_fit_the_link() -> None:
    """No segment is larger than the link's MTU, and none is fragmented, but over links that are too small for TCP."""
    for mtu, fragments in ((1500, False), (576, False), (300, False)):
        lan = Lan(mtu=mtu)
        a, b = lan.hosts
        listener, client = listening(b, Endpoint(0, 80)), connecting(lan, a, Endpoint(b.address, 80))
        lan.run()
        server = opened(b.stack.sockets.accept(listener, lan.now_ns))
        data = bytes(20_000)
        assert transfer(lan, (a, client), (b, server), data) == data
        assert max(len(frame) for frame in a.sent) <= mtu + 14
        assert any(frame[12:14] == b"\x08\x00" and frame[20] & 0x20 for frame in a.sent) == fragments


def test_an_aborted_connection_is_reset() -> None:
    """The peer hears of it at once."""
    lan = Lan()
    a, b = lan.hosts
    listener, client = listening(b, Endpoint(0, 80)), connecting(lan, a, Endpoint(b.address, 80))
    lan.run()
    server = opened(b.stack.sockets.accept(listener, lan.now_ns))
    assert a.stack.sockets.abort(client, lan.now_ns) is None
    lan.run()
    assert b.stack.sockets.recv(server, 1, lan.now_ns) == Refused(Errno.CONNRESET)


def test_options_reach_the_connection() -> None:
    """Keepalive, set before or after connecting, asks an idle peer and ends with one that is gone."""
    lan = Lan()
    a, b = lan.hosts
    listening(b, Endpoint(0, 80))
    client = opened(a.stack.sockets.open_tcp())
    assert a.stack.sockets.set_options(client, SocketOptions(keepalive=True), 0) is None
    assert a.stack.sockets.connect(client, Endpoint(b.address, 80), 0) is None
    lan.run()
    lan.loss = 1.0
    lan.run(3 * 3600 * SECOND)
    assert [(event.kind, event.errno) for event in a.events][-1] == (EventKind.ERROR, Errno.TIMEDOUT)


def test_a_negative_time_is_refused_and_changes_nothing() -> None:
    """A user timeout below zero is INVAL before connecting as after; the connection keeps what it had."""
    lan = Lan()
    a, b = lan.hosts
    sockets, wrong = a.stack.sockets, SocketOptions(user_timeout_ns=-1)
    listening(b, Endpoint(0, 80))
    client = opened(sockets.open_tcp())
    assert sockets.set_options(client, wrong, 0) == Refused(Errno.INVAL)
    assert sockets.connect(client, Endpoint(b.address, 80), 0) is None
    lan.run()
    assert sockets.set_options(client, wrong, lan.now_ns) == Refused(Errno.INVAL)
    lan.loss = 1.0
    assert sockets.send(client, b"x", lan.now_ns) == 1
    lan.run(60 * SECOND)
    assert a.kinds(client) == [EventKind.CONNECTED]


def test_options_of_a_listener_hold_for_what_it_accepts() -> None:
    """Also those that are set when it listens already: the accepted end gives up after the listener's time."""
    lan = Lan()
    a, b = lan.hosts
    listener = listening(b, Endpoint(0, 80))
    assert b.stack.sockets.set_options(listener, SocketOptions(user_timeout_ns=5 * SECOND), 0) is None
    connecting(lan, a, Endpoint(b.address, 80))
    lan.run()
    server = opened(b.stack.sockets.accept(listener, lan.now_ns))
    lan.loss = 1.0
    assert b.stack.sockets.send(server, b"x", lan.now_ns) == 1
    lan.run(10 * SECOND)
    assert b.kinds(server) == [EventKind.ERROR]
