"""The content of objects as a whole: read in pieces, resized; with a supplier and without."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import supply_pb2
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, Outcome, Stack
from tests.contract.mmu.supplier import AT, Supplier, file, mapped


async def test_content_is_read_in_pieces(stack: Stack) -> None:
    """Pieces of at most 1 MiB in order; what was never written is left out; beyond the end is refused."""
    made = await stack.objects.CreateObject(pb.CreateObjectRequest(object=pb.Object(size_bytes=3 << 20)))

    async def pieces() -> Any:
        yield pb.WriteObjectRequest(handle=made.handle, offset=5, data=b"five")
        yield pb.WriteObjectRequest(handle=made.handle, offset=(2 << 20) - 2, data=b"edge")

    await stack.objects.WriteObject(pieces())

    async def read(**fields: Any) -> list[tuple[int, bytes]]:
        call = stack.objects.ReadObject(supply_pb2.ReadObjectRequest(**fields))
        return [(piece.offset, piece.data) async for piece in call]

    whole = await read(name=made.name)
    image = bytearray(3 << 20)
    for offset, data in whole:
        assert len(data) <= 1 << 20
        image[offset : offset + len(data)] = data
    assert image[5:9] == b"five" and image[(2 << 20) - 2 : (2 << 20) + 2] == b"edge"
    assert image.count(0) == len(image) - 8 and sum(len(data) for _, data in whole) == 3 * PAGE
    assert await read(handle=made.handle, offset=6, size_bytes=2) == [(6, b"iv")]
    await expect_refused(read(handle=made.handle, offset=(3 << 20) + 1), "OUT_OF_RANGE", "BEYOND_OBJECT")
    await expect_refused(read(handle=made.handle, offset=-1), "INVALID_ARGUMENT")
    await expect_refused(read(name="hosts/h1/objects/o-999"), "NOT_FOUND", "OBJECT_UNKNOWN")


async def test_reading_asks_the_supplier(stack: Stack) -> None:
    """An object is read through its supplier; a failure is DATA_LOSS with the supplier's reason."""
    made, files = await file(stack, 10 * PAGE + 7)
    async with Supplier(stack, files, [made]) as supplier:
        call = stack.objects.ReadObject(supply_pb2.ReadObjectRequest(handle=made.handle))
        assert b"".join([piece.data async for piece in call]) == bytes(files[made.handle.id])
        await stack.objects.SyncObject(supply_pb2.SyncObjectRequest(handle=made.handle, drop=True))
        supplier.failure = "READ_FAILED"
        call = stack.objects.ReadObject(supply_pb2.ReadObjectRequest(handle=made.handle))

        async def read() -> None:
            async for _ in call:
                pass

        assert "READ_FAILED" in await expect_refused(read(), "DATA_LOSS", "SUPPLY_FAILED")


@pytest.mark.inside
async def test_a_shorter_object_loses_its_tail(stack: Stack) -> None:
    """Pages beyond the new end go, mapped or swapped; accesses there are bus errors; what grows again is zeros."""
    made = await stack.object(b"x" * 10 * PAGE)
    space = await mapped(stack, made, 10)
    await stack.read(space, AT, 10 * PAGE)
    resize = stack.objects.ResizeObject
    pinned = (await stack.fault(space, AT + 8 * PAGE, READ)).frame
    stack.bus.pin(pinned)
    shorter = supply_pb2.ResizeObjectRequest(handle=made.handle, size_bytes=2 * PAGE + 100)
    await expect_refused(resize(shorter), "FAILED_PRECONDITION", "RANGE_PINNED")
    assert await stack.read(space, AT + 9 * PAGE, 1) == b"x"
    stack.bus.unpin(pinned)
    shots = len(stack.shot)
    answer = await resize(shorter)
    assert (answer.size_bytes, answer.resident_pages) == (2 * PAGE + 100, 3) and len(stack.shot) > shots
    assert await resize(shorter) == answer
    bad = await stack.fault(space, AT + 3 * PAGE, READ)
    assert (bad.outcome, bad.refusal_reason) == (Outcome.OUTCOME_BUS_ERROR, "BEYOND_OBJECT")
    assert await stack.read(space, AT + 2 * PAGE, 102) == b"x" * 100 + b"\0\0"
    await resize(supply_pb2.ResizeObjectRequest(handle=made.handle, size_bytes=10 * PAGE))
    assert await stack.read(space, AT + 2 * PAGE, 8 * PAGE) == b"x" * 100 + bytes(8 * PAGE - 100)
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=10))
    await resize(supply_pb2.ResizeObjectRequest(handle=made.handle, size_bytes=PAGE))
    assert await stack.read(space, AT, PAGE) == b"x" * PAGE
    for size in (0, -1, (1 << 40) + 1):
        await expect_refused(
            resize(supply_pb2.ResizeObjectRequest(handle=made.handle, size_bytes=size)), "INVALID_ARGUMENT"
        )


async def test_bad_ranges_are_refused(stack: Stack) -> None:
    """Sync begins at a page and lies within the object."""
    made = await stack.object(b"x" * 10)
    sync = stack.objects.SyncObject
    await expect_refused(sync(supply_pb2.SyncObjectRequest(handle=made.handle, offset=5)), "INVALID_ARGUMENT")
    beyond = supply_pb2.SyncObjectRequest(handle=made.handle, size_bytes=2 * PAGE)
    await expect_refused(sync(beyond), "OUT_OF_RANGE", "BEYOND_OBJECT")
