"""One `Cpu.Run` stream: requests in, responses out, in any order. Reading never waits for writing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from grpc import aio
from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_hardware.convert import cpu
from lamina_hardware.domain.contexts.arbiter import Run
from lamina_hardware.domain.contexts.context import Context
from lamina_hardware.engines.model.engine import Ended
from lamina_hardware.io.cores.dispatcher import Dispatcher
from lamina_kit.errors import FailedPrecondition, InvalidArgument
from lamina_kit.rpc.inproc.call import LocalContext


class RunStream:
    """The runs of one stream, and its responses. Ending it cancels the runs in progress.

    A response goes out where its run ends when the stream can take it there and then; else a task sends what waits.
    """

    def __init__(self, dispatcher: Dispatcher, context: aio.ServicerContext[Any, Any]) -> None:
        self._dispatcher = dispatcher
        self._context = context
        self._local = context if isinstance(context, LocalContext) else None
        self._waiting: deque[pb.RunResponse] = deque()
        self._runs: dict[int, Run] = {}
        self._sender: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._answered: Context | None = None
        self._answer = pb.RunResponse()
        """The response for `_answered` that was sent last, where a stream takes it at once: to be filled again."""

    async def serve(self, requests: AsyncIterator[pb.RunRequest]) -> None:
        """Returns when the requests have ended, every run has, and all responses are sent."""
        if self._local is not None:
            self._local.take_at_once(self._begin)  # a run that ends soon has ended when its request is written
        try:
            async for request in requests:
                self._begin(request)
            while self._runs or self._sender is not None:
                if self._sender is not None:
                    await self._sender
                else:
                    self._ended = asyncio.get_running_loop().create_future()
                    await self._ended
        finally:
            if self._sender is not None:
                self._sender.cancel()
            self._cancel_all()

    def _begin(self, request: pb.RunRequest) -> None:
        if request.budget_instructions < 0:
            raise InvalidArgument(
                f"budget_instructions is {request.budget_instructions}, below 0.",
                reason="BUDGET_NEGATIVE",
                next_step="Give a number of instructions, or 0 for no limit.",
            )
        ended: list[Ended] = []
        try:
            run = self._dispatcher.begin(request.handle, request.budget_instructions, request.sequence, ended.append)
        except FailedPrecondition as error:
            self._respond(cpu.refusal(request, error.reason))
            return
        if ended:
            self._tell(ended[0])
        else:
            self._runs[run.context.key] = run
            run.tag = self._finish

    def _finish(self, ended: Ended) -> None:
        self._runs.pop(ended.run.context.key, None)
        self._tell(ended)

    def _tell(self, ended: Ended) -> None:
        """Responds to a run that ended."""
        if self._sender is not None or self._local is None:
            self._respond(cpu.run_response(ended))
            return
        if self._answered is ended.run.context:
            cpu.fill_response(self._answer, ended)
        else:
            self._answer, self._answered = cpu.run_response(ended), ended.run.context
        if self._ended is not None or not self._local.write_at_once(self._answer):
            self._respond(self._answer)

    def _respond(self, response: pb.RunResponse) -> None:
        if self._sender is not None:
            self._waiting.append(response)
        elif self._local is None or not self._local.write_at_once(response):
            self._answered = None  # it is the task's now
            self._sender = asyncio.get_running_loop().create_task(self._send(response))
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    async def _send(self, response: pb.RunResponse) -> None:
        """Sends a response, and those that come meanwhile."""
        await self._context.write(response)
        while self._waiting:
            await self._context.write(self._waiting.popleft())
        self._sender = None

    def _cancel_all(self) -> None:
        for run in list(self._runs.values()):
            run.tag = _ignore
            self._dispatcher.cancel(run.context)
        self._runs.clear()


def _ignore(ended: Ended) -> None:
    """Takes the end of a run whose stream is gone."""
