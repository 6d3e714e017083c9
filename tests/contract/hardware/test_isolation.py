"""A device of one domain reaches nothing of another, whatever its tables, its owner and the moment are."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import devices_pb2, devices_pb2_grpc
from lamina.hardware.v1 import iommu_pb2 as pb
from tests.contract.hardware.device_bench import (  # noqa: F401 (variant is a fixture)
    DMA0,
    DMA1,
    PAGE,
    Driver,
    Owner,
    Tables,
    reason,
    refusal,
    runs_contexts,
    variant,
)

from lamina_kit.bus.dma import DMA_BASE
from lamina_kit.rpc import status

pytestmark = pytest.mark.inside  # sessions, domains and the log of faults of a machine that nobody used before

IOVA = 0x7000_0000
R, W, X, PS = 1, 2, 4, 128
OWNERS, IDENTITY = pb.DmaDomain.KIND_OWNERS, pb.DmaDomain.KIND_IDENTITY


@pytest.fixture
async def owner(bench: Any) -> AsyncIterator[Owner]:
    """Returns a session."""
    async with Owner(bench) as made:
        yield made


@pytest.fixture
def tables(bench: Any, owner: Owner) -> Tables:
    """Returns the domains of the machine."""
    return Tables(bench, owner)


async def allocate(bench: Any, owner: Owner, size: int = PAGE) -> devices_pb2.DmaBuffer:
    """Returns DMA memory of a session."""
    request = devices_pb2.AllocateDmaBufferRequest(size_bytes=size, owner="test")
    stub = devices_pb2_grpc.DevicesStub(bench.channel)
    buffer: devices_pb2.DmaBuffer = await stub.AllocateDmaBuffer(request, metadata=owner.metadata)
    return buffer


async def free(bench: Any, handle: handle_pb2.Handle) -> None:
    """Gives DMA memory back."""
    await devices_pb2_grpc.DevicesStub(bench.channel).FreeDmaBuffer(devices_pb2.FreeDmaBufferRequest(handle=handle))


async def test_every_frame_is_tried(bench: Any, tables: Tables, owner: Owner) -> None:
    """Of all frames of the first 4 MiB, at both ends, dma1 reads and writes only those of its own domain."""
    theirs = await tables.mapped((0, 0x20_0000, 0x20_0000))
    mine = {0x18_0000 + PAGE * n: 0x30_0000 + PAGE * n for n in (0, 3, 9)}
    await tables.mapped(*((iova, pa, PAGE) for iova, pa in mine.items()), device=DMA1)
    bench.bus.write(0x20_0000, random.Random(1).randbytes(0x20_0000))
    before = bench.bus.read(0, 4 << 20)
    reached = []
    async with Driver(bench, owner), Driver(bench, owner, DMA1):
        for iova in range(0, 4 << 20, PAGE):
            for at in (iova, iova + PAGE - 1):
                try:
                    data = (await tables.read(at, 1, DMA1)).data
                    await tables.write(at, bytes([data[0] ^ 255]), DMA1)
                    reached.append(at)
                except grpc.aio.AioRpcError as error:
                    assert status.rpc_error(error).reason == "DMA_FAULT"
        assert reached == [at for iova in mine for at in (iova, iova + PAGE - 1)]
        after = bench.bus.read(0, 4 << 20)
        changed = [at for at in range(4 << 20) if before[at] != after[at]] if before != after else []
        entries = [at for at in changed if (at & ~4095) not in mine.values()]
        assert sorted(set(changed) - set(entries)) == [at for pa in mine.values() for at in (pa, pa + PAGE - 1)]
        assert all(at >> 12 in range(0x100, 0x200) for at in entries)  # accessed bits of the tables, in bench's frames
        assert (await tables.get(theirs)).tlb_misses == 0


async def test_an_ept_as_the_table_of_a_domain(bench: Any, tables: Tables, owner: Owner) -> None:
    """What a guest may touch its device may, with A and D set; changed by compare-and-swap and InvalidateDma."""
    if not await runs_contexts(bench):
        return
    guest = await bench.guest()
    gpa = guest.gpa_frames()
    host = guest.host_of(gpa)
    domain = await tables.create(kind=OWNERS, root_address=guest.ept.root)
    await tables.attach(domain)
    async with Driver(bench, owner):
        await tables.write(gpa + 8, b"dma")
        assert bench.bus.read(host + 8, 3) == b"dma"
        assert guest.ept_entry(gpa) & 0x300 == 0x300
        place = guest.ept.entry(gpa, make=7)
        entry = bench.bus.load64(place)
        assert bench.bus.cas64(place, entry, 0) == entry
        assert (await tables.read(gpa + 8, 3)).data == b"dma"  # kept until it is invalidated
        request = pb.InvalidateDmaRequest(handle=domain.handle, ranges=[pb.DmaRange(iova=gpa, size_bytes=PAGE)])
        assert (await tables.stub.InvalidateDma(request)).dropped == 1
        assert (await tables.stub.InvalidateDma(request)).dropped == 0
        assert (await refusal(tables.read(gpa + 8, 3))).metadata["outcome"] == "NOT_PRESENT"
    for call in (
        tables.give(domain),
        tables.map(domain, (0, 0, PAGE)),
        tables.unmap(domain, 0),
    ):
        assert await reason(call) == ("FAILED_PRECONDITION", "TABLE_IS_OWNERS")


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        (0, "NOT_PRESENT"),
        (0x20_0000 | X, "NO_RIGHT"),
        (0x20_0000 | R, "NO_RIGHT"),
        (1 << 40 | R | W, "MALFORMED_ENTRY"),
        (DMA_BASE | R | W, "MALFORMED_ENTRY"),
        (0xF_FFFF_FFFF_F000 | R | W, "MALFORMED_ENTRY"),
        (0x20_0000 | W, ""),
    ],
)
async def test_a_leaf_of_the_owner(bench: Any, tables: Tables, owner: Owner, entry: int, outcome: str) -> None:
    """A leaf without a right, or one that leads outside RAM and the owner's buffers, refuses with itself as witness."""
    root, pdpt, pd, pt = (bench.frames() for _ in range(4))
    for table, below in ((root, pdpt), (pdpt, pd), (pd, pt)):
        bench.bus.store64(table, below | R | W)
    bench.bus.store64(pt, entry)
    domain = await tables.create(kind=OWNERS, root_address=root)
    await tables.attach(domain)
    async with Driver(bench, owner):
        if not outcome:
            await tables.write(5, b"x")
            assert (await refusal(tables.read(5, 1))).metadata["outcome"] == "NO_RIGHT"  # for writing alone
            return
        assert (await refusal(tables.write(5, b"x"))).metadata["outcome"] == outcome
        fault = (await tables.faults())[-1]
        assert (fault.entry, pb.DmaOutcome.Name(fault.outcome)) == (entry, f"DMA_OUTCOME_{outcome}")


@pytest.mark.parametrize("entry", [R | W | PS, 1 << 40 | R | W, 0x30_0000 | R | W | 0x18])
async def test_a_table_entry_of_the_owner(bench: Any, tables: Tables, owner: Owner, entry: int) -> None:
    """A root entry with PS, with reserved bits, or that leads outside RAM is malformed."""
    root = bench.frames()
    bench.bus.store64(root, entry)
    domain = await tables.create(kind=OWNERS, root_address=root)
    await tables.attach(domain)
    async with Driver(bench, owner):
        assert (await refusal(tables.read(5, 1))).metadata["outcome"] == "MALFORMED_ENTRY"
        walked = await tables.stub.TranslateDma(pb.TranslateDmaRequest(device=DMA0, iova=5))
        assert (walked.outcome, walked.steps[0].entry) == (pb.DMA_OUTCOME_MALFORMED_ENTRY, entry)


async def test_a_table_that_points_at_itself(bench: Any, tables: Tables, owner: Owner) -> None:
    """It is walked like any other: four levels, and the page is the table."""
    root = bench.frames()
    bench.bus.store64(root, root | R | W)
    domain = await tables.create(kind=OWNERS, root_address=root)
    await tables.attach(domain)
    async with Driver(bench, owner):
        data = (await tables.read(0, 8)).data
        assert int.from_bytes(data, "little") == root | R | W | 0x100


async def test_an_identity_domain_is_its_owners_buffers(bench: Any, tables: Tables, owner: Owner) -> None:
    """DMA addresses are physical there, and reach the session's DMA buffers alone: no RAM, nobody else's, no page."""
    mine = await allocate(bench, owner, 2 * PAGE)
    async with Owner(bench, "h1/other") as other:
        theirs = await allocate(bench, other)
        domain = await tables.create(kind=IDENTITY)
        await tables.attach(domain)
        async with Driver(bench, owner) as driver:
            await tables.write(mine.address + PAGE - 2, b"abcd")
            assert (await tables.read(mine.address + PAGE - 2, 4)).data == b"abcd"
            page = driver.opened.device_page.address
            for address in (theirs.address, 0x10_0000, page, mine.address + 2 * PAGE - 1, DMA_BASE - 1):
                assert (await refusal(tables.read(address, 2))).reason == "DMA_FAULT"
            walked = await tables.stub.TranslateDma(pb.TranslateDmaRequest(device=DMA0, iova=mine.address))
            assert (walked.outcome, walked.physical_address) == (pb.DMA_OUTCOME_TRANSLATED, mine.address)
            assert await reason(free(bench, mine.handle)) == ("FAILED_PRECONDITION", "DMA_BUFFER_IN_USE")
            await tables.detach()
            await free(bench, mine.handle)
        call = tables.map(domain, (0, 0, PAGE))
        assert await reason(call) == ("FAILED_PRECONDITION", "TABLE_IS_OWNERS")


async def test_tables_and_targets_in_dma_memory(bench: Any, tables: Tables, owner: Owner) -> None:
    """A driver below the MMU keeps everything in its buffers; they are in use until the domain is gone."""
    buffer = await allocate(bench, owner, 8 * PAGE)
    domain = await tables.create(root_address=buffer.address)
    frames = [(buffer.address >> 12) + n for n in range(1, 5)]
    await tables.stub.AddTableFrames(pb.AddTableFramesRequest(handle=domain.handle, frames=frames))
    await tables.map(domain, (IOVA, buffer.address + 5 * PAGE, PAGE))
    await tables.attach(domain)
    async with Driver(bench, owner):
        await tables.write(IOVA, b"beyond")
        assert bench.bus.dma.read(buffer.address + 5 * PAGE, 6) == b"beyond"
    assert await reason(free(bench, buffer.handle)) == ("FAILED_PRECONDITION", "DMA_BUFFER_IN_USE")
    async with Owner(bench, "h1/other") as other:
        theirs = await allocate(bench, other)
        assert (await reason(tables.map(domain, (0, theirs.address, PAGE))))[1] == "ADDRESS_OUTSIDE_RAM"
        assert (await reason(tables.create(root_address=theirs.address)))[1] == "ADDRESS_OUTSIDE_RAM"
    await tables.stub.DeleteDmaDomain(pb.DeleteDmaDomainRequest(handle=domain.handle))
    await free(bench, buffer.handle)


async def test_a_freed_buffer_is_not_reached_by_tables_of_owners(bench: Any, tables: Tables, owner: Owner) -> None:
    """An owner's table may name a buffer of his; once that is given back the same entry leads nowhere."""
    buffer = await allocate(bench, owner)
    root, pdpt, pd, pt = (bench.frames() for _ in range(4))
    for table, below in ((root, pdpt), (pdpt, pd), (pd, pt), (pt, buffer.address)):
        bench.bus.store64(table, below | R | W)
    domain = await tables.create(kind=OWNERS, root_address=root)
    await tables.attach(domain)
    async with Driver(bench, owner):
        await tables.write(0, b"x")
        await free(bench, buffer.handle)
        async with Owner(bench, "h1/other") as other:
            assert (await allocate(bench, other)).address == buffer.address
            assert (await refusal(tables.read(0, 1))).metadata["outcome"] == "MALFORMED_ENTRY"


async def test_dma_changes_code_that_runs(bench: Any, tables: Tables, owner: Owner) -> None:
    """A program that DMA overwrites is executed as written."""
    if not await runs_contexts(bench):
        return
    process = await bench.process("return_7")
    await process.run()
    assert process.page.rax == 7
    await tables.mapped((IOVA, process.text, PAGE))
    async with Driver(bench, owner):
        await tables.write(IOVA, bytes.fromhex("b8090000000f05"))
        process.at(0x400000)
        await process.run()
        assert process.page.rax == 9
