"""Serves `lamina.mmu.v1.Replays`: the trace comes in on one side of a call, what became of it goes out on the other.

Reading never waits for writing: the trace is read and replayed by a task of its own, and of the reports of progress
that the caller has not taken yet only the newest is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from lamina.mmu.v1 import replay_pb2 as pb
from lamina.mmu.v1 import replay_pb2_grpc as rpc

from lamina_kit.checks import Checks
from lamina_kit.errors import FailedPrecondition, InvalidArgument
from lamina_kit.rng import Rng

if TYPE_CHECKING:
    from lamina_mmu.replay.outcome import Progress
    from lamina_mmu.replay.replay import Replay

Context = grpc.aio.ServicerContext[Any, Any]

MAX_CHUNK = 1 << 20


class ReplaysServicer(rpc.ReplaysServicer):
    """Replays of traces. They touch no RAM: they are served before the layer has started, too.

    `folder` is where the trace of a replay lies that needs the future, while it lasts.
    """

    def __init__(self, folder: Path, rng: Rng) -> None:
        self._folder = folder
        self._key = rng.child("replays").getrandbits(63)

    async def Replay(
        self, request_iterator: AsyncIterator[pb.ReplayRequest], context: Context
    ) -> AsyncIterator[pb.ReplayResponse]:
        """Replays one trace."""
        call = ReplayCall(request_iterator, self._folder, self._key)
        async for response in call.responses():
            yield response


class ReplayCall:
    """One call."""

    def __init__(self, requests: AsyncIterator[pb.ReplayRequest], folder: Path, key: int) -> None:
        self._requests = requests
        self._folder, self._key = folder, key
        self._latest: Progress | None = None
        self._news = asyncio.Event()

    async def responses(self) -> AsyncIterator[pb.ReplayResponse]:
        """Yields progress while the trace is read, then what came out."""
        replay = await self._open()
        from lamina_mmu.convert import replay as convert_replay

        reading = asyncio.get_running_loop().create_task(self._read(replay))
        reading.add_done_callback(lambda _: self._news.set())
        try:
            while not reading.done() or self._latest is not None:
                await self._news.wait()
                self._news.clear()
                report, self._latest = self._latest, None
                if report is not None:
                    for message in convert_replay.responses(report):
                        yield message
                if reading.done():
                    self._news.set()
            await reading
            for outcome in replay.outcomes():
                if outcome is None:
                    await asyncio.sleep(0)
                    continue
                for message in convert_replay.responses(outcome):
                    yield message
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            replay.close()

    async def _open(self) -> Replay:
        """Takes the first message. The compiled code is imported now, by who uses it."""
        request = await anext(self._requests, None)
        if request is None or not request.HasField("open"):
            raise FailedPrecondition(
                "The first message of a replay is not `open`.",
                reason="REPLAY_NOT_OPENED",
                next_step="Say first what to replay.",
            )
        from lamina_mmu.convert import replay as convert_replay
        from lamina_mmu.replay.replay import Replay

        return Replay(convert_replay.plan(request.open), self._folder, self._key)

    async def _read(self, replay: Replay) -> None:
        """Reads the trace to its end; a stream that ends without saying so was cut off."""
        async for request in self._requests:
            kind = request.WhichOneof("request")
            if kind == "end":
                await self._work(replay.end(complete=True))
                return
            await self._work(self._batch(replay, request, kind))
        await self._work(replay.end(complete=False))

    def _batch(self, replay: Replay, request: pb.ReplayRequest, kind: str | None) -> Iterable[Progress | None]:
        """Returns the work that a message asks for."""
        from lamina_mmu.convert import replay as convert_replay

        if kind == "columns" and replay.takes_columns:
            return replay.columns(convert_replay.columns(request.columns))
        if kind == "chunk" and not replay.takes_columns:
            with Checks() as check:
                check.max_bytes("chunk", request.chunk, MAX_CHUNK)
            return replay.chunk(request.chunk)
        raise InvalidArgument(
            f"A replay in this format takes no message {kind or 'without content'!r} here.",
            reason="REQUEST_INVALID",
            next_step="After `open` send columns with FORMAT_COLUMNS, chunks otherwise, and then `end`.",
        )

    async def _work(self, steps: Iterable[Progress | None]) -> None:
        """Does work a piece at a time, with room for others in between."""
        for report in steps:
            if report is not None:
                self._latest = report
                self._news.set()
            await asyncio.sleep(0)
