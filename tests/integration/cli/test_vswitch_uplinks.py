"""Uplinks from the command line: made, listed, shared by a port group, deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc

from lamina_kit.rpc.channel import connect


@pytest.fixture
def outward(up: Any) -> Iterator[Any]:
    """Returns the command with a switch `outward`; in the end nothing of it is left."""
    up.run("vswitch", "create-switch", "outward")
    yield up
    target = json.loads((up.home / "default" / "stack.json").read_text())["targets"]["vswitch"]
    asyncio.run(_delete(target))


async def _delete(target: str) -> None:
    channel = connect(target)
    stub = rpc.SwitchesStub(channel)
    found = (await stub.ListSwitches(pb.ListSwitchesRequest())).switches
    (name,) = (each.name for each in found if each.name.endswith("/outward"))
    await stub.DeleteSwitch(pb.DeleteSwitchRequest(name=name, force=True))
    await channel.close()


def test_uplinks_are_made_shared_and_deleted(outward: Any) -> None:
    """Tables and JSON of what the words do; a policy that is changed shows."""
    (made,) = json.loads(outward.run("vswitch", "uplink", "outward", "u1", "--native-vlan", "7", "-o", "json").stdout)
    assert made["name"].endswith("/switches/outward/uplinks/u1")
    for name in ("u2", "u3"):
        outward.run("vswitch", "uplink", "outward", name)
    deleted = outward.run("vswitch", "delete-uplink", "outward/u3").stdout
    assert deleted.startswith("deleted ") and deleted.endswith("/uplinks/u3\n")
    header, *rows = outward.run("vswitch", "uplinks", "outward").stdout.splitlines()
    assert header.split() == ["UPLINK", "STATE", "WIRE", "VLANS", "NATIVE"]
    assert [row.split() for row in rows] == [
        ["u1", "no-carrier", "port", "all", "7"],
        ["u2", "no-carrier", "port", "all", "0"],
    ]
    outward.run("vswitch", "create-group", "outward", "g")
    change = ("--balancing", "failover", "--active", "u2", "--standby", "u1")
    shown = outward.run("vswitch", "teaming", "outward/g", *change).stdout
    assert outward.run("vswitch", "teaming", "outward/g").stdout == shown
    header, row = shown.splitlines()
    assert header.split() == ["GROUP", "BALANCING", "ACTIVE", "STANDBY", "USED"]
    assert row.split() == ["g", "failover", "u2", "u1", "-"]


def test_an_uplink_of_a_nic_and_a_team_that_stays(outward: Any) -> None:
    """A NIC is named by its last part, VLANs by ranges; announcing and staying are switched on and off."""
    words = ("vswitch", "uplink", "outward", "n", "--nic", "nic0", "--vlans", "5", "10-20", "-o", "json")
    (made,) = json.loads(outward.run(*words).stdout)
    assert made["nic"].endswith("/nics/nic0")
    assert [(each["first_vlan_id"], each["last_vlan_id"]) for each in made["trunk"]["ranges"]] == [(5, 5), (10, 20)]
    row = outward.run("vswitch", "uplinks", "outward").stdout.splitlines()[1]
    assert row.split() == ["n", "no-carrier", "nic0", "5,10-20", "0"]
    outward.run("vswitch", "create-group", "outward", "g")
    on = ("--announce", "--no-failback", "-o", "json")
    (policy,) = json.loads(outward.run("vswitch", "teaming", "outward/g", *on).stdout)
    assert (policy["announce"], policy["no_failback"]) == (True, True)
    (policy,) = json.loads(outward.run("vswitch", "teaming", "outward/g", "--no-announce", "-o", "json").stdout)
    assert (policy.get("announce", False), policy["no_failback"]) == (False, True)
    outward.run("vswitch", "delete-uplink", "outward/n")


def test_a_nat_network_has_its_outside_at_an_uplink(outward: Any) -> None:
    """The uplink is named as SWITCH/UPLINK, with the address and the gateway there."""
    outward.run("vswitch", "uplink", "outward", "u1")
    outward.run("vswitch", "create-group", "outward", "behind", "--vlan", "5")
    words = ("vswitch", "create-network", "outward", "behind", "10.78.0.0/24", "--vlan", "5", "--uplink", "outward/u1")
    where = ("--outside", "192.0.2.2/24", "--outside-gateway", "192.0.2.1", "-o", "json")
    made = json.loads(outward.run(*words, *where).stdout)
    nat = made["nat"]
    assert nat["outside"] == "OUTSIDE_UPLINK"
    assert nat["uplink"].endswith("/switches/outward/uplinks/u1")
    assert (nat["outside_address"], nat["outside_gateway_address"]) == ("192.0.2.2/24", "192.0.2.1")
    assert "UPLINK_IN_USE" in outward.run("vswitch", "delete-uplink", "outward/u1", expect=1).stderr
    outward.run("vswitch", "delete-network", "behind")
    kernel = ("vswitch", "create-network", "outward", "behind", "10.78.0.0/24", "--vlan", "5", "--kernel")
    assert "OUTSIDE_NOT_IN_ENGINE" in outward.run(*kernel, expect=1).stderr
    assert "not allowed with" in outward.run(*kernel, "--uplink", "outward/u1", expect=2).stderr
