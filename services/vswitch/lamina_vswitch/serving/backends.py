"""`lamina.vswitch.v1.Backends`: what plugs into ports from outside of the contract."""

from __future__ import annotations

from typing import Any

from grpc import aio
from lamina.vswitch.v1 import backends_pb2 as pb
from lamina.vswitch.v1 import backends_pb2_grpc as rpc

from lamina_vswitch.convert import backends
from lamina_vswitch.domain.definitions.pages import page
from lamina_vswitch.ports.backends import BackendTable
from lamina_vswitch.serving.views import Views

Context = aio.ServicerContext[Any, Any]


class BackendsServicer(rpc.BackendsServicer):
    """Serves `lamina.vswitch.v1.Backends`."""

    def __init__(self, views: Views, table: BackendTable) -> None:
        self._v = views
        self._table = table

    async def CreateBackend(self, request: pb.CreateBackendRequest, context: Context) -> pb.Backend:
        """Open a backend and plug it in."""
        wanted = backends.backend_definition(request, self._v.names)
        return backends.backend(self._table.create(wanted, request.request_id))

    async def GetBackend(self, request: pb.GetBackendRequest, context: Context) -> pb.Backend:
        """Return the backend of a port."""
        return backends.backend(self._table.get(*self._v.names.backend(request.name)))

    async def ListBackends(self, request: pb.ListBackendsRequest, context: Context) -> pb.ListBackendsResponse:
        """List the backends of a switch."""
        found = self._table.list(self._v.names.switch(request.parent, "parent"))
        chosen, token = page(found, lambda each: each.definition.port, request.page_size, request.page_token)
        return pb.ListBackendsResponse(backends=map(backends.backend, chosen), next_page_token=token)

    async def DeleteBackend(self, request: pb.DeleteBackendRequest, context: Context) -> pb.DeleteBackendResponse:
        """Unplug a backend and close it."""
        self._table.delete(*self._v.names.backend(request.name))
        return pb.DeleteBackendResponse()
