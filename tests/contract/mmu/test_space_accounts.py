"""Settings, statistics, residency and the stream of faults of a space."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges
from tests.conftest import Eventually
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, WRITE, Outcome, Stack
from tests.contract.mmu.test_heap_and_remap import settings

BASE = 0x40_0000
ACCESSED, DIRTY, WRITABLE, LOCKED, SHARED, COW, PINNED = (1 << bit for bit in (52, 53, 54, 55, 56, 58, 59))
NUMBER = (1 << 52) - 1


async def statistics(stack: Stack, space: pb.Space) -> ranges.SpaceStatistics:
    """Returns what a space uses."""
    found: ranges.SpaceStatistics = await stack.spaces.GetSpaceStatistics(
        ranges.GetSpaceStatisticsRequest(name=space.name)
    )
    return found


async def residency(stack: Stack, space: pb.Space, pages: int, address: int = BASE, **fields: Any) -> list[int]:
    """Returns a word for each page."""
    request = ranges.ReadResidencyRequest(handle=space.handle, address=address, size_bytes=pages * PAGE, **fields)
    words: list[int] = []
    async for piece in stack.spaces.ReadResidency(request):
        assert piece.address == address + len(words) * PAGE
        words += struct.unpack(f"<{len(piece.pages) // 8}Q", piece.pages)
    return words


async def test_settings_begin_as_linux_has_them(stack: Stack) -> None:
    """Huge pages where advised, 64 KiB around a fault, 256 pages below a stack, no limits."""
    group = await stack.group("web")
    space = await stack.space(group, label="pod")
    found = await stack.spaces.GetSpaceSettings(ranges.GetSpaceSettingsRequest(name=space.name))
    assert found == ranges.SpaceSettings(
        group=group,
        label="pod",
        huge_pages=ranges.SpaceSettings.HUGE_PAGES_ADVISED,
        fault_around_bytes=64 << 10,
        lock_future=ranges.SpaceSettings.LOCK_FUTURE_NO,
        stack_guard_pages=256,
    )


async def test_settings_change_field_by_field(stack: Stack) -> None:
    """The mask says what changes; a limit that is absent is taken away; a fork inherits all but lock_future."""
    space = await stack.space()
    changed = await settings(
        stack, space, label="new", mapped_max_bytes=1 << 30, lock_future=2, oom_score_adjust=-5, huge_pages=3
    )
    assert (changed.label, changed.mapped_max_bytes, changed.fault_around_bytes) == ("new", 1 << 30, 64 << 10)
    assert (await stack.spaces.GetSpace(pb.GetSpaceRequest(name=space.name))).label == "new"
    child = await stack.fork(space)
    inherited = await stack.spaces.GetSpaceSettings(ranges.GetSpaceSettingsRequest(handle=child.handle))
    assert (inherited.mapped_max_bytes, inherited.lock_future, inherited.oom_score_adjust) == (1 << 30, 1, -5)
    assert not (await settings(stack, space, "mapped_max_bytes")).HasField("mapped_max_bytes")


async def test_wrong_settings_name_their_field(stack: Stack) -> None:
    """A value out of range, an unknown path, an empty mask: the field is named, and nothing changes."""
    space = await stack.space()
    wrong: tuple[tuple[str, dict[str, Any]], ...] = (
        ("settings.fault_around_bytes", {"fault_around_bytes": 12_288}),
        ("settings.fault_around_bytes", {"fault_around_bytes": 4 << 20}),
        ("settings.locked_max_bytes", {"locked_max_bytes": -1}),
        ("settings.mapped_max_bytes", {"mapped_max_bytes": (1 << 47) + 1}),
        ("settings.stack_guard_pages", {"stack_guard_pages": 65_537}),
        ("settings.oom_score_adjust", {"oom_score_adjust": 1001}),
        ("settings.huge_pages", {"huge_pages": 4}),
        ("settings.label", {"label": "x" * 128}),
    )
    for field, fields in wrong:
        message = await expect_refused(settings(stack, space, **fields), "INVALID_ARGUMENT", "REQUEST_INVALID")
        assert field in message
    message = await expect_refused(settings(stack, space, "colour"), "INVALID_ARGUMENT", "REQUEST_INVALID")
    assert "update_mask" in message
    await expect_refused(settings(stack, space), "INVALID_ARGUMENT", "REQUEST_INVALID")
    gone = "hosts/h1/memoryGroups/none"
    await expect_refused(settings(stack, space, group=gone), "NOT_FOUND", "GROUP_UNKNOWN")


async def test_a_new_group_takes_over_the_private_charges(stack: Stack) -> None:
    """Private pages, slots and tables are charged anew; shared pages stay; what does not fit is refused."""
    old, new = await stack.group("old"), await stack.group("new")
    tight = await stack.group("tight", pages=3)
    parent = await stack.space(old)
    await stack.map(parent, BASE, 4)
    await stack.write(parent, BASE, b"x" * 3 * PAGE)
    child = await stack.fork(parent)
    await stack.write(child, BASE + 3 * PAGE, b"mine")
    usage = {name: (await stack.groups.GetGroup(pb.GetGroupRequest(name=name))).usage_bytes for name in (old, new)}
    assert usage[new] == 0
    await expect_refused(settings(stack, child, group=tight), "RESOURCE_EXHAUSTED", "GROUP_LIMIT")
    assert (await settings(stack, child, group=new)).group == new
    moved = (await stack.groups.GetGroup(pb.GetGroupRequest(name=new))).usage_bytes
    assert moved == (1 + child.table_frames) * PAGE
    left = (await stack.groups.GetGroup(pb.GetGroupRequest(name=old))).usage_bytes
    assert left == usage[old] - moved
    for space in (parent, child):
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    for name in (old, new):
        await stack.groups.DeleteGroup(pb.DeleteGroupRequest(name=name))


async def test_the_adjustment_weighs_in_the_choice_of_a_victim(stack: Stack) -> None:
    """Of two spaces the smaller one is named when its adjustment says so, and -1000 is never named."""
    group = await stack.group("web", pages=24, swap_pages=0)
    big, small = await stack.space(group), await stack.space(group)
    for space, pages in ((big, 10), (small, 2)):
        await stack.map(space, BASE, 40)
        await stack.write(space, BASE, b"x" * pages * PAGE)
    await settings(stack, small, oom_score_adjust=1000)
    await stack.map(big, BASE * 2, 40)
    await stack.write(big, BASE * 2, b"x" * 3 * PAGE)
    assert (await stack.fault(big, BASE * 2 + 30 * PAGE)).victim_space == small.name
    await settings(stack, small, oom_score_adjust=-1000)
    assert (await stack.fault(big, BASE * 2 + 30 * PAGE)).victim_space == big.name
    await settings(stack, big, oom_score_adjust=-1000)
    assert (await stack.fault(big, BASE * 2 + 30 * PAGE)).victim_space == ""


async def test_a_stack_keeps_its_gap_as_it_is_set(stack: Stack) -> None:
    """Growth stops before the gap to what can be accessed below; a guard without rights may touch it; so may no gap."""
    space = await stack.space()
    top = 0x7000_0000
    await stack.map(space, top - 100 * PAGE, 100, grows_down=True, label="[stack]")
    await stack.map(space, top - 60 * PAGE, 1)
    assert (await stack.fault(space, top - 30 * PAGE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    await settings(stack, space, stack_guard_pages=20)
    assert (await stack.fault(space, top - 30 * PAGE)).outcome == Outcome.OUTCOME_ZERO_FILLED
    assert (await stack.fault(space, top - 50 * PAGE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    protect = pb.ProtectRangeRequest(handle=space.handle, address=top - 60 * PAGE, size_bytes=PAGE)
    await stack.spaces.ProtectRange(protect)
    assert (await stack.fault(space, top - 59 * PAGE)).outcome == Outcome.OUTCOME_ZERO_FILLED
    assert (await stack.fault(space, top - 60 * PAGE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    await settings(stack, space, mapped_max_bytes=61 * PAGE)
    assert (await stack.spaces.GetSpaceSettings(ranges.GetSpaceSettingsRequest(handle=space.handle))).HasField(
        "mapped_max_bytes"
    )


async def test_statistics_count_as_smaps_and_getrusage_do(stack: Stack) -> None:
    """Anonymous, object, private, shared and proportional pages, swap, faults: against what was done."""
    space = await stack.space()
    sea = await stack.object(b"sea" * 3000)
    await stack.map(space, BASE, 8)
    await stack.map(space, BASE * 2, 3, object=sea.handle, shared=True)
    await stack.write(space, BASE, b"x" * 4 * PAGE)
    await stack.read(space, BASE * 2, 1)
    child = await stack.fork(space)
    await stack.write(child, BASE, b"mine")
    assert (await statistics(stack, child)).object_pages == 0  # a fork leaves them to the child's own faults
    await stack.read(child, BASE * 2, 1)
    found = await statistics(stack, child)
    assert (found.mapped_pages, found.anonymous_pages, found.object_pages) == (11, 4, 3)
    assert (found.private_pages, found.shared_pages) == (1, 6)
    assert found.proportional_bytes == 4 * PAGE  # one of its own, six halves
    assert (found.minor_faults, found.major_faults, found.around_pages) == (2, 0, 2)
    parent = await statistics(stack, space)
    assert (parent.minor_faults, parent.around_pages, parent.peak_resident_pages) == (5, 2, 7)
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=child.handle))
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=7))
    await stack.read(space, BASE, 2 * PAGE)
    after = await statistics(stack, space)
    assert (after.anonymous_pages, after.swapped_pages, after.swap_cached_pages) == (2, 2, 2)
    assert (after.minor_faults, after.major_faults, after.peak_resident_pages) == (6, 1, 7)
    assert after.table_frames == (await stack.spaces.GetSpace(pb.GetSpaceRequest(name=space.name))).table_frames
    await expect_refused(statistics(stack, child), "NOT_FOUND", "SPACE_UNKNOWN")


async def test_residency_tells_where_each_page_is(stack: Stack) -> None:
    """Nowhere, in RAM with its bits, in swap with its slot; accessed bits are taken when asked for."""
    space = await stack.space()
    await stack.map(space, BASE, 4)
    await stack.write(space, BASE, b"x" * 3 * PAGE)
    await stack.spaces.LockRange(ranges.LockRangeRequest(handle=space.handle, address=BASE, size_bytes=PAGE))
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=1))
    await stack.read(space, BASE, PAGE)
    words = await residency(stack, space, 6)
    assert words[0] & NUMBER == stack.walk(space, BASE)
    assert words[0] & ~NUMBER == 2 << 62 | ACCESSED | DIRTY | WRITABLE | LOCKED
    assert words[1] == 1 << 62 | (await stack.translate(space, BASE + PAGE)).swap_slot
    assert words[2] >> 62 == 2 and words[3:] == [0, 0, 0]
    assert (await residency(stack, space, 1, clear_accessed=True))[0] & ACCESSED
    assert not (await residency(stack, space, 1))[0] & ACCESSED
    await stack.read(space, BASE, 1)
    assert (await residency(stack, space, 1))[0] & ACCESSED
    child = await stack.fork(space)
    word = (await residency(stack, child, 1))[0]
    assert word & (SHARED | COW) == SHARED | COW and not word & (WRITABLE | LOCKED)
    pin = await stack.spaces.PinRange(ranges.PinRangeRequest(handle=space.handle, address=BASE, size_bytes=1))
    assert (await residency(stack, space, 1))[0] & PINNED
    await stack.spaces.UnpinRanges(ranges.UnpinRangesRequest(pins=[pin.pin]))


async def test_residency_of_a_large_range_comes_in_pieces(stack: Stack) -> None:
    """65536 pages a piece; ranges that are too large, unaligned or asked about by name alone are refused."""
    space = await stack.space()
    await stack.map(space, BASE, 1)
    await stack.write(space, BASE, b"x")
    words = await residency(stack, space, 65_536 * 2 + 1)
    assert len(words) == 65_536 * 2 + 1 and sum(word >> 62 for word in words) == 2
    for fields in ({"pages": (1 << 28) + 1}, {"pages": 1, "address": BASE + 8}):
        await expect_refused(residency(stack, space, **fields), "INVALID_ARGUMENT", "REQUEST_INVALID")
    by_name = ranges.ReadResidencyRequest(name=space.name, address=BASE, size_bytes=PAGE, clear_accessed=True)
    await expect_refused(anext(aiter(stack.spaces.ReadResidency(by_name))), "INVALID_ARGUMENT", "REQUEST_INVALID")


@pytest.mark.inside
async def test_faults_are_watched_with_their_steps(stack: Stack, eventually: Eventually) -> None:
    """A watch tells each fault of its space in order, with the document's steps and their times, until it is gone."""
    space, other = await stack.space(), await stack.space()
    for one in (space, other):
        await stack.map(one, BASE, 4)
    call = stack.spaces.WatchFaults(pb.WatchFaultsRequest(name=space.name))
    events: list[pb.FaultEvent] = []

    async def collect() -> None:
        async for batch in call:
            assert not batch.missed
            events.extend(batch.faults)

    reader = asyncio.ensure_future(collect())
    await eventually(lambda: stack.machine.feed.wants(1), "the faults are watched")
    await stack.fault(space, BASE, WRITE)
    await stack.fault(other, BASE, WRITE)
    await stack.fault(space, 0x1000, READ)
    await stack.read(space, BASE + PAGE, 1)
    await stack.read(space, BASE + PAGE, 1)
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    await reader
    assert [event.space for event in events] == [space.name] * 3
    assert [event.answer.outcome for event in events] == [
        Outcome.OUTCOME_ZERO_FILLED,
        Outcome.OUTCOME_SEGMENTATION_FAULT,
        Outcome.OUTCOME_ZERO_FILLED,
    ]
    assert [event.address for event in events] == [BASE, 0x1000, BASE + PAGE]
    first = events[0]
    steps = [step.step for step in first.answer.steps]
    assert steps[:4] == ["access.attempted", "table.checked", "fault.raised", "handler.entered"]
    assert steps[-2:] == ["entry.written", "access.restarted"]
    times = [step.time_ns for step in first.answer.steps]
    assert times == sorted(times) and first.time_ns <= times[0]
    assert first.time_ns + first.duration_ns >= times[-1] and not first.HasField("evicted_frame")


@pytest.mark.inside
async def test_a_watch_samples_and_tells_whose_frame_was_taken(stack: Stack, eventually: Eventually) -> None:
    """One fault in two is told; a frame that was evicted for a fault is named."""
    group = await stack.group("web", pages=24)
    space = await stack.space(group)
    await stack.map(space, BASE, 60)
    call = stack.spaces.WatchFaults(pb.WatchFaultsRequest(sample=2))
    reader = asyncio.ensure_future(anext(aiter(call)))
    await eventually(lambda: stack.machine.feed.wants(0), "the faults are watched")
    await stack.write(space, BASE, b"x" * 40 * PAGE)
    faults = list((await reader).faults)
    while len(faults) < 20:
        faults += (await anext(aiter(call))).faults
    call.cancel()
    assert [fault.address for fault in faults] == [BASE + page * PAGE for page in range(0, 40, 2)]
    taken = [fault for fault in faults if fault.HasField("evicted_frame")]
    assert taken and all(fault.evicted_frame == fault.answer.frame for fault in taken)
    await expect_refused(
        anext(aiter(stack.spaces.WatchFaults(pb.WatchFaultsRequest(sample=1_000_001)))), "INVALID_ARGUMENT"
    )
    unknown = pb.WatchFaultsRequest(name="hosts/h1/spaces/s-99")
    await expect_refused(anext(aiter(stack.spaces.WatchFaults(unknown))), "NOT_FOUND", "SPACE_UNKNOWN")
