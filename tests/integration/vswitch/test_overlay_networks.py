"""Networks in the VLANs of overlays: what guests are told to send, and what routers tell who sends more."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import overlays_pb2, overlays_pb2_grpc, policies_pb2, policies_pb2_grpc, uplinks_pb2
from lamina.vswitch.v1 import uplinks_pb2_grpc as uplinks_rpc
from lamina.vswitch.v1 import vswitch_pb2 as vs
from tests.integration.vswitch.network_bench import LAN, SWITCH, NetworkBench

from lamina_net.packets import icmp
from lamina_vswitch.domain.network.dhcp.message import Option

WAN = "hosts/h1/switches/wan"
FAR = "hosts/h1/networks/far"
NAT = nets.Network.MODE_NAT

pytestmark = pytest.mark.parametrize("start", ["local"], indirect=True)


@pytest.fixture
async def bench(start: Any, device: Any) -> NetworkBench:
    """Returns networks `lan` and `far` with routes to each other; `lan` is in the VLAN of an overlay."""
    bench = await NetworkBench(await start(), device).open()
    channel = bench.running.channel
    wanted = vs.CreateSwitchRequest(switch_id="wan", switch=vs.Switch(mtu_bytes=1600))
    await bench.running.switches.CreateSwitch(wanted)
    uplink = uplinks_pb2.CreateUplinkRequest(parent=WAN, uplink_id="u", uplink=uplinks_pb2.Uplink(backend_port=True))
    await uplinks_rpc.UplinksStub(channel).CreateUplink(uplink)
    overlay = overlays_pb2.Overlay(vni=7, uplink=f"{WAN}/uplinks/u", local_address="192.0.2.1/24")
    create = overlays_pb2.CreateOverlayRequest(parent=SWITCH, overlay_id="o", overlay=overlay)
    await overlays_pb2_grpc.OverlaysStub(channel).CreateOverlay(create)
    await bench.group("far", 7)
    await bench.create(mode=NAT)
    route = nets.Route(destination="10.0.2.0/24", network=LAN)
    await bench.create("far", mode=NAT, vlan_id=7, subnet="10.9.0.0/24", routes=[route])
    back = nets.Network(name=LAN, routes=[nets.Route(destination="10.9.0.0/24", network=FAR)])
    update = nets.UpdateNetworkRequest(network=back, update_mask=FieldMask(paths=["routes"]))
    await bench.networks.UpdateNetwork(update)
    return bench


async def set_mtu(bench: NetworkBench, mtu_bytes: int) -> None:
    """Change the MTU of the uplink's switch."""
    settings = policies_pb2.SwitchSettings(name=f"{WAN}/settings", mtu_bytes=mtu_bytes)
    stub = policies_pb2_grpc.PoliciesStub(bench.running.channel)
    await stub.UpdateSwitchSettings(policies_pb2.UpdateSwitchSettingsRequest(settings=settings))


async def test_guests_are_told_what_fits_through_the_overlay(bench: NetworkBench) -> None:
    """DHCP, the network and the router's ICMP error name the same MTU: the switch's, or what tunnels leave of less."""
    near, far = await bench.guest(1), await bench.guest(2, group=f"{SWITCH}/portGroups/far")
    await far.get_address()
    for below, expected in ((1600, 1500), (1500, 1450)):
        await set_mtu(bench, below)
        told = await near.get_address()
        assert int.from_bytes(told.options[Option.INTERFACE_MTU], "big") == expected
        for name, mtu_bytes in ((LAN, expected), (FAR, 1500)):
            found = await bench.networks.GetNetwork(nets.GetNetworkRequest(name=name))
            assert found.mtu_bytes == mtu_bytes
    far.ping(near.address, data=bytes(1472), dont_fragment=True)
    sender, message = await far.icmp()
    assert (sender, message.type, message.code) == (near.router, icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED)
    assert message.rest == 1450
    far.ping(near.address, data=bytes(1472))
    parts = [await near.packet(lambda packet: packet if packet.protocol == 1 else None) for _ in range(2)]
    assert [len(part.payload) for part in parts] == [1424, 1480 - 1424]
