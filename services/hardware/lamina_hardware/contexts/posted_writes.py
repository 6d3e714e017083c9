"""Who is told of doorbells: streams of `Cpu.WatchPostedWrites` over the counts in run pages.

A core counts a posted write in the run page and, when someone watches, stops for a moment. Each stream compares the
counts with those that it told last, so writes merge and a slow reader lags by one message at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from lamina_hardware.contexts.exit_controls import ControlState
from lamina_hardware.domain.contexts.context import Context
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import POSTED_SLOTS, RunPage

_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Posted:
    """Writes to one slot of a context since the message before, and the last value."""

    context: Context
    slot: int
    count: int
    value: int


@dataclass(slots=True, eq=False)
class _Watcher:
    contexts: dict[int, Context]
    told: dict[tuple[int, int], int] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class PostedWrites:
    """The streams of one host. Lives on one event loop."""

    def __init__(self, bus: MemoryBus, controls: ControlState, exists: Callable[[Context], bool]) -> None:
        self._bus = bus
        self._controls = controls
        self._exists = exists
        self._watchers: list[_Watcher] = []

    def note(self, context: Context) -> None:
        """Notes that a context left a core, or is gone."""
        for watcher in self._watchers:
            if context.key in watcher.contexts:
                watcher.wake.set()

    async def watch(self, contexts: list[Context], most: int) -> AsyncIterator[list[Posted]]:
        """Yields what was posted, at most `most` at once, by context and slot, until all contexts are gone."""
        watcher = _Watcher({context.key: context for context in contexts})
        for context in watcher.contexts.values():
            for slot, (count, _) in enumerate(self._slots(context)):
                watcher.told[context.key, slot] = count
        self._watchers.append(watcher)
        self._mark(watcher)
        try:
            while watcher.contexts:
                watcher.wake.clear()
                news = self._news(watcher, most)
                if news:
                    yield news
                    if len(news) == most:
                        watcher.wake.set()
                await watcher.wake.wait()
                for key in [key for key, context in watcher.contexts.items() if not self._exists(context)]:
                    del watcher.contexts[key]
        finally:
            self._watchers.remove(watcher)
            self._mark(watcher)

    def _news(self, watcher: _Watcher, most: int) -> list[Posted]:
        found: list[Posted] = []
        for key, context in watcher.contexts.items():
            for slot, (count, value) in enumerate(self._slots(context)):
                fresh = (count - watcher.told[key, slot]) & _WORD
                if fresh and len(found) < most:
                    watcher.told[key, slot] = count
                    found.append(Posted(context, slot, fresh, value))
        return found

    def _slots(self, context: Context) -> list[tuple[int, int]]:
        page = RunPage(self._bus.run_page(context.run_page))
        return [page.posted(slot) for slot in range(POSTED_SLOTS)]

    def _mark(self, watcher: _Watcher) -> None:
        """Tells the cores which contexts are watched."""
        for key, context in watcher.contexts.items():
            self._controls.watch(context, any(key in other.contexts for other in self._watchers))
