"""Uplinks as definitions: life, bounds, refusals, pages, a restart, and what they do to ports and networks."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.vswitch.v1 import networks_pb2, networks_pb2_grpc
from lamina.vswitch.v1 import uplinks_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2 as vs
from tests.integration.vswitch.refusals import refusal
from tests.integration.vswitch.uplink_bench import BROADCAST, SWITCH, UplinkBench, frame, mac

U1 = f"{SWITCH}/uplinks/u1"
BAD_FIELDS: tuple[dict[str, Any], ...] = (
    {"backend_port": False},
    {"nic": "hosts/h1/nics/n1"},
    {"link": 7},
    {"trunk": pb.VlanTrunk(native_vlan_id=4095)},
    {"trunk": pb.VlanTrunk(ranges=[pb.VlanRange(first_vlan_id=9, last_vlan_id=8)])},
    {"trunk": pb.VlanTrunk(ranges=[pb.VlanRange(first_vlan_id=-1, last_vlan_id=8)])},
    {"trunk": pb.VlanTrunk(ranges=[pb.VlanRange(first_vlan_id=1, last_vlan_id=1)] * 65)},
)


@pytest.fixture
async def bench(start: Any, device: Any) -> UplinkBench:
    """Returns a service with a switch."""
    return await UplinkBench(await start(), device).open()


async def test_an_uplink_lives(bench: UplinkBench) -> None:
    """It shows its defaults and its port, which is listed as every port; its state follows wire and link; both go."""
    made = await bench.create("u1")
    assert made == pb.Uplink(
        name=U1,
        backend_port=True,
        trunk=pb.VlanTrunk(),
        link=vs.LINK_UP,
        state=pb.Uplink.STATE_NO_CARRIER,
        port=f"{SWITCH}/ports/u1",
        mtu_bytes=1500,
        queue_pairs=1,
    )
    (port,) = (await bench.running.ports.ListPorts(vs.ListPortsRequest(parent=SWITCH))).ports
    assert (port.name, port.owner, port.state) == (made.port, "h1/vswitch", vs.Port.STATE_DETACHED)
    wire = await bench.plug("u1")
    assert await bench.state("u1") == "UP"
    assert (await bench.set_link("u1", False)).state == pb.Uplink.STATE_DOWN
    assert (await wire.next()).link.link == vs.LINK_DOWN
    assert (await bench.set_link("u1", True)).state == pb.Uplink.STATE_UP
    await bench.uplinks.DeleteUplink(pb.DeleteUplinkRequest(name=U1))
    assert await refusal(bench.uplinks.GetUplink(pb.GetUplinkRequest(name=U1))) == ("NOT_FOUND", "UPLINK_UNKNOWN")
    gone = bench.running.ports.GetPort(vs.GetPortRequest(name=made.port))
    assert await refusal(gone) == ("NOT_FOUND", "PORT_UNKNOWN")
    assert (await bench.create("u1")).state == pb.Uplink.STATE_NO_CARRIER


async def test_creating_is_idempotent_by_request(bench: UplinkBench) -> None:
    """The same request makes one uplink; its id with another request, and names that are taken, are refused."""
    assert await bench.create("u1", "one") == await bench.create("u1", "one")
    other = bench.create("u1", "one", link=vs.LINK_DOWN)
    assert await refusal(other) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert await refusal(bench.create("u1")) == ("ALREADY_EXISTS", "UPLINK_EXISTS")
    await bench.running.ports.CreatePort(vs.CreatePortRequest(parent=SWITCH, port_id="p"))
    assert await refusal(bench.create("p")) == ("ALREADY_EXISTS", "PORT_EXISTS")
    await bench.uplinks.DeleteUplink(pb.DeleteUplinkRequest(name=U1))
    assert (await bench.create("u1", "one", link=vs.LINK_DOWN)).state == pb.Uplink.STATE_DOWN


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=str)
async def test_bad_fields_are_refused(bench: UplinkBench, fields: dict[str, Any]) -> None:
    """Each bad field is named as such, and nothing is left of the uplink."""
    assert await refusal(bench.create("u1", **fields)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert not (await bench.running.ports.ListPorts(vs.ListPortsRequest(parent=SWITCH))).ports


async def test_names_and_limits(bench: UplinkBench) -> None:
    """Malformed names, unknown switches, the 33rd uplink, and a NIC, which no engine drives yet, are refused."""
    malformed = bench.uplinks.GetUplink(pb.GetUplinkRequest(name="hosts/h1/uplinks/u1"))
    assert await refusal(malformed) == ("INVALID_ARGUMENT", "NAME_MALFORMED")
    bad_nic = bench.create("n", nic="eth0", backend_port=False)
    assert await refusal(bad_nic) == ("INVALID_ARGUMENT", "NAME_MALFORMED")
    nic = bench.create("n", nic="hosts/h1/nics/n1", backend_port=False)
    assert await refusal(nic) == ("UNIMPLEMENTED", "ENGINE_LACKS_NICS")
    lost = pb.ListUplinksRequest(parent="hosts/h1/switches/none")
    assert await refusal(bench.uplinks.ListUplinks(lost)) == ("NOT_FOUND", "SWITCH_UNKNOWN")
    for number in range(32):
        await bench.create(f"u{number:02d}")
    assert await refusal(bench.create("more")) == ("RESOURCE_EXHAUSTED", "UPLINK_LIMIT")
    seen, token = [], ""
    while True:
        request = pb.ListUplinksRequest(parent=SWITCH, page_size=10, page_token=token)
        answer = await bench.uplinks.ListUplinks(request)
        seen += [each.name.rpartition("/")[2] for each in answer.uplinks]
        if not (token := answer.next_page_token):
            break
    assert seen == [f"u{number:02d}" for number in range(32)]


async def test_the_port_is_the_switchs_own(bench: UplinkBench) -> None:
    """Nobody deletes the port or puts it into a group; a switch with uplinks goes only by force."""
    await bench.create("u1")
    group = await bench.group("g", 5)
    name = f"{SWITCH}/ports/u1"
    deletion = bench.running.ports.DeletePort(vs.DeletePortRequest(name=name))
    assert await refusal(deletion) == ("FAILED_PRECONDITION", "PORT_INTERNAL")
    moved = vs.UpdatePortRequest(port=vs.Port(name=name, port_group=group))
    assert await refusal(bench.running.ports.UpdatePort(moved)) == ("FAILED_PRECONDITION", "PORT_INTERNAL")
    await bench.team(group, active_uplinks=["u1"])
    used = bench.uplinks.DeleteUplink(pb.DeleteUplinkRequest(name=U1))
    assert await refusal(used) == ("FAILED_PRECONDITION", "UPLINK_IN_USE")
    deletion = bench.running.switches.DeleteSwitch(vs.DeleteSwitchRequest(name=SWITCH))
    assert await refusal(deletion) == ("FAILED_PRECONDITION", "SWITCH_IN_USE")
    await bench.running.switches.DeleteSwitch(vs.DeleteSwitchRequest(name=SWITCH, force=True))
    await bench.open()
    assert not (await bench.uplinks.ListUplinks(pb.ListUplinksRequest(parent=SWITCH))).uplinks


async def test_what_a_trunk_leaves_is_forgotten(bench: UplinkBench) -> None:
    """An uplink that carries a VLAN no more forgets who was behind it there, and drops what comes in it."""
    group = await bench.group("g", 5)
    await bench.guest("p", group)
    await bench.uplink("u1")
    await bench.send("u1", frame(BROADCAST, mac(9), vlan=5), frame(BROADCAST, mac(8)))
    assert await bench.devices["p"].receive(1) == [frame(BROADCAST, mac(9))]
    macs = vs.ListMacEntriesRequest(parent=SWITCH)
    assert [each.vlan_id for each in (await bench.running.switches.ListMacEntries(macs)).mac_entries] == [0, 5]
    trunk = pb.VlanTrunk(ranges=[pb.VlanRange(first_vlan_id=6, last_vlan_id=4094)])
    wanted = pb.UpdateUplinkRequest(uplink=pb.Uplink(name=U1, trunk=trunk), update_mask=FieldMask(paths=["trunk"]))
    assert (await bench.uplinks.UpdateUplink(wanted)).trunk == trunk
    assert [each.vlan_id for each in (await bench.running.switches.ListMacEntries(macs)).mac_entries] == [0]
    await bench.send("u1", frame(BROADCAST, mac(9), vlan=5))
    assert (await bench.counters("u1"))[2]["VLAN_MISMATCH"] == 1
    wanted.update_mask.paths[:] = ["nic"]
    assert await refusal(bench.uplinks.UpdateUplink(wanted)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_uplinks_survive_a_restart(start: Any, device: Any) -> None:
    """Definitions, links, VLANs, teaming and the ports' handles are there again; frames flow when a wire is."""
    bench = await UplinkBench(await start(), device).open()
    group = await bench.group("g", 5)
    trunk = pb.VlanTrunk(ranges=[pb.VlanRange(first_vlan_id=5, last_vlan_id=5)], native_vlan_id=7, provider_tags=True)
    await bench.create("u1", "one", trunk=trunk)
    await bench.create("u2", link=vs.LINK_DOWN)
    policy = await bench.team(group, balancing=3, active_uplinks=["u1"], standby_uplinks=["u2"], announce=True)
    before = await bench.uplinks.ListUplinks(pb.ListUplinksRequest(parent=SWITCH))
    ports = await bench.running.ports.ListPorts(vs.ListPortsRequest(parent=SWITCH))
    await bench.running.stop()
    again = UplinkBench(await start(), device)
    assert await again.uplinks.ListUplinks(pb.ListUplinksRequest(parent=SWITCH)) == before
    assert await again.running.ports.ListPorts(vs.ListPortsRequest(parent=SWITCH)) == ports
    found = await again.uplinks.GetTeamingPolicy(pb.GetTeamingPolicyRequest(name=f"{group}/teamingPolicy"))
    assert found == policy
    assert await again.create("u1", "one", trunk=trunk) == before.uplinks[0]
    guest = await again.guest("p", group)
    await again.plug("u1")
    await again.send("u1", frame(BROADCAST, mac(9), vlan=5))
    assert len(await guest.receive(1)) == 1 and await again.used(group) == ["u1"]


async def test_networks_and_uplinks(bench: UplinkBench) -> None:
    """Bridge mode works once there is an uplink; a host-only VLAN is carried by none, whichever came first."""
    networks = networks_pb2_grpc.NetworksStub(bench.running.channel)
    await bench.group("g5", 5)

    async def create(name: str, mode: Any, vlan: int, **fields: Any) -> Any:
        network = networks_pb2.Network(mode=mode, switch=SWITCH, vlan_id=vlan, **fields)
        return await networks.CreateNetwork(networks_pb2.CreateNetworkRequest(network_id=name, network=network))

    bridge, alone = networks_pb2.Network.MODE_BRIDGE, networks_pb2.Network.MODE_HOST_ONLY
    assert await refusal(create("b", bridge, 0)) == ("FAILED_PRECONDITION", "NO_UPLINK")
    await create("only", alone, 5, subnet="10.5.0.0/24")
    assert await refusal(bench.create("u1")) == ("FAILED_PRECONDITION", "VLAN_HOST_ONLY")
    trunk = pb.VlanTrunk(ranges=[pb.VlanRange(first_vlan_id=6, last_vlan_id=4094)])
    await bench.create("u1", trunk=trunk)
    wider = pb.UpdateUplinkRequest(uplink=pb.Uplink(name=U1, trunk=pb.VlanTrunk(native_vlan_id=5)))
    assert await refusal(bench.uplinks.UpdateUplink(wider)) == ("FAILED_PRECONDITION", "VLAN_HOST_ONLY")
    assert (await create("b", bridge, 0)).port == ""
    again = create("only2", alone, 0, subnet="10.6.0.0/24")
    assert await refusal(again) == ("ALREADY_EXISTS", "VLAN_HAS_NETWORK")
    await bench.group("g6", 6)
    leaky = create("only2", alone, 6, subnet="10.6.0.0/24")
    assert await refusal(leaky) == ("FAILED_PRECONDITION", "VLAN_HAS_UPLINK")
    outside = networks_pb2.NatSettings(
        outside=networks_pb2.NatSettings.OUTSIDE_UPLINK, uplink=U1, outside_address="192.0.2.2/24"
    )
    nat = create("nat", networks_pb2.Network.MODE_NAT, 6, subnet="10.6.0.0/24", nat=outside)
    assert (await nat).nat.outside == networks_pb2.NatSettings.OUTSIDE_UPLINK
