"""What every servicer of the layer needs: the catalog, the names, the time, and definitions as messages."""

from __future__ import annotations

from lamina.vswitch.v1 import vswitch_pb2 as pb

from lamina_kit.layer.service import Environment
from lamina_vswitch.convert import switches
from lamina_vswitch.domain.definitions.switches import PortDefinition, PortGroupDefinition, SwitchDefinition
from lamina_vswitch.engines.interface import MacEntryView
from lamina_vswitch.names import Names
from lamina_vswitch.switches.catalog import Catalog
from lamina_vswitch.switches.mac_tables import MacTables


class Views:
    """What the servicers need: the catalog, the names, the time, and definitions as messages."""

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
        return switches.switch(name, switch, tally, len(self.catalog.ports(switch.switch)))

    def group(self, group: PortGroupDefinition) -> pb.PortGroup:
        """Return a port group as a message."""
        name = self.catalog.port_group_name(group.switch, group.port_group)
        return pb.PortGroup(name=name, vlan_id=group.vlan, port_count=self.catalog.members(group))

    def port(self, port: PortDefinition) -> pb.Port:
        """Return a port as a message."""
        name = self.catalog.port_name(port.switch, port.port)
        group = self.catalog.port_group_name(port.switch, port.port_group) if port.port_group else ""
        attached, linked = self.engine.attached(port.slot), self.engine.link(port.slot)
        shut = self.engine.shut(port.slot) is not None
        return switches.port(name, port, group, self.catalog.vlan(port), attached, linked, shut)

    def mac_entry(self, switch: str, entry: MacEntryView) -> pb.MacEntry:
        """Return a MAC entry as a message."""
        port = self.catalog.port_in_slot(entry.slot)
        name = self.macs.entry_name(switch, entry.vlan, entry.mac)
        return switches.mac_entry(name, entry, self.catalog.port_name(port.switch, port.port))
