"""What a walk along a frame's way asks of the catalog, the engine and the networks of this host."""

from __future__ import annotations

from lamina_vswitch.catalog import Catalog
from lamina_vswitch.domain.definition import PortDefinition
from lamina_vswitch.domain.drop import DropReason
from lamina_vswitch.domain.offload.columns import with_header
from lamina_vswitch.domain.offload.entry import admitted
from lamina_vswitch.domain.path import Hop, RouterPlace, refused, walk
from lamina_vswitch.domain.trace import Trace
from lamina_vswitch.network_state import NetworkState
from lamina_vswitch.networks import Networks


class FramePaths:
    """Traces frames through the switches and networks of the host."""

    def __init__(self, catalog: Catalog, networks: Networks) -> None:
        self._catalog = catalog
        self._networks = networks

    def path(self, port: PortDefinition, frame: bytes, header: bytes, now_ns: int) -> tuple[list[Hop], bool]:
        """Return the hops of a frame with an offload header, 20 bytes or none, that enters at a port."""
        if header:
            frame = with_header(frame, header, None)
            good, _ = admitted([frame], self._catalog.switch(port.switch).mtu_bytes)
            if not good:
                return [refused(self._catalog.switch_name(port.switch), DropReason.OFFLOAD_INVALID)], False
            frame = good[0]
        return walk(_HostNow(self._catalog, self._networks, now_ns), port.slot, frame, now_ns)


class _HostNow:
    """The host at one instant: the `World` of a walk."""

    def __init__(self, catalog: Catalog, networks: Networks, now_ns: int) -> None:
        self._catalog = catalog
        self._networks = networks
        self._now_ns = now_ns
        self._behind = {state.port.slot: state for state in networks.all() if state.port is not None}

    def switch_of(self, slot: int) -> str:
        """Return the name of the switch of a port."""
        return self._catalog.switch_name(self._catalog.port_in_slot(slot).switch)

    def trace(self, slot: int, frame: bytes) -> Trace:
        """Return what the switch of a port would do with a frame."""
        return self._catalog.engine.trace(slot, frame, self._now_ns)

    def router_behind(self, slot: int) -> RouterPlace | None:
        """Return the router behind a port."""
        state = self._behind.get(slot)
        return self._place(state) if state is not None else None

    def router_of(self, network: str) -> RouterPlace | None:
        """Return the router of a network."""
        return self._place(self._networks.state(network))

    def _place(self, state: NetworkState) -> RouterPlace | None:
        definition = state.definition
        if state.router is None or state.port is None:
            return None
        port = self._catalog.port_name(definition.switch, definition.port)
        name = self._networks.name(definition.network)
        return RouterPlace(name, state.router, port, state.port.slot, definition.vlan)
