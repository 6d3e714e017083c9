"""The vswitch layer as a service: parses requests, calls the catalog and the engine, converts the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from grpc import aio
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc

from lamina_kit.engines import load_engine
from lamina_kit.service import Environment, Service
from lamina_kit.session import GRACE_NS, OwnerSession
from lamina_vswitch import convert
from lamina_vswitch.attach import Streams
from lamina_vswitch.catalog import Catalog, Limits
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.domain.definition import PortDefinition, PortGroupDefinition, SwitchDefinition, mac_entry_key
from lamina_vswitch.domain.page import page
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.engines.interface import MacEntryView, SwitchEngine
from lamina_vswitch.faults import VswitchFaults
from lamina_vswitch.io.store import SqliteStore
from lamina_vswitch.mac_table import MacTables
from lamina_vswitch.metrics import families
from lamina_vswitch.names import Names

Context = aio.ServicerContext[Any, Any]

STORE_FILE = "vswitch.sqlite"


def build(environment: Environment, config: VswitchConfig) -> Service:
    """Return the service. `environment.layer.engine` names its engine; nothing is opened before `start`."""
    return VswitchService(environment, config)


class VswitchService:
    """The switches of one host."""

    layer = "vswitch"
    service_names = ("lamina.vswitch.v1.Switches", "lamina.vswitch.v1.Ports")

    def __init__(self, environment: Environment, config: VswitchConfig) -> None:
        self._environment = environment
        engine_class = load_engine(self.layer, environment.layer.engine)
        engine: SwitchEngine = engine_class(self._record)
        environment.layer.capabilities = engine.capabilities
        self._store = SqliteStore(environment.state_dir / STORE_FILE)
        limits = Limits(config.max_switches, config.max_ports)
        self._catalog = Catalog(environment.host, engine, self._store, limits, self._record)
        self._streams = Streams(self._catalog, environment.clock)
        environment.layer.metrics.add(partial(families, self._catalog, environment.clock))
        rng, events = environment.rng.child("faults"), environment.layer.events
        self._faults = VswitchFaults(self._catalog, environment.clock, rng, events)
        self._faults.register(environment.layer.faults)
        self._hardware: OwnerSession | None = None
        self._grace: asyncio.Task[None] | None = None

    def register(self, server: aio.Server) -> None:
        """Add the layer's services to a server."""
        views = Views(self._catalog, self._environment)
        rpc.add_SwitchesServicer_to_server(SwitchesServicer(views), server)
        rpc.add_PortsServicer_to_server(PortsServicer(views, self._streams), server)

    async def start(self) -> None:
        """Open the store, bring the engine to what it holds, and introduce the layer to the hardware below."""
        self._store.open()
        self._catalog.restore(self._environment.clock.now_ns())
        sessions = self._environment.layer.sessions
        sessions.adopted = lambda owner: len(self._catalog.owned(owner))
        sessions.on_expired(lambda owner, epoch: self._free(owner))
        if self._catalog.owners():
            self._grace = asyncio.get_running_loop().create_task(self._free_orphans())
        hardware = self._environment.channels.get("hardware")
        if hardware is not None:
            owner, epoch = f"{self._environment.host}/vswitch", self._store.next_epoch()
            self._hardware = await OwnerSession.open(
                hardware, owner, epoch, self._environment.clock, self._store.save_epoch
            )
            self._environment.layer.boot_id = self._hardware.handshake.boot_id

    async def stop(self) -> None:
        """End the streams and close the store. Idempotent."""
        self._streams.stop()
        self._faults.stop()
        self._environment.layer.sessions.close()
        if self._grace is not None:
            self._grace.cancel()
        hardware, self._hardware = self._hardware, None
        if hardware is not None:
            await hardware.close()
        self._store.close()

    async def _free_orphans(self) -> None:
        """Free the ports of owners that did not come back after this service started again."""
        owners = self._catalog.owners()
        await self._environment.clock.sleep_ns(GRACE_NS)
        for owner in owners:
            if self._environment.layer.sessions.epoch(owner) == 0:
                self._free(owner)

    def _free(self, owner: str) -> None:
        for port in self._catalog.owned(owner):
            self._catalog.delete_port(port, self._environment.clock.now_ns())

    def _record(self, notice: Notice) -> None:
        self._environment.layer.events.record(notice.object, notice.event, rule=notice.rule, **dict(notice.inputs))


class Views:
    """What both servicers need: the catalog, the names, the time, and definitions as messages."""

    def __init__(self, catalog: Catalog, environment: Environment) -> None:
        self.catalog = catalog
        self.engine = catalog.engine
        self.macs = MacTables(catalog)
        self.names = Names(environment.host)
        self.sessions = environment.layer.sessions
        self.now_ns = environment.clock.now_ns

    def switch(self, switch: SwitchDefinition) -> pb.Switch:
        """Return a switch as a message."""
        name = self.catalog.switch_name(switch.switch)
        tally = self.engine.tally(name, self.now_ns())
        return convert.switch(name, switch, tally, len(self.catalog.ports(switch.switch)))

    def group(self, group: PortGroupDefinition) -> pb.PortGroup:
        """Return a port group as a message."""
        name = self.catalog.port_group_name(group.switch, group.port_group)
        return pb.PortGroup(name=name, vlan_id=group.vlan, port_count=self.catalog.members(group))

    def port(self, port: PortDefinition) -> pb.Port:
        """Return a port as a message."""
        name = self.catalog.port_name(port.switch, port.port)
        group = self.catalog.port_group_name(port.switch, port.port_group) if port.port_group else ""
        attached, linked = self.engine.attached(port.slot), self.engine.link(port.slot)
        return convert.port(name, port, group, self.catalog.vlan(port), attached, linked)

    def mac_entry(self, switch: str, entry: MacEntryView) -> pb.MacEntry:
        """Return a MAC entry as a message."""
        port = self.catalog.port_in_slot(entry.slot)
        name = self.macs.entry_name(switch, entry.vlan, entry.mac)
        return convert.mac_entry(name, entry, self.catalog.port_name(port.switch, port.port))


class SwitchesServicer(rpc.SwitchesServicer):
    """Serves `lamina.vswitch.v1.Switches`."""

    def __init__(self, views: Views) -> None:
        self._v = views

    async def CreateSwitch(self, request: pb.CreateSwitchRequest, context: Context) -> pb.Switch:
        """Create a switch."""
        wanted = convert.switch_definition(request)
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
        wanted = convert.port_group_definition(request, self._v.names)
        return self._v.group(self._v.catalog.create_port_group(wanted, request.request_id))

    async def GetPortGroup(self, request: pb.GetPortGroupRequest, context: Context) -> pb.PortGroup:
        """Return a port group."""
        return self._v.group(self._v.catalog.port_group(*self._v.names.port_group(request.name)))

    async def ListPortGroups(self, request: pb.ListPortGroupsRequest, context: Context) -> pb.ListPortGroupsResponse:
        """List the port groups of a switch."""
        found = self._v.catalog.port_groups(self._v.names.switch(request.parent, "parent"))
        chosen, token = page(found, lambda each: each.port_group, request.page_size, request.page_token)
        return pb.ListPortGroupsResponse(port_groups=map(self._v.group, chosen), next_page_token=token)

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
        switch, mac, port = convert.static_entry(request, self._v.names)
        return self._v.mac_entry(switch, self._v.macs.create_static(switch, mac, port, self._v.now_ns()))

    async def DeleteMacEntry(self, request: pb.DeleteMacEntryRequest, context: Context) -> pb.DeleteMacEntryResponse:
        """Delete a MAC entry."""
        self._v.macs.delete(*self._v.names.mac_entry(request.name), self._v.now_ns())
        return pb.DeleteMacEntryResponse()

    async def FlushMacTable(self, request: pb.FlushMacTableRequest, context: Context) -> pb.FlushMacTableResponse:
        """Forget dynamic MAC entries."""
        switch, vlan, port = convert.flush_scope(request, self._v.names)
        flushed = self._v.macs.flush(switch, vlan, port, self._v.now_ns())
        return pb.FlushMacTableResponse(flushed_entries=flushed)


class PortsServicer(rpc.PortsServicer):
    """Serves `lamina.vswitch.v1.Ports`."""

    def __init__(self, views: Views, streams: Streams) -> None:
        self._v = views
        self._streams = streams

    async def CreatePort(self, request: pb.CreatePortRequest, context: Context) -> pb.Port:
        """Create a port; it belongs to the caller's session if the call names one."""
        session = self._v.sessions.find(context)
        wanted = convert.port_definition(request, session.owner if session else "", self._v.names)
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
        wanted = convert.changed_port(request, old, self._v.names)
        return self._v.port(self._v.catalog.update_port(wanted, self._v.now_ns()))

    async def DeletePort(self, request: pb.DeletePortRequest, context: Context) -> pb.DeletePortResponse:
        """Delete a port."""
        self._v.catalog.delete_port(self._port(request.name), self._v.now_ns())
        return pb.DeletePortResponse()

    async def GetPortCounters(self, request: pb.GetPortCountersRequest, context: Context) -> pb.PortCounters:
        """Return the counters of a port."""
        port = self._port(request.port, "port")
        return convert.counters(request.port, self._v.engine.counters(port.slot))

    def Attach(self, request_iterator: Any, context: Context) -> AsyncIterator[pb.AttachResponse]:
        """Carry frames both ways for as long as the stream lives; the kit closes the generator with the call."""
        return self._streams.run(request_iterator)

    async def TraceFrame(self, request: pb.TraceFrameRequest, context: Context) -> pb.TraceFrameResponse:
        """Return what would happen to a frame."""
        port = self._port(request.port, "port")
        return convert.trace(self._v.engine.trace(port.slot, convert.traced_frame(request), self._v.now_ns()))

    def _port(self, name: str, field: str = "name") -> PortDefinition:
        return self._v.catalog.port(*self._v.names.port(name, field))
