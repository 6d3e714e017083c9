"""Node agents: one stream a node, opened by us, on which its runtime tells what its containers do.

An agent lists what the node holds, then follows its changes. When the stream breaks it says so and tries again after a
growing pause; it never polls a stream that stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError, NotFound, Unavailable
from lamina_kit.telemetry import log
from lamina_orchestrator.domain.kinds.timestamps import SECOND
from lamina_orchestrator.engines.interface import ContainerSeen, Input, NodeAnswers, NodeSilent
from lamina_orchestrator.io.runtimes.runtime import Runtime

FIRST_PAUSE_NS = SECOND // 10
"""Short, and growing slowly: when a stack starts as processes, the orchestrator is there before its first runtime."""
LONGEST_PAUSE_NS = 10 * SECOND

Connector = Callable[[str], Runtime]
"""Makes the runtime of an address; raises InvalidArgument for one that it cannot reach by design."""


class Agents:
    """The agents of all nodes. `post` takes their news; `connector` makes runtimes from addresses."""

    def __init__(self, connector: Connector, clock: Clock, post: Callable[[Input], None]) -> None:
        self._connector = connector
        self._clock = clock
        self._post = post
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._addresses: dict[str, str] = {}
        self._ending: dict[asyncio.Task[None], None] = {}
        self._up: dict[str, Runtime] = {}
        self._log = log.logger("orchestrator")

    def runtime_of(self, node: str) -> Runtime:
        """The runtime of a node that answers. Raises Unavailable `NODE_UNREACHABLE`."""
        runtime = self._up.get(node)
        if runtime is None:
            raise Unavailable(
                f"The container runtime of node {node} does not answer.",
                reason="NODE_UNREACHABLE",
                next_step="Try again when the node is Ready.",
            )
        return runtime

    def address_of(self, node: str) -> str:
        """The address of a node's runtime. Raises NotFound `NODE_UNKNOWN`."""
        if node not in self._addresses:
            raise NotFound(
                f"There is no node {node}.", reason="NODE_UNKNOWN", next_step="List the nodes: `lamina get nodes`."
            )
        return self._addresses[node]

    def connect(self, node: str, address: str) -> None:
        """Starts the agent of a node."""
        self._addresses[node] = address
        self._tasks[node] = asyncio.get_running_loop().create_task(self._follow(node, address))

    def disconnect(self, node: str) -> None:
        """Stops the agent of a node; it ends by itself soon after."""
        self._up.pop(node, None)
        self._addresses.pop(node, None)
        task = self._tasks.pop(node, None)
        if task is not None:
            task.cancel()
            self._ending[task] = None
            task.add_done_callback(lambda done: self._ending.pop(done, None))

    async def stop(self) -> None:
        """Stops all agents and waits for their end."""
        for node in list(self._tasks):
            self.disconnect(node)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _follow(self, node: str, address: str) -> None:
        pause = FIRST_PAUSE_NS
        while True:
            why = await self._once(node, address)
            answered = self._up.pop(node, None) is not None
            self._post(NodeSilent(node, why))
            pause = FIRST_PAUSE_NS if answered else pause
            await self._clock.sleep_ns(pause)
            pause = min(pause * 3 // 2, LONGEST_PAUSE_NS)

    async def _once(self, node: str, address: str) -> str:
        """One connection from beginning to end; returns why it ended."""
        runtime: Runtime | None = None
        try:
            runtime = self._connector(address)
            await self._session(node, runtime)
        except LaminaError as error:
            return error.message
        except Exception as error:
            self._log.exception("agent.failed", node=node, address=address)
            return f"{type(error).__name__}: {error}"
        finally:
            if runtime is not None:
                await runtime.close()
        return "its stream of container changes ended"

    async def _session(self, node: str, runtime: Runtime) -> None:
        await runtime.hello()
        sandboxes = await runtime.list_sandboxes()
        containers, revision = await runtime.list_containers()
        self._up[node] = runtime
        self._post(NodeAnswers(node, tuple(sandboxes), tuple(containers)))
        async for state in runtime.watch_containers(revision):
            self._post(ContainerSeen(node, state))
