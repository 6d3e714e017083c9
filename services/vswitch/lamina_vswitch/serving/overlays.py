"""`lamina.vswitch.v1.Overlays`: VLANs that span hosts."""

from __future__ import annotations

from typing import Any

from grpc import aio
from lamina.vswitch.v1 import overlays_pb2 as pb
from lamina.vswitch.v1 import overlays_pb2_grpc as rpc

from lamina_vswitch.convert import overlays as convert
from lamina_vswitch.domain.definitions.pages import page
from lamina_vswitch.domain.network.definition import address_key
from lamina_vswitch.domain.overlay.definition import OVERLAY_NAME
from lamina_vswitch.domain.uplink.definition import UPLINK_NAME
from lamina_vswitch.serving.views import Views
from lamina_vswitch.uplinks.overlays import Overlay, OverlayTable

Context = aio.ServicerContext[Any, Any]


class OverlaysServicer(rpc.OverlaysServicer):
    """Serves `lamina.vswitch.v1.Overlays`."""

    def __init__(self, views: Views, overlays: OverlayTable) -> None:
        self._v = views
        self._overlays = overlays

    async def CreateOverlay(self, request: pb.CreateOverlayRequest, context: Context) -> pb.Overlay:
        """Create one end of an overlay."""
        wanted = convert.overlay_definition(request, self._v.names)
        return self._overlay(self._overlays.create(wanted, request.request_id))

    async def GetOverlay(self, request: pb.GetOverlayRequest, context: Context) -> pb.Overlay:
        """Return an overlay."""
        return self._overlay(self._found(request.name, "name"))

    async def ListOverlays(self, request: pb.ListOverlaysRequest, context: Context) -> pb.ListOverlaysResponse:
        """List the overlays of a switch."""
        found = self._overlays.overlays(self._v.names.switch(request.parent, "parent"))
        chosen, token = page(found, lambda each: each.definition.overlay, request.page_size, request.page_token)
        return pb.ListOverlaysResponse(overlays=map(self._overlay, chosen), next_page_token=token)

    async def UpdateOverlay(self, request: pb.UpdateOverlayRequest, context: Context) -> pb.Overlay:
        """Change how an overlay learns."""
        old = self._found(request.overlay.name, "overlay.name").definition
        return self._overlay(self._overlays.update(convert.changed_overlay(request, old)))

    async def DeleteOverlay(self, request: pb.DeleteOverlayRequest, context: Context) -> pb.DeleteOverlayResponse:
        """Delete an overlay."""
        self._overlays.delete(*self._v.names.of("overlay", OVERLAY_NAME, request.name))
        return pb.DeleteOverlayResponse()

    async def CreateRemoteEndpoint(
        self, request: pb.CreateRemoteEndpointRequest, context: Context
    ) -> pb.RemoteEndpoint:
        """Tell an overlay of an end on another host."""
        overlay = self._found(request.parent, "parent")
        told = self._overlays.tell(overlay, convert.remote_definition(request, overlay.definition))
        return convert.remote_endpoint(self._name(overlay), told)

    async def ListRemoteEndpoints(
        self, request: pb.ListRemoteEndpointsRequest, context: Context
    ) -> pb.ListRemoteEndpointsResponse:
        """List remote ends."""
        overlay = self._found(request.parent, "parent")
        ends = overlay.remotes.ends(self._v.now_ns())
        chosen, token = page(ends, lambda each: address_key(each.address), request.page_size, request.page_token)
        name = self._name(overlay)
        messages = [convert.remote_endpoint(name, each) for each in chosen]
        return pb.ListRemoteEndpointsResponse(remote_endpoints=messages, next_page_token=token)

    async def DeleteRemoteEndpoint(
        self, request: pb.DeleteRemoteEndpointRequest, context: Context
    ) -> pb.DeleteRemoteEndpointResponse:
        """Forget a remote end."""
        switch, overlay, address = self._v.names.remote_endpoint(request.name)
        self._overlays.forget(switch, overlay, address)
        return pb.DeleteRemoteEndpointResponse()

    async def ListRemoteMacs(self, request: pb.ListRemoteMacsRequest, context: Context) -> pb.ListRemoteMacsResponse:
        """List addresses behind remote ends."""
        macs = self._found(request.parent, "parent").remotes.macs(self._v.now_ns())
        chosen, token = page(macs, lambda each: each.mac.hex(), request.page_size, request.page_token)
        return pb.ListRemoteMacsResponse(remote_macs=map(convert.remote_mac, chosen), next_page_token=token)

    def _found(self, name: str, field: str) -> Overlay:
        return self._overlays.get(*self._v.names.of("overlay", OVERLAY_NAME, name, field))

    def _name(self, overlay: Overlay) -> str:
        return self._overlays.name(overlay.definition.switch, overlay.definition.overlay)

    def _overlay(self, overlay: Overlay) -> pb.Overlay:
        definition, host = overlay.definition, self._v.catalog.host
        switch, uplink = definition.uplink
        return convert.overlay(
            self._name(overlay),
            definition,
            UPLINK_NAME.format(host=host, switch=switch, uplink=uplink),
            self._v.catalog.port_name(definition.switch, definition.port),
            self._overlays.mtu_bytes(definition),
            len(overlay.remotes.addresses(self._v.now_ns())),
        )
