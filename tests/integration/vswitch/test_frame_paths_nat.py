"""The way of a frame through translation: entries that are there are followed, those to come are named."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.vswitch.v1 import captures_pb2 as pb
from lamina.vswitch.v1 import captures_pb2_grpc as rpc
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import translations_pb2, vswitch_pb2
from tests.integration.vswitch.guest import Guest
from tests.integration.vswitch.network_bench import SWITCH
from tests.integration.vswitch.test_virtual_servers import VIP, Bench, at, datagram, send, server

from lamina_net.packets import ethernet, ipv4, udp

pytestmark = pytest.mark.parametrize("start", ["local"], indirect=True)


@pytest.fixture
async def bench(start: Any, device: Any) -> Bench:
    """Returns a service with a host-only network."""
    return await Bench(await start(), device).begin()


async def path(bench: Bench, guest: Guest, to: int, sport: int, dport: int, **fields: Any) -> list[pb.FrameHop]:
    """Trace a datagram of a guest through its router."""
    body = udp.build(guest.address, to, udp.Datagram(sport, dport, b"question"))
    packet = ipv4.build(ipv4.Packet(guest.address, to, ipv4.UDP, body, **fields))
    frame = ethernet.build(guest.router_mac, guest.mac, ethernet.IPV4, packet)
    request = pb.TraceFramePathRequest(port=f"{SWITCH}/ports/p{guest.mac[-1]}", frame=frame)
    return list((await rpc.CapturesStub(bench.running.channel).TraceFramePath(request)).hops)


def rules(hop: pb.FrameHop) -> list[str]:
    """Returns the rules of a hop."""
    return [step.rule for step in hop.decision.steps]


async def entries(bench: Bench) -> Any:
    """Returns the translation table."""
    request = translations_pb2.ListNatEntriesRequest(parent="hosts/h1/networks/lan")
    return await bench.translations.ListNatEntries(request)


async def test_a_flow_to_a_virtual_server_is_named_before_and_followed_after(bench: Bench) -> None:
    """Before, the backends are named and nothing is made; after, the frame goes to the backend, and the answer back."""
    client, backend = await bench.guest(1), await bench.guest(2)
    await client.get_address()
    await backend.get_address()
    await bench.set(server("10.0.2.3", "10.0.2.77"))
    hop = (await path(bench, client, at(VIP), 4000, 53))[-1]
    assert hop.decision.verdict == vswitch_pb2.TraceFrameResponse.VERDICT_CONSUMED
    assert rules(hop) == ["router.time_to_live", "nat.new_entry"]
    assert "10.0.2.3:5353 (weight 1), 10.0.2.77:5353 (weight 1)" in hop.decision.steps[-1].detail
    assert not (await entries(bench)).nat_entries
    await bench.set(server("10.0.2.3"))
    send(client, at(VIP), 4000, 53, b"question")
    arrived, _ = await datagram(backend)
    before = await entries(bench)
    hops = await path(bench, client, at(VIP), 4000, 53, identification=arrived.identification)
    assert rules(hops[1])[1:3] == ["nat.entry", "nat.rewritten"]
    assert list(hops[2].decision.output_ports) == [f"{SWITCH}/ports/p2"]
    told = ethernet.parse(hops[2].decision.output_frame)
    assert isinstance(told, ethernet.Frame) and ipv4.parse(told.payload) == arrived
    answers = await path(bench, backend, arrived.src, 5353, int.from_bytes(arrived.payload[:2], "big"))
    assert answers[-1].decision.output_ports[0].endswith("p1") and "nat.rewritten" in rules(answers[1])
    assert await entries(bench) == before


async def test_what_translation_refuses_is_told(bench: Bench) -> None:
    """No backend, a protocol that is not translated, and a port of the router without a flow each have their rule."""
    client = await bench.guest(1)
    await client.get_address()
    await bench.set(server())
    hop = (await path(bench, client, at(VIP), 4000, 53))[-1]
    assert hop.decision.drop_reason == vswitch_pb2.DROP_REASON_NO_BACKEND and rules(hop)[-1] == "nat.drop_no_backend"
    hop = (await path(bench, client, at(VIP), 4000, 53, more=True))[-1]
    assert rules(hop)[-1] == "nat.fragment"
    hop = (await path(bench, client, client.router, 4000, 9))[-1]
    assert rules(hop) == ["router.unreachable"]


async def test_the_way_to_the_outside_ends_in_a_socket_that_is_named(bench: Bench) -> None:
    """A NAT network names the socket that a new flow would get, and what it may not reach, and makes neither."""
    group = await bench.group("out", 7)
    nat = nets.NatSettings(allowed_destinations=["192.0.2.0/24"])
    await bench.create("out", mode=nets.Network.MODE_NAT, vlan_id=7, subnet="10.9.0.0/24", nat=nat)
    guest = await bench.guest(3, group=group)
    await guest.get_address()
    hop = (await path(bench, guest, at("192.0.2.9"), 4000, 53))[-1]
    assert rules(hop)[-1] == "nat.new_entry" and hop.decision.steps[-1].detail.endswith("192.0.2.9:53")
    hop = (await path(bench, guest, at("198.51.100.1"), 4000, 53))[-1]
    assert hop.decision.drop_reason == vswitch_pb2.DROP_REASON_NAT_DESTINATION_FORBIDDEN
    request = translations_pb2.ListNatEntriesRequest(parent="hosts/h1/networks/out")
    assert not (await bench.translations.ListNatEntries(request)).nat_entries
