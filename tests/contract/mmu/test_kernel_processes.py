"""Spaces that are processes of the kernel: attached to, watched, ended; what the kernel itself says of them."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges
from tests.contract.mmu.kernel import attach, is_there, kernel, mapped_starts, processes_of, sleeper, zombie
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import EXECUTE, PAGE, READ, RW, WRITE, Outcome, Stack

__all__ = ["kernel", "sleeper", "zombie"]
pytestmark = pytest.mark.real_time("processes of the kernel")
BASE = 0x40_0000


async def test_an_attached_process_is_read_written_and_left_alone(
    kernel: Stack, sleeper: subprocess.Popen[bytes]
) -> None:
    """Its mappings are the kernel's, its bytes are there, its mappings are refused to change, and it outlives us."""
    space = await attach(kernel, sleeper.pid, label="sleeper", request_id="once")
    assert await attach(kernel, sleeper.pid, label="sleeper", request_id="once") == space
    assert space.resident_pages > 0 and space.label == "sleeper"
    listed = await kernel.spaces.ListMappings(pb.ListMappingsRequest(handle=space.handle))
    assert [one.start for one in listed.mappings] == mapped_starts(sleeper.pid)
    stack = next(one for one in listed.mappings if one.label == "[stack]")
    await kernel.write(space, stack.start, b"written")
    assert await kernel.read(space, stack.start, 7) == b"written"
    assert (await kernel.translate(space, stack.start)).residency == pb.TranslateResponse.RESIDENCY_RAM
    for call in (kernel.map(space, BASE, 1), kernel.fault(space, BASE), kernel.fork(space)):
        await expect_refused(call, "UNIMPLEMENTED", "CAPABILITY_MISSING")
    await expect_refused(kernel.read(space, BASE - PAGE, 1), "OUT_OF_RANGE", "BAD_ADDRESS")
    await kernel.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=16))
    await kernel.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    assert sleeper.poll() is None


async def test_what_cannot_be_attached_to_is_refused(
    kernel: Stack, sleeper: subprocess.Popen[bytes], zombie: int
) -> None:
    """Numbers that are no process, threads, zombies, spaces that there are, and processes that are not ours to see."""
    for pid in (0, -5, 1 << 22, 2**31 - 1):
        await expect_refused(attach(kernel, pid), "INVALID_ARGUMENT")
    await expect_refused(attach(kernel, (1 << 22) - 1), "NOT_FOUND", "PROCESS_UNKNOWN")
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        await expect_refused(attach(kernel, thread.native_id or 0), "NOT_FOUND", "PROCESS_UNKNOWN")
    finally:
        stop.set()
        thread.join()
    await expect_refused(attach(kernel, zombie), "NOT_FOUND", "PROCESS_UNKNOWN")
    await attach(kernel, sleeper.pid)
    await expect_refused(attach(kernel, sleeper.pid), "ALREADY_EXISTS", "PROCESS_ATTACHED")
    await expect_refused(attach(kernel, sleeper.pid, group="hosts/h1/memoryGroups/none"), "NOT_FOUND", "GROUP_UNKNOWN")


async def test_a_process_that_may_not_be_seen_is_refused(
    kernel: Stack, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel denies is PERMISSION_DENIED, and nothing is left of the attempt."""
    processes = kernel.service.host.engine.state.kernel.processes
    text = processes.text

    def denied(pid: int, name: str) -> str | int:
        found: str | int = text(pid, name) if name == "status" else -errno.EACCES
        return found

    monkeypatch.setattr(processes, "text", denied)
    await expect_refused(attach(kernel, sleeper.pid), "PERMISSION_DENIED", "PROCESS_NOT_TRACEABLE")
    monkeypatch.undo()
    assert processes_of(kernel) == []
    await attach(kernel, sleeper.pid)


@pytest.mark.parametrize("attached", [True, False])
async def test_a_space_ends_with_its_process(
    kernel: Stack, sleeper: subprocess.Popen[bytes], attached: bool, eventually: Any
) -> None:
    """Whoever kills the process of a space ends the space: its handle is stale, it is listed no more, it is told."""
    space = await (attach(kernel, sleeper.pid) if attached else kernel.space())
    (pid,) = processes_of(kernel)
    os.kill(pid, 9)
    await eventually(lambda: not processes_of(kernel), "the space has ended")
    request = pb.GetSpaceRequest(handle=space.handle)
    await expect_refused(kernel.spaces.GetSpace(request), "FAILED_PRECONDITION", "HANDLE_STALE")
    assert [entry.event for entry in kernel.layer.events.list(space.name)][-1] == "space.ended"
    if not attached:
        assert not is_there(pid)


async def test_a_killed_agent_is_found_by_the_call_that_needs_it(kernel: Stack) -> None:
    """A call on a space whose process died just now says so, and crashes nothing."""
    space = await kernel.space()
    os.kill(processes_of(kernel)[0], 9)
    call = kernel.map(space, BASE, 1)
    await expect_refused(call, "FAILED_PRECONDITION", "HANDLE_STALE")
    assert (await kernel.space()).name.endswith("s-2")


async def test_nothing_is_left_after_a_stop(tmp_path: Path) -> None:
    """Agents, their forks and those of whom nobody knows the handle any more end with the service."""
    async with Stack(tmp_path, engine="linux") as stack:
        one = await stack.space()
        await stack.fork(await stack.fork(one))
        gone = await stack.space()
        (*_, last) = processes_of(stack)
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=gone.handle))
        assert not is_there(last)
        pids = processes_of(stack)
        assert len(pids) == 3
    assert not [pid for pid in pids if is_there(pid)]


async def test_faults_are_the_kernels(kernel: Stack) -> None:
    """Zero fill, copy-on-write, spurious ones and refusals; frames by the page map; counted as getrusage counts."""
    parent = await kernel.space()
    await kernel.map(parent, BASE, 2)
    first = await kernel.fault(parent, BASE)
    assert first.outcome == Outcome.OUTCOME_ZERO_FILLED
    assert (await kernel.fault(parent, BASE)).outcome == Outcome.OUTCOME_SPURIOUS
    child = await kernel.fork(parent)
    shared = await kernel.translate(child, BASE)
    assert shared.frame == first.frame and shared.copy_on_write
    copied = await kernel.fault(child, BASE)
    assert copied.outcome == Outcome.OUTCOME_COPIED
    assert (await kernel.fault(child, BASE + PAGE, READ)).outcome == Outcome.OUTCOME_ZERO_FILLED
    assert (await kernel.fault(child, BASE, EXECUTE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    assert (await kernel.fault(child, BASE - 1, WRITE)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    view = await kernel.spaces.GetSpace(pb.GetSpaceRequest(handle=child.handle))
    assert (view.minor_faults, view.cow_faults, view.refused_faults) == (2, 1, 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_a_frame_names_the_spaces_that_map_it(kernel: Stack) -> None:
    """The frame of a page shared by a fork is mapped twice; the kernel's count and the page maps agree."""
    parent = await kernel.space()
    await kernel.map(parent, BASE, 1)
    await kernel.write(parent, BASE, b"shared")
    child = await kernel.fork(parent)
    frame = (await kernel.translate(parent, BASE)).frame
    found = await kernel.frames.GetFrame(pb.GetFrameRequest(frame=frame))
    assert [(one.space, one.address) for one in found.mappings] == [(child.name, BASE), (parent.name, BASE)]
    assert (found.mapping_count, found.use) == (2, pb.Frame.USE_ANONYMOUS)
    beyond = kernel.frames.GetFrame(pb.GetFrameRequest(frame=1 << 50))
    await expect_refused(beyond, "OUT_OF_RANGE", "FRAME_OUTSIDE_RAM")
    listed = await kernel.frames.ListFrames(pb.ListFramesRequest(page_size=50))
    assert len(listed.frames) == 50 and listed.next_page_token
    memory = await kernel.frames.GetMemory(pb.GetMemoryRequest())
    assert sum(use.frames for use in memory.uses) == memory.total_frames > memory.free_frames > 0


async def test_the_agents_own_pages_are_out_of_reach(kernel: Stack) -> None:
    """They can be neither mapped over, nor read, nor unmapped: unmapping everything leaves the space at work."""
    space = await kernel.space()
    await expect_refused(kernel.map(space, 0x1_0000, 2), "INVALID_ARGUMENT", "ADDRESS_NOT_MAPPABLE")
    await expect_refused(kernel.read(space, 0x1_0000, 4), "OUT_OF_RANGE", "BAD_ADDRESS")
    await expect_refused(kernel.write(space, 0x1_1000, b"x", force=True), "OUT_OF_RANGE", "BAD_ADDRESS")
    assert (await kernel.fault(space, 0x1_1000)).outcome == Outcome.OUTCOME_SEGMENTATION_FAULT
    await kernel.map(space, BASE, 3)
    await kernel.write(space, BASE, b"x" * 3 * PAGE)
    request = pb.UnmapRangeRequest(handle=space.handle, address=0, size_bytes=1 << 47)
    assert (await kernel.spaces.UnmapRange(request)).freed_pages == 3
    assert not (await kernel.spaces.ListMappings(pb.ListMappingsRequest(handle=space.handle))).mappings
    await kernel.map(space, BASE, 1)
    await kernel.write(space, BASE, b"alive")


async def test_limits_of_a_space_are_the_kernels_and_hold(kernel: Stack) -> None:
    """Mapped and locked bytes are limited as set, since the agent has no privileges; huge pages and labels change."""
    space = await kernel.space()
    wanted = ranges.SpaceSettings(mapped_max_bytes=16 * PAGE, locked_max_bytes=2 * PAGE, label="small")
    request = ranges.UpdateSpaceSettingsRequest(handle=space.handle, settings=wanted)
    request.update_mask.paths.extend(["mapped_max_bytes", "locked_max_bytes", "label"])
    changed = await kernel.spaces.UpdateSpaceSettings(request)
    assert (changed.mapped_max_bytes, changed.locked_max_bytes, changed.label) == (16 * PAGE, 2 * PAGE, "small")
    await kernel.map(space, BASE, 16)
    await expect_refused(kernel.map(space, BASE * 2, 1), "RESOURCE_EXHAUSTED", "MAPPED_LIMIT")
    lock = ranges.LockRangeRequest(handle=space.handle, address=BASE, size_bytes=2 * PAGE)
    assert (await kernel.spaces.LockRange(lock)).locked_bytes == 2 * PAGE
    lock.size_bytes = 3 * PAGE
    await expect_refused(kernel.spaces.LockRange(lock), "RESOURCE_EXHAUSTED", "LOCK_LIMIT")
    advise = ranges.AdviseRangeRequest(
        handle=space.handle, address=BASE, size_bytes=PAGE, advice=ranges.ADVICE_DONT_NEED
    )
    await expect_refused(kernel.spaces.AdviseRange(advise), "FAILED_PRECONDITION", "RANGE_LOCKED")


async def test_an_object_is_a_memory_file_that_spaces_share(kernel: Stack) -> None:
    """A shared mapping writes to the object, beyond its end is a bus error, and its mappings name it."""
    entity = await kernel.object(b"content" * 100, size=2 * PAGE)
    one, two = await kernel.space(), await kernel.space()
    for space in (one, two):
        await kernel.map(space, BASE, 4, RW, object=entity.handle, shared=True)
    await kernel.write(one, BASE, b"changed")
    assert await kernel.read(two, BASE, 14) == b"changedcontent"
    listed = await kernel.spaces.ListMappings(pb.ListMappingsRequest(handle=two.handle))
    assert [one.object for one in listed.mappings] == [entity.name]
    refused = await kernel.fault(two, BASE + 2 * PAGE)
    assert (refused.outcome, refused.refusal_reason) == (Outcome.OUTCOME_BUS_ERROR, "BEYOND_OBJECT")


async def test_the_kernels_out_of_memory_is_an_outcome(kernel: Stack) -> None:
    """A fault at the limit of a group names the group and the space, whose process the kernel has ended."""
    if not kernel.service.host.engine.kernel_groups.cgroups.version:
        pytest.skip("no memory controller")
    if (await kernel.frames.GetMemory(pb.GetMemoryRequest())).swap_slots:
        pytest.skip("the machine swaps")
    group = await kernel.group("small", pages=256)
    space = await kernel.space(group)
    await kernel.map(space, BASE, 1024)
    await kernel.write(space, BASE, b"x" * 100 * PAGE)
    for page in range(100, 1024):
        answer = await kernel.fault(space, BASE + page * PAGE)
        if answer.outcome != Outcome.OUTCOME_ZERO_FILLED:
            break
    assert (answer.outcome, answer.limit_group) == (Outcome.OUTCOME_OUT_OF_MEMORY, group)
    assert answer.victim_space == space.name and processes_of(kernel) == []
