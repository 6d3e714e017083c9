"""Teaming policies through the service, and two switches that are joined by two links with several VLANs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.vswitch.v1 import networks_pb2, networks_pb2_grpc
from lamina.vswitch.v1 import uplinks_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2 as vs
from tests.integration.vswitch.refusals import refusal
from tests.integration.vswitch.uplink_bench import BROADCAST, SWITCH, UplinkBench, frame, mac

GROUP = f"{SWITCH}/portGroups/g"
FAILOVER = pb.TeamingPolicy.BALANCING_FAILOVER


@pytest.fixture
async def bench(start: Any, device: Any) -> UplinkBench:
    """Returns a service with a switch that has the group g in VLAN 5 and uplinks u1 and u2 without wires."""
    made = await UplinkBench(await start(), device).open()
    await made.group("g", 5)
    for name in ("u1", "u2"):
        await made.create(name)
    return made


async def test_a_policy_has_defaults_and_masks(bench: UplinkBench) -> None:
    """What was never told is the default; a mask changes what it names, and without one what is set changes."""
    found = await bench.uplinks.GetTeamingPolicy(pb.GetTeamingPolicyRequest(name=f"{GROUP}/teamingPolicy"))
    assert found == pb.TeamingPolicy(name=f"{GROUP}/teamingPolicy", balancing=pb.TeamingPolicy.BALANCING_PORT)
    assert await bench.used(GROUP) == []
    await bench.plug("u2")
    await bench.plug("u1")
    assert await bench.used(GROUP) == ["u1", "u2"]
    made = await bench.team(GROUP, balancing=FAILOVER, active_uplinks=["u2"], standby_uplinks=["u1"], announce=True)
    assert (made.balancing, made.announce, made.no_failback) == (FAILOVER, True, False)
    assert made.used_uplinks == made.active_uplinks == [f"{SWITCH}/uplinks/u2"]
    assert await bench.team(GROUP, no_failback=True) == pb.TeamingPolicy(
        name=made.name,
        balancing=FAILOVER,
        active_uplinks=made.active_uplinks,
        standby_uplinks=made.standby_uplinks,
        no_failback=True,
        announce=True,
        used_uplinks=made.used_uplinks,
    )
    empty = pb.UpdateTeamingPolicyRequest(
        teaming_policy=pb.TeamingPolicy(name=made.name),
        update_mask=FieldMask(paths=["balancing", "active_uplinks", "standby_uplinks", "no_failback", "announce"]),
    )
    cleared = await bench.uplinks.UpdateTeamingPolicy(empty)
    assert (cleared.balancing, list(cleared.active_uplinks)) == (pb.TeamingPolicy.BALANCING_PORT, [])
    assert await bench.used(GROUP) == ["u1", "u2"]


async def test_a_group_that_is_made_again_has_the_default(bench: UplinkBench) -> None:
    """Nothing is left of the teaming of a group that is gone."""
    for name in ("u1", "u2"):
        await bench.plug(name)
    await bench.team(GROUP, balancing=FAILOVER, active_uplinks=["u2"])
    assert await bench.used(GROUP) == ["u2"]
    await bench.running.switches.DeletePortGroup(vs.DeletePortGroupRequest(name=GROUP))
    await bench.group("g", 5)
    assert await bench.used(GROUP) == ["u1", "u2"]


@pytest.mark.real_time("the router translates to sockets of the machine")
async def test_a_router_leaves_as_the_groups_of_its_vlan_do(bench: UplinkBench) -> None:
    """It takes the way of the first group of its VLAN that has a policy, until that group or its policy goes."""
    for name in ("u1", "u2"):
        await bench.plug(name)
    network = networks_pb2.Network(mode=networks_pb2.Network.MODE_NAT, switch=SWITCH, vlan_id=5, subnet="10.5.0.0/24")
    networks = networks_pb2_grpc.NetworksStub(bench.running.channel)
    await networks.CreateNetwork(networks_pb2.CreateNetworkRequest(network_id="n", network=network))

    async def way() -> list[str]:
        request = vs.TraceFrameRequest(port=f"{SWITCH}/ports/router.n", frame=frame(BROADCAST, mac(1)))
        steps = (await bench.running.ports.TraceFrame(request)).steps
        return [step.rule for step in steps if step.stage == "teaming"]

    assert await way() == ["teaming.port"]
    await bench.team(GROUP, balancing=FAILOVER, active_uplinks=["u2"])
    await bench.group("a", 5)
    assert await way() == ["teaming.failover"]
    moved = vs.UpdatePortGroupRequest(port_group=vs.PortGroup(name=GROUP, vlan_id=6))
    await bench.running.switches.UpdatePortGroup(moved)
    assert await way() == ["teaming.port"]


async def test_bad_policies_are_refused(bench: UplinkBench) -> None:
    """An unknown group or uplink, one named twice or of another switch, and a mask of another field."""
    lost = pb.GetTeamingPolicyRequest(name=f"{SWITCH}/portGroups/none/teamingPolicy")
    assert await refusal(bench.uplinks.GetTeamingPolicy(lost)) == ("NOT_FOUND", "PORT_GROUP_UNKNOWN")
    assert await refusal(bench.team(GROUP, active_uplinks=["u9"])) == ("NOT_FOUND", "UPLINK_UNKNOWN")
    invalid = ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert await refusal(bench.team(GROUP, active_uplinks=["u1", "u1"])) == invalid
    assert await refusal(bench.team(GROUP, active_uplinks=["u1"], standby_uplinks=["u1"])) == invalid
    assert await refusal(bench.team(GROUP, balancing=9)) == invalid
    foreign = pb.TeamingPolicy(name=f"{GROUP}/teamingPolicy", active_uplinks=["hosts/h1/switches/s2/uplinks/u1"])
    request = pb.UpdateTeamingPolicyRequest(teaming_policy=foreign)
    assert await refusal(bench.uplinks.UpdateTeamingPolicy(request)) == invalid
    request.update_mask.paths.append("used_uplinks")
    assert await refusal(bench.uplinks.UpdateTeamingPolicy(request)) == invalid


async def test_a_standby_link_takes_over(bench: UplinkBench) -> None:
    """The guest's frames leave by the active link; when its wire goes they leave, announced, by the other one."""
    await bench.guest("p", GROUP)
    first, second = await bench.plug("u1"), await bench.plug("u2")
    await bench.team(GROUP, balancing=FAILOVER, active_uplinks=["u1"], standby_uplinks=["u2"], announce=True)
    await bench.send("p", frame(BROADCAST, mac(1)))
    assert await first.receive(1) == [frame(BROADCAST, mac(1), vlan=5)]
    await bench.send("u2", frame(BROADCAST, mac(9), vlan=5))
    assert (await bench.counters("u2"))[2] == {"TEAMING_STANDBY": 1}
    first.finish()
    assert not isinstance(await first.call.read(), vs.AttachResponse), "the stream ends, and with it the carrier"
    assert await bench.state("u1") == "NO_CARRIER"
    (told,) = await second.receive(1)
    assert (told[6:18], await bench.used(GROUP)) == (mac(1) + b"\x81\0\0\x05\x80\x35", ["u2"])
    await bench.send("u2", frame(BROADCAST, mac(9), vlan=5))
    assert await bench.devices["p"].receive(1) == [frame(BROADCAST, mac(9))]


class Cable:
    """Carries frames between two devices until it ends."""

    def __init__(self, one: Any, other: Any) -> None:
        self._tasks = [asyncio.create_task(self._carry(*ends)) for ends in ((one, other), (other, one))]

    async def _carry(self, source: Any, target: Any) -> None:
        while True:
            response = await source.call.read()
            if not isinstance(response, vs.AttachResponse):
                return
            if response.frames.frames:
                target.send(list(response.frames.frames))

    async def end(self) -> None:
        """Carry nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_two_switches_with_two_links(start: Any, device: Any) -> None:
    """Guests in VLANs 0, 5 and behind a trunk talk over two bundled links between switches; each frame comes once."""
    running = await start()
    sides = []
    for switch in ("s1", "s2"):
        side = await UplinkBench(running, device, switch).open()
        group, trunk = await side.group("g", 5), await side.group("t", trunk=pb.VlanTrunk(native_vlan_id=7))
        plain = await side.group("plain")
        for name, member in (("a", plain), ("b", plain), ("c", group), ("d", group), ("t", trunk)):
            await side.guest(name, member)
        for name in ("u1", "u2"):
            await side.uplink(name)
        for member in (plain, group, trunk):
            await side.team(member, balancing=pb.TeamingPolicy.BALANCING_FLOW)
        sides.append(side)
    left, right = sides
    cables = [Cable(left.devices[name], right.devices[name]) for name in ("u1", "u2")]
    try:
        left.devices["c"].send([frame(BROADCAST, mac(3), "five")])
        for name in ("c", "d"):
            assert await right.devices[name].receive(1) == [frame(BROADCAST, mac(3), "five")]
        assert await right.devices["t"].receive(1) == [frame(BROADCAST, mac(3), "five", vlan=5)]
        right.devices["t"].send([frame(mac(3), mac(4), "answer", vlan=5), frame(BROADCAST, mac(4), "seven")])
        assert await left.devices["c"].receive(1) == [frame(mac(3), mac(4), "answer")]
        found = await left.devices["t"].receive(2)
        assert found == [frame(BROADCAST, mac(3), "five", vlan=5), frame(BROADCAST, mac(4), "seven")]
        for name in ("a", "b"):
            left.devices[name].send([frame(BROADCAST, mac(5), name)])
            assert await right.devices["a"].receive(1) == [frame(BROADCAST, mac(5), name)]
        drops = [(await side.counters(name))[2] for side in sides for name in ("u1", "u2")]
        assert drops == [{}, {}, {}, {}], "nothing was carried twice or came back"
    finally:
        for cable in cables:
            await cable.end()
