"""Ports that hold their frames while the device moves, at the source and at the destination."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from lamina.common.v1 import handle_pb2
from lamina.vswitch.v1 import rings_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.ring_device import ALL, RingDevice, counters, make_ports, rings
from tests.integration.vswitch.test_attach import BROADCAST, A, B, frame, reason_of

OPEN = rings_pb2.ReleasePortOpen
DISCARD = OPEN.DISPOSITION_DISCARD


async def hold(running: Any, port: pb.Port, frames: int = 0) -> int:
    """Hold a port; return how many frames were in its device's queue."""
    request = rings_pb2.QuiescePortRequest(handle=port.handle, hold_frames=frames)
    held: int = (await rings(running).QuiescePort(request)).held_frames
    return held


async def release(running: Any, port: pb.Port, *batches: Sequence[bytes], **options: Any) -> tuple[int, int]:
    """End a hold; return how many frames were delivered and dropped."""

    async def requests() -> Any:
        yield rings_pb2.ReleasePortRequest(open=OPEN(handle=port.handle, **options))
        for batch in batches:
            yield rings_pb2.ReleasePortRequest(batch=rings_pb2.DeviceBatch(frames=batch))

    found = await rings(running).ReleasePort(requests())
    return found.delivered_frames, found.dropped_frames


async def take(running: Any, port: pb.Port) -> list[bytes]:
    """Return all that a port holds."""
    request = rings_pb2.TakeHeldFramesRequest(handle=port.handle)
    return [got async for answer in rings(running).TakeHeldFrames(request) for got in answer.batch.frames]


def numbered(count: int, first: int = 0) -> list[bytes]:
    """Return broadcasts of A with numbers in them."""
    return [frame(BROADCAST, A, f"{number:04}") for number in range(first, first + count)]


async def switched(a: Any, frames: Sequence[bytes]) -> None:
    """Send frames and wait until they went through the switch."""
    a.send(frames)
    while not (await a.next()).HasField("completion"):
        pass


async def test_what_is_held_comes_after_the_release(start: Any, device: Any) -> None:
    """Nothing reaches a held device; what it sends is switched; the release delivers all in order, then new frames."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await device(running.ports, ports[0].handle, completions=True).plug_in()
    b = await device(running.ports, ports[1].handle).plug_in()
    b.send([frame(BROADCAST, B)])
    assert await a.receive(1) == [frame(BROADCAST, B)]
    assert await hold(running, ports[1]) == 0
    await switched(a, numbered(600))
    b.send([frame(A, B, "still heard")])
    assert await a.receive(1) == [frame(A, B, "still heard")]
    assert await release(running, ports[1]) == (600, 0)
    await switched(a, numbered(1, 600))
    assert await b.receive(601) == numbered(601)
    assert await counters(running, ports[1]) == (601, {})


async def test_the_queue_of_the_device_is_held_too(start: Any, manual_clock: Any) -> None:
    """What waited for the device when the port was held is held first, and counted once."""
    running = await start()
    (port,) = await make_ports(running, "a")
    engine, slot = running.service._catalog.engine, port.handle.id
    a = await RingDevice(running, port.handle).plug_in()
    engine.give(slot, numbered(3), 0)
    held = running.service._catalog.engine.quiesce(slot, 100, 0)  # before the stream had a turn to send
    assert held == 3 and await hold(running, port) == 3
    assert await release(running, port) == (3, 0)
    assert await a.receive(3) == numbered(3)
    assert await counters(running, port) == (3, {})


async def test_a_hold_is_bounded_and_can_be_raised(start: Any, device: Any) -> None:
    """More than a port may hold is dropped as HOLD_FULL; a second call raises the bound and never lowers it."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await device(running.ports, ports[0].handle, completions=True).plug_in()
    await hold(running, ports[1], 10)
    await hold(running, ports[1], 2)
    await switched(a, numbered(15))
    assert await counters(running, ports[1]) == (0, {"HOLD_FULL": 5})
    await hold(running, ports[1], 12)
    await switched(a, numbered(5, 15))
    assert await take(running, ports[1]) == numbered(10) + numbered(2, 15)
    assert await counters(running, ports[1]) == (0, {"HOLD_FULL": 8})


async def test_the_bytes_of_all_holds_are_bounded(start: Any, monkeypatch: pytest.MonkeyPatch, device: Any) -> None:
    """A host that holds as much as it may refuses further holds, and drops what is too much for those that it has."""
    monkeypatch.setattr("lamina_vswitch.engines.model.egress.MAX_HELD_BYTES", 600)
    running = await start()
    ports = await make_ports(running, "a", "b", "c")
    a = await device(running.ports, ports[0].handle, completions=True).plug_in()
    await hold(running, ports[1])
    await switched(a, numbered(15))
    assert await counters(running, ports[1]) == (0, {"HOLD_FULL": 5})
    full = (grpc.StatusCode.RESOURCE_EXHAUSTED, "HOLD_MEMORY_FULL")
    assert await reason_of(hold(running, ports[2])) == full
    assert len(await take(running, ports[1])) == 10
    await hold(running, ports[2])


async def test_a_migration_loses_nothing(start: Any, device: Any) -> None:
    """Source frames first, then those of the destination's hold, then new ones; the new place is announced."""
    running = await start()
    sender, source, target = await make_ports(running, "a", "source", "target")
    a = await device(running.ports, sender.handle, completions=True).plug_in()
    old = await RingDevice(running, source.handle).plug_in()
    old.send([frame(BROADCAST, B)])
    assert await a.receive(1) == [frame(BROADCAST, B)]
    await hold(running, target)
    await hold(running, source)
    await switched(a, [frame(B, A, str(number)) for number in range(5)])
    old.call.cancel()
    await switched(a, [frame(B, A, "late")])
    taken = await take(running, source)
    assert taken == [frame(B, A, str(number)) for number in range(5)] + [frame(B, A, "late")]
    new = await RingDevice(running, target.handle).plug_in()
    await switched(a, numbered(1))
    released = await release(running, target, taken[:2], taken[2:], announce_mac_addresses=["02:00:00:00:00:02"])
    assert released == (7, 0)
    assert await new.receive(7) == taken + numbered(1)
    announced = (await a.receive(1))[0]
    assert announced[:14] == BROADCAST + B + b"\x80\x35" and announced[20:28] == b"\x00\x03" + B
    await switched(a, [frame(B, A, "new place")])
    assert await new.receive(1) == [frame(B, A, "new place")]


async def test_followed_frames_come_until_the_hold_ends(start: Any, device: Any) -> None:
    """A stream that follows gets late frames as they come, and ends with OK at the release or with the port."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await device(running.ports, ports[0].handle, completions=True).plug_in()
    for ending in ("release", "delete"):
        await hold(running, ports[1])
        request = rings_pb2.TakeHeldFramesRequest(handle=ports[1].handle, follow=True)
        call = rings(running).TakeHeldFrames(request)
        for turn in range(2):
            await switched(a, numbered(2, turn))
            async with asyncio.timeout(10):
                assert list((await call.read()).batch.frames) == numbered(2, turn)
        if ending == "release":
            assert await release(running, ports[1], disposition=DISCARD) == (0, 0)
        else:
            await running.ports.DeletePort(pb.DeletePortRequest(name=ports[1].name))
        async with asyncio.timeout(10):
            assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_held_frames_can_be_discarded(start: Any, device: Any) -> None:
    """They are counted as DISCARDED, with those that the caller brings, and a port without a device is down again."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await device(running.ports, ports[0].handle, completions=True).plug_in()
    await hold(running, ports[1])
    await switched(a, numbered(3))
    assert await release(running, ports[1], numbered(2), disposition=DISCARD) == (0, 5)
    assert await counters(running, ports[1]) == (0, {"DISCARDED": 5})
    await switched(a, numbered(1))
    assert (await counters(running, ports[0]))[1] == {"NO_DESTINATION": 1}


async def test_a_release_can_be_repeated(start: Any) -> None:
    """On a port that is not held it delivers what the caller brings; what the queue has no room for is lost."""
    running = await start()
    (port,) = await make_ports(running, "a")
    a = await RingDevice(running, port.handle, queue_frames=4).plug_in()
    await hold(running, port)
    assert await release(running, port, numbered(2)) == (2, 0)
    assert await a.receive(2) == numbered(2)
    assert await release(running, port, numbered(6)) == (4, 2)
    assert await a.receive(4) == numbered(4)


async def test_a_hold_survives_the_device(start: Any, device: Any) -> None:
    """A device that detaches leaves its addresses in the MAC table while its port is held."""
    running = await start()
    ports = await make_ports(running, "a", "b")
    a = await device(running.ports, ports[0].handle).plug_in()
    b = await device(running.ports, ports[1].handle).plug_in()
    b.send([frame(BROADCAST, B)])
    await a.receive(1)
    await hold(running, ports[1])
    b.finish()
    assert await b.call.read() is grpc.aio.EOF
    table = await running.switches.ListMacEntries(pb.ListMacEntriesRequest(parent="hosts/h1/switches/s1"))
    assert [entry.mac_address for entry in table.mac_entries] == ["02:00:00:00:00:02"]


async def test_mistakes_have_reasons(start: Any) -> None:
    """Stale handles, ports that are not held or have no device, wrong sizes, wrong messages."""
    running = await start()
    (port,) = await make_ports(running, "a")
    precondition, invalid = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
    stale = pb.Port(handle=handle_pb2.Handle(id=9, generation=1))
    assert await reason_of(hold(running, stale)) == (precondition, "HANDLE_STALE")
    assert await reason_of(take(running, stale)) == (precondition, "HANDLE_STALE")
    assert await reason_of(release(running, stale)) == (precondition, "HANDLE_STALE")
    assert await reason_of(take(running, port)) == (precondition, "PORT_NOT_HELD")
    assert await reason_of(release(running, port)) == (precondition, "PORT_DETACHED")
    assert await reason_of(hold(running, port, 65537)) == (invalid, "REQUEST_INVALID")
    assert await reason_of(hold(running, port, -1)) == (invalid, "REQUEST_INVALID")
    wrong = release(running, port, announce_mac_addresses=["ff:ff:ff:ff:ff:ff"])
    assert await reason_of(wrong) == (invalid, "REQUEST_INVALID")
    wrong = release(running, port, announce_mac_addresses=["02:00:00:00:00:02"] * 65)
    assert await reason_of(wrong) == (invalid, "REQUEST_INVALID")
    await RingDevice(running, port.handle).plug_in()
    assert await reason_of(release(running, port, [b""] * 4097)) == (invalid, "BATCH_TOO_LARGE")


@pytest.mark.parametrize("kinds", [[], ["batch"], ["open", "open"]])
async def test_a_release_is_opened_once(start: Any, kinds: list[str]) -> None:
    """The first message says which port, and only that one does."""
    running = await start()
    (port,) = await make_ports(running, "a")
    await RingDevice(running, port.handle).plug_in()
    made: dict[str, Any] = {"open": OPEN(handle=port.handle), "batch": rings_pb2.DeviceBatch()}

    async def requests() -> Any:
        for kind in kinds:
            yield rings_pb2.ReleasePortRequest(**{kind: made[kind]})

    call = rings(running).ReleasePort(requests())
    assert await reason_of(call) == (grpc.StatusCode.INVALID_ARGUMENT, "RELEASE_NOT_OPENED")


async def test_tags_beside_held_frames_are_not_lost(start: Any) -> None:
    """A device that takes its tags beside the frames gets another's place: what waited for it has the tags in it."""
    running = await start()
    (port,) = await make_ports(running, "a")
    engine, slot = running.service._catalog.engine, port.handle.id
    tagged = [frame(BROADCAST, A, text)[:12] + b"\x81\x00\x00\x07" + frame(BROADCAST, A, text)[12:] for text in "ab"]
    first = await RingDevice(running, port.handle, offloads=ALL).plug_in()
    engine.give(slot, tagged, 0)
    assert engine.quiesce(slot, 100, 0) == 2  # before the stream had a turn to send
    first.call.cancel()
    async with asyncio.timeout(10):
        while engine.attached(slot):  # noqa: ASYNC110 (it tells when it is asked)
            await asyncio.sleep(0)
    second = await RingDevice(running, port.handle).plug_in()
    assert await release(running, port) == (2, 0)
    assert await second.receive(2) == tagged
