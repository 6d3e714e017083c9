"""Faults as a caller sees them: outcomes, steps, entries in RAM, copy-on-write, out of memory."""

from __future__ import annotations

import asyncio

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import EXECUTE, PAGE, READ, RW, WRITE, Outcome, Stack

from lamina_kit.rpc import retry
from lamina_kit.rpc.inproc.call import MAX_ANSWER

R = pb.Protection(read=True)


async def test_the_first_touch_maps_a_zeroed_frame(stack: Stack) -> None:
    """The document's example address is page 0x12345, offset 0x678; its first touch is answered with its steps."""
    space = await stack.space()
    await stack.map(space, 0x1234_5000, 1)
    answer = await stack.fault(space, 0x1234_5678)
    assert answer.outcome == Outcome.OUTCOME_ZERO_FILLED
    assert stack.walk(space, 0x1234_5678) == answer.frame
    assert stack.bus.read(answer.frame * PAGE, PAGE) == bytes(PAGE)
    names = [step.step for step in answer.steps]
    assert names[:5] == ["access.attempted", "table.checked", "fault.raised", "handler.entered", "vma.found"]
    assert names[-4:] == ["frame.allocated", "page.zeroed", "entry.written", "access.restarted"]
    times = [step.time_ns for step in answer.steps]
    assert times == sorted(times)
    assert times[0] < times[-1] or stack.clock.mode == "virtual"  # there the steps of one call are one instant
    assert "page 0x12345, offset 0x678" in answer.steps[0].detail


async def test_accessed_and_dirty_are_left_to_the_core(stack: Stack) -> None:
    """A fault writes an entry without A and D; the core that runs the access again sets them."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    assert (await stack.fault(space, 0x40_0000, WRITE)).entry & 0x60 == 0


async def test_a_freed_frame_is_zeroed_before_the_next_owner_sees_it(stack: Stack) -> None:
    """No byte of one space's page is seen in another's first touch."""
    one = await stack.space()
    await stack.map(one, 0x40_0000, 1)
    await stack.write(one, 0x40_0000, b"secret" * 600)
    frame = (await stack.translate(one, 0x40_0000)).frame
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=one.handle))
    two = await stack.space()
    await stack.map(two, 0x40_0000, 64)
    frames = {(await stack.fault(two, 0x40_0000 + index * PAGE)).frame for index in range(64)}
    assert frame in frames
    assert await stack.read(two, 0x40_0000, 64 * PAGE) == bytes(64 * PAGE)


async def test_an_address_without_a_mapping_is_a_segmentation_fault(stack: Stack) -> None:
    """No mapping, the upper half and non-canonical addresses are refused; so are rights that a mapping lacks."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1, R)
    for address, access in (
        (0, READ),
        (0x40_1000, READ),
        (1 << 47, READ),
        (0x1234_0000_0000_0000, READ),
        (2**64 - 1, WRITE),
        (0x40_0000, WRITE),
        (0x40_0000, EXECUTE),
    ):
        answer = await stack.fault(space, address, access)
        assert answer.outcome == Outcome.OUTCOME_SEGMENTATION_FAULT, hex(address)
        assert (answer.frame, answer.entry) == (0, 0)
        assert answer.steps[-1].step == "access.refused"
    assert (await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))).refused_faults == 7


async def test_a_repeated_fault_is_spurious(stack: Stack) -> None:
    """An access that is possible already changes nothing."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    first = await stack.fault(space, 0x40_0000)
    again = await stack.fault(space, 0x40_0000)
    assert (again.outcome, again.frame, again.entry) == (Outcome.OUTCOME_SPURIOUS, first.frame, first.entry)


async def test_two_faults_on_one_page_get_one_frame(stack: Stack) -> None:
    """Faults that come at the same time do not both take a frame."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    answers = await asyncio.gather(*(stack.fault(space, 0x40_0000 + index) for index in range(8)))
    assert len({answer.frame for answer in answers}) == 1
    view = await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))
    assert (view.resident_pages, view.minor_faults) == (1, 1)


async def test_an_access_must_be_given(stack: Stack) -> None:
    """A fault without an access is refused."""
    space = await stack.space()
    await expect_refused(stack.fault(space, 0x40_0000, 0), "INVALID_ARGUMENT")


@pytest.mark.inside
async def test_a_fork_shares_pages_until_they_are_written(stack: Stack) -> None:
    """After a fork both name the same frame without the right to write; a write copies, and the last user keeps it."""
    parent = await stack.space()
    await stack.map(parent, 0x40_0000, 2)
    await stack.write(parent, 0x40_0000, b"parent")
    stack.shot.clear()
    child = await stack.fork(parent, "child")
    assert [one[0] for one in stack.shot] == [parent.root_address]
    shared = stack.walk(parent, 0x40_0000)
    assert shared == stack.walk(child, 0x40_0000)
    frame = await stack.frames.GetFrame(pb.GetFrameRequest(frame=shared or 0))
    assert [one.space for one in frame.mappings] == [child.name, parent.name]
    assert (await stack.translate(parent, 0x40_0000)).copy_on_write

    copied = await stack.fault(child, 0x40_0000)
    assert copied.outcome == Outcome.OUTCOME_COPIED and copied.frame != shared
    assert [step.step for step in copied.steps][-4:] == [
        "translations.dropped",
        "page.copied",
        "entry.written",
        "access.restarted",
    ]
    taken_over = await stack.fault(parent, 0x40_0000)
    assert (taken_over.outcome, taken_over.frame) == (Outcome.OUTCOME_COPIED, shared)
    await stack.write(child, 0x40_0000, b"child!")
    assert await stack.read(parent, 0x40_0000, 6) == b"parent"
    assert not (await stack.translate(parent, 0x40_0000)).copy_on_write


async def test_forks_of_forks_see_their_own_past(stack: Stack) -> None:
    """A chain of forks, each writing after its fork, sees what was there at its own fork."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 3)
    chain = [space]
    for number in range(6):
        await stack.write(chain[-1], 0x40_0000, bytes([number]) * 3 * PAGE)
        chain.append(await stack.fork(chain[-1]))
    for number, one in enumerate(chain[:-1]):
        assert await stack.read(one, 0x40_0000, 3 * PAGE) == bytes([number]) * 3 * PAGE
    assert await stack.read(chain[-1], 0x40_0000, 1) == b"\5"


ATTEMPTS = len(retry.PAUSES_NS) + 1
"""How often a shootdown is tried before it has failed."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a lost shootdown tried again at once instead of after up to a second."""
    monkeypatch.setattr(retry, "PAUSES_NS", (0,) * (ATTEMPTS - 1))


@pytest.mark.inside
@pytest.mark.usefixtures("impatient")
async def test_a_shootdown_that_is_lost_is_made_again(stack: Stack) -> None:
    """A copy waits for the attempt that gets through; nobody above hears of those that did not."""
    parent = await stack.space()
    await stack.map(parent, 0x40_0000, 1)
    await stack.write(parent, 0x40_0000, b"parent")
    child = await stack.fork(parent)
    stack.shot.clear()
    stack.hardware.cpu.failures = ATTEMPTS - 1
    assert (await stack.fault(child, 0x40_0000)).outcome == Outcome.OUTCOME_COPIED
    assert stack.hardware.cpu.failures == 0 and len(stack.shot) == 1


@pytest.mark.inside
@pytest.mark.usefixtures("impatient")
async def test_a_failing_shootdown_changes_nothing(stack: Stack) -> None:
    """When the hardware does not answer at all, a copy is not made: the page is as it was, and can be faulted again."""
    parent = await stack.space()
    await stack.map(parent, 0x40_0000, 1)
    await stack.write(parent, 0x40_0000, b"parent")
    child = await stack.fork(parent)
    stack.hardware.cpu.failures = ATTEMPTS
    await expect_refused(stack.fault(child, 0x40_0000), "UNAVAILABLE")
    assert stack.walk(child, 0x40_0000) == stack.walk(parent, 0x40_0000)
    assert (await stack.fault(child, 0x40_0000)).outcome == Outcome.OUTCOME_COPIED


@pytest.mark.inside
@pytest.mark.usefixtures("impatient")
async def test_pages_that_the_hardware_cannot_take_away_are_never_reused(stack: Stack) -> None:
    """When a shootdown fails, UnmapRange and DeleteSpace say so, and nobody gets frames that a core may still reach."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 4)
    await stack.write(space, 0x40_0000, b"x" * 4 * PAGE)
    frames = {stack.walk(space, 0x40_0000 + index * PAGE) for index in range(4)}
    stack.hardware.cpu.failures = ATTEMPTS
    unmap = pb.UnmapRangeRequest(handle=space.handle, address=0x40_0000, size_bytes=PAGE)
    await expect_refused(stack.spaces.UnmapRange(unmap), "UNAVAILABLE")
    assert stack.walk(space, 0x40_0000) is None
    stack.hardware.cpu.failures = ATTEMPTS
    await expect_refused(stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle)), "UNAVAILABLE")
    request = pb.GetSpaceRequest(handle=space.handle)
    await expect_refused(stack.spaces.GetSpace(request), "FAILED_PRECONDITION", "HANDLE_STALE")
    free = (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames
    taken = await stack.frames.AllocateFrames(pb.AllocateFramesRequest(count=free, owner="all"))
    assert not frames & set(taken.frames)
    assert any(entry.event == "frames.lost" for entry in stack.layer.events.list(space.name))


@pytest.mark.inside
@pytest.mark.usefixtures("impatient")
async def test_a_fork_that_the_hardware_fails_leaves_no_child(stack: Stack) -> None:
    """When the parent's translations cannot be dropped, the child is taken away, and the parent goes on."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 2)
    await stack.write(space, 0x40_0000, b"x" * 2 * PAGE)
    stack.hardware.cpu.failures = ATTEMPTS
    await expect_refused(stack.fork(space), "UNAVAILABLE")
    assert len((await stack.spaces.ListSpaces(pb.ListSpacesRequest())).spaces) == 1
    await stack.write(space, 0x40_0000, b"y")
    assert await stack.read(space, 0x40_0000, 2) == b"yx"
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_frames == memory.total_frames - 1


async def test_reading_and_writing_cross_pages(stack: Stack) -> None:
    """ReadSpace and WriteSpace fault pages in and cross their borders; A and D are set as a core would."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 4)
    data = bytes(index % 251 for index in range(2 * PAGE))
    await stack.write(space, 0x40_0800, data)
    assert await stack.read(space, 0x40_0800, 2 * PAGE) == data
    leaf = (await stack.translate(space, 0x40_1000)).steps[-1]
    assert {"A", "D"} <= set(leaf.bits)
    await stack.read(space, 0x40_3000, 1)
    leaf = (await stack.translate(space, 0x40_3000)).steps[-1]
    assert "A" in leaf.bits and "D" not in leaf.bits


async def test_reading_beyond_a_mapping_names_the_first_bad_address(stack: Stack) -> None:
    """What cannot be reached is named; sizes out of range are refused."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    message = await expect_refused(stack.read(space, 0x40_0FF0, 32), "OUT_OF_RANGE", "BAD_ADDRESS")
    assert "0x401000" in message
    await expect_refused(stack.write(space, 0x40_0FF0, bytes(32)), "OUT_OF_RANGE", "BAD_ADDRESS")
    await expect_refused(stack.read(space, 2**64 - 1, 1), "INVALID_ARGUMENT")
    for size in (0, -1, MAX_ANSWER + 1):
        assert "size_bytes" in await expect_refused(stack.read(space, 0x40_0000, size), "INVALID_ARGUMENT")


async def test_the_longest_read_fits_into_a_message_of_4_mib(stack: Stack) -> None:
    """What a read may return at most, a client takes whose library was told nothing of sizes."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, MAX_ANSWER // PAGE)
    request = pb.ReadSpaceRequest(handle=space.handle, address=0x40_0000, size_bytes=MAX_ANSWER)
    answer = await stack.spaces.ReadSpace(request)
    assert len(answer.data) == MAX_ANSWER and answer.ByteSize() < 4 << 20


async def test_a_forced_write_changes_only_the_spaces_own_copy(stack: Stack) -> None:
    """A loader writes text that may not be written: the object stays, the rights stay, the bytes are there."""
    program = await stack.object(b"original" * 512)
    one, two = await stack.space(), await stack.space()
    text = pb.Protection(read=True, execute=True)
    for space in (one, two):
        await stack.map(space, 0x40_0000, 1, text, object=program.handle)
    await expect_refused(stack.write(one, 0x40_0000, b"patched!"), "OUT_OF_RANGE", "BAD_ADDRESS")
    await stack.write(one, 0x40_0000, b"patched!", force=True)
    assert await stack.read(one, 0x40_0000, 16) == b"patched!original"
    assert await stack.read(two, 0x40_0000, 8) == b"original"
    assert (await stack.fault(one, 0x40_0000, WRITE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    shared = await stack.space()
    await stack.map(shared, 0x40_0000, 1, R, object=program.handle, shared=True)
    await expect_refused(stack.write(shared, 0x40_0000, b"x", force=True), "OUT_OF_RANGE", "BAD_ADDRESS")


async def test_out_of_memory_names_the_group_and_the_biggest_space(stack: Stack) -> None:
    """Without swap a group at its limit answers OUT_OF_MEMORY with the space to kill; killing it helps."""
    group = await stack.group("web", pages=20, swap_pages=0)
    small, big = await stack.space(group), await stack.space(group)
    for space, pages in ((small, 2), (big, 20)):
        await stack.map(space, 0x40_0000, pages)
    await stack.write(small, 0x40_0000, b"x" * PAGE)
    answer = None
    for index in range(20):
        answer = await stack.fault(big, 0x40_0000 + index * PAGE)
        if answer.outcome != Outcome.OUTCOME_ZERO_FILLED:
            break
        await stack.write(big, 0x40_0000 + index * PAGE, b"x")
    assert answer is not None and answer.outcome == Outcome.OUTCOME_OUT_OF_MEMORY
    assert (answer.limit_group, answer.victim_space) == (group, big.name)
    await expect_refused(stack.write(small, 0x40_1000, b"x"), "RESOURCE_EXHAUSTED", "NO_FREE_FRAME")
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=big.handle))
    assert (await stack.fault(small, 0x40_1000)).outcome == Outcome.OUTCOME_ZERO_FILLED
    view = await stack.groups.GetGroup(pb.GetGroupRequest(name=group))
    assert view.oom_events >= 1 and view.max_events >= 1


async def test_translate_shows_every_level_and_changes_nothing(stack: Stack) -> None:
    """Translate lists the entries a core would visit, with their addresses and bits, and where the page is."""
    space = await stack.space()
    await stack.map(space, 0x1234_5000, 2)
    untouched = await stack.translate(space, 0x1234_6000)
    assert untouched.residency == pb.TranslateResponse.RESIDENCY_NONE and len(untouched.steps) == 1
    await stack.write(space, 0x1234_5678, b"x")
    before = stack.bus.read(0, 32 * PAGE)
    explained = await stack.translate(space, 0x1234_5678)
    assert stack.bus.read(0, 32 * PAGE) == before
    assert (explained.page_number, explained.offset) == (0x12345, 0x678)
    assert [(step.table, step.level, step.index) for step in explained.steps] == [
        ("PML4", 4, 0),
        ("PDPT", 3, 0),
        ("PD", 2, 0x1234_5678 >> 21),
        ("PT", 1, 0x12345 & 511),
    ]
    assert explained.physical_address == explained.frame * PAGE + 0x678
    for step in explained.steps:
        assert stack.bus.load64(step.entry_address) == step.entry
    assert explained.mapping.start == 0x1234_5000
    outside = await stack.translate(space, 0x9999_0000)
    assert outside.residency == pb.TranslateResponse.RESIDENCY_UNMAPPED and not outside.HasField("mapping")
    beyond = await stack.translate(space, 2**64 - 1)
    assert beyond.residency == pb.TranslateResponse.RESIDENCY_UNMAPPED


async def test_shared_anonymous_memory_stays_shared_after_a_fork(stack: Stack) -> None:
    """A shared mapping without an object is one memory for parent and child, and is freed with its last mapping."""
    parent = await stack.space()
    await stack.map(parent, 0x40_0000, 2, RW, shared=True)
    await stack.write(parent, 0x40_0000, b"before")
    child = await stack.fork(parent)
    await stack.write(child, 0x40_0000, b"after!")
    assert await stack.read(parent, 0x40_0000, 6) == b"after!"
    for space in (parent, child):
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_frames == memory.total_frames - 1


async def test_steps_are_left_out_on_demand(stack: Stack) -> None:
    """A caller that wants no steps gets the same answer without them."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 2)
    told = await stack.fault(space, 0x40_0000)
    request = pb.FaultRequest(handle=space.handle, address=0x40_1000, access=WRITE, without_steps=True)
    silent = await stack.spaces.Fault(request)
    assert told.steps and not silent.steps
    assert (silent.outcome, bool(silent.frame), bool(silent.entry)) == (told.outcome, True, True)
    refused = await stack.spaces.Fault(
        pb.FaultRequest(handle=space.handle, address=0x90_0000, access=WRITE, without_steps=True)
    )
    assert refused.outcome == Outcome.OUTCOME_SEGMENTATION_FAULT and not refused.steps
