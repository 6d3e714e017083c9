"""An idle stack costs nothing: what is periodic and cannot change anything schedules no event."""

from __future__ import annotations

import asyncio

import pytest

from lamina_cli.demo.cluster import is_ready
from lamina_cli.output.objects import body
from lamina_cli.stack.embedded import Settings, Stack, private_stack
from lamina_kit.virtual.loop import VirtualLoop

DAY_S = 86_400
HOSTS = 10
MOST_EVENTS = 2_000
"""Far below the 200,000 that were promised: today it is 9. A ticker of one a minute on each host would break it."""


async def started(stack: Stack) -> None:
    """Lets the minute pass in which leases are taken and nodes become ready."""
    await asyncio.sleep(60)


def test_a_day_of_ten_idle_hosts_stays_under_its_budget_of_events() -> None:
    """A simulated day of ten hosts in which nobody asks for anything takes a handful of loop events."""
    loop = VirtualLoop(3, strict=True)

    async def day() -> int:
        async with private_stack(Settings(seed=3, clock="virtual", hosts=HOSTS)) as stack:
            await started(stack)
            before = loop.callbacks
            await asyncio.sleep(DAY_S)
            await _answers(stack)
            return loop.callbacks - before

    assert loop.run(day()) < MOST_EVENTS
    assert loop.now_ns >= DAY_S * 10**9


async def _answers(stack: Stack) -> None:
    """Checks that all nodes are ready after the day: idle is not dead."""
    from lamina.orchestrator.v1 import orchestrator_pb2 as pb
    from lamina.orchestrator.v1 import orchestrator_pb2_grpc as services

    stub = services.ObjectsStub(stack.channels["orchestrator"])
    nodes = (await stub.ListObjects(pb.ListObjectsRequest(kind="Node"))).objects
    assert sorted(node.name for node in nodes) == sorted(f"h{number}" for number in range(1, HOSTS + 1))
    assert all(is_ready(body(node)) for node in nodes)


@pytest.mark.parametrize("hosts", [0, 1001])
def test_a_number_of_hosts_that_cannot_be_is_refused(hosts: int) -> None:
    """The error names the field."""
    from lamina_kit.errors import InvalidArgument

    with pytest.raises(InvalidArgument) as caught:
        Settings(hosts=hosts).host_names()
    assert caught.value.reason == "HOSTS_OUT_OF_RANGE"


def test_hosts_are_named_after_the_first() -> None:
    """`h1` goes on with h2, `rack7` with rack8; a name without a number has no successor."""
    from lamina_kit.errors import InvalidArgument

    assert Settings(hosts=3).host_names() == ("h1", "h2", "h3")
    assert Settings(host="rack7", hosts=2).host_names() == ("rack7", "rack8")
    with pytest.raises(InvalidArgument):
        Settings(host="solo", hosts=2).host_names()
    assert Settings(host="solo").host_names() == ("solo",)
