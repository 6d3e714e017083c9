"""mlock and pins for DMA as a caller sees them."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, Outcome, Stack
from tests.contract.mmu.test_heap_and_remap import remap, settings

BASE = 0x40_0000
NEW = 0x9000_0000
RX = pb.Protection(read=True, execute=True)


async def lock(stack: Stack, space: pb.Space, pages: int, address: int = BASE, on_fault: bool = False) -> int:
    """Locks pages; returns the locked pages of the space."""
    request = ranges.LockRangeRequest(handle=space.handle, address=address, size_bytes=pages * PAGE, on_fault=on_fault)
    return int((await stack.spaces.LockRange(request)).locked_bytes) // PAGE


async def unlock(stack: Stack, space: pb.Space, pages: int, address: int = BASE) -> int:
    """Unlocks pages; returns the locked pages of the space."""
    request = ranges.UnlockRangeRequest(handle=space.handle, address=address, size_bytes=pages * PAGE)
    return int((await stack.spaces.UnlockRange(request)).locked_bytes) // PAGE


async def reclaim(stack: Stack, space: pb.Space, pages: int) -> int:
    """Pushes pages of a space out; returns how many went."""
    return int((await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=pages))).reclaimed_pages)


async def pin(stack: Stack, space: pb.Space, address: int, size: int, write: bool = True, **fields: Any) -> Any:
    """Pins a range."""
    request = ranges.PinRangeRequest(handle=space.handle, address=address, size_bytes=size, write=write, **fields)
    return await stack.spaces.PinRange(request)


async def unpin(stack: Stack, *pins: Any, written: bool = False) -> None:
    """Ends pins."""
    await stack.spaces.UnpinRanges(ranges.UnpinRangesRequest(pins=[one.pin for one in pins], written=written))


async def resident(stack: Stack, space: pb.Space) -> int:
    """Returns the pages of a space in RAM."""
    return int((await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))).resident_pages)


async def test_locked_pages_are_there_and_stay(stack: Stack) -> None:
    """A lock faults its range in; reclaim takes all else; locks do not nest, and go with the mapping."""
    space = await stack.space()
    await stack.map(space, BASE, 6)
    assert await lock(stack, space, 3) == 3
    assert await resident(stack, space) == 3
    assert (await stack.fault(space, BASE)).outcome == Outcome.OUTCOME_SPURIOUS
    await stack.write(space, BASE + 3 * PAGE, b"x" * 3 * PAGE)
    assert await reclaim(stack, space, 6) == 3
    assert await resident(stack, space) == 3
    assert await lock(stack, space, 2) == 3
    assert await unlock(stack, space, 1) == 2
    assert await reclaim(stack, space, 6) == 1
    unmap = pb.UnmapRangeRequest(handle=space.handle, address=BASE + PAGE, size_bytes=PAGE)
    await stack.spaces.UnmapRange(unmap)
    assert await unlock(stack, space, 1, BASE + 2 * PAGE) == 0
    assert await reclaim(stack, space, 6) == 1


async def test_a_lock_on_fault_locks_pages_as_they_come(stack: Stack) -> None:
    """MLOCK_ONFAULT brings nothing in; what is touched later stays, through a move too; a fork is not locked."""
    space = await stack.space()
    await stack.map(space, BASE, 4)
    assert await lock(stack, space, 4, on_fault=True) == 4
    assert await resident(stack, space) == 0
    await stack.write(space, BASE + PAGE, b"locked")
    child = await stack.fork(space)
    used = await stack.spaces.GetSpaceStatistics(ranges.GetSpaceStatisticsRequest(handle=child.handle))
    assert used.locked_pages == 0
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=child.handle))
    assert await remap(stack, space, 4, 4, may_move=True, new_address=NEW) == NEW
    assert await reclaim(stack, space, 4) == 0
    assert await unlock(stack, space, 4, NEW) == 0
    assert await reclaim(stack, space, 4) == 1
    assert await stack.read(space, NEW + PAGE, 6) == b"locked"


async def test_a_page_is_locked_as_long_as_anybody_locks_it(stack: Stack) -> None:
    """A page of an object that one of two spaces locks does not leave RAM for the other either."""
    _, two = await locked_by_one_of_two(stack)
    assert await reclaim(stack, two, 1) == 0


async def test_a_page_goes_when_nobody_locks_it_any_more(stack: Stack) -> None:
    """A page of an object leaves RAM once the space that locked it is gone."""
    one, two = await locked_by_one_of_two(stack)
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=one.handle))
    assert await reclaim(stack, two, 1) == 1


async def locked_by_one_of_two(stack: Stack) -> tuple[pb.Space, pb.Space]:
    """Returns two spaces with one page of one object at BASE, which the first of them locks."""
    sea = await stack.object(b"sea" * 1000)
    one, two = await stack.space(), await stack.space()
    for space in (one, two):
        await stack.map(space, BASE, 1, object=sea.handle, shared=True)
        await stack.fault(space, BASE, READ)
    await lock(stack, one, 1)
    return one, two


async def test_a_lock_that_does_not_fit_locks_nothing(stack: Stack) -> None:
    """The space's limit, a group's limit, a hole: nothing is locked that was not before."""
    group = await stack.group("small", pages=12, swap_pages=0)
    space = await stack.space(group)
    await stack.map(space, BASE, 20)
    await settings(stack, space, locked_max_bytes=3 * PAGE)
    assert await lock(stack, space, 3) == 3
    await expect_refused(lock(stack, space, 4), "RESOURCE_EXHAUSTED", "LOCK_LIMIT")
    await settings(stack, space, "locked_max_bytes")
    await expect_refused(lock(stack, space, 20), "RESOURCE_EXHAUSTED", "GROUP_LIMIT")
    assert await unlock(stack, space, 1, BASE + 19 * PAGE) == 3
    await expect_refused(lock(stack, space, 21), "NOT_FOUND", "RANGE_NOT_MAPPED")
    await expect_refused(unlock(stack, space, 21), "NOT_FOUND", "RANGE_NOT_MAPPED")
    await expect_refused(lock(stack, space, 1, BASE + 1), "INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_future_mappings_are_locked_when_the_space_says_so(stack: Stack) -> None:
    """lock_future faults mappings in as they are made, or locks them on fault; beyond the limit they are refused."""
    space = await stack.space()
    await settings(stack, space, lock_future=ranges.SpaceSettings.LOCK_FUTURE_NOW, locked_max_bytes=4 * PAGE)
    await stack.map(space, BASE, 3)
    assert await resident(stack, space) == 3
    await expect_refused(stack.map(space, NEW, 2), "RESOURCE_EXHAUSTED", "LOCK_LIMIT")
    await settings(stack, space, lock_future=ranges.SpaceSettings.LOCK_FUTURE_ON_FAULT)
    await stack.map(space, NEW, 1)
    assert await resident(stack, space) == 3
    assert await unlock(stack, space, 1, NEW) == 3


@pytest.mark.inside
async def test_pinned_pages_keep_their_frames(stack: Stack) -> None:
    """A pin returns where the pages lie; reclaim, a write after a fork and even unmapping leave them there."""
    space = await stack.space()
    await stack.map(space, BASE, 4)
    await stack.write(space, BASE, b"x" * 4 * PAGE)
    pinned = await pin(stack, space, BASE + PAGE + 100, PAGE)
    frames = [stack.walk(space, BASE + page * PAGE) for page in (1, 2)]
    listed = [run.frame + index for run in pinned.runs for index in range(run.frames)]
    assert listed == frames and pinned.runs[0].address == BASE + PAGE
    assert await reclaim(stack, space, 4) == 2
    child = await stack.fork(space)
    await stack.write(space, BASE + PAGE, b"new")
    assert stack.walk(space, BASE + PAGE) == frames[0]
    assert await stack.read(child, BASE + PAGE, 3) == b"xxx"
    unmap = pb.UnmapRangeRequest(handle=space.handle, address=BASE, size_bytes=4 * PAGE)
    await stack.spaces.UnmapRange(unmap)
    free = (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames
    taken = await stack.frames.AllocateFrames(pb.AllocateFramesRequest(count=free, owner="all"))
    assert not {*listed} & {*taken.frames}
    await unpin(stack, pinned, written=True)
    assert (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames >= 2  # and what is reclaimed ahead of need


@pytest.mark.inside
async def test_copies_that_are_due_are_made_before_a_pin(stack: Stack) -> None:
    """A page shared with a fork is copied first, for a read too, so that no later write leaves the pinned frame."""
    parent = await stack.space()
    await stack.map(parent, BASE, 2)
    await stack.write(parent, BASE, b"x" * 2 * PAGE)
    child = await stack.fork(parent)
    shared = [stack.walk(parent, BASE + page * PAGE) for page in range(2)]
    write = await pin(stack, child, BASE, 1)
    read = await pin(stack, child, BASE + PAGE, 1, write=False)
    pins = [write.runs[0].frame, read.runs[0].frame]
    assert not {*pins} & {*shared}
    await stack.write(child, BASE, b"y" * 2 * PAGE)
    assert [stack.walk(child, BASE + page * PAGE) for page in range(2)] == pins
    await unpin(stack, write, read)


async def test_pins_nest_and_a_request_pins_once(stack: Stack) -> None:
    """Two pins of a page are two; a repeated request returns the first; pins end all or none."""
    space = await stack.space()
    await stack.map(space, BASE, 1)
    first = await pin(stack, space, BASE, 10, request_id="dma")
    assert await pin(stack, space, BASE, 10, request_id="dma") == first
    second = await pin(stack, space, BASE, PAGE)
    frame = pb.GetFrameRequest(frame=first.runs[0].frame)
    assert (await stack.frames.GetFrame(frame)).pins == 2
    used = await stack.spaces.GetSpaceStatistics(ranges.GetSpaceStatisticsRequest(handle=space.handle))
    assert used.pinned_pages == 2
    await expect_refused(unpin(stack, first, first), "FAILED_PRECONDITION", "HANDLE_STALE")
    assert (await stack.frames.GetFrame(frame)).pins == 2
    await unpin(stack, first)
    await expect_refused(unpin(stack, second, first), "FAILED_PRECONDITION", "HANDLE_STALE")
    assert (await stack.frames.GetFrame(frame)).pins == 1
    await expect_refused(unpin(stack), "INVALID_ARGUMENT")
    advise = ranges.AdviseRangeRequest(
        handle=space.handle, address=BASE, size_bytes=PAGE, advice=ranges.ADVICE_DONT_NEED
    )
    await expect_refused(stack.spaces.AdviseRange(advise), "FAILED_PRECONDITION", "RANGE_LOCKED")
    await unpin(stack, second)
    await stack.spaces.AdviseRange(advise)


async def test_a_pin_is_whole_or_not_at_all(stack: Stack) -> None:
    """A bad address is named and nothing stays pinned; sizes and half of RAM are bounds."""
    space = await stack.space()
    await stack.map(space, BASE, 2)
    await stack.map(space, NEW, 1, RX)
    message = await expect_refused(pin(stack, space, BASE + 50, 2 * PAGE), "OUT_OF_RANGE", "BAD_ADDRESS")
    assert f"{BASE + 2 * PAGE:#x}" in message
    await expect_refused(pin(stack, space, NEW, 1), "OUT_OF_RANGE", "BAD_ADDRESS")
    assert (await stack.frames.GetFrame(pb.GetFrameRequest(frame=stack.walk(space, BASE) or 0))).pins == 0
    for size in (0, (16 << 20) + 1):
        await expect_refused(pin(stack, space, BASE, size), "INVALID_ARGUMENT", "REQUEST_INVALID")
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    half = memory.total_frames // 2
    await stack.map(space, 0x5000_0000, half + 1)
    await expect_refused(pin(stack, space, 0x5000_0000, (half + 1) * PAGE), "RESOURCE_EXHAUSTED", "PIN_LIMIT")
    await unpin(stack, await pin(stack, space, 0x5000_0000, half * PAGE))
