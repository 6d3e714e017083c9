"""Mappings as a caller sees them: placing, splitting, merging, protecting, growing."""

from __future__ import annotations

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import EXECUTE, PAGE, READ, RW, WRITE, Outcome, Stack

R = pb.Protection(read=True)
RX = pb.Protection(read=True, execute=True)
NONE = pb.Protection()
MIB = 1 << 20


async def mappings(stack: Stack, space: pb.Space) -> list[tuple[int, int, str]]:
    """Returns (start, end, rights) of a space's mappings."""
    found = await stack.spaces.ListMappings(pb.ListMappingsRequest(handle=space.handle))
    return [(one.start, one.end, rights(one.protection)) for one in found.mappings]


def rights(protection: pb.Protection) -> str:
    """Returns rights as /proc/PID/maps shows them."""
    flags = (protection.read, protection.write, protection.execute)
    return "".join(letter if flag else "-" for letter, flag in zip("rwx", flags, strict=True))


async def protect(stack: Stack, space: pb.Space, address: int, pages: int, protection: pb.Protection) -> None:
    """Changes rights."""
    await stack.spaces.ProtectRange(
        pb.ProtectRangeRequest(handle=space.handle, address=address, size_bytes=pages * PAGE, protection=protection)
    )


async def unmap(stack: Stack, space: pb.Space, address: int, pages: int) -> int:
    """Unmaps a range."""
    request = pb.UnmapRangeRequest(handle=space.handle, address=address, size_bytes=pages * PAGE)
    return int((await stack.spaces.UnmapRange(request)).freed_pages)


async def test_chosen_addresses_go_down_from_the_top(stack: Stack) -> None:
    """Without an address the highest free range below the stack's GiB is taken, each below the last."""
    space = await stack.space()
    request = pb.MapRangeRequest(handle=space.handle, size_bytes=5000, protection=RW)
    first = (await stack.spaces.MapRange(request)).address
    request.label = "another"
    second = (await stack.spaces.MapRange(request)).address
    assert first == (1 << 47) - (1 << 30) - 2 * PAGE
    assert second == first - 2 * PAGE


async def test_a_request_id_maps_once(stack: Stack) -> None:
    """A repeated call returns the place of the first; the same id for another range is refused."""
    space = await stack.space()
    request = pb.MapRangeRequest(handle=space.handle, size_bytes=PAGE, protection=RW, request_id="heap")
    first = (await stack.spaces.MapRange(request)).address
    assert (await stack.spaces.MapRange(request)).address == first
    listed = await stack.spaces.ListMappings(pb.ListMappingsRequest(handle=space.handle))
    assert [(entry.start, entry.end) for entry in listed.mappings] == [(first, first + PAGE)]
    request.size_bytes = 2 * PAGE
    await expect_refused(stack.spaces.MapRange(request), "INVALID_ARGUMENT", "REQUEST_ID_REUSED")


async def test_a_gap_that_fits_is_used(stack: Stack) -> None:
    """A range that was unmapped between two others is chosen again when it is large enough, not when too small."""
    space = await stack.space()
    request = pb.MapRangeRequest(handle=space.handle, size_bytes=4 * PAGE, protection=RW)
    places = []
    for label in "abc":
        request.label = label
        places.append((await stack.spaces.MapRange(request)).address)
    await unmap(stack, space, places[1], 4)
    request.size_bytes = 5 * PAGE
    assert (await stack.spaces.MapRange(request)).address == places[2] - 5 * PAGE
    request.size_bytes = 4 * PAGE
    assert (await stack.spaces.MapRange(request)).address == places[1]


async def test_a_hint_is_taken_when_free_and_passed_over_when_not(stack: Stack) -> None:
    """An address that is not fixed is a hint."""
    space = await stack.space()
    request = pb.MapRangeRequest(handle=space.handle, address=0x5000_0000, size_bytes=PAGE, protection=RW)
    assert (await stack.spaces.MapRange(request)).address == 0x5000_0000
    request.protection.CopyFrom(R)
    assert (await stack.spaces.MapRange(request)).address != 0x5000_0000


async def test_a_fixed_range_in_use_needs_replace(stack: Stack) -> None:
    """A fixed range over another mapping is refused; with `replace` it takes its place, and the old bytes are gone."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 4)
    await stack.write(space, 0x40_0000, b"old" * 5000)
    call = stack.map(space, 0x40_1000, 1, R)
    await expect_refused(call, "ALREADY_EXISTS", "RANGE_IN_USE")
    await stack.map(space, 0x40_1000, 1, R, replace=True)
    assert await stack.read(space, 0x40_1000, PAGE) == bytes(PAGE)
    assert (await stack.read(space, 0x40_0000, 6)) == b"oldold"
    assert [one[2] for one in await mappings(stack, space)] == ["rw-", "r--", "rw-"]


async def test_unmapping_splits_and_neighbours_merge_again(stack: Stack) -> None:
    """A hole splits a mapping in two; filling it with the same rights makes it one again."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 9)
    await stack.write(space, 0x40_0000, b"x" * 9 * PAGE)
    assert await unmap(stack, space, 0x40_3000, 3) == 3
    assert await mappings(stack, space) == [(0x40_0000, 0x40_3000, "rw-"), (0x40_6000, 0x40_9000, "rw-")]
    await stack.map(space, 0x40_3000, 3)
    assert await mappings(stack, space) == [(0x40_0000, 0x40_9000, "rw-")]
    assert await stack.read(space, 0x40_3000, 1) == b"\0"
    assert await unmap(stack, space, 0x10_0000, 4096) == 7
    assert await mappings(stack, space) == []


@pytest.mark.inside
async def test_protecting_splits_and_takes_rights_from_pages_in_ram(stack: Stack) -> None:
    """mprotect takes the right to write from the entry at once, and gives it back with the next change."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 3)
    await stack.write(space, 0x40_0000, b"x" * 3 * PAGE)
    await protect(stack, space, 0x40_1000, 1, R)
    assert [one[2] for one in await mappings(stack, space)] == ["rw-", "r--", "rw-"]
    assert (await stack.fault(space, 0x40_1000, WRITE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    assert (await stack.fault(space, 0x40_1000, READ)).outcome == Outcome.OUTCOME_SPURIOUS
    assert (space.root_address, 0, [(0x40_1000, PAGE)]) in stack.shot
    await protect(stack, space, 0x40_1000, 1, RW)
    assert len(await mappings(stack, space)) == 1
    assert (await stack.fault(space, 0x40_1000, WRITE)).outcome == Outcome.OUTCOME_SPURIOUS


async def test_no_rights_keep_the_page(stack: Stack) -> None:
    """A page that may not be touched at all stays in RAM, unseen by a core, and comes back with its bytes."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    await stack.write(space, 0x40_0000, b"kept")
    await protect(stack, space, 0x40_0000, 1, NONE)
    assert stack.walk(space, 0x40_0000) is None
    await expect_refused(stack.read(space, 0x40_0000, 4), "OUT_OF_RANGE", "BAD_ADDRESS")
    explained = await stack.translate(space, 0x40_0000)
    assert explained.residency == pb.TranslateResponse.RESIDENCY_RAM
    await protect(stack, space, 0x40_0000, 1, R)
    assert await stack.read(space, 0x40_0000, 4) == b"kept"


async def test_execution_needs_its_right(stack: Stack) -> None:
    """A page without the right to execute has NX and refuses a fetch; with it, it has not."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    await stack.map(space, 0x50_0000, 1, RX)
    assert (await stack.fault(space, 0x40_0000, EXECUTE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    assert (await stack.fault(space, 0x40_0000, READ)).entry >> 63 == 1
    assert (await stack.fault(space, 0x50_0000, EXECUTE)).entry >> 63 == 0


async def test_protecting_a_hole_is_refused(stack: Stack) -> None:
    """A range that is not mapped as a whole is refused with the first address that is missing, and unchanged."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    message = await expect_refused(protect(stack, space, 0x40_0000, 2, R), "NOT_FOUND", "RANGE_NOT_MAPPED")
    assert "0x401000" in message
    assert await mappings(stack, space) == [(0x40_0000, 0x40_1000, "rw-")]


async def test_a_stack_grows_down_to_its_limit(stack: Stack) -> None:
    """Touching below a stack grows it, down to its limit, never closer than the guard gap to another mapping."""
    space = await stack.space()
    top = (1 << 47) - PAGE
    bottom = top - 8 * MIB
    await stack.map(space, bottom, 8 * MIB // PAGE, grows_down=True, label="[stack]")
    assert await mappings(stack, space) == [(top - PAGE, top, "rw-")]
    assert (await stack.fault(space, top - 10 * PAGE)).outcome == Outcome.OUTCOME_ZERO_FILLED
    assert await mappings(stack, space) == [(top - 10 * PAGE, top, "rw-")]
    assert (await stack.fault(space, bottom)).outcome == Outcome.OUTCOME_ZERO_FILLED
    assert (await stack.fault(space, bottom - 1)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT


async def test_a_stack_keeps_its_guard_gap(stack: Stack) -> None:
    """A mapping within a MiB below stops the growth."""
    space = await stack.space()
    await stack.map(space, 0x1000_0000, 16 * MIB // PAGE, grows_down=True)
    await stack.map(space, 0x1000_0000, 1)
    assert (await stack.fault(space, 0x1000_0000 + MIB)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    assert (await stack.fault(space, 0x1000_0000 + MIB + PAGE)).outcome == Outcome.OUTCOME_ZERO_FILLED


async def test_mappings_are_listed_in_pages(stack: Stack) -> None:
    """The list of mappings goes on where its last page ended, with resident pages counted."""
    space = await stack.space()
    for index in range(7):
        await stack.map(space, 0x40_0000 + index * 2 * PAGE, 1)
    await stack.write(space, 0x40_0000, b"x")
    starts: list[int] = []
    token = ""
    while True:
        request = pb.ListMappingsRequest(name=space.name, page_size=3, page_token=token)
        page = await stack.spaces.ListMappings(request)
        starts += [one.start for one in page.mappings]
        token = page.next_page_token
        if not token:
            break
    assert starts == [0x40_0000 + index * 2 * PAGE for index in range(7)]
    first = await stack.spaces.ListMappings(pb.ListMappingsRequest(handle=space.handle, page_size=1))
    assert first.mappings[0].resident_pages == 1


async def test_bad_ranges_are_refused(stack: Stack) -> None:
    """Unaligned, empty, negative, huge and upper-half ranges are refused, each naming its field."""
    space = await stack.space()
    for fields in (
        {"address": 0x40_0001, "size_bytes": PAGE},
        {"size_bytes": 0},
        {"size_bytes": -1},
        {"size_bytes": 2**63 - 1},
        {"size_bytes": PAGE, "object_offset": 5},
        {"size_bytes": PAGE, "grows_down": True, "shared": True},
        {"size_bytes": PAGE, "replace": True},
        {"size_bytes": PAGE, "label": "x" * 256},
    ):
        request = pb.MapRangeRequest(handle=space.handle, protection=RW, **fields)
        await expect_refused(stack.spaces.MapRange(request), "INVALID_ARGUMENT")
    for address in (0, 1 << 47, (1 << 47) - PAGE, 2**64 - PAGE):
        await expect_refused(stack.map(space, address, 2), "INVALID_ARGUMENT", "ADDRESS_NOT_MAPPABLE")
    await expect_refused(unmap(stack, space, 0x40_0001, 1), "INVALID_ARGUMENT")
    await expect_refused(unmap(stack, space, 0x40_0000, -5), "INVALID_ARGUMENT")
    await expect_refused(protect(stack, space, 2**64 - PAGE, 1, R), "INVALID_ARGUMENT")


async def test_a_full_address_space_says_so(stack: Stack) -> None:
    """A range that fits nowhere is refused."""
    space = await stack.space()
    request = pb.MapRangeRequest(handle=space.handle, size_bytes=(1 << 46) + (1 << 45), protection=RW)
    await stack.spaces.MapRange(request)
    await expect_refused(stack.spaces.MapRange(request), "RESOURCE_EXHAUSTED", "ADDRESS_SPACE_FULL")


async def test_tables_go_when_their_pages_go(stack: Stack) -> None:
    """Unmapping gives back the page tables that hold nothing any more."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    await stack.map(space, 0x7000_0000_0000, 1)
    await stack.write(space, 0x40_0000, b"x")
    await stack.write(space, 0x7000_0000_0000, b"x")
    assert (await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))).table_frames == 7
    await unmap(stack, space, 0x7000_0000_0000, 1)
    assert (await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))).table_frames == 4
    assert stack.walk(space, 0x40_0000) is not None
