"""Objects as a caller sees them: content, private and shared mappings, deletion."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, RW, WRITE, Outcome, Stack

R = pb.Protection(read=True)


@pytest.mark.inside
async def test_content_is_written_in_pieces(stack: Stack) -> None:
    """Pieces of any size land where they belong; pages are taken as they are written."""
    made = await stack.objects.CreateObject(pb.CreateObjectRequest(object=pb.Object(size_bytes=10 * PAGE, label="f")))
    assert (made.name, made.resident_pages) == ("hosts/h1/objects/o-1", 0)

    async def pieces() -> Any:
        yield pb.WriteObjectRequest(handle=made.handle, offset=PAGE - 3, data=b"abcdef")
        yield pb.WriteObjectRequest(handle=made.handle, offset=5 * PAGE, data=b"z" * PAGE)

    assert (await stack.objects.WriteObject(pieces())).written_bytes == PAGE + 6
    assert (await stack.objects.GetObject(pb.GetObjectRequest(name=made.name))).resident_pages == 3
    space = await stack.space()
    await stack.map(space, 0x40_0000, 10, R, object=made.handle)
    content = await stack.read(space, 0x40_0000, 10 * PAGE)
    assert content[PAGE - 3 : PAGE + 3] == b"abcdef" and content[5 * PAGE : 6 * PAGE] == b"z" * PAGE
    assert content.count(b"\0") == 9 * PAGE - 6


async def test_many_spaces_share_the_frames_of_one_object(stack: Stack) -> None:
    """Private mappings of an object name its frames read-only with COW: the content is in RAM once."""
    program = await stack.object(b"text" * 4096)
    before = (await stack.frames.GetMemory(pb.GetMemoryRequest())).uses
    frames = set()
    for _ in range(10):
        space = await stack.space()
        await stack.map(space, 0x40_0000, 4, RW, object=program.handle)
        answer = await stack.fault(space, 0x40_1000, READ)
        assert answer.outcome == Outcome.OUTCOME_OBJECT_MAPPED
        assert answer.entry & 2 == 0
        frames.add(answer.frame)
    assert len(frames) == 1
    frame = await stack.frames.GetFrame(pb.GetFrameRequest(frame=frames.pop()))
    assert (frame.mapping_count, frame.use, frame.owner) == (10, pb.Frame.USE_OBJECT, program.name)
    after = (await stack.frames.GetMemory(pb.GetMemoryRequest())).uses
    assert [one for one in after if one.use == pb.Frame.USE_OBJECT] == [
        one for one in before if one.use == pb.Frame.USE_OBJECT
    ]


async def test_a_write_to_a_private_mapping_copies(stack: Stack) -> None:
    """The object and the other spaces do not see it, whether the page was read before or not."""
    data = await stack.object(b"a" * 2 * PAGE)
    one, two = await stack.space(), await stack.space()
    for space in (one, two):
        await stack.map(space, 0x40_0000, 2, RW, object=data.handle)
    await stack.fault(one, 0x40_0000, READ)
    for address in (0x40_0000, 0x40_1000):
        assert (await stack.fault(one, address, WRITE)).outcome == Outcome.OUTCOME_COPIED
        await stack.write(one, address, b"b")
    assert await stack.read(one, 0x40_0000, 2) == b"ba"
    assert await stack.read(two, 0x40_0000, 2 * PAGE) == b"a" * 2 * PAGE


async def test_a_shared_mapping_writes_to_the_object(stack: Stack) -> None:
    """Spaces with shared mappings of one object see each other's writes at once."""
    sea = await stack.object(b"", size=3 * PAGE)
    one, two = await stack.space(), await stack.space()
    await stack.map(one, 0x40_0000, 3, RW, object=sea.handle, shared=True)
    await stack.map(two, 0x90_0000, 2, RW, object=sea.handle, shared=True, object_offset=PAGE)
    await stack.write(one, 0x40_1FFC, b"across!")
    assert await stack.read(two, 0x90_0FFC, 7) == b"across!"
    assert (await stack.fault(two, 0x90_0000, WRITE)).entry & 2


async def test_beyond_the_objects_end_is_refused(stack: Stack) -> None:
    """A mapping may be longer than its object, but its pages behind the end cannot be touched."""
    short = await stack.object(b"x" * 10)
    space = await stack.space()
    await stack.map(space, 0x40_0000, 3, R, object=short.handle)
    assert await stack.read(space, 0x40_0000, 12) == b"x" * 10 + b"\0\0"
    assert (await stack.fault(space, 0x40_1000, READ)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT


@pytest.mark.inside
async def test_a_deleted_object_lives_in_its_mappings(stack: Stack) -> None:
    """Its handle is stale at once; its pages stay until the last mapping, split or forked, is gone."""
    data = await stack.object(b"alive" * 2000)
    space = await stack.space()
    await stack.map(space, 0x40_0000, 3, R, object=data.handle)
    child = await stack.fork(space)
    await stack.objects.DeleteObject(pb.DeleteObjectRequest(handle=data.handle))
    get = stack.objects.GetObject
    await expect_refused(get(pb.GetObjectRequest(handle=data.handle)), "FAILED_PRECONDITION", "HANDLE_STALE")
    await expect_refused(get(pb.GetObjectRequest(name=data.name)), "NOT_FOUND", "OBJECT_UNKNOWN")
    await expect_refused(stack.map(space, 0x90_0000, 1, R, object=data.handle), "FAILED_PRECONDITION", "HANDLE_STALE")
    unmap = pb.UnmapRangeRequest(handle=space.handle, address=0x40_1000, size_bytes=PAGE)
    await stack.spaces.UnmapRange(unmap)
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    assert await stack.read(child, 0x40_0000, 5) == b"alive"
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=child.handle))
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_frames == memory.total_frames - 1


@pytest.mark.inside
async def test_objects_are_listed_and_made_once(stack: Stack) -> None:
    """Lists are paged in the order of creation; a request id makes one object."""
    request = pb.CreateObjectRequest(object=pb.Object(size_bytes=1), request_id="o")
    first = await stack.objects.CreateObject(request)
    assert await stack.objects.CreateObject(request) == first
    for _ in range(4):
        await stack.object(b"x")
    page = await stack.objects.ListObjects(pb.ListObjectsRequest(page_size=3))
    rest = await stack.objects.ListObjects(pb.ListObjectsRequest(page_size=3, page_token=page.next_page_token))
    assert [one.name for one in (*page.objects, *rest.objects)] == [f"hosts/h1/objects/o-{n}" for n in range(1, 6)]
    assert not rest.next_page_token


async def test_bad_objects_are_refused(stack: Stack) -> None:
    """Sizes out of range, writes beyond the end, too large pieces and unknown handles are refused."""
    create = stack.objects.CreateObject
    for size in (0, -1, (1 << 40) + 1):
        await expect_refused(create(pb.CreateObjectRequest(object=pb.Object(size_bytes=size))), "INVALID_ARGUMENT")
    made = await stack.object(b"", size=PAGE)

    async def one(request: pb.WriteObjectRequest) -> Any:
        yield request

    for offset, data, code, reason in (
        (PAGE - 1, b"xx", "OUT_OF_RANGE", "BEYOND_OBJECT"),
        (-1, b"x", "INVALID_ARGUMENT", ""),
        (0, b"x" * ((1 << 20) + 1), "INVALID_ARGUMENT", ""),
    ):
        request = pb.WriteObjectRequest(handle=made.handle, offset=offset, data=data)
        await expect_refused(stack.objects.WriteObject(one(request)), code, reason)
    await expect_refused(
        stack.objects.WriteObject(one(pb.WriteObjectRequest(data=b"x"))), "FAILED_PRECONDITION", "HANDLE_STALE"
    )
