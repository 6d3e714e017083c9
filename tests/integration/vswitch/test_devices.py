"""Devices with offloads, traces, queues and filters through the service."""

from __future__ import annotations

import struct
from typing import Any

import grpc
from lamina.vswitch.v1 import rings_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.ring_device import ALL, SWITCH, RingDevice, counters, make_ports, rings
from tests.integration.vswitch.test_attach import BROADCAST, A, B, frame, reason_of
from tests.offload_frames import packet

from lamina_net.offload.headers import is_transport_sum_good, parse

HEADER = struct.Struct("<BBHHHHHHHI")
GROUP = bytes.fromhex("01005e000005")


async def test_long_segments_pass_between_devices_that_take_them(start: Any) -> None:
    """A TCP packet of 60,000 bytes and its trace reach a device that takes both as they were sent, in one frame."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await RingDevice(running, ports[0].handle).plug_in()
    b = await RingDevice(running, ports[1].handle, offloads=ALL, traces=True).plug_in()
    assert a.opened == rings_pb2.AttachDeviceOpened(
        port=f"{SWITCH}/ports/a", mtu_bytes=1500, link=pb.LINK_UP, offloads=ALL
    )
    long, record = packet(4, 6, bytes(60_000)), bytes(range(32))
    header = HEADER.pack(1, 1, 54, 1446, 34, 16, 0, 0, 0, 0)
    a.send([long], offload_headers=header, trace_records=record)
    batch = (await b.next()).batch
    assert batch == rings_pb2.DeviceBatch(frames=[long], offload_headers=header, trace_records=record)


async def test_long_segments_are_cut_for_devices_that_do_not(start: Any, device: Any) -> None:
    """A device of plain frames gets frames that the MTU allows, with sums that are right; they are counted as such."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await RingDevice(running, ports[0].handle).plug_in()
    b = await device(running.ports, ports[1].handle).plug_in()
    a.send([packet(6, 6, bytes(5000))], offload_headers=HEADER.pack(1, 4, 74, 1400, 54, 16, 0, 0, 0, 0))
    pieces = await b.receive(4)
    assert [len(piece) for piece in pieces] == [1474, 1474, 1474, 874]
    assert all(is_transport_sum_good(piece, parse(piece)) for piece in pieces)
    assert await counters(running, ports[1]) == (4, {})


async def test_a_header_that_does_not_fit_drops_its_frame(start: Any, device: Any) -> None:
    """It is counted where the frame entered, told in the completion, and the rest of the batch passes."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await RingDevice(running, ports[0].handle, completions=True).plug_in()
    b = await device(running.ports, ports[1].handle).plug_in()
    bad = HEADER.pack(1, 0, 0, 0, 5000, 16, 0, 0, 0, 0)
    a.send([frame(BROADCAST, A, "bad"), frame(BROADCAST, A, "good")], offload_headers=bad + bytes(20))
    assert await b.receive(1) == [frame(BROADCAST, A, "good")]
    assert (await a.next()).completion == pb.Completion(batches=1, frames=2, dropped_frames=1)
    assert await counters(running, ports[0]) == (0, {"OFFLOAD_INVALID": 1})


async def test_flows_keep_to_their_queues(start: Any) -> None:
    """A device with four queues gets each flow in one of them, in order; lost frames are told for each queue."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await RingDevice(running, ports[0].handle).plug_in()
    b = await RingDevice(running, ports[1].handle, queues=4).plug_in()
    flows = [packet(4, 17, b"x")[:34] + struct.pack(">HHHH", port, 2, 9, 0) for port in range(64)]
    a.send([flow + bytes([turn]) for turn in range(3) for flow in flows])
    seen: dict[bytes, list[tuple[int, int]]] = {}
    while sum(map(len, seen.values())) < 192:
        batch = (await b.next()).batch
        for got in batch.frames:
            seen.setdefault(got[:42], []).append((batch.queue, got[42]))
    assert len(seen) == 64
    for places in seen.values():
        assert len({queue for queue, _ in places}) == 1 and [turn for _, turn in places] == [0, 1, 2]
    assert {places[0][0] for places in seen.values()} == {0, 1, 2, 3}


async def test_a_full_queue_is_counted_and_told(start: Any) -> None:
    """What one queue cannot hold is lost at the port, and the queue's next batch says so."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await RingDevice(running, ports[0].handle).plug_in()
    b = await RingDevice(running, ports[1].handle, queues=2, queue_frames=3).plug_in()
    a.send([frame(BROADCAST, A, str(number)) for number in range(8)])
    batch = (await b.next()).batch
    assert ([bytes(got) for got in batch.frames], batch.dropped_frames) == (
        [frame(BROADCAST, A, str(number)) for number in range(3)],
        5,
    )
    assert await counters(running, ports[1]) == (3, {"QUEUE_FULL": 5})


async def test_multicasts_reach_who_wants_them(start: Any) -> None:
    """Until it says more a device gets every multicast; then those that it named, and broadcasts and its own always."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await RingDevice(running, ports[0].handle, completions=True).plug_in()
    b = await RingDevice(running, ports[1].handle, completions=True).plug_in()
    a.send([frame(GROUP, A, "before")])
    assert await b.receive(1) == [frame(GROUP, A, "before")]
    for state in (
        rings_pb2.DeviceState(mac_address="02:00:00:00:00:02", multicast_addresses=["01:00:5e:00:00:05"]),
        rings_pb2.DeviceState(mac_address="02:00:00:00:00:02"),
        rings_pb2.DeviceState(mac_address="02:00:00:00:00:02", all_multicasts=True),
    ):
        b.send_message(rings_pb2.AttachDeviceRequest(state=state))
        b.send([])  # its completion says that the state was read
        while not (await b.next()).HasField("completion"):
            pass
        wants = state.all_multicasts or bool(state.multicast_addresses)
        sent = [frame(GROUP, A), frame(B, A), frame(BROADCAST, A)]
        a.send(sent)
        assert await b.receive(3 if wants else 2) == (sent if wants else sent[1:])


async def test_a_device_that_leaves_is_delivered_what_waits(start: Any, device: Any) -> None:
    """Ending its own side ends the stream with OK, and the port is free."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await device(running.ports, ports[0].handle, completions=True).plug_in()
    b = await RingDevice(running, ports[1].handle, queues=2).plug_in()
    a.send([frame(BROADCAST, A, str(number)) for number in range(10)])
    await a.next()
    b.finish()
    assert len(await b.receive(10)) == 10
    assert await b.call.read() is grpc.aio.EOF
    await RingDevice(running, ports[1].handle).plug_in()


async def test_a_wrong_opening_is_refused(start: Any) -> None:
    """Sizes have ranges."""
    running = await start()
    (port,) = await make_ports(running, "a")
    for options in ({"queues": 17}, {"queues": -1}, {"queue_frames": 65537}):
        call = RingDevice(running, port.handle, **options).call
        assert await reason_of(call.read()) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")


async def test_the_first_message_opens(start: Any) -> None:
    """Frames before that are refused, and so is a handle whose port is gone."""
    running = await start()
    (port,) = await make_ports(running, "a")

    async def requests() -> Any:
        yield rings_pb2.AttachDeviceRequest(batch=rings_pb2.DeviceBatch())

    found = await reason_of(rings(running).AttachDevice(requests()).read())
    assert found == (grpc.StatusCode.INVALID_ARGUMENT, "ATTACH_NOT_OPENED")
    await running.ports.DeletePort(pb.DeletePortRequest(name=port.name))
    stale = await reason_of(RingDevice(running, port.handle).call.read())
    assert stale == (grpc.StatusCode.FAILED_PRECONDITION, "HANDLE_STALE")


STATE = rings_pb2.DeviceState
BATCH = rings_pb2.DeviceBatch
OPEN = rings_pb2.AttachDeviceOpen()


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"open": OPEN}, "ATTACH_MESSAGE_INVALID"),
    ({}, "ATTACH_MESSAGE_INVALID"),
    ({"batch": BATCH(frames=[b""] * 4097)}, "BATCH_TOO_LARGE"),
    ({"batch": BATCH(frames=[bytes(65535)] * 65)}, "BATCH_TOO_LARGE"),
    ({"batch": BATCH(queue=2)}, "ATTACH_MESSAGE_INVALID"),
    ({"batch": BATCH(queue=-1)}, "ATTACH_MESSAGE_INVALID"),
    ({"batch": BATCH(frames=[b"a"], offload_headers=bytes(19))}, "ATTACH_MESSAGE_INVALID"),
    ({"batch": BATCH(frames=[b"a"], trace_records=bytes(64))}, "ATTACH_MESSAGE_INVALID"),
    ({"state": STATE()}, "REQUEST_INVALID"),
    ({"state": STATE(mac_address="01:00:5e:00:00:05")}, "REQUEST_INVALID"),
    ({"state": STATE(mac_address="02:00:00:00:00:01", multicast_addresses=["02:00:00:00:00:05"])},
     "REQUEST_INVALID"),
    ({"state": STATE(mac_address="02:00:00:00:00:01", multicast_addresses=["x"] * 1025)}, "REQUEST_INVALID"),
)  # fmt: skip


async def test_a_wrong_message_ends_the_stream(start: Any) -> None:
    """Each has its reason, and the port is free afterwards."""
    running = await start()
    (port,) = await make_ports(running, "a")
    for message, reason in WRONG:
        a = await RingDevice(running, port.handle, queues=2).plug_in()
        a.send_message(rings_pb2.AttachDeviceRequest(**message))
        assert await reason_of(a.call.read()) == (grpc.StatusCode.INVALID_ARGUMENT, reason), message
