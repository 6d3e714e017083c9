"""Extents as a holder sees them: granted whole, split with A and D of the whole, revoked whole, pinned (S-09)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.conftest import ManualClock
from tests.contract.mmu.holder import Holder
from tests.contract.mmu.stack import EXECUTE, PAGE, READ, RW, WRITE, Outcome, Stack

EXTENT = 2 << 20
PAGES = EXTENT // PAGE
pytestmark = pytest.mark.inside


@pytest.fixture
async def stack(tmp_path: Path, engine_name: str, manual_clock: ManualClock) -> AsyncIterator[Stack]:
    """Returns an MMU of 32 MiB on a clock that the test moves."""
    async with Stack(tmp_path, manual_clock, frames=8192, swap_pages=4096, engine=engine_name) as made:
        yield made


async def reclaim(stack: Stack, space: pb.Space, pages: int) -> pb.ReclaimResponse:
    """Reclaims from a space."""
    done: pb.ReclaimResponse = await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=pages))
    return done


async def resident(stack: Stack, space: pb.Space) -> tuple[int, int]:
    """Returns how many pages of a space are in RAM, and how many faults it took."""
    found = await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))
    return found.resident_pages, found.minor_faults


async def unmap(stack: Stack, space: pb.Space, address: int, pages: int) -> None:
    """Unmaps a range."""
    await stack.spaces.UnmapRange(pb.UnmapRangeRequest(handle=space.handle, address=address, size_bytes=pages * PAGE))


async def test_an_empty_block_is_granted_whole(stack: Stack) -> None:
    """512 zeroed frames in a row, aligned, with the mapping's rights, for one fault and 512 charges."""
    group = await stack.group("vm")
    guest = await stack.guest(3 * PAGES, group=group)
    async with Holder(stack, guest) as holder:
        grant = (await holder.want_extent(EXTENT + 5 * PAGE)).grant_extent
        assert (grant.address, grant.extent_bytes, grant.frame % PAGES) == (EXTENT, EXTENT, 0)
        assert (grant.writable, grant.executable, grant.pinned) == (True, False, False)
        assert stack.bus.read(grant.frame * PAGE, EXTENT) == bytes(EXTENT)
        assert await resident(stack, guest) == (PAGES, 1)
        charged = await stack.groups.GetGroup(pb.GetGroupRequest(name=group))
        assert charged.usage_bytes == EXTENT
        again = (await holder.want_extent(EXTENT)).grant_extent
        assert (again.sequence, again.frame) == (grant.sequence + 1, grant.frame)
        assert (await holder.want_extent(0, READ)).grant_extent.frame not in (0, grant.frame)


async def test_where_there_is_no_extent_the_page_alone_is_granted(stack: Stack) -> None:
    """A block that is not one mapping's, has pages elsewhere, or 1 GiB in a small RAM; outside RAM it is a refusal."""
    guest = await stack.guest(PAGES + 7)
    await stack.map(guest, 4 * EXTENT, PAGES)
    async with Holder(stack, guest) as holder:
        beyond = (await holder.want_extent(EXTENT + PAGE)).grant
        assert (beyond.address, beyond.outcome) == (EXTENT + PAGE, Outcome.OUTCOME_ZERO_FILLED)
        await holder.want(4 * EXTENT + PAGE)
        assert (await holder.want_extent(4 * EXTENT)).WhichOneof("response") == "grant"
        assert (await holder.want_extent(0, size=1 << 30)).WhichOneof("response") == "grant"
        assert (await holder.want_extent(9 * EXTENT)).refusal.outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
        assert (await holder.want_extent(0, EXECUTE)).refusal.outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
        assert not holder.extents


async def test_a_group_at_its_limit_gets_pages(stack: Stack) -> None:
    """Nothing is reclaimed for an extent: what does not fit under the limit is granted page by page."""
    group = await stack.group("small", pages=PAGES - 1)
    guest = await stack.guest(PAGES, group=group)
    async with Holder(stack, guest) as holder:
        assert (await holder.want_extent(0)).WhichOneof("response") == "grant"
    assert (await stack.groups.GetGroup(pb.GetGroupRequest(name=group))).usage_bytes == PAGE


async def test_another_size_ends_the_stream(stack: Stack) -> None:
    """An extent is 2 MiB or 1 GiB."""
    guest = await stack.guest(PAGES)
    async with Holder(stack, guest) as holder:
        want = pb.HoldWantExtent(sequence=1, address=0, access=WRITE, extent_bytes=4 << 20)
        await holder.call.write(pb.HoldRequest(want_extent=want))
        await holder.reader
        assert holder.status == grpc.StatusCode.INVALID_ARGUMENT and "extent_bytes" in holder.details


async def test_reclaim_splits_an_extent_and_learns_its_bits(stack: Stack) -> None:
    """The split comes first, then the pages go; dirty as a whole means that each page is written."""
    guest = await stack.guest(PAGES)
    async with Holder(stack, guest) as holder:
        grant = (await holder.want_extent(0)).grant_extent
        stack.bus.write(grant.frame * PAGE + 7 * PAGE, b"seven")
        holder.bits[0] = (False, True)
        done = await reclaim(stack, guest, 3)
        assert (done.reclaimed_pages, done.written_pages) == (3, 3)
        kinds = [response.WhichOneof("response") for response in holder.seen]
        assert kinds[-2:] == ["revoke_extents", "revocation"]
        (split,) = holder.of("revoke_extents")
        assert split.revoke_extents.split and list(split.revoke_extents.addresses) == [0]
        await reclaim(stack, guest, 20)
        assert len(holder.of("revoke_extents")) == 1  # its pages are held one by one now
        assert len(holder.of("revocation")[-1].revocation.addresses) == 20
        assert await stack.read(guest, 7 * PAGE, 5) == b"seven"


async def test_a_clean_extent_is_dropped(stack: Stack) -> None:
    """What the holder calls clean costs no write when it goes."""
    guest = await stack.guest(PAGES)
    async with Holder(stack, guest) as holder:
        await holder.want_extent(0)
        done = await reclaim(stack, guest, 3)
        assert (done.reclaimed_pages, done.written_pages) == (3, 0)


async def test_an_accessed_extent_stays_before_a_page_that_was_not(stack: Stack) -> None:
    """One question about the whole; its one bit speaks for all of its pages."""
    guest = await stack.guest(2 * PAGES)
    async with Holder(stack, guest) as holder:
        await holder.want_extent(0)
        await holder.want(EXTENT)
        holder.bits[0] = (True, False)
        await reclaim(stack, guest, 1)
        assert 0 in [address for one in holder.of("age") for address in one.age.addresses]
        assert all(address % EXTENT == 0 for one in holder.of("age") for address in one.age.addresses)
        assert [list(one.revocation.addresses) for one in holder.of("revocation")] == [[EXTENT]]
        assert 0 in holder.extents


async def test_unmapping_all_of_it_revokes_it_whole(stack: Stack) -> None:
    """An extent that goes as a whole is not split; unmapping a part of another one is."""
    guest = await stack.guest(2 * PAGES)
    async with Holder(stack, guest) as holder:
        for address in (0, EXTENT):
            await holder.want_extent(address)
        await unmap(stack, guest, 0, PAGES)
        (whole,) = holder.of("revoke_extents")
        assert not whole.revoke_extents.split and not holder.of("revocation")
        await unmap(stack, guest, EXTENT, 2)
        assert holder.of("revoke_extents")[-1].revoke_extents.split
        assert [list(one.revocation.addresses) for one in holder.of("revocation")] == [[EXTENT, EXTENT + PAGE]]
        assert (await resident(stack, guest))[0] == PAGES - 2


async def test_losing_the_right_to_write_splits(stack: Stack) -> None:
    """A right that goes is revoked page by page, behind the split."""
    guest = await stack.guest(PAGES)
    async with Holder(stack, guest) as holder:
        await holder.want_extent(0)
        await stack.spaces.ProtectRange(
            pb.ProtectRangeRequest(handle=guest.handle, address=0, size_bytes=PAGE, protection=pb.Protection(read=True))
        )
        assert holder.of("revoke_extents")[-1].revoke_extents.split
        assert holder.of("revocation")[-1].revocation.write_only
        assert (await holder.want(0)).refusal.outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
        assert (await holder.want(PAGE)).grant.writable


async def test_a_page_of_an_extent_that_is_wanted_has_it_split(stack: Stack) -> None:
    """The split is on the stream before the grant; then the extent can be had again, since its frames are in a row."""
    guest = await stack.guest(PAGES)
    async with Holder(stack, guest) as holder:
        frame = (await holder.want_extent(0)).grant_extent.frame
        assert (await holder.want(3 * PAGE)).grant.frame == frame + 3
        kinds = [response.WhichOneof("response") for response in holder.seen]
        assert kinds == ["opened", "grant_extent", "revoke_extents", "grant"]
        assert (await holder.want_extent(0)).grant_extent.frame == frame


async def test_a_pinned_extent_stays_until_the_hold_ends(stack: Stack) -> None:
    """It is locked, neither reclaimed nor moved, and may go afterwards; half of RAM is the limit of pins."""
    group = await stack.group("vm")
    guest = await stack.guest(9 * PAGES, group=group)
    async with Holder(stack, guest) as holder:
        for block in range(8):
            grant = (await holder.want_extent(block * EXTENT, pinned=True)).grant_extent
            assert grant.pinned
        assert (await holder.want_extent(8 * EXTENT, pinned=True)).WhichOneof("response") == "grant"
        assert (await reclaim(stack, guest, 64)).reclaimed_pages == 1
        assert (await reclaim(stack, guest, 64)).reclaimed_pages == 0
        assert stack.bus.pins(grant.frame) == 1
        assert not holder.of("revoke_extents")
    await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=guest.handle))
    async with Holder(stack, guest) as holder:
        assert stack.bus.pins(grant.frame) == 0
        assert (await reclaim(stack, guest, 64)).reclaimed_pages == 64


async def test_a_pinned_extent_whose_mapping_goes_is_given_up(stack: Stack) -> None:
    """Its frames are free once the holder acknowledged, with no pin left."""
    guest = await stack.guest(PAGES)
    free = (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames
    async with Holder(stack, guest) as holder:
        frame = (await holder.want_extent(0, pinned=True)).grant_extent.frame
        await unmap(stack, guest, 0, PAGES)
        assert stack.bus.pins(frame) == 0
        assert (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames == free
        await stack.map(guest, 0, PAGES, RW)
        assert (await holder.want_extent(0)).WhichOneof("response") == "grant_extent"


async def test_the_end_of_a_hold_ends_its_extents(stack: Stack) -> None:
    """Another holder is granted the same frames whole, and sees what the first one wrote."""
    guest = await stack.guest(PAGES)
    async with Holder(stack, guest) as holder:
        frame = (await holder.want_extent(0)).grant_extent.frame
        stack.bus.write(frame * PAGE + 99, b"kept")
    async with Holder(stack, guest) as holder:
        assert (await holder.want_extent(0)).grant_extent.frame == frame
        assert (await reclaim(stack, guest, PAGES)).written_pages == PAGES  # what it could write counts as written
    assert await stack.read(guest, 99, 4) == b"kept"


async def test_scattered_memory_is_moved_together_for_an_extent(stack: Stack) -> None:
    """Enough free frames with no block among them make one by compaction."""
    spread = await stack.space()
    pages, machine = 7800, stack.machine
    await stack.map(spread, 0x4000_0000, pages)
    for page in range(0, pages, 600):
        await stack.write(spread, 0x4000_0000 + page * PAGE, bytes(600 * PAGE))
    for page in range(0, pages, 8):
        await unmap(stack, spread, 0x4000_0000 + page * PAGE, 6)
    guest = await stack.guest(PAGES)
    machine.frames.drain(everything=True)
    assert not machine.frames.buddy.of_order(9) and machine.frames.free > 4 * PAGES
    async with Holder(stack, guest) as holder:
        assert (await holder.want_extent(0)).WhichOneof("response") == "grant_extent"
    assert (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames > 2 * PAGES


@pytest.mark.real_time("zeroing a GiB takes seconds, and is the same on both clocks")
async def test_the_holder_of_one_gib_is_granted_it_whole(tmp_path: Path, engine_name: str, manual_clock: Any) -> None:
    """In a RAM of 2.5 GiB a block of the third level is granted, split, and revoked like one of the second."""
    async with Stack(tmp_path, manual_clock, frames=(5 << 29) // PAGE, swap_pages=64, engine=engine_name) as stack:
        gib = 1 << 30
        guest = await stack.guest(gib // PAGE)
        async with Holder(stack, guest) as holder:
            grant = (await holder.want_extent(5 * PAGE, size=gib)).grant_extent
            assert (grant.address, grant.extent_bytes, grant.frame % (gib // PAGE)) == (0, gib, 0)
            await unmap(stack, guest, gib - PAGE, 1)
            assert holder.of("revoke_extents")[-1].revoke_extents.split
            assert (await resident(stack, guest))[0] == gib // PAGE - 1
