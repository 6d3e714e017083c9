"""Mirrors through the service: what is copied, what never is, what survives, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.vswitch.v1 import captures_pb2 as pb
from lamina.vswitch.v1 import captures_pb2_grpc as rpc
from lamina.vswitch.v1 import vswitch_pb2
from tests.integration.vswitch.refusals import refusal

A = bytes.fromhex("020000000001")
B = bytes.fromhex("020000000002")
BROADCAST = b"\xff" * 6
SWITCH = "hosts/h1/switches/s1"
PORTS = f"{SWITCH}/ports"
RUNT = b"\x02" * 13


def frame(dst: bytes, src: bytes, text: str = "") -> bytes:
    """Return a frame of the least length."""
    return (dst + src + b"\x88\xb5" + text.encode()).ljust(60, b"\0")


class Lan:
    """A switch with ports a, b (group g, VLAN 5) and m; devices at all of them."""

    def __init__(self, running: Any) -> None:
        self.running = running
        self.stub = rpc.CapturesStub(running.channel)
        self.devices: dict[str, Any] = {}

    async def fill(self, device: Any) -> Lan:
        """Make the switch, the ports and the devices."""
        await self.running.switches.CreateSwitch(vswitch_pb2.CreateSwitchRequest(switch_id="s1"))
        group = vswitch_pb2.PortGroup(vlan_id=5)
        request = vswitch_pb2.CreatePortGroupRequest(parent=SWITCH, port_group_id="g", port_group=group)
        await self.running.switches.CreatePortGroup(request)
        for name in ("a", "b", "m"):
            port = vswitch_pb2.Port(port_group="" if name == "m" else f"{SWITCH}/portGroups/g")
            create = vswitch_pb2.CreatePortRequest(parent=SWITCH, port_id=name, port=port)
            made = await self.running.ports.CreatePort(create)
            self.devices[name] = await device(self.running.ports, made.handle, completions=True).plug_in()
        return self

    async def mirror(self, name: str = "mirror", request_id: str = "", **fields: Any) -> pb.Mirror:
        """Create a mirror to port m unless the fields say another."""
        wanted = pb.Mirror(**{"destination_port": f"{PORTS}/m", **fields})
        request = pb.CreateMirrorRequest(parent=SWITCH, mirror_id=name, mirror=wanted, request_id=request_id)
        found: pb.Mirror = await self.stub.CreateMirror(request)
        return found

    async def send(self, name: str, *frames: bytes) -> None:
        """Send a batch and wait until it is switched."""
        self.devices[name].send(frames)
        while not (await self.devices[name].next()).completion.frames:
            pass

    async def counters(self, name: str) -> Any:
        """Return the counters of a port."""
        return await self.running.ports.GetPortCounters(vswitch_pb2.GetPortCountersRequest(port=f"{PORTS}/{name}"))


@pytest.fixture
async def lan(start: Any, device: Any) -> Lan:
    """Returns the switch of this file."""
    return await Lan(await start()).fill(device)


async def test_copies_go_beside_the_frames(lan: Lan) -> None:
    """A frame that enters and leaves at sources is copied twice; its receiver has it too; the mirror counts."""
    made = await lan.mirror(source_ports=[f"{PORTS}/a", f"{PORTS}/b"])
    assert (made.name, made.copied_frames) == (f"{SWITCH}/mirrors/mirror", 0)
    await lan.send("a", frame(BROADCAST, A))
    assert await lan.devices["b"].receive(1) == [frame(BROADCAST, A)]
    assert await lan.devices["m"].receive(2) == [frame(BROADCAST, A)] * 2
    found = await lan.stub.GetMirror(pb.GetMirrorRequest(name=made.name))
    assert found.copied_frames == 2 and (await lan.counters("m")).sent_frames == 2


@pytest.mark.parametrize(
    ("fields", "copies"),
    [
        ({"source_ports": [f"{PORTS}/a"], "direction": pb.DIRECTION_INGRESS}, [60, 100]),
        ({"source_ports": [f"{PORTS}/a"], "direction": pb.DIRECTION_EGRESS}, [61]),
        ({"source_port_groups": [f"{SWITCH}/portGroups/g"], "direction": pb.DIRECTION_INGRESS}, [60, 100, 61]),
        ({"source_vlan_ids": [5], "direction": pb.DIRECTION_INGRESS}, [60, 100, 61]),
        ({"source_vlan_ids": [0]}, []),
        ({"source_vlan_ids": [5], "direction": pb.DIRECTION_INGRESS, "filter": "greater 61"}, [100, 61]),
        ({"source_vlan_ids": [5], "direction": pb.DIRECTION_INGRESS, "snap_bytes": 64}, [60, 64, 61]),
        ({"source_ports": [f"{PORTS}/a"], "drops": True, "direction": pb.DIRECTION_INGRESS}, [60, 13, 100]),
    ],
    ids=["ingress", "egress", "group", "vlan", "other-vlan", "filter", "snap", "drops"],
)
@pytest.mark.parametrize("start", ["local"], indirect=True)
async def test_sources_direction_filter_snap_and_drops_choose(lan: Lan, fields: Any, copies: list[int]) -> None:
    """The destination gets the copies that the mirror asks for, in order."""
    await lan.mirror(**fields)
    await lan.send("a", frame(BROADCAST, A), RUNT)
    await lan.send("a", frame(BROADCAST, A) + bytes(40))
    await lan.send("b", frame(BROADCAST, B) + bytes(1))
    got = await lan.devices["m"].receive(len(copies))
    assert [len(one) for one in got] == copies and (await lan.counters("m")).sent_frames == len(copies)


async def test_a_destination_takes_part_in_nothing_else(lan: Lan) -> None:
    """What comes in there is dropped with its reason, floods pass it by, and copies are not copied again."""
    await lan.mirror("first", source_vlan_ids=[0, 5])
    await lan.mirror("second", source_vlan_ids=[0, 5], drops=True)
    await lan.send("m", frame(BROADCAST, A))
    counters = await lan.counters("m")
    assert [(d.reason, d.frames) for d in counters.drops] == [(vswitch_pb2.DROP_REASON_MIRROR_PORT, 1)]
    await lan.send("a", frame(BROADCAST, B))
    assert len(await lan.devices["m"].receive(4)) == 4
    assert (await lan.counters("m")).sent_frames == 4
    await lan.stub.DeleteMirror(pb.DeleteMirrorRequest(name=f"{SWITCH}/mirrors/first"))
    await lan.send("m", frame(BROADCAST, A))
    await lan.stub.DeleteMirror(pb.DeleteMirrorRequest(name=f"{SWITCH}/mirrors/second"))
    await lan.send("m", frame(BROADCAST, A))
    counters = await lan.counters("m")
    assert [(d.reason, d.frames) for d in counters.drops] == [
        (vswitch_pb2.DROP_REASON_NO_DESTINATION, 1),
        (vswitch_pb2.DROP_REASON_MIRROR_PORT, 2),
    ]


async def test_mirrors_survive_a_restart_and_go_with_their_ports(lan: Lan, start: Any, device: Any) -> None:
    """Definitions are durable; a source goes with its port or group, the mirror with its destination."""
    fields: dict[str, Any] = {
        "source_ports": [f"{PORTS}/b", f"{PORTS}/a"],
        "source_port_groups": [],
        "source_vlan_ids": [7, 5],
    }
    options: dict[str, Any] = {"direction": pb.DIRECTION_EGRESS, "filter": "ip", "snap_bytes": 64, "drops": True}
    made = await lan.mirror(**fields, **options, request_id="r1")
    await lan.running.stop()
    again = Lan(await start())
    assert await again.stub.GetMirror(pb.GetMirrorRequest(name=made.name)) == made
    assert await again.mirror(**fields, **options, request_id="r1") == made
    await again.running.ports.DeletePort(vswitch_pb2.DeletePortRequest(name=f"{PORTS}/b"))
    found = await again.stub.GetMirror(pb.GetMirrorRequest(name=made.name))
    assert list(found.source_ports) == [f"{PORTS}/a"]
    await again.running.ports.DeletePort(vswitch_pb2.DeletePortRequest(name=f"{PORTS}/m"))
    unknown = ("NOT_FOUND", "MIRROR_UNKNOWN")
    assert await refusal(again.stub.GetMirror(pb.GetMirrorRequest(name=made.name))) == unknown
    await again.running.stop()
    third = Lan(await start())
    assert await refusal(third.stub.GetMirror(pb.GetMirrorRequest(name=made.name))) == unknown


async def test_a_port_that_joins_a_source_group_is_mirrored(lan: Lan) -> None:
    """The members of a source group are those that it has now; a group that is gone is no source any more."""
    group = vswitch_pb2.PortGroup()
    request = vswitch_pb2.CreatePortGroupRequest(parent=SWITCH, port_group_id="late", port_group=group)
    await lan.running.switches.CreatePortGroup(request)
    sources = [f"{SWITCH}/portGroups/late"]
    made = await lan.mirror(source_port_groups=sources, direction=pb.DIRECTION_INGRESS, drops=True)
    await lan.send("a", frame(BROADCAST, A))
    for name in (f"{SWITCH}/portGroups/late", f"{SWITCH}/portGroups/g"):
        port = vswitch_pb2.Port(name=f"{PORTS}/a", port_group=name)
        await lan.running.ports.UpdatePort(vswitch_pb2.UpdatePortRequest(port=port))
        await lan.send("a", frame(BROADCAST, A, name[-1:]))
    assert await lan.devices["m"].receive(1) == [frame(BROADCAST, A, "e")]
    delete = vswitch_pb2.DeletePortGroupRequest(name=f"{SWITCH}/portGroups/late")
    await lan.running.switches.DeletePortGroup(delete)
    found = await lan.stub.GetMirror(pb.GetMirrorRequest(name=made.name))
    assert list(found.source_port_groups) == [] and found.copied_frames == 1


async def test_what_a_mirror_cannot_be_is_refused(lan: Lan) -> None:
    """Loops, unknown names, bad fields, names that are taken and reused requests each have their reason."""
    a, m = f"{PORTS}/a", f"{PORTS}/m"
    await lan.mirror("first", source_ports=[a], request_id="r1")
    wrong: list[tuple[dict[str, Any], tuple[str, str]]] = [
        ({"name": "first", "source_ports": [a]}, ("ALREADY_EXISTS", "MIRROR_EXISTS")),
        ({"name": "x", "source_ports": [a], "request_id": "r1"}, ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")),
        ({"source_ports": [m]}, ("FAILED_PRECONDITION", "MIRROR_LOOP")),
        ({"source_ports": [f"{PORTS}/b"], "destination_port": a}, ("FAILED_PRECONDITION", "MIRROR_LOOP")),
        ({"source_ports": [m], "destination_port": f"{PORTS}/b"}, ("FAILED_PRECONDITION", "MIRROR_LOOP")),
        (
            {"source_port_groups": [f"{SWITCH}/portGroups/g"], "destination_port": f"{PORTS}/b"},
            ("FAILED_PRECONDITION", "MIRROR_LOOP"),
        ),
        ({"source_ports": [f"{PORTS}/zz"]}, ("NOT_FOUND", "PORT_UNKNOWN")),
        ({"source_ports": [a], "destination_port": f"{PORTS}/zz"}, ("NOT_FOUND", "PORT_UNKNOWN")),
        ({"source_port_groups": [f"{SWITCH}/portGroups/zz"]}, ("NOT_FOUND", "PORT_GROUP_UNKNOWN")),
        ({"source_ports": [a], "destination_port": ""}, ("INVALID_ARGUMENT", "NAME_MALFORMED")),
        ({"name": "X", "source_ports": [a]}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"source_vlan_ids": [4095]}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"source_vlan_ids": [1] * 65}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"source_ports": ["hosts/h1/switches/s2/ports/a"]}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"source_ports": [a], "snap_bytes": 65536}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"source_ports": [a], "filter": "("}, ("INVALID_ARGUMENT", "FILTER_MALFORMED")),
    ]
    for fields, expected in wrong:
        assert await refusal(lan.mirror(**{"name": "second", **fields})) == expected, fields
    names = pb.GetMirrorRequest(name=f"{SWITCH}/mirrors/none"), pb.DeleteMirrorRequest(name=f"{SWITCH}/mirrors/none")
    for call in (lan.stub.GetMirror(names[0]), lan.stub.DeleteMirror(names[1])):
        assert await refusal(call) == ("NOT_FOUND", "MIRROR_UNKNOWN")


async def test_mirrors_are_listed_in_pages_and_at_most_16(lan: Lan) -> None:
    """Names ascend, pages follow each other without a gap, and the 17th is refused."""
    for number in range(16):
        await lan.mirror(f"m{number:02}", source_ports=[f"{PORTS}/a"])
    limit = ("RESOURCE_EXHAUSTED", "MIRROR_LIMIT")
    assert await refusal(lan.mirror("one-more", source_ports=[f"{PORTS}/a"])) == limit
    names, token = [], ""
    while True:
        request = pb.ListMirrorsRequest(parent=SWITCH, page_size=7, page_token=token)
        answer = await lan.stub.ListMirrors(request)
        names += [mirror.name.rpartition("/")[2] for mirror in answer.mirrors]
        token = answer.next_page_token
        if not token:
            break
    assert names == [f"m{number:02}" for number in range(16)]
    unknown = pb.ListMirrorsRequest(parent="hosts/h1/switches/zz")
    assert await refusal(lan.stub.ListMirrors(unknown)) == ("NOT_FOUND", "SWITCH_UNKNOWN")
    bad = pb.ListMirrorsRequest(parent=SWITCH, page_token="!")
    assert await refusal(lan.stub.ListMirrors(bad)) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_a_loop_of_others_is_no_reason_against_a_mirror(lan: Lan) -> None:
    """A destination that joins a source group later gets no copies of itself, and stands in the way of no one else."""
    group = f"{SWITCH}/portGroups/g"
    await lan.mirror("first", source_port_groups=[group])
    port = vswitch_pb2.Port(name=f"{PORTS}/m", port_group=group)
    await lan.running.ports.UpdatePort(vswitch_pb2.UpdatePortRequest(port=port))
    await lan.running.ports.CreatePort(vswitch_pb2.CreatePortRequest(parent=SWITCH, port_id="n"))
    made = await lan.mirror("second", source_ports=[f"{PORTS}/a"], destination_port=f"{PORTS}/n")
    assert made.destination_port == f"{PORTS}/n"
