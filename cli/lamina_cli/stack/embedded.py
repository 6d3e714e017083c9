"""Composes the layers into one stack in this process: five for each host, and an orchestrator over all of them.

Only this module knows all layers, and it knows them by entry points alone: `lamina.services` names what builds each.
Layers start bottom up and stop top down; each gets channels to the layers that it may call, and to no other. With a
virtual clock the stack must be started inside a run of a `VirtualLoop` (`virtual_run.py`).
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import tempfile
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from lamina_cli.client.client import Client
from lamina_cli.client.home import LAYERS, ORCHESTRATOR, bus_dir, bus_name, host_names, sweep_buses
from lamina_cli.layers import CALLS, layers_of
from lamina_kit import config as configuration
from lamina_kit.clock import Clock, RealClock
from lamina_kit.engines import check_set, load_engine
from lamina_kit.errors import FailedPrecondition
from lamina_kit.faults.channel import planned
from lamina_kit.faults.plan import FaultPlan
from lamina_kit.layer.service import Environment, Served, Service, local, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.process.options import GRACE_S
from lamina_kit.rng import Rng
from lamina_kit.rpc.inproc.local import LocalChannel, LocalServer
from lamina_kit.security.transport import PLAIN, Security
from lamina_kit.telemetry import trace
from lamina_kit.telemetry.events import EventRecord
from lamina_kit.telemetry.trace import Recorder, SpanRing
from lamina_kit.virtual.clock import VirtualClock
from lamina_kit.virtual.latency import drawn
from lamina_kit.virtual.loop import VirtualLoop

RUNTIME = "container-runtime"
Place = tuple[str, str]
"""A host and a layer."""
Progress = Callable[[str], None]
Sink = Callable[[EventRecord], None]


@dataclass(frozen=True)
class Settings:
    """What a stack is started with."""

    host: str = "h1"
    """Name of the first host."""
    hosts: int = 1
    """Number of hosts. The others are named after the first one: h1, h2, h3 …"""
    engines: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(LAYERS, "model"))
    config_file: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Configuration in the form of environment variables, `LAMINA_<LAYER>_<KEY>`; stands above the file."""
    seed: int | None = None
    """Seed of ids and choices. Without one the operating system's randomness seeds the stack."""
    fault_plan: Mapping[str, Any] | None = None
    """RPC faults between the layers, as `lamina_kit.faults.plan` takes them from TOML."""
    clock: str = "real"
    """`real`, or another mode of `Clock` on a `VirtualLoop`: calls then take latencies drawn from the seed."""

    def host_names(self) -> tuple[str, ...]:
        """Returns the names of the hosts. Raises `InvalidArgument` `HOSTS_OUT_OF_RANGE`."""
        return host_names(self.host, self.hosts)


class Stack:
    """The services of one stack on one event loop, joined by in-process channels.

    `channels` are those of the first host and the orchestrator; `hosts` has those of every host. `sink` is given every
    event of every layer in the order in which they happen.
    """

    def __init__(self, settings: Settings, state_dir: Path, sink: Sink | None = None) -> None:
        self.settings = settings
        self.state_dir = state_dir
        self.channels: dict[str, LocalChannel] = {}
        self.hosts: dict[str, dict[str, LocalChannel]] = {}
        self._sink = sink
        self._services: dict[Place, Service] = {}
        self._states: dict[Place, LayerState] = {}
        self._served: list[Served] = []
        self._buses: dict[str, Path] = {}
        self.grace_s: float = GRACE_S
        """How long calls from outside may go on once the stack stops."""
        self.fault_plan: FaultPlan | None = None
        self._recorder: Recorder | None = None

    async def start(self, progress: Progress = lambda layer: None) -> None:
        """Starts the layers bottom up. What was started is stopped again when one fails.

        Raises:
            InvalidArgument: the engines do not go together, or the configuration is wrong; the key is named.
            FailedPrecondition: an engine cannot run here, with its reasons.
        """
        check_set(self.settings.engines)
        if self.settings.config_file is not None:
            configuration.check_sections(self.settings.config_file, LAYERS)
        names = self.settings.host_names()
        clock = self._clock()
        rng = Rng(int.from_bytes(os.urandom(8)) if self.settings.seed is None else self.settings.seed)
        if self.settings.fault_plan is not None:
            self.fault_plan = FaultPlan.parse(self.settings.fault_plan, rng.child("fault-plan"))
        self._recorder = Recorder("cli", clock, rng.child("cli"), SpanRing())
        layers = layers_of(self.settings.engines)
        for layer in layers:
            load_engine(layer, self.settings.engines[layer])
        try:
            for host in names:
                for layer in (layer for layer in layers if layer != ORCHESTRATOR):
                    progress(layer if len(names) == 1 else f"{layer} of {host}")
                    await self._start_layer(host, layer, clock, rng)
            if ORCHESTRATOR in layers:
                progress(ORCHESTRATOR)
                await self._start_layer(names[0], ORCHESTRATOR, clock, rng)
                await self._register_nodes(names[1:])
        except BaseException:
            await self.stop()
            raise

    def _clock(self) -> Clock:
        """Returns the clock of the settings, which has to be the running loop's."""
        loop = asyncio.get_running_loop()
        if self.settings.clock == "real" and not isinstance(loop, VirtualLoop):
            return RealClock()
        if self.settings.clock != "real" and isinstance(loop, VirtualLoop):
            return VirtualClock(loop, mode=self.settings.clock)
        raise FailedPrecondition(
            f"A stack with a {self.settings.clock} clock cannot start on a {type(loop).__name__}.",
            reason="CLOCK_WITHOUT_LOOP",
            next_step="Start it with `virtual_run.run` for virtual time, and with `asyncio.run` for real time.",
        )

    async def _start_layer(self, host: str, layer: str, clock: Clock, rng: Rng) -> None:
        place = (host, layer)
        own = rng.child(layer if layer == ORCHESTRATOR else f"{host}/{layer}")
        build = builder(layer)
        state = LayerState(layer, "" if layer == ORCHESTRATOR else host, clock, own.child("state"))
        state.engine = self.settings.engines[layer]
        state.events.sink = self._sink
        folder = self.state_dir / layer if host == self.settings.host else self.state_dir / "hosts" / host / layer
        folder.mkdir(parents=True, exist_ok=True)
        environment = Environment(
            host=host,
            clock=clock,
            rng=own,
            state_dir=folder,
            layer=state,
            channels={
                name: planned(channel, self.fault_plan, layer, name.partition("/")[0], clock, state.events)
                for name, channel in self._below(host, layer).items()
            },
            bus_path=self._bus_path(host),
        )
        variables = {**os.environ, **self.settings.overrides}
        settings = configuration.load(layer, config_type(build), self.settings.config_file, variables)
        with trace.working_for(state.recorder):
            service = build(environment, settings)
            self._services[place] = service
            self._states[place] = state
            await service.start()
        latency = drawn(own.child("latency")) if clock.mode != "real" else None
        channel = local(service, state, latency=latency)
        if layer != ORCHESTRATOR:
            self.hosts.setdefault(host, {})[layer] = channel
        if host == self.settings.host:
            self.channels[layer] = channel

    def _below(self, host: str, layer: str) -> dict[str, LocalChannel]:
        """Returns the channels that a layer may call by: its host's own, and for the orchestrator every runtime."""
        below = {name: self.hosts[host][name] for name in CALLS[layer]}
        if layer == ORCHESTRATOR:
            others = (name for name in self.hosts if name != host)
            below |= {runtime_address(name): self.hosts[name][RUNTIME] for name in others}
        return below

    async def _register_nodes(self, hosts: Sequence[str]) -> None:
        """Adds the other hosts as nodes, of the first one's size; the orchestrator adds the first one itself."""
        from lamina.orchestrator.v1 import orchestrator_pb2 as pb
        from lamina.orchestrator.v1 import orchestrator_pb2_grpc as services

        if not hosts:
            return
        stub = services.NodesStub(self.channels[ORCHESTRATOR])
        variables = {**os.environ, **self.settings.overrides}
        size: Any = configuration.load(
            ORCHESTRATOR, config_type(builder(ORCHESTRATOR)), self.settings.config_file, variables
        )
        for host in hosts:
            await stub.RegisterNode(
                pb.RegisterNodeRequest(
                    host=host,
                    runtime_address=runtime_address(host),
                    cpu_millicores=size.node_cpu_millicores,
                    memory_bytes=size.node_memory_bytes,
                    max_pods=size.node_max_pods,
                )
            )

    def _bus_path(self, host: str) -> Path:
        if host not in self._buses:
            folder = bus_dir(self.state_dir)
            if not self._buses:
                sweep_buses(folder)
            self._buses[host] = folder / bus_name(host)
        return self._buses[host]

    def client(self, host: str = "") -> Client:
        """Returns a client whose calls stay in this process, with the lower layers of a host (default: the first)."""
        own = {**self.channels, **self.hosts.get(host or self.settings.host, {})}
        several = len(self.hosts) > 1 and not host
        return Client({}, own, self._recorder, {name: self.client(name) for name in self.hosts} if several else {})

    def layers(self) -> Iterator[tuple[str, Service, LayerState]]:
        """Yields all layers by their names: `mmu` on the first host, `h2/mmu` on another one."""
        for (host, layer), service in self._services.items():
            yield self._name(host, layer), service, self._states[host, layer]

    def servers(self) -> dict[str, LocalServer]:
        """Returns the in-process server of each layer by its name, as `layers` names them."""
        found = {self._name(host, layer): at[layer].server for host, at in self.hosts.items() for layer in at}
        top = self.channels.get(ORCHESTRATOR)
        return found if top is None else {**found, ORCHESTRATOR: top.server}

    def _name(self, host: str, layer: str) -> str:
        return layer if host == self.settings.host else f"{host}/{layer}"

    async def serve(self, addresses: Mapping[str, str], security: Security = PLAIN) -> dict[str, str]:
        """Serves layers, by name, each on its address. Returns the targets that clients connect to.

        Raises:
            FailedPrecondition: `PORT_IN_USE`, naming the port, or `TLS_REQUIRED`.
        """
        targets = {}
        known = {name: (service, state) for name, service, state in self.layers()}
        for name, address in addresses.items():
            service, state = known[name]
            served = await serve(service, [address], state, security=security)
            self._served.append(served)
            targets[name] = security.from_here(served.addresses[0])
        return targets

    def hasten(self) -> None:
        """Ends the grace of a `stop` that waits."""
        for served in self._served:
            served.hasten()

    async def stop(self) -> None:
        """Stops serving, then the layers top down, and removes the memory bus. Idempotent."""
        await asyncio.gather(*(served.stop(self.grace_s) for served in self._served))
        self._served.clear()
        for place in reversed(list(self._services)):
            await self._services.pop(place).stop()
            self._states.pop(place).close()
        for channels in (self.channels, *self.hosts.values()):
            for channel in channels.values():
                await channel.close()
        self.channels.clear()
        self.hosts.clear()
        for bus in self._buses.values():
            bus.unlink(missing_ok=True)


def runtime_address(host: str) -> str:
    """Returns the name by which the orchestrator knows the runtime of a host that is not its own."""
    return f"{RUNTIME}/{host}"


@functools.cache
def builder(layer: str) -> Callable[..., Any]:
    """Returns what builds the service of a layer: `build(environment, config)`.

    Raises:
        FailedPrecondition: `LAYER_NOT_INSTALLED`, no distribution provides the layer.
    """
    for point in metadata.entry_points(group="lamina.services"):
        if point.name == layer:
            found: Callable[..., Any] = point.load()
            return found
    raise FailedPrecondition(
        f"no installed distribution provides the {layer} layer",
        reason="LAYER_NOT_INSTALLED",
        next_step="install Lamina again: `./run` does it when the checkout changed",
    )


def config_type(build: Callable[..., Any]) -> type[Any]:
    """Returns the dataclass that a layer's `build` takes as its `config`, which its signature names."""
    hint = typing.get_type_hints(build)["config"]
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    found: type[Any] = kinds[0]
    return found


@asynccontextmanager
async def private_stack(
    settings: Settings | None = None, progress: Progress = lambda layer: None, sink: Sink | None = None
) -> AsyncIterator[Stack]:
    """Runs a stack for the length of a `with` block, without ports, in a scratch folder that is removed."""
    folder = Path(tempfile.mkdtemp(prefix="lamina-"))
    stack = Stack(settings or Settings(), folder, sink)
    try:
        await stack.start(progress)
        yield stack
    finally:
        await stack.stop()
        shutil.rmtree(folder, ignore_errors=True)
