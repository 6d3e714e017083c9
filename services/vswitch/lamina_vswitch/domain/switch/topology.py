"""A switch and its ports, as the data plane sees them: port slots, VLANs, links, and who is flooded to."""

from __future__ import annotations

import enum
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from lamina_vswitch.domain.policy.loops import LoopWatch
from lamina_vswitch.domain.policy.settings import PolicyInForce, Shaping
from lamina_vswitch.domain.policy.shaper import Shaper
from lamina_vswitch.domain.policy.storm import StormMeter
from lamina_vswitch.domain.port.counters import Counters
from lamina_vswitch.domain.port.receive_filter import ReceiveFilter
from lamina_vswitch.domain.switch.fdb import Fdb
from lamina_vswitch.domain.uplink.teaming import Balancing, Teams, choose

OPEN = PolicyInForce()
"""The policy that restricts nothing."""

_MOST_AUDIENCES = 4096
"""Audiences that are kept; a trunk has one for each VLAN."""


class ShutReason(enum.IntEnum):
    """Why a port is shut although its link is on; the numbers are those of the contract's enum of the same name."""

    LOOP = 1
    STORM = 2
    MAC_LIMIT = 3


class Shut(NamedTuple):
    """Why and when a port was shut, and the name of the port at the other end of a loop (empty: no loop)."""

    reason: ShutReason
    since_ns: int
    peer: str = ""


class Audience(NamedTuple):
    """Slots of the other ports of a VLAN, ascending: who a flooded frame goes to, who hears everything.

    Floods that come in at an uplink go to the ports that use it. Uplinks are not among them: which one a frame takes,
    its team decides. `isolated` says that somebody is left out who would hear the frame if its port were not
    isolated, `standby` that somebody would hear it if it had come in at another uplink.
    """

    flood: tuple[int, ...]
    listeners: tuple[int, ...]
    isolated: bool
    standby: bool = False


class LeaseBook(Protocol):
    """Knows which port was given which IPv4 address."""

    def gives(self, slot: int, address: bytes, now_ns: int) -> bool:
        """Tell whether a lease or reservation that holds now gives four bytes of address to the port in a slot."""


class NoLeases:
    """The book of a host without networks: nobody was given anything."""

    def gives(self, slot: int, address: bytes, now_ns: int) -> bool:
        """Return False."""
        return False


@dataclass(slots=True)
class Port:
    """One port. `slot` is its number in the host's port table, from 1; `vlan` its access VLAN or the native one of its
    trunk, 0 to 4094.

    `link_up` is what its owner wants, `broken` a fault of the cable: the link is up when it is wanted and whole.
    A `held` port keeps frames for a device that moves, attached or not. `listening` is what the device said of itself.
    `copies_only` marks the destination of a mirror, which takes part in nothing else. At `record_due_ns` the next
    frame that passes is recorded. `first_mac` is the first source address since a device was attached. `plain` says
    that no policy needs to look at frames that enter or leave here; it follows from `policy` and `shut`, which only the
    switch changes.
    """

    slot: int
    name: str
    vlan: int
    link_up: bool = True
    attached: bool = False
    broken: bool = False
    held: bool = False
    listening: ReceiveFilter | None = None
    copies_only: bool = False
    record_due_ns: int = 0
    counters: Counters = field(default_factory=Counters)
    policy: PolicyInForce = OPEN
    plain: bool = True
    shut: Shut | None = None
    storm: StormMeter | None = None
    ingress: Shaper | None = None
    egress: Shaper | None = None
    first_mac: bytes = b""

    @property
    def link(self) -> bool:
        """Whether the device behind the port sees a link."""
        return self.link_up and not self.broken

    @property
    def carrier(self) -> bool:
        """Whether the port would be up if it were not shut."""
        return self.link and (self.attached or self.held)

    @property
    def up(self) -> bool:
        """Whether frames may enter and leave here."""
        return self.link and (self.attached or self.held) and self.shut is None

    @property
    def takes_part(self) -> bool:
        """Whether the switch sends frames here that are not copies of a mirror."""
        return self.up and not self.copies_only

    @property
    def given_mac(self) -> bytes:
        """The address that the device was given; empty when nobody gave one and nothing has come in."""
        return self.policy.mac or self.first_mac

    @property
    def used_mac(self) -> bytes:
        """The address that the device uses: the one that it told, or the one that it was given."""
        return self.listening.mac if self.listening is not None else self.given_mac

    @property
    def mac_changed(self) -> bool:
        """Whether nothing may be delivered because the device uses another address than it was given."""
        given = self.given_mac
        return self.policy.security.reject_mac_changes and bool(given) and self.used_mac != given

    def carries(self, vlan: int, provider: bool = False) -> bool:
        """Tell whether frames of a VLAN leave here; `provider`: such as come with an 802.1ad tag."""
        trunk = self.policy.trunk
        if trunk is None:
            return vlan == self.vlan
        return trunk.carries(vlan) and (trunk.provider_tags or not provider)


class Decider(Protocol):
    """Decides about one frame as `decision.decide` does, which gives a `Decision`; made for frames that act."""

    def __call__(
        self, switch: Switch, port: Port, frame: bytes, now_ns: int, *, acts: bool, released: bool = False
    ) -> Any:
        """Return the decision."""


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
        self.disturbed: Callable[[Switch], None] = _nothing
        """Called with the switch before what was derived from its ports is forgotten: who acts by that has to stop."""
        self.loop: LoopWatch | None = None
        self.leases: LeaseBook = NoLeases()
        self.teams = Teams()
        """The uplinks and who uses which."""
        self.decider: Decider | None = None
        """Who decides about frames in place of `decision.decide`: a data plane outside of this process."""
        self.listening = False
        """Whether any port hears everything."""
        self.trunked = False
        """Whether any port is a trunk."""
        self.alike = True
        """Whether neither is so: a frame between known stations leaves at one port, as it came."""
        self._audiences: dict[tuple[int, int, bool], Audience] = {}

    def add_port(self, port: Port) -> None:
        """Add a port; its slot is not in use."""
        self.ports[port.slot] = port
        self.changed()

    def remove_port(self, slot: int, now_ns: int) -> None:
        """Remove a port with all entries that name it."""
        del self.ports[slot]
        self.teams.forget(slot)
        self.fdb.flush(now_ns, port=slot, static=True)
        self.changed()

    def changed(self) -> None:
        """Forget what was derived from the ports and their settings."""
        self.disturbed(self)
        self.revision += 1
        self._audiences.clear()
        self.teams.settle(self._ready)
        self.trunked = any(port.policy.trunk is not None for port in self.ports.values())
        self.listening = any(port.policy.security.promiscuous for port in self.ports.values())
        self.alike = not (self.trunked or self.listening)

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
        port.first_mac = b""
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

    def simple(self, port: Port) -> bool:
        """Tell whether no policy, of any port or the switch, has a say in untagged frames that enter at a port.

        Then they meet the rules for learning and looking up alone, and leave as they came wherever they go.
        """
        noted = (other for other in self.ports.values() if other.policy.trunk or other.policy.security.promiscuous)
        return port.plain and self.loop is None and not any(other.carries(port.vlan) for other in noted)

    def set_policy(self, slot: int, vlan: int, policy: PolicyInForce, now_ns: int) -> None:
        """Give the port another policy, access or native VLAN. Entries of VLANs that it left are forgotten.

        Shapers that go on keep what waits; the caller has emptied those that end.
        """
        port = self.ports[slot]
        if policy.storm_control != port.policy.storm_control:
            port.storm = StormMeter(policy.storm_control, now_ns) if policy.storm_control is not None else None
        port.ingress = _shaper(port.ingress, policy.ingress_shaping, now_ns)
        port.egress = _shaper(port.egress, policy.egress_shaping, now_ns)
        port.policy, port.vlan = policy, vlan
        port.plain = policy.plain and port.shut is None
        left = frozenset(vlan for vlan in self.fdb.vlans() if not port.carries(vlan))
        if left:
            self.fdb.flush(now_ns, vlans=left, port=slot)
        self.changed()
        self.port_changed(slot)

    def shut_port(self, slot: int, shut: Shut) -> bool:
        """Shut a port and forget what was learned behind it. Return False when it is shut already."""
        port = self.ports[slot]
        if port.shut is not None:
            return False
        port.shut, port.plain = shut, False
        self._topology_changed(port, shut.since_ns)
        return True

    def reopen_port(self, slot: int) -> Shut | None:
        """Open a shut port again. Return why it was shut, None when it was not."""
        port = self.ports[slot]
        shut, port.shut = port.shut, None
        port.plain = port.policy.plain
        if port.storm is not None:
            port.storm.reopened()
        self.changed()
        self.port_changed(slot)
        return shut

    def audience(self, port: Port, vlan: int, provider: bool = False) -> Audience:
        """Return who hears frames that come in at a port, in a VLAN that it carries, by whether they are flooded."""
        key = (port.slot, vlan, provider)
        found = self._audiences.get(key)
        if found is None:
            if len(self._audiences) >= _MOST_AUDIENCES:
                self._audiences.clear()
            others = [
                other
                for _, other in sorted(self.ports.items())
                if other is not port and other.takes_part and other.carries(vlan, provider)
            ]
            others = [other for other in others if other.slot not in self.teams.uplinks]
            heard = [other for other in others if not (port.policy.isolated and other.policy.isolated)]
            listeners = tuple(other.slot for other in heard if other.policy.security.promiscuous)
            isolated, standby = len(heard) < len(others), False
            if port.slot in self.teams.uplinks:
                using = [each for each in heard if port.slot in ways_in(self, each.slot, vlan, provider)]
                standby, heard = bool(heard) and not using, using
            found = Audience(tuple(other.slot for other in heard), listeners, isolated, standby)
            self._audiences[key] = found
        return found

    def set_uplink(self, slot: int, uplink: bool) -> None:
        """Let a port lead out of the host, or no more."""
        self.teams.set_uplink(slot, uplink)
        self.changed()

    def leads_out(self, vlan: int) -> bool:
        """Tell whether an uplink, up or not, carries a VLAN."""
        uplinks = self.teams.uplinks
        return bool(uplinks) and any(self.ports[slot].carries(vlan) for slot in uplinks)

    def _ready(self, slot: int) -> bool:
        return slot in self.ports and self.ports[slot].takes_part

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


def usable(switch: Switch, slot: int, vlan: int, provider: bool) -> tuple[int, ...]:
    """Return the uplinks that the team of a port uses and that carry a VLAN, in order of preference."""
    used = switch.teams.used_by(slot)
    return tuple(uplink for uplink in used if switch.ports[uplink].carries(vlan, provider))


def ways_in(switch: Switch, slot: int, vlan: int, provider: bool, src: bytes = b"") -> tuple[int, ...]:
    """Return at which uplinks a port hears of the outside; with `src`, where frames of that station leave.

    A physical switch floods to every link that is not bundled, so one of them counts, always the same for a port. Links
    that share flows are bundled: it sends each frame once, to any of them.
    """
    uplinks, team = usable(switch, slot, vlan, provider), switch.teams.team_of(slot)
    if team.balancing is Balancing.FLOW or not uplinks:
        return uplinks
    key = zlib.crc32(src) if src and team.balancing is Balancing.SOURCE_MAC else slot
    return (choose(uplinks, key),)


def _shaper(old: Shaper | None, shaping: Shaping | None, now_ns: int) -> Shaper | None:
    """Return the shaper for a policy: the old one, with other rates perhaps, a new one or none."""
    if shaping is None:
        return None
    if old is None:
        return Shaper(shaping, now_ns)
    if old.shaping != shaping:
        old.change(shaping, now_ns)
    return old


def _nobody(slot: int) -> None:
    """Is told of ports where nobody wants to know."""


def _nothing(switch: Switch) -> None:
    """Is called where nobody wants to know."""
