"""A layer as a process whose calls last as long as they are told to: `python slow_layer.py FLAGS`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc

from lamina_kit.process import Role, main
from lamina_kit.service import Environment


@dataclass(frozen=True)
class SlowConfig:
    """Nothing to configure."""


class Hosts(rpc.HostsServicer):
    """Answers after as many seconds as the name of the host says; to `running`, how many calls wait so."""

    def __init__(self) -> None:
        self._running = 0

    async def GetHost(self, request: pb.GetHostRequest, context: Any) -> pb.Host:
        """Answers late, or at once."""
        if request.name == "running":
            return pb.Host(name=str(self._running))
        self._running += 1
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        loop.call_later(float(request.name), over.set_result, None)
        await over
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
