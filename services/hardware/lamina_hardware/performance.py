"""Counters priced by the cost table, and the contexts whose accesses are observed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from lamina_hardware.domain.contexts.context import Context
from lamina_hardware.domain.contexts.costs import CostTable, Price
from lamina_hardware.domain.contexts.counts import Counts
from lamina_hardware.domain.paging.tlb import TlbContent
from lamina_hardware.engines.interface import CorePath
from lamina_hardware.engines.model.engine import ModelEngine
from lamina_hardware.io.cores.dispatcher import Dispatcher
from lamina_hardware.io.emulator.observation.queue import Accesses, Observation
from lamina_kit.errors import FailedPrecondition, OutOfRange, Unimplemented

MAX_QUEUED = 1 << 20
"""Accesses that wait for a watcher; what comes beyond is lost, and counted."""


class Watcher:
    """One stream of accesses: batches in, batches of a chosen size out; the context never waits for it."""

    def __init__(self, kinds: list[int], batch_size: int) -> None:
        self._kinds = np.array(kinds, dtype=np.uint8)
        self._batch_size = batch_size
        self._queue: deque[Accesses] = deque()
        self._queued = 0
        self._lost = 0
        self._ended = False
        self._wake: asyncio.Future[None] | None = None

    def receive(self, found: Accesses) -> None:
        """Takes what a slice did."""
        chosen = self._choose(found)
        self._lost += found.lost
        if self._queued + len(chosen.kinds) > MAX_QUEUED:
            self._lost += len(chosen.kinds)
        elif len(chosen.kinds):
            self._queue.append(chosen)
            self._queued += len(chosen.kinds)
        self._notify()

    def end(self) -> None:
        """Ends the stream once it is empty."""
        self._ended = True
        self._notify()

    async def batches(self) -> AsyncIterator[Accesses]:
        """Yields batches in order, with what was lost before each; a last one without accesses if only that is left."""
        while True:
            while self._queue:
                whole = self._queue.popleft()
                for start in range(0, len(whole.kinds), self._batch_size):
                    lost, self._lost = self._lost, 0
                    part = _part(whole, start, start + self._batch_size, lost)
                    self._queued -= len(part.kinds)
                    yield part
            if self._ended:
                if self._lost:
                    yield _part(_NO_ACCESSES, 0, 0, self._lost)
                return
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    def _choose(self, found: Accesses) -> Accesses:
        if not self._kinds.size:
            return found
        mask = np.isin(found.kinds, self._kinds)
        return Accesses(found.addresses[mask], found.kinds[mask], found.instructions[mask], found.lost)

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Performance:
    """The performance counters of one machine."""

    def __init__(self, engine: ModelEngine, dispatcher: Dispatcher, path: CorePath) -> None:
        self._engine, self._dispatcher, self._path = engine, dispatcher, path
        self.costs = CostTable()
        self._watchers: dict[int, list[Watcher]] = {}

    def of_context(self, context: Context) -> tuple[Counts, Price]:
        """Returns what a context counted and spent."""
        return context.counts, self.costs.price(f"context {context.key}", context.counts)

    def of_core(self, core: int) -> tuple[Counts, Price]:
        """Returns what a core counted and spent. Raises `OutOfRange` `CORE_UNKNOWN`."""
        self.check_core(core)
        counts = self._dispatcher.counts(core)
        return counts, self.costs.price(f"core {core}", counts)

    def of_machine(self) -> tuple[Counts, Price]:
        """Returns what all cores counted and spent."""
        total, spent = Counts(), Price()
        for core in range(self.core_count):
            counts, price = self.of_core(core)
            total.add(counts)
            spent.total += price.total
            spent.exits = [mine + more for mine, more in zip(spent.exits, price.exits, strict=True)]
        return total, spent

    @property
    def core_count(self) -> int:
        """Number of cores."""
        return len(self._engine.core_counts)

    def check_core(self, core: int) -> None:
        """Raises `OutOfRange` `CORE_UNKNOWN` for a core that the machine does not have."""
        if not 0 <= core < self.core_count:
            raise OutOfRange(
                f"This host has no core {core}; it has {self.core_count}.",
                reason="CORE_UNKNOWN",
                next_step="Take a number that ListCores tells.",
                core=str(core),
            )

    def subjects(self) -> Iterator[tuple[str, Counts]]:
        """Yields all that count, for a change of the cost table."""
        for context in self._engine.contexts.entries():
            yield f"context {context.key}", context.counts
        for core in range(self.core_count):
            yield f"core {core}", self._dispatcher.counts(core)

    async def observe(self, context: Context, entries: int, ways: int) -> None:
        """Observes a context with a TLB of that shape (`entries` 0: no longer), from its next instruction on.

        Idempotent: a context that is observed with the same shape keeps its TLB. Raises `Unimplemented`
        `OBSERVATION_NOT_SUPPORTED`.
        """
        self.require("observation")
        now = context.observer
        if entries and isinstance(now, Observation) and (now.entries, now.ways) == (entries, ways):
            return
        observation = Observation(entries, ways) if entries else None
        if observation is None:
            self.forget(context)
        elif isinstance(now, Observation):
            observation.receivers = now.receivers
        context.observer = observation
        await self._dispatcher.interrupt(context)

    @contextmanager
    def watch(self, context: Context, kinds: list[int], batch_size: int) -> Iterator[Watcher]:
        """Watches the accesses of an observed context from now on. Raises `FailedPrecondition` `NOT_OBSERVED`."""
        observation = context.observer
        if not isinstance(observation, Observation):
            raise FailedPrecondition(
                "The context is not observed.", reason="NOT_OBSERVED", next_step="Call SetObservation first."
            )
        watcher = Watcher(kinds, batch_size)
        self._watchers.setdefault(context.key, []).append(watcher)
        observation.receivers.append(watcher.receive)
        try:
            yield watcher
        finally:
            self._watchers[context.key].remove(watcher)
            if isinstance(context.observer, Observation):
                context.observer.receivers.remove(watcher.receive)

    def forget(self, context: Context) -> None:
        """Ends the streams of a context that is deleted or no longer observed; they tell what it did until then."""
        for watcher in self._watchers.get(context.key, ()):
            watcher.end()

    def stop(self) -> None:
        """Ends all streams."""
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.end()

    async def tlb(self, core: int) -> TlbContent:
        """Returns what a core's TLB holds. Raises `OutOfRange` `CORE_UNKNOWN`, `Unimplemented`."""
        self.check_core(core)
        self.require("tlb-entries")
        return await self._dispatcher.tlb(core)

    def require(self, capability: str) -> None:
        """Raises `Unimplemented` `OBSERVATION_NOT_SUPPORTED` when this machine's cores do not have a capability."""
        if capability not in self._path.capabilities:
            raise Unimplemented(
                f"The cores of this host ({self._path.name}) do not have the capability {capability}.",
                reason="OBSERVATION_NOT_SUPPORTED",
                next_step="Use a host whose capabilities in the handshake name it.",
            )


def _part(whole: Accesses, start: int, end: int, lost: int) -> Accesses:
    return Accesses(whole.addresses[start:end], whole.kinds[start:end], whole.instructions[start:end], lost)


_WORDS: NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
_NO_ACCESSES = Accesses(_WORDS, np.zeros(0, dtype=np.uint8), _WORDS, 0)
