"""Serves `lamina.hardware.v1.Nics`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc import aio
from lamina.hardware.v1 import nics_pb2 as pb
from lamina.hardware.v1 import nics_pb2_grpc as rpc

from lamina_hardware.convert import nics as convert
from lamina_hardware.devices.nic import NicDevice
from lamina_hardware.serving.pagination import page

if TYPE_CHECKING:
    from lamina_hardware.machine import Machine

Context = aio.ServicerContext[Any, Any]


class NicsServicer(rpc.NicsServicer):
    """Serves `lamina.hardware.v1.Nics`."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    async def ListNics(self, request: pb.ListNicsRequest, context: Context) -> pb.ListNicsResponse:
        """Lists NICs."""
        found, token = page(self._m.nics.names(), str, request.page_size, request.page_token)
        return pb.ListNicsResponse(nics=[self._shown(name) for name in found], next_page_token=token)

    async def GetNic(self, request: pb.GetNicRequest, context: Context) -> pb.Nic:
        """Returns a NIC."""
        return self._shown(self._m.names.nic(request.name))

    async def UpdateNic(self, request: pb.UpdateNicRequest, context: Context) -> pb.Nic:
        """Changes settings."""
        name = self._m.names.nic(request.nic.name, "nic.name")
        device = self._driven(name, context)
        device.change(convert.changed(request.nic, list(request.update_mask.paths), device.nic.settings))
        return self._shown(name)

    async def ConfigureQueues(self, request: pb.ConfigureQueuesRequest, context: Context) -> pb.ConfigureQueuesResponse:
        """Replaces rings."""
        name = self._m.names.nic(request.nic, "nic")
        self._driven(name, context)
        device = self._m.nics.configure(name, convert.queues(request.queues))
        return pb.ConfigureQueuesResponse(queues=[convert.queue(ring) for ring in device.nic.rings.values()])

    async def ListQueues(self, request: pb.ListQueuesRequest, context: Context) -> pb.ListQueuesResponse:
        """Lists rings."""
        device = self._m.nics.get(self._m.names.nic(request.nic, "nic"))
        return pb.ListQueuesResponse(queues=[convert.queue(ring) for ring in device.nic.rings.values()])

    async def GetNicCounters(self, request: pb.GetNicCountersRequest, context: Context) -> pb.NicCounters:
        """Returns counters."""
        return convert.counters(self._m.nics.get(self._m.names.nic(request.nic, "nic")))

    def _driven(self, name: str, context: Context) -> NicDevice:
        """Returns a NIC that the caller drives. Raises `NIC_UNKNOWN` or `DEVICE_NOT_DRIVEN`."""
        device = self._m.nics.get(name)
        self._m.devices.require_driver(self._m.nics.device(name), self._m.owner(context))
        return device

    def _shown(self, name: str) -> pb.Nic:
        return convert.nic(name, self._m.nics.get(name), self._m.wires.of(name), self._m.names)
