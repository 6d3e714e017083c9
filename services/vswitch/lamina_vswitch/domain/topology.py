"""A switch and its ports, as the data plane sees them: port slots, VLANs, links, and who is flooded to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lamina_vswitch.domain.counters import Counters
from lamina_vswitch.domain.fdb import Fdb
from lamina_vswitch.domain.listening import Listening


@dataclass(slots=True)
class Port:
    """One port. `slot` is its number in the host's port table, from 1; `vlan` is its access VLAN, 0 to 4094.

    `link_up` is what its owner wants, `broken` a fault of the cable: the link is up when it is wanted and whole.
    A `held` port keeps frames for a device that moves, attached or not. `listening` is what the device said of itself.
    `copies_only` marks the destination of a mirror, which takes part in nothing else. At `record_due_ns` the next
    frame that passes is recorded.
    """

    slot: int
    name: str
    vlan: int
    link_up: bool = True
    attached: bool = False
    broken: bool = False
    held: bool = False
    listening: Listening | None = None
    copies_only: bool = False
    record_due_ns: int = 0
    counters: Counters = field(default_factory=Counters)

    @property
    def link(self) -> bool:
        """Whether the device behind the port sees a link."""
        return self.link_up and not self.broken

    @property
    def up(self) -> bool:
        """Whether frames may enter and leave here."""
        return self.link and (self.attached or self.held)

    @property
    def takes_part(self) -> bool:
        """Whether the switch sends frames here that are not copies of a mirror."""
        return self.up and not self.copies_only


class Switch:
    """One learning switch. All changes to its ports go through it, because it caches who is flooded to.

    `revision` counts changes of ports, links, VLANs and of whatever else decides about frames beside the fdb: whoever
    keeps a copy of that (the compiled plane) looks here. A change of that kind calls `changed`.
    """

    def __init__(self, name: str, mtu_bytes: int, ageing_ns: int, mac_limit: int) -> None:
        self.name = name
        self.mtu_bytes = mtu_bytes
        self.fdb = Fdb(ageing_ns, mac_limit)
        self.ports: dict[int, Port] = {}
        self.mac_moves = 0
        self.mac_refusals = 0
        self.revision = 0
        self.port_changed: Callable[[int], None] = _nobody
        """Called with the slot of a port whose link, carrier, VLAN or part in the switching changed."""
        self._flood: dict[int, tuple[int, ...]] = {}

    def add_port(self, port: Port) -> None:
        """Add a port; its slot is not in use."""
        self.ports[port.slot] = port
        self.changed()

    def remove_port(self, slot: int, now_ns: int) -> None:
        """Remove a port with all entries that name it."""
        del self.ports[slot]
        self.fdb.flush(now_ns, port=slot, static=True)
        self.changed()

    def changed(self) -> None:
        """Forget what was derived from the ports and their settings."""
        self.revision += 1
        self._flood.clear()

    def set_link(self, slot: int, up: bool, now_ns: int) -> bool:
        """Plug the cable in or out. Return whether the device sees a change."""
        port = self.ports[slot]
        before = port.link
        port.link_up = up
        return self._link_changed(port, before, now_ns)

    def set_broken(self, slot: int, broken: bool, now_ns: int) -> bool:
        """Break the cable or mend it. Return whether the device sees a change."""
        port = self.ports[slot]
        before = port.link
        port.broken = broken
        return self._link_changed(port, before, now_ns)

    def set_attached(self, slot: int, attached: bool, now_ns: int) -> None:
        """Give the port a carrier or take it away."""
        port = self.ports[slot]
        port.attached = attached
        self._topology_changed(port, now_ns)

    def set_held(self, slot: int, held: bool, now_ns: int) -> None:
        """Let frames for the port wait, with a device or without, or no longer."""
        port = self.ports[slot]
        port.held = held
        self._topology_changed(port, now_ns)

    def set_copies_only(self, slot: int, copies_only: bool, now_ns: int) -> None:
        """Make the port the destination of a mirror, or a port like others again."""
        port = self.ports[slot]
        if port.copies_only != copies_only:
            port.copies_only = copies_only
            self._topology_changed(port, now_ns, moved=True)

    def set_vlan(self, slot: int, vlan: int, now_ns: int) -> None:
        """Move the port to another VLAN."""
        port = self.ports[slot]
        if port.vlan != vlan:
            port.vlan = vlan
            self._topology_changed(port, now_ns, moved=True)

    def flood_ports(self, port: Port) -> tuple[int, ...]:
        """Return the slots of the other ports of the VLAN that are up and take part, in ascending order."""
        slots = self._flood.get(port.slot)
        if slots is None:
            slots = tuple(
                slot
                for slot in sorted(self.ports)
                if slot != port.slot and self.ports[slot].vlan == port.vlan and self.ports[slot].takes_part
            )
            self._flood[port.slot] = slots
        return slots

    def _link_changed(self, port: Port, before: bool, now_ns: int) -> bool:
        changed = port.link != before
        if changed:
            self._topology_changed(port, now_ns)
        return changed

    def _topology_changed(self, port: Port, now_ns: int, *, moved: bool = False) -> None:
        """Forget what was learned behind a port that went down or moved, as Linux does when a carrier is lost."""
        self.changed()
        if moved or not port.up:
            self.fdb.flush(now_ns, port=port.slot)
        self.port_changed(port.slot)


def _nobody(slot: int) -> None:
    """Is told of ports where nobody wants to know."""
