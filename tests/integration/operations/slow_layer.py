"""A layer as a process whose calls last until it gets SIGUSR1: `python slow_layer.py FLAGS`."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from typing import Any

from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc

from lamina_kit.layer.service import Environment
from lamina_kit.process.main import Role, main


@dataclass(frozen=True)
class SlowConfig:
    """Nothing to configure."""


class Hosts(rpc.HostsServicer):
    """Answers at the signal; to `running` at once, with how many calls have come to wait for it."""

    def __init__(self) -> None:
        self._running = 0
        self._told = asyncio.Event()

    async def GetHost(self, request: pb.GetHostRequest, context: Any) -> pb.Host:
        """Answers late, or at once."""
        if request.name == "running":
            return pb.Host(name=str(self._running))
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._told.set)
        self._running += 1
        await self._told.wait()
        return pb.Host(name=request.name)


class Slow:
    """The service."""

    layer = "hardware"
    service_names = ("lamina.hardware.v1.Hosts",)

    def __init__(self, environment: Environment, config: SlowConfig) -> None:
        environment.layer.boot_id = "boot-slow"

    def register(self, server: Any) -> None:
        """Adds its one servicer."""
        rpc.add_HostsServicer_to_server(Hosts(), server)

    async def start(self) -> None:
        """Does nothing."""

    async def stop(self) -> None:
        """Says that the calls are over, and the service is stopped after them."""
        print("the service stops", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(Role("hardware", Slow, SlowConfig)))
