"""Overlays over the wire: two hosts' worth of switches on one host, whose uplinks a test joins by a wire."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.common.v1 import layer_pb2
from lamina.vswitch.v1 import networks_pb2, networks_pb2_grpc, uplinks_pb2, uplinks_pb2_grpc
from lamina.vswitch.v1 import overlays_pb2 as pb
from lamina.vswitch.v1 import overlays_pb2_grpc as rpc
from lamina.vswitch.v1 import vswitch_pb2 as vs
from tests.integration.vswitch.refusals import refusal
from tests.integration.vswitch.uplink_bench import BROADCAST, frame, mac

from lamina_vswitch.domain.overlay.tunnel import Tunnel

HOST = "hosts/h1/switches"
A = f"{HOST}/lan-a/overlays/o"


class OverlayBench:
    """Switches `lan-a` and `lan-b` for guests, `wan-a` and `wan-b` with an uplink `u` each for tunnels."""

    def __init__(self, running: Any, device: Any) -> None:
        self.running, self._device = running, device
        self.overlays = rpc.OverlaysStub(running.channel)
        self.uplinks = uplinks_pb2_grpc.UplinksStub(running.channel)
        self.wires: list[asyncio.Task[None]] = []

    async def open(self) -> OverlayBench:
        """Make the switches and the uplinks."""
        for side in "ab":
            for name, mtu in ((f"lan-{side}", 1500), (f"wan-{side}", 1600)):
                wanted = vs.CreateSwitchRequest(switch_id=name, switch=vs.Switch(mtu_bytes=mtu))
                await self.running.switches.CreateSwitch(wanted)
            uplink = uplinks_pb2.Uplink(backend_port=True)
            parent = f"{HOST}/wan-{side}"
            await self.uplinks.CreateUplink(
                uplinks_pb2.CreateUplinkRequest(parent=parent, uplink_id="u", uplink=uplink)
            )
        return self

    async def create(self, side: str = "a", name: str = "o", request_id: str = "", **fields: Any) -> pb.Overlay:
        """Create an overlay."""
        local = {"a": "192.0.2.1/24", "b": "192.0.2.2/24"}[side]
        wanted = {"vni": 7, "uplink": f"{HOST}/wan-{side}/uplinks/u", "local_address": local, **fields}
        parent = wanted.pop("parent", f"{HOST}/lan-{side}")
        request = pb.CreateOverlayRequest(
            parent=parent, overlay_id=name, overlay=pb.Overlay(**wanted), request_id=request_id
        )
        made: pb.Overlay = await self.overlays.CreateOverlay(request)
        return made

    async def tell(self, overlay: str, address: str, *macs: str) -> pb.RemoteEndpoint:
        """Tell an overlay of a remote end."""
        wanted = pb.RemoteEndpoint(address=address, mac_addresses=macs)
        request = pb.CreateRemoteEndpointRequest(parent=overlay, remote_endpoint=wanted)
        made: pb.RemoteEndpoint = await self.overlays.CreateRemoteEndpoint(request)
        return made

    async def ends(self, overlay: str = A) -> list[pb.RemoteEndpoint]:
        """Return the remote ends of an overlay."""
        found = await self.overlays.ListRemoteEndpoints(pb.ListRemoteEndpointsRequest(parent=overlay))
        return list(found.remote_endpoints)

    async def plug(self, switch: str, port: str) -> Any:
        """Attach a device to a port."""
        found = await self.running.ports.GetPort(vs.GetPortRequest(name=f"{HOST}/{switch}/ports/{port}"))
        return await self._device(self.running.ports, found.handle).plug_in()

    async def guest(self, side: str, name: str) -> Any:
        """Make a port on a switch for guests and plug a device in."""
        await self.running.ports.CreatePort(vs.CreatePortRequest(parent=f"{HOST}/lan-{side}", port_id=name))
        return await self.plug(f"lan-{side}", name)

    async def join(self) -> None:
        """Join the two uplinks by a wire."""
        left, right = await self.plug("wan-a", "u"), await self.plug("wan-b", "u")
        for here, there in ((left, right), (right, left)):
            self.wires.append(asyncio.get_running_loop().create_task(self._carry(here, there)))

    @staticmethod
    async def _carry(here: Any, there: Any) -> None:
        while isinstance(response := await here.call.read(), vs.AttachResponse):
            if response.frames.frames:
                there.send(list(response.frames.frames))

    async def drops(self, switch: str, port: str) -> dict[str, int]:
        """Return the drops of a port by reason."""
        request = vs.GetPortCountersRequest(port=f"{HOST}/{switch}/ports/{port}")
        found = await self.running.ports.GetPortCounters(request)
        return {vs.DropReason.Name(each.reason).removeprefix("DROP_REASON_"): each.frames for each in found.drops}


@pytest.fixture
async def bench(start: Any, device: Any) -> Any:
    """Yields a service with the switches, without overlays."""
    made = await OverlayBench(await start(), device).open()
    yield made
    for wire in made.wires:
        wire.cancel()
    await asyncio.gather(*made.wires, return_exceptions=True)


async def test_a_vlan_spans_hosts(bench: OverlayBench) -> None:
    """Broadcast, answer and known unicast cross the tunnel whole; both ends learn who is where; counters count."""
    await bench.create("a")
    other = (await bench.create("b")).name
    await bench.tell(A, "192.0.2.2")
    await bench.tell(other, "192.0.2.1")
    alice, bob = await bench.guest("a", "alice"), await bench.guest("b", "bob")
    await bench.join()
    hello, answer = frame(BROADCAST, mac(1), "hello"), frame(mac(1), mac(2), "answer")
    longest = mac(2) + mac(1) + b"\x88\xb5" + bytes(1500)
    alice.send([hello])
    assert await bob.receive(1) == [hello]
    bob.send([answer])
    assert await alice.receive(1) == [answer]
    alice.send([longest])
    assert await bob.receive(1) == [longest]
    (end,) = await bench.ends()
    assert (end.address, end.configured, end.sent_packets, end.received_packets) == ("192.0.2.2", True, 2, 1)
    found = await bench.overlays.ListRemoteMacs(pb.ListRemoteMacsRequest(parent=A))
    assert [(each.mac_address, each.endpoint_address) for each in found.remote_macs] == [
        ("02:00:00:00:00:02", "192.0.2.2")
    ]


async def test_a_stranger_is_refused_until_it_is_accepted(bench: OverlayBench) -> None:
    """An end that was not told is counted at the overlay's port; accepted, it is learned and gets the next flood."""
    await bench.create("a")
    other = (await bench.create("b")).name
    await bench.tell(A, "192.0.2.2")
    alice, bob = await bench.guest("a", "alice"), await bench.guest("b", "bob")
    await bench.join()
    alice.send([frame(BROADCAST, mac(1), "one")])
    async with asyncio.timeout(10):
        while not await bench.drops("lan-b", "overlay.o"):
            await bench.ends()
    assert await bench.drops("lan-b", "overlay.o") == {"TUNNEL_PEER_UNKNOWN": 1}
    changed = pb.Overlay(name=other, accept_unknown_endpoints=True)
    await bench.overlays.UpdateOverlay(pb.UpdateOverlayRequest(overlay=changed))
    two, three = frame(BROADCAST, mac(1), "two"), frame(BROADCAST, mac(2), "three")
    alice.send([two])
    assert await bob.receive(1) == [two]
    (end,) = await bench.ends(other)
    assert (end.address, end.configured) == ("192.0.2.1", False)
    bob.send([three])
    assert await alice.receive(1) == [three]


async def test_an_overlay_lives(bench: OverlayBench) -> None:
    """Defaults are filled in; its ports are there and not for others to delete; all go with it; the name is free."""
    made = await bench.create()
    assert made == pb.Overlay(
        name=A,
        vni=7,
        uplink=f"{HOST}/wan-a/uplinks/u",
        local_address="192.0.2.1/24",
        udp_port=4789,
        port=f"{HOST}/lan-a/ports/overlay.o",
        mtu_bytes=1500,
    )
    assert await bench.overlays.GetOverlay(pb.GetOverlayRequest(name=A)) == made
    delete = vs.DeletePortRequest(name=made.port)
    assert (await refusal(bench.running.ports.DeletePort(delete)))[0] == "FAILED_PRECONDITION"
    gone = uplinks_pb2.DeleteUplinkRequest(name=made.uplink)
    assert await refusal(bench.uplinks.DeleteUplink(gone)) == ("FAILED_PRECONDITION", "UPLINK_IN_USE")
    await bench.overlays.DeleteOverlay(pb.DeleteOverlayRequest(name=A))
    for switch, left in (("lan-a", []), ("wan-a", [f"{HOST}/wan-a/ports/u"])):
        ports = await bench.running.ports.ListPorts(vs.ListPortsRequest(parent=f"{HOST}/{switch}"))
        assert [port.name for port in ports.ports] == left
    again = bench.overlays.GetOverlay(pb.GetOverlayRequest(name=A))
    assert await refusal(again) == ("NOT_FOUND", "OVERLAY_UNKNOWN")
    assert await bench.create() == made
    await bench.uplinks.GetUplink(uplinks_pb2.GetUplinkRequest(name=made.uplink))


async def test_what_two_overlays_may_not_share(bench: OverlayBench) -> None:
    """Name, VLAN, VNI at one address, a VLAN that an uplink carries, an uplink too narrow, unknown things: refused."""
    made = await bench.create(request_id="r1")
    assert await bench.create(request_id="r1") == made
    assert await refusal(bench.create(request_id="r1", vni=8)) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert await refusal(bench.create()) == ("ALREADY_EXISTS", "OVERLAY_EXISTS")
    assert await refusal(bench.create(name="p", vni=8)) == ("ALREADY_EXISTS", "VLAN_HAS_OVERLAY")
    assert await refusal(bench.create(name="p", vlan_id=5)) == ("ALREADY_EXISTS", "VNI_TAKEN")
    wide = bench.create(name="p", vni=8, parent=f"{HOST}/wan-b", vlan_id=5)
    assert await refusal(wide) == ("FAILED_PRECONDITION", "VLAN_HAS_UPLINK")
    await bench.running.switches.CreateSwitch(
        vs.CreateSwitchRequest(switch_id="jumbo", switch=vs.Switch(mtu_bytes=1551))
    )
    narrow = bench.create(name="p", vni=8, parent=f"{HOST}/jumbo")
    assert await refusal(narrow) == ("FAILED_PRECONDITION", "MTU_UNSUPPORTED")
    nowhere = bench.create(name="p", parent=f"{HOST}/nope")
    assert await refusal(nowhere) == ("NOT_FOUND", "SWITCH_UNKNOWN")
    unlinked = bench.create(name="p", vlan_id=5, uplink=f"{HOST}/wan-a/uplinks/v")
    assert await refusal(unlinked) == ("NOT_FOUND", "UPLINK_UNKNOWN")
    await bench.create(name="p", vlan_id=5, vni=8)
    await bench.create(name="q", vlan_id=6, udp_port=8472)
    found = await bench.overlays.ListOverlays(pb.ListOverlaysRequest(parent=f"{HOST}/lan-a", page_size=2))
    assert [each.name.rpartition("/")[2] for each in found.overlays] == ["o", "p"]
    rest = pb.ListOverlaysRequest(parent=f"{HOST}/lan-a", page_token=found.next_page_token)
    assert [each.udp_port for each in (await bench.overlays.ListOverlays(rest)).overlays] == [8472]


async def test_an_overlay_is_the_only_way_out_of_its_vlan(bench: OverlayBench) -> None:
    """An uplink that would carry it too is refused, new or changed; so is a host-only network, whoever comes first."""
    await bench.create()
    await bench.create(name="five", vlan_id=5, vni=5)
    parent, refused = f"{HOST}/lan-a", ("FAILED_PRECONDITION", "VLAN_HAS_OVERLAY")
    six = uplinks_pb2.VlanTrunk(ranges=[uplinks_pb2.VlanRange(first_vlan_id=6, last_vlan_id=7)], native_vlan_id=6)

    def uplink(trunk: uplinks_pb2.VlanTrunk | None = None) -> Any:
        wanted = uplinks_pb2.Uplink(backend_port=True, trunk=trunk)
        request = uplinks_pb2.CreateUplinkRequest(parent=parent, uplink_id="u", uplink=wanted)
        return bench.uplinks.CreateUplink(request)

    assert await refusal(uplink()) == refused
    made = await uplink(six)
    wider = uplinks_pb2.Uplink(name=made.name, trunk=uplinks_pb2.VlanTrunk(native_vlan_id=5))
    assert await refusal(bench.uplinks.UpdateUplink(uplinks_pb2.UpdateUplinkRequest(uplink=wider))) == refused
    networks = networks_pb2_grpc.NetworksStub(bench.running.channel)
    for vlan in (5, 8):
        group = vs.PortGroup(vlan_id=vlan)
        request = vs.CreatePortGroupRequest(parent=parent, port_group_id=f"g{vlan}", port_group=group)
        await bench.running.switches.CreatePortGroup(request)
    alone = networks_pb2.Network(
        mode=networks_pb2.Network.MODE_HOST_ONLY, switch=parent, vlan_id=5, subnet="10.5.0.0/24"
    )
    only = networks_pb2.CreateNetworkRequest(network_id="only", network=alone)
    assert await refusal(networks.CreateNetwork(only)) == refused
    only.network.vlan_id = 8
    await networks.CreateNetwork(only)
    leaky = bench.create(name="eight", vlan_id=8, vni=8)
    assert await refusal(leaky) == ("FAILED_PRECONDITION", "VLAN_HOST_ONLY")


@pytest.mark.parametrize(
    "fields",
    [
        {"vni": 0},
        {"vni": 1 << 24},
        {"vlan_id": 4095},
        {"udp_port": 65536},
        {"local_address": "192.0.2.1"},
        {"local_address": "192.0.2.0/24"},
        {"local_address": "224.0.0.1/24"},
        {"local_address": "192.0.2.1/31"},
        {"gateway_address": "192.0.3.1"},
        {"gateway_address": "192.0.2.1"},
        {"name": "No"},
        {"request_id": "r" * 64},
    ],
)
async def test_bad_fields_are_refused(bench: OverlayBench, fields: dict[str, Any]) -> None:
    """Each bound of the contract is checked before anything is made."""
    assert await refusal(bench.create(**fields)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert not (await bench.overlays.ListOverlays(pb.ListOverlaysRequest(parent=f"{HOST}/lan-a"))).overlays


async def test_remote_ends_are_told_and_forgotten(bench: OverlayBench) -> None:
    """Addresses replace those told before and move between ends; bad ones are refused; forgotten ones are gone."""
    await bench.create()
    await bench.tell(A, "192.0.2.9", "02:00:00:00:00:01", "02:00:00:00:00:02")
    await bench.tell(A, "192.0.2.10", "02:00:00:00:00:02")
    ends = await bench.ends()
    assert [(end.address, list(end.mac_addresses), end.age_ns) for end in ends] == [
        ("192.0.2.9", ["02:00:00:00:00:01"], -1),
        ("192.0.2.10", ["02:00:00:00:00:02"], -1),
    ]
    assert ends[1].name == f"{A}/remoteEndpoints/192-0-2-10"
    first = await bench.overlays.ListRemoteMacs(pb.ListRemoteMacsRequest(parent=A, page_size=1))
    assert [each.configured for each in first.remote_macs] == [True]
    assert first.next_page_token
    for address, macs in (("192.0.2.1", ()), ("x", ()), ("224.0.0.1", ()), ("192.0.2.9", ("01:00:00:00:00:00",))):
        assert (await refusal(bench.tell(A, address, *macs)))[0] == "INVALID_ARGUMENT"
    request = pb.DeleteRemoteEndpointRequest(name=ends[0].name)
    await bench.overlays.DeleteRemoteEndpoint(request)
    gone = ("NOT_FOUND", "REMOTE_ENDPOINT_UNKNOWN")
    assert await refusal(bench.overlays.DeleteRemoteEndpoint(request)) == gone
    bad = pb.DeleteRemoteEndpointRequest(name=f"{A}/remoteEndpoints/nine")
    assert await refusal(bench.overlays.DeleteRemoteEndpoint(bad)) == ("INVALID_ARGUMENT", "NAME_MALFORMED")
    mask = pb.UpdateOverlayRequest(overlay=pb.Overlay(name=A), update_mask=FieldMask(paths=["vni"]))
    assert (await refusal(bench.overlays.UpdateOverlay(mask)))[0] == "INVALID_ARGUMENT"


async def test_definitions_outlive_the_service(start: Any, device: Any) -> None:
    """After a restart the overlay, its remote ends and its port are as they were, and frames cross."""
    running = await start()
    first = await OverlayBench(running, device).open()
    made = await first.create("a", gateway_address="192.0.2.254", no_learning=True)
    other = await first.create("b", accept_unknown_endpoints=True)
    told = await first.tell(A, "192.0.2.2", "02:00:00:00:00:02")
    await running.stop()
    bench = OverlayBench(await start(), device)
    assert await bench.overlays.GetOverlay(pb.GetOverlayRequest(name=A)) == pb.Overlay(
        **{field.name: value for field, value in made.ListFields()}, remote_endpoint_count=1
    )
    assert await bench.ends() == [told]
    assert (await bench.overlays.GetOverlay(pb.GetOverlayRequest(name=other.name))).accept_unknown_endpoints
    alice, bob = await bench.guest("a", "alice"), await bench.guest("b", "bob")
    await bench.join()
    hello = frame(BROADCAST, mac(1), "hello")
    alice.send([hello])
    assert await bob.receive(1) == [hello]
    for wire in bench.wires:
        wire.cancel()


async def test_an_overlay_goes_with_either_switch(bench: OverlayBench) -> None:
    """A switch that is deleted by force takes its overlays along, and an uplink's switch those of its tunnels."""
    await bench.create("a")
    await bench.create("b")
    await bench.running.switches.DeleteSwitch(vs.DeleteSwitchRequest(name=f"{HOST}/lan-b", force=True))
    ports = await bench.running.ports.ListPorts(vs.ListPortsRequest(parent=f"{HOST}/wan-b"))
    assert [port.name for port in ports.ports] == [f"{HOST}/wan-b/ports/u"]
    await bench.running.switches.DeleteSwitch(vs.DeleteSwitchRequest(name=f"{HOST}/wan-a", force=True))
    with pytest.raises(grpc.aio.AioRpcError):
        await bench.overlays.GetOverlay(pb.GetOverlayRequest(name=A))
    ports = await bench.running.ports.ListPorts(vs.ListPortsRequest(parent=f"{HOST}/lan-a"))
    assert not ports.ports


async def test_a_defect_in_an_overlay_is_an_event(bench: OverlayBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that meets a defect at an end, or in a tunnel, is told as other defects are."""
    await bench.create()
    guest, uplink = await bench.guest("a", "guest"), await bench.plug("wan-a", "u")
    for met, method, sender in ((1, "send", guest), (2, "receive", uplink)):
        monkeypatch.setattr(Tunnel, method, lambda *of: [1 // 0])
        sender.send([frame(BROADCAST, mac(met), "worst")])
        told: list[str] = []
        async with asyncio.timeout(30):
            while len(told) < met:
                found = await bench.running.layer.ListEvents(layer_pb2.ListEventsRequest(object="hosts/h1"))
                told = [each.event for each in found.events]
        assert told == ["switching.defect"] * met
