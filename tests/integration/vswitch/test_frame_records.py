"""What became of frames, and the counters of a switch, through the service."""

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
SECOND_NS = 10**9


def frame(dst: bytes, src: bytes, size: int = 60) -> bytes:
    """Return a frame of a length."""
    return (dst + src + b"\x88\xb5").ljust(size, b"\0")


@pytest.fixture
async def lan(start: Any, device: Any) -> Any:
    """Returns the service, a stub of `Captures`, and devices at ports a and b of s1."""
    running = await start()
    await running.switches.CreateSwitch(vswitch_pb2.CreateSwitchRequest(switch_id="s1"))
    group = vswitch_pb2.CreatePortGroupRequest(
        parent=SWITCH, port_group_id="g", port_group=vswitch_pb2.PortGroup(vlan_id=7)
    )
    await running.switches.CreatePortGroup(group)
    devices = []
    for name in ("a", "b"):
        request = vswitch_pb2.CreatePortRequest(parent=SWITCH, port_id=name)
        port = await running.ports.CreatePort(request)
        devices.append(await device(running.ports, port.handle, completions=True).plug_in())
    return running, rpc.CapturesStub(running.channel), *devices


async def send(device: Any, *frames: bytes) -> None:
    """Send a batch and wait until it is switched."""
    device.send(frames)
    while not (await device.next()).completion.frames:
        pass


async def test_records_tell_the_rules_of_frames_that_passed(lan: Any, manual_clock: Any) -> None:
    """The newest comes first, with time, port, head, length and the chain; a frame's 129th byte is not kept."""
    _, captures, a, b = lan
    await manual_clock.advance(5)
    await send(a, frame(BROADCAST, A, 200), b"\x02" * 13)
    await manual_clock.advance(1)
    await send(b, frame(A, B), frame(A, B))
    found = (await captures.ListFrameRecords(pb.ListFrameRecordsRequest(parent=SWITCH))).frame_records
    verdicts = vswitch_pb2.TraceFrameResponse
    assert [(r.time_ns, r.port, r.length_bytes, r.decision.verdict, r.decision.drop_reason) for r in found] == [
        (6, f"{PORTS}/b", 60, verdicts.VERDICT_FORWARDED, 0),
        (5, f"{PORTS}/a", 13, verdicts.VERDICT_DROPPED, vswitch_pb2.DROP_REASON_RUNT),
        (5, f"{PORTS}/a", 200, verdicts.VERDICT_FLOODED, 0),
    ]
    assert found[2].head == frame(BROADCAST, A, 128) and found[2].decision.output_frame == b""
    assert [step.rule for step in found[2].decision.steps][-2:] == ["lookup.group", "output.flood"]
    assert list(found[0].decision.output_ports) == [f"{PORTS}/a"]


async def test_records_are_chosen_by_port_and_filter_and_paged(lan: Any, manual_clock: Any) -> None:
    """A port and a filter leave out the rest; pages go from the newest to the oldest, whatever comes meanwhile."""
    _, captures, a, b = lan
    for size in (60, 61, 62, 63, 64):
        await send(a, frame(BROADCAST, A, size))
        await send(b, frame(BROADCAST, B, size))
        await manual_clock.advance(SECOND_NS)
    request = pb.ListFrameRecordsRequest(parent=SWITCH, port=f"{PORTS}/a", filter="greater 61", page_size=2)
    sizes = []
    while True:
        answer = await captures.ListFrameRecords(request)
        sizes += [record.length_bytes for record in answer.frame_records]
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
        await send(a, frame(BROADCAST, A, 100))
        await manual_clock.advance(SECOND_NS)
    assert sizes == [64, 63, 62, 61]
    none = pb.ListFrameRecordsRequest(parent=SWITCH, trace_id="0" * 31 + "1")
    assert not (await captures.ListFrameRecords(none)).frame_records


async def test_bad_questions_about_records_are_refused(lan: Any) -> None:
    """Unknown switch, malformed trace, filter and token each have their reason."""
    _, captures, *_ = lan
    wrong: list[tuple[dict[str, Any], tuple[str, str]]] = [
        ({"parent": "hosts/h1/switches/zz"}, ("NOT_FOUND", "SWITCH_UNKNOWN")),
        ({"trace_id": "abc"}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"trace_id": "A" * 32}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"filter": "vlan 4096"}, ("INVALID_ARGUMENT", "FILTER_MALFORMED")),
        ({"port": "hosts/h1/switches/s2/ports/a"}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"page_size": -1}, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ({"page_token": "?"}, ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")),
    ]
    for fields, expected in wrong:
        request = pb.ListFrameRecordsRequest(**{"parent": SWITCH, **fields})
        assert await refusal(captures.ListFrameRecords(request)) == expected, fields


async def test_counters_of_all_ports_and_of_all_vlans(lan: Any) -> None:
    """Ports are ordered by name and VLANs by number; every frame is in both, every drop has a reason in both."""
    running, captures, a, b = lan
    await send(a, frame(BROADCAST, A), b"\x02" * 13)
    port = vswitch_pb2.Port(name=f"{PORTS}/b", port_group=f"{SWITCH}/portGroups/g")
    await running.ports.UpdatePort(vswitch_pb2.UpdatePortRequest(port=port))
    await send(b, frame(BROADCAST, B))
    ports = (await captures.ListCounters(pb.ListCountersRequest(parent=SWITCH))).ports
    for counted in ports:
        request = vswitch_pb2.GetPortCountersRequest(port=counted.port)
        assert counted == await running.ports.GetPortCounters(request)
    assert [counted.port for counted in ports] == [f"{PORTS}/a", f"{PORTS}/b"]
    vlans = (await captures.ListCounters(pb.ListCountersRequest(parent=SWITCH, by_vlan=True))).vlans
    assert [(v.vlan_id, v.received_frames, v.received_bytes, v.sent_frames, v.flooded_frames) for v in vlans] == [
        (0, 2, 73, 1, 1),
        (7, 1, 60, 0, 0),
    ]
    assert [[(drop.reason, drop.frames) for drop in vlan.drops] for vlan in vlans] == [
        [(vswitch_pb2.DROP_REASON_RUNT, 1)],
        [(vswitch_pb2.DROP_REASON_NO_DESTINATION, 1)],
    ]
    for by_vlan in (False, True):
        answer = await captures.ListCounters(pb.ListCountersRequest(parent=SWITCH, by_vlan=by_vlan, page_size=1))
        assert len(answer.ports) + len(answer.vlans) == 1
        token = answer.next_page_token
        answer = await captures.ListCounters(
            pb.ListCountersRequest(parent=SWITCH, by_vlan=by_vlan, page_size=1, page_token=token)
        )
        assert len(answer.ports) + len(answer.vlans) == 1 and not answer.next_page_token
        unknown = pb.ListCountersRequest(parent="hosts/h1/switches/zz", by_vlan=by_vlan)
        assert await refusal(captures.ListCounters(unknown)) == ("NOT_FOUND", "SWITCH_UNKNOWN")
