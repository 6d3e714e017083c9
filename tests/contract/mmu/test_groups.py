"""Memory groups as a caller sees them: the tree, limits, charges, and what a limit does."""

from __future__ import annotations

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, Outcome, Stack


async def get(stack: Stack, name: str) -> pb.Group:
    """Returns a group."""
    found: pb.Group = await stack.groups.GetGroup(pb.GetGroupRequest(name=name))
    return found


@pytest.mark.inside
async def test_a_page_is_charged_to_its_group_and_all_above(stack: Stack) -> None:
    """Usage and peak of a group include its children; what is freed is given back at every level."""
    top = await stack.group("top", pages=1000)
    leaf = await stack.group("leaf", parent=top)
    space = await stack.space(leaf)
    await stack.map(space, 0x40_0000, 10)
    await stack.write(space, 0x40_0000, b"x" * 10 * PAGE)
    for name in (leaf, top, "hosts/h1/memoryGroups/root"):
        assert (await get(stack, name)).usage_bytes == 14 * PAGE, name  # ten pages and four tables
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    for name in (leaf, top):
        view = await get(stack, name)
        assert (view.usage_bytes, view.peak_bytes) == (0, 14 * PAGE)


async def test_a_limit_reclaims_within_its_group_alone(stack: Stack) -> None:
    """A space over its limit pushes its own pages to swap, exactly as many as needed, and its neighbour keeps all."""
    tight, free = await stack.group("tight", pages=14), await stack.group("free")
    mine, other = await stack.space(tight), await stack.space(free)
    for space in (mine, other):
        await stack.map(space, 0x40_0000, 20)
        await stack.write(space, 0x40_0000, bytes(range(1, 21)) * PAGE)
    mine = await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=mine.handle))
    other = await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=other.handle))
    assert (mine.resident_pages, mine.swapped_pages) == (10, 10)
    assert (other.resident_pages, other.swapped_pages) == (20, 0)
    view = await get(stack, tight)
    assert view.usage_bytes == 14 * PAGE and view.swap_usage_bytes >= 10 * PAGE and view.reclaimed_pages == 10
    assert await stack.read(mine, 0x40_0000, 20 * PAGE) == bytes(range(1, 21)) * PAGE


async def test_the_limit_of_a_parent_reclaims_from_all_its_children(stack: Stack) -> None:
    """The oldest page under the parent goes, whichever child has it."""
    top = await stack.group("top", pages=20)
    spaces = [await stack.space(await stack.group(name, parent=top)) for name in ("a", "b")]
    for space in spaces:
        await stack.map(space, 0x40_0000, 8)
    for index in range(6):
        await stack.write(spaces[0], 0x40_0000 + index * PAGE, b"a")
    for index in range(8):
        await stack.write(spaces[1], 0x40_0000 + index * PAGE, b"b")
    first = await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=spaces[0].handle))
    second = await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=spaces[1].handle))
    assert (first.swapped_pages, second.swapped_pages) == (2, 0)


async def test_a_lower_limit_is_reached_before_the_call_returns(stack: Stack) -> None:
    """UpdateGroup pushes out what lies above the new limit."""
    group = await stack.group("web")
    space = await stack.space(group)
    await stack.map(space, 0x40_0000, 100)
    await stack.write(space, 0x40_0000, b"x" * 100 * PAGE)
    view = await stack.groups.UpdateGroup(pb.UpdateGroupRequest(name=group, max_bytes=30 * PAGE))
    assert (view.max_bytes, view.usage_bytes) == (30 * PAGE, 30 * PAGE)
    assert await stack.read(space, 0x40_0000, 100 * PAGE) == b"x" * 100 * PAGE
    view = await stack.groups.UpdateGroup(pb.UpdateGroupRequest(name=group, swap_max_bytes=0))
    assert view.max_bytes == 30 * PAGE and view.HasField("swap_max_bytes") and view.swap_max_bytes == 0
    view = await stack.groups.UpdateGroup(pb.UpdateGroupRequest(name=group, swap_max_bytes=-1))
    assert view.max_bytes == 30 * PAGE and not view.HasField("swap_max_bytes")
    view = await stack.groups.UpdateGroup(pb.UpdateGroupRequest(name=group, max_bytes=0))
    assert view.max_bytes == 0 and (await stack.fault(space, 0x40_0000)).outcome != Outcome.OUTCOME_OUT_OF_MEMORY


async def test_a_swap_limit_ends_in_out_of_memory(stack: Stack) -> None:
    """A group may use no more slots than its swap limit; then faults in it end out of memory."""
    group = await stack.group("web", pages=14, swap_pages=5)
    space = await stack.space(group)
    await stack.map(space, 0x40_0000, 40)
    outcomes = []
    for index in range(20):
        answer = await stack.fault(space, 0x40_0000 + index * PAGE)
        outcomes.append(answer.outcome)
        if answer.outcome == Outcome.OUTCOME_OUT_OF_MEMORY:
            break
        await stack.write(space, 0x40_0000 + index * PAGE, b"x")
    assert len(outcomes) == 16 and outcomes[-1] == Outcome.OUTCOME_OUT_OF_MEMORY
    assert (await get(stack, group)).swap_usage_bytes == 5 * PAGE


async def test_only_empty_groups_are_deleted(stack: Stack) -> None:
    """A group with a space, an object or a child stays; the root always does."""
    top = await stack.group("top")
    leaf = await stack.group("leaf", parent=top)
    space = await stack.space(leaf)
    delete = stack.groups.DeleteGroup
    for name in (top, leaf, "hosts/h1/memoryGroups/root"):
        await expect_refused(delete(pb.DeleteGroupRequest(name=name)), "FAILED_PRECONDITION", "GROUP_IN_USE")
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))
    for name in (leaf, top):
        await delete(pb.DeleteGroupRequest(name=name))
    await expect_refused(delete(pb.DeleteGroupRequest(name=leaf)), "NOT_FOUND", "GROUP_UNKNOWN")


async def test_groups_are_listed_with_the_root_first(stack: Stack) -> None:
    """Groups come in the order of creation, in pages; names are unique on the host."""
    for name in ("b", "a", "c"):
        await stack.group(name)
    page = await stack.groups.ListGroups(pb.ListGroupsRequest(page_size=2))
    rest = await stack.groups.ListGroups(pb.ListGroupsRequest(page_size=5, page_token=page.next_page_token))
    names = [one.name.rpartition("/")[2] for one in (*page.groups, *rest.groups)]
    assert names == ["root", "b", "a", "c"] and not rest.next_page_token
    await expect_refused(stack.group("a"), "ALREADY_EXISTS", "GROUP_EXISTS")


async def test_bad_groups_are_refused(stack: Stack) -> None:
    """Malformed ids, negative and huge limits, unknown parents, and limits on the root are refused."""
    create = stack.groups.CreateGroup
    for group_id in ("", "A", "-x", "x" * 64, "../x"):
        await expect_refused(create(pb.CreateGroupRequest(group_id=group_id)), "INVALID_ARGUMENT")
    for limit in (-1, (1 << 50) + 1):
        request = pb.CreateGroupRequest(group_id="x", group=pb.Group(max_bytes=limit))
        await expect_refused(create(request), "INVALID_ARGUMENT")
    orphan = pb.CreateGroupRequest(group_id="x", group=pb.Group(parent="hosts/h1/memoryGroups/none"))
    await expect_refused(create(orphan), "NOT_FOUND", "GROUP_UNKNOWN")
    update = stack.groups.UpdateGroup
    root = pb.UpdateGroupRequest(name="hosts/h1/memoryGroups/root", max_bytes=PAGE)
    await expect_refused(update(root), "FAILED_PRECONDITION", "GROUP_IS_ROOT")
    await expect_refused(update(pb.UpdateGroupRequest(name="hosts/h1/memoryGroups/none")), "NOT_FOUND", "GROUP_UNKNOWN")


async def test_a_request_id_makes_one_group(stack: Stack) -> None:
    """A repeated CreateGroup returns the first one's group; without the id it is refused as existing."""
    request = pb.CreateGroupRequest(group_id="web", request_id="g")
    first = await stack.groups.CreateGroup(request)
    assert await stack.groups.CreateGroup(request) == first
    request.request_id = ""
    await expect_refused(stack.groups.CreateGroup(request), "ALREADY_EXISTS", "GROUP_EXISTS")
