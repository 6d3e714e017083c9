"""What a walk along a frame's way asks of the catalog, the engine, and what is behind the ports of this host."""

from __future__ import annotations

from collections.abc import Iterator

from lamina_vswitch.domain.backend.definition import BackendDefinition
from lamina_vswitch.domain.definitions.switches import PortDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.offload.columns import with_header
from lamina_vswitch.domain.offload.ingress import admitted
from lamina_vswitch.domain.path.places import End, OverlayPlace, RouterPlace, TunnelPlace, WirePlace
from lamina_vswitch.domain.path.walk import Hop, Place, refused, walk
from lamina_vswitch.domain.path.wiring import are_joined, words
from lamina_vswitch.domain.switch.trace import Trace
from lamina_vswitch.domain.uplink.definition import UplinkDefinition
from lamina_vswitch.networks.networks import Networks
from lamina_vswitch.networks.state import NetworkState
from lamina_vswitch.ports.backends import BackendTable
from lamina_vswitch.switches.catalog import Catalog
from lamina_vswitch.uplinks.overlays import OverlayTable
from lamina_vswitch.uplinks.uplinks import UplinkTable


class FramePaths:
    """Traces frames through the switches, networks, overlays and uplinks of the host."""

    def __init__(
        self,
        catalog: Catalog,
        networks: Networks,
        overlays: OverlayTable,
        uplinks: UplinkTable,
        backends: BackendTable,
    ) -> None:
        self._catalog = catalog
        self._networks = networks
        self._overlays = overlays
        self._uplinks = uplinks
        self._backends = backends

    def path(self, port: PortDefinition, frame: bytes, header: bytes, now_ns: int) -> tuple[list[Hop], bool]:
        """Return the hops of a frame with an offload header, 20 bytes or none, that enters at a port."""
        if header:
            frame = with_header(frame, header, None)
            good, _ = admitted([frame], self._catalog.switch(port.switch).mtu_bytes)
            if not good:
                return [refused(self._catalog.switch_name(port.switch), DropReason.OFFLOAD_INVALID)], False
            frame = good[0]
        places = {**self._routers(), **self._tunnels(), **self._wires()}
        return walk(_HostNow(self._catalog, places, now_ns), port.slot, frame, now_ns)

    def _routers(self) -> dict[int, Place]:
        places = {state.port.slot: self._router(state) for state in self._networks.all() if state.port is not None}
        return {slot: place for slot, place in places.items() if place is not None}

    def _router(self, state: NetworkState) -> Place | None:
        definition = state.definition
        if state.router is None or state.port is None:
            return None
        port = End(self._catalog.port_name(definition.switch, definition.port), state.port.slot, definition.vlan)
        name = self._networks.name(definition.network)
        return RouterPlace(name, state.router, port, lambda network: self._router(self._networks.state(network)))

    def _tunnels(self) -> dict[int, Place]:
        places: dict[int, Place] = {}
        inside: dict[int, TunnelPlace] = {}
        for overlay, end, tunnel in self._overlays.at_work():
            own = self._end(overlay.switch, overlay.port, overlay.vlan)
            below = self._end(overlay.uplink[0], overlay.tunnel_port)
            name = self._overlays.name(overlay.switch, overlay.overlay)
            places[own.slot] = OverlayPlace(name, end, tunnel, below, overlay.vlan)
            others = inside[below.slot].overlays if below.slot in inside else ()
            uplink = self._uplinks.name(*overlay.uplink)
            inside[below.slot] = TunnelPlace(uplink, tunnel, (*others, (name, end, own)))
        return {**places, **inside}

    def _wires(self) -> dict[int, Place]:
        found = {(each.switch, each.port): each for each in self._plugged_in()}
        places: dict[int, Place] = {}
        for switch in self._catalog.switches():
            for uplink in self._uplinks.uplinks(switch.switch):
                place = self._wire(uplink, found)
                places[self._uplinks.port(uplink).slot] = place
        return places

    def _wire(self, uplink: UplinkDefinition, plugged_in: dict[tuple[str, str], BackendDefinition]) -> Place:
        name = self._uplinks.name(uplink.switch, uplink.uplink)
        if uplink.nic:
            return WirePlace(name, f"NIC {uplink.nic}")
        own = plugged_in.get((uplink.switch, uplink.uplink))
        if own is None:
            return WirePlace(name, "what is attached to its port")
        joined = [each for each in plugged_in.values() if each is not own and are_joined(own.kind, each.kind)]
        far = self._end(joined[0].switch, joined[0].port) if len(joined) == 1 else None
        return WirePlace(name, words(own.kind), far)

    def _plugged_in(self) -> Iterator[BackendDefinition]:
        for switch in self._catalog.switches():
            for backend in self._backends.list(switch.switch):
                yield backend.definition

    def _end(self, switch: str, port: str, vlan: int = 0) -> End:
        return End(self._catalog.port_name(switch, port), self._catalog.port(switch, port).slot, vlan)


class _HostNow:
    """The host at one instant: the `World` of a walk."""

    def __init__(self, catalog: Catalog, places: dict[int, Place], now_ns: int) -> None:
        self._catalog = catalog
        self._places = places
        self._now_ns = now_ns

    def switch_of(self, slot: int) -> str:
        """Return the name of the switch of a port."""
        return self._catalog.switch_name(self._catalog.port_in_slot(slot).switch)

    def trace(self, slot: int, frame: bytes) -> Trace:
        """Return what the switch of a port would do with a frame."""
        return self._catalog.engine.trace(slot, frame, self._now_ns)

    def behind(self, slot: int) -> Place | None:
        """Return what is behind a port."""
        return self._places.get(slot)
