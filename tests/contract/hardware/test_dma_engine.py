"""The DMA engine as its driver sees it: rings, interrupts, the device page, refusals, resets in the middle."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lamina.hardware.v1 import devices_pb2 as pb
from lamina.hardware.v1 import devices_pb2_grpc
from lamina.hardware.v1 import iommu_pb2 as iommu
from tests.contract.hardware.conftest import power_on
from tests.contract.hardware.device_bench import (  # noqa: F401 (variant is a fixture)
    DMA0,
    PAGE,
    Driver,
    Owner,
    Tables,
    descriptor,
    reason,
    variant,
)

from lamina_kit.virtual.loop import VirtualLoop

pytestmark = pytest.mark.inside  # sessions, domains and the log of faults of a machine that nobody used before

MIB = 1 << 20
RING, SOURCE, TARGET = 0, 0x100_0000, 0x200_0000
DONE, REFUSED = 1, 2


class Engine:
    """A driven engine whose domain has a ring at 0 and source and target areas of 2 MiB."""

    def __init__(self, bench: Any, tables: Tables, driver: Driver) -> None:
        self.bench = bench
        self.tables = tables
        self.driver = driver
        self.ring_pa = bench.frames(2)
        self.source, self.target = 16 * MIB, 24 * MIB

    async def map(self) -> None:
        """Maps everything."""
        areas = ((RING, self.ring_pa, 2 * PAGE), (SOURCE, self.source, 2 * MIB), (TARGET, self.target, 2 * MIB))
        self.domain = await self.tables.mapped(*areas)

    def put(self, at: int, data: bytes, ring: int | None = None) -> None:
        """Writes descriptor `at` of a ring."""
        self.bench.bus.write((self.ring_pa if ring is None else ring) + 32 * at, data)

    def status(self, at: int) -> tuple[int, int]:
        """Returns status and bytes moved of a descriptor."""
        status, moved = struct.unpack("<II", self.bench.bus.read(self.ring_pa + 32 * at + 24, 8))
        return status, moved


@pytest.fixture
async def owner(bench: Any) -> AsyncIterator[Owner]:
    """Returns a session."""
    async with Owner(bench) as made:
        yield made


@pytest.fixture
async def engine(bench: Any, owner: Owner) -> AsyncIterator[Engine]:
    """Returns an engine with its driver."""
    async with Driver(bench, owner) as driver:
        made = Engine(bench, Tables(bench, owner), driver)
        await made.map()
        yield made


async def test_it_copies_and_interrupts(engine: Engine) -> None:
    """Descriptors in a ring are done in order; the last one raises the channel's vector; status and head tell."""
    bus = engine.bench.bus
    text = bytes(range(256)) * 300
    bus.write(engine.source + 5, text)
    engine.put(0, descriptor(SOURCE + 5, TARGET + 77, len(text), control=0))
    engine.put(1, descriptor(int.from_bytes(b"filling!", "little"), TARGET + MIB, 20, control=1 | 1 << 24))
    await engine.driver.ring(2)
    told = (await engine.driver.read()).interrupts
    assert (list(told.vectors), told.count) == ([0], 1)
    assert bus.read(engine.target + 77, len(text)) == text
    assert bus.read(engine.target + MIB, 24) == b"filling!filling!fill\0\0\0\0"
    assert (engine.status(0), engine.status(1)) == ((DONE, len(text)), (DONE, 20))
    assert engine.driver.page.head(0) == 2
    device = await devices_pb2_grpc.DevicesStub(engine.bench.channel).GetDevice(pb.GetDeviceRequest(name=DMA0))
    assert device.dma_transfers > 4


async def test_a_ring_of_ones_own_wraps(engine: Engine) -> None:
    """Address and size stand in the device page; the head goes round."""
    page = engine.driver.page
    page.set_ring(1, RING + PAGE, 4)
    for turn in range(6):
        at = turn % 4
        engine.put(at, descriptor(turn, TARGET + 8 * turn, 8, control=1 | 1 << 24), engine.ring_pa + PAGE)
        page.sleep_driver(1)
        page.set_tail(1, (at + 1) % 4)
        assert page.take_doorbell(1)
        await engine.driver.ring((at + 1) % 4, queue=1)
        assert list((await engine.driver.read()).interrupts.vectors) == [1]
        assert page.head(1) == (at + 1) % 4
    written = struct.unpack("<6Q", engine.bench.bus.read(engine.target, 48))
    assert written == tuple(range(6))


async def test_a_driver_that_is_awake_is_not_told(engine: Engine, eventually: Any) -> None:
    """Who writes the page and does not sleep sees the head move, and gets no message; who asks gets one."""
    page = engine.driver.page
    for at in range(4):
        engine.put(at, descriptor(at, TARGET, 8, control=1 | 1 << 24))
    for tail in (1, 2):
        page.set_tail(0, tail)
        page.take_doorbell(0)
        await engine.driver.ring(tail)
        await eventually(lambda tail=tail: page.head(0) == tail, "the copy")
    first = (await engine.driver.read()).interrupts  # the page asks for one at the begin
    assert first.count == 1
    page.sleep_driver(0)
    page.set_tail(0, 3)
    await engine.driver.ring(3)
    assert (await engine.driver.read()).interrupts.count == 1


async def test_masked_vectors_wait_and_merge(engine: Engine, eventually: Any) -> None:
    """Interrupts of masked vectors stay pending; unmasked they come in one message, vectors ascending."""
    driver = engine.driver
    await driver.stream.write(pb.DriveRequest(mask=pb.VectorMask(masked=[0, 3])))
    for queue in (3, 0):
        page = engine.driver.page
        page.set_ring(queue, RING + PAGE, 2)
    engine.put(0, descriptor(1, TARGET, 8, control=1 | 1 << 24), engine.ring_pa + PAGE)
    for queue in (3, 0):
        await driver.ring(1, queue=queue)
        await eventually(lambda queue=queue: driver.page.head(queue) == 1, "the copy")
    await driver.stream.write(pb.DriveRequest(mask=pb.VectorMask(unmasked=[3, 0])))
    told = (await driver.read()).interrupts
    assert (list(told.vectors), told.count) == ([0, 3], 2)


async def test_a_refused_address_stops_the_queue(engine: Engine, eventually: Any) -> None:
    """The fault is told over the stream, logged, and written into the descriptor; other channels go on; reset helps."""
    driver, outside = engine.driver, TARGET + 2 * MIB
    engine.put(0, descriptor(SOURCE, outside - 100, 200))
    engine.put(1, descriptor(SOURCE, TARGET, 8))
    await driver.ring(2)
    fault = (await driver.read()).fault
    assert (fault.queue, fault.iova, fault.write, fault.count) == (0, outside, True, 1)
    assert engine.status(0) == (REFUSED | iommu.DMA_OUTCOME_NOT_PRESENT << 8, 0)
    assert [(entry.iova, entry.write) for entry in await engine.tables.faults(DMA0)] == [(outside, True)]
    await driver.ring(2)
    driver.page.set_ring(2, RING + 32, 2)
    await driver.ring(1, queue=2)
    assert list((await driver.read()).interrupts.vectors) == [2]
    assert driver.page.head(0) == 0
    stub = devices_pb2_grpc.DevicesStub(engine.bench.channel)
    await stub.ResetDevice(pb.ResetDeviceRequest(name=DMA0), metadata=engine.tables.owner.metadata)
    engine.put(0, descriptor(SOURCE, TARGET, 8))
    await driver.ring(1)
    assert list((await driver.read()).interrupts.vectors) == [0]


@pytest.mark.parametrize(
    "bad",
    [
        descriptor(SOURCE, TARGET, 0),
        descriptor(SOURCE, TARGET, MIB + 1),
        descriptor(SOURCE, TARGET, 8, control=2 << 24),
        b"\xff" * 32,
    ],
    ids=["no-bytes", "too-many", "operation", "ones"],
)
async def test_a_malformed_descriptor_stops_the_queue(engine: Engine, eventually: Any, bad: bytes) -> None:
    """Its status says so, and nothing behind it is done."""
    engine.put(0, bad)
    engine.put(1, descriptor(SOURCE, TARGET, 8))
    await engine.driver.ring(2)
    await eventually(lambda: engine.status(0) == (REFUSED | 255 << 8, 0), "the refusal")
    assert engine.driver.page.head(0) == 0


async def test_hostile_words_in_the_page(engine: Engine, eventually: Any) -> None:
    """A ring of a size that is none, or a tail outside it that the page shows, stop the queue and harm nobody."""
    driver = engine.driver
    counts = engine.bench.environment.layer.events.counts
    for number, (address, size) in enumerate(((RING, 3), (RING + 8, 4), (RING, 1 << 31))):
        driver.page.set_ring(number, address, size)
        await driver.ring(1, queue=number)
        await eventually(lambda number=number: counts.get("queue.stopped", 0) == number + 1, "the stop")
    for at in range(64):
        engine.put(at, descriptor(SOURCE, TARGET, MIB, control=0))
    driver.page.set_tail(3, 64)
    await driver.ring(64, queue=3)
    await eventually(lambda: driver.page.head(3) > 0, "the first copy")
    driver.page.set_tail(3, 0xFFFF_FFF0)
    await eventually(lambda: counts.get("queue.stopped", 0) == 4, "the stop of the last")
    assert driver.page.head(3) < 64


async def test_a_hole_in_the_middle(engine: Engine) -> None:
    """A copy that meets what is not mapped stops there: bursts before it are moved, not a byte more is."""
    bus = engine.bench.bus
    bus.write(engine.source, b"\xaa" * MIB)
    await engine.tables.unmap(engine.domain, TARGET + 0x8_0000, 0x10_0000 - 0x8_0000)
    engine.put(0, descriptor(SOURCE, TARGET, MIB))
    await engine.driver.ring(1)
    fault = (await engine.driver.read()).fault
    assert fault.iova == TARGET + 0x8_0000
    assert engine.status(0) == (REFUSED | iommu.DMA_OUTCOME_NOT_PRESENT << 8, 0x8_0000)
    assert bus.read(engine.target, MIB) == b"\xaa" * 0x8_0000 + bytes(0x8_0000)


async def test_a_detach_in_the_middle(engine: Engine) -> None:
    """Once DetachDevice has returned the target does not change any more, whatever was under way."""
    bus = engine.bench.bus
    bus.write(engine.source, b"\xbb" * MIB)
    for at in range(8):
        engine.put(at, descriptor(SOURCE, TARGET, MIB, control=0))
    await engine.driver.ring(8)
    await engine.tables.detach()
    bus.write(engine.target, bytes(MIB))
    fault = (await engine.driver.read()).fault
    assert fault.count >= 1
    assert bus.read(engine.target, MIB) == bytes(MIB)
    assert (await engine.tables.faults())[0].outcome == iommu.DMA_OUTCOME_NO_DOMAIN


async def test_the_end_of_the_stream_in_the_middle(bench: Any, owner: Owner, eventually: Any) -> None:
    """A driver that goes leaves no DMA behind."""
    async with Driver(bench, owner) as driver:
        engine = Engine(bench, Tables(bench, owner), driver)
        await engine.map()
        bench.bus.write(engine.source, b"\xcc" * MIB)
        for at in range(8):
            engine.put(at, descriptor(SOURCE, TARGET, MIB, control=0))
        await driver.ring(8)
    await eventually(lambda: bench.environment.layer.events.counts.get("device.closed"), "the end of the driving")
    bench.bus.write(engine.target, bytes(MIB))
    async with Driver(bench, owner) as driver:
        assert driver.page.head(0) == 0
        assert await reason(engine.tables.read(TARGET, 1)) == ("PERMISSION_DENIED", "DMA_FAULT")
    assert bench.bus.read(engine.target, MIB) == bytes(MIB)


async def _history(folder: Path) -> str:
    """Runs copies, refusals and a detach in the middle; returns the machine's event log."""
    service, bench = await power_on(folder, "model", core_path="portable")
    async with Owner(bench) as owner, Driver(bench, owner) as driver:
        engine = Engine(bench, Tables(bench, owner), driver)
        await engine.map()
        for at in range(8):
            engine.put(at, descriptor(SOURCE, TARGET + at * 0x6_0000, 0x7_0000))
        await driver.ring(8)
        for _ in range(3):
            await driver.read()
        await engine.tables.detach()
        assert (await reason(engine.tables.read(0, 1)))[1] == "DMA_FAULT"
    await service.stop()
    return str(bench.environment.layer.events.json_lines())


@pytest.mark.real_time("makes virtual loops of its own")
def test_the_same_seed_gives_the_same_history(tmp_path: Path) -> None:
    """On the virtual clock two runs of one seed tell the same of devices, to the nanosecond."""
    logs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        logs.append(VirtualLoop(5, strict=True).run(_history(tmp_path / name)))
    assert logs[0] == logs[1]
    assert "dma.refused" in logs[0]
