"""Swap as a caller sees it: a real file, bytes that come back, clean pages that cost nothing, bytes that rotted."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, WRITE, Outcome, Stack


async def reclaim(stack: Stack, space: pb.Space, pages: int) -> pb.ReclaimResponse:
    """Reclaims from a space."""
    done: pb.ReclaimResponse = await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=pages))
    return done


@pytest.mark.inside
async def test_pages_go_to_the_swap_file_and_come_back(stack: Stack) -> None:
    """A dirty page is in the file, its entry names the slot, a core would fault; reading brings it back (S-06)."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 8)
    data = random.Random(1).randbytes(8 * PAGE)
    await stack.write(space, 0x40_0000, data)
    done = await reclaim(stack, space, 8)
    assert (done.reclaimed_pages, done.written_pages) == (8, 8)
    explained = await stack.translate(space, 0x40_3000)
    assert explained.residency == pb.TranslateResponse.RESIDENCY_SWAP
    assert stack.walk(space, 0x40_3000) is None
    file = (stack.folder / "state" / "swap").read_bytes()
    assert file[explained.swap_slot * PAGE :][:PAGE] == data[3 * PAGE : 4 * PAGE]
    answer = await stack.fault(space, 0x40_3000, READ)
    assert answer.outcome == Outcome.OUTCOME_SWAPPED_IN
    assert any(step.step == "page.read" and f"slot {explained.swap_slot}" in step.detail for step in answer.steps)
    assert await stack.read(space, 0x40_0000, 8 * PAGE) == data
    view = await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))
    assert (view.resident_pages, view.swapped_pages, view.major_faults) == (8, 0, 1)  # the others were read ahead


@pytest.mark.inside
async def test_a_page_that_was_only_read_again_is_dropped_without_a_write(stack: Stack) -> None:
    """A clean page keeps its slot: its second eviction writes nothing; after a write it is written again."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    await stack.write(space, 0x40_0000, b"one")
    assert (await reclaim(stack, space, 1)).written_pages == 1
    assert await stack.read(space, 0x40_0000, 3) == b"one"
    assert (await reclaim(stack, space, 1)).written_pages == 0
    await stack.write(space, 0x40_0000, b"two")
    assert (await reclaim(stack, space, 1)).written_pages == 1
    assert await stack.read(space, 0x40_0000, 3) == b"two"
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert (memory.swapped_out_pages, memory.swapped_in_pages, memory.dropped_pages) == (2, 3, 1)


async def test_a_page_of_zeros_is_dropped(stack: Stack) -> None:
    """A page that was touched and never written takes no slot: it is zeros again when it is touched again."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    await stack.read(space, 0x40_0000, 1)
    assert (await reclaim(stack, space, 1)).written_pages == 0
    assert (await stack.translate(space, 0x40_0000)).residency == pb.TranslateResponse.RESIDENCY_NONE
    assert (await stack.fault(space, 0x40_0000, WRITE)).outcome == Outcome.OUTCOME_ZERO_FILLED


@pytest.mark.inside
async def test_a_fork_shares_what_is_in_swap(stack: Stack) -> None:
    """Parent and child name one slot; each gets the bytes, one read serves both, and a write stays one's own."""
    parent = await stack.space()
    await stack.map(parent, 0x40_0000, 1)
    await stack.write(parent, 0x40_0000, b"shared")
    await reclaim(stack, parent, 1)
    child = await stack.fork(parent)
    slots = [(await stack.translate(one, 0x40_0000)).swap_slot for one in (parent, child)]
    assert slots[0] == slots[1]
    assert [await stack.read(one, 0x40_0000, 6) for one in (child, parent)] == [b"shared", b"shared"]
    assert (await stack.frames.GetMemory(pb.GetMemoryRequest())).swapped_in_pages == 1
    assert stack.walk(parent, 0x40_0000) == stack.walk(child, 0x40_0000)
    await stack.write(child, 0x40_0000, b"child!")
    assert [await stack.read(one, 0x40_0000, 6) for one in (child, parent)] == [b"child!", b"shared"]
    for space in (parent, child):
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_swap_slots == memory.swap_slots


async def test_an_objects_page_is_swapped_for_all_who_map_it(stack: Stack) -> None:
    """Evicting an object's page takes it from every mapping at once; each sees it again by a fault."""
    sea = await stack.object(b"sea" * 2000)
    spaces = [await stack.space() for _ in range(3)]
    for space in spaces:
        await stack.map(space, 0x40_0000, 1, object=sea.handle, shared=True)
        await stack.fault(space, 0x40_0000, READ)
    await stack.write(spaces[0], 0x40_0000, b"SEA")
    done = await reclaim(stack, spaces[1], 1)
    assert (done.reclaimed_pages, done.written_pages) == (1, 1)
    assert [stack.walk(space, 0x40_0000) for space in spaces] == [None, None, None]
    view = await stack.objects.GetObject(pb.GetObjectRequest(handle=sea.handle))
    assert (view.resident_pages, view.swapped_pages) == (1, 1)
    for space in spaces:
        assert await stack.read(space, 0x40_0000, 6) == b"SEAsea"


@pytest.mark.inside
async def test_rotten_bytes_are_reported_and_never_mapped(stack: Stack) -> None:
    """A slot whose bytes changed in the file fails its checksum; the page stays in swap and the frame is given back."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 1)
    await stack.write(space, 0x40_0000, b"x" * PAGE)
    await reclaim(stack, space, 1)
    slot = (await stack.translate(space, 0x40_0000)).swap_slot
    with (stack.folder / "state" / "swap").open("r+b") as file:
        file.seek(slot * PAGE + 100)
        file.write(b"y")
    free = (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames
    message = await expect_refused(stack.fault(space, 0x40_0000), "DATA_LOSS", "SWAP_CORRUPT")
    assert f"slot {slot}" in message
    await expect_refused(stack.read(space, 0x40_0000, 1), "DATA_LOSS", "SWAP_CORRUPT")
    assert (await stack.translate(space, 0x40_0000)).residency == pb.TranslateResponse.RESIDENCY_SWAP
    assert (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames == free
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))


async def test_every_eviction_is_explained(stack: Stack) -> None:
    """Explain of the page and of its frame tells rule, age, dirty or clean, and for whom."""
    group = await stack.group("web", pages=8)
    space = await stack.space(group)
    await stack.map(space, 0x40_0000, 8)
    for index in range(5):
        await stack.write(space, 0x40_0000 + index * PAGE, b"x")
    layer = layer_pb2_grpc.LayerStub(stack.channel)
    page = f"{space.name}/pages/0x400000"
    found = (await layer.Explain(layer_pb2.ExplainRequest(object=page))).decisions
    assert len(found) == 1 and found[0].event == "page.evicted" and found[0].rule.startswith("lru")
    inputs = {one.key: one.value for one in found[0].inputs}
    assert inputs["state"] == "dirty" and inputs["action"].startswith("written to slot")
    assert int(inputs["age"]) >= 0 and found[0].cause == f"{space.name}/pages/0x404000"
    frame = f"hosts/h1/frames/{inputs['frame']}"
    assert (await layer.Explain(layer_pb2.ExplainRequest(object=frame))).decisions[0].inputs == found[0].inputs


async def test_a_pinned_page_is_not_evicted(stack: Stack) -> None:
    """A frame with an access in progress stays, and so does its entry."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 2)
    await stack.write(space, 0x40_0000, b"x" * 2 * PAGE)
    frame = stack.walk(space, 0x40_0000) or 0
    stack.bus.pin(frame)
    assert (await reclaim(stack, space, 2)).reclaimed_pages == 1
    assert stack.walk(space, 0x40_0000) == frame
    stack.bus.unpin(frame)
    assert (await reclaim(stack, space, 2)).reclaimed_pages == 1


@pytest.mark.inside
async def test_a_cancelled_call_puts_its_victims_back(stack: Stack) -> None:
    """A caller that gives up in the middle of an eviction leaves every page as it was."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 8)
    await stack.write(space, 0x40_0000, b"x" * 8 * PAGE)
    for turns in range(12):
        call = asyncio.ensure_future(reclaim(stack, space, 4))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert await stack.read(space, 0x40_0000, 8 * PAGE) == b"x" * 8 * PAGE
    assert not [frame for frame in range(4096) if stack.machine.frames.flags[frame] & 2]


async def test_bad_reclaims_are_refused(stack: Stack) -> None:
    """Counts out of range, unknown groups and stale handles are refused; too few pages are not an error."""
    call = stack.spaces.Reclaim
    for pages in (0, -1, (1 << 20) + 1):
        await expect_refused(call(pb.ReclaimRequest(pages=pages)), "INVALID_ARGUMENT")
    unknown = pb.ReclaimRequest(group="hosts/h1/memoryGroups/none", pages=1)
    await expect_refused(call(unknown), "NOT_FOUND", "GROUP_UNKNOWN")
    assert (await call(pb.ReclaimRequest(pages=1000))).reclaimed_pages == 0


@pytest.mark.inside
async def test_a_host_short_of_ram_runs_everything(tmp_path: Path, engine_name: str) -> None:
    """With 64 frames of RAM, three spaces of 60 pages each keep all their bytes; reclaim runs ahead of need."""
    async with Stack(tmp_path, frames=64, swap_pages=400, engine=engine_name) as stack:
        spaces = [await stack.space() for _ in range(3)]
        chance = random.Random(3)
        words: dict[tuple[int, int], bytes] = {}
        for space in spaces:
            await stack.map(space, 0x40_0000, 60)
        for _ in range(1500):
            which, address = chance.randrange(3), 0x40_0000 + chance.randrange(60 * PAGE // 8) * 8
            if chance.random() < 0.5:
                words[which, address] = chance.randbytes(8)
                await stack.write(spaces[which], address, words[which, address])
            else:
                assert await stack.read(spaces[which], address, 8) == words.get((which, address), bytes(8))
        memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
        assert memory.swapped_out_pages > 200
        async with asyncio.timeout(30):  # the last page may have taken what reclaim gives back in a task of its own
            while not (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames:
                pass


@pytest.mark.inside
async def test_one_swap_file_has_one_mmu(tmp_path: Path, engine_name: str) -> None:
    """A second MMU with the same state directory is refused at its start; the file is sparse and private."""
    async with Stack(tmp_path, engine=engine_name) as stack:
        file = tmp_path / "state" / "swap"
        assert file.stat().st_size == 1024 * PAGE and file.stat().st_blocks == 0
        assert file.stat().st_mode & 0o777 == 0o600
        from lamina_kit.errors import FailedPrecondition
        from lamina_mmu.io.swap.files import SwapFile

        with pytest.raises(FailedPrecondition, match="in use"):
            SwapFile(file, 4)
        assert stack.channel.get_state() == grpc.ChannelConnectivity.READY
