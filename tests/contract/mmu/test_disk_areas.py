"""Swap areas on disks of the machine: a real hardware service below, its latency, its faults (S-06)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lamina.common.v1 import faults_pb2, faults_pb2_grpc, layer_pb2
from lamina.hardware.v1 import disks_pb2, disks_pb2_grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import swap_pb2
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, WRITE, Outcome, Stack
from tests.virtual_time import clock_of_loop

from lamina_hardware.config import HardwareConfig
from lamina_hardware.server import build as build_hardware
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_mmu.config import MmuConfig
from lamina_mmu.server import build

AT = 0x40_0000
DISK = "hosts/h1/disks/d"
RAM = 16 << 20
pytestmark = pytest.mark.inside


class MachineStack(Stack):
    """An MMU on the hardware itself, with a disk `d` of 4 MiB and 64 slots in a file."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.clock, self.folder, rng = clock_of_loop(), folder, Rng(1)
        below = LayerState("hardware", "h1", self.clock, rng.child("hardware"))
        (folder / "hw").mkdir()
        config = HardwareConfig(
            memory_bytes=RAM, run_pages=16, threads=False, cores=1, core_path="portable", dma_bytes=2 << 20
        )
        machine = Environment("h1", self.clock, rng, folder / "hw", below, bus_path=folder / "ram")
        self.hardware = build_hardware(machine, config)  # type: ignore[assignment]
        self.below = local(self.hardware, below)
        self.layer = LayerState("mmu", "h1", self.clock, rng.child("mmu"), engine=engine)
        channels = {"hardware": self.below}
        self.environment = Environment(
            "h1", self.clock, rng, folder / "state", self.layer, channels, bus_path=folder / "ram"
        )
        self.service = build(self.environment, MmuConfig(swap_bytes=64 * PAGE))
        self.disks = disks_pb2_grpc.DisksStub(self.below)

    async def __aenter__(self) -> MachineStack:
        await self.hardware.start()
        disk = disks_pb2.Disk(size_bytes=4 << 20, latency_ns=200_000)
        await self.disks.CreateDisk(disks_pb2.CreateDiskRequest(disk_id="d", disk=disk))
        await super().__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.service.stop()
        await self.hardware.stop()

    async def make(self, slots: int = 512, name: str = "fast", disk: str = DISK, **more: Any) -> swap_pb2.SwapArea:
        """Makes an area on a disk."""
        wanted = swap_pb2.SwapArea(size_bytes=slots * PAGE, priority=9, disk=disk)
        request = swap_pb2.CreateSwapAreaRequest(swap_area_id=name, swap_area=wanted, **more)
        made: swap_pb2.SwapArea = await self.swap.CreateSwapArea(request)
        return made

    async def area(self, name: str = "fast") -> swap_pb2.SwapArea:
        """Returns an area as it is now."""
        found: swap_pb2.SwapArea = await self.swap.GetSwapArea(
            swap_pb2.GetSwapAreaRequest(name=f"hosts/h1/swapAreas/{name}")
        )
        return found

    async def swapped(self, pages: int) -> tuple[pb.Space, bytes]:
        """Returns a space whose pages are in swap, and their bytes."""
        space, data = await self.space(), random.Random(pages).randbytes(pages * PAGE)
        await self.map(space, AT, pages)
        await self.write(space, AT, data)
        await self.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=pages))
        return space, data

    async def break_disk(self, kind: str, **parameters: int) -> str:
        """Injects a fault of the disk; returns its name."""
        given = [layer_pb2.Attribute(key=key, value=str(value)) for key, value in parameters.items()]
        fault = faults_pb2.Fault(kind=kind, object=DISK, parameters=given)
        stub = faults_pb2_grpc.FaultsStub(self.below)
        return str((await stub.InjectFault(faults_pb2.InjectFaultRequest(fault=fault))).name)

    async def mend(self, name: str) -> None:
        """Clears a fault of the disk."""
        await faults_pb2_grpc.FaultsStub(self.below).ClearFault(faults_pb2.ClearFaultRequest(name=name))


@pytest.fixture
async def stack(tmp_path: Path, engine_name: str) -> AsyncIterator[MachineStack]:
    """Returns an MMU on the hardware."""
    async with MachineStack(tmp_path, engine_name) as made:
        yield made


async def counters(stack: MachineStack) -> disks_pb2.DiskCounters:
    """Returns the disk's counters."""
    found: disks_pb2.Disk = await stack.disks.GetDisk(disks_pb2.GetDiskRequest(name=DISK))
    return found.counters


async def test_pages_go_to_the_disk_and_come_back(stack: MachineStack) -> None:
    """By DMA from their frames, slots in a row by one write, what lies around a slot by one read; no byte is lost."""
    made = await stack.make()
    assert (made.disk, made.slots, made.state) == (DISK, 512, swap_pb2.SwapArea.STATE_ACTIVE)
    space, data = await stack.swapped(40)
    seen = await counters(stack)
    assert (seen.written_bytes, seen.writes) == (40 * PAGE, 1)
    assert ((await stack.area()).used_slots, (await stack.area()).written_pages) == (40, 40)
    assert (await stack.translate(space, AT)).residency == pb.TranslateResponse.RESIDENCY_SWAP
    answer = await stack.fault(space, AT + 9 * PAGE, READ)
    assert answer.outcome == Outcome.OUTCOME_SWAPPED_IN
    seen = await counters(stack)
    assert (seen.reads, seen.read_bytes) == (1, 8 * PAGE)
    assert await stack.read(space, AT, 40 * PAGE) == data
    view = await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))
    assert (view.resident_pages, view.major_faults) == (40, 5)
    assert not stack.machine.frames.flags.tolist().count(2)


async def test_a_fault_waits_for_the_disk_and_nothing_else_does(stack: MachineStack) -> None:
    """While the disk takes its time other pages are served; two who need one page wait for one read."""
    await stack.make()
    space, data = await stack.swapped(8)
    await stack.disks.UpdateDisk(_slow(300_000_000))
    loop, began = asyncio.get_running_loop(), stack.clock.now_ns()
    both = [loop.create_task(stack.fault(space, AT + page * PAGE, READ)) for page in (3, 3, 5)]
    other = await stack.space()
    await stack.map(other, AT, 4)
    await stack.write(other, AT, b"quick")
    assert not any(task.done() for task in both)
    outcomes = [(await task).outcome for task in both]
    assert stack.clock.now_ns() - began >= 300_000_000
    assert Outcome.OUTCOME_SWAPPED_IN in outcomes and (await counters(stack)).reads == 1
    assert await stack.read(space, AT, 8 * PAGE) == data


def _slow(latency_ns: int) -> disks_pb2.UpdateDiskRequest:
    request = disks_pb2.UpdateDiskRequest(disk=disks_pb2.Disk(name=DISK, latency_ns=latency_ns))
    request.update_mask.paths.append("latency_ns")
    return request


async def test_a_caller_that_goes_away_leaves_the_page_to_the_next(stack: MachineStack) -> None:
    """Ending a call in the middle of a read or a write loses nothing."""
    await stack.make()
    space, data = await stack.swapped(8)
    await stack.disks.UpdateDisk(_slow(50_000_000))
    for call in (stack.fault(space, AT, READ), stack.read(space, AT, PAGE)):
        task = asyncio.get_running_loop().create_task(call)
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await stack.read(space, AT, 8 * PAGE) == data


async def test_writes_that_fail_go_to_another_area(stack: MachineStack) -> None:
    """A disk that takes no writes makes its area FAILED; its pages go to the file, and to it again once it works."""
    await stack.make()
    fault = await stack.break_disk("disk-read-only")
    space, data = await stack.swapped(10)
    assert (await stack.area()).state == swap_pb2.SwapArea.STATE_FAILED
    assert ((await stack.area()).used_slots, (await stack.area("swap")).used_slots) == (0, 10)
    await stack.mend(fault)
    await stack.swapped(60)  # the file has room for 54: the disk is tried again
    assert (await stack.area()).state == swap_pb2.SwapArea.STATE_ACTIVE
    assert await stack.read(space, AT, 10 * PAGE) == data


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [("disk-full", "RESOURCE_EXHAUSTED", "SWAP_DEVICE_FULL"), ("disk-failed", "DATA_LOSS", "SWAP_IO_FAILED")],
)
async def test_without_another_area_the_page_stays(stack: MachineStack, kind: str, code: str, reason: str) -> None:
    """What cannot be written stays in RAM, dirty, and whoever asked is told why; nothing is lost."""
    await stack.make()
    async for _ in stack.swap.DeleteSwapArea(swap_pb2.DeleteSwapAreaRequest(name="hosts/h1/swapAreas/swap")):
        continue
    space = await stack.space()
    await stack.map(space, AT, 4)
    await stack.write(space, AT, b"kept" * 4096)
    fault = await stack.break_disk(kind)
    reclaim = pb.ReclaimRequest(handle=space.handle, pages=4)
    await expect_refused(stack.spaces.Reclaim(reclaim), code, reason)
    assert await stack.read(space, AT, 4096) == b"kept" * 1024
    assert (await stack.area()).used_slots == 0
    await stack.mend(fault)
    assert (await stack.spaces.Reclaim(reclaim)).reclaimed_pages == 4
    assert await stack.read(space, AT, 4096) == b"kept" * 1024


async def test_reads_that_fail_are_told_and_made_again(stack: MachineStack) -> None:
    """A page that cannot be read is DATA_LOSS for who needs it; once the disk works it is there."""
    await stack.make()
    space, data = await stack.swapped(16)
    fault = await stack.break_disk("disk-failed")
    for _ in range(2):
        await expect_refused(stack.fault(space, AT, READ), "DATA_LOSS", "SWAP_IO_FAILED")
    assert stack.machine.frames.by_use[1] == 0  # no frame is left behind
    await stack.mend(fault)
    assert await stack.read(space, AT, 16 * PAGE) == data


async def test_one_bad_sector_costs_one_page(stack: MachineStack) -> None:
    """Neighbours that were read together are made again one by one, and come."""
    await stack.make()
    space, data = await stack.swapped(8)
    await stack.break_disk("disk-error", offset=3 * PAGE, size=1)
    assert (await stack.fault(space, AT + 2 * PAGE, READ)).outcome == Outcome.OUTCOME_SWAPPED_IN
    for page in range(8):
        if (await stack.translate(space, AT + page * PAGE)).swap_slot % 512 != 3:
            assert await stack.read(space, AT + page * PAGE, PAGE) == data[page * PAGE :][:PAGE]
    bad = [page for page in range(8) if (await stack.translate(space, AT + page * PAGE)).residency == 2]
    assert len(bad) <= 1


async def test_rotten_bytes_are_found(stack: MachineStack) -> None:
    """A sector that somebody else wrote fails its checksum: in a check, and for who needs the page; never mapped."""
    await stack.make()
    space, _ = await stack.swapped(4)

    async def scribble() -> AsyncIterator[disks_pb2.TransferRequest]:
        data = disks_pb2.InlineData(data=b"!" * PAGE)
        yield disks_pb2.TransferRequest(
            sequence=1, disk=DISK, operation=disks_pb2.TransferRequest.OPERATION_WRITE, size_bytes=PAGE, inline=data
        )

    async for response in stack.disks.Transfer(scribble()):
        assert response.result == disks_pb2.TransferResponse.RESULT_DONE
        break
    check = swap_pb2.CheckSwapAreaRequest(name="hosts/h1/swapAreas/fast")
    said = [message async for message in stack.swap.CheckSwapArea(check)]
    assert [slot.slot for message in said for slot in message.corrupt_slots] == [0]
    assert said[-1].done and said[-1].checked_slots == 4
    rotten = [page for page in range(4) if (await stack.translate(space, AT + page * PAGE)).swap_slot % (1 << 32) == 0]
    await expect_refused(stack.fault(space, AT + rotten[0] * PAGE, READ), "DATA_LOSS", "SWAP_CORRUPT")
    assert (await stack.area()).corrupt_slots == 1


async def test_a_disk_is_taken_out_of_use(stack: MachineStack) -> None:
    """Its pages come home; the disk stays, with another area on it if one is made."""
    await stack.make()
    space, data = await stack.swapped(50)
    delete = swap_pb2.DeleteSwapAreaRequest(name="hosts/h1/swapAreas/fast")
    said = [progress async for progress in stack.swap.DeleteSwapArea(delete)]
    assert said[-1].done and said[-1].returned_pages == 50
    assert await stack.read(space, AT, 50 * PAGE) == data
    assert (await stack.make(name="other")).disk == DISK


async def test_a_disk_that_vanishes_loses_its_pages(stack: MachineStack) -> None:
    """Deleted under its area: what was on it is DATA_LOSS, taking it out of use says so, and all else goes on."""
    await stack.make()
    space, _ = await stack.swapped(4)
    await stack.disks.DeleteDisk(disks_pb2.DeleteDiskRequest(name=DISK))
    await expect_refused(stack.fault(space, AT, WRITE), "DATA_LOSS", "SWAP_IO_FAILED")
    delete = swap_pb2.DeleteSwapAreaRequest(name="hosts/h1/swapAreas/fast")

    async def drain() -> None:
        async for _ in stack.swap.DeleteSwapArea(delete):
            continue

    await expect_refused(drain(), "DATA_LOSS", "SWAP_IO_FAILED")
    assert (await stack.area()).state == swap_pb2.SwapArea.STATE_FAILED
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    await drain()


async def test_what_cannot_be_an_area_is_refused(stack: MachineStack) -> None:
    """A disk that is not there, is too small, or holds an area already; a repeated call returns the area."""
    await expect_refused(stack.make(disk="hosts/h1/disks/none"), "NOT_FOUND", "DISK_UNKNOWN")
    await expect_refused(stack.make(slots=2000), "RESOURCE_EXHAUSTED", "SWAP_DEVICE_FULL")
    await expect_refused(stack.make(disk="x" * 256), "INVALID_ARGUMENT", "REQUEST_INVALID")
    first = await stack.make(request_id="r")
    assert first == await stack.make(request_id="r")
    await expect_refused(stack.make(), "ALREADY_EXISTS", "SWAP_AREA_EXISTS")
    await expect_refused(stack.make(name="second"), "FAILED_PRECONDITION", "SWAP_DISK_IN_USE")


async def test_injected_faults_of_an_area_hold_for_disks(stack: MachineStack) -> None:
    """`swap-area-io-error` breaks an area on a disk as it does one in a file."""
    await stack.make()
    space, data = await stack.swapped(4)
    faults = faults_pb2_grpc.FaultsStub(stack.channel)
    fault = faults_pb2.Fault(kind="swap-area-io-error", object="hosts/h1/swapAreas/fast")
    made = await faults.InjectFault(faults_pb2.InjectFaultRequest(fault=fault))
    await expect_refused(stack.fault(space, AT, READ), "DATA_LOSS", "SWAP_IO_FAILED")
    await faults.ClearFault(faults_pb2.ClearFaultRequest(name=made.name))
    assert await stack.read(space, AT, 4 * PAGE) == data
