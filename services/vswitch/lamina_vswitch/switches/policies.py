"""Policies of switches, groups and ports: kept equal here, in the store and in the engine, as the catalog keeps theirs.

Order of a change: check, record in the store, apply to the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lamina_kit.checks import Checks
from lamina_kit.errors import AlreadyExists, FailedPrecondition, LaminaError
from lamina_kit.rng import Rng
from lamina_vswitch.domain.definitions.switches import (
    PortDefinition,
    PortGroupDefinition,
    SwitchDefinition,
    mac_entry_id,
)
from lamina_vswitch.domain.policy.settings import GroupPolicy, LoopDetection, PolicyInForce, PortPolicy, in_force
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.domain.switch.topology import Shut
from lamina_vswitch.engines.interface import DeviceEngine
from lamina_vswitch.io.store.policies import PolicyStore
from lamina_vswitch.switches.catalog import Catalog

NO_GROUP = GroupPolicy()
NO_POLICY = PortPolicy()


class PolicyBook:
    """The policies of a host. Whatever has none of its own here has the default."""

    def __init__(
        self,
        catalog: Catalog,
        store: PolicyStore,
        rng: Rng,
        now_ns: Callable[[], int],
        notice: Callable[[Notice], None],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._rng = rng
        self._now_ns = now_ns
        self._notice = notice
        self._loops: dict[str, LoopDetection] = {}
        self._groups: dict[tuple[str, str], GroupPolicy] = {}
        self._ports: dict[tuple[str, str], PortPolicy] = {}
        self.regrouped: list[Callable[[str], None]] = []
        """Called in order with the id of a switch of which a group is in other VLANs now."""
        self.resized: list[Callable[[str], None]] = []
        """Called in order with the id of a switch that has another MTU now."""
        catalog.regrouping.append(self._check)
        catalog.plugged.append(self._plugged)
        catalog.unplugged.append(self._unplugged)
        catalog.group_gone.append(self._ungrouped)
        catalog.switch_gone.append(self._unswitched)

    def restore(self, now_ns: int) -> None:
        """Bring this object, empty, and the engine, which has the catalog's switches and ports, to what is stored."""
        self._store.open()
        recorded = self._store.load()
        self._loops.update(recorded.loops)
        self._groups.update(recorded.groups)
        self._ports.update(recorded.ports)
        self._catalog.trunks.update({key: policy.trunk for key, policy in self._groups.items() if policy.trunk})
        for switch in self._catalog.switches():
            for port in self._catalog.ports(switch.switch):
                self.apply(port, now_ns)
            if switch.switch in self._loops:
                self._watch(switch.switch, now_ns)

    # Switches

    def loop_detection(self, switch: str) -> LoopDetection | None:
        """Return the loop detection of a switch; None when it is off."""
        return self._loops.get(switch)

    def update_switch(self, switch: SwitchDefinition, loop: LoopDetection | None, now_ns: int) -> None:
        """Give an existing switch other settings. Raises FailedPrecondition `MAC_TABLE_FULL`."""
        old, old_loop = self._catalog.switch(switch.switch), self.loop_detection(switch.switch)
        if (switch, loop) == (old, old_loop):
            return
        self._store.save_switch(switch, loop)
        try:
            self._catalog.replace_switch(switch, now_ns)
        except LaminaError:
            self._store.save_switch(old, old_loop)
            raise
        if loop != old_loop:
            if loop is None:
                del self._loops[switch.switch]
            else:
                self._loops[switch.switch] = loop
            self._watch(switch.switch, now_ns)
        if switch.mtu_bytes != old.mtu_bytes:
            for told in self.resized:
                told(switch.switch)
        name = self._catalog.switch_name(switch.switch)
        self._note(name, "switch.updated", mtu_bytes=switch.mtu_bytes, loop_detection="on" if loop else "off")

    def _watch(self, switch: str, now_ns: int) -> None:
        name = self._catalog.switch_name(switch)
        rng = self._rng.child(f"{switch}/{now_ns}")
        self._catalog.engine.set_loop_detection(name, self._loops.get(switch), rng, now_ns)

    # Groups

    def group(self, switch: str, port_group: str) -> GroupPolicy:
        """Return the policy of a group."""
        return self._groups.get((switch, port_group), NO_GROUP)

    def update_group(self, group: PortGroupDefinition, policy: GroupPolicy, now_ns: int) -> None:
        """Give an existing group another policy."""
        key = (group.switch, group.port_group)
        with Checks() as check:
            untagged = policy.trunk is None or not group.vlan
            check.that(untagged, "policy.trunk", f"is set while vlan_id of the group is {group.vlan}, not 0")
        if policy == self.group(*key):
            return
        for port in self._catalog.ports_of(group):
            self._check_policy(port, in_force(policy, self.port(port.switch, port.port)))
        self._store.save_group(*key, policy)
        self._groups[key] = policy
        self._catalog.trunks.pop(key, None)
        if policy.trunk is not None:
            self._catalog.trunks[key] = policy.trunk
        for port in self._catalog.ports_of(group):
            self.apply(port, now_ns)
        self._tell_regrouped(group.switch)
        self._note(self._catalog.port_group_name(*key), "policy.updated")

    def move_group(self, group: PortGroupDefinition, now_ns: int) -> None:
        """Give an existing group another VLAN; static entries of its ports move with them.

        Raises FailedPrecondition `PORT_GROUP_TRUNKED`, AlreadyExists `MAC_ENTRY_EXISTS`.
        """
        old = self._catalog.port_group(group.switch, group.port_group)
        name = self._catalog.port_group_name(group.switch, group.port_group)
        if group.vlan and self.group(group.switch, group.port_group).trunk is not None:
            raise FailedPrecondition(
                f"{name} is a trunk, so it has no access VLAN.",
                reason="PORT_GROUP_TRUNKED",
                next_step="Clear trunk in the policy of the group first.",
                port_group=name,
            )
        if group == old:
            return
        moved = self._static_of(old, now_ns)
        self._check_free(group, moved, now_ns)
        self._store.move_group(group, [(old.vlan, mac) for mac, _ in moved])
        self._catalog.replace_group(group)
        engine, switch = self._catalog.engine, self._catalog.switch_name(group.switch)
        for mac, _ in moved:
            engine.remove_mac(switch, old.vlan, mac, now_ns)
        for port in self._catalog.ports_of(group):
            self.apply(port, now_ns)
        for mac, slot in moved:
            engine.add_static(switch, group.vlan, mac, slot, now_ns)
        self._tell_regrouped(group.switch)
        self._note(name, "port_group.updated", vlan=group.vlan)

    def _tell_regrouped(self, switch: str) -> None:
        for told in self.regrouped:
            told(switch)

    def _static_of(self, group: PortGroupDefinition, now_ns: int) -> list[tuple[bytes, int]]:
        """Return address and slot of the static entries of a group's ports in its VLAN."""
        slots = {port.slot for port in self._catalog.ports_of(group)}
        entries = self._catalog.engine.mac_entries(self._catalog.switch_name(group.switch), now_ns)
        found = [entry for entry in entries if entry.static and entry.vlan == group.vlan and entry.slot in slots]
        return [(entry.mac, entry.slot) for entry in found]

    def _check_free(self, group: PortGroupDefinition, moved: list[tuple[bytes, int]], now_ns: int) -> None:
        switch = self._catalog.switch_name(group.switch)
        for mac, _ in moved:
            entry = self._catalog.engine.mac_entry(switch, group.vlan, mac, now_ns)
            if entry is not None and entry.static:
                raise AlreadyExists(
                    f"{switch}/macEntries/{mac_entry_id(group.vlan, mac)} is a static entry of another port.",
                    reason="MAC_ENTRY_EXISTS",
                    next_step="Delete one of the two entries first.",
                )

    # Ports

    def port(self, switch: str, port: str) -> PortPolicy:
        """Return what a port's own policy sets."""
        return self._ports.get((switch, port), NO_POLICY)

    def in_force(self, port: PortDefinition) -> PolicyInForce:
        """Return what holds for a port."""
        policy = in_force(self.group(port.switch, port.port_group), self.port(port.switch, port.port))
        trunk = self._catalog.port_trunks.get((port.switch, port.port))
        return policy if trunk is None else replace(policy, trunk=trunk)

    def update_port(self, port: PortDefinition, policy: PortPolicy, now_ns: int) -> None:
        """Give an existing port another policy of its own."""
        if policy == self.port(port.switch, port.port):
            return
        self._check_policy(port, in_force(self.group(port.switch, port.port_group), policy))
        self._store.save_port(port.switch, port.port, policy)
        self._ports[port.switch, port.port] = policy
        self.apply(port, now_ns)
        self._note(self._catalog.port_name(port.switch, port.port), "policy.updated")

    def shut(self, port: PortDefinition) -> Shut | None:
        """Return why a port is shut; None when it is not."""
        return self._catalog.engine.shut(port.slot)

    def reopen(self, port: PortDefinition) -> Shut | None:
        """Open a port again; return why it was shut."""
        return self._catalog.engine.reopen(port.slot, self._now_ns())

    def apply(self, port: PortDefinition, now_ns: int) -> None:
        """Let the engine know what holds for a port."""
        self._catalog.engine.set_policy(port.slot, self._catalog.vlan(port), self.in_force(port), now_ns)

    def _check(self, port: PortDefinition) -> None:
        """Check what would hold for a port that is about to be in another group."""
        self._check_policy(port, self.in_force(port))

    def _check_policy(self, port: PortDefinition, policy: PolicyInForce) -> None:
        """Raise FailedPrecondition `POLICY_NOT_IN_KERNEL` for a policy that a port's device could not keep."""
        if isinstance(self._catalog.engine, DeviceEngine):
            self._catalog.engine.check_policy(port.slot, policy)

    # What the catalog tells

    def _plugged(self, port: PortDefinition) -> None:
        self.apply(port, self._now_ns())

    def _unplugged(self, port: PortDefinition) -> None:
        self._ports.pop((port.switch, port.port), None)

    def _ungrouped(self, group: PortGroupDefinition) -> None:
        self._groups.pop((group.switch, group.port_group), None)
        self._catalog.trunks.pop((group.switch, group.port_group), None)

    def _unswitched(self, switch: SwitchDefinition) -> None:
        self._loops.pop(switch.switch, None)

    def _note(self, name: str, event: str, **inputs: object) -> None:
        self._notice(Notice(name, event, "", tuple(sorted((key, str(value)) for key, value in inputs.items()))))
