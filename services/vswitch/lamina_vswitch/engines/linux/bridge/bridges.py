"""One switch on the kernel: a bridge for each of its VLANs, a TAP for each port in each VLAN that the port carries.

What a switch shall be is the `Switch` of `domain/switch/topology.py`; `settle` brings the kernel there, and asks for
nothing that is so already. A trunk has a leg in every VLAN that has a bridge; a VLAN that only trunks carry gets its
bridge with its first frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_vswitch.domain.policy.in_kernel import vlans_of
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.switch.topology import Port, Switch
from lamina_vswitch.engines.linux.bpf.trunk import tags_of
from lamina_vswitch.engines.linux.bridge.kernel import Kernel
from lamina_vswitch.engines.linux.bridge.leg import Leg
from lamina_vswitch.engines.linux.bridge.mac_table import KernelFdb
from lamina_vswitch.engines.linux.bridge.taps import Tap
from lamina_vswitch.engines.linux.netlink import links, neighbours
from lamina_vswitch.engines.linux.netlink.links import PortSettings
from lamina_vswitch.engines.linux.netlink.neighbours import NEW, Neighbour
from lamina_vswitch.engines.linux.refusal import unless_gone

NS_PER_SECOND = 1_000_000_000
_TAG_BYTES = 4
_NOWHERE, _SUNK = 0, -1


@dataclass(slots=True)
class Bridge:
    """A VLAN: index and name of the bridge, what was set at it (ageing in seconds, most addresses), and its legs."""

    index: int
    name: str
    ageing_seconds: int
    most: int = 0
    learning: bool = True
    legs: dict[int, Leg] = field(default_factory=dict)


class Bridges:
    """The bridges of one switch. `number` tells its devices from those of other switches."""

    def __init__(self, kernel: Kernel, number: int, switch: Switch) -> None:
        self.switch = switch
        self.fdb = KernelFdb(switch.fdb.ageing_ns, switch.fdb.limit, self)
        self.by_vlan: dict[int, Bridge] = {}
        self._kernel = kernel
        self._number = number
        self._woken: set[int] = set()
        self._placed: dict[tuple[int, bytes], int] = {}
        self._settled = -1
        self._full = False

    # Bringing the kernel to what the switch shall be

    @property
    def is_settled(self) -> bool:
        """Whether the kernel is where the switch is."""
        return self._settled == self.switch.revision

    def settle(self) -> None:
        """Bring the kernel to what the switch is. Raises Unavailable `KERNEL_REFUSED`."""
        self._settled = -1
        slots = {slot for bridge in self.by_vlan.values() for slot in bridge.legs}
        for slot in sorted(slots | set(self.switch.ports)):
            self._settle_port(slot)
        self._limit()
        self._settled = self.switch.revision

    def settle_port(self, slot: int) -> None:
        """Bring one port to what it is, when nothing else changed. Raises Unavailable `KERNEL_REFUSED`."""
        self._settled = -1
        self._settle_port(slot)
        self._limit()
        self._settled = self.switch.revision

    def wake(self, vlan: int) -> None:
        """Make the bridge of a VLAN that only trunks carry. Raises Unavailable `KERNEL_REFUSED`."""
        trunks = [port for port in self.switch.ports.values() if port.policy.trunk is not None and port.carries(vlan)]
        self._kernel.check_room(len(trunks))  # first: a VLAN that cannot be must not keep the others from their frames
        self._woken.add(vlan)
        try:
            self.settle()
        except BaseException:
            self._woken.discard(vlan)
            raise

    def close(self) -> None:
        """Remove all devices of the switch."""
        for vlan in sorted(self.by_vlan):
            for slot in sorted(self.by_vlan[vlan].legs):
                self._remove_leg(self.by_vlan[vlan].legs[slot])
            self._remove_bridge(vlan)

    def leg(self, slot: int, vlan: int) -> Leg | None:
        """Return the leg of a port in a VLAN."""
        bridge = self.by_vlan.get(vlan)
        return bridge.legs.get(slot) if bridge is not None else None

    def _settle_port(self, slot: int) -> None:
        port = self.switch.ports.get(slot)
        wanted = self._vlans(port) if port is not None else set()
        for vlan in sorted(self.by_vlan):
            leg = self.by_vlan[vlan].legs.get(slot)
            if leg is not None and vlan not in wanted:
                self._remove_leg(leg)
                self._place_again(vlan, slot)
                if not self.by_vlan[vlan].legs:
                    self._remove_bridge(vlan)
        if port is None:
            return
        self._read_tags(port)
        for vlan in sorted(wanted):
            if vlan not in self.by_vlan:
                self._add_bridge(vlan)
            if slot not in self.by_vlan[vlan].legs:
                self._add_leg(port, vlan)
            self._set_leg(port, self.by_vlan[vlan].legs[slot], self.by_vlan[vlan].learning)
        self.apply(slot)

    # Ports that are devices of the kernel

    def lose_legs(self, slot: int) -> None:
        """Take a port out of all bridges; it comes back when it is settled."""
        for vlan in sorted(self.by_vlan):
            leg = self.by_vlan[vlan].legs.get(slot)
            if leg is not None:
                self._remove_leg(leg)
                self._place_again(vlan, slot)

    def apply(self, slot: int) -> None:
        """Let the policy of a port hold where the port is a device. Raises FailedPrecondition `NFT_REFUSED`."""
        port = self.switch.ports.get(slot)
        if port is not None and slot in self._kernel.devices:
            ageing_seconds = self.fdb.ageing_ns // NS_PER_SECOND
            self._kernel.devices.apply(slot, port.policy, ageing_seconds, self.switch.mtu_bytes)

    def check(self, slot: int, policy: PolicyInForce) -> None:
        """Raise FailedPrecondition `NFT_REFUSED` if a device of the kernel could not have a policy's rules."""
        self._kernel.devices.check(slot, policy, self.fdb.ageing_ns // NS_PER_SECOND)

    def _read_tags(self, port: Port) -> None:
        devices, tags = self._kernel.devices, tags_of(port.vlan, port.policy.trunk)
        if port.slot in devices and not devices.reads(port.slot, tags):
            self.lose_legs(port.slot)
            devices.read(port.slot, tags)

    def _vlans(self, port: Port) -> set[int]:
        """Return the VLANs in which a port has a leg."""
        if port.slot in self._kernel.devices:
            return self._vlans_of_device(port)
        if port.policy.trunk is None:
            return {port.vlan}
        return {vlan for vlan in self._woken | set(self.by_vlan) if port.carries(vlan)}

    def _vlans_of_device(self, port: Port) -> set[int]:
        """Return the VLANs in which a device has legs. An access port has one while it takes part and is there."""
        if port.policy.trunk is not None:
            return vlans_of(port.policy.trunk)
        return {port.vlan} if port.takes_part and self._kernel.devices.is_there(port.slot) else set()

    def _add_bridge(self, vlan: int) -> None:
        name, ageing_seconds = f"s{self._number}v{vlan}", self.fdb.ageing_ns // NS_PER_SECOND
        index = self._kernel.add_bridge(name, ageing_seconds)
        self.by_vlan[vlan] = Bridge(index, name, ageing_seconds)
        self._kernel.of_bridge[index] = (self, vlan)
        for slot, port in sorted(self.switch.ports.items()):
            if port.policy.trunk is not None and vlan in self._vlans(port) and slot not in self.by_vlan[vlan].legs:
                self._add_leg(port, vlan)
        for static_vlan, mac, slot in self.fdb.statics():
            if static_vlan == vlan:
                self.place(vlan, mac, slot)

    def _remove_bridge(self, vlan: int) -> None:
        bridge = self.by_vlan.pop(vlan)
        self._woken.discard(vlan)
        del self._kernel.of_bridge[bridge.index]
        for key in [key for key in self._placed if key[0] == vlan]:
            self._placed[key] = _NOWHERE
        links.remove(self._kernel.netlink, bridge.index)

    def _add_leg(self, port: Port, vlan: int) -> None:
        bridge, settings = self.by_vlan[vlan], self._settings(port, self.by_vlan[vlan].learning)
        if port.slot in self._kernel.devices:
            index = self._kernel.devices.add_leg(port.slot, vlan, bridge.index, settings.mtu_bytes).index
            try:
                links.set_port(self._kernel.netlink, index, settings)
            except BaseException:
                self._kernel.devices.remove_leg(port.slot, vlan)
                raise
            self._hold_leg(port, Leg(port.slot, vlan, None, index, settings))
            return
        tap = Tap(self._kernel.namespace, f"p{port.slot}v{vlan}")
        try:
            index = links.index_of(self._kernel.netlink, f"p{port.slot}v{vlan}")
            links.enslave(self._kernel.netlink, index, bridge.index, settings.mtu_bytes)
            links.set_port(self._kernel.netlink, index, settings)
        except BaseException:
            tap.close()
            raise
        self._hold_leg(port, Leg(port.slot, vlan, tap, index, settings))

    def _hold_leg(self, port: Port, leg: Leg) -> None:
        self.by_vlan[leg.vlan].legs[port.slot] = leg
        self._kernel.add_leg(leg)
        self._place_again(leg.vlan, port.slot)

    def _remove_leg(self, leg: Leg) -> None:
        del self.by_vlan[leg.vlan].legs[leg.slot]
        self._kernel.remove_leg(leg)
        if leg.tap is not None:
            leg.tap.close()
        else:
            self._kernel.devices.remove_leg(leg.slot, leg.vlan)

    def _set_leg(self, port: Port, leg: Leg, learning: bool) -> None:
        settings = self._settings(port, learning)
        if settings == leg.settings:
            return
        if leg.tap is None:  # somebody may have taken the device away
            unless_gone(lambda: self._ask_leg(leg, settings))
        else:
            self._ask_leg(leg, settings)
        leg.settings = settings

    def _ask_leg(self, leg: Leg, settings: PortSettings) -> None:
        if settings.mtu_bytes != leg.settings.mtu_bytes:
            links.set_mtu(self._kernel.netlink, leg.index, settings.mtu_bytes)
        links.set_port(self._kernel.netlink, leg.index, settings)

    def _settings(self, port: Port, learning: bool) -> PortSettings:
        if port.slot in self._kernel.devices and port.policy.trunk is None:
            return PortSettings(None, learning, port.policy.isolated, self.switch.mtu_bytes)
        return PortSettings(port.takes_part, learning, port.policy.isolated, self.switch.mtu_bytes + 2 * _TAG_BYTES)

    # The MAC table: what the mirror asks of the kernel

    def place(self, vlan: int, mac: bytes, slot: int) -> None:
        """Put a static entry at its port, or where frames for it end when the port has no leg in the VLAN."""
        leg, bridge = self.leg(slot, vlan), self.by_vlan.get(vlan)
        where = leg.index if leg is not None else _SUNK if bridge is not None else _NOWHERE
        if self._placed.get((vlan, mac)) == _SUNK and bridge is not None:
            neighbours.remove(self._kernel.netlink, bridge.index, mac, sunk=True)
        if leg is not None and leg.tap is None:
            unless_gone(lambda: neighbours.add_static(self._kernel.netlink, leg.index, mac))
        elif leg is not None:
            neighbours.add_static(self._kernel.netlink, leg.index, mac)
        elif bridge is not None:
            neighbours.add_sunk(self._kernel.netlink, bridge.index, mac)
        self._placed[vlan, mac] = where

    def forget(self, vlan: int, mac: bytes, slot: int) -> None:
        """Remove an entry of either kind, if the kernel has it."""
        leg, bridge = self.leg(slot, vlan), self.by_vlan.get(vlan)
        where = self._placed.pop((vlan, mac), leg.index if leg is not None else _NOWHERE)
        if where == _SUNK and bridge is not None:
            neighbours.remove(self._kernel.netlink, bridge.index, mac, sunk=True)
        elif where > 0:
            neighbours.remove(self._kernel.netlink, where, mac)

    def heard(self, kind: int, vlan: int, slot: int, found: Neighbour, now_ns: int) -> None:
        """Take in what the kernel told of an entry."""
        if kind == NEW and not found.static:
            self.fdb.heard(vlan, found.mac, slot, now_ns)
        elif kind != NEW:
            self.fdb.lost(vlan, found.mac, slot)

    def look(self, now_ns: int) -> None:
        """Read the whole table from the kernel: what is there, and when it was seen."""
        for vlan, bridge in sorted(self.by_vlan.items()):
            slots = {leg.index: leg.slot for leg in bridge.legs.values()}
            found = {each.mac: each for each in neighbours.listed(self._kernel.netlink, bridge.index)}
            for known, mac, entry in list(self.fdb.entries(now_ns)):
                if known == vlan and not entry.static and mac not in found:
                    self.fdb.lost(vlan, mac, entry.port)
            for mac, each in sorted(found.items()):
                if not each.static and each.port in slots:
                    self.fdb.heard(vlan, mac, slots[each.port], now_ns)
                    self.fdb.seen(vlan, mac, now_ns - each.age_ns)

    def limit(self) -> None:
        """Have the bridges learn no more, or again, when the table of the switch became full or no longer is."""
        if (self.fdb.count(0) >= self.fdb.limit) != self._full:
            self._limit()

    def _limit(self) -> None:
        """Divide the room of the table among the bridges. What it has room for, any of them may learn next."""
        self._full = self.fdb.count(0) >= self.fdb.limit
        ageing_seconds = self.fdb.ageing_ns // NS_PER_SECOND
        for vlan, bridge in sorted(self.by_vlan.items()):
            most = self.fdb.dynamic_in(vlan) if self._full else self.fdb.room_for_learning
            bridge.learning = most > 0
            if (ageing_seconds, max(1, most)) != (bridge.ageing_seconds, bridge.most):
                links.set_bridge(self._kernel.netlink, bridge.index, ageing_seconds, max(1, most))
                bridge.ageing_seconds, bridge.most = ageing_seconds, max(1, most)
            for slot, leg in sorted(bridge.legs.items()):
                if leg.settings.learning != bridge.learning and slot in self.switch.ports:
                    self._set_leg(self.switch.ports[slot], leg, bridge.learning)

    def _place_again(self, vlan: int, slot: int) -> None:
        """Put the static entries of a port in a VLAN where they belong now."""
        for static_vlan, mac, static_slot in self.fdb.statics():
            if (static_vlan, static_slot) == (vlan, slot):
                self.place(vlan, mac, slot)
