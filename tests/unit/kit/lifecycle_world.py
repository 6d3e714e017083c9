"""Two layers in one process, each with a life of its own: a ground with a boot id, and one that needs it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc

from lamina_kit.errors import Unavailable
from lamina_kit.layer.service import Environment, register_all, set_serving
from lamina_kit.process.lifecycle import Lifecycle, Role
from lamina_kit.process.options import Options
from lamina_kit.rng import Rng
from lamina_kit.rpc.inproc.local import LocalChannel, LocalServer
from lamina_kit.rpc.interceptor import Guard


class Hosts(rpc.HostsServicer):
    """Answers with its layer's boot; a name makes it wait for ever, or fail as a transport does."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    async def GetHost(self, request: pb.GetHostRequest, context: Any) -> pb.Host:
        """Answers."""
        if request.name == "wait":
            await asyncio.get_running_loop().create_future()
        if request.name == "transport":
            raise Unavailable("nobody there", reason="RPC_UNAVAILABLE")
        return pb.Host(name=request.name, boot_id=self._environment.layer.boot_id)


class Fake:
    """A service that counts its starts and takes its boot from below, or makes one."""

    layer = "fake"
    service_names = ("lamina.hardware.v1.Hosts",)

    def __init__(self, environment: Environment, world: SimpleNamespace) -> None:
        self.layer = environment.layer.layer
        self._environment = environment
        self._world = world

    def register(self, server: Any) -> None:
        """Adds its one servicer."""
        rpc.add_HostsServicer_to_server(Hosts(self._environment), server)

    async def start(self) -> None:
        """Takes a boot id: its own, unless another was planned."""
        self._world.log.append(f"{self.layer} starts")
        if self._world.failures.get(self.layer):
            raise self._world.failures[self.layer].pop(0)
        state = self._environment.layer
        state.boot_id = self._world.boots.get(self.layer) or self._environment.rng.id("boot")

    async def stop(self) -> None:
        """Stops, or fails to."""
        self._world.log.append(f"{self.layer} stops")
        if self._world.stop_fails:
            raise RuntimeError("it would not stop")


class Layer:
    """One layer at work: its lives, the channel to it and the task that runs it."""

    def __init__(self, world: SimpleNamespace, name: str, clock: Any, folder: Path, below: dict[str, Any]) -> None:
        needs = tuple(below)
        role = Role(name, Fake, SimpleNamespace, calls=needs, needs=needs)
        options = Options("h1", folder / name, (), upstreams=dict.fromkeys(below, "in process"))
        rng = Rng(f"{name} {len(world.log)}")
        self.lifecycle = Lifecycle(role, options, world, role.state(options, clock, rng), rng, below)
        self.server = LocalServer(Guard(self.lifecycle.state.recorder).wrap)
        self._health = register_all(self.lifecycle.board, self.lifecycle.state, self.server)
        self.channel = LocalChannel(self.server)
        self.hosts: Any = rpc.HostsStub(self.channel)
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        await set_serving(self._health, False)
        await self.lifecycle.run(partial(set_serving, self._health))

    async def end(self) -> None:
        """Stops it in order."""
        self.lifecycle.stop()
        await self.task
