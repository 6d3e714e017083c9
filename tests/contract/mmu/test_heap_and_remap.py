"""brk and mremap as a caller sees them."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, RW, WRITE, Outcome, Stack
from tests.contract.mmu.test_mappings import mappings

HEAP = 0x60_0000
BASE = 0x40_0000
NEW = 0x9000_0000


async def set_break(stack: Stack, space: pb.Space, end: int = 0, start: int = 0) -> tuple[int, int]:
    """Moves the end of a heap; returns (start, end)."""
    answer = await stack.spaces.SetBreak(ranges.SetBreakRequest(handle=space.handle, start=start, end=end))
    return answer.start, answer.end


async def remap(stack: Stack, space: pb.Space, old: int, new: int, address: int = BASE, **fields: Any) -> int:
    """Resizes or moves a mapping, sizes in pages; returns where it is."""
    request = ranges.RemapRangeRequest(
        handle=space.handle, address=address, old_size_bytes=old * PAGE, new_size_bytes=new * PAGE, **fields
    )
    return int((await stack.spaces.RemapRange(request)).address)


async def settings(stack: Stack, space: pb.Space, *paths: str, **fields: Any) -> ranges.SpaceSettings:
    """Changes settings of a space."""
    request = ranges.UpdateSpaceSettingsRequest(handle=space.handle, settings=ranges.SpaceSettings(**fields))
    request.update_mask.paths.extend(paths or fields)
    changed: ranges.SpaceSettings = await stack.spaces.UpdateSpaceSettings(request)
    return changed


async def test_the_heap_grows_and_shrinks_by_bytes(stack: Stack) -> None:
    """The end is a byte address; pages come and go with it, and what shrank away is zero when it comes back."""
    space = await stack.space()
    assert await set_break(stack, space, start=HEAP) == (HEAP, HEAP)
    assert await set_break(stack, space, HEAP + 5000) == (HEAP, HEAP + 5000)
    assert await mappings(stack, space) == [(HEAP, HEAP + 2 * PAGE, "rw-")]
    await stack.write(space, HEAP + PAGE, b"heap")
    assert await set_break(stack, space, HEAP + 100) == (HEAP, HEAP + 100)
    assert await mappings(stack, space) == [(HEAP, HEAP + PAGE, "rw-")]
    assert await set_break(stack, space, HEAP + 3 * PAGE, HEAP) == (HEAP, HEAP + 3 * PAGE)
    assert await stack.read(space, HEAP + PAGE, 4) == bytes(4)
    assert await set_break(stack, space) == (HEAP, HEAP + 3 * PAGE)
    child = await stack.fork(space)
    assert await set_break(stack, child) == (HEAP, HEAP + 3 * PAGE)


async def test_a_heap_that_cannot_move_stays(stack: Stack) -> None:
    """Another mapping in the way, a limit, a wrong start or end: the end stays where it was."""
    space = await stack.space()
    await expect_refused(set_break(stack, space), "FAILED_PRECONDITION", "BREAK_NOT_SET")
    await expect_refused(set_break(stack, space, start=HEAP + 1), "INVALID_ARGUMENT", "REQUEST_INVALID")
    await expect_refused(set_break(stack, space, HEAP - 1, HEAP), "INVALID_ARGUMENT", "REQUEST_INVALID")
    await set_break(stack, space, HEAP + PAGE, HEAP)
    await expect_refused(set_break(stack, space, start=HEAP + PAGE), "FAILED_PRECONDITION", "BREAK_SET")
    await expect_refused(set_break(stack, space, HEAP - 1), "INVALID_ARGUMENT", "REQUEST_INVALID")
    await stack.map(space, HEAP + 3 * PAGE, 1)
    await expect_refused(set_break(stack, space, HEAP + 4 * PAGE), "ALREADY_EXISTS", "RANGE_IN_USE")
    await settings(stack, space, mapped_max_bytes=2 * PAGE)
    await expect_refused(set_break(stack, space, HEAP + 2 * PAGE), "RESOURCE_EXHAUSTED", "MAPPED_LIMIT")
    assert await set_break(stack, space) == (HEAP, HEAP + PAGE)
    gone = pb.Space(handle=space.handle)
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    await expect_refused(set_break(stack, gone), "FAILED_PRECONDITION", "HANDLE_STALE")


async def test_a_mapping_grows_where_it_is_when_it_can(stack: Stack) -> None:
    """Free addresses behind it are taken; a shorter one loses its tail; its pages stay."""
    space = await stack.space()
    await stack.map(space, BASE, 2)
    await stack.write(space, BASE, b"kept")
    assert await remap(stack, space, 2, 5) == BASE
    assert await mappings(stack, space) == [(BASE, BASE + 5 * PAGE, "rw-")]
    await stack.write(space, BASE + 4 * PAGE, b"tail")
    assert await remap(stack, space, 5, 1) == BASE
    assert await mappings(stack, space) == [(BASE, BASE + PAGE, "rw-")]
    assert await stack.read(space, BASE, 4) == b"kept"


async def test_a_mapping_moves_with_its_pages(stack: Stack) -> None:
    """What cannot grow moves: the frames go along, in RAM and in swap, and the old place is not mapped any more."""
    space = await stack.space()
    await stack.map(space, BASE, 3)
    await stack.map(space, BASE + 3 * PAGE, 1, pb.Protection(read=True))
    await stack.write(space, BASE, b"A" * PAGE + b"B" * PAGE)
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=1))
    frames = [stack.walk(space, BASE + page * PAGE) for page in range(2)]
    assert frames.count(None) == 1
    await expect_refused(remap(stack, space, 3, 4), "ALREADY_EXISTS", "RANGE_IN_USE")
    place = await remap(stack, space, 3, 4, may_move=True, request_id="grow")
    assert await remap(stack, space, 3, 4, may_move=True, request_id="grow") == place != BASE
    assert [stack.walk(space, place + page * PAGE) for page in range(2)] == frames
    assert await stack.read(space, place, 2 * PAGE) == b"A" * PAGE + b"B" * PAGE
    assert await stack.read(space, place + 3 * PAGE, 8) == bytes(8)
    assert (await stack.fault(space, BASE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    assert await remap(stack, space, 4, 4, place, may_move=True, new_address=NEW) == NEW
    assert await stack.read(space, NEW, 1) == b"A"


async def test_a_fixed_move_replaces_what_is_there(stack: Stack) -> None:
    """The new place is unmapped first; overlapping ranges, holes and a place without leave to move are refused."""
    space = await stack.space()
    await stack.map(space, BASE, 2)
    await stack.map(space, NEW, 3)
    await stack.write(space, BASE, b"moved")
    await stack.write(space, NEW, b"gone")
    for fields in ({"new_address": NEW}, {"new_address": BASE + PAGE, "may_move": True}, {"new_address": NEW + 1}):
        await expect_refused(remap(stack, space, 2, 2, **fields), "INVALID_ARGUMENT", "REQUEST_INVALID")
    await expect_refused(remap(stack, space, 3, 3), "NOT_FOUND", "RANGE_NOT_MAPPED")
    await expect_refused(remap(stack, space, 1, 1, 0x70_0000), "NOT_FOUND", "RANGE_NOT_MAPPED")
    await expect_refused(remap(stack, space, 1, 1, BASE + 1), "INVALID_ARGUMENT", "REQUEST_INVALID")
    await expect_refused(remap(stack, space, 0, 1, may_move=True), "INVALID_ARGUMENT", "REQUEST_INVALID")
    assert await remap(stack, space, 2, 1, may_move=True, new_address=NEW) == NEW
    assert await stack.read(space, NEW, 5) == b"moved"
    assert await mappings(stack, space) == [(NEW, NEW + 3 * PAGE, "rw-")]


@pytest.mark.inside  # counts on a host that nobody used before
async def test_a_shared_range_is_mapped_once_more(stack: Stack) -> None:
    """An old size of 0 maps the object's same pages at a second place."""
    space = await stack.space()
    sea = await stack.object(b"sea" * 3000)
    await stack.map(space, BASE, 3, object=sea.handle, shared=True)
    place = await remap(stack, space, 0, 2, BASE + PAGE, may_move=True)
    await stack.write(space, place, b"SEA")
    assert await stack.read(space, BASE + PAGE, 3) == b"SEA"
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    await stack.objects.DeleteObject(pb.DeleteObjectRequest(handle=sea.handle))
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_frames == memory.total_frames - 1


async def test_what_moves_is_shot_down_before_the_call_returns(stack: Stack) -> None:
    """Cores drop the old translations, and a fork's shared page stays copy-on-write at its new place."""
    space = await stack.space()
    await stack.map(space, BASE, 1)
    await stack.write(space, BASE, b"one")
    child = await stack.fork(space)
    await remap(stack, space, 1, 1, may_move=True, new_address=NEW)
    assert (await stack.translate(space, NEW)).copy_on_write
    assert (await stack.fault(space, NEW, WRITE)).outcome == Outcome.OUTCOME_COPIED
    await stack.write(space, NEW, b"two")
    assert await stack.read(child, BASE, 3) == b"one"


async def test_unmapping_and_protecting_happen_once_for_a_request(stack: Stack) -> None:
    """A repeated call with its request id leaves alone what was mapped, or allowed, since."""
    space = await stack.space()
    await stack.map(space, BASE, 1)
    await stack.write(space, BASE, b"x")
    unmap = pb.UnmapRangeRequest(handle=space.handle, address=BASE, size_bytes=PAGE, request_id="gone")
    assert (await stack.spaces.UnmapRange(unmap)).freed_pages == 1
    await stack.map(space, BASE, 1)
    assert (await stack.spaces.UnmapRange(unmap)).freed_pages == 1
    assert len(await mappings(stack, space)) == 1
    protect = pb.ProtectRangeRequest(
        handle=space.handle, address=BASE, size_bytes=PAGE, protection=pb.Protection(read=True), request_id="read"
    )
    await stack.spaces.ProtectRange(protect)
    again = pb.ProtectRangeRequest(handle=space.handle, address=BASE, size_bytes=PAGE, protection=RW)
    await stack.spaces.ProtectRange(again)
    await stack.spaces.ProtectRange(protect)
    assert await mappings(stack, space) == [(BASE, BASE + PAGE, "rw-")]
    protect.size_bytes = 2 * PAGE
    await expect_refused(stack.spaces.ProtectRange(protect), "INVALID_ARGUMENT", "REQUEST_ID_REUSED")
