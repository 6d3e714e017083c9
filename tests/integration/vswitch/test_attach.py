"""Frames through the service: two devices, the MAC table, queues, links, and how streams end."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.common.v1 import handle_pb2, layer_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb

from lamina_kit.rpc import status

A = bytes.fromhex("020000000001")
B = bytes.fromhex("020000000002")
BROADCAST = b"\xff" * 6
SWITCH = "hosts/h1/switches/s1"


def frame(dst: bytes, src: bytes, text: str = "") -> bytes:
    """Return a frame of the least length."""
    return (dst + src + b"\x88\xb5" + text.encode()).ljust(60, b"\0")


async def make_ports(running: Any, *names: str, group: str = "") -> list[pb.Port]:
    """Make a switch if it is missing, and ports."""
    switch = pb.CreateSwitchRequest(switch_id="s1", request_id="switch")
    await running.switches.CreateSwitch(switch)
    requests = [pb.CreatePortRequest(parent=SWITCH, port_id=name, port=pb.Port(port_group=group)) for name in names]
    return [await running.ports.CreatePort(request) for request in requests]


async def reason_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return with which code and reason a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), status.rpc_error(caught.value).reason


async def test_two_devices_exchange_frames_and_are_learned(start: Any, device: Any, manual_clock: Any) -> None:
    """A broadcast reaches the other port, the answer only the asker, and the table shows both with their ages."""
    running = await start()
    ports = await make_ports(running, "a", "b", "c")
    a, b, c = [await device(running.ports, port.handle).plug_in() for port in ports]
    assert a.opened == pb.AttachOpened(port=f"{SWITCH}/ports/a", mtu_bytes=1500, link=pb.LINK_UP)
    a.send([frame(BROADCAST, A, "who?")])
    assert await b.receive(1) == await c.receive(1) == [frame(BROADCAST, A, "who?")]
    await manual_clock.advance(5)
    b.send([frame(A, B, "me")])
    assert await a.receive(1) == [frame(A, B, "me")]
    table = await running.switches.ListMacEntries(pb.ListMacEntriesRequest(parent=SWITCH))
    assert [(e.name, e.mac_address, e.vlan_id, e.port, e.type, e.age_ns) for e in table.mac_entries] == [
        (f"{SWITCH}/macEntries/v0-{A.hex()}", "02:00:00:00:00:01", 0, f"{SWITCH}/ports/a", 1, 5),
        (f"{SWITCH}/macEntries/v0-{B.hex()}", "02:00:00:00:00:02", 0, f"{SWITCH}/ports/b", 1, 0),
    ]
    counters = await running.ports.GetPortCounters(pb.GetPortCountersRequest(port=f"{SWITCH}/ports/c"))
    assert (counters.sent_frames, counters.sent_bytes, counters.received_frames) == (1, 60, 0)


async def test_completions_say_how_far_the_switch_is(start: Any, device: Any) -> None:
    """A device that asked for completions learns how many of its frames were switched, and how many dropped."""
    running = await start()
    (port,) = await make_ports(running, "a")
    a = await device(running.ports, port.handle, completions=True).plug_in()
    a.send([frame(B, A), b"runt"])
    a.finish()
    last = (await a.next()).completion
    assert await a.call.read() is grpc.aio.EOF
    assert last == pb.Completion(batches=1, frames=2, dropped_frames=2)
    counters = await running.ports.GetPortCounters(pb.GetPortCountersRequest(port=port.name))
    assert [(drop.reason, drop.frames) for drop in counters.drops] == [
        (pb.DROP_REASON_RUNT, 1),
        (pb.DROP_REASON_NO_DESTINATION, 1),
    ]


async def test_a_full_queue_drops_counts_and_tells(start: Any, device: Any) -> None:
    """What does not fit into a receiver's queue is counted at its port and told with the next batch."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await device(running.ports, ports[0].handle).plug_in()
    b = await device(running.ports, ports[1].handle, queue_frames=2).plug_in()
    sent = [frame(B, A, str(number)) for number in range(5)]
    a.send(sent)
    batch = (await b.next()).frames
    assert (list(batch.frames), batch.dropped_frames) == (sent[:2], 3)
    counters = await running.ports.GetPortCounters(pb.GetPortCountersRequest(port=ports[1].name))
    assert [(drop.reason, drop.frames) for drop in counters.drops] == [(pb.DROP_REASON_QUEUE_FULL, 3)]
    explained = await running.layer.Explain(layer_pb2.ExplainRequest(object=ports[1].name))
    assert explained.decisions[0].rule == "drop.queue_full"


async def test_the_link_is_told_and_obeyed(start: Any, device: Any) -> None:
    """A device hears that its link went down and up; in between nothing passes, and its address is forgotten."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a, b = [await device(running.ports, port.handle).plug_in() for port in ports]
    a.send([frame(B, A)])
    await b.receive(1)
    down = await running.ports.UpdatePort(
        pb.UpdatePortRequest(port=pb.Port(name=ports[0].name, link=pb.LINK_DOWN), update_mask=FieldMask(paths=["link"]))
    )
    assert down.state == pb.Port.STATE_DOWN
    assert (await a.next()).link.link == pb.LINK_DOWN
    table = await running.switches.ListMacEntries(pb.ListMacEntriesRequest(parent=SWITCH))
    assert not table.mac_entries
    up = await running.ports.UpdatePort(pb.UpdatePortRequest(port=pb.Port(name=ports[0].name, link=pb.LINK_UP)))
    assert up.state == pb.Port.STATE_UP
    assert (await a.next()).link.link == pb.LINK_UP
    b.send([frame(A, B)])
    assert await a.receive(1) == [frame(A, B)]


async def test_a_stream_that_ends_detaches_its_port(start: Any, device: Any, eventually: Any) -> None:
    """Whether a device finishes or its call is cancelled, the port is free again and its address forgotten."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    b = await device(running.ports, ports[1].handle).plug_in()
    engine = running.service._catalog.engine
    for leave in ("finish", "cancel"):
        a = await device(running.ports, ports[0].handle).plug_in()
        a.send([frame(BROADCAST, A)])
        await b.receive(1)
        if leave == "finish":
            a.finish()
            assert await a.call.read() is grpc.aio.EOF
            assert await a.call.code() is grpc.StatusCode.OK
        else:
            a.call.cancel()
        await eventually(lambda: not engine.attached(ports[0].handle.id), "the port is detached")
        port = await running.ports.GetPort(pb.GetPortRequest(name=ports[0].name))
        assert port.state == pb.Port.STATE_DETACHED
        assert not (await running.switches.ListMacEntries(pb.ListMacEntriesRequest(parent=SWITCH))).mac_entries


async def test_frames_queued_when_a_device_finishes_are_delivered(start: Any, device: Any) -> None:
    """Ending one's own side loses nothing that was waiting."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await device(running.ports, ports[0].handle, completions=True).plug_in()
    b = await device(running.ports, ports[1].handle).plug_in()
    a.send([frame(B, A, str(number)) for number in range(100)])
    while (await a.next()).completion.frames < 100:
        pass
    b.finish()
    assert len(await b.receive(100)) == 100
    assert await b.call.read() is grpc.aio.EOF


async def test_only_one_stream_holds_a_port(start: Any, device: Any) -> None:
    """A second stream is refused, and the first one does not notice."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a, b = [await device(running.ports, port.handle).plug_in() for port in ports]
    second = device(running.ports, ports[0].handle)
    assert await reason_of(second.call.read()) == (grpc.StatusCode.FAILED_PRECONDITION, "PORT_ATTACHED")
    b.send([frame(BROADCAST, B)])
    assert await a.receive(1) == [frame(BROADCAST, B)]


async def test_a_stale_handle_is_refused(start: Any, device: Any) -> None:
    """After a port is deleted its slot is used again, with another generation."""
    running = await start()
    (old,) = await make_ports(running, "a")
    await running.ports.DeletePort(pb.DeletePortRequest(name=old.name))
    (new,) = await make_ports(running, "a")
    assert (new.handle.id, new.handle.generation) == (old.handle.id, old.handle.generation + 1)
    stale = (grpc.StatusCode.FAILED_PRECONDITION, "HANDLE_STALE")
    assert await reason_of(device(running.ports, old.handle).call.read()) == stale
    assert await reason_of(device(running.ports, handle_pb2.Handle(id=99, generation=1)).call.read()) == stale


async def test_deleting_a_port_ends_its_stream(start: Any, device: Any) -> None:
    """The device learns that its port is gone, and what it sends afterwards goes nowhere."""
    running = await start()
    (port,) = await make_ports(running, "a")
    a = await device(running.ports, port.handle).plug_in()
    await running.ports.DeletePort(pb.DeletePortRequest(name=port.name))
    assert await reason_of(a.call.read()) == (grpc.StatusCode.ABORTED, "PORT_DELETED")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([pb.AttachRequest(frames=pb.FrameBatch(frames=[b"x"]))], "ATTACH_NOT_OPENED"),
        ([pb.AttachRequest()], "ATTACH_NOT_OPENED"),
        ([], "ATTACH_NOT_OPENED"),
        ([pb.AttachRequest(open=pb.AttachOpen(queue_frames=-1))], "REQUEST_INVALID"),
        ([pb.AttachRequest(open=pb.AttachOpen(queue_frames=1 << 17))], "REQUEST_INVALID"),
    ],
)
async def test_a_stream_that_begins_wrongly_is_refused(start: Any, messages: list[Any], reason: str) -> None:
    """The first message opens; anything else is an error with its reason."""
    running = await start()

    async def requests() -> Any:
        for message in messages:
            yield message

    assert await reason_of(running.ports.Attach(requests()).read()) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.AttachRequest(open=pb.AttachOpen()), "ATTACH_MESSAGE_INVALID"),
        (pb.AttachRequest(), "ATTACH_MESSAGE_INVALID"),
        (pb.AttachRequest(frames=pb.FrameBatch(frames=[b""] * 4097)), "BATCH_TOO_LARGE"),
    ],
)
async def test_a_wrong_message_ends_the_stream(start: Any, device: Any, message: Any, reason: str) -> None:
    """After opening only frames may come, and not too many at once; the port is free afterwards."""
    running = await start()
    (port,) = await make_ports(running, "a")
    a = await device(running.ports, port.handle).plug_in()
    a.send_message(message)
    assert await reason_of(a.call.read()) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    await device(running.ports, port.handle).plug_in()


async def test_stopping_the_service_ends_its_streams(start: Any, device: Any) -> None:
    """A device learns that the service stops, not merely that the line is dead."""
    running = await start()
    (port,) = await make_ports(running, "a")
    a = await device(running.ports, port.handle).plug_in()
    await running.service.stop()
    assert await reason_of(a.call.read()) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_STOPPING")
