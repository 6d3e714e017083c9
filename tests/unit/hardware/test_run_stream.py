"""A stream of runs over a dispatcher made of lists: what is answered, in which order, and what an end cancels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_hardware.domain.contexts.context import Handle
from lamina_hardware.engines.model.engine import Ended
from lamina_hardware.serving.run_stream import RunStream
from lamina_kit.errors import FailedPrecondition, InvalidArgument

EXIT = int(pb.EXIT_REASON_SYSCALL)


class Dispatcher:
    """Begins runs: some end at once, some are refused, others end when the test says so."""

    def __init__(self) -> None:
        self.runs: dict[int, Any] = {}
        self.canceled: list[int] = []
        self.at_once: set[int] = set()

    def begin(self, handle: Any, budget: int, sequence: int, ended: Callable[[Ended], None]) -> Any:
        """Begins a run."""
        if handle.generation != 1:
            raise FailedPrecondition("gone", reason="HANDLE_STALE")
        context = SimpleNamespace(key=handle.id, handle=Handle(handle.id, 1))
        run: Any = SimpleNamespace(
            context=context, sequence=sequence, consumed=budget, run_ns=0, wait_ns=0, core=0, tag=None
        )
        self.runs[handle.id] = run
        if handle.id in self.at_once:
            ended(Ended(run, EXIT))
        return run

    def end(self, key: int) -> None:
        """Ends a run."""
        run = self.runs[key]
        run.tag(Ended(run, EXIT))

    def cancel(self, context: Any) -> None:
        """Cancels a run, which ends then."""
        self.canceled.append(context.key)
        self.end(context.key)


class Client:
    """The other end: requests as a queue, responses as a list that takes one at a time when it is told to."""

    def __init__(self) -> None:
        self.dispatcher = Dispatcher()
        self.requests: asyncio.Queue[pb.RunRequest | None] = asyncio.Queue()
        self.answers: list[pb.RunResponse] = []
        self.room = asyncio.Event()
        self.room.set()
        dispatcher: Any = self.dispatcher
        context: Any = self
        self.served = asyncio.create_task(RunStream(dispatcher, context).serve(self._read()))

    async def _read(self) -> AsyncIterator[pb.RunRequest]:
        while (request := await self.requests.get()) is not None:
            yield request

    async def write(self, response: pb.RunResponse) -> None:
        """Takes a response."""
        await self.room.wait()
        self.answers.append(response)

    async def ask(self, key: int, generation: int = 1, budget: int = 0) -> None:
        """Sends a request whose sequence is ten times the key."""
        handle = handle_pb2.Handle(id=key, generation=generation)
        request = pb.RunRequest(handle=handle, sequence=10 * key, budget_instructions=budget)
        await self.requests.put(request)
        await settle()

    def sequences(self) -> list[int]:
        """Returns the sequences that were answered."""
        return [answer.sequence for answer in self.answers]


async def settle() -> None:
    """Lets everything happen that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_runs_are_answered_when_they_end() -> None:
    """In any order; one that ends at once is answered too, and the stream ends when the last has."""
    client = Client()
    client.dispatcher.at_once = {3}
    for key in (1, 2, 3):
        await client.ask(key, budget=key)
    client.dispatcher.end(2)
    await settle()
    assert client.sequences() == [30, 20]
    await client.requests.put(None)
    await settle()
    assert not client.served.done()
    client.dispatcher.end(1)
    await asyncio.wait_for(client.served, 5)
    assert client.sequences() == [30, 20, 10]
    assert [answer.instructions for answer in client.answers] == [3, 2, 1]
    assert {answer.reason for answer in client.answers} == {pb.EXIT_REASON_SYSCALL}
    assert client.dispatcher.canceled == []


async def test_a_slow_reader_gets_everything_in_order() -> None:
    """What ends while a response is on its way waits behind it; nothing is lost, and the stream waits for the last."""
    client = Client()
    client.room.clear()
    for key in (1, 2, 3):
        await client.ask(key)
    for key in (2, 1, 3):
        client.dispatcher.end(key)
    await client.requests.put(None)
    await settle()
    assert (client.answers, client.served.done()) == ([], False)
    client.room.set()
    await asyncio.wait_for(client.served, 5)
    assert client.sequences() == [20, 10, 30]


async def test_a_run_that_is_not_begun_is_answered() -> None:
    """It is refused with the reason, and other runs go on."""
    client = Client()
    await client.ask(1)
    await client.ask(2, generation=7)
    [answer] = client.answers
    assert (answer.sequence, answer.reason, answer.detail) == (20, pb.EXIT_REASON_REFUSED, "HANDLE_STALE")
    assert answer.handle == handle_pb2.Handle(id=2, generation=7)
    client.dispatcher.end(1)
    await client.requests.put(None)
    await asyncio.wait_for(client.served, 5)
    assert client.sequences() == [20, 10]


async def test_a_wrong_request_ends_the_stream_and_its_runs() -> None:
    """A budget below 0 is refused; what runs is canceled, and its end is told to nobody."""
    client = Client()
    await client.ask(1, budget=0)
    await client.ask(2)
    client.dispatcher.end(2)
    await client.ask(3, budget=-1)
    with pytest.raises(InvalidArgument) as refused:
        await asyncio.wait_for(client.served, 5)
    assert refused.value.reason == "BUDGET_NEGATIVE"
    assert (client.dispatcher.canceled, client.sequences()) == ([1], [20])
