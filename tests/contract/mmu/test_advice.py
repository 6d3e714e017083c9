"""madvise as a caller sees it."""

from __future__ import annotations

from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, RW, Outcome, Stack

BASE = 0x40_0000
R = pb.Protection(read=True)


async def advise(stack: Stack, space: pb.Space, advice: str, pages: int = 4, address: int = BASE) -> int:
    """Gives advice by name; returns the pages that something was done to."""
    request = ranges.AdviseRangeRequest(
        handle=space.handle,
        address=address,
        size_bytes=pages * PAGE,
        advice=ranges.Advice.Value(f"ADVICE_{advice}"),
    )
    return int((await stack.spaces.AdviseRange(request)).pages)


async def view(stack: Stack, space: pb.Space) -> pb.Space:
    """Returns a space's counters."""
    found: pb.Space = await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))
    return found


async def test_what_is_not_needed_reads_as_zero(stack: Stack) -> None:
    """DONT_NEED drops private pages from RAM and from swap; private pages of an object show the object again."""
    space = await stack.space()
    await stack.map(space, BASE, 4)
    await stack.write(space, BASE, b"x" * 4 * PAGE)
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=2))
    assert await advise(stack, space, "DONT_NEED") == 4
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_swap_slots == memory.swap_slots
    assert await stack.read(space, BASE, 4 * PAGE) == bytes(4 * PAGE)
    text = await stack.object(b"text" * 1024)
    await stack.map(space, BASE * 2, 1, RW, object=text.handle)
    await stack.write(space, BASE * 2, b"mine")
    await advise(stack, space, "DONT_NEED", 1, BASE * 2)
    assert await stack.read(space, BASE * 2, 4) == b"text"


async def test_what_is_shared_stays_with_its_object(stack: Stack) -> None:
    """DONT_NEED of a shared mapping drops the entries, not the content."""
    space = await stack.space()
    sea = await stack.object(b"sea" * 2000)
    await stack.map(space, BASE, 2, RW, object=sea.handle, shared=True)
    await stack.write(space, BASE, b"SEA")
    assert await advise(stack, space, "DONT_NEED", 2) >= 1
    assert (await view(stack, space)).resident_pages == 0
    assert await stack.read(space, BASE, 3) == b"SEA"


async def test_freed_pages_go_without_a_write_unless_they_are_written_again(stack: Stack) -> None:
    """FREE lets reclaim drop the pages; one that was written afterwards is kept and swapped like any other."""
    space = await stack.space()
    await stack.map(space, BASE, 4)
    await stack.write(space, BASE, b"old!" * PAGE)
    assert await advise(stack, space, "FREE") == 4
    assert await stack.read(space, BASE, 4) in (b"old!", bytes(4))
    await stack.write(space, BASE, b"new!")
    before = (await stack.frames.GetMemory(pb.GetMemoryRequest())).swapped_out_pages
    done = await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=4))
    assert (done.reclaimed_pages, done.written_pages) == (4, 1)
    after = (await stack.frames.GetMemory(pb.GetMemoryRequest())).swapped_out_pages
    assert after - before == 1
    assert await stack.read(space, BASE, 4) == b"new!"
    assert await stack.read(space, BASE + PAGE, PAGE) == bytes(PAGE)


async def test_pages_are_paged_out_and_brought_back_on_advice(stack: Stack) -> None:
    """PAGE_OUT swaps now; WILL_NEED reads swap, so that the next access is a minor fault."""
    space = await stack.space()
    await stack.map(space, BASE, 4)
    await stack.write(space, BASE, b"x" * 4 * PAGE)
    assert await advise(stack, space, "PAGE_OUT") == 4
    assert (await view(stack, space)).swapped_pages == 4
    assert await advise(stack, space, "WILL_NEED") == 4
    assert await advise(stack, space, "WILL_NEED") == 0
    major = (await view(stack, space)).major_faults
    assert await stack.read(space, BASE, 4 * PAGE) == b"x" * 4 * PAGE
    assert (await view(stack, space)).major_faults == major
    used = await stack.spaces.GetSpaceStatistics(ranges.GetSpaceStatisticsRequest(handle=space.handle))
    assert (used.readahead_pages, used.swap_cached_pages) == (4, 4)


async def test_cold_pages_go_first(stack: Stack) -> None:
    """COLD moves pages to the old end: the next reclaim takes them before pages that came earlier."""
    space = await stack.space()
    await stack.map(space, BASE, 4)
    for page in range(4):
        await stack.write(space, BASE + page * PAGE, b"x")
    assert await advise(stack, space, "COLD", 1, BASE + 3 * PAGE) == 1
    await stack.spaces.Reclaim(pb.ReclaimRequest(pages=1))
    assert stack.walk(space, BASE + 3 * PAGE) is None
    assert all(stack.walk(space, BASE + page * PAGE) for page in range(3))


async def test_populating_faults_pages_in(stack: Stack) -> None:
    """POPULATE_WRITE makes pages writable, POPULATE_READ readable; what the rights forbid is refused."""
    space = await stack.space()
    await stack.map(space, BASE, 4)
    await stack.map(space, BASE + 4 * PAGE, 2, R)
    assert await advise(stack, space, "POPULATE_WRITE") == 4
    assert (await stack.fault(space, BASE)).outcome == Outcome.OUTCOME_SPURIOUS
    assert await advise(stack, space, "POPULATE_READ", 6) == 2
    await expect_refused(advise(stack, space, "POPULATE_WRITE", 6), "INVALID_ARGUMENT", "ADVICE_NOT_POSSIBLE")


async def test_a_fork_leaves_out_or_wipes_what_it_was_told_to(stack: Stack) -> None:
    """DONT_FORK ranges are not mapped in the child, WIPE_ON_FORK ranges are zero there; both can be taken back."""
    parent = await stack.space()
    await stack.map(parent, BASE, 4)
    await stack.write(parent, BASE, b"x" * 4 * PAGE)
    await advise(stack, parent, "DONT_FORK", 1)
    await advise(stack, parent, "WIPE_ON_FORK", 1, BASE + PAGE)
    child = await stack.fork(parent)
    await expect_refused(stack.read(child, BASE, 1), "OUT_OF_RANGE", "BAD_ADDRESS")
    assert await stack.read(child, BASE + PAGE, 1) == b"\0"
    assert await stack.read(child, BASE + 2 * PAGE, 1) == b"x"
    assert await stack.read(parent, BASE, 2 * PAGE) == b"x" * 2 * PAGE
    await advise(stack, parent, "DO_FORK", 1)
    await advise(stack, parent, "KEEP_ON_FORK", 1, BASE + PAGE)
    assert await stack.read(await stack.fork(parent), BASE, 4 * PAGE) == b"x" * 4 * PAGE


async def test_advice_is_refused_with_its_field_and_reason(stack: Stack) -> None:
    """Holes are told after the rest is done; locked pages keep; what a mapping cannot have is said."""
    space = await stack.space()
    await stack.map(space, BASE, 2)
    await stack.write(space, BASE, b"x" * 2 * PAGE)
    message = await expect_refused(advise(stack, space, "DONT_NEED", 3), "NOT_FOUND", "RANGE_NOT_MAPPED")
    assert f"{BASE + 2 * PAGE:#x}" in message
    assert (await view(stack, space)).resident_pages == 0
    message = await expect_refused(advise(stack, space, "NORMAL", 1, BASE + 1), "INVALID_ARGUMENT", "REQUEST_INVALID")
    assert "address" in message
    message = await expect_refused(advise(stack, space, "UNSPECIFIED", 1), "INVALID_ARGUMENT", "REQUEST_INVALID")
    assert "advice" in message
    await stack.spaces.LockRange(ranges.LockRangeRequest(handle=space.handle, address=BASE, size_bytes=PAGE))
    for advice in ("DONT_NEED", "FREE", "PAGE_OUT"):
        await expect_refused(advise(stack, space, advice, 2), "FAILED_PRECONDITION", "RANGE_LOCKED")
    sea = await stack.object(b"sea")
    await stack.map(space, BASE * 2, 1, RW, object=sea.handle)
    for advice in ("FREE", "HUGE_PAGE", "WIPE_ON_FORK"):
        await expect_refused(advise(stack, space, advice, 1, BASE * 2), "INVALID_ARGUMENT", "ADVICE_NOT_POSSIBLE")


async def test_random_ranges_are_not_faulted_around(stack: Stack) -> None:
    """A read of an object maps its neighbours that are in RAM, with A clear; in a RANDOM range it does not."""
    text = await stack.object(b"t" * 40 * PAGE)
    normal, random = await stack.space(), await stack.space()
    for space in (normal, random):
        await stack.map(space, BASE + PAGE, 38, R, object=text.handle, object_offset=PAGE)
    await advise(stack, random, "RANDOM", 38, BASE + PAGE)
    for space, expected in ((normal, 16), (random, 1)):
        await stack.read(space, BASE + 20 * PAGE, 1)
        found = await view(stack, space)
        assert (found.resident_pages, found.minor_faults) == (expected, 1)
    leaf = (await stack.translate(normal, BASE + 21 * PAGE)).steps[-1]
    assert "A" not in leaf.bits and "P" in leaf.bits
    assert "A" in (await stack.translate(normal, BASE + 20 * PAGE)).steps[-1].bits
    assert stack.walk(normal, BASE + 15 * PAGE) is None and stack.walk(normal, BASE + 32 * PAGE) is None
    await advise(stack, random, "NORMAL", 38, BASE + PAGE)
    await stack.read(random, BASE + 2 * PAGE, 1)
    assert (await view(stack, random)).resident_pages == 1 + 15
