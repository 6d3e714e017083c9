"""`lamina.vswitch.v1.Translations`."""

from __future__ import annotations

from typing import Any

from grpc import aio
from lamina.vswitch.v1 import translations_pb2 as pb
from lamina.vswitch.v1 import translations_pb2_grpc as rpc

from lamina_vswitch.convert import translations as convert
from lamina_vswitch.domain.definitions.pages import page
from lamina_vswitch.domain.nat.flows.forwards import Forward
from lamina_vswitch.names import Names
from lamina_vswitch.nat.translations import Translations

Context = aio.ServicerContext[Any, Any]


class TranslationsServicer(rpc.TranslationsServicer):
    """Serves `lamina.vswitch.v1.Translations`."""

    def __init__(self, translations: Translations, names: Names) -> None:
        self._translations = translations
        self._names = names

    async def ListNatEntries(self, request: pb.ListNatEntriesRequest, context: Context) -> pb.ListNatEntriesResponse:
        """List the translation table of a network."""
        network = self._names.network(request.parent, "parent")
        inside, protocol = convert.entries_wanted(request.inside_address, request.protocol)
        found, now_ns = await self._translations.entries(network, inside, protocol, goes_on=bool(request.page_token))
        chosen, token = page(found, convert.nat_entry_key, request.page_size, request.page_token)
        if not token:
            self._translations.listed(network)
        entries = [convert.nat_entry(each, now_ns) for each in chosen]
        return pb.ListNatEntriesResponse(nat_entries=entries, next_page_token=token)

    async def FlushNatEntries(self, request: pb.FlushNatEntriesRequest, context: Context) -> pb.FlushNatEntriesResponse:
        """Forget entries."""
        network = self._names.network(request.parent, "parent")
        inside, _ = convert.entries_wanted(request.inside_address, pb.PROTOCOL_UNSPECIFIED)
        return pb.FlushNatEntriesResponse(flushed_entries=await self._translations.flush(network, inside))

    async def CreatePortForward(self, request: pb.CreatePortForwardRequest, context: Context) -> pb.PortForward:
        """Forward a port."""
        wanted = convert.forward_definition(request, self._names)
        return self._forward(self._translations.create_forward(wanted, request.request_id))

    async def ListPortForwards(
        self, request: pb.ListPortForwardsRequest, context: Context
    ) -> pb.ListPortForwardsResponse:
        """List the forwarded ports of a network."""
        found = self._translations.forwards(self._names.network(request.parent, "parent"))
        chosen, token = page(found, lambda each: each.definition.port_forward, request.page_size, request.page_token)
        return pb.ListPortForwardsResponse(port_forwards=map(self._forward, chosen), next_page_token=token)

    async def DeletePortForward(
        self, request: pb.DeletePortForwardRequest, context: Context
    ) -> pb.DeletePortForwardResponse:
        """Delete a forwarded port."""
        self._translations.delete_forward(*self._names.port_forward(request.name))
        return pb.DeletePortForwardResponse()

    async def UpdateVirtualServers(
        self, request: pb.UpdateVirtualServersRequest, context: Context
    ) -> pb.UpdateVirtualServersResponse:
        """Change virtual servers."""
        network = self._names.network(request.parent, "parent")
        revision, count = self._translations.update_servers(network, convert.server_change(request))
        return pb.UpdateVirtualServersResponse(revision=revision, virtual_server_count=count)

    async def ListVirtualServers(
        self, request: pb.ListVirtualServersRequest, context: Context
    ) -> pb.ListVirtualServersResponse:
        """List virtual servers."""
        found, open_flows = self._translations.servers(self._names.network(request.parent, "parent"))
        chosen, token = page(found, convert.virtual_server_key, request.page_size, request.page_token)
        servers = [convert.virtual_server(each, open_flows) for each in chosen]
        return pb.ListVirtualServersResponse(virtual_servers=servers, next_page_token=token)

    def _forward(self, forward: Forward) -> pb.PortForward:
        return convert.port_forward(self._translations.forward_name(forward.definition), forward)
