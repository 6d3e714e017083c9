"""The table under sockets: ends that the host uses again while their entries are still there, and long lists."""

from __future__ import annotations

from tests.unit.vswitch.played_host import Socket
from tests.unit.vswitch.test_nat_gateway import GUEST, NS, PEER, Bench, udp_packet

from lamina_net.packets import ipv4
from lamina_net.packets.address import LOOPBACK
from lamina_net.tcp.interface import Endpoint as TcpEndpoint
from lamina_vswitch.domain.nat.flows.forwards import ForwardDefinition
from lamina_vswitch.domain.nat.sockets.host import HostError


def test_a_peer_comes_to_a_forwarded_port_again_from_the_same_port() -> None:
    """A program that reset its connection and connects again from its port gets a connection of its own."""
    bench = Bench()
    at, peer = (LOOPBACK, 8080), (LOOPBACK, 33333)
    bench.gateway.open_port("web", ipv4.TCP, at)
    bench.forwards.add(ForwardDefinition("n", "web", ipv4.TCP, at, (GUEST, 80)))
    listener = bench.tcp.listen(TcpEndpoint(0, 80))
    assert isinstance(listener, int)
    for text in (b"first", b"second"):
        socket = Socket(at, peer, None)
        socket.user = bench.host.ports[0].user(socket, peer, bench.now_ns)
        assert socket.user is not None
        bench.play()
        handle = bench.tcp.accept(listener)
        assert isinstance(handle, int)
        socket.user.received(text, bench.now_ns)
        bench.play()
        assert bench.tcp.recv(handle, 100, bench.now_ns) == text
        bench.wait(1)
    assert len(bench.table.entries(bench.now_ns)) == 1
    bench.wait(8000)
    assert len(bench.table) == 0


def test_the_host_gives_a_port_of_before_to_the_next_connection() -> None:
    """The host uses the port of a connection that is over, to the same peer; both entries end, each in its time."""
    bench = Bench()
    for _ in range(2):
        bench.host.sockets.clear()
        _, socket = bench.joined()
        socket.user.failed(HostError.RESET, bench.now_ns)
        bench.play()
    first, second = bench.table.entries(bench.now_ns)
    assert first.outer == second.outer
    bench.wait(8000)
    assert len(bench.table) == 0


def test_a_table_is_sorted_once_for_all_pages_of_its_list() -> None:
    """While nothing comes or goes the list is the same object; each entry that comes, goes or ends makes a new one."""
    bench = Bench()
    for port in (53, 54, 52):
        bench.out(udp_packet(PEER, b"?", dport=port))
    listed = bench.table.entries(0)
    assert [entry.peer[1] for entry in listed] == [52, 53, 54]
    bench.out(udp_packet(PEER, b"?", dport=54))
    assert bench.table.entries(1) is listed
    bench.now_ns = NS
    bench.out(udp_packet(PEER, b"?", dport=51))
    assert [entry.peer[1] for entry in bench.table.entries(NS)] == [51, 52, 53, 54]
    bench.table.remove(bench.table.entries(NS)[1])
    assert [entry.peer[1] for entry in bench.table.entries(NS)] == [51, 53, 54]
    assert [entry.peer[1] for entry in bench.table.entries(300 * NS)] == [51]


def test_a_guest_that_resets_its_connections_uses_up_nothing() -> None:
    """Every connection that the gateway's TCP can have is reset by the guest; the next one is made all the same."""
    bench = Bench()
    for _ in range(bench.gateway.inside.layer.config.max_connections + 1):
        handle, socket = bench.joined()
        bench.tcp.abort(handle, bench.now_ns)
        bench.play()
        assert socket.words == ["read", "abort"]
        bench.wait(11)
