"""Serves `lamina.hardware.v1.Hosts`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from grpc import aio
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc
from lamina.hardware.v1 import topology_pb2

from lamina_hardware.serving.watch_stream import watch
from lamina_kit.checks import Checks

if TYPE_CHECKING:
    from lamina_hardware.machine import Machine

Context = aio.ServicerContext[Any, Any]


class HostsServicer(rpc.HostsServicer):
    """Serves `lamina.hardware.v1.Hosts`."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    async def GetHost(self, request: pb.GetHostRequest, context: Context) -> pb.Host:
        """Returns the host."""
        self._m.names.check_host(request.name)
        return self._m.describe()

    async def GetTime(self, request: pb.GetTimeRequest, context: Context) -> pb.Time:
        """Returns the host's time."""
        clock = self._m.clock
        return pb.Time(now_ns=clock.now_ns(), wall_time_ns=clock.wall_ns(), mode=getattr(clock, "mode", "real"))

    async def GetTopology(self, request: topology_pb2.GetTopologyRequest, context: Context) -> topology_pb2.Topology:
        """Returns what the machine consists of."""
        return await self._m.topology()

    async def WatchMachine(
        self, request: topology_pb2.WatchMachineRequest, context: Context
    ) -> AsyncIterator[topology_pb2.MachineEvent]:
        """Tells the present state, then news."""
        with Checks() as check:
            check.range("after_sequence", request.after_sequence, 0, (1 << 62))
        async for event in watch(self._m, request.after_sequence):
            yield event
