"""What tests of NICs share: drivers with rings and buffers in RAM, reached through domains of the IOMMU."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from google.protobuf import field_mask_pb2
from lamina.hardware.v1 import devices_pb2, nics_pb2_grpc, wires_pb2_grpc
from lamina.hardware.v1 import nics_pb2 as pb
from lamina.hardware.v1 import wires_pb2 as wires
from tests.contract.hardware.device_bench import Driver, Owner, Tables

from lamina_hardware.domain.nic.descriptors import (
    TransmitContext,
    TransmitData,
    context_descriptor,
    data_descriptor,
)

NIC0, NIC1 = "hosts/h1/nics/nic0", "hosts/h1/nics/nic1"
WIRE = "hosts/h1/wires/w"
RX_RING, TX_RING, RX_BUFFERS, TX_BUFFERS = 0x0, 0x4000, 0x10_0000, 0x80_0000
RING_BYTES, BUFFERS_BYTES = 0x8000, 0x10_0000
SIZE = 256
BUFFER = 2048
OFFLOADS = pb.Offloads(
    receive_checksum=True,
    transmit_checksum=True,
    segmentation=True,
    receive_coalescing=True,
    vlan_strip=True,
    vlan_insert=True,
)


def nics(bench: Any) -> Any:
    """Returns the stub."""
    return nics_pb2_grpc.NicsStub(bench.channel)


def wire_stub(bench: Any) -> Any:
    """Returns the stub."""
    return wires_pb2_grpc.WiresStub(bench.channel)


def mask(*paths: str) -> field_mask_pb2.FieldMask:
    """Returns a mask."""
    return field_mask_pb2.FieldMask(paths=paths)


class NicDriver:
    """The driver of one NIC: receive queue n and transmit queue n for n below `queues`."""

    def __init__(self, bench: Any, name: str, owner: Owner, driver: Driver, queues: int) -> None:
        self.bench, self.name, self.owner, self.driver = bench, name, owner, driver
        self.queues = queues
        self.stub = nics(bench)
        self.tails = [0] * 2 * queues
        self.seen = [0] * queues
        self._room = [0] * queues

    async def set_up(self, moderation_ns: int = 0, buffer: int = BUFFER) -> None:
        """Maps rings and buffers, configures the queues, and fills the receive rings."""
        bench, queues, self.buffer = self.bench, self.queues, buffer
        self.tables = Tables(bench, self.owner)
        self.rings = bench.frames(RING_BYTES * queues // 4096)
        self.received = bench.frames(BUFFERS_BYTES * queues // 4096)
        self.sending = bench.frames(BUFFERS_BYTES * queues // 4096)
        device = self.name.replace("/nics/", "/devices/")
        self.domain = await self.tables.mapped(
            (0, self.rings, RING_BYTES * queues),
            (RX_BUFFERS, self.received, BUFFERS_BYTES * queues),
            (TX_BUFFERS, self.sending, BUFFERS_BYTES * queues),
            device=device,
        )
        await self.configure(moderation_ns, buffer)

    async def configure(self, moderation_ns: int = 0, buffer: int = BUFFER) -> None:
        """Configures all queues anew and fills the receive rings."""
        wanted = []
        for n in range(self.queues):
            base = n * RING_BYTES
            more = {"vector": n, "moderation_ns": moderation_ns, "descriptors": SIZE}
            wanted.append(pb.Queue(number=2 * n, ring_iova=base + RX_RING, buffer_bytes=buffer, **more))  # type: ignore[arg-type]
            wanted.append(pb.Queue(number=2 * n + 1, ring_iova=base + TX_RING, **more))  # type: ignore[arg-type]
        request = pb.ConfigureQueuesRequest(nic=self.name, queues=wanted)
        await self.stub.ConfigureQueues(request, metadata=self.owner.metadata)
        self.tails = [0] * 2 * self.queues
        self.seen = [0] * self.queues
        for n in range(self.queues):
            for at in range(SIZE):
                place = RX_BUFFERS + n * BUFFERS_BYTES + at * buffer % BUFFERS_BYTES
                self._put(n, RX_RING, at, place.to_bytes(16, "little"))
            await self.driver.ring(SIZE - 1, 2 * n)

    def _put(self, queue: int, ring: int, at: int, raw: bytes) -> None:
        self.bench.bus.write(self.rings + queue * RING_BYTES + ring + 16 * at, raw)

    async def update(self, *paths: str, **fields: Any) -> pb.Nic:
        """Changes settings."""
        request = pb.UpdateNicRequest(nic=pb.Nic(name=self.name, **fields), update_mask=mask(*(paths or fields)))
        changed: pb.Nic = await self.stub.UpdateNic(request, metadata=self.owner.metadata)
        return changed

    async def send(self, *frames: bytes, queue: int = 0, context: TransmitContext | None = None, **flags: Any) -> None:
        """Puts frames into a transmit ring and rings."""
        for frame in frames:
            if context is not None:
                self._next(queue, context_descriptor(context))
            place = self._room[queue] if self._room[queue] + len(frame) <= BUFFERS_BYTES else 0
            self._room[queue] = place + len(frame)
            self.bench.bus.write(self.sending + queue * BUFFERS_BYTES + place, frame)
            iova = TX_BUFFERS + queue * BUFFERS_BYTES + place
            for at in range(0, len(frame), 0xFFFF):
                part = min(0xFFFF, len(frame) - at)
                is_last = at + part == len(frame)
                asked = {"insert_vlan": False, "segment": False, "ip_sum": False, "l4_sum": False, "payload_bytes": 0}
                data = TransmitData(iova + at, part, is_last, is_last, **{**asked, **flags})
                self._next(queue, data_descriptor(data))
        await self.driver.ring(self.tails[2 * queue + 1], 2 * queue + 1)

    def _next(self, queue: int, raw: bytes) -> None:
        tail = self.tails[2 * queue + 1]
        self._put(queue, TX_RING, tail, raw)
        self.tails[2 * queue + 1] = (tail + 1) % SIZE

    def fetch(self, queue: int = 0) -> list[tuple[bytes, bytes]]:
        """Returns what came since the last time: (the last written descriptor, the whole frame)."""
        found: list[tuple[bytes, bytes]] = []
        parts = b""
        while True:
            place = self.rings + queue * RING_BYTES + RX_RING + 16 * self.seen[queue]
            written = self.bench.bus.read(place, 16)
            status = int.from_bytes(written[8:12], "little")
            if not status & 1:
                return found
            size = int.from_bytes(written[12:14], "little")
            at = self.seen[queue] * self.buffer % BUFFERS_BYTES
            parts += self.bench.bus.read(self.received + queue * BUFFERS_BYTES + at, size)
            self.seen[queue] += 1
            if status & 2:
                found.append((written, parts))
                parts = b""

    async def news(self, kind: str) -> Any:
        """Returns the next message of a kind; others before it are passed over."""
        while True:
            response: devices_pb2.DriveResponse = await self.driver.read()
            if response.WhichOneof("message") == kind:
                return getattr(response, kind)

    async def counters(self) -> pb.NicCounters:
        """Returns the NIC's counters."""
        found: pb.NicCounters = await self.stub.GetNicCounters(pb.GetNicCountersRequest(nic=self.name))
        return found

    async def queue(self, number: int) -> pb.Queue:
        """Returns a ring."""
        listed = await self.stub.ListQueues(pb.ListQueuesRequest(nic=self.name))
        found: pb.Queue = next(queue for queue in listed.queues if queue.number == number)
        return found


@asynccontextmanager
async def driven(bench: Any, name: str, queues: int = 1, **setup: Any) -> AsyncIterator[NicDriver]:
    """Drives a NIC in a session of its own."""
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(Owner(bench, f"h1/{name[-4:]}"))
        driver = await stack.enter_async_context(Driver(bench, owner, name.replace("/nics/", "/devices/")))
        nic = NicDriver(bench, name, owner, driver, queues)
        await nic.set_up(**setup)
        yield nic


async def make_wire(bench: Any, *on: str, wire_id: str = "w", **wish: Any) -> wires.Wire:
    """Makes a wire and puts NICs on it."""
    stub = wire_stub(bench)
    made: wires.Wire = await stub.CreateWire(wires.CreateWireRequest(wire_id=wire_id, wire=wires.Wire(**wish)))
    for nic in on:
        await stub.ConnectNic(wires.ConnectNicRequest(nic=nic, wire=made.name))
    return made


async def address_of(bench: Any, name: str) -> bytes:
    """Returns a NIC's address."""
    return bytes.fromhex((await nics(bench).GetNic(pb.GetNicRequest(name=name))).mac_address.replace(":", ""))
