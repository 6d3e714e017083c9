"""Events of memory groups as a watcher sees them: limits, memory that ran out, pressure, ends."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.mmu.v1 import group_events_pb2 as events_pb
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, WRITE, Outcome, Stack

BASE = 0x40_0000
HIGH, MAX, OOM, OOM_KILL = (
    events_pb.GROUP_EVENT_KIND_HIGH,
    events_pb.GROUP_EVENT_KIND_MAX,
    events_pb.GROUP_EVENT_KIND_OOM,
    events_pb.GROUP_EVENT_KIND_OOM_KILL,
)


class Watcher:
    """One open watch; the first message has come."""

    def __init__(self, stack: Stack, **fields: Any) -> None:
        self.stack, self.request = stack, events_pb.WatchGroupsRequest(**fields)
        self.events: list[events_pb.GroupEvent] = []

    async def __aenter__(self) -> Watcher:
        self.call = self.stack.groups.WatchGroups(self.request)
        first: Any = await self.call.read()
        self.events += first.events
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.call.cancel()

    async def until(self, kind: int) -> events_pb.GroupEvent:
        """Reads until an event of a kind; returns it."""
        while True:
            for place, event in enumerate(self.events):
                if event.kind == kind:
                    del self.events[: place + 1]
                    return event
            batch: Any = await asyncio.wait_for(self.call.read(), 30)
            assert batch is not grpc.aio.EOF, "the watch ended"
            self.events += batch.events


async def out_of_memory(stack: Stack, group: str, pages: int = 20) -> pb.Space:
    """Returns a space that writes to pages without swap until memory runs out."""
    space = await stack.space(group)
    await stack.map(space, BASE, pages)
    for page in range(pages):
        answer = await stack.fault(space, BASE + page * PAGE, WRITE)
        if answer.outcome == Outcome.OUTCOME_OUT_OF_MEMORY:
            return space
        await stack.write(space, BASE + page * PAGE, b"x")
    raise AssertionError("there was room for all")


async def test_an_end_by_lack_of_memory_is_told_with_its_victim(stack: Stack) -> None:
    """MAX, OOM and OOM_KILL come in order; the last names the space that holds most, and why."""
    group = await stack.group("web", pages=14, swap_pages=0)
    async with Watcher(stack, groups=[group]) as watcher:
        space = await out_of_memory(stack, group)
        reached, out, kill = [await watcher.until(kind) for kind in (MAX, OOM, OOM_KILL)]
    assert reached.limit_bytes == out.limit_bytes == 14 * PAGE == kill.usage_bytes
    assert list(kill.spaces) == [space.name] and "holds most memory" in kill.reason
    assert reached.sequence < out.sequence < kill.sequence and reached.time_ns <= kill.time_ns
    assert {one.group for one in (reached, out, kill)} == {group}


async def test_a_victim_is_chosen_once(stack: Stack) -> None:
    """Until the victim is deleted further faults name it again, and no second OOM_KILL is told; then another may be."""
    group = await stack.group("web", pages=14, swap_pages=0)
    async with Watcher(stack, groups=[group], kinds=[OOM_KILL]) as watcher:
        small = await stack.space(group)
        await stack.map(small, BASE, 1)
        first = await out_of_memory(stack, group)
        answer = await stack.fault(small, BASE)
        assert (answer.outcome, answer.victim_space) == (Outcome.OUTCOME_OUT_OF_MEMORY, first.name)
        assert list((await watcher.until(OOM_KILL)).spaces) == [first.name]
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=first.handle))
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=small.handle))
        second = await out_of_memory(stack, group)
        assert list((await watcher.until(OOM_KILL)).spaces) == [second.name]
    assert not watcher.events


async def test_a_group_may_die_together(stack: Stack) -> None:
    """With oom_group all spaces of the group end, the heaviest first."""
    group = await stack.group("web", pages=40, swap_pages=0)
    await stack.groups.UpdateGroupProtection(
        events_pb.UpdateGroupProtectionRequest(
            name=group, protection=events_pb.GroupProtection(oom_group=True), update_mask=FieldMask(paths=["oom_group"])
        )
    )
    others = [await stack.space(group) for _ in range(3)]
    async with Watcher(stack, groups=[group], kinds=[OOM_KILL]) as watcher:
        heavy = await out_of_memory(stack, group, 60)
        kill = await watcher.until(OOM_KILL)
    assert list(kill.spaces) == [heavy.name, *(one.name for one in others)]


async def test_children_are_watched_and_kinds_filtered(stack: Stack) -> None:
    """A watch on a parent hears its children, one on another group hears nothing, kinds are those asked for."""
    top = await stack.group("top")
    child, other = await stack.group("child", pages=14, parent=top), await stack.group("other")
    async with Watcher(stack, groups=[top], kinds=[MAX]) as mine, Watcher(stack, groups=[other]) as theirs:
        space = await stack.space(child)
        await stack.map(space, BASE, 30)
        await stack.write(space, BASE, b"x" * 30 * PAGE)
        assert (await mine.until(MAX)).group == child
        assert all(event.kind == MAX for event in mine.events)
        made = await stack.space(other)
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=made.handle))
        empty = await theirs.until(events_pb.GROUP_EVENT_KIND_EMPTY)
        assert empty.group == other and empty.usage_bytes == 0 and not theirs.events


@pytest.mark.inside
async def test_events_are_kept_for_those_who_come_back(stack: Stack) -> None:
    """A watch after a position sees what came behind it; a position that never was, or is forgotten, is refused."""
    group = await stack.group("web", pages=14, swap_pages=0)
    await out_of_memory(stack, group)
    async with Watcher(stack, after_sequence=0) as watcher:
        kill = await watcher.until(OOM_KILL)
    async with Watcher(stack, after_sequence=kill.sequence - 1) as watcher:
        assert (await watcher.until(OOM_KILL)) == kill
    call = stack.groups.WatchGroups(events_pb.WatchGroupsRequest(after_sequence=kill.sequence + 1000))
    await expect_refused(call.read(), "OUT_OF_RANGE", "EVENTS_FORGOTTEN")
    stack.machine.group_events._kept.popleft()
    call = stack.groups.WatchGroups(events_pb.WatchGroupsRequest(after_sequence=0))
    await expect_refused(call.read(), "OUT_OF_RANGE", "EVENTS_FORGOTTEN")


@pytest.mark.inside
async def test_a_watcher_that_is_too_slow_is_told(stack: Stack) -> None:
    """When events that it has not seen are forgotten, its watch ends."""
    group = await stack.group("web")
    async with Watcher(stack) as watcher:
        machine = stack.machine
        machine.group_events._kept = type(machine.group_events._kept)(maxlen=3)
        for _ in range(5):
            made = await stack.space(group)
            machine.group_events.watches, kept = {}, machine.group_events.watches
            await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=made.handle))
            machine.group_events.watches = kept
            next(iter(kept)).position = 0
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            for _ in range(10):
                await asyncio.wait_for(watcher.call.read(), 30)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_watch_ends_with_its_group(stack: Stack) -> None:
    """When the watched group is deleted the stream ends without an error, after its last events."""
    group = await stack.group("web")
    async with Watcher(stack, groups=[group]) as watcher:
        made = await stack.space(group)
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=made.handle))
        await stack.groups.DeleteGroup(pb.DeleteGroupRequest(name=group))
        await watcher.until(events_pb.GROUP_EVENT_KIND_EMPTY)
        assert await asyncio.wait_for(watcher.call.read(), 30) is grpc.aio.EOF
    await expect_refused(
        stack.groups.WatchGroups(events_pb.WatchGroupsRequest(groups=[group])).read(), "NOT_FOUND", "GROUP_UNKNOWN"
    )


@pytest.mark.inside
async def test_a_watch_that_its_reader_left_is_forgotten(stack: Stack, eventually: Any) -> None:
    """What the service keeps for a reader goes with the call."""
    watches = stack.machine.group_events.watches
    async with Watcher(stack), Watcher(stack):
        assert len(watches) == 2
    await eventually(lambda: not watches, "both watches are forgotten")


async def test_bad_watches_are_refused(stack: Stack) -> None:
    """Kinds, pressure and position are bounded."""
    for wrong in ({"kinds": [10]}, {"pressure_ppm": 1_000_001}, {"after_sequence": -1}, {"groups": ["web"]}):
        call = stack.groups.WatchGroups(events_pb.WatchGroupsRequest(**wrong))
        await expect_refused(call.read(), "INVALID_ARGUMENT")


@pytest.mark.inside
async def test_pressure_is_told_while_it_lasts(stack: Stack) -> None:
    """A group that waits for more than a tenth of a second within one is told as such, once, while it still waits."""
    group = await stack.group("web", swap_pages=0)
    space = await stack.space(group)
    await stack.map(space, BASE, 40)
    await stack.write(space, BASE, b"x" * 30 * PAGE)
    await stack.groups.UpdateGroupProtection(
        events_pb.UpdateGroupProtectionRequest(
            name=group,
            protection=events_pb.GroupProtection(high_bytes=8 * PAGE),
            update_mask=FieldMask(paths=["high_bytes"]),
        )
    )
    async with Watcher(stack, groups=[group], pressure_ppm=100_000) as watcher:
        slow = asyncio.ensure_future(stack.fault(space, BASE + 35 * PAGE))
        told = await watcher.until(events_pb.GROUP_EVENT_KIND_PRESSURE)
        assert told.group == group and 100_000 <= told.pressure_ppm <= 1_000_000
        assert not slow.done(), "it still waits"
        assert (await slow).outcome == Outcome.OUTCOME_ZERO_FILLED


@pytest.mark.inside
async def test_a_lost_page_is_told(stack: Stack) -> None:
    """Bytes that rotted in swap: PAGE_LOST names the space and the address."""
    group = await stack.group("web")
    space = await stack.space(group)
    await stack.map(space, BASE, 1)
    await stack.write(space, BASE, b"x" * PAGE)
    await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=1))
    slot = (await stack.translate(space, BASE)).swap_slot
    with (stack.folder / "state" / "swap").open("r+b") as file:
        file.seek(slot * PAGE)
        file.write(b"rotten")
    async with Watcher(stack, groups=[group]) as watcher:
        await expect_refused(stack.fault(space, BASE), "DATA_LOSS", "SWAP_CORRUPT")
        lost = await watcher.until(events_pb.GROUP_EVENT_KIND_PAGE_LOST)
    assert (list(lost.spaces), lost.address) == ([space.name], BASE)


async def test_a_full_swap_limit_is_told(stack: Stack) -> None:
    """SWAP_MAX says that the group reached the limit on its swap."""
    group = await stack.group("web", pages=14, swap_pages=3)
    async with Watcher(stack, groups=[group]) as watcher:
        await out_of_memory(stack, group)
        told = await watcher.until(events_pb.GROUP_EVENT_KIND_SWAP_MAX)
    assert told.limit_bytes == 3 * PAGE
