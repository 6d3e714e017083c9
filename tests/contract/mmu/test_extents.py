"""Frames in bulk: lists, how free memory is cut up, compaction, extents of huge pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lamina.mmu.v1 import frames_pb2
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.holder import Holder
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, WRITE, Stack

from lamina_mmu.config import MmuConfig

pytestmark = pytest.mark.inside  # frames of a host that nobody used before

HUGE = 2 << 20
AT = 0x40_0000


async def extents(stack: Stack, count: int = 1, size: int = HUGE, owner: str = "vm a", **fields: Any) -> list[int]:
    """Allocates extents; returns their first frames."""
    request = frames_pb2.AllocateExtentsRequest(count=count, extent_bytes=size, owner=owner, **fields)
    answer = await stack.frames.AllocateExtents(request)
    assert answer.frames_each == size // PAGE
    return list(answer.first_frames)


async def fragmentation(stack: Stack) -> frames_pb2.Fragmentation:
    """Returns how free memory is cut up."""
    answer: frames_pb2.Fragmentation = await stack.frames.GetFragmentation(frames_pb2.GetFragmentationRequest())
    return answer


async def scatter(stack: Stack, pages: int = 3000, every: int = 24) -> tuple[pb.Space, dict[int, bytes]]:
    """Makes a space whose pages, one of `every`, lie all over RAM; returns it with what is in them."""
    space = await stack.space()
    await stack.map(space, AT, pages)
    for page in range(pages):
        await stack.fault(space, AT + page * PAGE, WRITE)
    kept: dict[int, bytes] = {}
    for page in range(0, pages, every):
        kept[AT + page * PAGE] = f"page {page}".encode()
        await stack.write(space, AT + page * PAGE, kept[AT + page * PAGE])
        gap = pb.UnmapRangeRequest(
            handle=space.handle, address=AT + (page + 1) * PAGE, size_bytes=(min(every, pages - page) - 1) * PAGE
        )
        if gap.size_bytes:
            await stack.spaces.UnmapRange(gap)
    return space, kept


@pytest.mark.inside
async def test_free_memory_is_told_in_blocks(stack: Stack) -> None:
    """Nothing used: one block of each order; each free frame counts once, and huge blocks are counted."""
    empty = await fragmentation(stack)
    assert list(empty.free_blocks) == [1] * 12 + [0] * 7
    assert (empty.free_frames, empty.huge_blocks, empty.movable_huge_blocks) == (4095, 8, 7)
    assert (empty.unmovable_frames, empty.moved_frames, empty.offline_frames, empty.zeroed_frames) == (1, 0, 0, 0)
    space = await stack.space()
    await stack.map(space, AT, 1)
    frame = (await stack.fault(space, AT)).frame
    stack.bus.pin(frame)
    one = await fragmentation(stack)
    assert sum(number << order for order, number in enumerate(one.free_blocks)) == one.free_frames == 4090
    assert one.unmovable_frames == 6
    stack.bus.unpin(frame)
    assert (await fragmentation(stack)).unmovable_frames == 5


@pytest.mark.inside
async def test_compaction_moves_pages_together(stack: Stack) -> None:
    """Pages all over RAM come together until huge blocks are free; every byte is where it was, and frames are not."""
    space, kept = await scatter(stack)
    before = await fragmentation(stack)
    assert sum(before.free_blocks[9:]) <= 2
    frames = {address: stack.walk(space, address) for address in kept}
    shots = len(stack.shot)
    done = await stack.frames.CompactFrames(frames_pb2.CompactFramesRequest(huge_blocks=6))
    assert done.free_huge_blocks >= 6 and done.moved_frames > 20
    assert len(stack.shot) > shots
    after = await fragmentation(stack)
    assert after.moved_frames == done.moved_frames and after.free_frames == before.free_frames
    moved = [address for address in kept if stack.walk(space, address) != frames[address]]
    assert len(moved) == done.moved_frames
    for address, data in kept.items():
        assert await stack.read(space, address, len(data)) == data
    again = await stack.frames.CompactFrames(frames_pb2.CompactFramesRequest(huge_blocks=6))
    assert again.moved_frames == 0


@pytest.mark.inside
async def test_pinned_pages_and_tables_do_not_move(stack: Stack) -> None:
    """A block with a pinned page keeps it; when nothing can be emptied, that is an answer."""
    space, kept = await scatter(stack)
    pinned = {address: frame for address in kept if (frame := stack.walk(space, address)) is not None}
    for frame in pinned.values():
        stack.bus.pin(frame)
    done = await stack.frames.CompactFrames(frames_pb2.CompactFramesRequest(huge_blocks=8))
    assert done.moved_frames == 0
    assert {address: stack.walk(space, address) for address in pinned} == pinned
    for frame in pinned.values():
        stack.bus.unpin(frame)
    assert (await stack.frames.CompactFrames(frames_pb2.CompactFramesRequest(huge_blocks=6))).moved_frames > 0


@pytest.mark.inside
async def test_a_holder_gives_up_what_moves(stack: Stack) -> None:
    """A VM's pages move after its holder acknowledged; the next want is granted the new frame with the old bytes."""
    guest = await stack.guest(3000)
    async with Holder(stack, guest) as holder:
        granted = [(await holder.want(page * PAGE, WRITE)).grant.frame for page in range(3000)]
        for page in range(0, 3000, 32):
            stack.bus.write(granted[page] * PAGE, f"guest {page}".encode())
            holder.bits[page * PAGE] = (True, True)
            gap = pb.UnmapRangeRequest(handle=guest.handle, address=(page + 1) * PAGE, size_bytes=31 * PAGE)
            await stack.spaces.UnmapRange(gap)
        before = len(holder.of("revocation"))
        done = await stack.frames.CompactFrames(frames_pb2.CompactFramesRequest(huge_blocks=7))
        assert done.moved_frames > 0 and len(holder.of("revocation")) > before
        again = {page: (await holder.want(page * PAGE, READ)).grant.frame for page in range(0, 3000, 32)}
        assert sum(again[page] != granted[page] for page in again) == done.moved_frames
        for page, frame in again.items():
            assert stack.bus.read(frame * PAGE, len(f"guest {page}")) == f"guest {page}".encode()


async def test_extents_are_aligned_zeroed_and_charged(stack: Stack) -> None:
    """Extents are distinct, aligned, zeroed, ascending, paid for by their group, and told apart from frames."""
    group = await stack.group("vms", 1536)
    firsts = await extents(stack, 2, group=group)
    assert firsts == sorted(firsts) and all(first % 512 == 0 for first in firsts)
    stack.bus.write(firsts[0] * PAGE, b"junk" * 1000)
    assert (await stack.groups.GetGroup(pb.GetGroupRequest(name=group))).usage_bytes == 2 * HUGE
    frame = await stack.frames.GetFrame(pb.GetFrameRequest(frame=firsts[1] + 511))
    assert (frame.use, frame.owner, frame.group) == (pb.Frame.USE_ALLOCATED, "vm a", group)
    mine = pb.FreeFramesRequest(frames=[firsts[0]], owner="vm a")
    await expect_refused(stack.frames.FreeFrames(mine), "FAILED_PRECONDITION", "FRAME_NOT_ALLOCATED")
    await stack.frames.FreeExtents(frames_pb2.FreeExtentsRequest(first_frames=firsts, owner="vm a"))
    assert (await stack.groups.GetGroup(pb.GetGroupRequest(name=group))).usage_bytes == 0
    again = await extents(stack, 3, request_id="e", group=group)
    assert await extents(stack, 3, request_id="e", group=group) == again
    for first in again:
        assert stack.bus.read(first * PAGE, HUGE) == bytes(HUGE)


@pytest.mark.inside
async def test_extents_compact_when_they_must(stack: Stack) -> None:
    """With pages all over RAM, extents are made by moving them."""
    space, kept = await scatter(stack)
    firsts = await extents(stack, 6)
    assert len(set(firsts)) == 6
    for address, data in kept.items():
        assert await stack.read(space, address, len(data)) == data


async def test_extents_are_all_or_none(stack: Stack) -> None:
    """More than there are, and more than the group may have, take nothing."""
    before = (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames
    many = frames_pb2.AllocateExtentsRequest(count=9, extent_bytes=HUGE, owner="x")
    await expect_refused(stack.frames.AllocateExtents(many), "RESOURCE_EXHAUSTED", "NO_FREE_EXTENT")
    large = frames_pb2.AllocateExtentsRequest(count=1, extent_bytes=1 << 30, owner="x")
    await expect_refused(stack.frames.AllocateExtents(large), "RESOURCE_EXHAUSTED", "NO_FREE_EXTENT")
    group = await stack.group("small", 600)
    limited = frames_pb2.AllocateExtentsRequest(count=2, extent_bytes=HUGE, owner="x", group=group)
    await expect_refused(stack.frames.AllocateExtents(limited), "RESOURCE_EXHAUSTED", "GROUP_LIMIT")
    assert (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames == before
    assert (await stack.groups.GetGroup(pb.GetGroupRequest(name=group))).usage_bytes == 0


async def test_extents_are_freed_by_their_owner_once(stack: Stack) -> None:
    """A wrong owner, an extent named twice, a frame inside, a single frame, and one outside RAM free nothing."""
    firsts = await extents(stack, 2)
    single = (await stack.frames.AllocateFrames(pb.AllocateFramesRequest(count=1, owner="vm a"))).frames[0]
    free = stack.frames.FreeExtents
    for wrong, owner in (
        (firsts, "vm b"),
        ([*firsts, firsts[0]], "vm a"),
        ([firsts[0] + 1], "vm a"),
        ([single], "vm a"),
        ([2**63], "vm a"),
        ([0], "vm a"),
    ):
        request = frames_pb2.FreeExtentsRequest(first_frames=wrong, owner=owner)
        await expect_refused(free(request), "FAILED_PRECONDITION", "EXTENT_NOT_ALLOCATED")
    await free(frames_pb2.FreeExtentsRequest(first_frames=firsts, owner="vm a"))


async def test_bad_requests_are_refused(stack: Stack) -> None:
    """Counts, sizes, owners, uses and page sizes out of range are refused before anything is looked at."""
    for count, size, owner in ((0, HUGE, "x"), (4097, HUGE, "x"), (1, PAGE, "x"), (1, HUGE, ""), (1, HUGE, "x" * 128)):
        request = frames_pb2.AllocateExtentsRequest(count=count, extent_bytes=size, owner=owner)
        await expect_refused(stack.frames.AllocateExtents(request), "INVALID_ARGUMENT")
    for blocks in (0, -1, (1 << 20) + 1):
        compact = stack.frames.CompactFrames(frames_pb2.CompactFramesRequest(huge_blocks=blocks))
        await expect_refused(compact, "INVALID_ARGUMENT")
    await expect_refused(stack.frames.FreeExtents(frames_pb2.FreeExtentsRequest(owner="x")), "INVALID_ARGUMENT")
    for fields in ({"use": 99}, {"page_size": 1001}, {"page_token": "x"}):
        await expect_refused(stack.frames.ListFrames(pb.ListFramesRequest(**fields)), "INVALID_ARGUMENT")
    unknown = pb.ListFramesRequest(group="hosts/h1/memoryGroups/nobody")
    await expect_refused(stack.frames.ListFrames(unknown), "NOT_FOUND", "GROUP_UNKNOWN")


@pytest.mark.inside
async def test_frames_are_listed_by_number(stack: Stack) -> None:
    """Pages of the list join without gap or repetition; use and group choose; each frame has its newest mapping."""
    group = await stack.group("g")
    space = await stack.space(group)
    await stack.map(space, AT, 5)
    for page in range(5):
        await stack.write(space, AT + page * PAGE, b"x")
    child = await stack.fork(space)
    listed: list[pb.Frame] = []
    token = ""
    while True:
        answer = await stack.frames.ListFrames(pb.ListFramesRequest(page_size=3, page_token=token))
        listed += answer.frames
        token = answer.next_page_token
        if not token:
            break
    numbers = [frame.frame for frame in listed]
    assert numbers == sorted(set(numbers)) and numbers[0] == 0
    status = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert len(numbers) == status.total_frames - status.free_frames
    pages = (await stack.frames.ListFrames(pb.ListFramesRequest(use=pb.Frame.USE_ANONYMOUS, group=group))).frames
    assert [frame.mapping_count for frame in pages] == [2] * 5
    assert [[place.space for place in frame.mappings] for frame in pages] == [[child.name]] * 5
    free = await stack.frames.ListFrames(pb.ListFramesRequest(use=pb.Frame.USE_FREE, page_size=1000))
    assert len(free.frames) == 1000 and {frame.use for frame in free.frames} == {pb.Frame.USE_FREE}


@pytest.mark.inside
async def test_frames_are_zeroed_ahead(tmp_path: Path, engine_name: str, eventually: Any) -> None:
    """A stock of zeroed frames is kept, taken by first touches, filled again at its half; it counts as free."""
    async with Stack(tmp_path, engine=engine_name, config=MmuConfig(zeroed_frames=64)) as stack:
        machine = stack.machine
        await eventually(lambda: machine.frames.zeroed == 64, "the stock is full")
        shown = await fragmentation(stack)
        assert (shown.zeroed_frames, shown.free_frames) == (64, 4095)
        space = await stack.space()
        await stack.map(space, AT, 33)
        for page in range(33):
            await stack.fault(space, AT + page * PAGE, WRITE)
        assert await stack.read(space, AT, 33 * PAGE) == bytes(33 * PAGE)
        # 33 pages and the tables leave less than half; those that were taken after it was filled again are missing
        await eventually(lambda: machine.frames.zeroed > 55, "the stock was filled again")


@pytest.mark.inside
async def test_reading_ahead_can_be_chosen(tmp_path: Path, engine_name: str) -> None:
    """With a readahead of 1 a page comes alone; with 16, fifteen neighbours wait in the swap cache."""
    for pages, cached in ((1, 1), (16, 16)):
        folder = tmp_path / str(pages)
        folder.mkdir()
        async with Stack(folder, engine=engine_name, config=MmuConfig(swap_readahead=pages)) as stack:
            space = await stack.space()
            await stack.map(space, AT, 64)
            await stack.write(space, AT, b"x" * 64 * PAGE)
            await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=64))
            await stack.fault(space, AT + 20 * PAGE, READ)
            assert stack.machine.swap.areas[0].cached == cached
            assert await stack.read(space, AT, 64 * PAGE) == b"x" * 64 * PAGE
