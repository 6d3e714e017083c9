"""`lamina.vswitch.v1.Ports`: ports, the streams attached to them, their counters, and traces of frames."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from grpc import aio
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc

from lamina_vswitch.convert import switches
from lamina_vswitch.convert.streams import PlainForm
from lamina_vswitch.domain.definitions.pages import page
from lamina_vswitch.domain.definitions.switches import PortDefinition
from lamina_vswitch.ports.streams import Streams
from lamina_vswitch.serving.views import Views

Context = aio.ServicerContext[Any, Any]


class PortsServicer(rpc.PortsServicer):
    """Serves `lamina.vswitch.v1.Ports`."""

    def __init__(self, views: Views, streams: Streams) -> None:
        self._v = views
        self._streams = streams

    async def CreatePort(self, request: pb.CreatePortRequest, context: Context) -> pb.Port:
        """Create a port; it belongs to the caller's session if the call names one."""
        session = self._v.sessions.find(context)
        wanted = switches.port_definition(request, session.owner if session else "", self._v.names)
        return self._v.port(self._v.catalog.create_port(wanted, request.request_id))

    async def GetPort(self, request: pb.GetPortRequest, context: Context) -> pb.Port:
        """Return a port."""
        return self._v.port(self._port(request.name))

    async def ListPorts(self, request: pb.ListPortsRequest, context: Context) -> pb.ListPortsResponse:
        """List the ports of a switch."""
        found = self._v.catalog.ports(self._v.names.switch(request.parent, "parent"))
        chosen, token = page(found, lambda each: each.port, request.page_size, request.page_token)
        return pb.ListPortsResponse(ports=map(self._v.port, chosen), next_page_token=token)

    async def UpdatePort(self, request: pb.UpdatePortRequest, context: Context) -> pb.Port:
        """Change link or group of a port."""
        old = self._port(request.port.name, "port.name")
        wanted = switches.changed_port(request, old, self._v.names)
        return self._v.port(self._v.catalog.update_port(wanted, self._v.now_ns()))

    async def DeletePort(self, request: pb.DeletePortRequest, context: Context) -> pb.DeletePortResponse:
        """Delete a port."""
        self._v.catalog.delete_port(self._port(request.name), self._v.now_ns())
        return pb.DeletePortResponse()

    async def GetPortCounters(self, request: pb.GetPortCountersRequest, context: Context) -> pb.PortCounters:
        """Return the counters of a port."""
        port = self._port(request.port, "port")
        return switches.counters(request.port, self._v.engine.counters(port.slot))

    def Attach(self, request_iterator: Any, context: Context) -> AsyncIterator[pb.AttachResponse]:
        """Carry frames both ways for as long as the stream lives; the kit closes the generator with the call."""
        return self._streams.run(request_iterator, PlainForm(), pb.AttachRequest())

    async def TraceFrame(self, request: pb.TraceFrameRequest, context: Context) -> pb.TraceFrameResponse:
        """Return what would happen to a frame."""
        port = self._port(request.port, "port")
        return switches.trace(self._v.engine.trace(port.slot, switches.traced_frame(request), self._v.now_ns()))

    def _port(self, name: str, field: str = "name") -> PortDefinition:
        return self._v.catalog.port(*self._v.names.port(name, field))
