"""The overlays of a host: in the store, in the catalog of ports, and at work.

Order of a change: check, record in the store, apply. An overlay and its two ports are records of their own; `restore`
makes a port that is missing, and ports that nobody expects go when networks are restored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError
from lamina_kit.rng import Rng
from lamina_vswitch.domain.definitions.refusals import exists, unknown
from lamina_vswitch.domain.definitions.requests import RequestLedger
from lamina_vswitch.domain.definitions.switches import Origin, PortDefinition
from lamina_vswitch.domain.network.definition import Mode, NetworkDefinition
from lamina_vswitch.domain.network.refusals import vlan_has_uplink
from lamina_vswitch.domain.overlay.definition import (
    MAX_OVERLAYS,
    OVERLAY_NAME,
    OverlayDefinition,
    RemoteDefinition,
    address_id,
    mtu_unsupported,
    overlay_limit,
    remote_endpoint_limit,
    vlan_has_overlay,
    vlan_spans_hosts,
    vni_taken,
)
from lamina_vswitch.domain.overlay.end import OverlayEnd, TunnelledEnd
from lamina_vswitch.domain.overlay.remote_ends import MAX_ENDS, RemoteEnd, RemoteEnds
from lamina_vswitch.domain.overlay.tunnel import Tunnel
from lamina_vswitch.domain.overlay.vxlan import OVERHEAD_BYTES
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.domain.uplink.definition import UplinkDefinition, vlan_host_only
from lamina_vswitch.io.ports.tunnels import SteppedPort
from lamina_vswitch.io.store.overlays import OverlayStore
from lamina_vswitch.networks.networks import Networks
from lamina_vswitch.switches.catalog import Catalog
from lamina_vswitch.uplinks.tunnels import Tunnels
from lamina_vswitch.uplinks.uplinks import UplinkTable

Key = tuple[str, str]
SECOND_NS = 1_000_000_000


@dataclass(slots=True)
class Overlay:
    """An overlay at work."""

    definition: OverlayDefinition
    remotes: RemoteEnds
    told: dict[int, RemoteDefinition]
    there: TunnelledEnd | None = None
    port: SteppedPort | None = None


class OverlayTable:
    """Overlays by ids of switch and overlay, their tunnels by place."""

    def __init__(
        self,
        catalog: Catalog,
        store: OverlayStore,
        uplinks: UplinkTable,
        networks: Networks,
        clock: Clock,
        rng: Rng,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._uplinks = uplinks
        self._networks = networks
        self._clock = clock
        self._rng = rng
        self._overlays: dict[Key, Overlay] = {}
        self._of_port: dict[Key, Overlay] = {}
        self._of_vlan: dict[tuple[str, int], Overlay] = {}
        self._tunnels = Tunnels(catalog, uplinks, clock)
        self._requests = RequestLedger()
        catalog.unplugged.append(self._unplugged)
        uplinks.users.append(self._users_of)
        uplinks.checks.append(self._check_uplink)
        networks.checks.append(self._check_network)
        networks.mtu_limits.append(self._mtu_limit)
        uplinks.changed.append(self._moved)

    # Start and end

    def load(self) -> None:
        """Read what is recorded. Before the catalog restores its ports; the uplinks have been read."""
        self._store.open()
        for definition, origin, remotes in self._store.load():
            self._remember(definition, origin)
            for each in remotes:
                self._tell(self._overlays[definition.switch, definition.overlay], each)
            self._catalog.expect_internal(definition.switch, definition.port, definition.vlan)
            native = self._uplinks.get(*definition.uplink).trunk.native
            self._catalog.expect_internal(definition.uplink[0], definition.tunnel_port, native)

    def restore(self) -> None:
        """Put the overlays to work; catalog, networks and uplinks have been restored."""
        for key in sorted(self._overlays):
            self._plug(self._overlays[key])

    def stop(self) -> None:
        """End the tunnels. Idempotent."""
        self._tunnels.close()
        for overlay in self._overlays.values():
            if overlay.port is not None:
                overlay.port.close()

    # Overlays

    def name(self, switch: str, overlay: str) -> str:
        """Return the resource name of an overlay."""
        return OVERLAY_NAME.format(host=self._catalog.host, switch=switch, overlay=overlay)

    def create(self, wanted: OverlayDefinition, request_id: str) -> Overlay:
        """Create an overlay with its ports, or return what the same request made before."""
        self._catalog.switch(wanted.switch)
        key, origin = (wanted.switch, wanted.overlay), Origin(request_id, repr(wanted))
        if self._requests.replayed("overlay", key, origin):
            return self._overlays[key]
        if key in self._overlays:
            raise exists("overlay", self.name(*key))
        self._check(wanted)
        made = replace(wanted, mac=self._mac(wanted))
        self._store.add(made, origin)
        overlay = self._remember(made, origin)
        try:
            self._plug(overlay)
        except LaminaError:
            self._store.remove(made)
            port = self._catalog.find_port(made.switch, made.port)
            if port is not None:
                self._catalog.delete_internal_port(port, self._clock.now_ns())
            else:
                self._forget(overlay)
            raise
        self._note(made, "overlay.created", vni=made.vni, vlan=made.vlan)
        return overlay

    def get(self, switch: str, overlay: str) -> Overlay:
        """Return an overlay."""
        found = self._overlays.get((switch, overlay))
        if found is None:
            raise unknown("overlay", self.name(switch, overlay))
        self._settle(found)
        return found

    def overlays(self, switch: str) -> list[Overlay]:
        """Return the overlays of a switch, ordered by id."""
        self._catalog.switch(switch)
        return [self.get(each.switch, each.overlay) for each in self._of_switch(switch)]

    def update(self, wanted: OverlayDefinition) -> Overlay:
        """Let an existing overlay learn in another way, or reach others through another router."""
        overlay = self.get(wanted.switch, wanted.overlay)
        if wanted != overlay.definition:
            self._store.update(wanted)
            overlay.definition = wanted
            if overlay.there is not None:
                overlay.there.way = wanted.way
                overlay.there.end.set_learning(wanted.learning, self._clock.now_ns())
            self._note(wanted, "overlay.updated")
        return overlay

    def delete(self, switch: str, overlay: str) -> None:
        """Delete an overlay with its ports, its remote ends and what it learned."""
        found = self.get(switch, overlay)
        self._store.remove(found.definition)
        port = self._catalog.port(switch, found.definition.port)
        self._catalog.delete_internal_port(port, self._clock.now_ns())
        self._note(found.definition, "overlay.deleted")

    def mtu_bytes(self, overlay: OverlayDefinition) -> int:
        """Return the largest payload that fits through now."""
        below = self._catalog.switch(overlay.uplink[0]).mtu_bytes - OVERHEAD_BYTES
        return min(self._catalog.switch(overlay.switch).mtu_bytes, below)

    def _mtu_limit(self, network: NetworkDefinition) -> int | None:
        overlay = self._of_vlan.get((network.switch, network.vlan))
        return self.mtu_bytes(overlay.definition) if overlay is not None else None

    def at_work(self) -> list[tuple[OverlayDefinition, TunnelledEnd, Tunnel]]:
        """Return the overlays that are plugged in, with their ends and tunnels, ordered by switch and id."""
        found = []
        for overlay in (self._overlays[key] for key in sorted(self._overlays)):
            carrier = self._tunnels.at(overlay.definition.place)
            if overlay.there is not None and carrier is not None:
                found.append((overlay.definition, overlay.there, carrier.tunnel))
        return found

    # Remote ends

    def tell(self, overlay: Overlay, wanted: RemoteDefinition) -> RemoteEnd:
        """Tell an overlay of an end on another host, in place of what was told of it before."""
        old = overlay.told.get(wanted.address)
        if old != wanted:
            if old is None and len(overlay.told) >= MAX_ENDS:
                raise remote_endpoint_limit(self.name(overlay.definition.switch, overlay.definition.overlay))
            moved = set(wanted.macs)
            others = [
                RemoteDefinition(each.address, tuple(mac for mac in each.macs if mac not in moved))
                for each in overlay.told.values()
                if each.address != wanted.address and not moved.isdisjoint(each.macs)
            ]
            self._store.set_remotes(overlay.definition, [*others, wanted])
            for each in [*others, wanted]:
                self._tell(overlay, each)
        return self.remote(overlay, wanted.address)

    def remote(self, overlay: Overlay, address: int) -> RemoteEnd:
        """Return a remote end that is known."""
        found = overlay.remotes.end(address, self._clock.now_ns())
        if found is None:
            name = self.name(overlay.definition.switch, overlay.definition.overlay)
            raise unknown("remote_endpoint", f"{name}/remoteEndpoints/{address_id(address)}")
        return found

    def forget(self, switch: str, name: str, address: int) -> None:
        """Forget a remote end and the addresses behind it; of an overlay that is unknown, nothing is known."""
        overlay = self._overlays.get((switch, name))
        if overlay is None:
            raise unknown("remote_endpoint", f"{self.name(switch, name)}/remoteEndpoints/{address_id(address)}")
        self.remote(overlay, address)
        self._store.remove_remote(overlay.definition, address)
        overlay.told.pop(address, None)
        overlay.remotes.forget(address, self._clock.now_ns())

    def _tell(self, overlay: Overlay, remote: RemoteDefinition) -> None:
        overlay.told[remote.address] = remote
        overlay.remotes.tell(remote.address, remote.macs, self._clock.now_ns())

    # Checks

    def _check(self, wanted: OverlayDefinition) -> None:
        uplink, now = self._uplinks.get(*wanted.uplink), [each.definition for each in self._overlays.values()]
        for other in now:
            name = self.name(other.switch, other.overlay)
            if (other.switch, other.vlan) == (wanted.switch, wanted.vlan):
                raise vlan_has_overlay(wanted.vlan, name)
            ends = [(each.place, each.way.udp_port, each.vni) for each in (other, wanted)]
            if ends[0] == ends[1]:
                raise vni_taken(wanted.vni, wanted.address, name)
        if self._uplinks.carries(wanted.switch, wanted.vlan):
            switch = self._catalog.switch_name(wanted.switch)
            raise vlan_has_uplink(switch, wanted.vlan, "an overlay beside it would be a loop")
        network = self._networks.in_vlan(wanted.switch, wanted.vlan)
        if network is not None and network.definition.mode is Mode.HOST_ONLY:
            name = self._networks.name(network.definition.network)
            raise vlan_host_only(wanted.vlan, name, "Choose another VLAN, or delete that network.")
        carried, mtu = self._mtu_of(uplink), self._catalog.switch(wanted.switch).mtu_bytes
        if carried < mtu + OVERHEAD_BYTES:
            raise mtu_unsupported(self._uplinks.name(*wanted.uplink), carried, mtu)
        if sum(other.switch == wanted.switch for other in now) >= MAX_OVERLAYS:
            raise overlay_limit(self._catalog.switch_name(wanted.switch))

    def _check_uplink(self, wanted: UplinkDefinition) -> None:
        """Refuse a second way to other hosts for a VLAN: both together would be a loop."""
        for overlay in self._of_switch(wanted.switch):
            if wanted.trunk.carries(overlay.vlan):
                name = self.name(overlay.switch, overlay.overlay)
                raise vlan_spans_hosts("an uplink that carries it too would be a loop", overlay.vlan, name)

    def _check_network(self, wanted: NetworkDefinition) -> None:
        """Refuse a host-only network in a VLAN that is on other hosts too."""
        for overlay in self._of_switch(wanted.switch):
            if wanted.mode is Mode.HOST_ONLY and overlay.vlan == wanted.vlan:
                name = self.name(overlay.switch, overlay.overlay)
                raise vlan_spans_hosts("nothing in it is the host's alone", overlay.vlan, name)

    def _of_switch(self, switch: str) -> list[OverlayDefinition]:
        return [self._overlays[key].definition for key in sorted(self._overlays) if key[0] == switch]

    def _mtu_of(self, uplink: UplinkDefinition) -> int:
        return self._catalog.switch(uplink.switch).mtu_bytes

    def _users_of(self, uplink: UplinkDefinition) -> list[str]:
        key = (uplink.switch, uplink.uplink)
        return [self.name(*each) for each in sorted(self._overlays) if self._overlays[each].definition.uplink == key]

    # Bookkeeping

    def _mac(self, wanted: OverlayDefinition) -> bytes:
        for overlay in self._overlays.values():
            if overlay.definition.place == wanted.place:
                return overlay.definition.mac
        return b"\x02" + self._rng.child("/".join(map(str, wanted.place))).bytes(5)

    def _remember(self, definition: OverlayDefinition, origin: Origin) -> Overlay:
        key, switch = (definition.switch, definition.overlay), definition.switch
        remotes = RemoteEnds(*self._bounds(switch)) if self._is_known(switch) else RemoteEnds(300 * SECOND_NS, 8192)
        overlay = self._overlays[key] = Overlay(definition, remotes, {})
        self._of_port[switch, definition.port] = overlay
        self._of_vlan[switch, definition.vlan] = overlay
        self._requests.remember("overlay", key, origin)
        return overlay

    def _is_known(self, switch: str) -> bool:
        return any(each.switch == switch for each in self._catalog.switches())

    def _bounds(self, switch: str) -> tuple[int, int]:
        definition = self._catalog.switch(switch)
        return definition.ageing_seconds * SECOND_NS, definition.mac_limit

    def _settle(self, overlay: Overlay) -> None:
        """Let ageing time and limit be those that the switch has now."""
        bounds = self._bounds(overlay.definition.switch)
        if bounds != overlay.remotes.bounds:
            overlay.remotes.resize(*bounds, self._clock.now_ns())

    def _plug(self, overlay: Overlay) -> None:
        """Attach an overlay to its ports; make those that are not there."""
        definition, now_ns = overlay.definition, self._clock.now_ns()
        carrier = self._tunnels.carry(definition)
        port = self._catalog.find_port(definition.switch, definition.port)
        if port is None:
            try:
                port = self._catalog.create_internal_port(definition.switch, definition.port, definition.vlan)
            except LaminaError:
                self._tunnels.retire(definition)
                raise

        def outwards(frame: bytes, now_ns: int) -> None:
            self._settle(overlay)
            carrier.send(carrier.tunnel.send(there, frame, now_ns))

        engine, failed = self._catalog.engine, self._catalog.failed
        sink = overlay.port = SteppedPort(engine, port.slot, self._clock, outwards, failed)
        end = OverlayEnd(
            definition.vni, overlay.remotes, definition.learning, lambda: self.mtu_bytes(definition), sink.dropped
        )
        there = overlay.there = TunnelledEnd(end, definition.way, lambda frame: sink.send([frame]))
        carrier.tunnel.join(there)
        self._settle(overlay)
        self._catalog.attach(port, sink, now_ns)

    def _forget(self, overlay: Overlay) -> None:
        definition = overlay.definition
        if overlay.port is not None:
            overlay.port.close()
        carrier = self._tunnels.at(definition.place)
        if carrier is not None and overlay.there is not None:
            carrier.tunnel.leave(overlay.there)
        del self._overlays[definition.switch, definition.overlay]
        del self._of_port[definition.switch, definition.port]
        del self._of_vlan[definition.switch, definition.vlan]
        self._requests.forget("overlay", (definition.switch, definition.overlay))
        self._tunnels.retire(definition)

    def _unplugged(self, port: PortDefinition) -> None:
        """An overlay goes with its port, and every overlay of a tunnel with the tunnel's."""
        key = (port.switch, port.port)
        overlay, place = self._of_port.get(key), self._tunnels.unplugged(key)
        if overlay is not None:
            self._forget(overlay)
        if place is None:
            return
        for definition in [self._overlays[each].definition for each in sorted(self._overlays)]:
            if definition.place == place:
                own = self._catalog.port(definition.switch, definition.port)
                self._catalog.delete_internal_port(own, self._clock.now_ns())

    def _moved(self, uplink: UplinkDefinition) -> None:
        """Let tunnels follow the untagged VLAN of their uplink."""
        for overlay in self._overlays.values():
            definition = overlay.definition
            if definition.uplink == (uplink.switch, uplink.uplink):
                self._tunnels.move(definition, uplink)

    def _note(self, overlay: OverlayDefinition, event: str, **inputs: object) -> None:
        details = tuple(sorted((key, str(value)) for key, value in inputs.items()))
        self._catalog.notice(Notice(self.name(overlay.switch, overlay.overlay), event, "", details))
