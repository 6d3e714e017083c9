"""What protects memory groups and slows them down, as a caller sees it: min, low, high, swappiness, statistics."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.mmu.v1 import group_events_pb2 as events_pb
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, WRITE, Outcome, Stack

BASE = 0x40_0000
ROOT = "hosts/h1/memoryGroups/root"


async def protect(stack: Stack, name: str, **settings: Any) -> events_pb.GroupProtection:
    """Changes settings of a group; None takes a limit away."""
    given = {key: value for key, value in settings.items() if value is not None}
    request = events_pb.UpdateGroupProtectionRequest(
        name=name, protection=events_pb.GroupProtection(**given), update_mask=FieldMask(paths=list(settings))
    )
    changed: events_pb.GroupProtection = await stack.groups.UpdateGroupProtection(request)
    return changed


async def statistics(stack: Stack, name: str) -> events_pb.GroupStatistics:
    """Returns a group's statistics."""
    found: events_pb.GroupStatistics = await stack.groups.GetGroupStatistics(
        events_pb.GetGroupStatisticsRequest(name=name)
    )
    return found


async def filled(stack: Stack, group: str, pages: int, access: Any = WRITE) -> pb.Space:
    """Returns a space of a group with `pages` pages in RAM."""
    space = await stack.space(group)
    await stack.map(space, BASE, pages)
    for page in range(pages):
        await stack.fault(space, BASE + page * PAGE, access)
    return space


async def resident(stack: Stack, space: pb.Space) -> int:
    """Returns how many pages of a space are in RAM."""
    return int((await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle))).resident_pages)


async def test_settings_are_kept(stack: Stack) -> None:
    """What was set is returned, by the mask alone; a limit that is named and absent means never."""
    name = await stack.group("web")
    fresh = await stack.groups.GetGroupProtection(events_pb.GetGroupProtectionRequest(name=name))
    assert fresh == events_pb.GroupProtection(swappiness=60)
    changed = await protect(stack, name, min_bytes=PAGE, high_bytes=9 * PAGE, oom_group=True, policy="clock")
    assert (changed.min_bytes, changed.high_bytes, changed.oom_group, changed.policy) == (PAGE, 9 * PAGE, True, "clock")
    parameters = [events_pb.PolicyParameter(name="bits", value="2")]
    changed = await protect(stack, name, policy_parameters=parameters, high_bytes=None)
    assert not changed.HasField("high_bytes") and changed.min_bytes == PAGE
    assert [(one.name, one.value) for one in changed.policy_parameters] == [("bits", "2")]
    assert changed == await stack.groups.GetGroupProtection(events_pb.GetGroupProtectionRequest(name=name))
    assert not (await protect(stack, name, policy="")).policy_parameters


@pytest.mark.parametrize(
    ("settings", "code", "reason"),
    [
        ({}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"min_bytes": -1}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"low_bytes": (1 << 50) + 1}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"swappiness": 201}, "INVALID_ARGUMENT", "REQUEST_INVALID"),
        ({"policy": "ideal"}, "NOT_FOUND", "POLICY_UNKNOWN"),
        ({"policy": "opt"}, "INVALID_ARGUMENT", "POLICY_OFFLINE"),
        (
            {"policy_parameters": [events_pb.PolicyParameter(name="bits", value="2")]},
            "INVALID_ARGUMENT",
            "POLICY_PARAMETER_INVALID",
        ),
        (
            {"policy": "clock", "policy_parameters": [events_pb.PolicyParameter(name="bits", value="9")]},
            "INVALID_ARGUMENT",
            "POLICY_PARAMETER_INVALID",
        ),
    ],
)
async def test_wrong_settings_change_nothing(stack: Stack, settings: Any, code: str, reason: str) -> None:
    """A value out of range, an unknown policy or parameter, one that needs the future: refused as a whole."""
    name = await stack.group("web")
    await expect_refused(protect(stack, name, **({"oom_group": True} | settings if settings else {})), code, reason)
    fresh = await stack.groups.GetGroupProtection(events_pb.GetGroupProtectionRequest(name=name))
    assert fresh == events_pb.GroupProtection(swappiness=60)


async def test_unknown_paths_and_groups_are_refused(stack: Stack) -> None:
    """A mask names fields that exist; a group exists."""
    name = await stack.group("web")
    request = events_pb.UpdateGroupProtectionRequest(name=name, update_mask=FieldMask(paths=["max_bytes"]))
    await expect_refused(stack.groups.UpdateGroupProtection(request), "INVALID_ARGUMENT", "REQUEST_INVALID")
    for call in (
        protect(stack, "hosts/h1/memoryGroups/none", oom_group=True),
        statistics(stack, "hosts/h1/memoryGroups/none"),
        stack.groups.GetGroupProtection(events_pb.GetGroupProtectionRequest(name="hosts/h1/memoryGroups/none")),
    ):
        await expect_refused(call, "NOT_FOUND", "GROUP_UNKNOWN")


@pytest.mark.inside
async def test_the_root_has_a_policy_and_no_limits(stack: Stack) -> None:
    """Limits of the root are refused; its policy is that of all groups without one of their own."""
    for name in ("min_bytes", "low_bytes", "high_bytes", "swap_high_bytes"):
        await expect_refused(protect(stack, ROOT, **{name: PAGE}), "FAILED_PRECONDITION", "GROUP_IS_ROOT")
    await protect(stack, ROOT, policy="fifo")
    name = await stack.group("web", pages=14)
    space = await filled(stack, name, 8)
    await stack.read(space, BASE, 1)
    await filled(stack, name, 1)
    rules = [one.rule for one in stack.layer.events.list(limit=1000) if one.event == "page.evicted"]
    assert rules and all(rule.startswith("fifo: brought in first of") for rule in rules)


async def test_what_is_below_min_stays(stack: Stack) -> None:
    """Reclaim of a parent takes nothing of a child within its min, and all that it can of the others."""
    top = await stack.group("top", pages=60)
    kept, other = await stack.group("kept", parent=top), await stack.group("other", parent=top)
    await protect(stack, kept, min_bytes=24 * PAGE)
    first = await filled(stack, kept, 20)
    second = await filled(stack, other, 60)
    assert await resident(stack, first) == 20
    assert await resident(stack, second) <= 60 - 24 - 4
    assert (await stack.groups.GetGroup(pb.GetGroupRequest(name=top))).usage_bytes <= 60 * PAGE


async def test_low_is_broken_when_nothing_else_is_left_and_told(stack: Stack) -> None:
    """Within low a child stays while there are others; then it is reclaimed and LOW is told; min holds still."""
    top = await stack.group("top", pages=40)
    kept = await stack.group("kept", parent=top)
    await protect(stack, kept, low_bytes=1000 * PAGE, min_bytes=20 * PAGE)
    space = await filled(stack, kept, 60)
    assert (await stack.groups.GetGroup(pb.GetGroupRequest(name=top))).usage_bytes == 40 * PAGE
    assert await resident(stack, space) == 36
    counts = {one.kind: one.count for one in (await statistics(stack, kept)).events}
    assert counts[events_pb.GROUP_EVENT_KIND_LOW] >= 1
    other = await filled(stack, top, 1)
    for page in range(60):
        await stack.fault(space, BASE + page * PAGE, READ)
    assert await resident(stack, other) in (0, 1)


async def test_a_group_that_is_all_protected_runs_out_of_memory(stack: Stack) -> None:
    """When min leaves nothing to take, a fault beyond the parent's limit is out of memory."""
    top = await stack.group("top", pages=40)
    kept, other = await stack.group("kept", parent=top), await stack.group("other", parent=top)
    await protect(stack, kept, min_bytes=1 << 30)
    await filled(stack, kept, 32)
    space = await stack.space(other)
    await stack.map(space, BASE, 1)
    assert (await stack.fault(space, BASE)).outcome == Outcome.OUTCOME_OUT_OF_MEMORY


async def test_protection_is_shared_in_proportion(stack: Stack) -> None:
    """Children that claim more than their parent has get shares by what they use of it, as cgroup v2 has it."""
    top = await stack.group("top", pages=120)
    web = await stack.group("web", parent=top)
    await protect(stack, web, min_bytes=60 * PAGE)
    spaces = []
    for name in ("a", "b"):
        child = await stack.group(name, parent=web)
        await protect(stack, child, min_bytes=40 * PAGE)
        spaces.append(await filled(stack, child, 46))
    greedy = await stack.group("greedy", parent=top)
    await protect(stack, greedy, min_bytes=1 << 30)
    await filled(stack, greedy, 120 - 60 - 4)
    used = [(await stack.groups.GetGroup(pb.GetGroupRequest(name=f"hosts/h1/memoryGroups/{name}"))) for name in "ab"]
    assert [one.usage_bytes // PAGE for one in used] == [30, 30]


async def test_use_above_a_lower_high_is_reclaimed_before_the_call_returns(stack: Stack) -> None:
    """UpdateGroupProtection pushes out what lies above the new high, and goes on without a limit's event."""
    name = await stack.group("web")
    space = await filled(stack, name, 50)
    await protect(stack, name, high_bytes=30 * PAGE)
    view = await stack.groups.GetGroup(pb.GetGroupRequest(name=name))
    assert (view.usage_bytes, view.max_events) == (30 * PAGE, 0)
    assert await resident(stack, space) == 26


async def test_faults_beyond_high_reclaim_and_are_told(stack: Stack) -> None:
    """A group may go beyond high, but its faults bring it back, and HIGH is counted."""
    name = await stack.group("web")
    await protect(stack, name, high_bytes=30 * PAGE)
    space = await filled(stack, name, 60)
    view = await stack.groups.GetGroup(pb.GetGroupRequest(name=name))
    assert view.usage_bytes <= 31 * PAGE and view.oom_events == 0
    counts = {one.kind: one.count for one in (await statistics(stack, name)).events}
    assert counts[events_pb.GROUP_EVENT_KIND_HIGH] >= 20 and events_pb.GROUP_EVENT_KIND_MAX not in counts
    assert await stack.read(space, BASE, PAGE) == bytes(PAGE)


@pytest.mark.inside
async def test_faults_far_beyond_high_wait(stack: Stack) -> None:
    """A group that cannot come back below high is slowed down, the more the farther; that is pressure."""
    name = await stack.group("web", swap_pages=0)
    space = await filled(stack, name, 24)
    await stack.write(space, BASE, b"x" * 24 * PAGE)
    await protect(stack, name, high_bytes=14 * PAGE)
    more = await stack.space()
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=more.handle))
    await stack.map(space, 0x80_0000, 1)
    begin = stack.clock.now_ns()
    assert (await stack.fault(space, 0x80_0000)).outcome == Outcome.OUTCOME_ZERO_FILLED
    waited = stack.clock.now_ns() - begin
    found = await statistics(stack, name)
    assert waited >= 10_000_000 and found.pressure.some_ns >= 10_000_000
    assert found.pressure.full_ns == found.pressure.some_ns, "its only space waited"


@pytest.mark.inside
async def test_statistics_count_what_was_done(stack: Stack) -> None:
    """Pages by kind, faults, reclaim and refaults of a group with its children, counted from outside as well."""
    top = await stack.group("top")
    name = await stack.group("web", pages=24, parent=top)
    space = await filled(stack, name, 30)
    await stack.write(space, BASE, b"x" * 30 * PAGE)
    for group in (name, top):
        found = await statistics(stack, group)
        assert found.anonymous_pages == 20 and found.table_frames == 4 and found.object_pages == 0
        assert found.minor_faults >= 30 and found.scanned_pages >= found.reclaimed_pages >= 10
    before = found
    await stack.fault(space, BASE, READ)
    found = await statistics(stack, top)
    assert found.major_faults == before.major_faults + 1
    assert found.refaulted_pages == before.refaulted_pages + 1
    view = await stack.groups.GetGroup(pb.GetGroupRequest(name=top))
    assert found.swapped_pages * PAGE == view.swap_usage_bytes
    kinds = [one.kind for one in found.events]
    assert kinds == sorted(kinds) and events_pb.GROUP_EVENT_KIND_MAX in kinds


async def test_swappiness_chooses_between_kinds(stack: Stack) -> None:
    """With 0 only pages of objects go, with 200 anonymous ones go first."""
    for swappiness, kept in ((0, "anonymous"), (200, "object")):
        name = await stack.group(f"s{swappiness}")
        await protect(stack, name, swappiness=swappiness)
        made = await stack.objects.CreateObject(
            pb.CreateObjectRequest(object=pb.Object(size_bytes=20 * PAGE, group=name))
        )
        space = await filled(stack, name, 20)
        await stack.map(space, 0x80_0000, 20, object=made.handle, shared=True)
        for page in range(20):
            await stack.fault(space, 0x80_0000 + page * PAGE, WRITE)
        await stack.spaces.Reclaim(pb.ReclaimRequest(group=name, pages=10))
        found = await statistics(stack, name)
        expected = (20, 10) if kept == "anonymous" else (10, 20)
        assert (found.anonymous_pages, found.object_pages) == expected
