"""The tunnels of overlays, each with its port in the uplink's switch: from a place's first overlay to its last."""

from __future__ import annotations

from lamina_kit.clock import Clock
from lamina_vswitch.domain.overlay.definition import OverlayDefinition
from lamina_vswitch.domain.uplink.definition import UplinkDefinition
from lamina_vswitch.io.ports.tunnels import Carrier
from lamina_vswitch.switches.catalog import Catalog
from lamina_vswitch.uplinks.uplinks import UplinkTable

Place = tuple[str, str, int]
"""Switch, uplink and own address: `OverlayDefinition.place`."""


class Tunnels:
    """Tunnels by place."""

    def __init__(self, catalog: Catalog, uplinks: UplinkTable, clock: Clock) -> None:
        self._catalog = catalog
        self._uplinks = uplinks
        self._clock = clock
        self._carriers: dict[Place, Carrier] = {}
        self._of_port: dict[tuple[str, str], Place] = {}

    def at(self, place: Place) -> Carrier | None:
        """Return the tunnel of a place."""
        return self._carriers.get(place)

    def carry(self, definition: OverlayDefinition) -> Carrier:
        """Return the tunnel of an overlay's place; make it with its port, which leaves by that uplink alone."""
        found = self._carriers.get(definition.place)
        if found is not None:
            return found
        switch, name = definition.uplink[0], definition.tunnel_port
        port = self._catalog.find_port(switch, name)
        if port is None:
            native = self._uplinks.get(*definition.uplink).trunk.native
            port = self._catalog.create_internal_port(switch, name, native)
        engine, failed = self._catalog.engine, self._catalog.failed
        carrier = Carrier(definition.mac, definition.address, engine, port.slot, self._clock, failed)
        self._carriers[definition.place] = carrier
        self._of_port[switch, name] = definition.place
        self._uplinks.pin(port, definition.uplink[1])
        self._catalog.attach(port, carrier.port, self._clock.now_ns())
        return carrier

    def retire(self, definition: OverlayDefinition) -> None:
        """End the tunnel of a place where no overlay is."""
        carrier = self._carriers.get(definition.place)
        if carrier is None or not carrier.tunnel.is_unused:
            return
        del self._carriers[definition.place]
        self._of_port.pop((definition.uplink[0], definition.tunnel_port), None)
        carrier.close()
        port = self._catalog.find_port(definition.uplink[0], definition.tunnel_port)
        self._uplinks.unpin(definition.uplink[0], definition.tunnel_port)
        if port is not None:
            self._catalog.delete_internal_port(port, self._clock.now_ns())

    def unplugged(self, port: tuple[str, str]) -> Place | None:
        """Note that a port, by its ids, is gone; return the place whose tunnel's it was."""
        return self._of_port.pop(port, None)

    def move(self, definition: OverlayDefinition, uplink: UplinkDefinition) -> None:
        """Follow the untagged VLAN of an uplink."""
        port = self._catalog.port(uplink.switch, definition.tunnel_port)
        self._catalog.expect_internal(port.switch, port.port, uplink.trunk.native)
        self._catalog.engine.set_vlan(port.slot, uplink.trunk.native, self._clock.now_ns())

    def close(self) -> None:
        """End all. Idempotent."""
        for carrier in self._carriers.values():
            carrier.close()
