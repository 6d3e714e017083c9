"""Shared mappings of supplied objects: msync, and reading ahead on advice."""

from __future__ import annotations

from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, Outcome, Stack
from tests.contract.mmu.supplier import AT, Supplier, file, mapped
from tests.contract.mmu.test_advice import advise


async def sync(stack: Stack, space: pb.Space, pages: int, address: int = AT) -> int:
    """Has changes kept; returns how many pages."""
    request = ranges.SyncRangeRequest(handle=space.handle, address=address, size_bytes=pages * PAGE)
    return int((await stack.spaces.SyncRange(request)).written_pages)


async def test_changes_of_a_range_are_kept(stack: Stack) -> None:
    """Only changed pages of the range and of shared mappings go to the supplier, each once."""
    made, files = await file(stack, 20 * PAGE)
    async with Supplier(stack, files, [made], keeps_writes=True) as supplier:
        space = await mapped(stack, made, 10)
        await stack.map(space, AT + 10 * PAGE, 10, object=made.handle, object_offset=10 * PAGE)
        for page in (1, 2, 8, 12):
            await stack.write(space, AT + page * PAGE, b"new")
        assert await sync(stack, space, 5) == 2
        assert [(keep.offset, keep.pages) for keep in supplier.keeps] == [(PAGE, 2)]
        assert await sync(stack, space, 20) == 1
        assert files[made.handle.id][8 * PAGE :][:3] == b"new"
        assert files[made.handle.id][12 * PAGE :][:3] == b"000"
        assert await sync(stack, space, 20) == 0
        message = await expect_refused(sync(stack, space, 21), "NOT_FOUND", "RANGE_NOT_MAPPED")
        assert f"{AT + 20 * PAGE:#x}" in message
        await expect_refused(sync(stack, space, 1, AT + 1), "INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_what_cannot_be_kept_is_told(stack: Stack) -> None:
    """A failing supplier's reason, a supplier that is gone: the page stays changed, and is kept later."""
    made, files = await file(stack, 4 * PAGE)
    async with Supplier(stack, files, [made], keeps_writes=True) as supplier:
        space = await mapped(stack, made, 4)
        await stack.write(space, AT, b"changed")
        supplier.keep_failure = "DISK_FULL"
        assert "DISK_FULL" in await expect_refused(sync(stack, space, 4), "DATA_LOSS", "WRITE_BACK_FAILED")
    await expect_refused(sync(stack, space, 4), "UNAVAILABLE", "SUPPLIER_GONE")
    async with Supplier(stack, files, [made], keeps_writes=True):
        assert await sync(stack, space, 4) == 1
    assert files[made.handle.id][:7] == b"changed"


async def test_memory_that_nobody_supplies_has_nothing_to_keep(stack: Stack) -> None:
    """Anonymous mappings, private or shared, are synchronized by doing nothing."""
    space = await stack.space()
    await stack.map(space, AT, 1)
    await stack.map(space, AT + PAGE, 1, shared=True)
    await stack.write(space, AT, b"x" * 2 * PAGE)
    assert await sync(stack, space, 2) == 0


async def test_needed_pages_are_demanded_on_advice(stack: Stack) -> None:
    """WILL_NEED has a supplier bring a range; the accesses afterwards are minor faults; a failure is no error."""
    made, files = await file(stack, 30 * PAGE)
    async with Supplier(stack, files, [made], readahead_pages=4) as supplier:
        space = await mapped(stack, made, 30)
        assert await advise(stack, space, "WILL_NEED", 10, AT) == 10
        assert supplier.demands and not supplier.keeps
        answer = await stack.fault(space, AT + 9 * PAGE, READ)
        assert answer.outcome == Outcome.OUTCOME_OBJECT_MAPPED
        view = await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))
        assert (view.major_faults, view.minor_faults) == (0, 1)
        supplier.failure = "READ_FAILED"
        assert await advise(stack, space, "WILL_NEED", 5, AT + 20 * PAGE) == 0
