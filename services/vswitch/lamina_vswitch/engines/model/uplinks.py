"""The part of the `model` engine that knows uplinks: who uses which, and who is told when that changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from lamina_vswitch.domain.frames.rarp import announcement
from lamina_vswitch.domain.offload.flow_hash import flow_hash
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.domain.switch.admission import Tag
from lamina_vswitch.domain.switch.tagging import form_at, in_form
from lamina_vswitch.domain.switch.topology import Port, Switch
from lamina_vswitch.domain.uplink.teaming import Shift, Team, choose, key_hash


class UplinkPorts(ABC):
    """Stands on the engine's switches and on how it delivers frames."""

    _switches: dict[str, Switch]
    _switch_of: dict[int, Switch]
    _notice: Callable[[Notice], None]

    @abstractmethod
    def deliver(self, port: Port, frames: list[bytes], now_ns: int) -> None:
        """Hand frames to whoever is behind a port, as its policy allows."""

    def set_uplink(self, slot: int, uplink: bool, now_ns: int) -> None:
        """Let a port lead out of the host, or no more."""
        switch = self._switch_of[slot]
        switch.set_uplink(slot, uplink)
        self.shifted(switch, now_ns)

    def set_teams(self, name: str, teams: dict[str, Team], now_ns: int) -> None:
        """Share the uplinks of a switch in this way; the team with an empty key is that of ports which join none."""
        switch = self._switches[name]
        switch.teams.set_teams(teams)
        switch.changed()
        self.shifted(switch, now_ns)

    def join_team(self, slot: int, key: str) -> None:
        """Let a port use the uplinks of a team."""
        switch = self._switch_of[slot]
        if switch.teams.join(slot, key):
            switch.changed()

    def used_uplinks(self, name: str, key: str) -> tuple[int, ...]:
        """Return the slots of the uplinks that a team uses now, in order of preference."""
        return self._switches[name].teams.used(key)

    def shifted(self, switch: Switch, now_ns: int) -> None:
        """Tell of teams that came to use other uplinks, the physical network too where the team says so."""
        shifts, switch.teams.shifts = switch.teams.shifts, []
        for shift in shifts:
            used = switch.teams.used(shift.key)
            names = " ".join(switch.ports[slot].name.rpartition("/")[2] for slot in used)
            details = (("port_group", shift.key), ("used", names))
            self._notice(Notice(switch.name, "teaming.changed", "teaming.used", details))
            if shift.team.announce:
                self._announce(switch, shift, used, now_ns)

    def _announce(self, switch: Switch, shift: Shift, used: Sequence[int], now_ns: int) -> None:
        """Send a reverse ARP request for each address that leaves through another uplink now."""
        for vlan, mac, entry in list(switch.fdb.entries(now_ns)):
            slot = entry.port
            if slot in switch.teams.uplinks or switch.teams.key_of(slot) != shift.key:
                continue
            frame = announcement(mac)
            before, after = (
                _way(switch, team, uplinks, vlan, slot, frame)
                for team, uplinks in ((shift.was, shift.before), (shift.team, used))
            )
            if after and after != before:
                target = switch.ports[after]
                self.deliver(target, [in_form(frame, form_at(target, vlan, Tag.NONE, None), vlan)], now_ns)


def _way(switch: Switch, team: Team, uplinks: Sequence[int], vlan: int, slot: int, frame: bytes) -> int:
    """Return which of some uplinks a frame from a port of a team takes; 0 when none carries its VLAN."""
    carrying = [uplink for uplink in uplinks if uplink in switch.ports and switch.ports[uplink].carries(vlan)]
    return choose(carrying, key_hash(team.balancing, slot, frame[6:12], lambda: flow_hash(frame))) if carrying else 0
