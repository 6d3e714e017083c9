"""Swap areas while the host runs: made, preferred, taken out of use, listed, checked; and what breaks under one."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.common.v1 import faults_pb2, faults_pb2_grpc, layer_pb2
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import swap_pb2
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, WRITE, Outcome, Stack

AT = 0x40_0000
FIRST = "hosts/h1/swapAreas/swap"
pytestmark = pytest.mark.inside


async def make(
    stack: Stack, name: str = "extra", slots: int = 64, priority: int = 0, **fields: Any
) -> swap_pb2.SwapArea:
    """Makes a swap area."""
    wanted = swap_pb2.SwapArea(size_bytes=slots * PAGE, priority=priority)
    made: swap_pb2.SwapArea = await stack.swap.CreateSwapArea(
        swap_pb2.CreateSwapAreaRequest(swap_area_id=name, swap_area=wanted, **fields)
    )
    return made


async def area(stack: Stack, name: str = "extra") -> swap_pb2.SwapArea:
    """Returns an area as it is now."""
    found: swap_pb2.SwapArea = await stack.swap.GetSwapArea(
        swap_pb2.GetSwapAreaRequest(name=f"hosts/h1/swapAreas/{name}")
    )
    return found


async def delete(stack: Stack, name: str = "extra") -> list[swap_pb2.DeleteSwapAreaProgress]:
    """Takes an area out of use; returns all that was said."""
    call = stack.swap.DeleteSwapArea(swap_pb2.DeleteSwapAreaRequest(name=f"hosts/h1/swapAreas/{name}"))
    return [progress async for progress in call]


def content(page: int) -> bytes:
    """Returns what a page holds."""
    return f"page {page} ".encode() * 400


async def swapped(stack: Stack, pages: int, group: str = "") -> pb.Space:
    """Makes a space of pages with content, all of them in swap."""
    space = await stack.space(group)
    await stack.map(space, AT, pages)
    for page in range(pages):
        await stack.write(space, AT + page * PAGE, content(page))
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=pages))
    return space


async def expect_content(stack: Stack, space: pb.Space, pages: int) -> None:
    """Checks every byte."""
    for page in range(pages):
        assert await stack.read(space, AT + page * PAGE, len(content(page))) == content(page)


async def test_the_configured_area_is_the_first(stack: Stack) -> None:
    """It has a name, its size, priority 0, and counts what is in it."""
    await swapped(stack, 5)
    (only,) = (await stack.swap.ListSwapAreas(swap_pb2.ListSwapAreasRequest())).swap_areas
    assert (only.name, only.slots, only.size_bytes, only.priority) == (FIRST, 1024, 1024 * PAGE, 0)
    assert (only.used_slots, only.cached_slots, only.written_pages, only.state) == (
        5,
        0,
        5,
        swap_pb2.SwapArea.STATE_ACTIVE,
    )


async def test_the_area_of_highest_priority_is_used_first(stack: Stack) -> None:
    """Pages go to it until it is full, then to the next; equals take turns; the list is by priority, then name."""
    await make(stack, "fast", 10, priority=7)
    await make(stack, "b", 64, priority=3)
    await make(stack, "a", 64, priority=3)
    names = [
        one.name.rpartition("/")[2]
        for one in (await stack.swap.ListSwapAreas(swap_pb2.ListSwapAreasRequest())).swap_areas
    ]
    assert names == ["fast", "a", "b", "swap"]
    space = await swapped(stack, 30)
    used = [(await area(stack, name)).used_slots for name in names]
    assert used == [10, 10, 10, 0]
    await expect_content(stack, space, 30)
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.swap_slots == 1024 + 10 + 128


async def test_swapoff_brings_pages_home(stack: Stack) -> None:
    """With RAM to spare all pages come back to RAM; the area, its file and its slots are gone, and no byte is lost."""
    await make(stack, priority=1)
    space = await swapped(stack, 50)
    child = await stack.fork(space)
    assert (await area(stack)).used_slots == 50
    assert (stack.folder / "state" / "swap-extra").exists()
    said = await delete(stack)
    assert [one.done for one in said] == [False] * (len(said) - 1) + [True]
    assert (said[-1].returned_pages, said[-1].moved_pages, said[-1].remaining_slots) == (50, 0, 0)
    await expect_refused(area(stack), "NOT_FOUND", "SWAP_AREA_UNKNOWN")
    assert not (stack.folder / "state" / "swap-extra").exists()
    assert (await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))).resident_pages == 50
    assert (await stack.fault(space, AT, WRITE)).outcome == Outcome.OUTCOME_COPIED
    await stack.write(space, AT, b"mine")
    await expect_content(stack, child, 50)
    assert await stack.read(space, AT, 4) == b"mine"


async def test_swapoff_moves_pages_to_other_areas_when_ram_is_short(tmp_path: Any, engine_name: str) -> None:
    """Where RAM has no room, pages go from area to area, and are there."""
    async with Stack(tmp_path, frames=128, swap_pages=400, engine=engine_name) as stack:
        await make(stack, slots=200, priority=1)
        group = await stack.group("tight", 24)
        space = await stack.space(group)
        await stack.map(space, AT, 100)
        for page in range(100):
            await stack.write(space, AT + page * PAGE, content(page))
        before = (await area(stack)).used_slots
        assert before > 70
        said = await delete(stack)
        assert said[-1].done and said[-1].moved_pages > 50
        assert (await area(stack, "swap")).used_slots > 50
        await expect_content(stack, space, 100)
        usage = await stack.groups.GetGroup(pb.GetGroupRequest(name=group))
        assert usage.usage_bytes <= 24 * PAGE


async def test_swapoff_without_room_keeps_the_area(tmp_path: Any, engine_name: str) -> None:
    """Pages that fit nowhere stay: NO_FREE_FRAME, the area is active again, every byte is there."""
    async with Stack(tmp_path, frames=128, swap_pages=200, engine=engine_name) as stack:
        group = await stack.group("tight", 24)
        space = await stack.space(group)
        await stack.map(space, AT, 100)
        for page in range(100):
            await stack.write(space, AT + page * PAGE, content(page))
        await expect_refused(delete(stack, "swap"), "RESOURCE_EXHAUSTED", "NO_FREE_FRAME")
        kept = await area(stack, "swap")
        assert kept.state == swap_pb2.SwapArea.STATE_ACTIVE and kept.used_slots > 70
        await expect_content(stack, space, 100)


async def test_swapoff_can_be_stopped(stack: Stack, eventually: Any) -> None:
    """Ending the stream ends it: what came back stays, the rest is still in the area, which is used again."""
    await make(stack, slots=300, priority=1)
    space = await swapped(stack, 200)
    call = stack.swap.DeleteSwapArea(swap_pb2.DeleteSwapAreaRequest(name="hosts/h1/swapAreas/extra"))
    first: Any = await call.read()
    call.cancel()
    assert 0 < first.remaining_slots < 200 and not first.done
    await eventually(lambda: stack.machine.swap.named("extra").state == 1, "the area is used again")
    assert (await area(stack)).used_slots > 0
    await expect_content(stack, space, 200)
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=200))
    assert (await area(stack)).used_slots == 200
    assert (await delete(stack))[-1].done


async def test_an_area_is_taken_out_of_use_once(stack: Stack) -> None:
    """While one call drains it, another is refused, and no page goes there."""
    await make(stack, priority=1)
    engine = stack.service.host.engine
    drain = engine.begin_drain("extra")
    assert (await area(stack)).state == swap_pb2.SwapArea.STATE_DRAINING
    await expect_refused(delete(stack), "FAILED_PRECONDITION", "SWAP_AREA_DRAINING")
    await swapped(stack, 5)
    assert ((await area(stack)).used_slots, (await area(stack, "swap")).used_slots) == (0, 5)
    engine.end_drain(drain)
    assert (await area(stack)).state == swap_pb2.SwapArea.STATE_ACTIVE


async def test_objects_come_home_too(stack: Stack) -> None:
    """Pages of objects leave an area as those of spaces do."""
    await make(stack, priority=1)
    data = await stack.object(b"".join(content(page)[:PAGE].ljust(PAGE, b".") for page in range(20)))
    await stack.spaces.Reclaim(pb.ReclaimRequest(pages=20))
    assert (await area(stack)).used_slots == 20
    slots = (await stack.swap.ListSwapSlots(swap_pb2.ListSwapSlotsRequest(name="hosts/h1/swapAreas/extra"))).slots
    assert {slot.user for slot in slots} == {data.name} and len({slot.address for slot in slots}) == 20
    assert (await delete(stack))[-1].returned_pages == 20
    shown = await stack.objects.GetObject(pb.GetObjectRequest(handle=data.handle))
    assert (shown.resident_pages, shown.swapped_pages) == (20, 0)
    space = await stack.space()
    await stack.map(space, AT, 20, object=data.handle, shared=True)
    assert await stack.read(space, AT + 7 * PAGE, 6) == b"page 7"


async def test_slots_are_listed_with_their_users(stack: Stack) -> None:
    """By number, in pages; each with references, user, address, group, cached frame and CRC-32C."""
    group = await stack.group("g")
    space = await swapped(stack, 7, group)
    await stack.fork(space)
    await stack.fault(space, AT, READ)
    listed: list[swap_pb2.SwapSlot] = []
    token = ""
    while True:
        request = swap_pb2.ListSwapSlotsRequest(name=FIRST, page_size=3, page_token=token)
        answer = await stack.swap.ListSwapSlots(request)
        listed += answer.slots
        token = answer.next_page_token
        if not token:
            break
    assert [slot.slot for slot in listed] == list(range(7))
    assert {slot.group for slot in listed} == {group}
    assert sum(slot.references for slot in listed) == 13
    assert all(slot.HasField("cached_frame") for slot in listed), "the neighbours were read ahead"
    frame = listed[3].cached_frame
    assert stack.bus.read(frame * PAGE, 8) == content((listed[3].address - AT) // PAGE)[:8]
    assert listed[3].checksum == slow_crc32c(stack.bus.read(frame * PAGE, PAGE))


def slow_crc32c(data: bytes) -> int:
    """Returns a CRC-32C, a bit at a time (RFC 3720, B.4)."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F6_3B78 if crc & 1 else 0)
    return crc ^ 0xFFFF_FFFF


async def test_a_check_finds_what_rotted(stack: Stack) -> None:
    """Bytes changed behind the MMU are found, named with their user, counted, and never mapped; the rest is well."""
    space = await swapped(stack, 100)
    file = stack.folder / "state" / "swap"
    with file.open("r+b") as rotten:
        for number in (3, 77):
            rotten.seek(number * PAGE + 99)
            rotten.write(b"!")
    call = stack.swap.CheckSwapArea(swap_pb2.CheckSwapAreaRequest(name=FIRST))
    said = [one async for one in call]
    found = [slot for one in said for slot in one.corrupt_slots]
    assert [slot.slot for slot in found] == [3, 77] and {slot.user for slot in found} == {space.name}
    assert said[-1].done and (said[-1].checked_slots, said[-1].remaining_slots) == (100, 0)
    assert (await area(stack, "swap")).corrupt_slots == 2
    assert (await area(stack, "swap")).read_pages == 0
    for slot in found:
        await expect_refused(stack.fault(space, slot.address, READ), "DATA_LOSS", "SWAP_CORRUPT")
    await expect_refused(delete(stack, "swap"), "DATA_LOSS", "SWAP_CORRUPT")
    assert (await area(stack, "swap")).state == swap_pb2.SwapArea.STATE_FAILED
    bad = {slot.address for slot in found}
    for page in range(100):
        if AT + page * PAGE not in bad:
            assert await stack.read(space, AT + page * PAGE, 6) == content(page)[:6]


@pytest.mark.parametrize("size", [0, 5, 50 * PAGE])
async def test_a_truncated_file_is_an_error_and_not_a_crash(stack: Stack, size: int) -> None:
    """A swap file cut short behind the MMU loses what was cut off, says so, and takes new pages."""
    space = await swapped(stack, 100)
    with (stack.folder / "state" / "swap").open("r+b") as cut:
        cut.truncate(size)
    lost = 0
    for page in range(100):
        answer = stack.read(space, AT + page * PAGE, 6)
        if page_is_lost := page >= size // PAGE:
            await expect_refused(answer, "DATA_LOSS", "SWAP_CORRUPT")
        else:
            assert await answer == content(page)[:6]
        lost += page_is_lost
    assert lost == 100 - size // PAGE
    other = await swapped(stack, 20)
    await expect_content(stack, other, 20)


async def test_a_file_that_vanished_loses_nothing(stack: Stack) -> None:
    """An unlinked swap file goes on holding its pages, as any open file does."""
    await make(stack, priority=1)
    space = await swapped(stack, 30)
    (stack.folder / "state" / "swap-extra").unlink()
    await expect_content(stack, space, 30)
    assert (await delete(stack))[-1].done


async def test_pages_go_elsewhere_when_one_medium_fails(stack: Stack) -> None:
    """An area that cannot be written is FAILED and spared while others have room; nothing is lost."""
    await make(stack, priority=5)
    inject = faults_pb2_grpc.FaultsStub(stack.channel)
    parameters = [layer_pb2.Attribute(key="operation", value="write")]
    wanted = faults_pb2.Fault(kind="swap-area-io-error", object="hosts/h1/swapAreas/extra", parameters=parameters)
    fault = await inject.InjectFault(faults_pb2.InjectFaultRequest(fault=wanted))
    space = await swapped(stack, 20)
    assert (await area(stack)).state == swap_pb2.SwapArea.STATE_FAILED
    assert ((await area(stack)).used_slots, (await area(stack, "swap")).used_slots) == (0, 20)
    await inject.ClearFault(faults_pb2.ClearFaultRequest(name=fault.name))
    await expect_content(stack, space, 20)


async def test_a_full_area_is_passed_over(stack: Stack) -> None:
    """A fault that fills one area sends pages to the next; another area's name is refused."""
    await make(stack, priority=5)
    inject = faults_pb2_grpc.FaultsStub(stack.channel)
    wanted = faults_pb2.Fault(kind="swap-area-full", object="hosts/h1/swapAreas/extra")
    await inject.InjectFault(faults_pb2.InjectFaultRequest(fault=wanted))
    await swapped(stack, 5)
    assert ((await area(stack)).used_slots, (await area(stack, "swap")).used_slots) == (0, 5)
    wanted = faults_pb2.Fault(kind="swap-area-full", object="hosts/h1/swapAreas/nothing")
    await expect_refused(
        inject.InjectFault(faults_pb2.InjectFaultRequest(fault=wanted)), "NOT_FOUND", "SWAP_AREA_UNKNOWN"
    )


async def test_areas_are_made_once(stack: Stack) -> None:
    """A request id makes one area; the name is taken then; a foreign file is left alone; 32 is the most."""
    first = await make(stack, request_id="r")
    assert await make(stack, request_id="r") == first
    await expect_refused(make(stack), "ALREADY_EXISTS", "SWAP_AREA_EXISTS")
    (stack.folder / "state" / "swap-foreign").mkdir()
    await expect_refused(make(stack, "foreign"), "FAILED_PRECONDITION", "SWAP_FILE_FOREIGN")
    for number in range(30):
        await make(stack, f"n{number}", 10)
    await expect_refused(make(stack, "one-more"), "RESOURCE_EXHAUSTED", "TOO_MANY_SWAP_AREAS")


async def test_bad_areas_are_refused(stack: Stack) -> None:
    """Sizes, names and priorities out of range are refused with what is wrong."""
    for slots in (0, 9, (8 << 40) // PAGE + 1):
        await expect_refused(make(stack, slots=slots), "INVALID_ARGUMENT", "SWAP_AREA_TOO_SMALL")
    for name, priority in (("", 0), ("Swap", 0), ("x", -1), ("x", 32_768)):
        await expect_refused(make(stack, name, priority=priority), "INVALID_ARGUMENT")
    odd = swap_pb2.CreateSwapAreaRequest(swap_area_id="x", swap_area=swap_pb2.SwapArea(size_bytes=PAGE * 20 + 1))
    await expect_refused(stack.swap.CreateSwapArea(odd), "INVALID_ARGUMENT")
    await expect_refused(make(stack, slots=(8 << 40) // PAGE), "RESOURCE_EXHAUSTED", "SWAP_DEVICE_FULL")
    for call in (delete(stack), area(stack)):
        await expect_refused(call, "NOT_FOUND", "SWAP_AREA_UNKNOWN")
    slots_of = swap_pb2.ListSwapSlotsRequest(name=FIRST, page_token="x")
    await expect_refused(stack.swap.ListSwapSlots(slots_of), "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
