"""Holds as a holder sees them: grants, revocations with A and D, ages, fencing, ends (ADR 0002)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.conftest import Eventually, ManualClock
from tests.contract.mmu.holder import Holder
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import EXECUTE, PAGE, READ, WRITE, Outcome, Stack

from lamina_kit.rpc import retry

SECOND = 1_000_000_000
RWX = pb.Protection(read=True, write=True, execute=True)


@pytest.fixture
async def stack(tmp_path: Path, engine_name: str, manual_clock: ManualClock) -> AsyncIterator[Stack]:
    """Returns an MMU on a clock that the test moves."""
    async with Stack(tmp_path, manual_clock, engine=engine_name) as made:
        yield made


async def reclaim(stack: Stack, space: pb.Space, pages: int) -> pb.ReclaimResponse:
    """Reclaims from a space."""
    done: pb.ReclaimResponse = await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=pages))
    return done


async def test_a_want_is_granted_with_the_rights_of_its_mapping(stack: Stack) -> None:
    """A grant names the frame, whether it may be written and executed, and how the page came to be there."""
    guest = await stack.guest(4)
    await stack.map(guest, 0x10_0000, 1, RWX)
    async with Holder(stack, guest) as holder:
        first = (await holder.want(0x1234, READ)).grant
        assert (first.address, first.writable, first.executable) == (0x1000, True, False)
        assert first.outcome == Outcome.OUTCOME_ZERO_FILLED
        assert stack.bus.read(first.frame * PAGE, PAGE) == bytes(PAGE)
        text = (await holder.want(0x10_0000, EXECUTE)).grant
        assert text.executable and text.frame != first.frame
        again = (await holder.want(0x1000, WRITE)).grant
        assert (again.frame, again.outcome) == (first.frame, Outcome.OUTCOME_SPURIOUS)
        assert [response.position for response in holder.seen] == [1, 2, 3, 4]


async def test_a_want_outside_ram_is_refused(stack: Stack) -> None:
    """An address that is not mapped, or a right that is not there, gets a refusal; the stream goes on."""
    guest = await stack.guest(2)
    async with Holder(stack, guest) as holder:
        for address, access in ((0x2000, READ), (2**64 - 1, WRITE), (0, EXECUTE)):
            refusal = (await holder.want(address, access)).refusal
            assert refusal.outcome == Outcome.OUTCOME_SEGMENTATION_FAULT and refusal.address == address
        assert (await holder.want(0)).HasField("grant")


async def test_an_evicted_page_comes_back_through_its_holder(stack: Stack) -> None:
    """Reclaim revokes the page, learns that it is dirty, writes it to swap; the next want reads it back."""
    guest = await stack.guest(4)
    async with Holder(stack, guest) as holder:
        grant = (await holder.want(0x1000)).grant
        stack.bus.write(grant.frame * PAGE, b"guest was here")
        holder.bits[0x1000] = (True, True)
        done = await reclaim(stack, guest, 1)
        assert (done.reclaimed_pages, done.written_pages) == (1, 1)
        assert [list(one.revocation.addresses) for one in holder.of("revocation")] == [[0x1000]]
        assert holder.table == {}
        back = (await holder.want(0x1000, READ)).grant
        assert back.outcome == Outcome.OUTCOME_SWAPPED_IN
        assert stack.bus.read(back.frame * PAGE, 14) == b"guest was here"


async def test_a_page_that_the_holder_calls_clean_is_dropped(stack: Stack) -> None:
    """A page that was granted writable but not written costs no swap write."""
    guest = await stack.guest(4)
    async with Holder(stack, guest) as holder:
        await holder.want(0x1000)
        done = await reclaim(stack, guest, 1)
        assert (done.reclaimed_pages, done.written_pages) == (1, 0)
        back = (await holder.want(0x1000, READ)).grant
        assert back.outcome == Outcome.OUTCOME_ZERO_FILLED


async def test_the_holders_accessed_bits_choose_the_victim(stack: Stack) -> None:
    """Age asks for the candidates' bits; of A, B, C, D, of which only A was accessed, B goes."""
    group = await stack.group("vm", pages=4)
    guest = await stack.guest(8, group=group)
    async with Holder(stack, guest) as holder:
        for page in range(4):
            await holder.want(page * PAGE)
        holder.bits = {0: (True, False)}
        await holder.want(4 * PAGE)
        assert sorted(holder.of("age")[0].age.addresses) == [0, 0x1000, 0x2000, 0x3000]
        assert list(holder.of("revocation")[0].revocation.addresses) == [0x1000]
        assert sorted(holder.table) == [0, 0x2000, 0x3000, 0x4000]


async def test_a_want_during_a_revocation_waits_and_is_granted_behind_it(stack: Stack, eventually: Eventually) -> None:
    """The grant of a page that is being evicted has a later position than the revocation, and other wants go on."""
    guest = await stack.guest(4)
    async with Holder(stack, guest) as holder:
        await holder.want(0x1000)
        holder.answering = False
        evicting = asyncio.ensure_future(reclaim(stack, guest, 1))
        await eventually(lambda: holder.of("age"), "the age")
        await holder.answer(holder.of("age")[0])
        await eventually(lambda: holder.of("revocation"), "the revocation")
        wanting = asyncio.ensure_future(holder.want(0x1000))
        other = await holder.want(0x2000)
        assert other.HasField("grant") and not wanting.done()
        await holder.answer(holder.of("revocation")[0])
        grant = await wanting
        assert grant.position > holder.of("revocation")[0].position
        assert (await evicting).reclaimed_pages == 1


async def test_a_silent_holder_is_fenced_after_a_second(
    stack: Stack, manual_clock: ManualClock, eventually: Eventually
) -> None:
    """Unanswered for 1 s: its root is void and shot down, its pages count as dirty, its stream ends."""
    frames = await stack.frames.AllocateFrames(pb.AllocateFramesRequest(count=1, owner="ept"))
    eptp = frames.frames[0] * PAGE
    stack.bus.store64(eptp, 0x1234_5007)
    guest = await stack.guest(4)
    async with Holder(stack, guest, eptp) as holder:
        grant = (await holder.want(0x1000)).grant
        stack.bus.write(grant.frame * PAGE, b"unsaid")
        holder.answering = False
        evicting = asyncio.ensure_future(reclaim(stack, guest, 1))
        await eventually(lambda: holder.of("age"), "the age")
        await manual_clock.advance(SECOND - 1)
        assert holder.status is None and not evicting.done()
        await manual_clock.advance(1)
        await eventually(lambda: holder.status is not None, "the end of the stream")
        assert holder.status == grpc.StatusCode.ABORTED and "unanswered" in holder.details
        assert (await evicting).written_pages == 1
        assert {stack.bus.load64(eptp + 8 * index) & 7 for index in range(512)} == {0}
        assert (0, eptp, []) in stack.shot
    assert await stack.read(guest, 0x1000, 6) == b"unsaid"
    async with Holder(stack, guest) as successor:
        assert (await successor.want(0x1000)).grant.frame


@pytest.mark.inside
async def test_a_holder_whose_cores_cannot_be_told_keeps_its_frames(
    stack: Stack, manual_clock: ManualClock, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a fenced holder's root cannot be shot down, its pages stay where they are, and nobody gets their frames."""
    monkeypatch.setattr(retry, "PAUSES_NS", (0,) * len(retry.PAUSES_NS))
    tables = await stack.frames.AllocateFrames(pb.AllocateFramesRequest(count=1, owner="ept"))
    guest = await stack.guest(4)
    async with Holder(stack, guest, tables.frames[0] * PAGE) as holder:
        held = [(await holder.want(address)).grant.frame for address in (0x1000, 0x2000)]
        holder.answering = False
        stack.hardware.cpu.failures = len(retry.PAUSES_NS) + 1
        evicting = asyncio.ensure_future(reclaim(stack, guest, 1))
        await eventually(lambda: holder.of("age"), "the age")
        await manual_clock.advance(SECOND)
        await eventually(lambda: holder.status is not None, "the end of the stream")
        await asyncio.gather(evicting, return_exceptions=True)
    assert stack.hardware.cpu.failures == 0
    assert [entry.event for entry in stack.layer.events.list(guest.name)].count("frames.lost") == 1
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=guest.handle))
    free = (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames
    taken = await stack.frames.AllocateFrames(pb.AllocateFramesRequest(count=free, owner="all"))
    assert not set(held) & set(taken.frames)


async def test_a_fenced_holder_is_explained(stack: Stack, manual_clock: ManualClock, eventually: Eventually) -> None:
    """The event log says that the hold was fenced, by which rule."""
    guest = await stack.guest(4)
    async with Holder(stack, guest) as holder:
        await holder.want(0)
        holder.answering = False
        evicting = asyncio.ensure_future(reclaim(stack, guest, 1))
        await eventually(lambda: holder.of("age"), "the age")
        await manual_clock.advance(SECOND)
        await evicting
    events = [entry for entry in stack.layer.events.list(guest.name) if entry.event == "hold.fenced"]
    assert len(events) == 1 and events[0].rule


async def test_deleting_a_space_revokes_everything_first(stack: Stack) -> None:
    """DeleteSpace takes all pages back, ends the stream in peace, and only then frees the frames."""
    guest = await stack.guest(40)
    async with Holder(stack, guest) as holder:
        for page in range(40):
            await holder.want(page * PAGE)
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=guest.handle))
        assert holder.table == {}
        await asyncio.wait_for(holder.reader, 30)
        assert holder.status == grpc.StatusCode.OK
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_frames == memory.total_frames - 1


async def test_a_space_deleted_during_a_revocation(stack: Stack, eventually: Eventually) -> None:
    """The delete waits for the page in transit, whoever asked for the revocation; both end, nothing is left."""
    guest = await stack.guest(4)
    async with Holder(stack, guest) as holder:
        for page in range(3):
            await holder.want(page * PAGE)
        holder.answering = False
        evicting = asyncio.ensure_future(reclaim(stack, guest, 1))
        await eventually(lambda: holder.of("age"), "the age")
        await holder.answer(holder.of("age")[0])
        await eventually(lambda: holder.of("revocation"), "the revocation")
        deleting = asyncio.ensure_future(stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=guest.handle)))
        for _ in range(5):  # whatever order the loop has, each task that is ready has had its turns
            await asyncio.sleep(0)
        await expect_refused(reclaim(stack, guest, 1), "FAILED_PRECONDITION", "HANDLE_STALE")
        assert not deleting.done()
        holder.answering = True
        await holder.answer(holder.of("revocation")[0])
        await deleting
        await evicting
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_frames == memory.total_frames - 1
    assert memory.free_swap_slots == memory.swap_slots


async def test_a_broken_stream_voids_its_grants(stack: Stack, eventually: Eventually) -> None:
    """When the holder goes away its writable pages count as dirty, and another may hold the space."""
    guest = await stack.guest(4)
    async with Holder(stack, guest) as holder:
        grant = (await holder.want(0x1000)).grant
        stack.bus.write(grant.frame * PAGE, b"last words")
        second = stack.spaces.Hold()
        await second.write(pb.HoldRequest(open=pb.HoldOpen(handle=guest.handle)))
        await expect_refused(second.read(), "ALREADY_EXISTS", "SPACE_HELD")
    await eventually(lambda: not stack.machine.holds, "the end of the hold")
    assert (await reclaim(stack, guest, 1)).written_pages == 1
    assert await stack.read(guest, 0x1000, 10) == b"last words"


async def test_taking_the_right_to_write_revokes_only_that(stack: Stack) -> None:
    """ProtectRange to read-only asks the holder for a write-only revocation, and the dirty bit comes with it."""
    guest = await stack.guest(2)
    async with Holder(stack, guest) as holder:
        await holder.want(0)
        holder.bits[0] = (True, True)
        await stack.spaces.ProtectRange(
            pb.ProtectRangeRequest(handle=guest.handle, size_bytes=PAGE, protection=pb.Protection(read=True))
        )
        revocation = holder.of("revocation")[0].revocation
        assert revocation.write_only and list(revocation.addresses) == [0]
        assert holder.table
        frame = await stack.frames.GetFrame(pb.GetFrameRequest(frame=holder.table[0]))
        assert frame.dirty
        assert (await holder.want(0, WRITE)).HasField("refusal")
        assert not (await holder.want(0, READ)).grant.writable


async def test_firmware_is_shared_between_vms_until_written(stack: Stack) -> None:
    """A private object mapping in VM RAM grants the object's frame read-only; a write revokes it and copies."""
    firmware = await stack.object(b"firmware" * 512)
    guests = []
    for _ in range(2):
        guest = await stack.space(kind=pb.Space.KIND_GUEST_RAM)
        await stack.map(guest, 0, 1, RWX, object=firmware.handle)
        guests.append(guest)
    async with Holder(stack, guests[0]) as one, Holder(stack, guests[1]) as two:
        first, second = (await one.want(0, READ)).grant, (await two.want(0, READ)).grant
        assert first.frame == second.frame and not first.writable
        written = (await one.want(0, WRITE)).grant
        assert written.writable and written.frame != first.frame and written.outcome == Outcome.OUTCOME_COPIED
        assert [list(response.revocation.addresses) for response in one.of("revocation")] == [[0]]
        assert two.of("revocation") == []


async def test_the_mmus_own_writes_reach_a_held_page(stack: Stack) -> None:
    """WriteSpace to a page that is held lands in the same frame and makes it dirty."""
    guest = await stack.guest(1)
    async with Holder(stack, guest) as holder:
        grant = (await holder.want(0)).grant
        await stack.write(guest, 0, b"loader")
        assert stack.bus.read(grant.frame * PAGE, 6) == b"loader"
        assert (await reclaim(stack, guest, 1)).written_pages == 1
        assert await stack.read(guest, 0, 6) == b"loader"


async def test_what_a_holder_may_not_say_ends_its_stream(stack: Stack) -> None:
    """A stream that does not begin with open, opens twice, answers what was not asked, or names a process, ends."""
    guest, process = await stack.guest(2), await stack.space()

    async def ends(first: Any, *more: Any, code: str, reason: str) -> None:
        call = stack.spaces.Hold()
        for request in (first, *more):
            await call.write(request)

        async def read() -> None:
            while await call.read() is not grpc.aio.EOF:
                continue

        await expect_refused(read(), code, reason)

    opened = pb.HoldRequest(open=pb.HoldOpen(handle=guest.handle))
    precondition = "FAILED_PRECONDITION"
    want = pb.HoldRequest(want=pb.HoldWant(sequence=1, address=0, access=READ))
    await ends(want, code=precondition, reason="HOLD_NOT_OPENED")
    await ends(opened, opened, code=precondition, reason="HOLD_NOT_OPENED")
    answer = pb.HoldRequest(acknowledge=pb.HoldAcknowledge(revocation=7))
    await ends(opened, answer, code=precondition, reason="QUESTION_UNKNOWN")
    ages = pb.HoldRequest(ages=pb.HoldAges(sequence=-1))
    await ends(opened, ages, code=precondition, reason="QUESTION_UNKNOWN")
    extent = pb.HoldRequest(want_extent=pb.HoldWantExtent(sequence=1, address=0, access=READ, extent_bytes=PAGE))
    await ends(opened, extent, code="INVALID_ARGUMENT", reason="REQUEST_INVALID")
    without_access = pb.HoldRequest(want=pb.HoldWant(sequence=1))
    await ends(opened, without_access, code="INVALID_ARGUMENT", reason="REQUEST_INVALID")
    of_process = pb.HoldRequest(open=pb.HoldOpen(handle=process.handle))
    await ends(of_process, code="INVALID_ARGUMENT", reason="SPACE_NOT_HOLDABLE")
    bad_root = pb.HoldRequest(open=pb.HoldOpen(handle=guest.handle, eptp=process.root_address))
    await ends(bad_root, code="INVALID_ARGUMENT", reason="ROOT_NOT_ALLOCATED")
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=guest.handle))
    await ends(opened, code=precondition, reason="HANDLE_STALE")
