"""The uplinks of a host and the teaming of its port groups: in the store, in the catalog of ports, and in the engine.

Order of a change: check, record in the store, apply. The port of an uplink is recorded before the uplink; a crash
between them leaves a port of the layer that nobody expects, which the next start removes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lamina_kit.errors import LaminaError
from lamina_vswitch.domain.definitions.refusals import exists, unknown
from lamina_vswitch.domain.definitions.requests import RequestLedger
from lamina_vswitch.domain.definitions.switches import Origin, PortDefinition, PortGroupDefinition
from lamina_vswitch.domain.network.definition import Mode
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.domain.uplink.definition import (
    MAX_UPLINKS,
    TEAMING_POLICY_NAME,
    UPLINK_NAME,
    TeamingPolicy,
    UplinkDefinition,
    uplink_in_use,
    uplink_limit,
    vlan_host_only,
)
from lamina_vswitch.domain.uplink.teaming import DEFAULT, Balancing, Team
from lamina_vswitch.io.store.uplinks import UplinkStore
from lamina_vswitch.networks.networks import Networks
from lamina_vswitch.switches.catalog import Catalog
from lamina_vswitch.switches.policies import PolicyBook
from lamina_vswitch.switches.vlan_members import group_carries

Key = tuple[str, str]


class UplinkTable:
    """Uplinks by ids of switch and uplink, teaming policies by ids of switch and group."""

    def __init__(
        self,
        catalog: Catalog,
        store: UplinkStore,
        policies: PolicyBook,
        networks: Networks,
        now_ns: Callable[[], int],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._policies = policies
        self._networks = networks
        self._now_ns = now_ns
        self._uplinks: dict[Key, UplinkDefinition] = {}
        self._teaming: dict[Key, TeamingPolicy] = {}
        self._requests = RequestLedger()
        self._running = False
        self.users: list[Callable[[UplinkDefinition], list[str]]] = []
        """Asked in order for the names of what else names an uplink, such as overlays."""
        self.checks: list[Callable[[UplinkDefinition], None]] = []
        """Called in order with an uplink before it gets its VLANs; raise where it may not have them."""
        self.created: list[Callable[[UplinkDefinition], None]] = []
        """Called in order with an uplink that is new."""
        self.changed: list[Callable[[UplinkDefinition], None]] = []
        """Called in order with an uplink that has other VLANs now."""
        self._pinned: dict[Key, str] = {}
        networks.uplinks = self
        catalog.plugged.append(self._plugged)
        catalog.unplugged.append(self._unplugged)
        catalog.group_gone.append(self._ungrouped)
        policies.regrouped.append(self._regrouped)

    # Start

    def load(self) -> None:
        """Read what is recorded. Before the catalog restores its ports, which learns here which ones are internal."""
        self._store.open()
        uplinks, self._teaming = self._store.load()
        for uplink, origin in uplinks:
            self._expect(uplink)
            self._requests.remember("uplink", (uplink.switch, uplink.uplink), origin)

    def restore(self) -> None:
        """Put the teams to work; the catalog and the networks have been restored."""
        self._running = True
        for switch in self._catalog.switches():
            self._apply(switch.switch)

    # What networks ask

    def of_switch(self, switch: str) -> bool:
        """Tell whether a switch has an uplink."""
        return any(key[0] == switch for key in self._uplinks)

    def reaches(self, switch: str, uplink: str) -> bool:
        """Tell whether a switch has an uplink, or the host one of this name; empty asks for the switch's alone."""
        return self.of_switch(switch) or any(self.name(*key) == uplink for key in self._uplinks)

    def carries(self, switch: str, vlan: int) -> bool:
        """Tell whether an uplink of a switch carries a VLAN."""
        return any(uplink.trunk.carries(vlan) for key, uplink in self._uplinks.items() if key[0] == switch)

    # Uplinks

    def name(self, switch: str, uplink: str) -> str:
        """Return the resource name of an uplink."""
        return UPLINK_NAME.format(host=self._catalog.host, switch=switch, uplink=uplink)

    def create(self, wanted: UplinkDefinition, link_up: bool, request_id: str) -> UplinkDefinition:
        """Create an uplink with its port, or return what the same request made before. Its NIC, if any, is open."""
        known = self.check_new(wanted, link_up, request_id)
        if known is not None:
            return known
        self._make(wanted, link_up, _origin(wanted, link_up, request_id))
        self._note(self.name(wanted.switch, wanted.uplink), "uplink.created")
        for told in self.created:
            told(wanted)
        return wanted

    def check_new(self, wanted: UplinkDefinition, link_up: bool, request_id: str) -> UplinkDefinition | None:
        """Return what the same request made before, None when nothing did. Raises what forbids to create it."""
        self._catalog.switch(wanted.switch)
        key = (wanted.switch, wanted.uplink)
        if self._requests.replayed("uplink", key, _origin(wanted, link_up, request_id)):
            return self._uplinks[key]
        if key in self._uplinks:
            raise exists("uplink", self.name(*key))
        if self._catalog.find_port(*key) is not None:
            raise exists("port", self._catalog.port_name(*key))
        if len(self.uplinks(wanted.switch)) >= MAX_UPLINKS:
            raise uplink_limit(self._catalog.switch_name(wanted.switch))
        self._check(wanted)
        return None

    def _make(self, wanted: UplinkDefinition, link_up: bool, origin: Origin) -> None:
        key = (wanted.switch, wanted.uplink)
        self._expect(wanted)
        try:
            port = self._catalog.create_internal_port(*key, wanted.trunk.native)
        except LaminaError:
            self._forget(key)
            raise
        try:
            if not link_up:
                self._catalog.update_port(replace(port, link_up=False), self._now_ns())
            self._store.add(wanted, origin)
        except LaminaError:
            self._catalog.delete_internal_port(self._catalog.port(*key), self._now_ns())
            raise
        self._requests.remember("uplink", key, origin)
        self._apply(wanted.switch)

    def get(self, switch: str, uplink: str) -> UplinkDefinition:
        """Return an uplink."""
        found = self._uplinks.get((switch, uplink))
        if found is None:
            raise unknown("uplink", self.name(switch, uplink))
        return found

    def port(self, uplink: UplinkDefinition) -> PortDefinition:
        """Return the port of an uplink."""
        return self._catalog.port(uplink.switch, uplink.uplink)

    def uplinks(self, switch: str) -> list[UplinkDefinition]:
        """Return the uplinks of a switch, ordered by id."""
        self._catalog.switch(switch)
        return [self._uplinks[key] for key in sorted(self._uplinks) if key[0] == switch]

    def update(self, wanted: UplinkDefinition, link_up: bool) -> UplinkDefinition:
        """Give an existing uplink other VLANs or another link."""
        old, key = self.get(wanted.switch, wanted.uplink), (wanted.switch, wanted.uplink)
        port = self.port(old)
        if wanted != old:
            self._check(wanted)
            self._store.update(wanted)
            self._expect(wanted)
            self._policies.apply(port, self._now_ns())
            for told in self.changed:
                told(wanted)
        self._catalog.update_port(replace(port, link_up=link_up), self._now_ns())
        self._note(self.name(*key), "uplink.updated", link_up=link_up)
        return wanted

    def delete(self, switch: str, uplink: str) -> None:
        """Delete an uplink with its port, unless somebody names it."""
        found = self.get(switch, uplink)
        name = self.name(switch, uplink)
        users = [
            self.policy_name(*key)
            for key, policy in sorted(self._teaming.items())
            if key[0] == switch and uplink in (*policy.active, *policy.standby)
        ]
        users += [
            self._networks.name(state.definition.network)
            for state in self._networks.all()
            if state.definition.nat.uplink == name
        ]
        for asked in self.users:
            users += asked(found)
        if users:
            raise uplink_in_use(name, users)
        self._catalog.delete_internal_port(self.port(found), self._now_ns())
        self._note(name, "uplink.deleted")

    def _check(self, wanted: UplinkDefinition) -> None:
        """Refuse to carry the VLAN of a host-only network out of the host, and what others refuse."""
        for state in self._networks.all():
            network = state.definition
            alone = network.mode is Mode.HOST_ONLY and network.switch == wanted.switch
            if alone and wanted.trunk.carries(network.vlan):
                name = self._networks.name(network.network)
                raise vlan_host_only(network.vlan, name, "Give the uplink a trunk without that VLAN.")
        for check in self.checks:
            check(wanted)

    # Teaming

    def pin(self, port: PortDefinition, uplink: str) -> None:
        """Let what an internal port sends leave the host by one uplink of its switch alone."""
        self._pinned[port.switch, port.port] = uplink
        self._apply(port.switch)

    def unpin(self, switch: str, port: str) -> None:
        """Forget which uplink a port uses, as it is going or gone."""
        self._pinned.pop((switch, port), None)
        self._apply(switch)

    def policy_name(self, switch: str, port_group: str) -> str:
        """Return the resource name of a teaming policy."""
        return TEAMING_POLICY_NAME.format(host=self._catalog.host, switch=switch, port_group=port_group)

    def policy(self, group: PortGroupDefinition) -> TeamingPolicy:
        """Return how a port group shares uplinks."""
        return self._teaming.get((group.switch, group.port_group), TeamingPolicy())

    def used(self, group: PortGroupDefinition) -> list[str]:
        """Return the ids of the uplinks that a port group uses now, in order of preference."""
        slots = self._catalog.engine.used_uplinks(self._catalog.switch_name(group.switch), group.port_group)
        return [self._catalog.port_in_slot(slot).port for slot in slots]

    def update_policy(self, group: PortGroupDefinition, policy: TeamingPolicy) -> None:
        """Let an existing group share uplinks in another way; all that it names exist."""
        for uplink in (*policy.active, *policy.standby):
            self.get(group.switch, uplink)
        if policy == self.policy(group):
            return
        self._store.save_policy(group.switch, group.port_group, policy)
        self._teaming.pop((group.switch, group.port_group), None)
        if policy != TeamingPolicy():
            self._teaming[group.switch, group.port_group] = policy
        self._apply(group.switch)
        self._note(self.policy_name(group.switch, group.port_group), "teaming_policy.updated")

    def _apply(self, switch: str) -> None:
        """Tell the engine the teams of a switch, and of each port its team."""
        if not self._running:
            return
        groups = self._catalog.port_groups(switch)
        teams = {DEFAULT: self._team(switch, TeamingPolicy())}
        teams.update({key[1]: self._team(switch, policy) for key, policy in self._teaming.items() if key[0] == switch})
        for key, uplink in self._pinned.items():
            if key[0] == switch:
                teams[key[1]] = self._team(switch, TeamingPolicy(active=(uplink,)))
        for port in self._catalog.ports(switch):
            self._catalog.engine.join_team(port.slot, self._group_of(port, groups))
        self._catalog.engine.set_teams(self._catalog.switch_name(switch), teams, self._now_ns())

    def _team(self, switch: str, policy: TeamingPolicy) -> Team:
        active = policy.active
        if not active and not policy.standby:
            active = tuple(uplink.uplink for uplink in self.uplinks(switch))
        slots = {uplink.uplink: self.port(uplink).slot for uplink in self.uplinks(switch)}
        return Team(
            Balancing(policy.balancing),
            tuple(slots[uplink] for uplink in active if uplink in slots),
            tuple(slots[uplink] for uplink in policy.standby if uplink in slots),
            policy.no_failback,
            policy.announce,
        )

    def _group_of(self, port: PortDefinition, groups: list[PortGroupDefinition]) -> str:
        """Return whose team a port uses: its group's; for a port of this layer, the first with a policy in its VLAN."""
        if port.port_group or not self._catalog.is_internal(port):
            return port.port_group
        if (port.switch, port.port) in self._pinned:
            return port.port
        vlan = self._catalog.vlan(port)
        for group in groups:
            has_policy = (group.switch, group.port_group) in self._teaming
            if has_policy and group_carries(self._catalog, group, vlan):
                return group.port_group
        return DEFAULT

    # Bookkeeping

    def _expect(self, uplink: UplinkDefinition) -> None:
        """Note an uplink before its port is there, or with other VLANs."""
        key = (uplink.switch, uplink.uplink)
        self._uplinks[key] = uplink
        self._catalog.port_trunks[key] = uplink.trunk
        self._catalog.expect_internal(*key, uplink.trunk.native)

    def _forget(self, key: Key) -> None:
        self._uplinks.pop(key, None)
        self._catalog.port_trunks.pop(key, None)
        if self._requests.knows("uplink", key):
            self._requests.forget("uplink", key)

    def _plugged(self, port: PortDefinition) -> None:
        if (port.switch, port.port) in self._uplinks:
            self._catalog.engine.set_uplink(port.slot, True, self._now_ns())
        if self.of_switch(port.switch):
            self._apply_to(port)

    def _apply_to(self, port: PortDefinition) -> None:
        if self._running:
            groups = self._catalog.port_groups(port.switch)
            self._catalog.engine.join_team(port.slot, self._group_of(port, groups))

    def _unplugged(self, port: PortDefinition) -> None:
        self._pinned.pop((port.switch, port.port), None)
        if (port.switch, port.port) in self._uplinks:
            self._forget((port.switch, port.port))
            self._apply(port.switch)

    def _ungrouped(self, group: PortGroupDefinition) -> None:
        self._teaming.pop((group.switch, group.port_group), None)
        self._regrouped(group.switch)

    def _regrouped(self, switch: str) -> None:
        if self.of_switch(switch):
            self._apply(switch)

    def _note(self, name: str, event: str, **inputs: object) -> None:
        self._catalog.notice(Notice(name, event, "", tuple(sorted((key, str(value)) for key, value in inputs.items()))))


def _origin(wanted: UplinkDefinition, link_up: bool, request_id: str) -> Origin:
    return Origin(request_id, repr((wanted, link_up)))
