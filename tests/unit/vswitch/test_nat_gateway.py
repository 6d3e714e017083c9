"""Flows of the inside through sockets of the host, with a host that the test plays."""

from __future__ import annotations

import pytest
from tests.unit.vswitch.played_host import PlayedHost, Socket

from lamina_kit.rng import Rng
from lamina_net.offload.long_packets import LongPacket, cut
from lamina_net.packets import icmp, ipv4, udp
from lamina_net.packets.address import LOOPBACK, Subnet
from lamina_net.tcp.config import TcpConfig
from lamina_net.tcp.interface import Endpoint as TcpEndpoint
from lamina_net.tcp.interface import EventKind, Refused
from lamina_net.tcp.layer import TcpLayer
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Endpoint, Entry
from lamina_vswitch.domain.nat.flows.forwards import ForwardDefinition, Forwards
from lamina_vswitch.domain.nat.flows.ports import SharedPorts
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.packets.outcome import Outcome
from lamina_vswitch.domain.nat.packets.tracking import State
from lamina_vswitch.domain.nat.sockets.gateway import SocketGateway
from lamina_vswitch.domain.nat.sockets.host import HostError
from lamina_vswitch.domain.nat.sockets.reach import Reach
from lamina_vswitch.domain.network.definition import NatSettings

NS = 1_000_000_000
GATEWAY, GUEST, PEER, ALIAS = 0x0A000201, 0x0A00020F, 0xC6336407, 0x0A000202


class Bench:
    """A gateway, a played host, and a guest with a TCP of its own on a wire without delay."""

    def __init__(self, *allowed: Subnet, alias: int = 0) -> None:
        self.now_ns = 0
        self.host = PlayedHost()
        self.table = Table(64, 32, self._gone)
        self.forwards = Forwards()
        rng = Rng("test")
        reach = Reach(NatSettings(allowed_destinations=allowed, host_alias=alias))
        ports = SharedPorts(40000, 40009, rng.randrange)
        self.gateway = SocketGateway(GATEWAY, 1500, self.table, ports, self.forwards, self.host, reach, rng)
        self.tcp = TcpLayer(TcpConfig(), b"guest")
        self.events: list[tuple[EventKind, object]] = []
        self.outcomes: list[Outcome] = []

    def _gone(self, entry: Entry) -> None:
        self.gateway.ended(entry)

    def out(self, packet: bytes) -> Outcome:
        """Send a packet of the guest."""
        to_gateway = packet[16:20] == GATEWAY.to_bytes(4, "big")
        work = self.gateway.to_gateway if to_gateway else self.gateway.leaving
        outcome = work(packet, self.now_ns)
        self.outcomes.append(outcome)
        return outcome

    def play(self) -> None:
        """Let guest and gateway talk until neither has anything to say."""
        inbound = list(self.gateway.take())
        while True:
            packets, events = self.tcp.drain()
            self.events += [(event.kind, event.errno and event.errno.value) for event in events]
            for each in packets:
                inbound += self.out(ipv4.build(ipv4.Packet(each.src, each.dst, ipv4.TCP, each.data))).inside
            if not inbound and not packets:
                return
            for packet in [
                part for each in inbound for part in (cut(each) if isinstance(each, LongPacket) else [each])
            ]:
                parsed = ipv4.parse(packet)
                assert isinstance(parsed, ipv4.Packet)
                if parsed.protocol == ipv4.TCP:
                    self.tcp.segment(parsed.src, parsed.dst, parsed.payload, self.now_ns)
            inbound = []

    def dial(self, to: Endpoint = (PEER, 80)) -> int:
        """Let the guest connect; return its handle."""
        handle = self.tcp.connect(GUEST, TcpEndpoint(*to), self.now_ns)
        assert isinstance(handle, int)
        self.play()
        return handle

    def joined(self, to: Endpoint = (PEER, 80)) -> tuple[int, Socket]:
        """Return the guest's handle and the host's socket of a connection that is made."""
        handle = self.dial(to)
        socket = self.host.sockets[-1]
        socket.user.connected(self.now_ns)
        self.play()
        return handle, socket

    def wait(self, seconds: float) -> None:
        """Let time pass, with every timer at its instant."""
        end = self.now_ns + int(seconds * NS)
        while True:
            times = [each for each in (self.gateway.next_wakeup_ns, self.tcp.next_wakeup_ns) if each is not None]
            self.now_ns = min([*times, end])
            self.gateway.tick(self.now_ns)
            self.tcp.timer(self.now_ns)
            self.play()
            if self.now_ns >= end:
                return


def udp_packet(dst: int, data: bytes, dport: int = 53, src: int = GUEST) -> bytes:
    """Return a UDP packet of the guest."""
    return ipv4.build(ipv4.Packet(src, dst, ipv4.UDP, udp.build(src, dst, udp.Datagram(5000, dport, data))))


def test_udp_has_a_socket_for_each_entry() -> None:
    """Datagrams of one flow share a socket; what comes back reaches the guest as from the peer."""
    bench = Bench()
    for data in (b"one", b"two"):
        assert bench.out(udp_packet(PEER, data)) == Outcome()
    bench.out(udp_packet(PEER, b"three", dport=54))
    assert [socket.sent for socket in bench.host.sockets] == [[b"one", b"two"], [b"three"]]
    bench.host.sockets[0].user.got(b"answer", 0)
    (packet,) = bench.gateway.take()
    parsed = ipv4.parse(packet)
    assert isinstance(parsed, ipv4.Packet)
    assert (parsed.src, parsed.dst) == (PEER, GUEST)
    assert udp.parse(parsed.src, parsed.dst, parsed.payload) == udp.Datagram(53, 5000, b"answer")
    entry = bench.table.entries(0)[0]
    assert (entry.track.state, entry.outside, entry.peer) == (State.REPLIED, (LOOPBACK, 50000), (PEER, 53))
    bench.wait(300)
    assert [socket.words for socket in bench.host.sockets] == [["close"], ["close"]]


def test_a_refused_datagram_is_told_in_the_peers_name() -> None:
    """The guest gets port unreachable from the peer, about its own packet."""
    bench = Bench()
    sent = udp_packet(PEER, b"x")
    bench.out(sent)
    bench.host.sockets[0].user.failed(HostError.REFUSED, 0)
    (packet,) = bench.gateway.take()
    parsed = ipv4.parse(packet)
    assert isinstance(parsed, ipv4.Packet)
    message = icmp.parse(parsed.payload)
    assert isinstance(message, icmp.Message)
    assert (parsed.src, message.code, message.body) == (PEER, icmp.PORT_UNREACHABLE, sent)


def test_echo_keeps_the_guests_identifier() -> None:
    """The machine writes its own identifier; the guest sees the one it sent."""
    bench = Bench()
    request = icmp.Message(icmp.ECHO_REQUEST, 0, 77 << 16 | 3, b"ping")
    bench.out(ipv4.build(ipv4.Packet(GUEST, PEER, ipv4.ICMP, icmp.build(request))))
    reply = icmp.Message(icmp.ECHO_REPLY, 0, 50000 << 16 | 3, b"ping")
    bench.host.sockets[0].user.got(icmp.build(reply), 0)
    parsed = ipv4.parse(bench.gateway.take()[0])
    assert isinstance(parsed, ipv4.Packet)
    assert icmp.parse(parsed.payload) == reply._replace(rest=77 << 16 | 3)


def test_bytes_go_both_ways_and_both_halves_close() -> None:
    """A connection carries bytes and both ends, and its entry is closed 10 s after."""
    bench = Bench()
    handle, socket = bench.joined()
    assert (EventKind.CONNECTED, None) in bench.events
    bench.tcp.send(handle, b"GET /", 0)
    bench.play()
    assert socket.sent == [b"GET /"]
    socket.user.received(b"page", 0)
    socket.user.received(b"", 0)
    bench.play()
    assert bench.tcp.recv(handle, 100, 0) == b"page"
    assert bench.tcp.recv(handle, 100, 0) == b""
    bench.tcp.close(handle, 0)
    bench.play()
    bench.wait(1)
    assert socket.words == ["read", "read", "finish", "close"]
    assert bench.table.entries(bench.now_ns)[0].track.state is State.CLOSED
    bench.wait(10)
    assert bench.table.entries(bench.now_ns) == []


def test_refused_and_unreachable_reach_the_guest_as_they_are() -> None:
    """A refused connection is reset at once; an unreachable peer is told by ICMP, and the next SYN tries again."""
    bench = Bench()
    bench.dial()
    bench.host.sockets[0].user.failed(HostError.REFUSED, 0)
    bench.play()
    assert bench.events == [(EventKind.ERROR, "CONNREFUSED")]
    bench.dial()
    bench.host.sockets[1].user.failed(HostError.UNREACHABLE, 0)
    (packet,) = bench.gateway.take()
    assert packet[9] == ipv4.ICMP
    assert (packet[20], packet[21]) == (icmp.UNREACHABLE, icmp.HOST_UNREACHABLE)
    bench.wait(1.5)
    assert len(bench.host.sockets) == 3, "the guest's SYN came again, and so did the host's"


def test_a_full_host_closes_the_guests_window() -> None:
    """Bytes that the host does not take stay with the guest, and go on when it does."""
    bench = Bench()
    handle, socket = bench.joined()
    socket.room = 100_000
    data = bytes(range(256)) * 20_000
    taken = 0
    for _ in range(40):
        sent = bench.tcp.send(handle, data[taken : taken + 1_000_000], bench.now_ns)
        taken += 0 if isinstance(sent, Refused) else sent
        bench.play()
        bench.wait(0.1)
    stuck = sum(map(len, socket.sent))
    assert stuck <= 100_000 + 2 * 65536
    assert taken < len(data)
    socket.room = 1 << 30
    socket.user.written(bench.now_ns)
    for _ in range(400):
        sent = bench.tcp.send(handle, data[taken : taken + 1_000_000], bench.now_ns)
        taken += 0 if isinstance(sent, Refused) else sent
        bench.play()
        bench.wait(0.1)
        if sum(map(len, socket.sent)) == len(data):
            break
    assert b"".join(socket.sent) == data


def test_a_slow_guest_leaves_bytes_in_the_hosts_socket() -> None:
    """The host is asked for more only when what it gave has gone to the guest's TCP."""
    bench = Bench()
    handle, socket = bench.joined()
    came, given = b"", 0
    while socket.words and socket.words[-1] == "read" and given < 200:
        socket.words.clear()
        socket.user.received(bytes([given]) * 65536, bench.now_ns)
        given += 1
        bench.play()
        bench.wait(0.1)
    assert given < 200, "the host was never told to wait"
    for _ in range(400):
        data = bench.tcp.recv(handle, 1 << 20, bench.now_ns)
        came += b"" if isinstance(data, Refused) else data
        bench.play()
        bench.wait(0.1)
        if len(came) == given * 65536:
            break
    assert came == b"".join(bytes([n]) * 65536 for n in range(given))
    assert socket.words == ["read"]


@pytest.mark.parametrize("side", ["guest", "host", "flush"])
def test_a_reset_crosses(side: str) -> None:
    """Whoever resets, the other end sees a reset."""
    bench = Bench()
    handle, socket = bench.joined()
    if side == "guest":
        bench.tcp.abort(handle, 0)
    elif side == "host":
        socket.user.failed(HostError.RESET, 0)
    else:
        bench.table.remove(bench.table.entries(0)[0])
        bench.gateway.settle(0)
    bench.play()
    assert "abort" in socket.words
    assert ((EventKind.ERROR, "CONNRESET") in bench.events) == (side != "guest")


def test_a_host_that_leaves_during_the_guests_handshake_resets_it() -> None:
    """The guest's last step meets a reset instead of a connection that nobody is behind."""
    bench = Bench()
    bench.dial()
    socket = bench.host.sockets[0]
    socket.user.connected(0)
    answer = bench.gateway.take()
    socket.user.failed(HostError.RESET, 0)
    bench.gateway.take()  # the reset of the handshake is lost
    parsed = ipv4.parse(answer[0])
    assert isinstance(parsed, ipv4.Packet)
    bench.tcp.segment(parsed.src, parsed.dst, parsed.payload, 0)
    bench.play()
    assert bench.events == [(EventKind.CONNECTED, None), (EventKind.ERROR, "CONNRESET")]


def test_a_segment_of_no_connection_is_reset() -> None:
    """After a start of the service a guest's old connection ends at once instead of hanging."""
    bench = Bench()
    handle, _ = bench.joined()
    other = Bench()
    bench.tcp.send(handle, b"x", 0)
    packets, _ = bench.tcp.drain()
    each = packets[0]
    outcome = other.out(ipv4.build(ipv4.Packet(each.src, each.dst, ipv4.TCP, each.data)))
    assert outcome.drops[0][0] is DropReason.NAT_STATE
    parsed = ipv4.parse(outcome.inside[0])
    assert isinstance(parsed, ipv4.Packet)
    bench.tcp.segment(parsed.src, parsed.dst, parsed.payload, 0)
    assert bench.tcp.drain().events[-1].errno == "CONNRESET"


@pytest.mark.parametrize(
    ("allowed", "dialled", "reached"),
    [
        ((), 0x08080808, 0x08080808),
        ((), 0x7F000001, None),
        ((), 0xA9FEA9FE, None),
        ((), 0xE0000001, None),
        ((), 0x00000000, None),
        ((), 0xFFFFFFFF, None),
        ((Subnet(0, 0),), 0x7F000001, None),
        ((Subnet(0, 0),), 0xA9FEA9FE, None),
        ((Subnet(0x7F000001, 32),), 0x7F000001, 0x7F000001),
        ((Subnet(0x7F000001, 32),), 0x7F000002, None),
        ((Subnet(0x7F000001, 32),), 0x08080808, None),
        ((Subnet(0x7F000001, 32),), ALIAS, 0x7F000001),
        ((Subnet(0, 0),), ALIAS, None),
        ((Subnet(0x08000000, 8),), 0x08080808, 0x08080808),
        ((Subnet(0x08000000, 8),), 0x09080808, None),
    ],
)
def test_only_allowed_destinations_are_reached(allowed: tuple[Subnet, ...], dialled: int, reached: int | None) -> None:
    """What the machine offers to itself has to be named, the rest is as the list says; a refusal is told."""
    bench = Bench(*allowed, alias=ALIAS)
    outcome = bench.out(udp_packet(dialled, b"x"))
    if reached is None:
        assert outcome.drops[0][0] is DropReason.NAT_DESTINATION_FORBIDDEN
        assert outcome.error is not None
        assert outcome.error[:2] == (icmp.UNREACHABLE, icmp.ADMINISTRATIVELY_PROHIBITED)
        assert not bench.host.sockets
    else:
        assert bench.host.sockets[0].peer == (reached, 53)


def test_a_forwarded_tcp_port_reaches_the_guest() -> None:
    """A connection to the host's port begins one from the gateway to the guest, and bytes go both ways."""
    bench = Bench()
    at = (LOOPBACK, 8080)
    assert bench.gateway.open_port("web", ipv4.TCP, at) == at
    forward = bench.forwards.add(ForwardDefinition("n", "web", ipv4.TCP, at, (GUEST, 80)))
    listener = bench.tcp.listen(TcpEndpoint(0, 80))
    assert isinstance(listener, int)
    socket = Socket(at, (LOOPBACK, 33333), None)
    socket.user = bench.host.ports[0].user(socket, (LOOPBACK, 33333), 0)
    bench.play()
    handle = bench.tcp.accept(listener)
    assert isinstance(handle, int)
    socket.user.received(b"hello", 0)
    bench.play()
    assert bench.tcp.recv(handle, 100, 0) == b"hello"
    bench.tcp.send(handle, b"welcome", 0)
    bench.play()
    assert socket.sent == [b"welcome"]
    (entry,) = bench.table.entries(0)
    assert (entry.inside, entry.outside, entry.peer, entry.via) == ((GUEST, 80), at, (LOOPBACK, 33333), at)
    assert entry.track.state is State.ESTABLISHED
    assert forward.flows == 1
    bench.gateway.close_port("web")
    bench.forwards.remove("web")
    bench.wait(1)
    bench.tcp.send(handle, b"still here", bench.now_ns)
    bench.play()
    assert socket.sent[-1] == b"still here"


def test_a_forwarded_udp_port_tells_its_peers_apart() -> None:
    """Each peer of a forwarded UDP port has an entry, and answers go to the right one."""
    bench = Bench()
    at = (LOOPBACK, 8080)
    bench.gateway.open_port("dns", ipv4.UDP, at)
    bench.forwards.add(ForwardDefinition("n", "dns", ipv4.UDP, at, (GUEST, 53)))
    port = bench.host.ports[0]
    for peer in ((LOOPBACK, 1111), (LOOPBACK, 2222), (LOOPBACK, 1111)):
        port.user(b"?", peer, 0)
    asked = bench.gateway.take()
    sources = [packet[20:22] for packet in asked]
    assert sources[0] == sources[2] != sources[1]
    gport = int.from_bytes(sources[1], "big")
    answer = udp.build(GUEST, GATEWAY, udp.Datagram(53, gport, b"!"))
    assert bench.out(ipv4.build(ipv4.Packet(GUEST, GATEWAY, ipv4.UDP, answer))) == Outcome()
    assert port.sent == [b"!"]
    assert [entry.peer[1] for entry in bench.table.entries(0) if entry.track.state is State.REPLIED] == [2222]


def test_fragments_are_put_together_before_a_socket_gets_them() -> None:
    """A datagram that came in parts leaves as one, and an overlap leaves not at all."""
    bench = Bench()
    parsed = ipv4.parse(udp_packet(PEER, bytes(3000)))
    assert isinstance(parsed, ipv4.Packet)
    parts = ipv4.fragment(parsed, 1500)
    assert isinstance(parts, list)
    for part in reversed(parts):
        bench.out(ipv4.build(part))
    assert bench.host.sockets[0].sent == [bytes(3000)]


def test_what_the_machine_does_not_give_is_a_drop_with_a_reason() -> None:
    """Without a socket there is no entry; the guest is told."""
    bench = Bench()
    bench.host.refuses = HostError.EXHAUSTED
    outcome = bench.out(udp_packet(PEER, b"x"))
    assert outcome.drops[0][0] is DropReason.NAT_PORTS_EXHAUSTED
    assert outcome.error is not None
    assert len(bench.table) == 0
