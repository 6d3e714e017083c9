"""Serves `lamina.hardware.v1.Wires`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from grpc import aio
from lamina.hardware.v1 import wires_pb2 as pb
from lamina.hardware.v1 import wires_pb2_grpc as rpc

from lamina_hardware.convert import wires as convert
from lamina_hardware.devices.wires import Line
from lamina_hardware.domain.wire import Quality
from lamina_hardware.serving.captures import capture
from lamina_hardware.serving.pagination import page
from lamina_kit.checks import Checks

if TYPE_CHECKING:
    from lamina_hardware.machine import Machine

Context = aio.ServicerContext[Any, Any]
_LEAST_SNAP, _MOST_SNAP = 14, 65535


class WiresServicer(rpc.WiresServicer):
    """Serves `lamina.hardware.v1.Wires`."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    async def CreateWire(self, request: pb.CreateWireRequest, context: Context) -> pb.Wire:
        """Creates a wire."""
        with Checks() as check:
            check.identifier("wire_id", request.wire_id)
        quality, asked = convert.quality(request.wire), convert.medium_of(request.wire)
        line = self._m.wires.create_once(
            request.request_id, request.wire_id, lambda: self._make(request.wire_id, quality, asked)
        )
        return convert.wire(line, self._m.names)

    async def GetWire(self, request: pb.GetWireRequest, context: Context) -> pb.Wire:
        """Returns a wire."""
        return convert.wire(self._line(request.name), self._m.names)

    async def ListWires(self, request: pb.ListWiresRequest, context: Context) -> pb.ListWiresResponse:
        """Lists wires."""
        lines = self._m.wires.entries()
        found, token = page(lines, lambda line: line.wire.name, request.page_size, request.page_token)
        return pb.ListWiresResponse(wires=[convert.wire(line, self._m.names) for line in found], next_page_token=token)

    async def UpdateWire(self, request: pb.UpdateWireRequest, context: Context) -> pb.Wire:
        """Changes a wire."""
        line = self._line(request.wire.name, "wire.name")
        quality = convert.changed(request.wire, list(request.update_mask.paths), line.wire.quality)
        self._m.wires.change(line, quality)
        return convert.wire(line, self._m.names)

    async def DeleteWire(self, request: pb.DeleteWireRequest, context: Context) -> pb.DeleteWireResponse:
        """Deletes a wire."""
        self._m.wires.delete(self._line(request.name))
        return pb.DeleteWireResponse()

    async def ConnectNic(self, request: pb.ConnectNicRequest, context: Context) -> pb.ConnectNicResponse:
        """Puts a NIC on a wire."""
        name = self._m.names.nic(request.nic, "nic")
        device = self._m.nics.get(name)
        self._m.wires.connect(name, device, self._line(request.wire, "wire"))
        return pb.ConnectNicResponse()

    async def DisconnectNic(self, request: pb.DisconnectNicRequest, context: Context) -> pb.DisconnectNicResponse:
        """Takes a NIC off its wire."""
        name = self._m.names.nic(request.nic, "nic")
        self._m.nics.get(name)
        self._m.wires.disconnect(name)
        return pb.DisconnectNicResponse()

    async def CaptureWire(self, request: pb.CaptureWireRequest, context: Context) -> AsyncIterator[pb.WireFrames]:
        """Streams frames until the wire or the caller goes."""
        line = self._line(request.wire, "wire")
        if request.snap_bytes:
            with Checks() as check:
                check.range("snap_bytes", request.snap_bytes, _LEAST_SNAP, _MOST_SNAP)
        async for batch in capture(self._m.wires, line, request.snap_bytes):
            yield batch

    def _make(self, name: str, quality: Quality, asked: object) -> Line:
        """Opens what carries a wire, and makes it."""
        mode = getattr(self._m.clock, "mode", "real")
        medium = convert.open_medium(asked, self._m.state_dir, mode)
        fabric = "" if medium is not None else getattr(asked, "fabric", "") or name
        return self._m.wires.create(name, quality, asked, fabric, medium)

    def _line(self, name: str, field: str = "name") -> Line:
        return self._m.wires.get(self._m.names.wire(name, field))
