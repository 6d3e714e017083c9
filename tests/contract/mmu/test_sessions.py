"""What belongs to a session lives as long as it does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.conftest import Eventually, ManualClock
from tests.contract.mmu.stack import PAGE, Stack

from lamina_kit.layer.owner_session import OwnerSession

SECOND = 1_000_000_000


@pytest.fixture
async def stack(tmp_path: Path, engine_name: str, manual_clock: ManualClock) -> AsyncIterator[Stack]:
    """Returns an MMU on a clock that the test moves."""
    async with Stack(tmp_path, manual_clock, engine=engine_name) as made:
        yield made


async def make_things(stack: Stack, metadata: Any) -> None:
    """Makes one thing of each kind, all belonging to a session."""
    group = pb.CreateGroupRequest(group_id="web")
    name = (await stack.groups.CreateGroup(group, metadata=metadata)).name
    request = pb.CreateSpaceRequest(space=pb.Space(group=name, label="mine"))
    space = await stack.spaces.CreateSpace(request, metadata=metadata)
    await stack.map(space, 0x40_0000, 4)
    await stack.write(space, 0x40_0000, b"x" * 4 * PAGE)
    await stack.spaces.ForkSpace(pb.ForkSpaceRequest(handle=space.handle), metadata=metadata)
    await stack.objects.CreateObject(pb.CreateObjectRequest(object=pb.Object(size_bytes=PAGE)), metadata=metadata)
    await stack.frames.AllocateFrames(pb.AllocateFramesRequest(count=3, owner="ept"), metadata=metadata)


async def test_a_session_that_does_not_come_back_is_freed(
    stack: Stack, manual_clock: ManualClock, eventually: Eventually
) -> None:
    """30 s after the stream broke all that the session made is gone, and nothing else."""
    await stack.space(label="somebody else's")
    before = (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames
    session = await OwnerSession.open(stack.channel, "h1/hypervisor", 1, manual_clock)
    await make_things(stack, session.metadata)
    await session.close()
    await eventually(lambda: stack.layer.sessions.state("h1/hypervisor").value == "broken", "the break")
    await manual_clock.advance(29 * SECOND)
    assert len((await stack.spaces.ListSpaces(pb.ListSpacesRequest())).spaces) == 3
    await manual_clock.advance(2 * SECOND)
    await eventually(lambda: len(stack.machine.spaces) == 1, "the end of the session's spaces")
    left = (await stack.spaces.ListSpaces(pb.ListSpacesRequest())).spaces
    assert [space.label for space in left] == ["somebody else's"]
    assert not (await stack.objects.ListObjects(pb.ListObjectsRequest())).objects
    assert len((await stack.groups.ListGroups(pb.ListGroupsRequest())).groups) == 1
    assert (await stack.frames.GetMemory(pb.GetMemoryRequest())).free_frames == before


async def test_a_newer_session_of_the_owner_claims_everything(stack: Stack, manual_clock: ManualClock) -> None:
    """An owner that comes back with a higher epoch is told how much waits for it, and keeps it."""
    session = await OwnerSession.open(stack.channel, "h1/hypervisor", 1, manual_clock)
    await make_things(stack, session.metadata)
    await session.close()
    await manual_clock.advance(10 * SECOND)
    again = await OwnerSession.open(stack.channel, "h1/hypervisor", 2, manual_clock)
    assert again.adopted_objects == 5
    await manual_clock.advance(60 * SECOND)
    assert len((await stack.spaces.ListSpaces(pb.ListSpacesRequest())).spaces) == 2
    await again.close()


async def test_what_no_session_made_stays(stack: Stack, manual_clock: ManualClock) -> None:
    """A space that was made without a session is freed by DeleteSpace alone."""
    await stack.space()
    await manual_clock.advance(120 * SECOND)
    assert len((await stack.spaces.ListSpaces(pb.ListSpacesRequest())).spaces) == 1
