"""Frames whose memory fails: pages are moved, dropped or given up, and nobody reads what is lost."""

from __future__ import annotations

import pytest
from lamina.mmu.v1 import frames_pb2, supply_pb2
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.holder import Holder
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, WRITE, Outcome, Stack
from tests.contract.mmu.supplier import Supplier, file, mapped

AT = 0x40_0000
Result = frames_pb2.OfflineFramesResponse
pytestmark = pytest.mark.inside


async def offline(stack: Stack, *frames: int, lost: bool = False) -> list[int]:
    """Takes frames out of use; returns what became of them."""
    request = frames_pb2.OfflineFramesRequest(frames=frames, lost=lost)
    return list((await stack.frames.OfflineFrames(request)).results)


async def use(stack: Stack, frame: int) -> int:
    """Returns what a frame is used for."""
    return (await stack.frames.GetFrame(pb.GetFrameRequest(frame=frame))).use


async def page(stack: Stack, data: bytes = b"content") -> tuple[pb.Space, int]:
    """Returns a space with one page, and its frame."""
    space = await stack.space()
    await stack.map(space, AT, 1)
    await stack.write(space, AT, data)
    frame = stack.walk(space, AT)
    assert frame is not None
    return space, frame


async def test_a_free_frame_goes_out_of_use(stack: Stack) -> None:
    """It is never given out again; repeating the call changes nothing."""
    assert await offline(stack, 9, 1000) == [Result.RESULT_OFFLINE] * 2
    assert await offline(stack, 9) == [Result.RESULT_OFFLINE]
    assert await use(stack, 9) == pb.Frame.USE_OFFLINE
    status = await stack.frames.GetFragmentation(frames_pb2.GetFragmentationRequest())
    assert status.offline_frames == 2 and status.free_frames == 4096 - 3
    request = pb.AllocateFramesRequest(count=4000, owner="x")
    assert not {9, 1000} & set((await stack.frames.AllocateFrames(request)).frames)


async def test_a_page_moves_while_its_bytes_are_good(stack: Stack) -> None:
    """Its users find it in another frame, shared as before."""
    space, frame = await page(stack)
    child = await stack.fork(space)
    assert await offline(stack, frame) == [Result.RESULT_OFFLINE]
    assert await use(stack, frame) == pb.Frame.USE_OFFLINE
    assert stack.walk(space, AT) == stack.walk(child, AT) != frame
    assert await stack.read(space, AT, 7) == await stack.read(child, AT, 7) == b"content"
    moved = await stack.frames.GetFragmentation(frames_pb2.GetFragmentationRequest())
    assert moved.moved_frames == 0, "that is what compaction moved"


async def test_a_lost_page_with_a_copy_is_dropped(stack: Stack) -> None:
    """What swap has comes back from there; what was only zeros is zeros again."""
    space, _ = await page(stack)
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=1))
    frame = (await stack.fault(space, AT, READ)).frame
    assert await offline(stack, frame, lost=True) == [Result.RESULT_DROPPED]
    assert await stack.read(space, AT, 7) == b"content"
    zeros = await stack.space()
    await stack.map(zeros, AT, 1)
    frame = (await stack.fault(zeros, AT, READ)).frame
    assert await offline(stack, frame, lost=True) == [Result.RESULT_DROPPED]
    assert await stack.read(zeros, AT, 4) == bytes(4)


async def test_a_lost_page_without_a_copy_is_a_bus_error(stack: Stack) -> None:
    """All that share it are told PAGE_LOST at their next access, until they unmap it; the rest of them lives."""
    space, frame = await page(stack)
    await stack.map(space, AT + PAGE, 1)
    await stack.write(space, AT + PAGE, b"other")
    child = await stack.fork(space)
    assert await offline(stack, frame, lost=True) == [Result.RESULT_LOST]
    for one in (space, child):
        answer = await stack.fault(one, AT, READ)
        assert (answer.outcome, answer.refusal_reason) == (Outcome.OUTCOME_BUS_ERROR, "PAGE_LOST")
        assert "PAGE_LOST" in await expect_refused(stack.read(one, AT, 1), "OUT_OF_RANGE", "BAD_ADDRESS")
        assert await stack.read(one, AT + PAGE, 5) == b"other"
    grandchild = await stack.fork(child)
    assert (await stack.fault(grandchild, AT, WRITE)).refusal_reason == "PAGE_LOST"
    shown = await stack.translate(space, AT)
    assert shown.residency == pb.TranslateResponse.RESIDENCY_NONE and not shown.swap_slot
    await stack.map(space, AT, 1, replace=True)
    assert await stack.read(space, AT, 1) == b"\0"
    for one in (space, child, grandchild):
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=one.handle))
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_frames == memory.total_frames - 2 and memory.free_swap_slots == memory.swap_slots


async def test_a_holder_gives_up_what_is_lost(stack: Stack) -> None:
    """It acknowledges first, and its bits tell whether the page is lost; the next want is refused."""
    guest = await stack.guest(1)
    async with Holder(stack, guest) as holder:
        frame = (await holder.want(0, WRITE)).grant.frame
        holder.bits[0] = (True, True)
        assert await offline(stack, frame, lost=True) == [Result.RESULT_LOST]
        assert len(holder.of("revocation")) == 1
        again = await holder.want(0, READ)
        assert again.refusal.outcome == Outcome.OUTCOME_BUS_ERROR


async def test_what_cannot_move_stays(stack: Stack) -> None:
    """Tables, allocated frames, pinned pages, frame 0: in use, lost or not; beyond RAM is refused before anything."""
    space, frame = await page(stack)
    single = (await stack.frames.AllocateFrames(pb.AllocateFramesRequest(count=1, owner="x"))).frames[0]
    stack.bus.pin(frame)
    for lost in (False, True):
        answers = await offline(stack, 0, space.root_address // PAGE, single, frame, lost=lost)
        assert answers == [Result.RESULT_IN_USE] * 4
    assert await stack.read(space, AT, 7) == b"content"
    stack.bus.unpin(frame)
    await expect_refused(offline(stack, frame, 4096), "OUT_OF_RANGE", "FRAME_OUTSIDE_RAM")
    assert await use(stack, frame) == pb.Frame.USE_ANONYMOUS
    for count in (0, 4097):
        await expect_refused(offline(stack, *[5] * count), "INVALID_ARGUMENT")


async def test_object_pages_are_demanded_again_or_lost(stack: Stack) -> None:
    """A clean page of a supplied object comes from its supplier; a changed one is lost to all that map it."""
    made, files = await file(stack, 8 * PAGE)
    async with Supplier(stack, files, [made], readahead_pages=1) as supplier:
        space = await mapped(stack, made, 8)
        clean = (await stack.fault(space, AT, READ)).frame
        assert await offline(stack, clean, lost=True) == [Result.RESULT_DROPPED]
        assert await stack.read(space, AT, 8) == b"00000000" and len(supplier.demands) == 2
        await stack.write(space, AT + PAGE, b"changed")
        dirty = (await stack.fault(space, AT + PAGE, READ)).frame
        assert await offline(stack, dirty, lost=True) == [Result.RESULT_LOST]
        assert (await stack.fault(space, AT + PAGE, READ)).refusal_reason == "PAGE_LOST"
        call = stack.objects.ReadObject(supply_pb2.ReadObjectRequest(handle=made.handle))

        async def read() -> None:
            async for _ in call:
                pass

        assert "PAGE_LOST" in await expect_refused(read(), "DATA_LOSS", "SUPPLY_FAILED")
