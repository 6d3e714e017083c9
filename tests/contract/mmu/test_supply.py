"""Objects with a supplier: content on demand, what changed kept, and suppliers that die, lie, or are late."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lamina.common.v1 import handle_pb2
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import supply_pb2
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, Outcome, Stack
from tests.contract.mmu.supplier import AT, Supplier, file, mapped

from lamina_kit.virtual.clock import VirtualClock
from lamina_mmu.engines.model.objects import suppliers

MAPS = pytest.mark.parametrize("maps_memory", [False, True], ids=["bytes", "frames"])


@MAPS
async def test_pages_come_on_demand(stack: Stack, maps_memory: bool) -> None:
    """The first touch is a major fault that waits for the supplier; what was read ahead is there for all."""
    made, files = await file(stack, 100 * PAGE - 5)
    async with Supplier(stack, files, [made], maps_memory=maps_memory, readahead_pages=8) as supplier:
        space = await mapped(stack, made, 100)
        answer = await stack.fault(space, AT + 10 * PAGE, READ)
        assert answer.outcome == Outcome.OUTCOME_SUPPLIED
        (demand,) = supplier.demands
        assert (demand.object, demand.offset, demand.pages) == (made.handle, 10 * PAGE, 8)
        assert len(demand.frames) == (8 if maps_memory else 0)
        assert (await stack.fault(space, AT + 11 * PAGE, READ)).outcome in (
            Outcome.OUTCOME_OBJECT_MAPPED,
            Outcome.OUTCOME_SPURIOUS,
        )
        other = await mapped(stack, made, 100, shared=False)
        assert (await stack.fault(other, AT + 17 * PAGE, READ)).outcome == Outcome.OUTCOME_OBJECT_MAPPED
        assert len(supplier.demands) == 1
        assert await stack.read(space, AT, 100 * PAGE) == bytes(files[made.handle.id]) + bytes(5)
        assert supplier.positions == list(range(1, len(supplier.positions) + 1))
        faults = await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))
        assert faults.major_faults == len(supplier.demands)
        assert (await stack.objects.GetObject(pb.GetObjectRequest(handle=made.handle))).resident_pages == 100


async def test_only_who_needs_the_page_waits(stack: Stack, eventually: Any) -> None:
    """While a page is demanded, others touch other pages; two wait for the same one, served by one demand."""
    made, files = await file(stack)
    async with Supplier(stack, files, [made], readahead_pages=1) as supplier:
        await stack.read(await mapped(stack, made, 100), AT + 50 * PAGE, 1)
        supplier.answering = False
        space = await mapped(stack, made, 100)
        waits = [asyncio.ensure_future(stack.fault(space, AT, READ)) for _ in range(2)]
        await eventually(lambda: len(supplier.demands) == 2, "the page is demanded")
        assert (await stack.fault(space, AT + 50 * PAGE, READ)).outcome == Outcome.OUTCOME_OBJECT_MAPPED
        anonymous = await stack.space()
        await stack.map(anonymous, AT, 1)
        await stack.write(anonymous, AT, b"x")
        assert not any(wait.done() for wait in waits)
        await supplier.fill(supplier.demands[1])
        outcomes = [(await wait).outcome for wait in waits]
        assert Outcome.OUTCOME_SUPPLIED in outcomes and len(supplier.demands) == 2


@pytest.mark.inside
async def test_clean_pages_are_dropped_and_demanded_again(stack: Stack) -> None:
    """Reclaim writes nothing for them; the bytes come back from the supplier."""
    made, files = await file(stack, 20 * PAGE)
    async with Supplier(stack, files, [made]) as supplier:
        space = await mapped(stack, made, 20)
        await stack.read(space, AT, 20 * PAGE)
        done = await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=20))
        assert (done.reclaimed_pages, done.written_pages) == (20, 0)
        before = len(supplier.demands)
        assert await stack.read(space, AT, 20 * PAGE) == bytes(files[made.handle.id])
        assert len(supplier.demands) > before


@MAPS
async def test_changes_are_kept_by_the_supplier(stack: Stack, maps_memory: bool) -> None:
    """Sync hands changed pages over, once; a later change is handed over again; private copies are not."""
    made, files = await file(stack, 20 * PAGE)
    async with Supplier(stack, files, [made], maps_memory=maps_memory, keeps_writes=True) as supplier:
        space = await mapped(stack, made, 20)
        private = await mapped(stack, made, 20, shared=False)
        await stack.write(space, AT + 3 * PAGE, b"three")
        await stack.write(space, AT + 4 * PAGE, b"four")
        await stack.write(private, AT + 9 * PAGE, b"mine")
        sync = supply_pb2.SyncObjectRequest(handle=made.handle)
        assert (await stack.objects.SyncObject(sync)).written_pages == 2
        assert [(keep.offset, keep.pages) for keep in supplier.keeps] == [(3 * PAGE, 2)]
        assert files[made.handle.id][3 * PAGE :][:5] == b"three" and files[made.handle.id][4 * PAGE :][:4] == b"four"
        assert (await stack.objects.SyncObject(sync)).written_pages == 0
        await stack.write(space, AT + 4 * PAGE, b"FOUR")
        assert (await stack.objects.SyncObject(sync)).written_pages == 1
        assert files[made.handle.id][4 * PAGE :][:4] == b"FOUR"
        drop = supply_pb2.SyncObjectRequest(handle=made.handle, drop=True)
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
        assert (await stack.objects.SyncObject(drop)).dropped_pages == 17  # 3 to 19 were read ahead


@pytest.mark.inside
async def test_pressure_has_changes_kept_and_not_swapped(stack: Stack) -> None:
    """Dirty pages of a kept object make room by SupplyKeep; nothing goes to swap, nothing is lost."""
    group = await stack.group("tight", 40)
    made, files = await file(stack, 100 * PAGE, group)
    async with Supplier(stack, files, [made], keeps_writes=True, readahead_pages=1) as supplier:
        space = await mapped(stack, made, 100)
        for page in range(100):
            await stack.write(space, AT + page * PAGE, f"new {page:04d}".encode())
        assert sum(keep.pages for keep in supplier.keeps) >= 60
        memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
        assert memory.swapped_out_pages == 0
        for page in range(100):
            assert await stack.read(space, AT + page * PAGE, 8) == f"new {page:04d}".encode()


async def test_changes_of_others_go_to_swap(stack: Stack) -> None:
    """A supplier that keeps nothing is not asked to; changed pages go to swap and come back from there."""
    made, files = await file(stack, 20 * PAGE)
    async with Supplier(stack, files, [made]) as supplier:
        space = await mapped(stack, made, 20)
        await stack.write(space, AT, b"changed")
        await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=20))
        assert await stack.read(space, AT, 8) == b"changed0" and not supplier.keeps
        sync = supply_pb2.SyncObjectRequest(handle=made.handle)
        assert (await stack.objects.SyncObject(sync)).written_pages == 0


async def test_what_cannot_be_kept_stays(stack: Stack) -> None:
    """A failure is told with the supplier's reason; the page stays changed, and is kept later."""
    made, files = await file(stack, 4 * PAGE)
    async with Supplier(stack, files, [made], keeps_writes=True) as supplier:
        space = await mapped(stack, made, 4)
        await stack.write(space, AT, b"changed")
        supplier.keep_failure = "DISK_FULL"
        sync = supply_pb2.SyncObjectRequest(handle=made.handle)
        assert "DISK_FULL" in await expect_refused(stack.objects.SyncObject(sync), "DATA_LOSS", "WRITE_BACK_FAILED")
        supplier.keep_failure = ""
        assert (await stack.objects.SyncObject(sync)).written_pages == 1
        assert files[made.handle.id][:7] == b"changed"


async def test_a_failure_is_a_bus_error(stack: Stack) -> None:
    """The access is refused with the supplier's reason; the next one asks again."""
    made, files = await file(stack)
    async with Supplier(stack, files, [made]) as supplier:
        space = await mapped(stack, made, 100)
        supplier.failure = "READ_FAILED"
        answer = await stack.fault(space, AT, READ)
        assert (answer.outcome, answer.refusal_reason) == (Outcome.OUTCOME_BUS_ERROR, "READ_FAILED")
        assert "READ_FAILED" in await expect_refused(stack.read(space, AT, 1), "OUT_OF_RANGE", "BAD_ADDRESS")
        supplier.failure = ""
        assert await stack.read(space, AT, 8) == b"00000000"


async def test_fewer_pages_are_an_answer(stack: Stack) -> None:
    """What did not come is demanded when it is needed."""
    made, files = await file(stack)
    async with Supplier(stack, files, [made]) as supplier:
        supplier.most_pages = 3
        space = await mapped(stack, made, 100)
        assert await stack.read(space, AT, 9 * PAGE) == bytes(files[made.handle.id][: 9 * PAGE])
        assert [demand.offset // PAGE for demand in supplier.demands] == [0, 3, 6]


async def test_a_supplier_that_dies_leaves_what_is_there(stack: Stack, eventually: Any) -> None:
    """Who waits gets a bus error; pages in RAM stay; the object may be supplied again, and is complete then."""
    made, files = await file(stack)
    space = await mapped(stack, made, 100)
    free = (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames
    async with Supplier(stack, files, [made], keeps_writes=True, readahead_pages=4) as supplier:
        assert await stack.read(space, AT, 1) == b"0"
        await stack.write(space, AT, b"!")
        supplier.answering = False
        waits = asyncio.ensure_future(stack.fault(space, AT + 50 * PAGE, READ))
        await eventually(lambda: len(supplier.demands) == 2, "the page is demanded")
    answer = await waits
    assert (answer.outcome, answer.refusal_reason) == (Outcome.OUTCOME_BUS_ERROR, "SUPPLIER_GONE")
    answer = await stack.fault(space, AT + 60 * PAGE, READ)
    assert (answer.outcome, answer.refusal_reason) == (Outcome.OUTCOME_BUS_ERROR, "SUPPLIER_GONE")
    assert await stack.read(space, AT, 2) == b"!0"
    sync = supply_pb2.SyncObjectRequest(handle=made.handle)
    await expect_refused(stack.objects.SyncObject(sync), "UNAVAILABLE", "SUPPLIER_GONE")
    assert (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames >= free - 8
    async with Supplier(stack, files, [made], keeps_writes=True):
        assert await stack.read(space, AT + 50 * PAGE, 8) == b"00000050"
        assert (await stack.objects.SyncObject(sync)).written_pages == 1
    assert files[made.handle.id][:2] == b"!0"


@pytest.mark.inside
async def test_a_silent_supplier_is_cut_off(stack: Stack, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer in 30 s the stream ends; frames that it might still fill are given to nobody."""
    due_ns = suppliers.ANSWER_NS
    if not isinstance(stack.clock, VirtualClock):
        due_ns = 300_000_000  # nobody waits 30 s of real time for a test
        monkeypatch.setattr(suppliers, "ANSWER_NS", due_ns)
    made, files = await file(stack)
    async with Supplier(stack, files, [made], maps_memory=True, readahead_pages=4) as supplier:
        supplier.answering = False
        space = await mapped(stack, made, 100)
        began = stack.clock.now_ns()
        request = pb.FaultRequest(handle=space.handle, address=AT, access=READ)
        answer = await stack.spaces.Fault(request, timeout=60)
        assert (answer.outcome, answer.refusal_reason) == (Outcome.OUTCOME_BUS_ERROR, "SUPPLIER_GONE")
        assert stack.clock.now_ns() - began >= due_ns
        await eventually(lambda: supplier.status, "the stream has ended")
        assert (supplier.status, supplier.reason) == ("ABORTED", "SUPPLIER_SILENT")
        for frame in supplier.demands[0].frames:
            shown = await stack.frames.GetFrame(pb.GetFrameRequest(frame=frame))
            assert shown.use == pb.Frame.USE_RESERVED


@pytest.mark.parametrize(
    "lie",
    [
        {"pages": 5, "data": b"x" * 5 * PAGE},
        {"data": b"x" * (4 * PAGE + 1)},
        {"pages": 2, "data": b"x"},
        {"pages": -1},
        {"pages": 1},
        {},
        {"pages": 1, "data": b"x", "failure": "READ_FAILED"},
        {"failure": "not upper"},
        {"failure": "X" * 64},
    ],
)
async def test_a_supplier_that_lies_is_cut_off(stack: Stack, lie: dict[str, Any], eventually: Any) -> None:
    """More bytes than demanded, and answers that contradict themselves, end the stream; nobody sees any of it."""
    made, files = await file(stack)
    async with Supplier(stack, files, [made], readahead_pages=4) as supplier:
        supplier.answering = False
        space = await mapped(stack, made, 100)
        waits = asyncio.ensure_future(stack.fault(space, AT, READ))
        await eventually(lambda: supplier.demands, "the page is demanded")
        filled = supply_pb2.SupplyFilled(sequence=supplier.demands[0].sequence, **lie)
        await supplier.say(filled=filled)
        assert (await waits).outcome == Outcome.OUTCOME_BUS_ERROR
        await eventually(lambda: supplier.status, "the stream has ended")
        assert (supplier.status, supplier.reason) == ("INVALID_ARGUMENT", "SUPPLY_MALFORMED")


async def test_wrong_requests_end_the_stream(stack: Stack, eventually: Any) -> None:
    """Answers to nothing, foreign objects, empty requests, an object that has a supplier: each with its reason."""
    made, files = await file(stack)
    gone = handle_pb2.Handle(id=99, generation=1)
    for request, status, reason in (
        ({"filled": supply_pb2.SupplyFilled(sequence=7, pages=1)}, "FAILED_PRECONDITION", "QUESTION_UNKNOWN"),
        ({"kept": supply_pb2.SupplyKept(sequence=7)}, "FAILED_PRECONDITION", "QUESTION_UNKNOWN"),
        ({"kept": supply_pb2.SupplyKept(sequence=7, failure="no")}, "INVALID_ARGUMENT", "SUPPLY_MALFORMED"),
        (
            {"invalidated": supply_pb2.SupplyInvalidated(object=gone, size_bytes=PAGE)},
            "FAILED_PRECONDITION",
            "HANDLE_STALE",
        ),
        ({"invalidated": supply_pb2.SupplyInvalidated(object=made.handle, size_bytes=5)}, "INVALID_ARGUMENT", ""),
        ({}, "FAILED_PRECONDITION", "SUPPLY_NOT_OPENED"),
        ({"open": supply_pb2.SupplyOpen(objects=[made.handle])}, "ALREADY_EXISTS", "OBJECT_SUPPLIED"),
        ({"open": supply_pb2.SupplyOpen()}, "INVALID_ARGUMENT", ""),
    ):
        async with Supplier(stack, files, [made]) as supplier:
            await supplier.say(**request)
            await eventually(lambda: supplier.status, "the stream has ended")
            assert supplier.status == status and (not reason or supplier.reason == reason), request

    async def first(request: supply_pb2.SupplyRequest) -> None:
        call: Any = stack.objects.Supply()
        await call.write(request)
        await call.read()

    kept = supply_pb2.SupplyRequest(kept=supply_pb2.SupplyKept(sequence=1))
    await expect_refused(first(kept), "FAILED_PRECONDITION", "SUPPLY_NOT_OPENED")
    stale = supply_pb2.SupplyRequest(open=supply_pb2.SupplyOpen(objects=[gone]))
    await expect_refused(first(stale), "FAILED_PRECONDITION", "HANDLE_STALE")


async def test_what_changed_behind_the_object_is_dropped(stack: Stack, eventually: Any) -> None:
    """Clean pages of an invalidated range are demanded anew, dirty and pinned ones stay, also while one is demanded."""
    made, files = await file(stack, 8 * PAGE)
    async with Supplier(stack, files, [made], readahead_pages=8) as supplier:
        space = await mapped(stack, made, 8)
        await stack.read(space, AT, 8 * PAGE)
        await stack.write(space, AT + PAGE, b"dirty")
        for page in range(8):
            files[made.handle.id][page * PAGE : page * PAGE + 3] = b"new"
        await supplier.say(invalidated=supply_pb2.SupplyInvalidated(object=made.handle, offset=0, size_bytes=4 * PAGE))

        async def resident() -> int:
            return (await stack.objects.GetObject(pb.GetObjectRequest(handle=made.handle))).resident_pages

        while await resident() > 5:
            pass  # each look is a call, in whose time the stream is read
        assert await resident() == 5
        heads = [await stack.read(space, AT + page * PAGE, 5) for page in range(8)]
        assert heads == [b"new00", b"dirty", b"new00", b"new00", *[b"00000"] * 4]


@pytest.mark.inside
async def test_a_deleted_object_ends_with_its_demand(stack: Stack, eventually: Any) -> None:
    """An object that is deleted while a page is demanded goes when the answer came; no frame is lost."""
    made, files = await file(stack)
    async with Supplier(stack, files, [made]) as supplier:
        supplier.answering = False
        space = await mapped(stack, made, 100)
        waits = asyncio.ensure_future(stack.fault(space, AT, READ))
        await eventually(lambda: supplier.demands, "the page is demanded")
        await stack.objects.DeleteObject(pb.DeleteObjectRequest(handle=made.handle))
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
        await supplier.fill(supplier.demands[0])
        await expect_refused(waits, "FAILED_PRECONDITION", "HANDLE_STALE")
        memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
        assert memory.free_frames == memory.total_frames - 1
