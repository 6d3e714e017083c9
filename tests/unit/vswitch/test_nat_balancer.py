"""Virtual servers: choice of backends, translation both ways, refusal, changes by source and revision."""

from __future__ import annotations

from collections import Counter

import pytest

from lamina_kit.errors import LaminaError
from lamina_kit.rng import Rng
from lamina_net.packets import icmp, ipv4, udp
from lamina_net.tcp import segment
from lamina_net.tcp.segment import ACK, RST, SYN, Segment
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Entry
from lamina_vswitch.domain.nat.flows.ports import SharedPorts
from lamina_vswitch.domain.nat.flows.rewriter import Rewriter
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.packets.outcome import Outcome
from lamina_vswitch.domain.nat.servers.balancer import Balancer
from lamina_vswitch.domain.nat.servers.book import ServerChange
from lamina_vswitch.domain.nat.servers.definition import Backend, ServerDefinition

NS = 1_000_000_000
GATEWAY, CLIENT, VIP = 0x0A000201, 0x0A00020F, 0x0A600001
ONE, TWO, THREE = (Backend(0x0A000214 + n, 8080, 1) for n in range(3))


def server(*backends: Backend, port: int = 80, affinity: int = 0, source: str = "orchestrator") -> ServerDefinition:
    """Return a TCP server at the virtual address."""
    return ServerDefinition(VIP, ipv4.TCP, port, backends, affinity, "", source)


class Bench:
    """A balancer with four ports towards each backend."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.table = Table(1000, 1000, self._gone)
        rng = Rng("test")
        ports = SharedPorts(40000, 40003, rng.randrange)
        self.balancer = Balancer(GATEWAY, Rewriter(self.table), ports, rng)

    def _gone(self, entry: Entry) -> None:
        self.balancer.ended(entry)

    def set(self, *servers: ServerDefinition, **options: object) -> tuple[bytes, ...]:
        """Make a change; return the resets."""
        source = str(options.pop("source", "orchestrator"))
        change = ServerChange(source, wanted=servers, **options)  # type: ignore[arg-type]
        delta = self.balancer.book.delta(change)
        if delta is None:
            return ()
        return self.balancer.apply(delta, self.now_ns, reset_removed=change.reset_removed)

    def dial(self, sport: int, flags: int = SYN, client: int = CLIENT, port: int = 80) -> Outcome:
        """Send a segment to the server."""
        return self.balancer.to_server(tcp(client, sport, VIP, port, flags), self.now_ns)


def tcp(src: int, sport: int, dst: int, dport: int, flags: int, seq: int = 100, ack: int = 0) -> bytes:
    """Return a TCP packet."""
    body = segment.build(src, dst, Segment(sport, dport, seq, ack, flags, 1000))
    return ipv4.build(ipv4.Packet(src, dst, ipv4.TCP, body))


def read(packet: bytes) -> tuple[int, int, Segment]:
    """Return source, destination and segment of a packet whose sums are right."""
    parsed = ipv4.parse(packet)
    assert isinstance(parsed, ipv4.Packet)
    found = segment.parse(parsed.src, parsed.dst, parsed.payload)
    assert isinstance(found, Segment)
    return parsed.src, parsed.dst, found


@pytest.fixture
def bench() -> Bench:
    """Returns a balancer."""
    return Bench()


def test_a_flow_goes_to_a_backend_and_comes_back(bench: Bench) -> None:
    """The backend sees the gateway, the client the virtual server."""
    bench.set(server(ONE))
    src, dst, sent = read(bench.dial(5000).inside[0])
    assert (src, dst, sent.destination_port) == (GATEWAY, ONE.address, 8080)
    answer = tcp(ONE.address, 8080, GATEWAY, sent.source_port, SYN | ACK)
    src, dst, back = read(bench.balancer.to_gateway(answer, 0).inside[0])
    assert (src, back.source_port, dst, back.destination_port) == (VIP, 80, CLIENT, 5000)
    assert bench.table.entries(0)[0].via == (VIP, 80)


def test_what_is_of_no_flow_is_for_the_router_itself(bench: Bench) -> None:
    """The gateway keeps its own traffic: a port that it gave to nobody, and one below its range."""
    bench.set(server(ONE))
    for port in (53, 40000):
        packet = tcp(ONE.address, 8080, GATEWAY, port, ACK)
        assert bench.balancer.to_gateway(packet, 0).own == (packet,)


def test_weights_share_new_flows_and_zero_drains(bench: Bench) -> None:
    """A backend of three times the weight gets three times the flows, one of weight 0 none."""
    light, heavy, drained = (Backend(each.address, 8080, weight) for each, weight in ((ONE, 1), (TWO, 3), (THREE, 0)))
    bench.set(server(light, heavy, drained))
    chosen: Counter[int] = Counter()
    for n in range(400):
        bench.now_ns += 300 * NS
        chosen[read(bench.dial(1000 + n, client=CLIENT + n).inside[0])[1]] += 1
    assert set(chosen) == {light.address, heavy.address}
    assert 260 < chosen[heavy.address] < 340


def test_a_flow_keeps_its_backend_and_a_client_with_affinity_too(bench: Bench) -> None:
    """Within the time every flow of a client goes where its last one went, unless that one drains."""
    bench.set(server(ONE, TWO, THREE, affinity=60))
    chosen = {read(bench.dial(5000 + n).inside[0])[1] for n in range(3)}
    assert len(chosen) == 1
    drained = [Backend(each.address, 8080, int(each.address not in chosen)) for each in (ONE, TWO, THREE)]
    bench.set(server(*drained, affinity=60))
    assert read(bench.dial(5001, ACK).inside[0])[1] in chosen, "an open flow goes on"
    assert read(bench.dial(6000).inside[0])[1] not in chosen


def test_without_backends_a_flow_is_refused(bench: Bench) -> None:
    """TCP gets a reset that its SYN believes, UDP an error, and both are counted."""
    bench.set(server(), ServerDefinition(VIP, ipv4.UDP, 53, (), source="orchestrator"))
    outcome = bench.dial(5000)
    assert outcome.drops[0][0] is DropReason.NO_BACKEND
    src, dst, answer = read(outcome.inside[0])
    assert (src, dst, answer.flags, answer.acknowledgment) == (VIP, CLIENT, RST | ACK, 101)
    query = udp.build(CLIENT, VIP, udp.Datagram(5000, 53, b"?"))
    refused = bench.balancer.to_server(ipv4.build(ipv4.Packet(CLIENT, VIP, ipv4.UDP, query)), 0)
    assert refused.error is not None
    assert refused.error[:2] == (3, 3)
    assert [each.refused for each in bench.balancer.book.all()] == [1, 1]


def test_a_port_without_a_server_is_refused(bench: Bench) -> None:
    """The address answers for its servers only, and nobody else has it."""
    bench.set(server(ONE))
    assert bench.dial(5000, port=81).drops[0][0] is DropReason.NO_BACKEND


def test_flows_to_a_backend_that_is_gone_are_reset_or_go_on(bench: Bench) -> None:
    """A reset reaches both ends with the numbers that they wait for; without it the flow goes on."""
    bench.set(server(ONE))
    _, _, sent = read(bench.dial(5000).inside[0])
    bench.balancer.to_gateway(tcp(ONE.address, 8080, GATEWAY, sent.source_port, SYN | ACK, seq=900, ack=101), 0)
    bench.balancer.to_server(tcp(CLIENT, 5000, VIP, 80, ACK, seq=101, ack=901), 0)
    assert bench.set(server(TWO)) == ()
    assert bench.dial(5000, ACK).inside, "goes on"
    bench.balancer.to_server(tcp(CLIENT, 5000, VIP, 80, ACK, seq=101, ack=901), 0)
    bench.set(server(ONE))
    to_client, to_backend = (read(each) for each in bench.set(server(TWO), reset_removed=True))
    assert (to_client[0], to_client[1], to_client[2].sequence, to_client[2].flags) == (VIP, CLIENT, 901, RST | ACK)
    assert (to_backend[0], to_backend[1], to_backend[2].sequence) == (GATEWAY, ONE.address, 101)
    assert bench.table.entries(0) == []


def test_changes_are_ordered_by_revision_within_a_source(bench: Bench) -> None:
    """An old change of a source changes nothing; another source counts for itself and keeps off."""
    bench.set(server(ONE), revision=5)
    bench.set(server(TWO), revision=5)
    assert bench.balancer.book.all()[0].definition.backends == (ONE,)
    with pytest.raises(LaminaError) as refused:
        bench.set(server(TWO, source="user"), source="user")
    assert refused.value.reason == "VIRTUAL_SERVER_OWNED"
    bench.set(server(TWO, port=81), revision=6, replace_all=True)
    assert [each.definition.port for each in bench.balancer.book.all()] == [81]
    assert not bench.balancer.answers_for(VIP + 1)
    bench.set(removed=((VIP, ipv4.TCP, 81), (VIP, ipv4.TCP, 82)))
    assert not bench.balancer.answers_for(VIP)


def test_servers_and_backends_have_a_limit(bench: Bench) -> None:
    """One call beyond changes nothing."""
    many = tuple(Backend(n + 1, 1, 1) for n in range(1000))
    bench.set(*(server(*many, port=port) for port in range(1, 101)))
    with pytest.raises(LaminaError) as refused:
        bench.set(server(ONE, port=200))
    assert refused.value.reason == "VIRTUAL_SERVER_LIMIT"
    assert len(bench.balancer.book.servers) == 100


def test_each_backend_has_all_ports_of_the_gateway(bench: Bench) -> None:
    """Four ports carry four flows to each of two backends, and a fifth to one is dropped."""
    bench.set(server(ONE), server(TWO, port=81))
    for port in (80, 81):
        outcomes = [bench.dial(5000 + n, port=port) for n in range(5)]
        assert [len(each.inside) for each in outcomes] == [1, 1, 1, 1, 0]
        assert outcomes[4].drops[0][0] is DropReason.NAT_PORTS_EXHAUSTED


def test_an_error_of_a_backend_reaches_the_client_in_the_servers_name(bench: Bench) -> None:
    """The quoted packet is the client's own, to the virtual server."""
    bench.set(server(ONE))
    sent = bench.dial(5000).inside[0]
    message = icmp.build(icmp.error(icmp.UNREACHABLE, icmp.HOST_UNREACHABLE, sent))
    error = ipv4.build(ipv4.Packet(ONE.address, GATEWAY, ipv4.ICMP, message))
    parsed = ipv4.parse(bench.balancer.to_gateway(error, 0).inside[0])
    assert isinstance(parsed, ipv4.Packet)
    told = icmp.parse(parsed.payload)
    assert isinstance(told, icmp.Message)
    assert (parsed.src, parsed.dst, told.body) == (VIP, CLIENT, tcp(CLIENT, 5000, VIP, 80, SYN))
