"""Policies through the service: masks, defaults, what is durable, shut ports, groups that move."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.common.v1 import layer_pb2
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import networks_pb2_grpc, policies_pb2_grpc, uplinks_pb2
from lamina.vswitch.v1 import policies_pb2 as pol
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.refusals import refusal

from lamina_vswitch.domain.policy.loops import LoopWatch
from lamina_vswitch.domain.switch.topology import ShutReason

SWITCH = "hosts/h1/switches/s1"
SETTINGS = f"{SWITCH}/settings"
GROUP = f"{SWITCH}/portGroups/web"
POLICY = f"{GROUP}/policy"
PORT = f"{SWITCH}/ports/p1"
PORT_POLICY = f"{PORT}/policy"
SECOND_NS = 1_000_000_000
ALL = b"\xff" * 6
A = bytes([2, 0, 0, 0, 0, 10])


def stub(running: Any) -> Any:
    """Return the stub of the service."""
    return policies_pb2_grpc.PoliciesStub(running.channel)


async def make(running: Any, vlan: int = 0) -> Any:
    """Make a switch with a group and two ports in it; return the stub of the policies."""
    await running.switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="s1"))
    group = pb.PortGroup(vlan_id=vlan)
    await running.switches.CreatePortGroup(
        pb.CreatePortGroupRequest(parent=SWITCH, port_group_id="web", port_group=group)
    )
    for name in ("p1", "p2"):
        port = pb.Port(port_group=GROUP)
        await running.ports.CreatePort(pb.CreatePortRequest(parent=SWITCH, port_id=name, port=port))
    return stub(running)


async def set_group(policies: Any, paths: list[str] | None = None, **parts: Any) -> Any:
    """Change the policy of the group."""
    wanted = pol.PortGroupPolicy(name=POLICY, **parts)
    mask = FieldMask(paths=paths) if paths is not None else None
    return await policies.UpdatePortGroupPolicy(pol.UpdatePortGroupPolicyRequest(policy=wanted, update_mask=mask))


async def set_port(policies: Any, paths: list[str] | None = None, **parts: Any) -> Any:
    """Change the policy of the port."""
    wanted = pol.PortPolicy(name=PORT_POLICY, **parts)
    mask = FieldMask(paths=paths) if paths is not None else None
    return await policies.UpdatePortPolicy(pol.UpdatePortPolicyRequest(policy=wanted, update_mask=mask))


async def set_switch(policies: Any, paths: list[str] | None = None, **parts: Any) -> Any:
    """Change the settings of the switch."""
    wanted = pol.SwitchSettings(name=SETTINGS, **parts)
    mask = FieldMask(paths=paths) if paths is not None else None
    return await policies.UpdateSwitchSettings(pol.UpdateSwitchSettingsRequest(settings=wanted, update_mask=mask))


async def test_settings_change_by_mask(start: Any) -> None:
    """Fields that are set change without a mask; with one, an absent loop detection is off; MTU and limits hold."""
    running = await start()
    policies = await make(running)
    found = await set_switch(policies, mtu_bytes=9000, loop_detection=pol.LoopDetection())
    assert found == pol.SwitchSettings(
        name=SETTINGS,
        mtu_bytes=9000,
        mac_ageing_seconds=300,
        mac_table_limit=8192,
        loop_detection=pol.LoopDetection(probe_interval_ns=SECOND_NS),
    )
    found = await set_switch(policies, ["loop_detection", "mac_table_limit"], mac_table_limit=1, mtu_bytes=600)
    assert (found.HasField("loop_detection"), found.mtu_bytes, found.mac_table_limit) == (False, 9000, 1)
    switch = await running.switches.GetSwitch(pb.GetSwitchRequest(name=SWITCH))
    assert (switch.mtu_bytes, switch.mac_table_limit) == (9000, 1)
    assert await policies.GetSwitchSettings(pol.GetSwitchSettingsRequest(name=SETTINGS)) == found
    for mac in (1, 2):
        entry = pb.MacEntry(mac_address=f"02:00:00:00:00:{mac:02x}", port=PORT)
        await set_switch(policies, mac_table_limit=2)
        await running.switches.CreateMacEntry(pb.CreateMacEntryRequest(parent=SWITCH, mac_entry=entry))
    full = set_switch(policies, mac_table_limit=1)
    assert await refusal(full) == ("FAILED_PRECONDITION", "MAC_TABLE_FULL")
    again = await start()
    assert await stub(again).GetSwitchSettings(pol.GetSwitchSettingsRequest(name=SETTINGS)) == pol.SwitchSettings(
        name=SETTINGS, mtu_bytes=9000, mac_ageing_seconds=300, mac_table_limit=2
    )


@pytest.mark.parametrize(
    ("change", "parts", "paths"),
    [
        (set_switch, {"mtu_bytes": 575}, None),
        (set_switch, {}, ["mac_table_limit"]),
        (set_switch, {}, ["name"]),
        (set_switch, {"mac_ageing_seconds": 2**40}, None),
        (set_switch, {"loop_detection": pol.LoopDetection(probe_interval_ns=1)}, None),
        (set_switch, {"loop_detection": pol.LoopDetection(reopen_after_ns=-1)}, None),
        (set_group, {"security": pol.SecurityPolicy(mac_limit=-1)}, None),
        (set_group, {"security": pol.SecurityPolicy()}, ["security.mac_limit"]),
        (set_group, {"storm_control": pol.StormControl(multicast_frames_per_second=10_000_001)}, None),
        (set_group, {"ingress_shaping": pol.Shaping()}, None),
        (set_group, {"ingress_shaping": pol.Shaping(average_bits_per_second=10**6, peak_bits_per_second=10)}, None),
        (set_group, {"egress_shaping": pol.Shaping(average_bits_per_second=10**6, burst_bytes=9017)}, None),
        (set_group, {"trunk": uplinks_pb2.VlanTrunk(native_vlan_id=4095)}, None),
        (set_group, {"trunk": uplinks_pb2.VlanTrunk(ranges=[uplinks_pb2.VlanRange()] * 65)}, None),
        (set_group, {"trunk": uplinks_pb2.VlanTrunk(ranges=[uplinks_pb2.VlanRange(first_vlan_id=9)])}, None),
        (set_port, {"mac_address": "ff:ff:ff:ff:ff:ff"}, None),
        (set_port, {"mac_address": "nonsense"}, None),
        (set_port, {}, ["effective"]),
    ],
)
async def test_values_out_of_range_change_nothing(start: Any, change: Any, parts: Any, paths: Any) -> None:
    """Bounds and masks are checked before anything happens."""
    policies = await make(await start())
    before = await policies.GetPortPolicy(pol.GetPortPolicyRequest(name=PORT_POLICY))
    assert await refusal(change(policies, paths, **parts)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert await policies.GetPortPolicy(pol.GetPortPolicyRequest(name=PORT_POLICY)) == before


async def test_names_are_looked_up(start: Any) -> None:
    """Unknown things and malformed names have their own reasons."""
    policies = await make(await start())
    for call, name, reason in (
        (policies.GetSwitchSettings, "hosts/h1/switches/s2/settings", "SWITCH_UNKNOWN"),
        (policies.GetPortGroupPolicy, f"{SWITCH}/portGroups/db/policy", "PORT_GROUP_UNKNOWN"),
        (policies.GetPortPolicy, f"{SWITCH}/ports/p9/policy", "PORT_UNKNOWN"),
        (policies.GetPortPolicy, PORT, "NAME_MALFORMED"),
        (policies.GetSwitchSettings, SWITCH, "NAME_MALFORMED"),
    ):
        kind = {
            policies.GetSwitchSettings: pol.GetSwitchSettingsRequest,
            policies.GetPortGroupPolicy: pol.GetPortGroupPolicyRequest,
            policies.GetPortPolicy: pol.GetPortPolicyRequest,
        }[call]
        assert (await refusal(call(kind(name=name))))[1] == reason
    gone = policies.ReopenPort(pol.ReopenPortRequest(port=f"{SWITCH}/ports/p9"))
    assert await refusal(gone) == ("NOT_FOUND", "PORT_UNKNOWN")


async def test_a_port_follows_its_group_but_for_its_own_parts(start: Any) -> None:
    """`effective` shows what holds; a part that is cleared follows the group again; all of it outlives a restart."""
    running = await start()
    policies = await make(running)
    own = pol.SecurityPolicy(mac_limit=3)
    await set_group(policies, storm_control=pol.StormControl(broadcast_frames_per_second=5), isolated=True)
    await set_group(policies, security=pol.SecurityPolicy(dhcp_guard=True))
    found = await set_port(policies, security=own, mac_address="02:00:00:00:00:0A")
    assert (found.mac_address, found.security) == ("02:00:00:00:00:0a", own)
    assert found.effective == pol.PortGroupPolicy(
        name=POLICY, security=own, storm_control=pol.StormControl(broadcast_frames_per_second=5), isolated=True
    )
    again = stub(await start())
    assert await again.GetPortPolicy(pol.GetPortPolicyRequest(name=PORT_POLICY)) == found
    found = await set_port(again, ["security", "mac_address"])
    assert (found.HasField("security"), found.mac_address) == (False, "")
    assert found.effective.security == pol.SecurityPolicy(dhcp_guard=True)
    found = await set_group(again, ["storm_control", "security", "isolated"])
    assert found == pol.PortGroupPolicy(name=POLICY)
    move = pb.UpdatePortRequest(port=pb.Port(name=PORT), update_mask=FieldMask(paths=["port_group"]))
    await running.ports.UpdatePort(move)
    assert (await stub(running).GetPortPolicy(pol.GetPortPolicyRequest(name=PORT_POLICY))).effective.name == ""


async def test_a_policy_goes_with_what_it_belongs_to(start: Any) -> None:
    """A port, a group and a switch that are made again under their names have the defaults."""
    running = await start()
    policies = await make(running)
    await set_port(policies, security=pol.SecurityPolicy(promiscuous=True))
    await set_group(policies, trunk=uplinks_pb2.VlanTrunk(native_vlan_id=9))
    await set_switch(policies, loop_detection=pol.LoopDetection())
    assert (await running.ports.GetPort(pb.GetPortRequest(name=PORT))).vlan_id == 9
    await running.switches.DeleteSwitch(pb.DeleteSwitchRequest(name=SWITCH, force=True))
    policies = await make(await start())
    found = await policies.GetPortPolicy(pol.GetPortPolicyRequest(name=PORT_POLICY))
    assert found.effective == pol.PortGroupPolicy(name=POLICY, security=pol.SecurityPolicy())
    settings = await policies.GetSwitchSettings(pol.GetSwitchSettingsRequest(name=SETTINGS))
    assert not settings.HasField("loop_detection")


async def test_a_group_moves_with_its_static_entries(start: Any) -> None:
    """They come into the new VLAN, also for the next start; a trunk has no VLAN to give, and a group with one none."""
    running = await start()
    policies = await make(running, 5)
    entry = pb.MacEntry(mac_address="02:00:00:00:00:0a", port=PORT)
    await running.switches.CreateMacEntry(pb.CreateMacEntryRequest(parent=SWITCH, mac_entry=entry))

    def to(vlan: int, *paths: str) -> Any:
        group, mask = pb.PortGroup(name=GROUP, vlan_id=vlan), FieldMask(paths=paths)
        return running.switches.UpdatePortGroup(pb.UpdatePortGroupRequest(port_group=group, update_mask=mask))

    assert (await to(7)).vlan_id == 7
    assert (await running.ports.GetPort(pb.GetPortRequest(name=PORT))).vlan_id == 7
    for each in (running, await start()):
        found = (await each.switches.ListMacEntries(pb.ListMacEntriesRequest(parent=SWITCH))).mac_entries
        assert [one.name.rpartition("/")[2] for one in found] == ["v7-02000000000a"]
    trunk = set_group(policies, trunk=uplinks_pb2.VlanTrunk())
    assert await refusal(trunk) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert await refusal(to(4095)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert await refusal(to(1, "port_count")) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    other = pb.CreatePortRequest(parent=SWITCH, port_id="p3")
    await running.ports.CreatePort(other)
    entry = pb.MacEntry(mac_address="02:00:00:00:00:0a", port=f"{SWITCH}/ports/p3")
    await running.switches.CreateMacEntry(pb.CreateMacEntryRequest(parent=SWITCH, mac_entry=entry))
    assert await refusal(to(0, "vlan_id")) == ("ALREADY_EXISTS", "MAC_ENTRY_EXISTS")
    await running.switches.DeleteMacEntry(pb.DeleteMacEntryRequest(name=f"{SWITCH}/macEntries/v0-02000000000a"))
    assert (await to(0, "vlan_id")).vlan_id == 0
    await set_group(policies, trunk=uplinks_pb2.VlanTrunk(native_vlan_id=3))
    assert await refusal(to(1)) == ("FAILED_PRECONDITION", "PORT_GROUP_TRUNKED")
    assert (await to(0)).vlan_id == 0


async def test_a_port_is_shut_and_opened_again(start: Any, device: Any) -> None:
    """The state says so, the policy says why, the event log by which rule; opening is idempotent."""
    running = await start()
    policies = await make(running)
    await set_port(policies, security=pol.SecurityPolicy(mac_limit=1, shut_at_mac_limit=True))
    port = await running.ports.GetPort(pb.GetPortRequest(name=PORT))
    plugged = await device(running.ports, port.handle, completions=True).plug_in()
    plugged.send([ALL + A + b"\x08\x00", ALL + A[:5] + b"\x0b\x08\x00"])
    while not (await plugged.next()).HasField("completion"):
        pass
    assert (await running.ports.GetPort(pb.GetPortRequest(name=PORT))).state == pb.Port.STATE_SHUT
    found = await policies.GetPortPolicy(pol.GetPortPolicyRequest(name=PORT_POLICY))
    assert found.shut_reason == pol.SHUT_REASON_MAC_LIMIT
    told = await running.layer.Explain(layer_pb2.ExplainRequest(object=PORT))
    assert any(entry.event == "port.shut" and entry.rule == "shut.mac_limit" for entry in told.decisions)
    opened = await policies.ReopenPort(pol.ReopenPortRequest(port=PORT))
    assert opened.previous_reason == pol.SHUT_REASON_MAC_LIMIT
    assert (await running.ports.GetPort(pb.GetPortRequest(name=PORT))).state == pb.Port.STATE_UP
    assert (await policies.ReopenPort(pol.ReopenPortRequest(port=PORT))).previous_reason == 0
    plugged.finish()


def test_reasons_have_the_numbers_of_the_contract() -> None:
    """Domain and contract number the reasons for which ports are shut alike."""
    named = {f"SHUT_REASON_{reason.name}": reason.value for reason in ShutReason}
    assert {**named, "SHUT_REASON_UNSPECIFIED": 0} == dict(pol.ShutReason.items())


async def test_shaped_frames_arrive_when_the_clock_says(start: Any, device: Any, manual_clock: Any) -> None:
    """The service wakes at the time that the engine named, and at no other."""
    running = await start()
    policies = await make(running)
    slow = pol.Shaping(average_bits_per_second=8_000, burst_bytes=9018)
    await set_port(policies, egress_shaping=slow)
    ports = [await running.ports.GetPort(pb.GetPortRequest(name=f"{SWITCH}/ports/{name}")) for name in ("p1", "p2")]
    receiver = await device(running.ports, ports[0].handle).plug_in()
    sender = await device(running.ports, ports[1].handle, completions=True).plug_in()
    frames = [(ALL + A + b"\x08\x00").ljust(9018 // 6, bytes([number])) for number in range(8)]
    sender.send(frames)
    while not (await sender.next()).HasField("completion"):
        pass
    assert await receiver.receive(6) == frames[:6]
    counters = pb.GetPortCountersRequest(port=PORT)
    assert (await running.ports.GetPortCounters(counters)).sent_frames == 6
    await manual_clock.advance(1503 * 1_000_000)
    assert await receiver.receive(1) == frames[6:7]
    await manual_clock.advance(1503 * 1_000_000)
    assert await receiver.receive(1) == frames[7:]
    for each in (receiver, sender):
        each.finish()


async def test_loops_are_found_by_the_clock(start: Any, device: Any, manual_clock: Any) -> None:
    """A device that hands probes on from one port to the other loses the higher one, and gets it back after a while."""
    running = await start()
    policies = await make(running)
    ports = [await running.ports.GetPort(pb.GetPortRequest(name=f"{SWITCH}/ports/{name}")) for name in ("p1", "p2")]
    low, high = [await device(running.ports, port.handle, completions=True).plug_in() for port in ports]
    loop = pol.LoopDetection(probe_interval_ns=SECOND_NS, reopen_after_ns=10 * SECOND_NS)
    await set_switch(policies, loop_detection=loop)
    (probe,) = await low.receive(1)
    high.send([probe])
    while not (await high.next()).HasField("completion"):
        pass
    name = f"{SWITCH}/ports/p2/policy"
    found = await policies.GetPortPolicy(pol.GetPortPolicyRequest(name=name))
    assert (found.shut_reason, found.loop_peer) == (pol.SHUT_REASON_LOOP, PORT)
    counters = await running.ports.GetPortCounters(pb.GetPortCountersRequest(port=ports[1].name))
    assert [(drop.reason, drop.frames) for drop in counters.drops] == [(pb.DROP_REASON_LOOP_PROBE, 1)]
    await manual_clock.advance(10 * SECOND_NS)
    assert (await running.ports.GetPort(pb.GetPortRequest(name=ports[1].name))).state == pb.Port.STATE_UP
    for each in (low, high):
        each.finish()


async def test_a_defect_is_told_and_the_switches_go_on(
    start: Any, device: Any, manual_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round of probes that fails is an event of the host and counted; the next round comes."""
    running = await start()
    policies = await make(running)
    port = await running.ports.GetPort(pb.GetPortRequest(name=PORT))
    plugged = await device(running.ports, port.handle).plug_in()
    with monkeypatch.context() as broken:
        broken.setattr(LoopWatch, "probes", lambda watch, slots: slots[99])
        await set_switch(policies, loop_detection=pol.LoopDetection(probe_interval_ns=SECOND_NS))
        await manual_clock.advance(1)
    told = await running.layer.Explain(layer_pb2.ExplainRequest(object="hosts/h1"))
    assert [decision.event for decision in told.decisions] == ["switching.defect"]
    (family,) = [family for family in running.state.metrics.families() if family.name == "lamina_vswitch_defects_total"]
    assert [sample.value for sample in family.samples] == [1]
    await manual_clock.advance(SECOND_NS)
    assert len(await plugged.receive(1)) == 1
    plugged.finish()


async def test_the_source_guard_asks_the_networks(start: Any, device: Any) -> None:
    """A port sends from the address that a network gave it, and from no other."""
    running = await start()
    policies = await make(running)
    networks = networks_pb2_grpc.NetworksStub(running.channel)
    lan = nets.Network(mode=nets.Network.MODE_HOST_ONLY, switch=SWITCH, subnet="10.0.2.0/24")
    made = await networks.CreateNetwork(nets.CreateNetworkRequest(network_id="lan", network=lan))
    await set_port(policies, security=pol.SecurityPolicy(source_guard=True))
    port = await running.ports.GetPort(pb.GetPortRequest(name=PORT))
    plugged = await device(running.ports, port.handle).plug_in()

    async def traced(last: int) -> Any:
        packet = bytes.fromhex("0806000108000604000102000000000a0a0002") + bytes([last]) + bytes(6) + b"\x0a\0\x02\x01"
        return await running.ports.TraceFrame(pb.TraceFrameRequest(port=PORT, frame=ALL + A + packet))

    assert (await traced(2)).drop_reason == pb.DROP_REASON_SOURCE_GUARD
    given = nets.AllocateAddressRequest(parent=made.name, port=PORT, address="10.0.2.2")
    await networks.AllocateAddress(given)
    assert (await traced(2)).verdict == pb.TraceFrameResponse.VERDICT_FLOODED
    assert "10.0.2.3" in (await traced(3)).steps[-2].detail
    plugged.finish()
