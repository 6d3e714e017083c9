"""Any calls on any handles: sockets refuse what does not fit, never raise, and give back what they held."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.net.lan import NETWORK, SECOND, Lan

from lamina_net.packets.address import BROADCAST, LOOPBACK
from lamina_net.sockets.api import Sockets
from lamina_net.sockets.datagrams import DatagramOptions
from lamina_net.stack import StackConfig
from lamina_net.tcp.config import SocketOptions
from lamina_net.tcp.interface import Endpoint, Refused

handles = st.integers(0, 8)
endpoints = st.builds(
    Endpoint,
    st.sampled_from(
        [0, LOOPBACK, NETWORK + 1, NETWORK + 2, NETWORK + 9, NETWORK + 255, BROADCAST, 0xE0000001, 0x08080808]
    ),
    st.sampled_from([-1, 0, 7, 8, 65535, 65536]),
)
data = st.sampled_from([b"", b"x", bytes([8, 0, 0, 0, 0, 0, 0, 1]), bytes(3000), bytes(65508), bytes(70000)])
flags = st.booleans()
datagram_options = st.builds(
    DatagramOptions, flags, flags, st.sampled_from([0, 1, 64, 256]), st.sampled_from([0, 1, 256]), flags, flags,
    st.sampled_from(["", "eth0", "lo", "none"]), st.sampled_from([-1, 0, 1000, 212_992]),
)  # fmt: skip
options = datagram_options | st.builds(SocketOptions, flags, flags, st.sampled_from([0, SECOND]))

calls = st.one_of(
    st.tuples(st.sampled_from(["open_udp", "open_ping", "open_tcp"])),
    st.tuples(st.sampled_from(["bind", "connect"]), handles, endpoints),
    st.tuples(st.just("listen"), handles, st.integers(-1, 3)),
    st.tuples(st.just("send"), handles, data, st.none() | endpoints),
    st.tuples(st.just("recv_from"), handles, st.integers(-1, 70000)),
    st.tuples(st.sampled_from(["accept", "shutdown", "close", "abort", "poll", "names"]), handles),
    st.tuples(st.just("join"), handles, st.sampled_from([0xE0000005, LOOPBACK]), st.sampled_from(["eth0", "none"])),
    st.tuples(st.just("set_options"), handles, options),
    st.tuples(st.just("run"), st.sampled_from([0, 1000, SECOND])),
)

TIMELESS = {"open_udp", "open_ping", "open_tcp", "bind", "listen", "poll", "names", "join"}
"""Calls that do not take the instant."""


def call(sockets: Sockets, name: str, arguments: tuple[object, ...], now_ns: int) -> object:
    """Make a call, with the instant where it belongs."""
    method = getattr(sockets, name)
    if name in TIMELESS:
        return method(*arguments)
    if name == "send":
        return method(*arguments[:2], now_ns, arguments[2])
    return method(*arguments, now_ns)


@given(st.lists(st.tuples(st.integers(0, 1), calls), max_size=60))
@settings(max_examples=120)
def test_no_call_raises(drawn: list[tuple[int, tuple[object, ...]]]) -> None:
    """Two hosts, whatever their users ask for: an answer or a refusal, and at the end nothing is left of it."""
    lan = Lan(config=StackConfig(max_sockets=6))
    for who, (name, *arguments) in drawn:
        assert isinstance(name, str)
        if name == "run":
            assert isinstance(arguments[0], int)
            lan.run(arguments[0])
        else:
            call(lan.hosts[who].stack.sockets, name, tuple(arguments), lan.now_ns)
        assert all(len(host.stack.sockets) <= 6 for host in lan.hosts)
    for host in lan.hosts:
        for handle in range(1, 100):
            refused = host.stack.sockets.close(handle, lan.now_ns)
            assert refused is None or isinstance(refused, Refused)
        assert len(host.stack.sockets) == 0
    lan.run(700 * SECOND)
    for host in lan.hosts:
        assert host.stack.tcp.connections() == []
        assert host.stack.next_wakeup_ns is None
