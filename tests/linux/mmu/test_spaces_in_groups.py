"""Spaces of the `linux` engine in memory groups: charged, killed and named, counted as users of their group."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.mmu.v1 import group_events_pb2 as events_pb
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, Stack

from lamina_kit.engines import engines_of

MIB = 1 << 20
BASE = 0x4000_0000


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


async def usage(stack: Stack, name: str) -> int:
    """Returns the bytes that a group uses."""
    return int((await stack.groups.GetGroup(pb.GetGroupRequest(name=name))).usage_bytes)


async def test_a_space_is_charged_to_its_group(stack: Stack) -> None:
    """What is written into a space, its fork's copies and the root's spaces count where they belong."""
    group, root = await stack.group("web"), "hosts/h1/memoryGroups/root"
    space, free = await stack.space(group), await stack.space()
    before = await usage(stack, group)
    ahead = 64 * PAGE * min(os.cpu_count() or 1, 8)  # each processor may have charged so much before it is needed
    size = 2 * ahead + MIB
    for one in (space, free):
        await stack.map(one, BASE, size // PAGE)
        await stack.write(one, BASE, b"x" * size)
    assert size - ahead <= await usage(stack, group) - before < size + ahead + MIB
    assert await usage(stack, root) >= await usage(stack, group) + MIB
    child = await stack.fork(space)
    before = await usage(stack, group)
    await stack.write(child, BASE, b"y" * size)
    assert size - ahead <= await usage(stack, group) - before < size + ahead + MIB
    used = stack.groups.DeleteGroup(pb.DeleteGroupRequest(name=group))
    await expect_refused(used, "FAILED_PRECONDITION", "GROUP_IN_USE")


async def test_a_space_that_the_kernel_kills_is_named(stack: Stack) -> None:
    """Beyond its group's maximum a space ends; those who watch hear which, and that the group is empty."""
    group = await stack.group("web", pages=8 * MIB // PAGE, swap_pages=None)
    space = await stack.space(group)
    await stack.map(space, BASE, 64 * MIB // PAGE)
    watch: Any = stack.groups.WatchGroups(events_pb.WatchGroupsRequest(groups=[group]))
    await watch.read()
    with pytest.raises(grpc.aio.AioRpcError):
        for start in range(0, 64 * MIB, MIB):
            await stack.write(space, BASE + start, b"x" * MIB)
    told: dict[int, list[str]] = {}
    async with asyncio.timeout(60):
        while events_pb.GROUP_EVENT_KIND_EMPTY not in told:
            told.update({event.kind: list(event.spaces) for event in (await watch.read()).events})
    watch.cancel()
    assert told[events_pb.GROUP_EVENT_KIND_OOM_KILL] == [space.name]
    await stack.groups.DeleteGroup(pb.DeleteGroupRequest(name=group))
