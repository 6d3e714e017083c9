"""What users see and change in the MAC tables: the live entries, and static ones, which are durable."""

from __future__ import annotations

from lamina_kit.errors import AlreadyExists
from lamina_vswitch.domain.definitions.refusals import unknown
from lamina_vswitch.domain.definitions.switches import MAC_ENTRY_NAME, StaticEntry, mac_entry_id
from lamina_vswitch.engines.interface import MacEntryView
from lamina_vswitch.switches.catalog import Catalog


class MacTables:
    """The MAC tables of all switches of a host. Switches and ports are named by their ids."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def entry_name(self, switch: str, vlan: int, mac: bytes) -> str:
        """Return the resource name of an entry."""
        return MAC_ENTRY_NAME.format(host=self._catalog.host, switch=switch, mac_entry=mac_entry_id(vlan, mac))

    def entries(self, switch: str, now_ns: int) -> list[MacEntryView]:
        """Return the live entries, ordered by VLAN, then by address."""
        self._catalog.switch(switch)
        return self._catalog.engine.mac_entries(self._catalog.switch_name(switch), now_ns)

    def create_static(self, switch: str, mac: bytes, port: str, now_ns: int) -> MacEntryView:
        """Make a static entry for `mac` at a port, in the VLAN of the port's group."""
        self._catalog.switch(switch)
        chosen = self._catalog.port(switch, port)
        vlan = self._catalog.vlan(chosen)
        engine, name = self._catalog.engine, self._catalog.switch_name(switch)
        found = engine.mac_entry(name, vlan, mac, now_ns)
        if found is not None and found.static:
            if found.slot == chosen.slot:
                return found
            raise AlreadyExists(
                f"{self.entry_name(switch, vlan, mac)} is a static entry for another port.",
                reason="MAC_ENTRY_EXISTS",
                next_step="Delete that entry first.",
            )
        engine.add_static(name, vlan, mac, chosen.slot, now_ns)
        try:
            self._catalog.store.put_static_entry(StaticEntry(switch, vlan, mac, port))
        except BaseException:
            engine.remove_mac(name, vlan, mac, now_ns)
            raise
        return MacEntryView(vlan, mac, chosen.slot, static=True, age_ns=0)

    def delete(self, switch: str, vlan: int, mac: bytes, now_ns: int) -> None:
        """Forget one entry of either kind."""
        self._catalog.switch(switch)
        engine, name = self._catalog.engine, self._catalog.switch_name(switch)
        if engine.mac_entry(name, vlan, mac, now_ns) is None:
            raise unknown("mac_entry", self.entry_name(switch, vlan, mac))
        self._catalog.store.remove_static_entry(switch, vlan, mac)
        engine.remove_mac(name, vlan, mac, now_ns)

    def flush(self, switch: str, vlan: int | None, port: str | None, now_ns: int) -> int:
        """Forget the live dynamic entries of a VLAN, a port, both, or all; return how many."""
        self._catalog.switch(switch)
        slot = self._catalog.port(switch, port).slot if port is not None else None
        return self._catalog.engine.flush(self._catalog.switch_name(switch), vlan, slot, now_ns)
