"""`lamina.vswitch.v1.Switches`: switches, port groups and MAC tables."""

from __future__ import annotations

from typing import Any

from grpc import aio
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc

from lamina_vswitch.convert import switches
from lamina_vswitch.domain.definitions.pages import page
from lamina_vswitch.domain.definitions.switches import mac_entry_key
from lamina_vswitch.serving.views import Views
from lamina_vswitch.switches.policies import PolicyBook

Context = aio.ServicerContext[Any, Any]


class SwitchesServicer(rpc.SwitchesServicer):
    """Serves `lamina.vswitch.v1.Switches`."""

    def __init__(self, views: Views, policies: PolicyBook) -> None:
        self._v = views
        self._policies = policies

    async def CreateSwitch(self, request: pb.CreateSwitchRequest, context: Context) -> pb.Switch:
        """Create a switch."""
        wanted = switches.switch_definition(request)
        return self._v.switch(self._v.catalog.create_switch(wanted, request.request_id))

    async def GetSwitch(self, request: pb.GetSwitchRequest, context: Context) -> pb.Switch:
        """Return a switch."""
        return self._v.switch(self._v.catalog.switch(self._v.names.switch(request.name)))

    async def ListSwitches(self, request: pb.ListSwitchesRequest, context: Context) -> pb.ListSwitchesResponse:
        """List switches."""
        found = self._v.catalog.switches()
        chosen, token = page(found, lambda each: each.switch, request.page_size, request.page_token)
        return pb.ListSwitchesResponse(switches=map(self._v.switch, chosen), next_page_token=token)

    async def DeleteSwitch(self, request: pb.DeleteSwitchRequest, context: Context) -> pb.DeleteSwitchResponse:
        """Delete a switch."""
        switch = self._v.names.switch(request.name)
        self._v.catalog.delete_switch(switch, force=request.force, now_ns=self._v.now_ns())
        return pb.DeleteSwitchResponse()

    async def CreatePortGroup(self, request: pb.CreatePortGroupRequest, context: Context) -> pb.PortGroup:
        """Create a port group."""
        wanted = switches.port_group_definition(request, self._v.names)
        return self._v.group(self._v.catalog.create_port_group(wanted, request.request_id))

    async def GetPortGroup(self, request: pb.GetPortGroupRequest, context: Context) -> pb.PortGroup:
        """Return a port group."""
        return self._v.group(self._v.catalog.port_group(*self._v.names.port_group(request.name)))

    async def ListPortGroups(self, request: pb.ListPortGroupsRequest, context: Context) -> pb.ListPortGroupsResponse:
        """List the port groups of a switch."""
        found = self._v.catalog.port_groups(self._v.names.switch(request.parent, "parent"))
        chosen, token = page(found, lambda each: each.port_group, request.page_size, request.page_token)
        return pb.ListPortGroupsResponse(port_groups=map(self._v.group, chosen), next_page_token=token)

    async def UpdatePortGroup(self, request: pb.UpdatePortGroupRequest, context: Context) -> pb.PortGroup:
        """Change the VLAN of a port group."""
        old = self._v.catalog.port_group(*self._v.names.port_group(request.port_group.name, "port_group.name"))
        wanted = switches.moved_group(request, old)
        self._policies.move_group(wanted, self._v.now_ns())
        return self._v.group(wanted)

    async def DeletePortGroup(self, request: pb.DeletePortGroupRequest, context: Context) -> pb.DeletePortGroupResponse:
        """Delete a port group."""
        self._v.catalog.delete_port_group(*self._v.names.port_group(request.name))
        return pb.DeletePortGroupResponse()

    async def ListMacEntries(self, request: pb.ListMacEntriesRequest, context: Context) -> pb.ListMacEntriesResponse:
        """List the MAC table of a switch."""
        switch = self._v.names.switch(request.parent, "parent")
        found = self._v.macs.entries(switch, self._v.now_ns())
        chosen, token = page(
            found, lambda each: mac_entry_key(each.vlan, each.mac), request.page_size, request.page_token
        )
        entries = [self._v.mac_entry(switch, entry) for entry in chosen]
        return pb.ListMacEntriesResponse(mac_entries=entries, next_page_token=token)

    async def CreateMacEntry(self, request: pb.CreateMacEntryRequest, context: Context) -> pb.MacEntry:
        """Create a static MAC entry."""
        switch, mac, port = switches.static_entry(request, self._v.names)
        return self._v.mac_entry(switch, self._v.macs.create_static(switch, mac, port, self._v.now_ns()))

    async def DeleteMacEntry(self, request: pb.DeleteMacEntryRequest, context: Context) -> pb.DeleteMacEntryResponse:
        """Delete a MAC entry."""
        self._v.macs.delete(*self._v.names.mac_entry(request.name), self._v.now_ns())
        return pb.DeleteMacEntryResponse()

    async def FlushMacTable(self, request: pb.FlushMacTableRequest, context: Context) -> pb.FlushMacTableResponse:
        """Forget dynamic MAC entries."""
        switch, vlan, port = switches.flush_scope(request, self._v.names)
        flushed = self._v.macs.flush(switch, vlan, port, self._v.now_ns())
        return pb.FlushMacTableResponse(flushed_entries=flushed)
