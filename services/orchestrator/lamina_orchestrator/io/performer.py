"""Performs steps: each effect becomes a call to the runtime of its node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from lamina_kit.driver import drive
from lamina_kit.effects import Effect, Step
from lamina_kit.errors import Internal, NotFound
from lamina_orchestrator.domain.pods.containers import ContainerState
from lamina_orchestrator.domain.pods.effects import (
    CreateContainerCall,
    RemoveContainerCall,
    RemoveSandboxCall,
    ResolveImage,
    RunSandboxCall,
    StartContainerCall,
    StopContainersCall,
    StopSandboxCall,
)
from lamina_orchestrator.domain.pods.steps import Outcome
from lamina_orchestrator.io.runtimes.runtime import Runtime

RuntimeOf = Callable[[str], Runtime]
_Handler = Callable[[Runtime, Any], Awaitable[Any]]


class Performer:
    """Performs steps against the runtimes that `runtime_of(node)` gives; it raises Unavailable for a silent node."""

    def __init__(self, runtime_of: RuntimeOf) -> None:
        self._runtime_of = runtime_of

    async def run(self, step: Step[Outcome]) -> Outcome:
        """Runs a step to its end."""
        return await drive(step, self._perform)

    async def _perform(self, effect: Effect) -> Any:
        handler = _HANDLERS.get(type(effect))
        if handler is None:
            raise Internal(f"Nobody performs the effect {type(effect).__name__}.", reason="EFFECT_UNKNOWN")
        node: str = getattr(effect, "node")  # noqa: B009 (every runtime effect names its node)
        return await handler(self._runtime_of(node), effect)


async def _stop_containers(runtime: Runtime, call: StopContainersCall) -> tuple[ContainerState, ...]:
    stopped = await asyncio.gather(*(_stop(runtime, name, call.grace_ns) for name in call.names))
    return tuple(state for state in stopped if state is not None)


async def _stop(runtime: Runtime, name: str, grace_ns: int) -> ContainerState | None:
    try:
        return await runtime.stop_container(name, grace_ns)
    except NotFound:
        return None  # it is gone, which is what was wanted


_HANDLERS: dict[type[Effect], _Handler] = {
    ResolveImage: lambda runtime, call: runtime.resolve_image(call.reference),
    RunSandboxCall: lambda runtime, call: runtime.run_sandbox(call.spec),
    StopSandboxCall: lambda runtime, call: runtime.stop_sandbox(call.name),
    RemoveSandboxCall: lambda runtime, call: runtime.remove_sandbox(call.name),
    CreateContainerCall: lambda runtime, call: runtime.create_container(call.sandbox, call.pod_uid, call.spec),
    StartContainerCall: lambda runtime, call: runtime.start_container(call.name),
    StopContainersCall: _stop_containers,
    RemoveContainerCall: lambda runtime, call: runtime.remove_container(call.name),
}
