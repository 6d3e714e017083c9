"""Huge pages of 2 MiB as a caller sees them: made, shared, split."""

from __future__ import annotations

import grpc
import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import EXECUTE, PAGE, RW, WRITE, Outcome, Stack
from tests.contract.mmu.test_advice import advise
from tests.contract.mmu.test_heap_and_remap import settings
from tests.contract.mmu.test_space_accounts import residency, statistics

HUGE = 512
BASE = 0x4000_0000
ALWAYS = ranges.SpaceSettings.HUGE_PAGES_ALWAYS
R = pb.Protection(read=True)


async def huge_space(stack: Stack, blocks: int = 1) -> pb.Space:
    """Returns a space with a mapping of `blocks` times 2 MiB at BASE that gets huge pages."""
    space = await stack.space()
    await settings(stack, space, huge_pages=ALWAYS)
    await stack.map(space, BASE, blocks * HUGE)
    return space


async def split(stack: Stack, space: pb.Space, pages: int = 1, address: int = BASE) -> int:
    """Splits huge pages; returns how many."""
    request = ranges.SplitHugePagesRequest(handle=space.handle, address=address, size_bytes=pages * PAGE)
    return int((await stack.spaces.SplitHugePages(request)).split_pages)


async def ask_again(stack: Stack, space: pb.Space, blocks: int = 1, address: int = BASE) -> None:
    """Has a kernel that had no free 2 MiB at a fault make room for them; the model always has it at the fault.

    Source: Linux Documentation/admin-guide/mm/transhuge.rst: a fault falls back to small pages, MADV_COLLAPSE compacts.
    """
    if stack.engine == "linux" and await huge(stack, space) < blocks:
        try:
            await advise(stack, space, "COLLAPSE", blocks * HUGE, address)
        except grpc.aio.AioRpcError as failure:
            if failure.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            pytest.skip("the kernel has no free block of 2 MiB")


async def huge(stack: Stack, space: pb.Space) -> int:
    """Returns how many huge pages a space has."""
    return int((await statistics(stack, space)).huge_pages) // HUGE


@pytest.mark.inside  # counts on a host that nobody used before
async def test_one_fault_maps_two_mebibytes(stack: Stack) -> None:
    """One entry with PS names 512 aligned frames of zeros; a core's walk, reading and writing find them."""
    space = await huge_space(stack)
    answer = await stack.fault(space, BASE + 5 * PAGE)
    assert answer.outcome == Outcome.OUTCOME_ZERO_FILLED and answer.frame % HUGE == 5
    found = await statistics(stack, space)
    assert (found.huge_pages, found.anonymous_pages, found.minor_faults) == (HUGE, HUGE, 1)
    leaf = (await stack.translate(space, BASE + 5 * PAGE)).steps[-1]
    assert (leaf.table, leaf.level) == ("PD", 2) and "PS" in leaf.bits
    await stack.write(space, BASE + 7 * PAGE - 3, b"border")
    assert await stack.read(space, BASE + 7 * PAGE - 3, 6) == b"border"
    assert stack.walk(space, BASE + 6 * PAGE) == answer.frame + 1
    words = await residency(stack, space, HUGE, BASE)
    assert all(word >> 57 & 1 and word >> 62 == 2 for word in words)
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_frames == memory.total_frames - 1


async def test_huge_pages_come_where_they_are_asked_for(stack: Stack) -> None:
    """By default only advice asks for them; NO_HUGE_PAGE, NEVER and a block of two mappings get small pages."""
    space = await stack.space()
    await stack.map(space, BASE, 3 * HUGE)
    await stack.fault(space, BASE)
    assert await huge(stack, space) == 0
    await advise(stack, space, "HUGE_PAGE", HUGE, BASE + HUGE * PAGE)
    await stack.fault(space, BASE + HUGE * PAGE)
    await ask_again(stack, space, address=BASE + HUGE * PAGE)
    assert await huge(stack, space) == 1
    await settings(stack, space, huge_pages=ALWAYS)
    await advise(stack, space, "NO_HUGE_PAGE", HUGE, BASE + 2 * HUGE * PAGE)
    await stack.fault(space, BASE + 2 * HUGE * PAGE)
    await stack.map(space, BASE + 4 * HUGE * PAGE, 100)
    await stack.map(space, BASE + 4 * HUGE * PAGE + 100 * PAGE, 412, R)
    await stack.fault(space, BASE + 4 * HUGE * PAGE)
    assert await huge(stack, space) == 1


@pytest.mark.inside
async def test_a_split_keeps_bits_and_rights(stack: Stack) -> None:
    """512 entries with the frames, A and D of the huge page; cores drop the huge translation; nothing is copied."""
    space = await huge_space(stack, 2)
    await stack.write(space, BASE, b"x" * PAGE)
    frame = stack.walk(space, BASE)
    assert frame is not None
    tables = (await statistics(stack, space)).table_frames
    stack.shot.clear()
    assert await split(stack, space) == 1
    assert stack.shot == [(space.root_address, 0, [(BASE, 2 << 20)])]
    assert (await statistics(stack, space)).table_frames == tables
    for page in (0, 1, 511):
        leaf = (await stack.translate(space, BASE + page * PAGE)).steps[-1]
        assert leaf.level == 1 and {"P", "RW", "A", "D"} <= set(leaf.bits)
        assert stack.walk(space, BASE + page * PAGE) == frame + page
    assert await split(stack, space, 2 * HUGE) == 0
    await expect_refused(split(stack, space, 1, BASE + 1), "INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_what_changes_a_part_splits_the_page(stack: Stack) -> None:
    """Unmapping, protecting and dropping a part leave the rest as small pages with their content."""
    space = await huge_space(stack, 3)
    for block in range(3):
        await stack.write(space, BASE + block * HUGE * PAGE, b"x" * HUGE * PAGE)
    await ask_again(stack, space, 3)
    assert await huge(stack, space) == 3
    unmap = pb.UnmapRangeRequest(handle=space.handle, address=BASE + 10 * PAGE, size_bytes=PAGE)
    assert (await stack.spaces.UnmapRange(unmap)).freed_pages == 1
    protect = pb.ProtectRangeRequest(handle=space.handle, address=BASE + HUGE * PAGE, size_bytes=PAGE, protection=R)
    await stack.spaces.ProtectRange(protect)
    assert await advise(stack, space, "DONT_NEED", 1, BASE + 2 * HUGE * PAGE) == 1
    assert await huge(stack, space) == 0
    assert (await stack.fault(space, BASE + 10 * PAGE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    assert (await stack.fault(space, BASE + HUGE * PAGE, WRITE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    assert await stack.read(space, BASE + 11 * PAGE, PAGE) == b"x" * PAGE
    assert await stack.read(space, BASE + 2 * HUGE * PAGE, 2 * PAGE) == bytes(PAGE) + b"x" * PAGE


async def test_rights_of_a_whole_huge_page_change_without_a_split(stack: Stack) -> None:
    """The one entry loses and gains the right to write."""
    space = await huge_space(stack)
    await stack.write(space, BASE, b"x")
    await ask_again(stack, space)
    for protection, outcome in ((R, Outcome.OUTCOME_SEGMENTATION_FAULT), (RW, Outcome.OUTCOME_SPURIOUS)):
        protect = pb.ProtectRangeRequest(
            handle=space.handle, address=BASE, size_bytes=HUGE * PAGE, protection=protection
        )
        await stack.spaces.ProtectRange(protect)
        assert (await stack.fault(space, BASE + PAGE, WRITE)).outcome == outcome
        assert await huge(stack, space) == 1
    assert (await stack.fault(space, BASE, EXECUTE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT


async def test_a_fork_shares_huge_pages_until_one_writes(stack: Stack) -> None:
    """Both have it without the right to write; a writer splits its own and copies one page; the last user keeps all."""
    parent = await huge_space(stack)
    await stack.write(parent, BASE, b"p" * HUGE * PAGE)
    frame = stack.walk(parent, BASE)
    child = await stack.fork(parent)
    assert await huge(stack, parent) == await huge(stack, child) == 1
    assert stack.walk(child, BASE) == frame and (await stack.translate(child, BASE)).copy_on_write
    assert (await stack.fault(child, BASE + 3 * PAGE)).outcome == Outcome.OUTCOME_COPIED
    assert (await huge(stack, parent), await huge(stack, child)) == (1, 0)
    await stack.write(child, BASE + 3 * PAGE, b"child")
    assert await stack.read(parent, BASE + 3 * PAGE, 5) == b"ppppp"
    assert await stack.read(child, BASE + 4 * PAGE, 5) == b"ppppp"
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=child.handle))
    assert (await stack.fault(parent, BASE + 3 * PAGE)).outcome == Outcome.OUTCOME_COPIED
    assert await huge(stack, parent) == 1 and stack.walk(parent, BASE) == frame


async def test_huge_pages_go_to_swap_page_by_page(stack: Stack) -> None:
    """Reclaim splits a huge page and writes what it pushes out; all comes back as it was."""
    space = await huge_space(stack)
    data = bytes(range(256)) * (HUGE * PAGE // 256)
    await stack.write(space, BASE, data)
    done = await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=20))
    assert done.reclaimed_pages == 20 and await huge(stack, space) == 0
    assert await stack.read(space, BASE, HUGE * PAGE) == data


async def test_small_pages_collapse_on_advice(stack: Stack) -> None:
    """COLLAPSE makes one huge page of what is there, of swap and of nothing; what is pinned stays small."""
    space = await stack.space()
    await stack.map(space, BASE, 2 * HUGE)
    for page in (0, 5, 300):
        await stack.write(space, BASE + page * PAGE, b"kept")
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=1))
    pin = await stack.spaces.PinRange(
        ranges.PinRangeRequest(handle=space.handle, address=BASE + HUGE * PAGE, size_bytes=1)
    )
    assert await advise(stack, space, "COLLAPSE", 2 * HUGE, BASE) == HUGE
    assert await huge(stack, space) == 1
    for page in (0, 5, 300):
        assert await stack.read(space, BASE + page * PAGE, 5) == b"kept\0"
    await stack.spaces.UnpinRanges(ranges.UnpinRangesRequest(pins=[pin.pin]))
    assert await advise(stack, space, "COLLAPSE", 2 * HUGE, BASE) == HUGE
    assert await huge(stack, space) == 2
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=HUGE))
    assert await stack.read(space, BASE + 5 * PAGE, 5) == b"kept\0"


async def test_without_two_free_mebibytes_a_small_page_will_do(stack: Stack) -> None:
    """A group that has no room for 512 pages gets one."""
    group = await stack.group("small", pages=100)
    space = await stack.space(group)
    await settings(stack, space, huge_pages=ALWAYS)
    await stack.map(space, BASE, HUGE)
    assert (await stack.fault(space, BASE)).outcome == Outcome.OUTCOME_ZERO_FILLED
    found = await statistics(stack, space)
    assert (found.huge_pages, found.anonymous_pages) == (0, 1)
