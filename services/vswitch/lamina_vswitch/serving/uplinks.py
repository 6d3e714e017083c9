"""`lamina.vswitch.v1.Uplinks`: ports that lead out of the host, and how port groups share them."""

from __future__ import annotations

from typing import Any

from grpc import aio
from lamina.vswitch.v1 import uplinks_pb2 as pb
from lamina.vswitch.v1 import uplinks_pb2_grpc as rpc

from lamina_vswitch.convert import uplinks as convert
from lamina_vswitch.domain.definitions.pages import page
from lamina_vswitch.domain.definitions.switches import PortGroupDefinition
from lamina_vswitch.domain.uplink.definition import TEAMING_POLICY_NAME, UPLINK_NAME, UplinkDefinition
from lamina_vswitch.serving.views import Views
from lamina_vswitch.uplinks.nics import UplinkNics
from lamina_vswitch.uplinks.uplinks import UplinkTable

Context = aio.ServicerContext[Any, Any]


class UplinksServicer(rpc.UplinksServicer):
    """Serves `lamina.vswitch.v1.Uplinks`."""

    def __init__(self, views: Views, uplinks: UplinkTable, nics: UplinkNics) -> None:
        self._v = views
        self._uplinks = uplinks
        self._nics = nics

    async def CreateUplink(self, request: pb.CreateUplinkRequest, context: Context) -> pb.Uplink:
        """Create an uplink with its port."""
        wanted, link_up = convert.uplink_definition(request, self._v.names)
        create = self._nics.create if wanted.nic else self._create
        return self._uplink(await create(wanted, link_up, request.request_id))

    async def GetUplink(self, request: pb.GetUplinkRequest, context: Context) -> pb.Uplink:
        """Return an uplink."""
        return self._uplink(self._found(request.name, "name"))

    async def ListUplinks(self, request: pb.ListUplinksRequest, context: Context) -> pb.ListUplinksResponse:
        """List the uplinks of a switch."""
        found = self._uplinks.uplinks(self._v.names.switch(request.parent, "parent"))
        chosen, token = page(found, lambda each: each.uplink, request.page_size, request.page_token)
        return pb.ListUplinksResponse(uplinks=map(self._uplink, chosen), next_page_token=token)

    async def UpdateUplink(self, request: pb.UpdateUplinkRequest, context: Context) -> pb.Uplink:
        """Change the link or the VLANs of an uplink."""
        old = self._found(request.uplink.name, "uplink.name")
        wanted, link_up = convert.changed_uplink(request, old, self._uplinks.port(old).link_up)
        return self._uplink(self._uplinks.update(wanted, link_up))

    async def DeleteUplink(self, request: pb.DeleteUplinkRequest, context: Context) -> pb.DeleteUplinkResponse:
        """Delete an uplink with its port; the NIC has been given back when this returns."""
        self._uplinks.delete(*self._v.names.of("uplink", UPLINK_NAME, request.name))
        await self._nics.given_back()
        return pb.DeleteUplinkResponse()

    async def GetTeamingPolicy(self, request: pb.GetTeamingPolicyRequest, context: Context) -> pb.TeamingPolicy:
        """Return how a port group shares the uplinks."""
        return self._policy(self._group(request.name, "name"))

    async def UpdateTeamingPolicy(self, request: pb.UpdateTeamingPolicyRequest, context: Context) -> pb.TeamingPolicy:
        """Change how a port group shares the uplinks."""
        group = self._group(request.teaming_policy.name, "teaming_policy.name")
        old = self._uplinks.policy(group)
        self._uplinks.update_policy(group, convert.changed_policy(request, old, group.switch, self._v.names))
        return self._policy(group)

    async def _create(self, wanted: UplinkDefinition, link_up: bool, request_id: str) -> UplinkDefinition:
        return self._uplinks.create(wanted, link_up, request_id)

    def _found(self, name: str, field: str) -> UplinkDefinition:
        return self._uplinks.get(*self._v.names.of("uplink", UPLINK_NAME, name, field))

    def _group(self, name: str, field: str) -> PortGroupDefinition:
        return self._v.catalog.port_group(*self._v.names.of("port_group", TEAMING_POLICY_NAME, name, field))

    def _uplink(self, uplink: UplinkDefinition) -> pb.Uplink:
        port = self._uplinks.port(uplink)
        return convert.uplink(
            self._uplinks.name(uplink.switch, uplink.uplink),
            uplink,
            self._v.catalog.port_name(port.switch, port.port),
            port.link_up,
            self._v.engine.attached(port.slot) and self._v.engine.link(port.slot),
            self._v.catalog.mtu_bytes(port.slot),
            self._nics.view(uplink),
        )

    def _policy(self, group: PortGroupDefinition) -> pb.TeamingPolicy:
        policy = self._uplinks.policy(group)
        active, standby, used = (
            [self._uplinks.name(group.switch, uplink) for uplink in uplinks]
            for uplinks in (policy.active, policy.standby, self._uplinks.used(group))
        )
        name = self._uplinks.policy_name(group.switch, group.port_group)
        return convert.teaming_policy(name, policy, active, standby, used)
