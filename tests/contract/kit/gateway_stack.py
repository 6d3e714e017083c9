"""A small service on a virtual loop behind a gateway, with its input log and its replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from lamina_kit.errors import LaminaError
from lamina_kit.gateway.gateway import Gateway
from lamina_kit.gateway.log import EventTally, Header, InputLog, Record
from lamina_kit.gateway.log_reader import InputLogReader
from lamina_kit.gateway.pace import Pace
from lamina_kit.gateway.ports import serve_port
from lamina_kit.gateway.replay import Played, Replay
from lamina_kit.layer.service import Served, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc import status
from lamina_kit.rpc.channel import Channel, connect
from lamina_kit.rpc.inproc.local import LocalServer
from lamina_kit.virtual.clock import VirtualClock
from lamina_kit.virtual.loop import VirtualLoop

SERVICE = "lamina.test.v1.Timed"
HEADER = Header("0", "1.0", {}, "0")
SEED = 7
SECOND, HOUR = 10**9, 3600 * 10**9


class Timed:
    """A service whose handlers take time, chance and events from the stack that it lives in."""

    layer = "timed"
    service_names = (SERVICE,)

    def __init__(self, loop: VirtualLoop, note: str = "") -> None:
        self.loop = loop
        self.clock = VirtualClock(loop, mode="stepped")
        self.rng = Rng(SEED)
        self.state = LayerState("timed", "h1", self.clock, Rng(SEED), boot_id="boot-1")
        self.note = note
        self.cancelled = 0
        self.seen: list[Any] = []

    async def start(self) -> None:
        """Has nothing to open."""

    async def stop(self) -> None:
        """Records its orderly end."""
        self.state.events.record("timed", "stopped")

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the handlers."""
        codecs: Any = {
            "request_deserializer": StringValue.FromString,
            "response_serializer": StringValue.SerializeToString,
        }
        unary: Any = grpc.unary_unary_rpc_method_handler
        handlers: dict[str, Any] = {
            name: unary(getattr(self, name), **codecs) for name in ("Echo", "Sleep", "Draw", "Hold", "Spin", "Metadata")
        }
        handlers["Ticks"] = grpc.unary_stream_rpc_method_handler(self.Ticks, **codecs)
        handlers["Flood"] = grpc.unary_stream_rpc_method_handler(self.Flood, **codecs)
        handlers["WatchNothing"] = grpc.unary_stream_rpc_method_handler(self.WatchNothing, **codecs)
        handlers["Talk"] = grpc.stream_stream_rpc_method_handler(self.Talk, **codecs)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def Echo(self, request: StringValue, context: Any) -> StringValue:
        return StringValue(value=request.value + self.note)

    async def Sleep(self, request: StringValue, context: Any) -> StringValue:
        await self.clock.sleep_ns(int(request.value))
        self.state.events.record("timed", "slept", ns=request.value)
        return StringValue(value=str(self.loop.now_ns))

    async def Draw(self, request: StringValue, context: Any) -> StringValue:
        await self.clock.sleep_ns(self.rng.randrange(10**9))
        drawn = self.rng.id(request.value)
        self.state.events.record(request.value, "drawn", id=drawn)
        return StringValue(value=drawn)

    async def Metadata(self, request: StringValue, context: Any) -> StringValue:
        self.seen = list(context.invocation_metadata())
        return request

    async def Hold(self, request: StringValue, context: Any) -> StringValue:
        await self._until_cancelled()
        return request

    async def Spin(self, request: StringValue, context: Any) -> StringValue:
        try:
            while True:  # noqa: ASYNC110 (it waits for nothing: it spins)
                await asyncio.sleep(0)
        finally:
            self.cancelled += 1
            self.state.events.record("timed", "spun")

    async def Ticks(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        try:
            while True:
                yield StringValue(value=str(self.loop.now_ns))
                await self.clock.sleep_ns(int(request.value))
        finally:
            self.cancelled += 1
            self.state.events.record("timed", "ticked")

    async def Flood(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        try:
            while True:
                yield request
        finally:
            self.cancelled += 1

    async def WatchNothing(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        yield request
        await self._until_cancelled()

    async def Talk(self, requests: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for request in requests:
            await self.clock.sleep_ns(self.rng.randrange(1000))
            self.state.events.record("timed", "said", what=request.value)
            yield StringValue(value=request.value.upper())

    async def _until_cancelled(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled += 1


@dataclass
class Gate:
    """What a test sees: the service, its gateway, a channel to its port, and its log."""

    service: Timed
    gateway: Gateway
    channel: Channel
    log: Path
    target: str
    lines: list[str] = field(default_factory=list)
    """The events of the stack."""
    served: Served | None = None

    @property
    def loop(self) -> VirtualLoop:
        """The loop of the stack."""
        return self.service.loop

    def call(self, name: str, kind: str = "unary_unary", channel: Channel | None = None) -> Any:
        """Returns what a stub would call for a method."""
        make: Any = getattr(channel or self.channel, kind)
        return make(
            f"/{SERVICE}/{name}",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )

    async def ask(self, name: str, value: object = "", **options: Any) -> str:
        """Calls a method with one answer. Returns its text."""
        answer: StringValue = await self.call(name)(StringValue(value=str(value)), **options)
        return answer.value

    def stream(self, name: str, value: object = "", **options: Any) -> Any:
        """Opens a stream of answers."""
        return self.call(name, "unary_stream")(StringValue(value=str(value)), **options)

    def records(self, *kinds: str) -> list[Record]:
        """Returns what the log holds so far, of some kinds."""
        reader = InputLogReader(self.log)
        found: list[Record] = []
        try:
            for record in reader:
                found.append(record)
        except LaminaError as error:
            assert error.reason == "INPUT_LOG_CUT"
        finally:
            reader.close()
        return [record for record in found if not kinds or record.kind in kinds]

    async def close(self) -> None:
        """Ends calls and clock, the port, then the stack: the log has its end. Idempotent."""
        await self.gateway.shut(0.2)
        if self.served is not None:
            served, self.served = self.served, None
            await served.stop(0)
        await self.channel.close()
        await self.gateway.stop(self.service.stop)


@asynccontextmanager
async def gate(
    folder: Path, pace: Pace | None = None, log: InputLog | None = None, address: str = ""
) -> AsyncIterator[Gate]:
    """Yields the service behind a gateway with the pace (default: stepped, standing still) that logs in `folder`."""
    loop = VirtualLoop(SEED)
    service = Timed(loop)
    lines: list[str] = []
    tally = EventTally(lines.append)
    service.state.events.sink = lambda entry: tally.add(entry.json_line())
    log = log or InputLog(folder / "input.jsonl", HEADER)
    gateway = Gateway(loop, pace or Pace("stepped", rate_permille=0), log, tally)

    async def start() -> dict[str, LocalServer]:
        return {"timed": local(service, service.state).server}

    gateway.add(await gateway.within(start))
    served = await serve_port(gateway, service, [address or f"unix:{folder}/gate.sock"], service.state)
    found = Gate(service, gateway, connect(served.addresses[0]), log.path, served.addresses[0], lines, served)
    try:
        yield found
    finally:
        await found.close()


def replayed(log: Path, note: str = "") -> tuple[Played, list[str], list[LaminaError]]:
    """Replays a log on a fresh service. Returns what was replayed, the events, and the differences.

    It must not be called while an event loop runs.
    """
    loop = VirtualLoop(SEED)
    service = Timed(loop, note)
    lines: list[str] = []
    tally = EventTally(lines.append)
    service.state.events.sink = lambda entry: tally.add(entry.json_line())
    differences: list[LaminaError] = []

    async def start() -> dict[str, LocalServer]:
        return {"timed": local(service, service.state).server}

    servers = loop.run_until_complete(start())
    reader = InputLogReader(log)
    try:
        played = Replay(loop, servers, tally, differences.append).play(reader, service.stop)
    finally:
        reader.close()
    return played, lines, differences


async def same_again(found: Gate) -> None:
    """Closes the stack and checks that its log leads a fresh one through the same history."""
    await found.close()
    played, lines, differences = await asyncio.to_thread(replayed, found.log)
    assert differences == []
    assert lines == found.lines and played.stopped and played.now_ns == found.loop.now_ns


async def refusal(call: Any) -> LaminaError:
    """Returns the error with which a call from outside ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status.rpc_error(caught.value)
