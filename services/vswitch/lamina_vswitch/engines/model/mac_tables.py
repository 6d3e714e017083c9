"""The MAC tables of the engine's switches, as people see and edit them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lamina_kit.errors import FailedPrecondition, ResourceExhausted
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.switch.fdb import Entry
from lamina_vswitch.domain.switch.forwarding import Move
from lamina_vswitch.domain.switch.topology import Switch
from lamina_vswitch.engines.interface import MacEntryView, SwitchTally

NS_PER_SECOND = 1_000_000_000


class Elsewhere(Protocol):
    """Moves known frames of switches past the engine, by copies of what decides about them."""

    def settle(self, switch: Switch) -> None:
        """Bring counters, times and records of a switch up to date: somebody is about to look."""

    def left(self, switch: Switch) -> None:
        """Stop to move frames of a switch, with everything up to date: something about it is about to change."""

    def moved(self, switch: Switch, moves: Sequence[Move]) -> None:
        """Forget where some stations of a switch were: each was heard at another port."""


class Nowhere:
    """Moves nothing."""

    def settle(self, switch: Switch) -> None:
        """Do nothing."""

    def left(self, switch: Switch) -> None:
        """Do nothing."""

    def moved(self, switch: Switch, moves: Sequence[Move]) -> None:
        """Do nothing."""


class Tables:
    """Switches by name; what the engine is besides moves their frames."""

    def __init__(self) -> None:
        self._switches: dict[str, Switch] = {}
        self._switch_of: dict[int, Switch] = {}
        self.elsewhere: Elsewhere = Nowhere()
        """Who moves frames beside the engine."""

    def _settled(self, name: str) -> Switch:
        """Return a switch of which everything is up to date."""
        switch = self._switches[name]
        self.elsewhere.settle(switch)
        return switch

    def _disturbed(self, switch: Switch) -> None:
        self.elsewhere.left(switch)

    def _stopped(self, name: str) -> Switch:
        """Return a switch of which nobody else moves frames."""
        switch = self._switches[name]
        self.elsewhere.left(switch)
        return switch

    def update_switch(self, name: str, switch: SwitchDefinition, now_ns: int) -> None:
        """Give a switch another MTU, ageing time or table limit. Raises FailedPrecondition `MAC_TABLE_FULL`."""
        chosen = self._stopped(name)
        if not chosen.fdb.resize(switch.ageing_seconds * NS_PER_SECOND, switch.mac_limit, now_ns):
            raise FailedPrecondition(
                f"The MAC table of {name} has more static entries than the {switch.mac_limit} that it is to hold.",
                reason="MAC_TABLE_FULL",
                next_step="Delete static entries first, or choose a higher limit.",
                switch=name,
            )
        chosen.mtu_bytes = switch.mtu_bytes
        chosen.changed()

    def tally(self, switch: str, now_ns: int) -> SwitchTally:
        """Return the numbers of a switch."""
        chosen = self._settled(switch)
        return SwitchTally(chosen.fdb.count(now_ns), chosen.mac_moves, chosen.mac_refusals)

    def mac_entries(self, switch: str, now_ns: int) -> list[MacEntryView]:
        """Return the live entries, ordered by VLAN, then by address."""
        fdb = self._settled(switch).fdb
        return [_view(vlan, mac, entry, now_ns) for vlan, mac, entry in fdb.entries(now_ns)]

    def mac_entry(self, switch: str, vlan: int, mac: bytes, now_ns: int) -> MacEntryView | None:
        """Return one live entry, or None."""
        entry = self._settled(switch).fdb.lookup(vlan, mac, now_ns)
        return None if entry is None else _view(vlan, mac, entry, now_ns)

    def add_static(self, switch: str, vlan: int, mac: bytes, slot: int, now_ns: int) -> None:
        """Make a static entry. Raises ResourceExhausted `MAC_TABLE_FULL`."""
        fdb = self._stopped(switch).fdb
        if not fdb.add_static(vlan, mac, slot, now_ns):
            raise ResourceExhausted(
                f"The MAC table of {switch} holds {fdb.limit} entries, its limit.",
                reason="MAC_TABLE_FULL",
                next_step="Flush the table or delete an entry.",
                switch=switch,
            )

    def remove_mac(self, switch: str, vlan: int, mac: bytes, now_ns: int) -> bool:
        """Forget a live entry of either kind; return whether there was one."""
        fdb = self._stopped(switch).fdb
        return fdb.lookup(vlan, mac, now_ns) is not None and fdb.remove(vlan, mac)

    def flush(self, switch: str, vlan: int | None, slot: int | None, now_ns: int) -> int:
        """Forget live dynamic entries of a VLAN, a port, both, or all; return how many."""
        return self._stopped(switch).fdb.flush(now_ns, vlans=None if vlan is None else (vlan,), port=slot)


def _view(vlan: int, mac: bytes, entry: Entry, now_ns: int) -> MacEntryView:
    return MacEntryView(vlan, mac, entry.port, entry.static, 0 if entry.static else now_ns - entry.seen_ns)
