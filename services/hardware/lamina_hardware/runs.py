"""One `Cpu.Run` stream: requests in, responses out, in any order. Reading never waits for writing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_hardware import convert
from lamina_hardware.domain.arbiter import Run
from lamina_hardware.engines.model.engine import Ended
from lamina_hardware.io.dispatcher import Dispatcher
from lamina_kit.errors import FailedPrecondition, InvalidArgument


class RunStream:
    """The runs of one stream. Ending it cancels those in progress."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._done: deque[pb.RunResponse] = deque()
        self._runs: dict[int, Run] = {}
        self._wake: asyncio.Future[None] | None = None

    async def serve(self, requests: AsyncIterator[pb.RunRequest]) -> AsyncIterator[pb.RunResponse]:
        """Yields responses until the requests have ended and every run has."""
        loop = asyncio.get_running_loop()
        reader = loop.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._notify())
        try:
            while True:
                while self._done:
                    yield self._done.popleft()
                if reader.done() and (error := reader.exception()) is not None:
                    raise error
                if reader.done() and not self._runs:
                    return
                self._wake = loop.create_future()
                await self._wake
        finally:
            reader.cancel()
            self._cancel_all()

    async def _read(self, requests: AsyncIterator[pb.RunRequest]) -> None:
        """Begins a run for each request."""
        async for request in requests:
            self._begin(request)

    def _begin(self, request: pb.RunRequest) -> None:
        if request.budget_instructions < 0:
            raise InvalidArgument(
                f"budget_instructions is {request.budget_instructions}, below 0.",
                reason="BUDGET_NEGATIVE",
                next_step="Give a number of instructions, or 0 for no limit.",
            )
        handle = convert.handle(request.handle)
        ended: list[Ended] = []
        try:
            run = self._dispatcher.begin(handle, request.budget_instructions, request.sequence, ended.append)
        except FailedPrecondition as error:
            self._respond(convert.refusal(request, error.reason))
            return
        if ended:
            self._respond(convert.run_response(ended[0]))
        else:
            self._runs[run.context.key] = run
            run.tag = self._finish

    def _finish(self, ended: Ended) -> None:
        self._runs.pop(ended.run.context.key, None)
        self._respond(convert.run_response(ended))

    def _respond(self, response: pb.RunResponse) -> None:
        self._done.append(response)
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _cancel_all(self) -> None:
        for run in list(self._runs.values()):
            run.tag = _ignore
            self._dispatcher.cancel(run.context)
        self._runs.clear()


def _ignore(ended: Ended) -> None:
    """Takes the end of a run whose stream is gone."""
