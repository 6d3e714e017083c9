"""Whole frames for others' tables, and the account of all frames."""

from __future__ import annotations

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, Stack


async def allocate(stack: Stack, count: int, owner: str = "vm web-1 ept", **fields: str) -> list[int]:
    """Allocates frames."""
    request = pb.AllocateFramesRequest(count=count, owner=owner, **fields)
    return list((await stack.frames.AllocateFrames(request)).frames)


async def test_allocated_frames_are_zeroed_ascending_and_named(stack: Stack) -> None:
    """Frames are distinct, zeroed, never frame 0, and GetFrame names their owner."""
    frames = await allocate(stack, 20)
    assert frames == sorted(set(frames)) and 0 not in frames
    stack.bus.write(frames[3] * PAGE, b"junk")
    await stack.frames.FreeFrames(pb.FreeFramesRequest(frames=frames, owner="vm web-1 ept"))
    again = await allocate(stack, 20)
    assert all(stack.bus.read(frame * PAGE, PAGE) == bytes(PAGE) for frame in again)
    frame = await stack.frames.GetFrame(pb.GetFrameRequest(frame=again[0]))
    assert (frame.use, frame.owner, frame.mapping_count) == (pb.Frame.USE_ALLOCATED, "vm web-1 ept", 0)


async def test_frames_are_freed_by_their_owner_once_and_all_or_none(stack: Stack) -> None:
    """A wrong owner, a frame named twice, and one that is not allocated free nothing."""
    frames = await allocate(stack, 3)
    free = stack.frames.FreeFrames
    for wrong, owner in (
        (frames, "somebody else"),
        ([*frames, frames[0]], "vm web-1 ept"),
        ([*frames, 0], "vm web-1 ept"),
        ([*frames, 2**63], "vm web-1 ept"),
    ):
        request = pb.FreeFramesRequest(frames=wrong, owner=owner)
        await expect_refused(free(request), "FAILED_PRECONDITION", "FRAME_NOT_ALLOCATED")
    await free(pb.FreeFramesRequest(frames=frames, owner="vm web-1 ept"))
    request = pb.FreeFramesRequest(frames=frames, owner="vm web-1 ept")
    await expect_refused(free(request), "FAILED_PRECONDITION", "FRAME_NOT_ALLOCATED")


async def test_an_allocation_is_all_or_none(stack: Stack) -> None:
    """More than there is takes nothing; a request id takes once."""
    before = (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames
    request = pb.AllocateFramesRequest(count=5000, owner="x")
    await expect_refused(stack.frames.AllocateFrames(request), "RESOURCE_EXHAUSTED", "NO_FREE_FRAME")
    assert (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames == before
    first = await allocate(stack, 2, request_id="r")
    assert await allocate(stack, 2, request_id="r") == first


async def test_bad_allocations_are_refused(stack: Stack) -> None:
    """Counts out of range and an empty owner are refused."""
    for count, owner in ((0, "x"), (-1, "x"), (65_537, "x"), (1, ""), (1, "x" * 128)):
        request = pb.AllocateFramesRequest(count=count, owner=owner)
        await expect_refused(stack.frames.AllocateFrames(request), "INVALID_ARGUMENT")


@pytest.mark.inside
async def test_every_frame_has_a_use(stack: Stack) -> None:
    """Uses add up to all frames; frame 0 is reserved; a frame beyond RAM is refused."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 4)
    await stack.write(space, 0x40_0000, b"x" * 4 * PAGE)
    await allocate(stack, 2)
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    uses = {one.use: one.frames for one in memory.uses}
    assert sum(uses.values()) == memory.total_frames == 4096
    assert uses[pb.Frame.USE_ANONYMOUS] == 4 and uses[pb.Frame.USE_TABLE] == 4
    assert uses[pb.Frame.USE_ALLOCATED] == 2 and uses[pb.Frame.USE_RESERVED] == 1
    assert memory.free_frames == uses[pb.Frame.USE_FREE] and memory.policy == "lru"
    zero = await stack.frames.GetFrame(pb.GetFrameRequest(frame=0))
    assert zero.use == pb.Frame.USE_RESERVED
    root = await stack.frames.GetFrame(pb.GetFrameRequest(frame=space.root_address // PAGE))
    assert (root.use, root.owner) == (pb.Frame.USE_TABLE, space.name)
    for beyond in (4096, 2**64 - 1):
        await expect_refused(
            stack.frames.GetFrame(pb.GetFrameRequest(frame=beyond)), "OUT_OF_RANGE", "FRAME_OUTSIDE_RAM"
        )


async def test_a_pinned_frame_is_not_given_to_another(stack: Stack) -> None:
    """A frame that a device still uses when its page goes stays out of use until the pin is gone."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    frame = (await stack.fault(space, 0x40_0000)).frame
    stack.bus.pin(frame)
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    kept = await stack.frames.GetFrame(pb.GetFrameRequest(frame=frame))
    assert (kept.use, kept.pins) == (pb.Frame.USE_RESERVED, 1)
    other = await stack.space()
    await stack.map(other, 0x40_0000, 200)
    assert frame not in [(await stack.fault(other, 0x40_0000 + page * PAGE)).frame for page in range(100)]
    stack.bus.unpin(frame)
    assert frame in [(await stack.fault(other, 0x40_0000 + page * PAGE)).frame for page in range(100, 200)]
