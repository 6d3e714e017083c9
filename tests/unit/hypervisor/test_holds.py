"""What the memory layer says while it is held, and how a hold ends."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import MagicMock

import grpc
import pytest
from lamina.common.v1 import access_pb2
from lamina.mmu.v1 import mmu_pb2
from tests.unit.hypervisor.conftest import World
from tests.unit.hypervisor.test_hypervisor import kinds_of_effects, turns

from lamina_hypervisor.domain.memory.addresses import Gpa
from lamina_hypervisor.domain.memory.hold import Age, Granted, Opened, Refused, Revocation
from lamina_hypervisor.engines import effects
from lamina_hypervisor.io import guest_memory
from lamina_hypervisor.io.performer import bind
from lamina_kit.errors import (
    Unavailable,
)


def test_messages_of_a_hold() -> None:
    """Each message of the stream is read with all it says; what is not known is the opening."""
    said = [
        mmu_pb2.HoldResponse(grant=mmu_pb2.HoldGrant(sequence=1, address=0x5000, frame=9, writable=True)),
        mmu_pb2.HoldResponse(grant=mmu_pb2.HoldGrant(sequence=2, address=0x5000, frame=9, executable=True)),
        mmu_pb2.HoldResponse(
            refusal=mmu_pb2.HoldRefusal(sequence=3, outcome=mmu_pb2.FaultResponse.OUTCOME_OUT_OF_MEMORY)
        ),
        mmu_pb2.HoldResponse(revocation=mmu_pb2.HoldRevocation(revocation=4, addresses=[1, 2], write_only=True)),
        mmu_pb2.HoldResponse(age=mmu_pb2.HoldAge(sequence=5, addresses=[3])),
        mmu_pb2.HoldResponse(),
    ]
    assert [guest_memory.parse(message) for message in said] == [
        Granted(1, Gpa(0x5000), 9, True, False),  # type: ignore[arg-type]
        Granted(2, Gpa(0x5000), 9, False, True),  # type: ignore[arg-type]
        Refused(3, "OUT_OF_MEMORY"),
        Revocation(4, (Gpa(1), Gpa(2)), True),
        Age(5, (Gpa(3),)),
        Opened(),
    ]


def test_every_effect_of_the_engine_is_performed() -> None:
    """There is nothing that the engine asks for and nobody does."""
    perform = bind(World().clock, MagicMock(), MagicMock(), lambda vm, error: None)
    assert kinds_of_effects() <= set(perform._handlers)


class Call:
    """A hold stream in memory: what is said is kept, what is answered comes from a queue."""

    def __init__(self) -> None:
        self.said: list[mmu_pb2.HoldRequest] = []
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.cancelled = 0

    async def write(self, request: mmu_pb2.HoldRequest) -> None:
        """Keeps what is said."""
        self.said.append(request)

    async def read(self) -> Any:
        """Waits for an answer; an error among them is raised."""
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self) -> None:
        """Counts."""
        self.cancelled += 1


class Line:
    """A hold over a call in memory, with what it delivered and how it was lost."""

    def __init__(self) -> None:
        self.call = Call()
        self.delivered: list[tuple[int, Any]] = []
        self.lost: list[Any] = []
        self.hold = guest_memory.Hold(self.call, self._deliver, self.lost.append)

    async def _deliver(self, position: int, message: Any) -> None:
        self.delivered.append((position, message))

    async def open(self) -> None:
        """Opens the hold."""
        self.call.answers.put_nowait(mmu_pb2.HoldResponse(position=1))
        await self.hold.open(effects.Space(7, 2, "s"), 0x1000)


async def test_a_hold_asks_and_is_answered() -> None:
    """The opening names space and table; each want has its number and its answer, whatever order answers come in."""
    line = Line()
    await line.open()
    opened = line.call.said[0].open
    assert (opened.handle.id, opened.handle.generation, opened.eptp) == (7, 2, 0x1000)
    assert line.delivered == [(1, Opened())]
    first = asyncio.get_running_loop().create_task(line.hold.want(Gpa(0x5000), 2))
    second = asyncio.get_running_loop().create_task(line.hold.want(Gpa(0x6000), 1))
    await turns()
    wants = [request.want for request in line.call.said[1:]]
    assert [(want.sequence, want.address, want.access) for want in wants] == [
        (1, 0x5000, access_pb2.ACCESS_WRITE), (2, 0x6000, access_pb2.ACCESS_READ),
    ]  # fmt: skip
    refusal = mmu_pb2.HoldRefusal(sequence=2, outcome=mmu_pb2.FaultResponse.OUTCOME_OUT_OF_MEMORY)
    line.call.answers.put_nowait(mmu_pb2.HoldResponse(position=2, refusal=refusal))
    line.call.answers.put_nowait(mmu_pb2.HoldResponse(position=3, grant=mmu_pb2.HoldGrant(sequence=1, address=0x5000)))
    assert (await first, await second) == ("", "OUT_OF_MEMORY")
    assert [position for position, _ in line.delivered] == [1, 2, 3]
    await line.hold.close()


async def test_a_hold_that_is_closed_is_not_lost() -> None:
    """Closing ends the stream and whoever waits, without a word to the one who minds losses."""
    line = Line()
    await line.open()
    waiting = asyncio.get_running_loop().create_task(line.hold.want(Gpa(0x5000), 3))
    await turns()
    await line.hold.close()
    with pytest.raises(Unavailable, match="ended the hold"):
        await waiting
    with pytest.raises(Unavailable):
        line.hold.send(mmu_pb2.HoldRequest())
    assert (line.lost, line.call.cancelled) == ([], 1)


async def test_a_hold_that_the_memory_layer_ends_is_lost_once() -> None:
    """The end of the stream fails who waits, is told once, and the stream is given up."""
    line = Line()
    await line.open()
    waiting = asyncio.get_running_loop().create_task(line.hold.want(Gpa(0x5000), 1))
    await turns()
    line.call.answers.put_nowait(grpc.aio.EOF)
    with pytest.raises(Unavailable):
        await waiting
    await turns()
    assert [error.reason for error in line.lost] == ["HOLD_ENDED"]
    assert line.call.cancelled == 1
    with pytest.raises(Unavailable):
        await line.hold.want(Gpa(0x5000), 1)
    refused = Line()
    refused.call.answers.put_nowait(grpc.aio.EOF)
    with pytest.raises(Unavailable):
        await refused.hold.open(effects.Space(7, 2, "s"), 0x1000)
