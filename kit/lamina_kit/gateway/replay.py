"""Replays an input log on a stack of the same kind: the other half of `gateway.py`, without sockets and real time.

    loop.run_until_complete(stack.start())
    Replay(loop, servers, tally, on_difference).play(reader, stack.stop)

The stack is what it was (seed, configuration), the inputs come at the same instants in the same order, so everything
that happens is the same. Where it is not, `on_difference` is given an error that says what and where; it may raise it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass
from functools import partial

import grpc

from lamina_kit.errors import DataLoss, LaminaError
from lamina_kit.gateway.inner_call import Injector, collect_garbage
from lamina_kit.gateway.log import AnswerTally, EventTally, Record
from lamina_kit.rpc.inproc.call import Pairs
from lamina_kit.rpc.inproc.local import LocalServer
from lamina_kit.virtual.loop import VirtualLoop


class Answers:
    """The `Outlet` of a replayed call: counts and digests what it is answered."""

    def __init__(self) -> None:
        self.tally = AnswerTally()
        self.code: grpc.StatusCode | None = None

    def initial(self, metadata: Pairs) -> None:
        """Takes the initial metadata."""

    def message(self, data: bytes) -> None:
        """Takes the next message."""
        self.tally.add(data)

    def end(self, code: grpc.StatusCode, details: str, trailing: Pairs) -> None:
        """Takes the status."""
        self.code = code

    def taken(self, size: int) -> None:
        """Learns that the stack has taken a message of the client."""


@dataclass
class Played:
    """What was replayed."""

    records: int = 0
    calls: int = 0
    now_ns: int = 0
    events: int = 0
    stopped: bool = False
    """Whether the log held the stack's orderly stop."""
    differences: int = 0


class Replay:
    """Replays records on a stack that has been started on `loop`.

    `servers` are its layers' in-process servers, `tally` counts its events; both as the gateway had them.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        servers: Mapping[str, LocalServer],
        tally: EventTally,
        on_difference: Callable[[LaminaError], None],
    ) -> None:
        self._loop = loop
        self._injector = Injector()
        self._injector.add(servers)
        self._tally = tally
        self._on_difference = on_difference
        self._answers: dict[int, Answers] = {}
        self._cancelled: list[int] = []
        self.played = Played()

    def play(self, records: Iterable[Record], stop: Callable[[], Awaitable[object]]) -> Played:
        """Replays the records, the stack's stop with them when they hold it. Returns what was replayed.

        Errors of reading the records and of `on_difference` pass; the stack is then as far as it came.
        """
        for record in records:
            self._reach(record)
            if record.events != self._tally.count:
                self._differ(record, f"{record.events} events before it, here {self._tally.count}")
            if record.kind == "stop":
                self._loop.run_until_complete(stop())
                self.played.stopped = True
            elif record.kind == "end":
                if record.sha256 != self._tally.sha256:
                    self._differ(record, f"an event log of SHA-256 {record.sha256}, here {self._tally.sha256}")
            else:
                self._inject(record)
            self.played.records += 1
            self.played.now_ns, self.played.events = self._loop.now_ns, self._tally.count
        return self.played

    def _reach(self, record: Record) -> None:
        """Runs the stack up to a record's place."""
        if record.ns < self._loop.now_ns:
            self._differ(record, f"time {record.ns} ns, which has passed here: it is {self._loop.now_ns} ns")
        until_ns = max(record.ns, self._loop.now_ns)
        if record.callbacks is None:
            self._loop.run_until_quiescent(until_ns)
            self._forget_cancelled()
            return
        left = record.callbacks - self._loop.callbacks
        if left > 0:
            self._loop.run_until_quiescent(until_ns, max_callbacks=left)
        if self._loop.callbacks != record.callbacks:
            self._differ(record, f"{record.callbacks} callbacks before it, here {self._loop.callbacks}")

    def _forget_cancelled(self) -> None:
        for call in self._cancelled:
            if not self._injector.is_open(call):
                self._injector.forget(call)
        self._cancelled.clear()

    def _inject(self, record: Record) -> None:
        if record.kind == "open":
            self._injector.check(record)
            self.played.calls += 1
            answers = self._answers[record.call] = Answers()
            self._loop.call_soon(partial(self._injector.open, record, answers), context=Context())
        elif record.kind == "answered":
            self._compare(record)
        elif record.kind == "collect":
            collect_garbage()
        elif record.call:
            self._loop.call_soon(self._injector.apply, record, context=Context())
            if record.kind in ("cancel", "deadline"):
                del self._answers[record.call]
                self._cancelled.append(record.call)

    def _compare(self, record: Record) -> None:
        """Checks that a call ended as it had, and forgets it."""
        answers = self._answers.pop(record.call)
        self._injector.forget(record.call)
        here = answers.tally.record(record.call, answers.code.name if answers.code is not None else "still open")
        if (here.code, here.messages, here.sha256) != (record.code, record.messages, record.sha256):
            self._differ(
                record,
                f"call {record.call} ending as {record.code} with {record.messages} messages of SHA-256"
                f" {record.sha256[:12]}…, here {here.code} with {here.messages} of {here.sha256[:12]}…",
            )

    def _differ(self, record: Record, what: str) -> None:
        self.played.differences += 1
        self._on_difference(
            DataLoss(
                f"The replay goes another way: record {record.sequence} ({record.kind}, at {record.ns} ns) has {what}.",
                reason="REPLAY_DIVERGED",
                next_step="Replay with the same version and software; with both the same it is a defect: report it.",
                sequence=record.sequence,
            )
        )
