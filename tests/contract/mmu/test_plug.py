"""A policy plugged in over gRPC: its ten lines, what it is told, what ends it, and what its groups do then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.mmu.v1 import group_events_pb2 as events_pb
from lamina.mmu.v1 import policies_pb2 as pb
from tests.conftest import Eventually, ManualClock
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import PAGE, Stack

pytestmark = pytest.mark.real_time("programs outside do not keep a virtual clock")
BASE = 0x40_0000
TABLES = 4


@pytest.fixture
async def patient(tmp_path: Path, engine_name: str, manual_clock: ManualClock) -> AsyncIterator[Stack]:
    """Returns an MMU whose clock stands: however long a loaded machine takes to answer, it is within the 100 ms."""
    async with Stack(tmp_path, manual_clock, engine=engine_name) as made:
        await manual_clock.advance(1)
        yield made


async def mru(call: Any) -> None:
    """Lets the page go that was brought in last: a whole policy over gRPC."""
    pages: dict[int, None] = {}
    while (said := await call.read()) is not grpc.aio.EOF:
        if said.HasField("news"):
            for page, kind in zip(np.frombuffer(said.news.pages, "<i8").tolist(), said.news.kinds, strict=True):
                pages.pop(page, None)
                if kind in (1, 2):
                    pages[page] = None
        elif said.HasField("question"):
            chosen = [pb.PlugVictims.Victim(page=page, reason="the newest") for page in list(pages)[::-1]]
            victims = pb.PlugVictims(sequence=said.question.sequence, victims=chosen[: said.question.count])
            await call.write(pb.PlugRequest(victims=victims))


async def plugged(stack: Stack, name: str = "mine") -> Any:
    """Plugs a policy in; returns the call."""
    call = stack.policies.Plug()
    await call.write(pb.PlugRequest(open=pb.PlugOpen(policy=pb.Policy(name=name, summary="A test."))))
    opened: Any = await call.read()
    assert opened.WhichOneof("response") == "opened"
    return call


async def group_with(stack: Stack, policy: str, pages: int = 4) -> tuple[str, Any]:
    """Returns a group with a policy and room for tables and `pages`, and a space in it with twice as many mapped."""
    group = await stack.group("example", pages=TABLES + pages)
    await stack.groups.UpdateGroupProtection(
        events_pb.UpdateGroupProtectionRequest(
            name=group, protection=events_pb.GroupProtection(policy=policy), update_mask=FieldMask(paths=["policy"])
        )
    )
    space = await stack.space(group)
    await stack.map(space, BASE, 2 * pages)
    return group, space


async def touch(stack: Stack, space: Any, *pages: int) -> None:
    """Writes to pages."""
    for page in pages:
        await stack.write(space, BASE + page * PAGE, bytes([page]) * 8)


async def evicted(stack: Stack, group: str) -> list[pb.Eviction]:
    """Returns evictions, oldest first."""
    found = await stack.policies.ListEvictions(pb.ListEvictionsRequest(group=group))
    return list(found.evictions)[::-1]


async def policy_of(stack: Stack, group: str) -> str:
    """Returns the policy that a group has chosen."""
    found = await stack.groups.GetGroupProtection(events_pb.GetGroupProtectionRequest(name=group))
    return str(found.policy)


async def test_a_policy_in_ten_lines_chooses_victims(patient: Stack) -> None:
    """It is told of pages, asked for victims, and its reasons are kept; no byte is lost; it is in the list."""
    call = await plugged(patient)
    task = asyncio.ensure_future(mru(call))
    group, space = await group_with(patient, "mine")
    await touch(patient, space, 0, 1, 2, 3, 4, 5)
    found = await evicted(patient, group)
    assert not task.done(), task
    assert [(one.victim.address - BASE) // PAGE for one in found] == [3, 4]
    assert {(one.policy, one.reason) for one in found} == {("mine", "the newest")}
    for page in range(6):
        assert await patient.read(space, BASE + page * PAGE, 8) == bytes([page]) * 8
    (mine,) = [
        one for one in (await patient.policies.ListPolicies(pb.ListPoliciesRequest())).policies if one.name == "mine"
    ]
    assert (mine.origin, list(mine.groups)) == (pb.Policy.ORIGIN_PLUGGED, [group])
    call.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.inside  # the latest evictions of a host that nobody used before
async def test_news_come_in_order_and_name_the_group_once(patient: Stack) -> None:
    """Columns of pages and kinds; the first news of a group name it; a page that is unmapped was deleted."""
    call = await plugged(patient)
    group, space = await group_with(patient, "mine")
    await touch(patient, space, 0, 1, 2, 3)
    writer = asyncio.ensure_future(touch(patient, space, 4))
    news: list[tuple[int, int]] = []
    names: list[str] = []
    while True:
        said: Any = await asyncio.wait_for(call.read(), 30)
        if said.HasField("question"):
            break
        names.append(said.news.group_name)
        assert said.news.limit_frames == TABLES + 4 and said.news.time_ns > 0
        pages = np.frombuffer(said.news.pages, "<i8").tolist()
        assert len(pages) == len(said.news.kinds)
        news += zip(pages, said.news.kinds, strict=True)
    assert names[0] == group and not any(names[1:])
    brought = [page for page, kind in news if kind == 1]
    assert len(brought) == len(set(brought)) == 4
    question = said.question
    assert 1 <= question.count <= 4096 and question.incoming not in (0, *brought)
    victims = pb.PlugVictims(sequence=question.sequence, victims=[pb.PlugVictims.Victim(page=brought[2])])
    await call.write(pb.PlugRequest(victims=victims))
    await writer
    (one,) = await evicted(patient, group)
    assert (one.victim.address - BASE) // PAGE == 2 and one.reason == "the program gave no reason"
    said = await asyncio.wait_for(call.read(), 30)
    assert np.frombuffer(said.news.pages, "<i8").tolist()[0] == brought[2] and said.news.kinds[0] == 3
    call.cancel()


@pytest.mark.inside  # the latest evictions of a host that nobody used before
async def test_a_silent_policy_is_unplugged(stack: Stack) -> None:
    """Without an answer for 100 ms the fault goes on under LRU from the order of arrival, and the stream is aborted."""
    call = await plugged(stack)
    group, space = await group_with(stack, "mine")
    await touch(stack, space, 0, 1, 2, 3, 4)
    assert await policy_of(stack, group) == "lru"
    (one,) = await evicted(stack, group)
    assert (one.policy, one.victim.address) == ("lru", BASE)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        while await asyncio.wait_for(call.read(), 30) is not grpc.aio.EOF:
            pass
    assert failed.value.code() == grpc.StatusCode.ABORTED
    names = [policy.name for policy in (await stack.policies.ListPolicies(pb.ListPoliciesRequest())).policies]
    assert "mine" not in names


@pytest.mark.inside
async def test_falling_back_is_a_decision_of_the_group(stack: Stack, eventually: Eventually) -> None:
    """When the program goes away its groups say so, with the policy and the reason."""
    call = await plugged(stack)
    group, space = await group_with(stack, "mine")
    await touch(stack, space, 0, 1)
    await call.done_writing()
    await eventually(lambda: "mine" not in stack.machine.policies, "unplugged")
    (fell,) = [one for one in stack.layer.events.decisions(group) if one.event == "group.policy_fell_back"]
    assert dict(fell.inputs) == {"policy": "mine", "reason": "CLOSED", "now": "lru"}
    await touch(stack, space, 2, 3, 4)
    assert [one.victim.address for one in await evicted(stack, group)] == [BASE]


@pytest.mark.inside  # the latest evictions of a host that nobody used before
@pytest.mark.parametrize(("sequence", "page", "reason"), [(1, 12345, "VICTIM_UNKNOWN"), (7, 12345, "QUESTION_UNKNOWN")])
async def test_a_lie_unplugs(patient: Stack, sequence: int, page: int, reason: str) -> None:
    """A page that it was not told of, or an answer to no question, ends the stream; the fault is served still."""
    call = await plugged(patient)
    group, space = await group_with(patient, "mine")
    await touch(patient, space, 0, 1, 2, 3)
    writer = asyncio.ensure_future(touch(patient, space, 4))
    while not (await asyncio.wait_for(call.read(), 30)).HasField("question"):
        pass
    victims = pb.PlugVictims(sequence=sequence, victims=[pb.PlugVictims.Victim(page=page, reason="because")])
    await call.write(pb.PlugRequest(victims=victims))
    await writer
    await expect_refused(call.read(), "FAILED_PRECONDITION", reason)
    assert await policy_of(patient, group) == "lru"
    assert [one.policy for one in await evicted(patient, group)] == ["lru"]


@pytest.mark.inside  # the latest evictions of a host that nobody used before
async def test_an_empty_answer_lets_the_first_go(patient: Stack) -> None:
    """A policy that knows no page that may go stays; the page that came in first goes, and the record says why."""
    call = await plugged(patient)
    group, space = await group_with(patient, "mine")
    await touch(patient, space, 0, 1, 2, 3)
    writer = asyncio.ensure_future(touch(patient, space, 4))
    while not (said := await asyncio.wait_for(call.read(), 30)).HasField("question"):
        pass
    await call.write(pb.PlugRequest(victims=pb.PlugVictims(sequence=said.question.sequence)))
    await writer
    (one,) = await evicted(patient, group)
    assert (one.policy, one.victim.address) == ("mine", BASE) and "named no page" in one.reason
    assert await policy_of(patient, group) == "mine"
    call.cancel()


async def test_what_does_not_plug_in(stack: Stack) -> None:
    """A name that exists or is malformed, no summary, an answer before open, a second open."""
    call = stack.policies.Plug()
    await call.write(pb.PlugRequest(open=pb.PlugOpen(policy=pb.Policy(name="lru", summary="x"))))
    await expect_refused(call.read(), "ALREADY_EXISTS", "POLICY_EXISTS")
    for policy in (pb.Policy(name="No", summary="x"), pb.Policy(name="mine"), pb.Policy(name="x" * 32, summary="x")):
        call = stack.policies.Plug()
        await call.write(pb.PlugRequest(open=pb.PlugOpen(policy=policy)))
        await expect_refused(call.read(), "INVALID_ARGUMENT")
    call = stack.policies.Plug()
    await call.write(pb.PlugRequest(victims=pb.PlugVictims(sequence=1)))
    await expect_refused(call.read(), "FAILED_PRECONDITION", "PLUG_NOT_OPENED")
    call = await plugged(stack)
    await call.write(pb.PlugRequest(open=pb.PlugOpen(policy=pb.Policy(name="other", summary="x"))))
    await expect_refused(call.read(), "FAILED_PRECONDITION", "PLUG_NOT_OPENED")
    again = await plugged(stack)
    again.cancel()
