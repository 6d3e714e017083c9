"""A channel whose calls meet faults: late, lost, made twice, failed, or cut off for a while.

    channel = FaultyChannel(connect(target), PlannedFaults(plan, "mmu", "hardware", clock, events))
    link = Link(clock); channel = FaultyChannel(channel, link); link.cut(); …; link.mend()

It wraps any channel, in process or to a socket, and uses nothing of it but the calls of `grpc.aio`, so both meet the
same faults. A stack without a plan has no such channel. A call that fails looks like a broken connection, that is a
status without Lamina's details, unless the rule names a reason. The calls that it returns are in `faults/calls.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import grpc

from lamina_kit.clock import Clock
from lamina_kit.faults.calls import FaultyStream, FaultyUnary
from lamina_kit.faults.plan import FaultPlan, RpcFault, Verdict
from lamina_kit.rpc.inproc.local import DEFAULT_TIMEOUT_S
from lamina_kit.telemetry.events import EventLog


class Faults(Protocol):
    """What decides about the calls of one channel."""

    clock: Clock

    def decide(self, method: str) -> Verdict | None:
        """Returns what befalls a call of `/package.Service/Method` that begins now."""

    def opened(self, stream: FaultyStream) -> None:
        """Takes note of a stream, which lives as long as its caller keeps it."""


class PlannedFaults:
    """A plan, for the calls from one layer to another. Each fault is an event in `events`, on the method."""

    def __init__(self, plan: FaultPlan, caller: str, layer: str, clock: Clock, events: EventLog) -> None:
        self.clock = clock
        self._plan = plan
        self._caller = caller
        self._layer = layer
        self._events = events

    def decide(self, method: str) -> Verdict | None:
        """Asks the plan, and records what it decides."""
        verdict = self._plan.decide(self._caller, self._layer, method, self.clock.now_ns())
        if verdict is not None:
            kind = verdict.kind.value if verdict.kind is not None else "delay"
            self._events.record(
                method.removeprefix("/"),
                f"rpc.{kind}",
                rule=f"fault plan, rule {verdict.rule}",
                caller=self._caller,
                layer=self._layer,
                delay_ns=verdict.delay_ns,
                later_ns=verdict.later_ns,
                after=verdict.after,
                code=verdict.code,
            )
        return verdict

    def opened(self, stream: FaultyStream) -> None:
        """Has no use for it."""


def planned(channel: Any, plan: FaultPlan | None, caller: str, layer: str, clock: Clock, events: EventLog) -> Any:
    """Returns the channel with a plan's faults, or the channel itself when it has none for this pair of layers."""
    if plan is None or not plan.concerns(caller, layer):
        return channel
    return FaultyChannel(channel, PlannedFaults(plan, caller, layer, clock, events))


class Link:
    """A connection that can be cut: while it is, calls are lost and streams break, and nothing is carried out."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.is_cut = False
        self._streams: list[FaultyStream.Reference] = []

    def cut(self) -> int:
        """Breaks every stream and loses every later call; returns how many streams broke."""
        self.is_cut = True
        streams, self._streams = self._streams, []
        return sum(stream.break_off() for reference in streams if (stream := reference()) is not None)

    def mend(self) -> None:
        """Lets later calls through."""
        self.is_cut = False

    def decide(self, method: str) -> Verdict | None:
        """Loses the call while the link is cut."""
        return Verdict(RpcFault.DROP, 0) if self.is_cut else None

    def opened(self, stream: FaultyStream) -> None:
        """Remembers a stream, to break it when the link is cut."""
        self._streams = [kept for kept in self._streams if (old := kept()) is not None and not old.done()]
        self._streams.append(stream.reference())


class FaultyChannel(grpc.aio.Channel):
    """A channel over `inner` whose calls meet what `faults` decides. Closing it closes `inner`."""

    def __init__(
        self, inner: grpc.aio.Channel, faults: Faults, default_timeout_s: float | None = DEFAULT_TIMEOUT_S
    ) -> None:
        self.inner: Any = inner
        self._faults = faults
        self._timeout = default_timeout_s
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def unary_unary(self, method: str, *codecs: Any, **named: Any) -> Any:
        """Returns what a stub calls for one request and one response."""
        invoke = self.inner.unary_unary(method, *codecs, **named)

        def call(request: Any, *, timeout: float | None = None, **rest: Any) -> Any:
            verdict = self._faults.decide(method)
            if timeout is None:
                timeout = self._timeout
            if verdict is None:
                return invoke(request, timeout=timeout, **rest)

            def begin(left: float | None) -> Any:
                return invoke(request, timeout=left, **rest)

            return FaultyUnary(begin, verdict, method, timeout, self._faults.clock, self._tasks)

        return call

    def stream_unary(self, method: str, *codecs: Any, **named: Any) -> Any:
        """Returns what a stub calls for a stream of requests and one response."""
        return self._streaming(method, self.inner.stream_unary(method, *codecs, **named))

    def unary_stream(self, method: str, *codecs: Any, **named: Any) -> Any:
        """Returns what a stub calls for one request and a stream of responses."""
        return self._streaming(method, self.inner.unary_stream(method, *codecs, **named))

    def stream_stream(self, method: str, *codecs: Any, **named: Any) -> Any:
        """Returns what a stub calls for streams both ways."""
        return self._streaming(method, self.inner.stream_stream(method, *codecs, **named))

    def _streaming(self, method: str, invoke: Callable[..., Any]) -> Any:
        def call(*given: Any, **rest: Any) -> Any:
            verdict = self._faults.decide(method)
            stream = FaultyStream(lambda: invoke(*given, **rest), verdict, method, self._faults.clock, self._tasks)
            self._faults.opened(stream)
            return stream

        return call

    async def __aenter__(self) -> FaultyChannel:
        return self

    async def __aexit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes the inner channel and gives up what waits for a fault to pass."""
        for task in list(self._tasks):
            task.cancel()
        await self.inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Returns the state of the inner channel."""
        state: grpc.ChannelConnectivity = self.inner.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns when the state of the inner channel is another one."""
        await self.inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns once the inner channel's connection stands."""
        await self.inner.channel_ready()
