"""Devices at rings in shared memory: frames both ways, doorbells, and peers that write what cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import mmap
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lamina.vswitch.v1 import rings_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.ring_device import ALL, SWITCH, RingDevice, counters, make_ports, rings
from tests.integration.vswitch.test_attach import BROADCAST, A, B, frame, reason_of
from tests.offload_frames import packet

from lamina_kit.layer.service import connect, serve
from lamina_vswitch.domain.port import ring_layout as layout
from lamina_vswitch.domain.port.ring_layout import Geometry, read_head
from lamina_vswitch.io.attachments.ring import DeviceRing
from lamina_vswitch.io.attachments.stream import Attachment
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.memory_ring import MemoryRing

pytestmark = pytest.mark.real_time("shared memory and doorbells of the machine")
HEADER = struct.Struct("<BBHHHHHHHI")


class Device:
    """A device at rings: its file mapped, its own doorbell."""

    def __init__(self, running: Any, handle: Any, bell: Path | None, **options: Any) -> None:
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self.bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.bell.setblocking(False)
        if bell is not None:
            self.bell.bind(str(bell))
            options["doorbell_path"] = str(bell)
        opening = rings_pb2.AttachRingOpen(handle=handle, **options)
        self._outgoing.put_nowait(rings_pb2.AttachRingRequest(open=opening))
        self.call = rings(running).AttachRing(self._requests())

    async def _requests(self) -> AsyncIterator[Any]:
        while (item := await self._outgoing.get()) is not None:
            yield item

    async def next(self) -> rings_pb2.AttachRingResponse:
        """Return the next message."""
        async with asyncio.timeout(100):  # the first ring may have to wait for code to be compiled
            response = await self.call.read()
        assert isinstance(response, rings_pb2.AttachRingResponse), "the stream has ended"
        return response

    async def plug_in(self) -> Device:
        """Wait until the ring is there, and map it."""
        self.opened = (await self.next()).opened
        with open(self.opened.file_path, "r+b") as file:  # noqa: ASYNC230 (a file in memory)
            self.memory = mmap.mmap(file.fileno(), self.opened.file_bytes)
        geometry = read_head(self.memory[:32])
        assert geometry is not None and geometry.file_bytes == self.opened.file_bytes
        self.geometry = geometry
        self.out = [MemoryRing(self.memory, geometry.to_switch(n), geometry) for n in range(geometry.queues)]
        self.into = [MemoryRing(self.memory, geometry.to_device(n), geometry) for n in range(geometry.queues)]
        return self

    def send(self, frames: list[bytes], queue: int = 0) -> int | None:
        """Write frames, and ring if the switch sleeps."""
        taken = self.out[queue].push(Burst.of(frames))
        self.ring(queue)
        return taken

    def ring(self, queue: int = 0) -> None:
        """Ring if the switch sleeps."""
        if self.out[queue].must_wake():
            self.bell.sendto(b"", self.opened.doorbell_path)

    async def receive(self, count: int, queue: int = 0) -> list[bytes]:
        """Return the next frames, asleep while there are none."""
        frames: list[bytes] = []
        async with asyncio.timeout(20):
            while len(frames) < count:
                found = self.into[queue].pop()
                assert found is not None
                frames += found
                if not found and not self.into[queue].lie_down():
                    await asyncio.get_running_loop().sock_recv(self.bell, 1)
        return frames

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        self._outgoing.put_nowait(None)


@pytest.fixture
async def unix(start: Any, manual_clock: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """Return a running service that is called within the process, or through a UNIX socket."""
    manual_clock.mode = "real"
    running = await start()
    if start.wire == "sockets":
        served = await serve(running.service, [f"unix:{tmp_path}/s"], running.state)
        running.channel = connect(served.addresses[0])
        yield running
        await served.stop(0)
    else:
        yield running


async def test_frames_pass_through_rings(unix: Any, tmp_path: Path) -> None:
    """Two devices at rings exchange thousands of frames in order, and sleep when there is nothing to do."""
    ports = await make_ports(unix, "a", "b")
    a = await Device(unix, ports[0].handle, tmp_path / "a").plug_in()
    b = await Device(unix, ports[1].handle, tmp_path / "b").plug_in()
    assert (a.opened.port, a.opened.mtu_bytes, a.opened.link) == (f"{SWITCH}/ports/a", 1500, pb.LINK_UP)
    assert (a.geometry.queues, a.geometry.slots, a.geometry.slot_bytes) == (1, 1024, 2048)
    assert Path(a.opened.file_path).stat().st_mode & 0o777 == 0o600  # noqa: ASYNC240 (of the machine's memory)
    for turn in range(5):
        sent = [frame(BROADCAST, A, f"{turn} {number}") for number in range(900)]
        assert a.send(sent) == 900
        assert await b.receive(900) == sent
        assert b.send([frame(A, B, str(turn))]) == 1
        assert await a.receive(1) == [frame(A, B, str(turn))]
    assert await counters(unix, ports[1]) == (4500, {})


async def test_rings_and_streams_meet(unix: Any, tmp_path: Path, eventually: Any) -> None:
    """A long TCP packet with its header and trace passes from a stream to a ring and back as it is."""
    ports = await make_ports(unix, "a", "b")
    a = await Device(unix, ports[0].handle, tmp_path / "a", offloads=ALL).plug_in()
    b = await RingDevice(unix, ports[1].handle, offloads=ALL, traces=True).plug_in()
    assert a.geometry.slot_bytes == 65664
    long, record = packet(4, 6, bytes(60_000)), bytes(range(32))
    header = HEADER.pack(1, 1, 54, 1446, 34, 16, 0, 0, 0, 0)
    b.send([frame(BROADCAST, A), long], offload_headers=bytes(20) + header, trace_records=bytes(32) + record)
    await eventually(lambda: a.into[0].waiting() == 2, "two frames wait")
    burst = a.into[0].peek(2)
    assert burst is not None and burst.frame(0) == frame(BROADCAST, A)
    at = a.geometry.to_device(0) + layout.FIRST_SLOT + a.geometry.slot_bytes
    slot = a.memory[at : at + a.geometry.slot_bytes]
    assert slot[:4] == len(long).to_bytes(4, "little") and slot[16:36] == header and slot[64:96] == record
    assert slot[128 : 128 + len(long)] == long
    back = a.geometry.to_switch(0) + layout.FIRST_SLOT
    a.memory[back : back + len(slot)] = slot
    index = a.geometry.to_switch(0)
    a.memory[index : index + 4] = (1).to_bytes(4, "little")
    a.ring()
    batch = (await b.next()).batch
    assert (list(batch.frames), batch.offload_headers, batch.trace_records) == ([long], header, record)


async def test_a_full_ring_is_counted(unix: Any, device: Any, tmp_path: Path) -> None:
    """What has no slot, and what is longer than one, is dropped at the port, and the ring says how many."""
    ports = await make_ports(unix, "a", "b", mtu_bytes=9000)
    a = await Device(unix, ports[0].handle, tmp_path / "a", slots=64).plug_in()
    b = await device(unix.ports, ports[1].handle, completions=True).plug_in()
    sent = [frame(BROADCAST, B, str(number)) for number in range(70)]
    b.send([frame(BROADCAST, B) + bytes(4000), *sent])
    await b.next()
    assert await a.receive(64) == sent[:64]
    assert await counters(unix, ports[0]) == (64, {"QUEUE_FULL": 7})
    at = a.geometry.to_device(0) + layout.DROPPED
    assert int.from_bytes(a.memory[at : at + 8], "little") == 7


async def test_a_doorbell_that_is_none_any_more_hurts_nobody_else(unix: Any, device: Any, tmp_path: Path) -> None:
    """A device that puts something else where its doorbell was gets its frames, and their sender notices nothing."""
    ports = await make_ports(unix, "a", "b")
    a = await Device(unix, ports[0].handle, tmp_path / "a").plug_in()
    b = await device(unix.ports, ports[1].handle, completions=True).plug_in()
    assert a.into[0].lie_down() == 0
    (tmp_path / "a").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(tmp_path / "a"))
        other.listen()
        b.send([frame(BROADCAST, B)])
        assert (await b.next()).completion.frames == 1
    assert a.into[0].pop() == [frame(BROADCAST, B)]
    a.finish()


async def test_flows_keep_to_their_queues(unix: Any, device: Any, tmp_path: Path) -> None:
    """Frames to a device with queues are spread by flow, and all its queues are read."""
    ports = await make_ports(unix, "a", "b")
    a = await Device(unix, ports[0].handle, tmp_path / "a", queues=4).plug_in()
    b = await device(unix.ports, ports[1].handle).plug_in()
    flows = [packet(4, 17, b"x")[:34] + struct.pack(">HHHH", port, 2, 9, 0) + b"x" for port in range(32)]
    b.send(flows)
    found: list[list[bytes]] = [[], [], [], []]
    async with asyncio.timeout(20):
        while sum(map(len, found)) < 32:
            for queue in range(4):
                found[queue] += a.into[queue].pop() or []
            await asyncio.sleep(0)
    assert all(found) and sorted(each for queue in found for each in queue) == sorted(flows)
    for queue in range(4):
        a.send([frame(BROADCAST, A, str(queue))], queue)
    assert sorted(await b.receive(4)) == [frame(BROADCAST, A, str(queue)) for queue in range(4)]


async def test_the_end_of_a_ring(unix: Any, device: Any, tmp_path: Path) -> None:
    """Link changes are told; a device that finishes leaves no files, and its port is free; a deleted port ends it."""
    ports = await make_ports(unix, "a")
    a = await Device(unix, ports[0].handle, None).plug_in()
    request = pb.UpdatePortRequest(port=pb.Port(name=ports[0].name, link=pb.LINK_DOWN))
    await unix.ports.UpdatePort(request)
    assert (await a.next()).link.link == pb.LINK_DOWN
    a.finish()
    async with asyncio.timeout(20):
        assert await a.call.read() is grpc.aio.EOF
    assert not any(Path(path).exists() for path in (a.opened.file_path, a.opened.doorbell_path))  # noqa: ASYNC240
    again = await Device(unix, ports[0].handle, None).plug_in()
    second = device(unix.ports, ports[0].handle)
    assert await reason_of(second.call.read()) == (grpc.StatusCode.FAILED_PRECONDITION, "PORT_ATTACHED")
    await unix.ports.DeletePort(pb.DeletePortRequest(name=ports[0].name))
    assert await reason_of(again.call.read()) == (grpc.StatusCode.ABORTED, "PORT_DELETED")


async def test_what_was_written_before_the_end_is_switched(unix: Any, device: Any, tmp_path: Path) -> None:
    """A device writes to all its queues, rings at nobody and ends its side: all of it arrives, then the stream ends."""
    ports = await make_ports(unix, "a", "b")
    a = await Device(unix, ports[0].handle, tmp_path / "a", queues=2).plug_in()
    b = await device(unix.ports, ports[1].handle, queue_frames=4096).plug_in()
    sent = [[frame(BROADCAST, A, f"{queue} {number}") for number in range(1000)] for queue in range(2)]
    for queue in range(2):
        assert a.out[queue].push(Burst.of(sent[queue])) == 1000
    a.finish()
    async with asyncio.timeout(20):
        assert await a.call.read() is grpc.aio.EOF
    assert await b.receive(2000) == sent[0] + sent[1]


@pytest.mark.parametrize("ending", ["finished", "refused"])
async def test_a_ring_that_ended_keeps_no_memory(unix: Any, eventually: Any, ending: str) -> None:
    """The memory of a ring is gone with its stream, and does not wait for a collection of garbage."""
    (port,) = await make_ports(unix, "a")
    gc.disable()
    try:
        a = Device(unix, port.handle, None)
        path = (await a.next()).opened.file_path
        assert path in _mapped()
        a._outgoing.put_nowait(None if ending == "finished" else rings_pb2.AttachRingRequest())
        with contextlib.suppress(grpc.aio.AioRpcError):
            assert await a.call.read() is grpc.aio.EOF
        await eventually(lambda: path not in _mapped(), "the memory is given back")
    finally:
        gc.enable()


def _mapped() -> str:
    """Return the names of the files that are in this process's memory."""
    return Path("/proc/self/maps").read_text()


def spoil(what: str) -> Callable[[Device], None]:
    """Return what writes into a device's rings what cannot be."""

    def write(a: Device) -> None:
        out, into = a.geometry.to_switch(0), a.geometry.to_device(0)
        if what == "producer":
            a.memory[out : out + 4] = (5000).to_bytes(4, "little")
        elif what == "length":
            a.memory[out + layout.FIRST_SLOT : out + layout.FIRST_SLOT + 4] = (1921).to_bytes(4, "little")
            a.memory[out : out + 4] = (1).to_bytes(4, "little")
        else:
            a.memory[into + 64 : into + 68] = (9).to_bytes(4, "little")
        a.ring()

    return write


@pytest.mark.parametrize("what", ["producer", "length", "consumer"])
async def test_a_corrupt_ring_ends_its_stream(unix: Any, device: Any, tmp_path: Path, what: str) -> None:
    """Indices too far apart, lengths beyond the slot: the stream ends, the port is free, and others notice nothing."""
    ports = await make_ports(unix, "a", "b")
    a = await Device(unix, ports[0].handle, tmp_path / "a").plug_in()
    b = await device(unix.ports, ports[1].handle).plug_in()
    await asyncio.sleep(0)
    spoil(what)(a)
    b.send([frame(BROADCAST, B)])
    async with asyncio.timeout(20):
        assert await reason_of(a.call.read()) == (grpc.StatusCode.DATA_LOSS, "RING_CORRUPT")
    again = await Device(unix, ports[0].handle, tmp_path / "again").plug_in()
    again.send([frame(BROADCAST, A)])
    assert await b.receive(1) == [frame(BROADCAST, A)]


async def test_mistakes_have_reasons(unix: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes out of range, a doorbell that nobody hears, too much memory, wrong messages."""
    (port,) = await make_ports(unix, "a")
    invalid = (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")
    for options in (
        {"slots": 100}, {"slots": 32}, {"slots": 1 << 17}, {"slot_bytes": 2047}, {"slot_bytes": 2100}, {"queues": 17},
        {"slot_bytes": 65728}, {"queues": -1}, {"slots": -64}, {"doorbell_path": "a"}, {"doorbell_path": "/no/such"},
    ):  # fmt: skip
        assert await reason_of(Device(unix, port.handle, None, **options).call.read()) == invalid, options
    full = Device(unix, port.handle, None, queues=16, slots=65536).call.read()
    assert await reason_of(full) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RING_MEMORY_FULL")

    async def requests() -> Any:
        yield rings_pb2.AttachRingRequest(state=rings_pb2.DeviceState())

    found = await reason_of(rings(unix).AttachRing(requests()).read())
    assert found == (grpc.StatusCode.INVALID_ARGUMENT, "ATTACH_NOT_OPENED")
    a = await Device(unix, port.handle, None).plug_in()
    a._outgoing.put_nowait(rings_pb2.AttachRingRequest())
    assert await reason_of(a.call.read()) == (grpc.StatusCode.INVALID_ARGUMENT, "ATTACH_MESSAGE_INVALID")
    await unix.ports.DeletePort(pb.DeletePortRequest(name=port.name))
    stale = Device(unix, port.handle, None).call.read()
    assert await reason_of(stale) == (grpc.StatusCode.FAILED_PRECONDITION, "HANDLE_STALE")


async def test_rings_are_of_one_machine_and_of_its_time(start: Any, manual_clock: Any) -> None:
    """A caller over TCP is refused, and so is every caller on a clock that is not the machine's."""
    running = await start()
    (port,) = await make_ports(running, "a")
    expected = "NOT_SAME_MACHINE" if start.wire == "sockets" else "CLOCK_VIRTUAL"
    call = Device(running, port.handle, None).call.read()
    assert await reason_of(call) == (grpc.StatusCode.FAILED_PRECONDITION, expected)


async def test_stopping_the_service_ends_rings(unix: Any) -> None:
    """A device learns that the service stops."""
    (port,) = await make_ports(unix, "a")
    a = await Device(unix, port.handle, None).plug_in()
    await unix.service.stop()
    assert await reason_of(a.call.read()) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_STOPPING")


@given(st.binary(max_size=6000), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_of_a_ring_reach_beyond_it(garbage: bytes, producer: int, consumer: int) -> None:
    """Whatever a peer writes, frames of a ring lie in its slots, and what is written to it stays in it."""
    geometry = Geometry(1, 64, 2048)
    guard = 4096
    memory = bytearray(geometry.ring_bytes + 2 * guard)
    memory[guard : guard + len(garbage)] = garbage
    memory[guard : guard + 4] = producer.to_bytes(4, "little")
    memory[guard + 64 : guard + 68] = consumer.to_bytes(4, "little")
    ring = MemoryRing(memory, guard, geometry)
    found = ring.pop()
    if found is not None:
        assert len(found) <= 64 and all(len(each) <= geometry.frame_bytes for each in found)
    broken: list[bool] = []
    sink = DeviceRing(ring, Attachment("p", 1), lambda: None, lambda: broken.append(True))
    taken = sink.deliver([frame(A, B, "x")] * 70)
    assert 0 <= taken <= 64 and (taken == 0 or not broken)
    assert bytes(memory[:guard]) == bytes(guard) == bytes(memory[-guard:])
