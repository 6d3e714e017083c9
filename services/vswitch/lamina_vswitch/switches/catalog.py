"""The catalog: what is defined on this host, kept equal in three places: here, in the store, in the engine.

Order of a change: check, record in the store, apply to the engine. A definition that the engine refuses is taken out of
the store again. After a crash `restore` brings the engine to what the store holds. Every method runs to its end before
another begins, so there is one writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from lamina_kit.errors import LaminaError
from lamina_vswitch.domain.definitions import refusals
from lamina_vswitch.domain.definitions.requests import RequestLedger
from lamina_vswitch.domain.definitions.switches import (
    PORT_GROUP_NAME,
    PORT_NAME,
    SWITCH_NAME,
    Origin,
    PortDefinition,
    PortGroupDefinition,
    SwitchDefinition,
)
from lamina_vswitch.domain.offload.features import Takes
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.engines.interface import DefinitionStore, FrameSink, SwitchEngine
from lamina_vswitch.io.wakeup import raised

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Most switches and ports that a host may have."""

    switches: int
    ports: int


class Catalog:
    """Switches, port groups and ports of one host."""

    def __init__(
        self, host: str, engine: SwitchEngine, store: DefinitionStore, limits: Limits, notice: Callable[[Notice], None]
    ) -> None:
        self.host = host
        self.notice = notice
        self.failed: Callable[[Exception], None] = raised  # is told of defects in what timers do
        self.engine = engine
        self.store = store
        self._limits = limits
        self._switches: dict[str, SwitchDefinition] = {}
        self._groups: dict[tuple[str, str], PortGroupDefinition] = {}
        self._ports: dict[tuple[str, str], PortDefinition] = {}
        self._slots: dict[int, PortDefinition] = {}
        self._requests = RequestLedger()
        self._internal: dict[tuple[str, str], int] = {}
        self.trunks: dict[tuple[str, str], Trunk] = {}
        """Port groups that are trunks, by ids of switch and group; whoever keeps the policies keeps it."""
        self.port_trunks: dict[tuple[str, str], Trunk] = {}
        """Ports that are trunks of their own, by ids of switch and port; whoever keeps the uplinks keeps it."""
        self.reserved: dict[int, FrameSink] = {}
        """Sinks that alone may have a port, by its slot: NICs of uplinks, also while they have no link."""
        self.switch_users: list[Callable[[str], int]] = []
        """Asked how many things beside ports a switch carries, such as networks without a router."""
        self.plugged: list[Callable[[PortDefinition], None]] = []
        """Called in order with a port that came, or that has another group now."""
        self.regrouping: list[Callable[[PortDefinition], None]] = []  # may refuse a port as it is about to be
        self.unplugged: list[Callable[[PortDefinition], None]] = []
        """Called in order with a port that is gone."""
        self.group_gone: list[Callable[[PortGroupDefinition], None]] = []
        """Called in order with a port group that is gone, also when its switch is."""
        self.switch_gone: list[Callable[[SwitchDefinition], None]] = []
        """Called in order with a switch that is gone, after its ports and port groups."""

    def restore(self, now_ns: int) -> None:
        """Bring this object and the engine, both empty, to what the store holds."""
        recorded = self.store.load()
        for switch, origin in recorded.switches:
            self.engine.add_switch(self.switch_name(switch.switch), switch)
            self._switches[switch.switch] = switch
            self._requests.remember("switch", (switch.switch,), origin)
        for group, origin in recorded.port_groups:
            self._groups[group.switch, group.port_group] = group
            self._requests.remember("port_group", (group.switch, group.port_group), origin)
        for port, origin in recorded.ports:
            self._plug(port)
            self._requests.remember("port", (port.switch, port.port), origin)
        for entry in recorded.static_entries:
            slot = self._ports[entry.switch, entry.port].slot
            self.engine.add_static(self.switch_name(entry.switch), entry.vlan, entry.mac, slot, now_ns)

    # Names

    def switch_name(self, switch: str) -> str:
        """Return the resource name of a switch."""
        return SWITCH_NAME.format(host=self.host, switch=switch)

    def port_group_name(self, switch: str, port_group: str) -> str:
        """Return the resource name of a port group."""
        return PORT_GROUP_NAME.format(host=self.host, switch=switch, port_group=port_group)

    def port_name(self, switch: str, port: str) -> str:
        """Return the resource name of a port."""
        return PORT_NAME.format(host=self.host, switch=switch, port=port)

    # Switches

    def create_switch(self, switch: SwitchDefinition, request_id: str) -> SwitchDefinition:
        """Create a switch, or return what the same request made before."""
        key = (switch.switch,)
        origin = Origin(request_id, repr(("switch", *key, switch.mtu_bytes, switch.ageing_seconds, switch.mac_limit)))
        if self._requests.replayed("switch", key, origin):
            return self._switches[switch.switch]
        name = self.switch_name(switch.switch)
        if switch.switch in self._switches:
            raise refusals.exists("switch", name)
        if len(self._switches) >= self._limits.switches:
            raise refusals.over_limit("switch", self._limits.switches)
        self.store.add_switch(switch, origin)
        with _undone_by(lambda: self.store.remove_switch(switch.switch)):
            self.engine.add_switch(name, switch)
        self._switches[switch.switch] = switch
        self._requests.remember("switch", key, origin)
        self._note(name, "switch.created", mtu_bytes=switch.mtu_bytes)
        return switch

    def switch(self, switch: str) -> SwitchDefinition:
        """Return a switch."""
        found = self._switches.get(switch)
        if found is None:
            raise refusals.unknown("switch", self.switch_name(switch))
        return found

    def switches(self) -> list[SwitchDefinition]:
        """Return all switches, ordered by id."""
        return [self._switches[key] for key in sorted(self._switches)]

    def replace_switch(self, switch: SwitchDefinition, now_ns: int) -> None:
        """Put an existing switch's new settings, which the store has, to work; the engine may refuse them."""
        self.engine.update_switch(self.switch_name(switch.switch), switch, now_ns)
        self._switches[switch.switch] = switch

    def delete_switch(self, switch: str, *, force: bool, now_ns: int) -> None:
        """Delete a switch with its port groups and, when forced, its ports."""
        gone = self.switch(switch)
        ports = self.ports(switch)
        users = len(ports) + sum(asked(switch) for asked in self.switch_users)
        if users and not force:
            raise refusals.in_use("switch", self.switch_name(switch), users)
        self.store.remove_switch(switch)
        for port in ports:
            self._unplug(port, now_ns)
        for group in self.port_groups(switch):
            del self._groups[switch, group.port_group]
            self._requests.forget("port_group", (switch, group.port_group))
            _tell(self.group_gone, group)
        self.engine.remove_switch(self.switch_name(switch))
        del self._switches[switch]
        self._requests.forget("switch", (switch,))
        self._note(self.switch_name(switch), "switch.deleted", ports=len(ports))
        _tell(self.switch_gone, gone)

    # Port groups

    def create_port_group(self, group: PortGroupDefinition, request_id: str) -> PortGroupDefinition:
        """Create a port group, or return what the same request made before."""
        self.switch(group.switch)
        key = (group.switch, group.port_group)
        origin = Origin(request_id, repr(("port_group", *key, group.vlan)))
        if self._requests.replayed("port_group", key, origin):
            return self._groups[key]
        if key in self._groups:
            raise refusals.exists("port_group", self.port_group_name(*key))
        self.store.add_port_group(group, origin)
        self._groups[key] = group
        self._requests.remember("port_group", key, origin)
        self._note(self.port_group_name(*key), "port_group.created", vlan=group.vlan)
        return group

    def port_group(self, switch: str, port_group: str) -> PortGroupDefinition:
        """Return a port group."""
        found = self._groups.get((switch, port_group))
        if found is None:
            raise refusals.unknown("port_group", self.port_group_name(switch, port_group))
        return found

    def port_groups(self, switch: str) -> list[PortGroupDefinition]:
        """Return the port groups of a switch, ordered by id."""
        self.switch(switch)
        return [self._groups[key] for key in sorted(self._groups) if key[0] == switch]

    def replace_group(self, group: PortGroupDefinition) -> None:
        """Take over an existing group's new VLAN, which the store has; the caller moves its ports."""
        self._groups[group.switch, group.port_group] = group

    def delete_port_group(self, switch: str, port_group: str) -> None:
        """Delete a port group that no port is in."""
        group = self.port_group(switch, port_group)
        members = self.members(group)
        if members:
            raise refusals.in_use("port_group", self.port_group_name(switch, port_group), members)
        self.store.remove_port_group(group)
        del self._groups[switch, port_group]
        self._requests.forget("port_group", (switch, port_group))
        self._note(self.port_group_name(switch, port_group), "port_group.deleted")
        _tell(self.group_gone, group)

    def members(self, group: PortGroupDefinition) -> int:
        """Return how many ports are in a group."""
        return len(self.ports_of(group))

    def ports_of(self, group: PortGroupDefinition) -> list[PortDefinition]:
        """Return the ports that are in a group, ordered by slot."""
        ports = (self._slots[slot] for slot in sorted(self._slots))
        return [port for port in ports if (port.switch, port.port_group) == (group.switch, group.port_group)]

    # Ports

    def create_port(self, wanted: PortDefinition, request_id: str) -> PortDefinition:
        """Create a port in a free slot, or return what the same request made before; slot and generation are ours."""
        self.switch(wanted.switch)
        self.vlan(wanted)
        key = (wanted.switch, wanted.port)
        origin = Origin(request_id, repr(("port", *key, wanted.port_group, wanted.link_up, wanted.owner)))
        if self._requests.replayed("port", key, origin):
            return self._ports[key]
        if key in self._ports:
            raise refusals.exists("port", self.port_name(*key))
        if len(self._ports) >= self._limits.ports:
            raise refusals.over_limit("port", self._limits.ports)
        slot, generation = self.store.claim_slot()
        port = replace(wanted, slot=slot, generation=generation)
        self.store.add_port(port, origin)
        with _undone_by(lambda: self.store.remove_port(port)):
            self._plug(port)
        self._requests.remember("port", key, origin)
        self._note(self.port_name(*key), "port.created", group=port.port_group, owner=port.owner, slot=slot)
        return port

    def port(self, switch: str, port: str) -> PortDefinition:
        """Return a port."""
        found = self._ports.get((switch, port))
        if found is None:
            raise refusals.unknown("port", self.port_name(switch, port))
        return found

    def find_port(self, switch: str, port: str) -> PortDefinition | None:
        """Return a port, None when there is none of that name."""
        return self._ports.get((switch, port))

    def port_in_slot(self, slot: int) -> PortDefinition:
        """Return the port in a slot that is in use."""
        return self._slots[slot]

    def port_of_handle(self, slot: int, generation: int) -> PortDefinition:
        """Return the port of a handle."""
        port = self._slots.get(slot)
        if port is None or port.generation != generation:
            raise refusals.stale(slot, generation)
        return port

    def vlan(self, port: PortDefinition) -> int:
        """Return the VLAN of a port: its group's, the native one of a trunk, or 0; an internal port has its own."""
        own = self._internal.get((port.switch, port.port))
        if own is not None:
            return own
        if not port.port_group:
            return 0
        group = self.port_group(port.switch, port.port_group)
        trunk = self.trunks.get((port.switch, port.port_group))
        return group.vlan if trunk is None else trunk.native

    def ports(self, switch: str) -> list[PortDefinition]:
        """Return the ports of a switch, ordered by id."""
        self.switch(switch)
        return [self._ports[key] for key in sorted(self._ports) if key[0] == switch]

    def update_port(self, port: PortDefinition, now_ns: int) -> PortDefinition:
        """Give an existing port a new group or link."""
        old = self.port(port.switch, port.port)
        if self.is_internal(port) and port.port_group:
            raise refusals.internal(self.port_name(port.switch, port.port))
        vlan = self.vlan(port)
        if port == old:
            return old
        _tell(self.regrouping, port)
        self.store.update_port(port)
        self._ports[port.switch, port.port] = port
        self._slots[port.slot] = port
        self.engine.set_vlan(port.slot, vlan, now_ns)
        self.engine.set_link(port.slot, port.link_up, now_ns)
        _tell(self.plugged, port)
        self._note(self.port_name(port.switch, port.port), "port.updated", group=port.port_group, link_up=port.link_up)
        return port

    def delete_port(self, port: PortDefinition, now_ns: int) -> None:
        """Delete a port with its MAC entries. Refused for an internal one, which goes with what it belongs to."""
        if self.is_internal(port):
            raise refusals.internal(self.port_name(port.switch, port.port))
        self.delete_internal_port(port, now_ns)

    def mtu_bytes(self, slot: int) -> int:
        """Return the MTU of the switch of a port."""
        return self._switches[self._slots[slot].switch].mtu_bytes

    def attach(self, port: PortDefinition, sink: FrameSink, now_ns: int, takes: Takes | None = None) -> None:
        """Give a port a carrier. `takes` is what the device takes unfinished, None for nothing at all."""
        if self.reserved.get(port.slot, sink) is not sink:
            raise refusals.port_attached(self.port_name(port.switch, port.port))
        self.engine.attach(port.slot, sink, now_ns, takes)
        self._note(self.port_name(port.switch, port.port), "port.attached", slot=port.slot)

    def detach(self, port: PortDefinition, sink: FrameSink, now_ns: int) -> None:
        """Take the carrier away; nothing happens when the port is gone."""
        if self._slots.get(port.slot) is not None and self.engine.detach(port.slot, sink, now_ns):
            self._note(self.port_name(port.switch, port.port), "port.detached", slot=port.slot)

    def owners(self) -> list[str]:
        """Return the owners of ports that belong to sessions, ordered."""
        return sorted({port.owner for port in self._ports.values() if port.owner and not self.is_internal(port)})

    def owned(self, owner: str) -> list[PortDefinition]:
        """Return the ports of an owner, ordered by slot, without internal ones."""
        ports = [self._slots[slot] for slot in sorted(self._slots) if self._slots[slot].owner == owner]
        return [port for port in ports if not self.is_internal(port)]

    # Internal ports: their other end is in this process

    @property
    def own_owner(self) -> str:
        """The owner that internal ports show: this layer itself."""
        return f"{self.host}/vswitch"

    def expect_internal(self, switch: str, port: str, vlan: int) -> None:
        """Say before `restore` that a port which is recorded is an internal one, in this VLAN."""
        self._internal[switch, port] = vlan

    def create_internal_port(self, switch: str, port: str, vlan: int) -> PortDefinition:
        """Create a port of this layer: in a VLAN of its own choice, in no group, and not for others to change."""
        self.expect_internal(switch, port, vlan)
        try:
            return self.create_port(PortDefinition(switch, port, "", True, self.own_owner, 0, 0), "")
        except LaminaError:
            del self._internal[switch, port]
            raise

    def delete_internal_port(self, port: PortDefinition, now_ns: int) -> None:
        """Delete a port of this layer."""
        self.store.remove_port(port)
        self._unplug(port, now_ns)

    def is_internal(self, port: PortDefinition) -> bool:
        """Tell whether a port is this layer's own."""
        return (port.switch, port.port) in self._internal

    # Bookkeeping

    def _plug(self, port: PortDefinition) -> None:
        name = self.port_name(port.switch, port.port)
        self.engine.add_port(self.switch_name(port.switch), port.slot, name, self.vlan(port), port.link_up)
        self._ports[port.switch, port.port] = port
        self._slots[port.slot] = port
        _tell(self.plugged, port)

    def _unplug(self, port: PortDefinition, now_ns: int) -> None:
        self.engine.remove_port(port.slot, now_ns)
        del self._ports[port.switch, port.port]
        del self._slots[port.slot]
        self._internal.pop((port.switch, port.port), None)
        self._requests.forget("port", (port.switch, port.port))
        self._note(self.port_name(port.switch, port.port), "port.deleted", slot=port.slot)
        _tell(self.unplugged, port)

    def _note(self, name: str, event: str, **inputs: object) -> None:
        self.notice(Notice(name, event, "", tuple(sorted((key, str(value)) for key, value in inputs.items()))))


@contextmanager
def _undone_by(undo: Callable[[], None]) -> Iterator[None]:
    """Run the block; when the engine refuses, undo what was recorded and pass the refusal on."""
    try:
        yield
    except LaminaError:
        undo()
        raise


def _tell(listeners: list[Callable[[T], None]], thing: T) -> None:
    """Tell everybody who wants to know of a port, a group or a switch."""
    for listener in listeners:
        listener(thing)
