"""Interfaces, addresses and routes of a host with several links."""

from __future__ import annotations

import pytest
from tests.unit.net.lan import NETWORK
from tests.unit.net.test_stack import opened, packets

from lamina_net.ip.interface import MAX_GROUPS, Interface, InterfaceAddress
from lamina_net.ip.internet import LOOPBACK_NAME, Internet
from lamina_net.ip.routes import Route
from lamina_net.packets import arp, ethernet, icmp, ipv4
from lamina_net.packets.address import LOOPBACK, Subnet
from lamina_net.packets.ipv4 import Packet
from lamina_net.packets.refusal import Refusal
from lamina_net.stack import Stack
from lamina_net.tcp.interface import Endpoint, Errno, Refused

MAC, OTHER_MAC, EVIL = (bytes([2, 0, 0, 0, 0, last]) for last in (1, 2, 0xEE))
OTHER_NETWORK = 0x0A010000
GROUP = 0xE0000105


def two_links() -> Stack:
    """Return a host in 10.0.0.0/24 and 10.1.0.0/16."""
    stack = Stack(b"seed")
    stack.internet.add_interface("eth0", MAC, 1500)
    stack.internet.add_interface("eth1", OTHER_MAC, 9000)
    assert stack.internet.add_address("eth0", NETWORK + 1, 24)
    assert stack.internet.add_address("eth1", OTHER_NETWORK + 1, 16)
    stack.drain()
    return stack


def test_a_packet_leaves_where_its_destination_is() -> None:
    """Each subnet has its interface, its source address and its MTU."""
    internet = two_links().internet
    assert [internet.source_for(address) for address in (NETWORK + 9, OTHER_NETWORK + 9, LOOPBACK, NETWORK + 1)] == [
        NETWORK + 1, OTHER_NETWORK + 1, LOOPBACK, NETWORK + 1,
    ]  # fmt: skip
    assert [internet.mtu_for(address) for address in (NETWORK + 9, OTHER_NETWORK + 9, LOOPBACK)] == [1500, 9000, 65535]
    assert internet.source_for(0x08080808) is None


def test_a_host_is_one_whatever_the_link() -> None:
    """A packet to an address of another interface is ours too, but ARP for it is not answered."""
    stack = two_links()
    request = Packet(NETWORK + 9, OTHER_NETWORK + 1, ipv4.ICMP, icmp.build(icmp.echo_request(1, 1)))
    stack.frame("eth0", ethernet.build(MAC, EVIL, ethernet.IPV4, ipv4.build(request)), 0)
    frames, _ = stack.drain()
    assert [arp.parse(frame[14:]) for _, frame in frames] == [
        arp.ArpPacket(arp.REQUEST, MAC, OTHER_NETWORK + 1, bytes(6), NETWORK + 9)
    ]
    question = arp.request(EVIL, NETWORK + 9, OTHER_NETWORK + 1)
    stack.frame("eth0", ethernet.build(b"\xff" * 6, EVIL, ethernet.ARP, question), 0)
    assert [packet.dst for packet in packets([frame for _, frame in stack.drain().frames])] == [NETWORK + 9]


@pytest.mark.parametrize(
    ("address", "length"),
    [(NETWORK + 1, 24), (NETWORK, 24), (NETWORK + 255, 24), (0, 24), (LOOPBACK, 8), (0xE0000001, 4), (0xFFFFFFFF, 32)],
)
def test_addresses_that_no_host_has(address: int, length: int) -> None:
    """Networks, broadcasts, groups, loopback and addresses that are there already are refused."""
    internet = two_links().internet
    assert not internet.add_address("eth0", address, length)
    assert len(internet.interfaces["eth0"].addresses) == 1


def test_links_of_two_have_no_broadcast() -> None:
    """Both addresses of a prefix of 31 bits, and the one of 32, are hosts' (RFC 3021)."""
    internet = two_links().internet
    assert internet.add_address("eth0", 0x0B000000, 31)
    assert internet.add_address("eth0", 0x0B000003, 32)
    assert not internet.is_group(0x0B000001)
    assert internet.source_for(0x0B000001) == 0x0B000000


def test_an_address_that_goes_takes_its_route_along() -> None:
    """Unless another address of the interface is in the subnet; then that one is the source."""
    internet = two_links().internet
    assert internet.add_address("eth0", NETWORK + 2, 24)
    assert internet.source_for(NETWORK + 9) == NETWORK + 1
    assert internet.remove_address("eth0", NETWORK + 1)
    assert internet.source_for(NETWORK + 9) == NETWORK + 2
    assert internet.remove_address("eth0", NETWORK + 2)
    assert internet.source_for(NETWORK + 9) is None
    assert not internet.remove_address("eth0", NETWORK + 2)
    assert not internet.remove_address("lo", LOOPBACK)
    assert not internet.is_group(NETWORK + 255)


def test_an_interface_that_goes_takes_all_along() -> None:
    """Its addresses are nobody's, its routes are gone, and its name can be used again."""
    stack = two_links()
    internet = stack.internet
    handle = opened(stack.sockets.open_udp())
    assert stack.sockets.join(handle, GROUP, "eth1") is None
    internet.remove_interface("eth1")
    assert not internet.is_ours(OTHER_NETWORK + 1)
    assert internet.source_for(OTHER_NETWORK + 9) is None
    assert stack.sockets.close(handle, 0) is None
    internet.add_interface("eth1", OTHER_MAC, 1500)
    assert internet.add_address("eth1", OTHER_NETWORK + 1, 16)
    with pytest.raises(ValueError, match="eth1"):
        internet.add_interface("eth1", OTHER_MAC, 1500)
    with pytest.raises(KeyError):
        internet.remove_interface(LOOPBACK_NAME)


def test_a_bound_socket_leaves_by_its_interface() -> None:
    """Whatever the routes say, what a socket is bound to decides."""
    stack = two_links()
    assert stack.internet.routes.add(Route(Subnet(0, 0), "eth0", via=NETWORK + 254))
    handle = opened(stack.sockets.open_udp())
    options = type(stack.udp.options(handle))(interface="eth1")
    assert stack.sockets.set_options(handle, options, 0) is None
    assert stack.sockets.send(handle, b"x", 0, Endpoint(0x08080808, 53)) == 1
    ((name, frame),) = stack.drain().frames
    assert name == "eth1"
    assert arp.parse(frame[14:]) == arp.ArpPacket(arp.REQUEST, OTHER_MAC, OTHER_NETWORK + 1, bytes(6), 0x08080808)
    stack.internet.remove_interface("eth1")
    assert stack.sockets.send(handle, b"x", 0, Endpoint(0x08080808, 53)) == Refused(Errno.NETUNREACH)


def test_a_link_without_mac_addresses_has_packets_for_frames() -> None:
    """A tunnel needs no ARP: packets go in and out as they are."""
    stack = Stack(b"seed")
    stack.internet.add_interface("tun0", None, 1400)
    assert stack.internet.add_address("tun0", NETWORK + 1, 24)
    request = Packet(NETWORK + 9, NETWORK + 1, ipv4.ICMP, icmp.build(icmp.echo_request(1, 1, b"data")))
    stack.frame("tun0", ipv4.build(request), 0)
    ((name, data),) = stack.drain().frames
    reply = ipv4.parse(data)
    assert isinstance(reply, Packet)
    assert (name, reply.dst, icmp.parse(reply.payload)) == ("tun0", NETWORK + 9, icmp.Message(0, 0, 0x10001, b"data"))


@pytest.mark.parametrize(("tci", "refusal"), [(0xE000, None), (0x0064, Refusal.ADDRESS)])
def test_a_priority_tag_is_no_vlan(tci: int, refusal: Refusal | None) -> None:
    """A frame of VLAN 0 is for us, one of another VLAN is not."""
    interface = Interface("eth0", MAC, 1500, [], [])
    frame = ethernet.build(MAC, EVIL, ethernet.ARP, arp.announcement(EVIL, 7), tci)
    assert interface.receive(frame, 0) == (refusal or Refusal.ADDRESS)  # the announcer is not on the link
    interface.add(InterfaceAddress(1, Subnet(0, 24)))
    assert interface.receive(frame, 0) == refusal


def test_groups_are_counted() -> None:
    """A group is joined as often as it is left, shares its MAC address with others, and there are 256 at most."""
    interface = Interface("eth0", MAC, 1500, [], [])
    twin = GROUP | 0x00800000
    assert interface.join(GROUP)
    assert interface.join(GROUP)
    assert interface.join(twin)
    assert [interface.leave(GROUP) for _ in range(3)] == [True, True, False]
    assert (interface.has_joined(GROUP), interface.has_joined(twin)) == (False, True)
    frame = to_host_of_group(twin)
    assert not isinstance(interface.receive(frame, 0), Refusal)
    assert interface.leave(twin)
    assert interface.receive(frame, 0) is Refusal.ADDRESS
    assert sum(interface.join(0xE1000000 + n) for n in range(300)) == MAX_GROUPS
    assert not interface.join(LOOPBACK)


def to_host_of_group(group: int) -> bytes:
    """Return a frame to a multicast group."""
    mac = b"\x01\x00\x5e" + (group & 0x7FFFFF).to_bytes(3, "big")
    return ethernet.build(mac, EVIL, ethernet.IPV4, ipv4.build(Packet(NETWORK + 9, group, 17, b"")))


@pytest.mark.parametrize("mtu", [67, 65536])
def test_an_mtu_that_cannot_be(mtu: int) -> None:
    """An interface takes packets of 68 to 65535 bytes."""
    with pytest.raises(ValueError, match=str(mtu)):
        Internet(0).add_interface("eth0", MAC, mtu)


def test_two_links_to_one_subnet() -> None:
    """The first interface is used; when it goes, the other takes over."""
    internet = two_links().internet
    assert internet.add_address("eth1", NETWORK + 2, 24)
    assert internet.source_for(NETWORK + 9) == NETWORK + 1
    internet.remove_interface("eth0")
    assert internet.source_for(NETWORK + 9) == NETWORK + 2
