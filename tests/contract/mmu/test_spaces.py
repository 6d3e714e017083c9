"""Spaces as a caller sees them: making, finding, listing, deleting; handles, names, request ids."""

from __future__ import annotations

import asyncio

import pytest
from lamina.common.v1 import handle_pb2
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, Stack


@pytest.mark.inside
async def test_a_new_space_is_empty_and_has_a_root(stack: Stack) -> None:
    """A process space has a zeroed root table in RAM, no pages, and the label that was given."""
    space = await stack.space(label="pod hello-1 pid 1")
    assert space.name == "hosts/h1/spaces/s-1"
    assert (space.kind, space.label, space.group) == (
        pb.Space.KIND_PROCESS,
        "pod hello-1 pid 1",
        "hosts/h1/memoryGroups/root",
    )
    assert space.root_address and space.root_address % PAGE == 0
    assert stack.bus.read(space.root_address, PAGE) == bytes(PAGE)
    assert (space.resident_pages, space.swapped_pages, space.table_frames) == (0, 0, 1)


async def test_a_vms_ram_has_no_table_here(stack: Stack) -> None:
    """A space of kind GUEST_RAM has no root: its tables are its holder's."""
    space = await stack.space(kind=pb.Space.KIND_GUEST_RAM)
    assert (space.root_address, space.table_frames) == (0, 0)


async def test_a_space_is_found_by_handle_and_by_name(stack: Stack) -> None:
    """Handle and name lead to the same space."""
    space = await stack.space()
    assert await stack.spaces.GetSpace(pb.GetSpaceRequest(handle=space.handle)) == space
    assert await stack.spaces.GetSpace(pb.GetSpaceRequest(name=space.name)) == space


async def test_a_deleted_space_is_gone_and_its_slot_is_reused_under_a_new_generation(stack: Stack) -> None:
    """The old handle is stale even when its slot lives again, and the name is never used again."""
    old = await stack.space()
    await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=old.handle))
    new = await stack.space()
    assert new.handle.id == old.handle.id and new.handle.generation == old.handle.generation + 1
    await expect_refused(
        stack.spaces.GetSpace(pb.GetSpaceRequest(handle=old.handle)), "FAILED_PRECONDITION", "HANDLE_STALE"
    )
    await expect_refused(stack.spaces.GetSpace(pb.GetSpaceRequest(name=old.name)), "NOT_FOUND", "SPACE_UNKNOWN")
    await expect_refused(
        stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=old.handle)), "FAILED_PRECONDITION", "HANDLE_STALE"
    )


@pytest.mark.inside
async def test_deleting_gives_everything_back(stack: Stack) -> None:
    """After the last space is deleted only frame 0 is not free."""
    space = await stack.space()
    await stack.map(space, 0x40_0000, 600)
    await stack.write(space, 0x40_0000, bytes(range(256)) * 16 * 600)
    child = await stack.fork(space)
    for one in (space, child):
        await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=one.handle))
    memory = await stack.frames.GetMemory(pb.GetMemoryRequest())
    assert memory.free_frames == memory.total_frames - 1


async def test_a_request_id_makes_one_space(stack: Stack) -> None:
    """Repeated calls, at once or later, return the first one's space; another meaning is refused."""
    request = pb.CreateSpaceRequest(space=pb.Space(label="once"), request_id="r-1")
    first, second = await asyncio.gather(stack.spaces.CreateSpace(request), stack.spaces.CreateSpace(request))
    assert first == second == await stack.spaces.CreateSpace(request)
    request.space.label = "twice"
    await expect_refused(stack.spaces.CreateSpace(request), "INVALID_ARGUMENT", "REQUEST_ID_REUSED")


async def test_a_fork_with_a_request_id_is_made_once(stack: Stack) -> None:
    """A repeated ForkSpace returns the first child."""
    space = await stack.space()
    request = pb.ForkSpaceRequest(handle=space.handle, request_id="f")
    first = await stack.spaces.ForkSpace(request)
    assert await stack.spaces.ForkSpace(request) == first


async def test_lists_are_paged_in_the_order_of_creation(stack: Stack) -> None:
    """Pages follow each other without gaps or repeats while spaces come and go."""
    made = [await stack.space(label=str(number)) for number in range(12)]
    seen: list[str] = []
    token = ""
    while True:
        page = await stack.spaces.ListSpaces(pb.ListSpacesRequest(page_size=5, page_token=token))
        seen += [space.label for space in page.spaces]
        token = page.next_page_token
        if not token:
            break
        if len(seen) == 5:
            await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=made[2].handle))
            await stack.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=made[7].handle))
    assert seen == [str(number) for number in range(12) if number != 7]


async def test_a_foreign_page_token_is_refused(stack: Stack) -> None:
    """A token that this service did not issue, and a page size out of range, are refused."""
    for token in ("x", "-1", "9" * 40):
        request = pb.ListSpacesRequest(page_token=token)
        await expect_refused(stack.spaces.ListSpaces(request), "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    await expect_refused(stack.spaces.ListSpaces(pb.ListSpacesRequest(page_size=-1)), "INVALID_ARGUMENT")
    await expect_refused(stack.spaces.ListSpaces(pb.ListSpacesRequest(page_size=1001)), "INVALID_ARGUMENT")


async def test_wrong_names_and_handles_are_refused(stack: Stack) -> None:
    """Names of other kinds, other hosts, and handles that never were, each have their answer."""
    get = stack.spaces.GetSpace
    await expect_refused(get(pb.GetSpaceRequest(name="hosts/h1/groups/s-1")), "INVALID_ARGUMENT", "NAME_MALFORMED")
    await expect_refused(get(pb.GetSpaceRequest(name="hosts/h2/spaces/s-1")), "INVALID_ARGUMENT")
    await expect_refused(get(pb.GetSpaceRequest(name="hosts/h1/spaces/s-9")), "NOT_FOUND", "SPACE_UNKNOWN")
    await expect_refused(get(pb.GetSpaceRequest(name="hosts/h1/spaces/0")), "NOT_FOUND", "SPACE_UNKNOWN")
    await expect_refused(get(pb.GetSpaceRequest(handle=handle_pb2.Handle())), "FAILED_PRECONDITION", "HANDLE_STALE")
    wrong = handle_pb2.Handle(id=-(2**63), generation=2**63 - 1)
    await expect_refused(get(pb.GetSpaceRequest(handle=wrong)), "FAILED_PRECONDITION", "HANDLE_STALE")


async def test_bad_fields_of_a_new_space_are_refused(stack: Stack) -> None:
    """A label that is too long, an unknown kind and an unknown group are refused."""
    create = stack.spaces.CreateSpace
    await expect_refused(create(pb.CreateSpaceRequest(space=pb.Space(label="x" * 128))), "INVALID_ARGUMENT")
    await expect_refused(create(pb.CreateSpaceRequest(space=pb.Space(kind=77))), "INVALID_ARGUMENT")  # type: ignore[arg-type]
    unknown = pb.Space(group="hosts/h1/memoryGroups/none")
    await expect_refused(create(pb.CreateSpaceRequest(space=unknown)), "NOT_FOUND", "GROUP_UNKNOWN")


async def test_a_vms_ram_cannot_be_forked(stack: Stack) -> None:
    """ForkSpace is for processes."""
    guest = await stack.guest(4)
    request = pb.ForkSpaceRequest(handle=guest.handle)
    await expect_refused(stack.spaces.ForkSpace(request), "FAILED_PRECONDITION", "SPACE_NOT_FORKABLE")


async def test_spaces_do_not_see_each_other(stack: Stack) -> None:
    """The same address in two spaces leads to different frames and bytes (S-01)."""
    one, two = await stack.space(), await stack.space()
    for space, data in ((one, b"one"), (two, b"two")):
        await stack.map(space, 0x1234_5000, 1)
        await stack.write(space, 0x1234_5678, data)
    assert await stack.read(one, 0x1234_5678, 3) == b"one"
    assert await stack.read(two, 0x1234_5678, 3) == b"two"
    assert stack.walk(one, 0x1234_5678) != stack.walk(two, 0x1234_5678)


async def test_a_failed_fork_leaves_nothing_behind(stack: Stack) -> None:
    """A fork whose tables do not fit into its group is refused and frees what it took."""
    space = await stack.space()
    for index in range(4):
        await stack.map(space, 0x4000_0000 * (index + 1), 1)
        await stack.write(space, 0x4000_0000 * (index + 1), b"x")
    group = await stack.group("tight", pages=3)
    request = pb.ForkSpaceRequest(handle=space.handle, group=group)
    await expect_refused(stack.spaces.ForkSpace(request), "RESOURCE_EXHAUSTED", "NO_FREE_FRAME")
    usage = await stack.groups.GetGroup(pb.GetGroupRequest(name=group))
    assert (usage.usage_bytes, usage.peak_bytes) == (0, 3 * PAGE)
    assert len((await stack.spaces.ListSpaces(pb.ListSpacesRequest())).spaces) == 1
    await stack.groups.DeleteGroup(pb.DeleteGroupRequest(name=group))
