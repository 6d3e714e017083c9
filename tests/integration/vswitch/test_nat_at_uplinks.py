"""NAT whose outside is an address at an uplink: both ways, forwards, hairpin, fragments, errors, life, a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import translations_pb2 as pb
from lamina.vswitch.v1 import uplinks_pb2
from lamina.vswitch.v1 import vswitch_pb2 as vs
from tests.integration.vswitch.conftest import Starter
from tests.integration.vswitch.outside_bench import FAR, NAT, OUTSIDE, PEER, U1, OutsideBench, address
from tests.integration.vswitch.refusals import refusal
from tests.virtual_time import clock_of_loop

from lamina_net.packets import icmp, ipv4, udp


@pytest.fixture(params=["local", "sockets"])
async def starter(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Starter]:
    """Returns what starts the service in the loop's time."""
    made = Starter(request.param, tmp_path, clock_of_loop())
    yield made
    for running in made.running:
        await running.stop()


@pytest.fixture
async def bench(starter: Starter, device: Any) -> AsyncIterator[OutsideBench]:
    """Returns two switches, the network, and a host outside that is its gateway too."""
    made = await OutsideBench(await starter(), device).open()
    wire = await made.wan.uplink("u1")
    await made.create()
    made.outside = made.host(wire)
    yield made
    made.stop()


async def test_tcp_both_ways(bench: OutsideBench) -> None:
    """A guest reaches a server outside, which sees the outside address alone; a forward lets a stranger in."""
    bench.outside.router_mac = await bench.outside.resolve_mac(OUTSIDE)
    guest, host = bench.tcp(await bench.guest(7)), bench.tcp(bench.outside)
    listener = host.listen(80)
    handle = await guest.connect(PEER, 80)
    served = await host.accept(listener)
    data = bytes(range(256)) * 100
    assert guest.tcp.send(handle, data, guest.clock.now_ns()) == len(data)
    guest.tcp.shutdown(handle, guest.clock.now_ns())
    await guest.until(lambda: True)
    assert await host.exchange(served, b"") == data
    assert host.peers == {OUTSIDE}
    (entry,) = await bench.entries()
    assert [end.rpartition(":")[0] for end in (entry.inside, entry.outside)] == ["10.0.2.7", "192.0.2.2"]
    made = await bench.forward(outside_port=8080)
    assert (made.outside_address, made.outside_port) == ("192.0.2.2", 8080)
    inside = guest.listen(80)
    back = await host.connect(OUTSIDE, 8080)
    assert guest.tcp.send(await guest.accept(inside), b"hello", guest.clock.now_ns()) == 5
    await guest.until(lambda: True)
    await host.until(lambda: host.readable(back))
    assert host.tcp.recv(back, 100, host.clock.now_ns()) == b"hello"


async def test_pings_and_errors(bench: OutsideBench) -> None:
    """Echoes go both ways; what cannot go on, on either side, comes back as an error about the guest's packet."""
    guest, host = await bench.guest(7), bench.outside

    def request(packet: ipv4.Packet) -> Any:
        return packet if packet.protocol == ipv4.ICMP else None

    guest.ping(FAR)
    asked = await host.packet(request)
    assert (asked.src, asked.dst, asked.ttl) == (OUTSIDE, FAR, 63)
    message = icmp.parse(asked.payload)
    assert isinstance(message, icmp.Message)
    host.router_mac = await host.resolve_mac(OUTSIDE)
    answer = icmp.build(icmp.echo_reply(message))
    host.send_packet(ipv4.Packet(FAR, OUTSIDE, ipv4.ICMP, answer))
    sender, found = await guest.icmp()
    assert (sender, found.type, found.rest) == (FAR, icmp.ECHO_REPLY, 7 << 16 | 1)
    quoted = ipv4.build(asked)
    host.send_packet(ipv4.Packet(PEER, OUTSIDE, ipv4.ICMP, icmp.build(icmp.error(3, 1, quoted))))
    sender, found = await guest.icmp()
    about = icmp.quoted(found)
    assert (sender, found.type, found.code) == (PEER, 3, 1)
    assert isinstance(about, ipv4.Packet)
    assert (about.src, about.dst) == (guest.address, FAR)
    host.ping(OUTSIDE)
    assert (await host.icmp())[1].type == icmp.ECHO_REPLY
    guest.ping(address("192.0.2.77"))  # nobody answers ARP for it
    sender, found = await guest.icmp()
    assert (sender, found.type, found.code) == (OUTSIDE, icmp.UNREACHABLE, icmp.HOST_UNREACHABLE)
    _, _, drops = await bench.wan.counters("nat.nat")
    assert drops == {"NEIGHBOR_UNREACHABLE": 1}


async def test_udp_hairpin_fragments_and_strangers(bench: OutsideBench) -> None:
    """A guest reaches another by the outside address; fragments are translated; a stranger is dropped and counted."""
    first, second, host = await bench.guest(7), await bench.guest(8), bench.outside
    made = await bench.forward(protocol=pb.PROTOCOL_UDP)
    assert made.outside_port == 32768

    def datagram(packet: ipv4.Packet) -> Any:
        found = udp.parse(packet.src, packet.dst, packet.payload) if packet.protocol == ipv4.UDP else None
        return (packet.src, found) if isinstance(found, udp.Datagram) else None

    def send(guest: Any, to: int, at: int, data: bytes, **fields: Any) -> None:
        body = udp.build(guest.address, to, udp.Datagram(5000, at, data))
        guest.send_packet(ipv4.Packet(guest.address, to, ipv4.UDP, body, **fields))

    send(second, OUTSIDE, 32768, b"hairpin")
    source, found = await first.packet(datagram)
    assert (source, found.destination_port, found.payload) == (OUTSIDE, 80, b"hairpin")
    body = udp.build(first.address, PEER, udp.Datagram(5001, 9, bytes(2000)))
    whole = ipv4.Packet(first.address, PEER, ipv4.UDP, body, identification=77)
    cut = ipv4.fragment(whole, 1500)
    assert isinstance(cut, list)
    for part in reversed(cut):
        first.send_packet(part)
    parts = [await host.packet(lambda packet: packet if packet.protocol == ipv4.UDP else None) for _ in range(2)]
    assert sorted(part.offset for part in parts) == [0, 1480]
    assert {part.src for part in parts} == {OUTSIDE}
    host.router_mac = await host.resolve_mac(OUTSIDE)
    send(host, OUTSIDE, 40_000, b"stranger")
    send(host, OUTSIDE, 32768, b"forwarded")
    source, found = await first.packet(datagram)
    assert (source, found.payload) == (PEER, b"forwarded")
    _, _, drops = await bench.wan.counters("nat.nat")
    assert drops == {"NAT_NO_ENTRY": 1}


async def test_nothing_of_the_inside_is_seen_outside(bench: OutsideBench) -> None:
    """Broadcasts and ARP of guests stay inside; a source that is nowhere inside is not translated."""
    guest, host = await bench.guest(7), bench.outside
    guest.send(b"\xff" * 6, 0x88B5, b"to all".ljust(46))
    body = udp.build(FAR, PEER, udp.Datagram(1, 2, b"x"))
    guest.send_packet(ipv4.Packet(FAR, PEER, ipv4.UDP, body))
    guest.ping(PEER)
    await host.packet(lambda packet: packet if packet.protocol == ipv4.ICMP else None)
    kinds = {data[:2] for data in host.seen}
    assert kinds == {b"\x00\x01", b"\x45\x00"}, "ARP of the outside address, and the ping"


async def test_what_cannot_be(bench: OutsideBench) -> None:
    """Addresses, gateways and VLANs that make no outside are named; the uplink is in use; names must be there."""
    await bench.networks.DeleteNetwork(nets.DeleteNetworkRequest(name=NAT))
    bad: tuple[dict[str, Any], ...] = (
        {"outside_address": "192.0.2.2"},
        {"outside_address": "192.0.2.0/24"},
        {"outside_address": "192.0.2.2/31"},
        {"outside_address": "10.0.2.77/16"},
        {"outside_gateway_address": "198.51.100.1"},
        {"outside_gateway_address": "192.0.2.2"},
    )
    for settings in bad:
        assert await refusal(bench.create(**settings)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    missing = bench.create(uplink="hosts/h1/switches/wan/uplinks/u9")
    assert await refusal(missing) == ("FAILED_PRECONDITION", "NO_UPLINK")
    await bench.lan.create("u")
    missing = bench.create(uplink="hosts/h1/switches/wan/uplinks/u9")
    assert await refusal(missing) == ("NOT_FOUND", "UPLINK_UNKNOWN")
    malformed = bench.create(uplink="u1")
    assert await refusal(malformed) == ("INVALID_ARGUMENT", "NAME_MALFORMED")
    same = bench.create(uplink=f"{bench.lan.switch}/uplinks/u")
    assert await refusal(same) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    await bench.create()
    used = bench.wan.uplinks.DeleteUplink(uplinks_pb2.DeleteUplinkRequest(name=U1))
    assert await refusal(used) == ("FAILED_PRECONDITION", "UPLINK_IN_USE")
    foreign = bench.forward(outside_address="192.0.2.3")
    assert await refusal(foreign) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    await bench.forward(outside_port=8080)
    again = bench.translations.CreatePortForward(
        pb.CreatePortForwardRequest(
            parent=NAT,
            port_forward_id="two",
            port_forward=pb.PortForward(
                protocol=pb.PROTOCOL_TCP, outside_port=8080, inside_address="10.0.2.8", inside_port=81
            ),
        )
    )
    assert await refusal(again) == ("FAILED_PRECONDITION", "OUTSIDE_PORT_TAKEN")


async def test_a_restart_and_an_end(starter: Starter, bench: OutsideBench, device: Any) -> None:
    """The outside has its port, address, MAC address and forwards again after a start, and goes with its network."""
    bench.outside.router_mac = before = await bench.outside.resolve_mac(OUTSIDE)
    await bench.forward(outside_port=8080)
    await starter.running[-1].stop()
    again = OutsideBench(await starter(), device)
    host = again.host(await again.wan.plug("u1"))
    assert await host.resolve_mac(OUTSIDE) == before
    (forward,) = (await again.translations.ListPortForwards(pb.ListPortForwardsRequest(parent=NAT))).port_forwards
    assert (forward.outside_address, forward.outside_port) == ("192.0.2.2", 8080)
    await again.networks.DeleteNetwork(nets.DeleteNetworkRequest(name=NAT))
    ports = (await again.wan.running.ports.ListPorts(vs.ListPortsRequest(parent=again.wan.switch))).ports
    assert [each.name.rpartition("/")[2] for each in ports] == ["u1"]
    await again.wan.uplinks.DeleteUplink(uplinks_pb2.DeleteUplinkRequest(name=U1))


async def test_both_sides_stay_apart(bench: OutsideBench) -> None:
    """An uplink does not get the VLAN of a network untagged that has its outside there."""
    await bench.networks.DeleteNetwork(nets.DeleteNetworkRequest(name=NAT))
    await bench.lan.group("five", vlan=5)
    made = await bench.lan.create("u")
    await bench.create(vlan_id=5, uplink=made.name)
    wanted = uplinks_pb2.Uplink(name=made.name, trunk=uplinks_pb2.VlanTrunk(native_vlan_id=5))
    changed = bench.lan.uplinks.UpdateUplink(uplinks_pb2.UpdateUplinkRequest(uplink=wanted))
    assert await refusal(changed) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_an_uplink_that_goes_with_its_switch(bench: OutsideBench) -> None:
    """A network whose uplink is gone has no way out; with the uplink it has one again, and its forwards."""
    made = await bench.forward(protocol=pb.PROTOCOL_UDP)
    guest = await bench.guest(7)
    guest.ping(PEER)
    await bench.outside.packet(lambda packet: packet if packet.protocol == ipv4.ICMP else None)
    assert len(await bench.entries()) == 1
    running = bench.wan.running
    await running.switches.DeleteSwitch(vs.DeleteSwitchRequest(name=bench.wan.switch, force=True))
    assert await bench.entries() == []
    guest.ping(PEER)
    sender, found = await guest.icmp()
    assert (sender, found.type, found.code) == (address("10.0.2.1"), icmp.UNREACHABLE, icmp.NET_UNREACHABLE)
    await bench.wan.open()
    host = bench.host(await bench.wan.uplink("u1"))
    guest.ping(PEER)
    asked = await host.packet(lambda packet: packet if packet.protocol == ipv4.ICMP else None)
    assert (asked.src, len(await bench.entries())) == (OUTSIDE, 1)
    host.router_mac = await host.resolve_mac(OUTSIDE)
    body = udp.build(host.address, OUTSIDE, udp.Datagram(5000, made.outside_port, b"again"))
    host.send_packet(ipv4.Packet(host.address, OUTSIDE, ipv4.UDP, body))
    assert (await guest.packet(lambda packet: packet if packet.protocol == ipv4.UDP else None)).src == PEER


async def test_a_ping_with_one_hop_left_is_answered(bench: OutsideBench) -> None:
    """A packet to the outside address itself need not go further, so its time to live is enough."""
    host = bench.outside
    host.router_mac = await host.resolve_mac(OUTSIDE)
    message = icmp.build(icmp.Message(icmp.ECHO_REQUEST, 0, 7 << 16 | 1, b"x"))
    host.send_packet(ipv4.Packet(PEER, OUTSIDE, ipv4.ICMP, message, ttl=1))
    assert (await host.icmp())[1].type == icmp.ECHO_REPLY
