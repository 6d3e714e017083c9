"""One orchestrator at work: its engine, its writer, and what callers wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lamina_kit.clock import Clock
from lamina_kit.layer.state import LayerState
from lamina_orchestrator.engines.interface import Engine, Stored
from lamina_orchestrator.io.runtimes.agents import Agents, Connector
from lamina_orchestrator.io.runtimes.runtime import Runtime
from lamina_orchestrator.io.writer import Writer


class Cluster:
    """What the servicers work on. `check_address` refuses runtime addresses that cannot be reached by design."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        connector: Connector,
        check_address: Callable[[str], None],
        layer: LayerState,
    ) -> None:
        self.engine = engine
        self._clock = clock
        self._check_address = check_address
        self._writer = Writer(engine, clock, connector, layer)
        self._news = asyncio.Event()

    def now(self) -> int:
        """The time that objects are stamped with, in Unix nanoseconds."""
        return self._clock.wall_ns()

    def poke(self) -> None:
        """Lets the writer act on what a caller wrote."""
        self._writer.poke()

    def news(self) -> asyncio.Event:
        """An event that is set at the next commit: taken before a watcher looks, so that it misses none."""
        return self._news

    def runtime_of(self, node: str) -> Runtime:
        """The runtime of a node that answers. Raises Unavailable `NODE_UNREACHABLE`."""
        return self._writer.agents.runtime_of(node)

    @property
    def agents(self) -> Agents:
        """The agents of the nodes."""
        return self._writer.agents

    def register(
        self, host: str, address: str, cpu_millicores: int, memory_bytes: int, max_pods: int, labels: dict[str, str]
    ) -> Stored:
        """Adds a host, or changes it."""
        self._check_address(address)
        return self.engine.register_node(host, address, cpu_millicores, memory_bytes, max_pods, labels, self.now())

    @property
    def idle(self) -> bool:
        """Whether nothing is queued and nothing is under way."""
        return self._writer.idle

    def start(self) -> None:
        """Takes in what is stored and starts to work."""
        self.engine.load(self.now())
        self.engine.on_commit(self._committed)
        self._writer.start()

    async def stop(self) -> None:
        """Stops working; containers go on running. Idempotent."""
        await self._writer.stop()

    def _committed(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
