"""The host's settings of swapping and reclaim: what they are, what they bring about, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.mmu.v1 import group_events_pb2 as events_pb
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import policies_pb2, swap_pb2
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, WRITE, Stack

BASE = 0x40_0000
pytestmark = pytest.mark.inside


async def change(stack: Stack, **settings: Any) -> swap_pb2.SwapSettings:
    """Changes settings; returns all of them."""
    changed: swap_pb2.SwapSettings = await stack.swap.UpdateSwapSettings(
        swap_pb2.UpdateSwapSettingsRequest(
            settings=swap_pb2.SwapSettings(**settings), update_mask=FieldMask(paths=list(settings))
        )
    )
    return changed


async def settings_of(stack: Stack) -> swap_pb2.SwapSettings:
    """Returns the settings."""
    found: swap_pb2.SwapSettings = await stack.swap.GetSwapSettings(swap_pb2.GetSwapSettingsRequest())
    return found


async def protect(stack: Stack, name: str, **settings: Any) -> events_pb.GroupProtection:
    """Changes settings of a group."""
    protection = events_pb.GroupProtection(**settings)
    request = events_pb.UpdateGroupProtectionRequest(
        name=name, protection=protection, update_mask=FieldMask(paths=list(settings))
    )
    changed: events_pb.GroupProtection = await stack.groups.UpdateGroupProtection(request)
    return changed


async def mixed(stack: Stack, name: str, pages: int = 20) -> None:
    """Fills a group with anonymous pages and as many of an object."""
    wanted = pb.Object(size_bytes=pages * PAGE, group=name)
    made = await stack.objects.CreateObject(pb.CreateObjectRequest(object=wanted))
    space = await stack.space(name)
    await stack.map(space, BASE, pages)
    await stack.map(space, 2 * BASE, pages, object=made.handle, shared=True)
    for page in range(pages):
        await stack.fault(space, BASE + page * PAGE, WRITE)
        await stack.fault(space, 2 * BASE + page * PAGE, WRITE)


async def kinds(stack: Stack, name: str) -> tuple[int, int]:
    """Returns how many anonymous pages and pages of objects of a group are in RAM."""
    found = await stack.groups.GetGroupStatistics(events_pb.GetGroupStatisticsRequest(name=name))
    return found.anonymous_pages, found.object_pages


async def test_settings_have_the_values_that_the_contract_states(stack: Stack) -> None:
    """Without any change: LRU, 60, 8 pages, a hundredth of RAM and half as much more, no zeroed frames."""
    expected = swap_pb2.SwapSettings(
        policy="lru", swappiness=60, readahead_pages=8, low_watermark_frames=40, high_watermark_frames=60
    )
    assert await settings_of(stack) == expected


async def test_only_what_the_mask_names_changes(stack: Stack) -> None:
    """Each field is changed by itself, comes back as it was set, and may be set again; 0 means the usual watermark."""
    before = await settings_of(stack)
    for name, value in (("swappiness", 0), ("readahead_pages", 64), ("policy", "clock"), ("zeroed_frames", 9)):
        changed = await change(stack, **{name: value})
        setattr(before, name, value)
        assert changed == before == await settings_of(stack) == await change(stack, **{name: value})
    assert (await change(stack, low_watermark_frames=100)).high_watermark_frames == 150
    assert (await change(stack, high_watermark_frames=101)).low_watermark_frames == 100
    usual = await change(stack, low_watermark_frames=0, high_watermark_frames=0, policy="", zeroed_frames=0)
    assert (usual.low_watermark_frames, usual.high_watermark_frames, usual.policy) == (40, 60, "lru")


@pytest.mark.parametrize(
    ("settings", "code", "reason"),
    [
        ({}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"swappiness": 201}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"swappiness": -1}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"readahead_pages": 0}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"readahead_pages": 3}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"readahead_pages": 128}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"low_watermark_frames": -1}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"low_watermark_frames": 2049}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"high_watermark_frames": 39}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"high_watermark_frames": 3073}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"zeroed_frames": 513}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"policy": "x" * 32}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"policy": "opt"}, "INVALID_ARGUMENT", "POLICY_OFFLINE"),
        ({"swappiness": 7, "policy": "ideal"}, "NOT_FOUND", "POLICY_UNKNOWN"),
    ],
)
async def test_what_cannot_be_is_refused_whole(stack: Stack, settings: Any, code: str, reason: str) -> None:
    """Values out of range and policies that cannot serve change nothing, and neither do the others of the call."""
    before = await settings_of(stack)
    await expect_refused(change(stack, **settings), code, reason)
    assert await settings_of(stack) == before


async def test_an_unknown_path_is_refused(stack: Stack) -> None:
    """A mask that names what is no setting changes nothing."""
    request = swap_pb2.UpdateSwapSettingsRequest(update_mask=FieldMask(paths=["swap_bytes"]))
    await expect_refused(stack.swap.UpdateSwapSettings(request), "INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_swappiness_holds_in_groups_without_their_own(stack: Stack) -> None:
    """With 0 a group that was given none loses pages of objects alone; one with 200 of its own the others."""
    plain, own = await stack.group("plain"), await stack.group("own")
    below = await stack.group("below", parent=plain)
    await protect(stack, own, swappiness=200)
    await change(stack, swappiness=0)
    for name in (below, own):
        await mixed(stack, name)
        await stack.spaces.Reclaim(pb.ReclaimRequest(group=name, pages=10))
    assert await kinds(stack, below) == (20, 10)
    assert await kinds(stack, own) == (10, 20)
    shown = await stack.groups.GetGroupProtection(events_pb.GetGroupProtectionRequest(name=below))
    assert shown.swappiness == 0
    assert (await protect(stack, "hosts/h1/memoryGroups/root", swappiness=90)).swappiness == 90
    assert (await settings_of(stack)).swappiness == 90


async def test_the_policy_holds_in_groups_that_name_none(stack: Stack) -> None:
    """It changes under pages that are in RAM, and leaves groups that name one of their own alone."""
    plain, own = await stack.group("plain"), await stack.group("own")
    await protect(stack, own, policy="sieve")
    for name in (plain, own):
        await mixed(stack, name, 4)
    await change(stack, policy="fifo")
    for name in (plain, own):
        await stack.spaces.Reclaim(pb.ReclaimRequest(group=name, pages=2))
    seen = [
        {one.policy for one in (await stack.policies.ListEvictions(request)).evictions}
        for request in (policies_pb2.ListEvictionsRequest(group=name) for name in (plain, own))
    ]
    assert seen == [{"fifo"}, {"sieve"}]


@pytest.mark.real_time("programs outside do not keep a virtual clock")
async def test_a_plugged_policy_that_goes_leaves_lru(stack: Stack, eventually: Any) -> None:
    """When the policy of the host is one that is plugged in, and that ends its stream, LRU takes its place."""
    call = stack.policies.Plug()
    opened = policies_pb2.PlugOpen(policy=policies_pb2.Policy(name="mine", summary="A test."))
    await call.write(policies_pb2.PlugRequest(open=opened))
    await call.read()
    assert (await change(stack, policy="mine")).policy == "mine"
    await call.done_writing()
    await eventually(lambda: stack.machine.default_policy.name == "lru", "the policy is gone")
    assert (await settings_of(stack)).policy == "lru"
    await mixed(stack, await stack.group("plain"), 4)


async def test_a_raised_low_watermark_makes_room_at_once(tmp_path: Path, engine_name: str, eventually: Any) -> None:
    """Fewer free frames than it wants start reclaim in the background, which goes on to the high watermark."""
    async with Stack(tmp_path, frames=256, swap_pages=400, engine=engine_name) as stack:
        assert (await settings_of(stack)).low_watermark_frames == 32  # of a small RAM
        space = await stack.space()
        await stack.map(space, BASE, 150)
        for page in range(150):
            await stack.fault(space, BASE + page * PAGE, WRITE)
        free = stack.machine.frames.free
        assert 80 < free < 110
        await change(stack, low_watermark_frames=80, high_watermark_frames=180)
        await stack.fault(space, BASE, READ)
        assert stack.machine.frames.free == free  # there are enough still
        await change(stack, low_watermark_frames=110, high_watermark_frames=130)
        await eventually(lambda: stack.machine.frames.free >= 130, "free frames are above the high watermark")
        assert stack.machine.frames.free < 130 + 32  # a batch beyond it at most


async def test_readahead_is_as_far_as_it_was_set(stack: Stack) -> None:
    """With 1 a page comes back from swap alone, with 16 fifteen neighbours come along."""
    for pages in (1, 16):
        await change(stack, readahead_pages=pages)
        space = await stack.space()
        await stack.map(space, BASE, 64)
        for page in range(64):
            await stack.write(space, BASE + page * PAGE, b"x" * PAGE)
        await stack.spaces.Reclaim(pb.ReclaimRequest(handle=space.handle, pages=64))
        before = (await stack.frames.GetMemory(pb.GetMemoryRequest())).swapped_in_pages
        await stack.fault(space, BASE + 32 * PAGE, READ)
        after = (await stack.frames.GetMemory(pb.GetMemoryRequest())).swapped_in_pages
        assert after - before == pages
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))


async def test_a_stock_of_zeroed_frames_begins_when_it_is_asked_for(stack: Stack, eventually: Any) -> None:
    """A host that keeps none fills a stock from the call on, once, and fills it again after another call."""
    assert stack.machine.frames.zeroed == 0
    await change(stack, zeroed_frames=32)
    await eventually(lambda: stack.machine.frames.zeroed == 32, "the stock is full")
    await change(stack, zeroed_frames=48)
    await eventually(lambda: stack.machine.frames.zeroed == 48, "the stock is larger")
