"""The translator against a naive one that parses every packet, keeps a list of flows, and builds packets anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.vswitch.played_host import PlayedHost

from lamina_kit.rng import Rng
from lamina_net.packets import icmp, ipv4, udp
from lamina_net.tcp import segment
from lamina_net.tcp.segment import ACK, FIN, RST, SYN, Segment
from lamina_vswitch.domain.nat.flows.entry import Entry
from lamina_vswitch.domain.nat.flows.forwards import ForwardDefinition, Forwards
from lamina_vswitch.domain.nat.flows.ports import PortPool, SharedPorts
from lamina_vswitch.domain.nat.flows.rewriter import Rewriter
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.outside.uplink import UplinkNat
from lamina_vswitch.domain.nat.packets.outcome import Outcome
from lamina_vswitch.domain.nat.servers.balancer import Balancer
from lamina_vswitch.domain.nat.servers.book import ServerChange
from lamina_vswitch.domain.nat.servers.definition import Backend, ServerDefinition
from lamina_vswitch.domain.nat.sockets.gateway import SocketGateway
from lamina_vswitch.domain.nat.sockets.host import HostError
from lamina_vswitch.domain.nat.sockets.reach import Reach
from lamina_vswitch.domain.nat.sockets.splice import Splice
from lamina_vswitch.domain.network.definition import NatSettings

NS = 1_000_000_000
OUTSIDE = 0xC6336401
GUESTS = (0x0A000202, 0x0A000203, 0x0A000204)
PEERS = (0xCB007107, 0xCB007108, OUTSIDE)
FORWARDS = {(ipv4.TCP, 8080): (GUESTS[0], 1), (ipv4.UDP, 8080): (GUESTS[1], 2)}
PORTS = range(40000, 40006)

Ends = tuple[int, int, int, int]


def build(protocol: int, ends: Ends, extra: int) -> bytes:
    """Return a packet: `extra` are flags of TCP, or whether an echo is a reply."""
    src, sport, dst, dport = ends
    if protocol == ipv4.TCP:
        body = segment.build(src, dst, Segment(sport, dport, 1, 2, extra, 3, b"payload"))
    elif protocol == ipv4.UDP:
        body = udp.build(src, dst, udp.Datagram(sport, dport, b"payload"))
    else:
        kind, identifier = (icmp.ECHO_REPLY, dport) if extra & 1 else (icmp.ECHO_REQUEST, sport)
        body = icmp.build(icmp.Message(kind, 0, identifier << 16, b"payload"))
    return ipv4.build(ipv4.Packet(src, dst, protocol, body))


@dataclass
class NaiveFlow:
    """A flow: guest, peer and outside port, and what was seen of it."""

    protocol: int
    guest: tuple[int, int]
    peer: tuple[int, int]
    port: int
    seen_ns: int
    forwarded: bool
    syn: set[str] = field(default_factory=set)
    fin: set[str] = field(default_factory=set)
    rst: set[str] = field(default_factory=set)

    def seconds(self) -> int:
        """Return how long it lives."""
        if self.protocol != ipv4.TCP:
            return 60 if self.protocol == ipv4.ICMP else 300
        if self.rst or len(self.fin) == 2:
            return 10
        return 240 if self.fin or len(self.syn) < 2 else 7440

    def fits(self, side: str, flags: int) -> bool:
        """Take in a TCP segment, if it fits."""
        if self.protocol != ipv4.TCP:
            return True
        if flags & SYN:
            if flags & (FIN | RST):
                return False
            if self.seconds() == 10 and not flags & ACK:
                self.syn, self.fin, self.rst = set(), set(), set()
            self.rst -= {"in", "out"} - {side}
            self.syn.add(side)
        elif flags & RST:
            if flags & FIN:
                return False
            self.rst.add(side)
        elif not flags & ACK or (flags & FIN and side not in self.syn):
            return False
        else:
            self.rst -= {"in", "out"} - {side}
            if flags & FIN:
                self.fin.add(side)
        return True


class NaiveNat:
    """A translator that looks through all it knows."""

    def __init__(self) -> None:
        self.flows: list[NaiveFlow] = []

    def leave(self, protocol: int, ends: Ends, extra: int, port: int | None, now_ns: int) -> Ends | None:
        """Return the ends of a packet outside; `port` is what the real one chose for a new mapping."""
        src, sport, dst, dport = ends
        self.flows = [flow for flow in self.flows if now_ns - flow.seen_ns < flow.seconds() * NS]
        for flow in self.flows:
            if (flow.protocol, flow.guest, flow.peer) == (protocol, (src, sport), (dst, dport)):
                return self._passed(flow, "in", extra, now_ns, (OUTSIDE, flow.port, dst, dport))
        if not begins(protocol, extra):
            return None
        mine = [f.port for f in self.flows if (f.protocol, f.guest, f.forwarded) == (protocol, (src, sport), False)]
        others = {f.port for f in self.flows if f.protocol == protocol and not f.forwarded} - set(mine)
        if not mine and (port is None or len(others) == len(PORTS)):
            assert len(others) == len(PORTS), "dropped with ports left"
            return None
        assert port is not None
        assert port in PORTS
        assert port in mine if mine else port not in others
        flow = NaiveFlow(protocol, (src, sport), (dst, dport), port, now_ns, False)
        self.flows.append(flow)
        return self._passed(flow, "in", extra, now_ns, (OUTSIDE, port, dst, dport))

    def enter(self, protocol: int, ends: Ends, extra: int, now_ns: int) -> Ends | None:
        """Return the ends of a packet inside."""
        src, sport, _, dport = ends
        self.flows = [flow for flow in self.flows if now_ns - flow.seen_ns < flow.seconds() * NS]
        for flow in self.flows:
            if (flow.protocol, flow.port, flow.peer) == (protocol, dport, (src, sport)):
                return self._passed(flow, "out", extra, now_ns, (src, sport, *flow.guest))
        guest = FORWARDS.get((protocol, dport))
        if guest is None or not begins(protocol, extra):
            return None
        if any((f.protocol, f.guest, f.peer) == (protocol, guest, (src, sport)) for f in self.flows):
            return None
        flow = NaiveFlow(protocol, guest, (src, sport), dport, now_ns, True)
        self.flows.append(flow)
        return self._passed(flow, "out", extra, now_ns, (src, sport, *guest))

    def _passed(self, flow: NaiveFlow, side: str, extra: int, now_ns: int, ends: Ends) -> Ends | None:
        if not flow.fits(side, extra):
            return None
        flow.seen_ns = now_ns
        return ends


def begins(protocol: int, extra: int) -> bool:
    """Tell whether a packet may begin a flow."""
    if protocol == ipv4.ICMP:
        return not extra & 1
    return protocol == ipv4.UDP or extra & (SYN | ACK | FIN | RST) == SYN


def ends_of(packet: bytes) -> Ends:
    """Return the ends of a packet."""
    parsed = ipv4.parse(packet)
    assert isinstance(parsed, ipv4.Packet)
    body = parsed.payload
    if parsed.protocol == ipv4.ICMP:
        identifier = int.from_bytes(body[4:6], "big")
        return (parsed.src, 0, parsed.dst, identifier) if body[0] == 0 else (parsed.src, identifier, parsed.dst, 0)
    return parsed.src, int.from_bytes(body[:2], "big"), parsed.dst, int.from_bytes(body[2:4], "big")


STEP = st.tuples(
    st.booleans(),
    st.sampled_from([ipv4.TCP, ipv4.TCP, ipv4.UDP, ipv4.ICMP]),
    st.sampled_from(GUESTS),
    st.sampled_from(PEERS),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from([SYN, SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST, RST | ACK, SYN | FIN, 0]),
    st.sampled_from([0, 0, 0, 1, 9, 10, 60, 239, 240, 300, 7440]),
    st.sampled_from([*PORTS, 8080]),
)


@given(steps=st.lists(STEP, max_size=60))
@settings(max_examples=150, deadline=None)
def test_it_does_what_a_naive_translator_does(steps: list[tuple[bool, int, int, int, int, int, int, int, int]]) -> None:
    """Every packet leaves, comes in, or is dropped as there, byte for byte with sums computed anew."""
    forwards = Forwards()
    pool = PortPool(PORTS.start, PORTS.stop - 1, 2)

    def gone(entry: Entry) -> None:
        nat.ended(entry)

    table = Table(1000, 1000, gone)
    nat = UplinkNat(OUTSIDE, Rewriter(table), pool, forwards)
    for (protocol, port), inside in FORWARDS.items():
        forwards.add(ForwardDefinition("n", f"f{protocol}", protocol, (OUTSIDE, port), inside))
    naive, now_ns = NaiveNat(), 0
    for out, protocol, guest, peer, gport, pport, extra, wait, oport in steps:
        now_ns += wait * NS
        if protocol == ipv4.ICMP:
            gport, pport = (gport, 0)
        if out and peer != OUTSIDE:
            packet = build(protocol, (guest, gport, peer, pport), extra)
            outcome = nat.leaving(packet, now_ns)
            chosen = ends_of(outcome.outside[0])[1] if outcome.outside else None
            if not outcome.outside and outcome.drops[0][0].name == "NAT_STATE":
                chosen = PORTS.start if begins(protocol, extra) else None
            ends = naive.leave(protocol, ends_of(packet), extra, chosen, now_ns)
            assert outcome.outside == (() if ends is None else (build(protocol, ends, extra),))
        elif not out and peer != OUTSIDE:
            packet = build(protocol, (peer, pport, OUTSIDE, oport), extra)
            outcome = nat.entering(packet, now_ns)
            ends = naive.enter(protocol, ends_of(packet), extra, now_ns)
            assert outcome.inside == (() if ends is None else (build(protocol, ends, extra),))
        assert len(table.entries(now_ns)) == sum(now_ns - flow.seen_ns < flow.seconds() * NS for flow in naive.flows)


def test_the_oracle_meets_every_kind_of_step() -> None:
    """The naive translator itself lets a flow out, its answer in, and a stranger not."""
    naive = NaiveNat()
    assert naive.leave(ipv4.UDP, (GUESTS[0], 1, PEERS[0], 2), 0, PORTS.start, 0) == (OUTSIDE, PORTS.start, PEERS[0], 2)
    assert naive.enter(ipv4.UDP, (PEERS[0], 2, OUTSIDE, PORTS.start), 0, 0) == (PEERS[0], 2, GUESTS[0], 1)
    assert naive.enter(ipv4.UDP, (PEERS[1], 2, OUTSIDE, PORTS.start), 0, 0) is None


def everything() -> tuple[UplinkNat, Balancer, Table]:
    """Return a translator with forwards and a virtual server, over one small table."""
    forwards, rng = Forwards(), Rng("fuzz")

    def gone(entry: Entry) -> None:
        nat.ended(entry)
        balancer.ended(entry)

    table = Table(16, 16, gone)
    rewriter = Rewriter(table)
    nat = UplinkNat(OUTSIDE, rewriter, PortPool(40000, 40005, 0), forwards)
    balancer = Balancer(GUESTS[0], rewriter, SharedPorts(40000, 40005, rng.randrange), rng)
    forwards.add(ForwardDefinition("n", "f", ipv4.UDP, (OUTSIDE, 8080), (GUESTS[1], 2)))
    backends = (Backend(GUESTS[1], 80, 1), Backend(GUESTS[2], 80, 1))
    delta = balancer.book.delta(
        ServerChange("s", wanted=(ServerDefinition(PEERS[0], ipv4.TCP, 80, backends, 60, "", "s"),))
    )
    assert delta is not None
    balancer.apply(delta, 0, reset_removed=False)
    return nat, balancer, table


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw a packet that was valid before some of its bytes changed, or its end was cut."""
    protocol = draw(st.sampled_from([ipv4.TCP, ipv4.UDP, ipv4.ICMP]))
    ends = (
        draw(st.sampled_from(GUESTS + PEERS)),
        1,
        draw(st.sampled_from(GUESTS + PEERS)),
        draw(st.sampled_from([80, 8080, 40000])),
    )
    packet = build(protocol, ends, draw(st.sampled_from([SYN, ACK, FIN | ACK])))
    if draw(st.booleans()):
        message = icmp.error(draw(st.sampled_from([3, 4, 11, 12])), 0, packet)
        packet = ipv4.build(ipv4.Packet(ends[2], ends[0], ipv4.ICMP, icmp.build(message)))
    buffer = bytearray(packet)
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(buffer) - 1), st.integers(0, 255)), max_size=4)):
        buffer[place] = value
    return bytes(buffer[: draw(st.integers(0, len(buffer)))]) if draw(st.booleans()) else bytes(buffer)


@given(packets=st.lists(st.one_of(mutated(), st.binary(max_size=80)), max_size=20), seconds=st.integers(0, 40))
@settings(max_examples=100, deadline=None)
def test_no_packet_breaks_it(packets: list[bytes], seconds: int) -> None:
    """Whatever comes from wherever: nothing is raised, nothing grows beyond its bound, every drop has a reason."""
    nat, balancer, table = everything()
    for number, packet in enumerate(packets):
        now_ns = number * seconds * NS
        for work in (nat.leaving, nat.entering, balancer.to_server, balancer.to_gateway):
            outcome = work(packet, now_ns)
            assert isinstance(outcome, Outcome)
            assert len(table) <= 16
            for made in (*outcome.inside, *outcome.outside):
                assert 20 <= len(made) <= max(len(packet), 40)


@given(
    packets=st.lists(st.tuples(st.booleans(), st.one_of(mutated(), st.binary(max_size=80))), max_size=20),
    answers=st.lists(
        st.tuples(st.sampled_from(["connected", "received", "failed", "written"]), st.binary(max_size=99))
    ),
)
@settings(max_examples=80, deadline=None)
def test_no_packet_breaks_a_gateway(packets: list[tuple[bool, bytes]], answers: list[tuple[str, bytes]]) -> None:
    """Whatever guests and sockets say in whatever order: nothing is raised, and what is said stays a packet."""
    host, forwards, rng = PlayedHost(), Forwards(), Rng("fuzz")

    def gone(entry: Entry) -> None:
        gateway.ended(entry)

    table = Table(16, 16, gone)
    ports = SharedPorts(40000, 40005, rng.randrange)
    reach = Reach(NatSettings())
    gateway = SocketGateway(GUESTS[0], 1500, table, ports, forwards, host, reach, rng)
    told = iter(answers)
    for number, (own, packet) in enumerate(packets):
        now_ns = number * NS
        outcome = (gateway.to_gateway if own else gateway.leaving)(packet, now_ns)
        for made in outcome.inside:
            assert isinstance(ipv4.parse(made), ipv4.Packet)
        word, data = next(told, ("written", b""))
        for socket in host.sockets[-2:]:
            if "close" in socket.words or "abort" in socket.words:
                continue
            if isinstance(socket.user, Splice):
                arguments = {"received": (data,), "failed": (HostError.RESET,)}.get(word, ())
                getattr(socket.user, word)(*arguments, now_ns)
            else:
                socket.user.got(data, now_ns)
        gateway.tick(now_ns)
        assert len(table) <= 16
        assert all(isinstance(ipv4.parse(made), ipv4.Packet) for made in gateway.take())
