"""What must not leave a host, whatever its sockets are bound to and its routes say."""

from __future__ import annotations

import pytest
from tests.unit.net.lan import NETWORK, SECOND, Host, Lan
from tests.unit.net.test_stack import messages, opened, packets, to_host
from tests.unit.net.test_udp_sockets import GROUP, bound, send

from lamina_net.packets import icmp, ipv4
from lamina_net.packets.address import LOOPBACK
from lamina_net.packets.ipv4 import Packet
from lamina_net.sockets.datagrams import DatagramOptions
from lamina_net.tcp.interface import Endpoint, Errno, Refused


def routed() -> tuple[Lan, Host]:
    """Return a link, and a host on it that sends to the other whatever leaves the subnet."""
    lan = Lan()
    a, b = lan.hosts
    lan.default_route(a, b)
    return lan, a


def test_loopback_is_no_source_outside() -> None:
    """A socket that is bound to loopback reaches the host itself and nobody else (RFC 1122, 3.2.1.3)."""
    lan, a = routed()
    sockets = a.stack.sockets
    inside = bound(a, Endpoint(0, 9))
    udp, tcp = bound(a, Endpoint(LOOPBACK, 1000)), opened(sockets.open_tcp())
    assert sockets.bind(tcp, Endpoint(LOOPBACK, 1000)) is None
    assert sockets.send(udp, b"x", 0, Endpoint(NETWORK + 2, 9)) == Refused(Errno.NETUNREACH)
    assert sockets.connect(tcp, Endpoint(NETWORK + 2, 9), 0) == Refused(Errno.NETUNREACH)
    send(lan, a, udp, b"inside", Endpoint(a.address, 9))
    assert sockets.recv_from(inside, 9, 0) == (b"inside", Endpoint(LOOPBACK, 1000))
    lan.run()
    assert packets(a.sent) == []


def test_an_address_that_was_removed_is_no_source() -> None:
    """A socket that was bound to it is refused from then on; nothing goes under another's name."""
    lan, a = routed()
    assert a.stack.internet.add_address("eth0", NETWORK + 50, 24)
    handle = bound(a, Endpoint(NETWORK + 50, 1000))
    send(lan, a, handle, b"before", Endpoint(NETWORK + 2, 9))
    assert a.stack.internet.remove_address("eth0", NETWORK + 50)
    assert a.stack.sockets.send(handle, b"after", 0, Endpoint(NETWORK + 2, 9)) == Refused(Errno.NETUNREACH)


def test_an_address_that_connecting_chose_ends_with_the_peer() -> None:
    """Without peer a socket is at all addresses again, and can be connected elsewhere; one that was bound stays."""
    lan, a = routed()
    sockets = a.stack.sockets
    chosen, named = opened(sockets.open_udp()), bound(a, Endpoint(LOOPBACK, 1000))
    for handle in (chosen, named):
        assert sockets.connect(handle, Endpoint(LOOPBACK, 9), 0) is None
        names = sockets.names(handle)
        assert not isinstance(names, Refused)
        assert names[0].address == LOOPBACK
        assert sockets.connect(handle, Endpoint(0, 0), 0) is None
    assert sockets.names(named) == (Endpoint(LOOPBACK, 1000), None)
    assert sockets.connect(chosen, Endpoint(NETWORK + 2, 9), 0) is None
    send(lan, a, chosen, b"x")
    lan.run()
    assert [packet.src for packet in packets(a.sent)] == [a.address]


@pytest.mark.parametrize("address", [0, 0x00000001, 0x00FFFFFF])
def test_this_host_is_no_destination_outside(address: int) -> None:
    """0.0.0.0/8 names nobody on a link, so the default route does not hold for it."""
    lan, a = routed()
    handle = opened(a.stack.sockets.open_udp())
    assert a.stack.sockets.send(handle, b"x", 0, Endpoint(address, 9)) == Refused(Errno.NETUNREACH)
    lan.run()
    assert packets(a.sent) == []


def test_a_group_with_no_time_to_live_is_within_the_host() -> None:
    """Members here hear it, the link does not (RFC 1112, 6.1)."""
    lan, a = routed()
    member = bound(a, Endpoint(0, 9))
    assert a.stack.sockets.join(member, GROUP, "eth0") is None
    handle = bound(a, Endpoint(0, 0), DatagramOptions(multicast_ttl=0, interface="eth0"))
    send(lan, a, handle, b"x", Endpoint(GROUP, 9))
    lan.run()
    assert a.stack.sockets.recv(member, 9, lan.now_ns) == b"x"
    assert packets(a.sent) == []


def test_fragments_that_end_before_a_late_timer() -> None:
    """Their sender hears of it when a frame comes before the timer."""
    lan, a = routed()
    part = Packet(NETWORK + 2, a.address, ipv4.UDP, bytes(16), more=True)
    lan.inject(a, to_host(a, part))
    lan.now_ns = 31 * SECOND
    lan.inject(a, to_host(a, part._replace(identification=7)))
    lan.run()
    errors = [(message.type, message.code) for message in messages(a.sent)]
    assert errors == [(icmp.TIME_EXCEEDED, icmp.REASSEMBLY_EXCEEDED)]


def test_fragments_to_everybody_end_in_silence() -> None:
    """No host tells of a datagram to all, and none sends from a broadcast address (RFC 1122, 3.2.2)."""
    lan, a = routed()
    part = Packet(NETWORK + 2, NETWORK + 255, ipv4.UDP, bytes(16), more=True)
    lan.inject(a, to_host(a, part, b"\xff" * 6))
    lan.run(40 * SECOND)
    assert packets(a.sent) == []
