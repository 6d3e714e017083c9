"""Replacement policies as a caller sees them: the list, the order of a group's pages, evictions with their reasons."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.mmu.v1 import group_events_pb2 as events_pb
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import policies_pb2
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, READ, Stack

from lamina_mmu.domain.policies.catalogue import OWN

BASE = 0x40_0000
TABLES = 4
LIVE = [name for name in OWN if name != "opt"]


async def choose(stack: Stack, group: str, policy: str) -> None:
    """Gives a group a policy."""
    await stack.groups.UpdateGroupProtection(
        events_pb.UpdateGroupProtectionRequest(
            name=group, protection=events_pb.GroupProtection(policy=policy), update_mask=FieldMask(paths=["policy"])
        )
    )


async def candidates(stack: Stack, group: str, **page: Any) -> policies_pb2.ListCandidatesResponse:
    """Returns a page of a group's order."""
    request = policies_pb2.ListCandidatesRequest(group=group, **page)
    found: policies_pb2.ListCandidatesResponse = await stack.policies.ListCandidates(request)
    return found


async def evictions(stack: Stack, **fields: Any) -> policies_pb2.ListEvictionsResponse:
    """Returns evictions, newest first."""
    found: policies_pb2.ListEvictionsResponse = await stack.policies.ListEvictions(
        policies_pb2.ListEvictionsRequest(**fields)
    )
    return found


async def test_all_policies_are_listed(stack: Stack) -> None:
    """Lamina's own by name, each with a sentence, its source, parameters with defaults, and the groups that use it."""
    web = await stack.group("web")
    below = await stack.group("below", parent=web)
    await choose(stack, web, "arc")
    listed = (await stack.policies.ListPolicies(policies_pb2.ListPoliciesRequest())).policies
    assert [one.name for one in listed if one.origin == policies_pb2.Policy.ORIGIN_BUILT_IN] == sorted(OWN)
    assert all(one.summary and one.source for one in listed)
    by_name = {one.name: one for one in listed}
    assert [one.name for one in listed if one.offline] == ["opt"]
    assert [(one.name, one.value) for one in by_name["2q"].parameters] == [
        ("kin-percent", "25"),
        ("kout-percent", "50"),
    ]
    assert list(by_name["arc"].groups) == [web, below]
    assert list(by_name["lru"].groups) == ["hosts/h1/memoryGroups/root"]


@pytest.mark.inside  # the latest evictions of a host that nobody used before
@pytest.mark.parametrize("policy", LIVE)
async def test_each_policy_serves_faults(stack: Stack, policy: str) -> None:
    """With four frames, E takes the place of A whatever the policy; all bytes come back; the order is listed."""
    group = await stack.group("example", pages=TABLES + 4)
    await choose(stack, group, policy)
    space = await stack.space(group)
    await stack.map(space, BASE, 5)
    for page in range(4):
        await stack.write(space, BASE + page * PAGE, b"ABCD"[page : page + 1] * 8)
    before = await candidates(stack, group)
    assert before.policy == policy
    assert [one.address for one in before.candidates] == [BASE + page * PAGE for page in range(4)]
    assert all(one.user == space.name and one.dirty and one.standing for one in before.candidates)
    await stack.write(space, BASE + 4 * PAGE, b"E" * 8)
    (evicted,) = (await evictions(stack, group=group)).evictions
    assert (evicted.policy, evicted.group, evicted.sequence) == (policy, group, 1)
    assert (evicted.victim.user, evicted.victim.address, evicted.victim.dirty) == (space.name, BASE, True)
    assert evicted.swap_slot == 0 and evicted.HasField("swap_slot") and evicted.reason
    assert evicted.wanted_by == f"{space.name}/pages/{BASE + 4 * PAGE:#x}"
    assert [one.address for one in evicted.others] == [BASE + page * PAGE for page in (1, 2, 3)]
    assert len({one.frame for one in (evicted.victim, *evicted.others)}) == 4
    for page, letter in enumerate(b"ABCDE"):
        assert await stack.read(space, BASE + page * PAGE, 8) == bytes([letter]) * 8


@pytest.mark.inside
@pytest.mark.parametrize("policy", LIVE)
async def test_accessed_pages_stay_where_the_policy_looks(stack: Stack, policy: str) -> None:
    """A page found accessed again and again outlives others but under FIFO; its first look counts for few policies."""
    group = await stack.group("example", pages=TABLES + 8)
    await choose(stack, group, policy)
    space = await stack.space(group)
    await stack.map(space, BASE, 40)
    hot = BASE
    for page in range(40):
        await stack.fault(space, BASE + page * PAGE, READ)
        entry = stack.machine.spaces.slot(space.handle.id).table
        if entry.load(hot >> 12) & 1:
            entry.cas(hot >> 12, entry.load(hot >> 12), entry.load(hot >> 12) | 0x20)
        elif policy != "fifo":
            await stack.fault(space, hot, READ)
    gone = [one.victim.address for one in (await evictions(stack, group=group, page_size=1000)).evictions]
    assert len(gone) >= 32
    allowed = {"lru": 0, "mglru": 0, "2q": 2, "arc": 2, "s3fifo": 2, "fifo": 40}
    assert gone.count(hot) <= allowed.get(policy, 1)
    assert policy != "fifo" or hot in gone


async def test_a_new_policy_starts_from_the_order_of_arrival(stack: Stack) -> None:
    """A group whose policy changes keeps its pages, the first to come first."""
    group = await stack.group("example")
    space = await stack.space(group)
    await stack.map(space, BASE, 6)
    for page in (3, 1, 5, 0, 2):
        await stack.fault(space, BASE + page * PAGE)
    for policy in (*LIVE, "lru"):
        await choose(stack, group, policy)
        found = await candidates(stack, group)
        assert found.policy == policy
        assert [(one.address - BASE) // PAGE for one in found.candidates] == [3, 1, 5, 0, 2]


@pytest.mark.inside  # the latest evictions of a host that nobody used before
async def test_lists_are_read_page_by_page(stack: Stack) -> None:
    """Candidates and evictions come in pages that join without gaps; a foreign token is refused."""
    group = await stack.group("example")
    space = await stack.space(group)
    await stack.map(space, BASE, 25)
    await stack.write(space, BASE, b"x" * 25 * PAGE)
    seen: list[int] = []
    token = ""
    while True:
        found = await candidates(stack, group, page_size=10, page_token=token)
        seen += [one.address for one in found.candidates]
        token = found.next_page_token
        if not token:
            break
    assert seen == [BASE + page * PAGE for page in range(25)]
    await stack.spaces.Reclaim(pb.ReclaimRequest(group=group, pages=25))
    first = await evictions(stack, space=space.name, page_size=10)
    second = await evictions(stack, space=space.name, page_size=100, page_token=first.next_page_token)
    sequences = [one.sequence for one in (*first.evictions, *second.evictions)]
    assert len(first.evictions) == 10 and sequences == list(range(25, 0, -1)) and not second.next_page_token
    for call in (candidates(stack, group, page_token="x"), evictions(stack, page_token="-1")):
        await expect_refused(call, "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


@pytest.mark.inside  # the latest evictions of a host that nobody used before
async def test_evictions_are_found_by_group_and_space(stack: Stack) -> None:
    """Each filter leaves its own; what does not exist is named."""
    spaces = []
    for name in ("a", "b"):
        group = await stack.group(name)
        spaces.append(await stack.space(group))
        await stack.map(spaces[-1], BASE, 2)
        await stack.write(spaces[-1], BASE, b"x" * 2 * PAGE)
        await stack.spaces.Reclaim(pb.ReclaimRequest(group=group, pages=2))
    for name, space in zip("ab", spaces, strict=True):
        by_group = await evictions(stack, group=f"hosts/h1/memoryGroups/{name}")
        assert by_group == await evictions(stack, space=space.name) and len(by_group.evictions) == 2
    assert not (await evictions(stack, group="hosts/h1/memoryGroups/a", space=spaces[1].name)).evictions
    await expect_refused(evictions(stack, group="hosts/h1/memoryGroups/c"), "NOT_FOUND", "GROUP_UNKNOWN")
    await expect_refused(evictions(stack, space="hosts/h1/spaces/s-99"), "NOT_FOUND", "SPACE_UNKNOWN")
    await expect_refused(candidates(stack, "hosts/h1/memoryGroups/c"), "NOT_FOUND", "GROUP_UNKNOWN")


async def test_looking_has_no_side_effect(stack: Stack) -> None:
    """ListCandidates samples no accessed bit: nothing is shot down, and it says the same again."""
    group = await stack.group("example")
    await choose(stack, group, "clock")
    space = await stack.space(group)
    await stack.map(space, BASE, 8)
    await stack.write(space, BASE, b"x" * 8 * PAGE)
    assert await candidates(stack, group) == await candidates(stack, group)


@pytest.mark.inside
async def test_explain_tells_the_same(stack: Stack) -> None:
    """Layer.Explain of an evicted page names policy, reason, rank, age and the next candidates."""
    group = await stack.group("example", pages=TABLES + 4)
    await choose(stack, group, "sieve")
    space = await stack.space(group)
    await stack.map(space, BASE, 5)
    await stack.write(space, BASE, b"x" * 5 * PAGE)
    (evicted,) = (await evictions(stack, group=group)).evictions
    layer = layer_pb2_grpc.LayerStub(stack.channel)
    for name in (f"{space.name}/pages/{BASE:#x}", f"hosts/h1/frames/{evicted.victim.frame}"):
        answer = await layer.Explain(layer_pb2.ExplainRequest(object=name))
        decision = answer.decisions[0]
        assert decision.rule == f"sieve: {evicted.reason}"
        inputs = {one.key: one.value for one in decision.inputs}
        assert (inputs["policy"], inputs["rank"], inputs["group"]) == ("sieve", "1", "example")
        assert inputs["next"].split(", ")[0] == f"s-1 {BASE + PAGE:#x}" and inputs["eviction"] == "1"
