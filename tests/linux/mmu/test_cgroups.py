"""Memory groups of the `linux` engine on this machine's kernel: charges, limits, kills, reclaim, leftovers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lamina.mmu.v1 import group_events_pb2 as events_pb
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, Stack
from tests.linux.mmu.program import Program

from lamina_kit.engines import engines_of
from lamina_mmu.io.linux import cgroups

MIB = 1 << 20
Kind = events_pb


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """Returns an MMU with the engine `linux` whose groups can be used."""
    reasons = engines_of("mmu")["linux"].missing()
    if reasons:
        pytest.skip(f"engine linux: {'; '.join(reasons)}")
    async with Stack(tmp_path, engine="linux") as made:
        why = made.service.host.engine.state.kernel.cgroups.why
        if why:
            pytest.skip(f"no memory groups here: {why}")
        yield made


@pytest.fixture
def programs(tmp_path: Path, stack: Stack) -> Iterator[Callable[[str], Program]]:
    """Returns the way to start a program in a group."""
    with ExitStack() as ends:

        def start(group: str) -> Program:
            program = Program(tmp_path / "file")
            ends.callback(program.end)
            stack.service.host.engine.enter_group(program.process.pid, group.rpartition("/")[2])
            return program

        yield start


async def get(stack: Stack, name: str) -> pb.Group:
    """Returns a group."""
    found: pb.Group = await stack.groups.GetGroup(pb.GetGroupRequest(name=name))
    return found


def version(stack: Stack) -> int:
    """Returns the version of the hierarchy that is used."""
    return int(stack.service.host.engine.state.kernel.cgroups.version)


def there(*groups: Path) -> list[bool]:
    """Returns which groups there are."""
    return [group.exists() for group in groups]


async def test_what_a_process_touches_is_charged_to_its_group_and_all_above(
    stack: Stack, programs: Callable[[str], Program]
) -> None:
    """Usage, peak and faults of a group and its parent contain it; another group's do not."""
    top, other = await stack.group("top"), await stack.group("other")
    leaf = await stack.group("leaf", parent=top)
    assert programs(leaf).tell("touch", 8 * MIB)
    for name in (leaf, top):
        view = await get(stack, name)
        assert 8 * MIB <= view.usage_bytes <= 24 * MIB and view.peak_bytes >= view.usage_bytes, name
        told = await stack.groups.GetGroupStatistics(events_pb.GetGroupStatisticsRequest(name=name))
        assert told.anonymous_pages >= 2048 and told.minor_faults >= 2048, name
        assert told.HasField("pressure") == (version(stack) == 2)
    assert (await get(stack, other)).usage_bytes < MIB


async def test_a_limit_is_the_kernels_and_a_kill_is_told(stack: Stack, programs: Callable[[str], Program]) -> None:
    """A process beyond its group's maximum is killed; those who watch the parent hear of the limit and the kill."""
    top = await stack.group("top")
    leaf = await stack.group("leaf", pages=16 * MIB // PAGE, parent=top)
    assert (await get(stack, leaf)).max_bytes == 16 * MIB
    watch: Any = stack.groups.WatchGroups(events_pb.WatchGroupsRequest(groups=[top]))
    assert not (await watch.read()).events
    program = programs(leaf)
    assert not await asyncio.to_thread(program.tell, "touch", 200 * MIB)
    assert program.process.wait(60) == -9
    seen: list[Any] = []
    async with asyncio.timeout(60):
        while Kind.GROUP_EVENT_KIND_OOM_KILL not in [event.kind for event in seen]:
            seen += (await watch.read()).events
    watch.cancel()
    assert {event.group for event in seen} == {leaf}
    assert Kind.GROUP_EVENT_KIND_MAX in [event.kind for event in seen]
    assert next(event.limit_bytes for event in seen if event.kind == Kind.GROUP_EVENT_KIND_MAX) == 16 * MIB
    told = await stack.groups.GetGroupStatistics(events_pb.GetGroupStatisticsRequest(name=top))
    assert {event.kind: event.count for event in told.events}[Kind.GROUP_EVENT_KIND_OOM_KILL] == 1
    assert (await get(stack, leaf)).oom_events == 1 and (await get(stack, leaf)).max_events > 0


async def test_what_the_version_has_not_is_refused_by_its_name(stack: Stack) -> None:
    """Version 1 has no protection and no bound on swap alone; version 2 takes them and has no swappiness of a group."""
    group = await stack.group("web")
    changes = events_pb.GroupProtection(min_bytes=MIB, low_bytes=MIB, high_bytes=MIB, swappiness=10)
    refused = ("min_bytes", "low_bytes", "high_bytes") if version(stack) == 1 else ("swappiness",)
    for field in ("min_bytes", "low_bytes", "high_bytes", "swappiness"):
        request = events_pb.UpdateGroupProtectionRequest(name=group, protection=changes)
        request.update_mask.paths.append(field)
        call = stack.groups.UpdateGroupProtection(request)
        if field in refused:
            assert field in await expect_refused(call, "UNIMPLEMENTED", "CAPABILITY_MISSING")
        else:
            assert getattr(await call, field) == getattr(changes, field)
    if version(stack) == 1:
        update = pb.UpdateGroupRequest(name=group, swap_max_bytes=0)
        assert "swap_max_bytes" in await expect_refused(
            stack.groups.UpdateGroup(update), "UNIMPLEMENTED", "CAPABILITY_MISSING"
        )
        watch = stack.groups.WatchGroups(events_pb.WatchGroupsRequest(groups=[group], pressure_ppm=1000))
        await expect_refused(watch.read(), "UNIMPLEMENTED", "CAPABILITY_MISSING")


async def test_reclaim_and_a_lower_limit_push_pages_out(stack: Stack, programs: Callable[[str], Program]) -> None:
    """Pages of files go on demand and for a lower limit; locked ones stay, and version 1 refuses a limit below them."""
    group = await stack.group("web")
    program = programs(group)
    assert program.tell("file", 16 * MIB)
    before = (await get(stack, group)).usage_bytes
    engine = stack.service.host.engine
    taken, _ = await stack.service.host.drive(engine.reclaim_group("web", 1024))
    assert 512 <= taken <= 1024 and (await get(stack, group)).usage_bytes < before - 2 * MIB
    view = await stack.groups.UpdateGroup(pb.UpdateGroupRequest(name=group, max_bytes=10 * MIB))
    assert (view.max_bytes, view.usage_bytes <= 10 * MIB) == (10 * MIB, True)
    assert view.reclaimed_pages >= taken
    view = await stack.groups.UpdateGroup(pb.UpdateGroupRequest(name=group, max_bytes=0))
    assert view.max_bytes == 0
    if version(stack) == 1:
        assert program.tell("lock", 8 * MIB)
        lower = stack.groups.UpdateGroup(pb.UpdateGroupRequest(name=group, max_bytes=2 * MIB))
        await expect_refused(lower, "RESOURCE_EXHAUSTED", "GROUP_NOT_RECLAIMABLE")
        assert (await get(stack, group)).max_bytes == 0


async def test_only_empty_groups_are_deleted(stack: Stack, programs: Callable[[str], Program]) -> None:
    """A group with a process or a group in it stays, and so does the root."""
    top = await stack.group("top")
    leaf = await stack.group("leaf", parent=top)
    program = programs(leaf)
    delete = stack.groups.DeleteGroup
    for name in (top, leaf, "hosts/h1/memoryGroups/root"):
        await expect_refused(delete(pb.DeleteGroupRequest(name=name)), "FAILED_PRECONDITION", "GROUP_IN_USE")
    program.end()
    for name in (leaf, top):
        await delete(pb.DeleteGroupRequest(name=name))
    await expect_refused(delete(pb.DeleteGroupRequest(name=leaf)), "NOT_FOUND", "GROUP_UNKNOWN")


async def test_nothing_is_left_behind(stack: Stack, programs: Callable[[str], Program], tmp_path: Path) -> None:
    """A stop removes every group; a process that is left goes back; what a dead process left goes at the next start."""
    program = programs(await stack.group("web"))
    top: Path = stack.service.host.engine.state.kernel.cgroups.top
    namespace, pid, start = top.name.removeprefix("lamina-h1.").split(".")[:3]
    dead = top.with_name(f"lamina-h1.{namespace}.{pid}.{int(start) + 1}")
    foreign = top.with_name(f"lamina-h1.{int(namespace) + 1}.{pid}.{start}")
    (dead / "web").mkdir(parents=True)
    foreign.mkdir()
    try:
        await stack.service.stop()
        assert there(top) == [False] and program.process.poll() is None
        found = cgroups.open_cgroups("h1")
        assert isinstance(found, cgroups.CgroupSubtree)
        found.close()
        assert there(dead, foreign, found.top) == [False, True, False]
    finally:
        foreign.rmdir()


def test_a_host_without_the_controller_says_so(tmp_path: Path) -> None:
    """Without a hierarchy that has the memory controller, groups are refused with the reason."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text(
        "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        f"32 24 0:28 / {tmp_path}/none rw - cgroup2 cgroup2 rw\nbroken\n"
    )
    found = cgroups.open_cgroups("h1", tmp_path)
    assert found.version == 0 and "memory controller" in found.why


def test_a_controller_that_cannot_be_switched_on_is_told(tmp_path: Path) -> None:
    """Version 2 without the right, or the place, to have the controller is refused, and nothing stays."""
    proc, mount = tmp_path / "proc", tmp_path / "mount"
    (proc / "self" / "ns").mkdir(parents=True)
    (proc / "self" / "ns" / "pid").symlink_to("pid:[7]")
    (proc / "self" / "mountinfo").write_text(f"32 24 0:28 / {mount} rw - cgroup2 cgroup2 rw\n")
    mount.mkdir()
    (mount / "cgroup.controllers").write_text("cpu memory\n")
    found = cgroups.open_cgroups("h1", proc)
    assert found.version == 0 and found.why.startswith(f"the memory controller cannot be used below {mount}: ")
    (mount / "cgroup.subtree_control").write_text("memory\n")
    found = cgroups.open_cgroups("h1", proc)  # in a directory that is no cgroup the kernel makes no files
    assert found.version == 0 and f"below {mount}/lamina-h1.7." in found.why
    assert sorted(path.name for path in mount.iterdir()) == ["cgroup.controllers", "cgroup.subtree_control"]
