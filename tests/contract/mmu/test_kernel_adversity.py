"""Spaces on the kernel when others interfere: processes stopped and killed, numbers reused, descriptors short."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges
from tests.contract.mmu.kernel import attach, is_there, kernel, processes_of, sleeper
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, Stack

from lamina_mmu.engines.linux import pages
from lamina_mmu.io.linux import processes as of_kernel

__all__ = ["kernel", "sleeper"]
pytestmark = pytest.mark.real_time("processes of the kernel")
BASE = 0x40_0000
PATIENCE_S = 20


async def test_every_agent_starts(kernel: Stack) -> None:
    """What starts a program returns before the program is there: a hundred agents are spoken to only when they are."""
    for _ in range(100):
        space = await kernel.space()
        await kernel.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    assert processes_of(kernel) == []


@pytest.mark.parametrize("advice", [ranges.ADVICE_DONT_NEED, ranges.ADVICE_WIPE_ON_FORK])
@pytest.mark.parametrize("start, size", [(0x1_0000, 6 * PAGE), (0x1_1000, PAGE), (PAGE, 1 << 46)])
async def test_the_agent_takes_no_advice_on_itself(kernel: Stack, start: int, size: int, advice: Any) -> None:
    """Advice and writing back of ranges that touch the agent are refused like those of holes, and it lives on."""
    space = await kernel.space()
    request = ranges.AdviseRangeRequest(handle=space.handle, address=start, size_bytes=size, advice=advice)
    await expect_refused(kernel.spaces.AdviseRange(request), "NOT_FOUND", "RANGE_NOT_MAPPED")
    sync = ranges.SyncRangeRequest(handle=space.handle, address=start, size_bytes=size)
    await expect_refused(kernel.spaces.SyncRange(sync), "NOT_FOUND", "RANGE_NOT_MAPPED")
    await kernel.map(space, BASE, 1)
    await kernel.write(space, BASE, b"alive")


async def test_a_stopped_agent_keeps_nobody_else_waiting(kernel: Stack) -> None:
    """Calls on its space wait, changes of settings among them; other spaces do their work; then it goes on."""
    stopped, other = await kernel.space(), await kernel.space()
    pid = processes_of(kernel)[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        wanted = ranges.SpaceSettings(lock_future=ranges.SpaceSettings.LOCK_FUTURE_ON_FAULT)
        request = ranges.UpdateSpaceSettingsRequest(handle=stopped.handle, settings=wanted)
        request.update_mask.paths.append("lock_future")
        waiting = asyncio.ensure_future(kernel.spaces.UpdateSpaceSettings(request))
        for page in range(20):
            await asyncio.wait_for(kernel.map(other, BASE + page * PAGE, 1), PATIENCE_S)
        assert not waiting.done()
    finally:
        os.kill(pid, signal.SIGCONT)
    changed = await asyncio.wait_for(waiting, PATIENCE_S)
    assert changed.lock_future == ranges.SpaceSettings.LOCK_FUTURE_ON_FAULT


async def test_an_agent_has_a_name(kernel: Stack) -> None:
    """Whoever looks at processes, or reads whom the kernel killed, sees what it was; a fork is called the same."""
    await kernel.fork(await kernel.space())
    assert [_name_of(pid) for pid in processes_of(kernel)] == ["lamina-space"] * 2


async def test_a_call_says_when_the_kernel_has_ended_the_space_for_memory(kernel: Stack) -> None:
    """Not only faults: whatever call a kill meets names the group that ran out of memory."""
    if not kernel.service.host.engine.kernel_groups.cgroups.version:
        pytest.skip("no memory controller")
    if (await kernel.frames.GetMemory(pb.GetMemoryRequest())).swap_slots:
        pytest.skip("the machine swaps")
    space = await kernel.space(await kernel.group("small", pages=256))
    await kernel.map(space, BASE, 1024)
    advise = ranges.AdviseRangeRequest(
        handle=space.handle, address=BASE, size_bytes=1024 * PAGE, advice=ranges.ADVICE_POPULATE_WRITE
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await kernel.spaces.AdviseRange(advise)
    assert "its group small ran out of memory" in (caught.value.details() or "")


async def test_a_process_that_somebody_kills_is_no_out_of_memory(kernel: Stack) -> None:
    """A fault whose process is killed meanwhile says that the space has ended, and blames no group."""
    if not kernel.service.host.engine.kernel_groups.cgroups.version:
        pytest.skip("no memory controller")
    space, other = await kernel.space(), await kernel.space()
    await kernel.map(space, BASE, 1)
    pid = processes_of(kernel)[0]
    os.kill(pid, signal.SIGSTOP)
    waiting = asyncio.ensure_future(kernel.fault(space, BASE))
    await kernel.map(other, BASE, 1)
    os.kill(pid, signal.SIGKILL)
    await expect_refused(waiting, "FAILED_PRECONDITION", "HANDLE_STALE")


async def test_a_number_that_another_process_has_now_is_not_touched(
    kernel: Stack, sleeper: subprocess.Popen[bytes]
) -> None:
    """Processes are held by descriptors: once the watched one has ended, whoever has its number is left alone."""
    await attach(kernel, sleeper.pid)
    processes = kernel.service.host.engine.state.kernel.processes
    mine = os.getpid()
    assert isinstance(processes.text(mine, "maps"), str)
    sleeper.kill()
    sleeper.wait()
    processes._watched[mine] = os.dup(processes._watched[sleeper.pid])  # as if the kernel had given it the number
    try:
        assert processes.text(mine, "maps") == processes.pages(mine, 0, 1) == -errno.ESRCH
        assert processes.read(mine, BASE, 1) == processes.write(mine, BASE, b"x") == -errno.ESRCH
        assert processes.force(mine, BASE, b"x") == processes.put(mine, "oom_score_adj", "0") == -errno.ESRCH
        assert processes.limit(mine, resource.RLIMIT_MEMLOCK, 0) == -errno.ESRCH
        assert processes.advising(mine, [(BASE, PAGE)], 21)() == -errno.ESRCH
    finally:
        os.close(processes._watched.pop(mine))


async def test_spaces_leave_descriptors_to_others(kernel: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """When descriptors become short, spaces, forks among them, are refused; one that is deleted makes room."""
    limit = of_kernel.SPARE_DESCRIPTORS + 2 * 3
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    spaces = [await kernel.space() for _ in range(3)]
    for call in (kernel.space(), kernel.fork(spaces[0])):
        await expect_refused(call, "RESOURCE_EXHAUSTED", "TOO_MANY_SPACES")
    await kernel.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=spaces[1].handle))
    await kernel.fork(spaces[0])


async def test_a_deleted_space_is_waited_for(kernel: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with much memory ends while others go on; when the call returns nothing of it is left."""
    monkeypatch.setattr(of_kernel, "END_MS", 0)
    space = await kernel.space()
    await kernel.map(space, BASE, 4096)
    await kernel.write(space, BASE, b"x" * (1 << 20))
    (pid,) = processes_of(kernel)
    await kernel.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    assert not is_there(pid)


async def test_reclaim_goes_in_small_steps(kernel: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """No system call pages out more than 16 MiB, and the range is gone through to its end."""
    space = await kernel.space()
    count = pages.CHUNK + 100
    await kernel.map(space, BASE, count)
    advise = ranges.AdviseRangeRequest(
        handle=space.handle, address=BASE, size_bytes=count * PAGE, advice=ranges.ADVICE_POPULATE_WRITE
    )
    assert (await kernel.spaces.AdviseRange(advise)).pages == count
    processes = kernel.service.host.engine.state.kernel.processes
    given: list[int] = []
    advising = processes.advising

    def noted(pid: int, told: Sequence[tuple[int, int]], advice: int) -> Callable[[], int]:
        given.append(sum(size for _, size in told) // PAGE)
        work: Callable[[], int] = advising(pid, told, advice)
        return work

    monkeypatch.setattr(processes, "advising", noted)
    await kernel.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=count))
    assert given == [pages.CHUNK, 100]


async def test_a_kernel_that_lets_nobody_page_out_is_named(kernel: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CAP_SYS_NICE the refusal says so, and not that the process may not be seen; its pages stay."""
    space = await kernel.space()
    await kernel.map(space, BASE, 1)
    await kernel.write(space, BASE, b"stays")
    processes = kernel.service.host.engine.state.kernel.processes
    monkeypatch.setattr(processes, "advising", lambda *_: lambda: -errno.EPERM)
    call = kernel.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=1))
    assert "CAP_SYS_NICE" in await expect_refused(call, "PERMISSION_DENIED", "PROCESS_NOT_PAGEABLE")
    assert await kernel.read(space, BASE, 5) == b"stays"


def _name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
