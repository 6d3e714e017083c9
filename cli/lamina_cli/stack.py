"""Composes the six layers into one stack in this process.

Only this module knows all layers, and it knows them by entry points alone: `lamina.services` names what builds each.
Layers start bottom up and stop top down; each gets channels to the layers that it may call, and to no other.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import typing
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from lamina_cli.client import Client
from lamina_cli.home import LAYERS, bus_dir, bus_name, sweep_buses
from lamina_kit import config as configuration
from lamina_kit.clock import Clock, RealClock
from lamina_kit.engines import check_set, load_engine
from lamina_kit.errors import FailedPrecondition
from lamina_kit.inproc import LocalChannel
from lamina_kit.layer import LayerState
from lamina_kit.rng import Rng
from lamina_kit.service import Environment, Served, Service, local, serve

CALLS: dict[str, tuple[str, ...]] = {
    "hardware": (),
    "mmu": ("hardware",),
    "vswitch": ("hardware",),
    "hypervisor": ("mmu", "vswitch", "hardware"),
    "container-runtime": ("mmu", "vswitch", "hardware"),
    "orchestrator": ("container-runtime", "hypervisor", "vswitch"),
}
"""The layers in the order of their start, each with the layers that it calls."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What a stack is started with."""

    host: str = "h1"
    engines: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(LAYERS, "model"))
    config_file: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Configuration in the form of environment variables, `LAMINA_<LAYER>_<KEY>`; stands above the file."""
    seed: int | None = None
    """Seed of ids and choices. Without one the operating system's randomness seeds the stack."""


class Stack:
    """Six services on one event loop, joined by in-process channels."""

    def __init__(self, settings: Settings, state_dir: Path) -> None:
        self.settings = settings
        self.state_dir = state_dir
        self.channels: dict[str, LocalChannel] = {}
        self._services: dict[str, Service] = {}
        self._states: dict[str, LayerState] = {}
        self._served: list[Served] = []
        self._bus: Path | None = None

    async def start(self, progress: Progress = lambda layer: None) -> None:
        """Starts the layers bottom up. What was started is stopped again when one fails.

        Raises:
            InvalidArgument: the engines do not go together, or the configuration is wrong; the key is named.
            FailedPrecondition: an engine cannot run here, with its reasons.
        """
        check_set(self.settings.engines)
        if self.settings.config_file is not None:
            configuration.check_sections(self.settings.config_file, LAYERS)
        clock: Clock = RealClock()
        rng = Rng(int.from_bytes(os.urandom(8)) if self.settings.seed is None else self.settings.seed)
        try:
            for layer in CALLS:
                progress(layer)
                load_engine(layer, self.settings.engines[layer])
                await self._start_layer(layer, clock, rng.child(layer))
        except BaseException:
            await self.stop()
            raise

    async def _start_layer(self, layer: str, clock: Clock, rng: Rng) -> None:
        build = builder(layer)
        state = LayerState(layer, "" if layer == "orchestrator" else self.settings.host, clock, rng.child("state"))
        state.engine = self.settings.engines[layer]
        folder = self.state_dir / layer
        folder.mkdir(parents=True, exist_ok=True)
        environment = Environment(
            host=self.settings.host,
            clock=clock,
            rng=rng,
            state_dir=folder,
            layer=state,
            channels={below: self.channels[below] for below in CALLS[layer]},
            bus_path=self._bus_path(),
        )
        variables = {**os.environ, **self.settings.overrides}
        settings = configuration.load(layer, config_type(build), self.settings.config_file, variables)
        service = build(environment, settings)
        self._services[layer] = service
        self._states[layer] = state
        await service.start()
        self.channels[layer] = local(service, state)

    def _bus_path(self) -> Path:
        if self._bus is None:
            folder = bus_dir(self.state_dir)
            sweep_buses(folder)
            self._bus = folder / bus_name(self.settings.host)
        return self._bus

    def client(self) -> Client:
        """Returns a client whose calls stay in this process."""
        return Client({}, self.channels)

    async def serve(self, addresses: Mapping[str, str]) -> dict[str, str]:
        """Serves each layer on its address. Returns the targets that clients connect to.

        Raises:
            FailedPrecondition: `PORT_IN_USE`, naming the port.
        """
        targets = {}
        for layer, address in addresses.items():
            served = await serve(self._services[layer], [address], self._states[layer])
            self._served.append(served)
            targets[layer] = served.addresses[0]
        return targets

    async def stop(self) -> None:
        """Stops serving, then the layers top down, and removes the memory bus. Idempotent."""
        await asyncio.gather(*(served.stop() for served in self._served))
        self._served.clear()
        for layer in reversed(list(self._services)):
            await self._services.pop(layer).stop()
            self._states.pop(layer).sessions.close()
        for channel in self.channels.values():
            await channel.close()
        self.channels.clear()
        if self._bus is not None:
            self._bus.unlink(missing_ok=True)


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
    settings: Settings | None = None, progress: Progress = lambda layer: None
) -> AsyncIterator[Stack]:
    """Runs a stack for the length of a `with` block, without ports, in a scratch folder that is removed."""
    folder = Path(tempfile.mkdtemp(prefix="lamina-"))
    stack = Stack(settings or Settings(), folder)
    try:
        await stack.start(progress)
        yield stack
    finally:
        await stack.stop()
        shutil.rmtree(folder, ignore_errors=True)
