"""Dirty logs: every store is seen, by whomever, exactly as often as it matters."""

from __future__ import annotations

import random
from typing import Any

import pytest
from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import dirty_log_pb2 as pb
from lamina.hardware.v1 import hardware_pb2 as hw
from tests.contract.hardware.device_bench import Driver, Owner, Tables, reason

pytestmark = pytest.mark.inside  # sessions, domains and the log of faults of a machine that nobody used before

PAGE = 4096
RAM = 64 << 20
DATA = 0x600000
KERNEL = 0xFFFF_8000_0000_0000
KERNEL_DATA = KERNEL + 0x10000
STORE_FOREVER = bytes.fromhex("48891febfb")  # 1: mov [rdi], rbx; jmp 1b
COUNT_AND_HALT = b"\x48\xbb" + KERNEL_DATA.to_bytes(8, "little") + bytes.fromhex("48ff03f4")  # mov rbx; inc [rbx]; hlt
Range = pb.StartDirtyLogRequest.PhysicalRange


class Log:
    """A log over ranges of RAM."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.log = pb.DirtyLog()

    async def start(self, *ranges: tuple[int, int], **more: Any) -> Log:
        """Starts it; without ranges over all of RAM."""
        wanted = [Range(address=at, size_bytes=size) for at, size in ranges or ((0, RAM),)]
        self.log = await self.bench.memory.StartDirtyLog(pb.StartDirtyLogRequest(ranges=wanted, **more))
        return self

    async def read(self, clear: bool = True) -> list[int]:
        """Returns the frames that were written."""
        frames: list[int] = []
        call = self.bench.memory.ReadDirtyLog(pb.ReadDirtyLogRequest(handle=self.log.handle, clear=clear))
        async for piece in call:
            bits = int.from_bytes(piece.bitmap, "little")
            found = [piece.first_frame + n for n in range(8 * len(piece.bitmap)) if bits >> n & 1]
            assert len(found) == piece.dirty_frames > 0
            frames += found
        return frames

    async def stop(self) -> None:
        """Stops it."""
        await self.bench.memory.StopDirtyLog(pb.StopDirtyLogRequest(handle=self.log.handle))


async def test_stores_of_everybody_are_seen(bench: Any) -> None:
    """WriteMemory, a service on the bus, DMA, and table entries that the IOMMU marks."""
    async with Owner(bench) as owner, Driver(bench, owner):
        pa = bench.frames(4)
        tables = Tables(bench, owner)
        await tables.mapped((0, pa + 2 * PAGE, PAGE))
        log = await Log(bench).start((pa, 4 * PAGE))
        assert await log.read() == []
        await bench.memory.WriteMemory(hw.WriteMemoryRequest(address=pa + PAGE - 1, data=b"ab"))
        bench.bus.write(pa + 3 * PAGE, b"c")
        assert await log.read(clear=False) == [frame + (pa >> 12) for frame in (0, 1, 3)]
        await tables.write(5, b"d")
        assert await log.read() == [frame + (pa >> 12) for frame in (0, 1, 2, 3)]
        assert await log.read() == []
        await tables.write(6, b"e")
        assert await log.read() == [(pa >> 12) + 2]


async def test_stores_of_cores_are_seen_each_time(bench: Any) -> None:
    """A core that has written before writes again without a new walk; after each reading its stores are seen anew."""
    process = await bench.process("store_load")
    await process.run()
    log = await Log(bench).start((process.data, 32 * PAGE))
    for _ in range(3):
        assert await log.read() == []
        process.at(0x400000)
        await process.run()
        assert await log.read(clear=False) == [process.data >> 12]
        assert await log.read() == [process.data >> 12]


async def test_a_guest_behind_an_ept_is_seen(bench: Any) -> None:
    """Stores of a guest are logged by the frame that they reach."""
    guest = await bench.guest()
    guest.put(KERNEL, COUNT_AND_HALT)
    log = await Log(bench).start()
    await guest.run()
    assert guest.get(KERNEL_DATA) == 1
    host = guest.host_of(guest.kernel[KERNEL_DATA])
    assert host >> 12 in await log.read()
    assert host >> 12 not in await log.read()


async def test_a_core_that_runs_all_the_time(bench: Any) -> None:
    """A program that never leaves its core is caught by every reading that clears."""
    process = await bench.process()
    bench.bus.write(process.text, STORE_FOREVER)
    process.page.rdi = DATA
    process.at(0x400000)
    log = await Log(bench).start((process.data, 32 * PAGE))
    await bench.begin(process.context, sequence=1)
    seen = 0
    while seen < 3:
        seen += process.data >> 12 in await log.read()
    await bench.cpu.KickContext(hw.KickContextRequest(handle=process.context.handle))
    ended = await bench.stream.read()
    assert (ended.sequence, ended.reason) == (1, hw.EXIT_REASON_CANCELED), "it ran through all readings"


async def test_logs_do_not_take_from_each_other(bench: Any) -> None:
    """Logs that overlap each see all; one that is started later sees what comes later."""
    pa = bench.frames(4)
    one = await Log(bench).start((pa, 4 * PAGE))
    bench.bus.write(pa, b"x")
    two = await Log(bench).start((pa, 2 * PAGE))
    bench.bus.write(pa + PAGE, b"x")
    bench.bus.write(pa + 3 * PAGE, b"x")
    first = pa >> 12
    assert await two.read() == [first + 1]
    assert await one.read() == [first, first + 1, first + 3]
    await two.stop()
    bench.bus.write(pa, b"x")
    assert await one.read() == [first]


async def test_random_stores_against_a_set(bench: Any) -> None:
    """Over ranges with gaps, random writes and readings agree with a set of frames."""
    chance = random.Random(5)
    base = bench.frames(300)
    ranges = ((base, 100 * PAGE), (base + 128 * PAGE, PAGE), (base + 200 * PAGE, 67 * PAGE))
    covered = {at >> 12 for start, size in ranges for at in range(start, start + size, PAGE)}
    log = await Log(bench).start(*reversed(ranges))
    assert log.log.frames == len(covered)
    expected: set[int] = set()
    for _ in range(60):
        for _ in range(chance.randrange(8)):
            at, size = base + chance.randrange(299 * PAGE), chance.choice((1, 100, PAGE))
            bench.bus.write(at, bytes(size))
            expected.update({at >> 12, (at + size - 1) >> 12} & covered)
        clear = chance.random() < 0.5
        assert await log.read(clear=clear) == sorted(expected)
        if clear:
            expected.clear()


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ([(0, PAGE)] * 4097, ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ([(1, PAGE)], ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ([(0, 1)], ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ([(0, 0)], ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ([(0, 2 * PAGE), (PAGE, PAGE)], ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ([(0, 1 << 40), (1 << 40, PAGE)], ("INVALID_ARGUMENT", "REQUEST_INVALID")),
        ([(RAM, PAGE)], ("OUT_OF_RANGE", "ADDRESS_OUTSIDE_RAM")),
        ([(1 << 45, PAGE)], ("OUT_OF_RANGE", "ADDRESS_OUTSIDE_RAM")),
    ],
)
async def test_ranges_that_are_wrong(bench: Any, ranges: list[tuple[int, int]], expected: tuple[str, str]) -> None:
    """None, too many, unaligned, empty, overlapping, too large, or outside RAM."""
    wanted = [Range(address=at, size_bytes=size) for at, size in ranges]
    call = bench.memory.StartDirtyLog(pb.StartDirtyLogRequest(ranges=wanted))
    assert await reason(call) == expected


async def test_logs_have_handles_and_a_limit(bench: Any) -> None:
    """A request id repeats a log, a stopped one is stale, the 65th is refused."""
    one = await Log(bench).start((0, PAGE), request_id="r")
    two = await Log(bench).start((0, PAGE), request_id="r")
    assert one.log == two.log
    logs = [one, *[await Log(bench).start((0, PAGE)) for _ in range(63)]]
    assert await reason(Log(bench).start((0, PAGE))) == ("RESOURCE_EXHAUSTED", "TOO_MANY_DIRTY_LOGS")
    for log in logs:
        await log.stop()
    assert await reason(one.stop()) == ("FAILED_PRECONDITION", "HANDLE_STALE")
    assert await reason(one.read()) == ("FAILED_PRECONDITION", "HANDLE_STALE")
    stale = pb.StopDirtyLogRequest(handle=handle_pb2.Handle(id=999, generation=1))
    assert await reason(bench.memory.StopDirtyLog(stale)) == ("FAILED_PRECONDITION", "HANDLE_STALE")


async def test_logs_of_a_session_go_with_it(power: Any, manual_clock: Any, eventually: Any) -> None:
    """So do DMA domains and buffers; devices are taken at once, what is left 30 s later."""
    service, bench = await power(manual_clock, threads=False)
    events = bench.environment.layer.events.counts
    async with Owner(bench) as owner:
        tables = Tables(bench, owner)
        wanted = pb.StartDirtyLogRequest(ranges=[Range(address=0, size_bytes=PAGE)])
        await bench.memory.StartDirtyLog(wanted, metadata=owner.metadata)
        await tables.mapped((0, bench.frames(), PAGE))
        driver = Driver(bench, owner)
        await driver.open()
    await eventually(lambda: events.get("device.closed") == 1, "the end of the driving")
    assert (await reason(driver.read()))[0] == "ABORTED"
    machine = service.machine
    assert machine.devices.count_owned("h1/driver") + machine.dirty_logs.count_owned("h1/driver") == 2
    await manual_clock.advance(31 * 10**9)
    await eventually(lambda: not machine.dirty_logs.logs.entries(), "the end of the log")
    assert not machine.devices.iommu.domains()
    await service.stop()
