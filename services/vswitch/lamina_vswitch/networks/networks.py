"""The networks of a host: what is defined, kept equal in the store, in the catalog of ports, and at work here.

Order of a change: check, record in the store, apply. A network's row and its router's port are two records; `restore`
makes a port that is missing and removes one that belongs to nothing, so a crash between them leaves nothing behind.
Every method runs to its end before another begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from lamina_kit.checks import Checks
from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError
from lamina_kit.rng import Rng
from lamina_net.packets.address import format_address
from lamina_vswitch.domain.definitions.requests import RequestLedger
from lamina_vswitch.domain.definitions.switches import Origin, PortDefinition, SwitchDefinition
from lamina_vswitch.domain.network.definition import NETWORK_NAME, Mode, NetworkDefinition, Outside
from lamina_vswitch.domain.network.refusals import (
    clock_virtual,
    network_exists,
    network_in_use,
    network_limit,
    no_group_in_vlan,
    no_uplink,
    subnets_overlap,
    unknown_network,
    unrouted,
    vlan_has_network,
    vlan_has_uplink,
)
from lamina_vswitch.domain.network.router.router import Router
from lamina_vswitch.io.store.networks import NetworkStore, RecordedNetwork
from lamina_vswitch.networks.state import NetworkState
from lamina_vswitch.switches.catalog import Catalog
from lamina_vswitch.switches.vlan_members import carries, has_group

Record = Callable[..., object]


class Uplinks(Protocol):
    """What networks ask of the uplinks of switches."""

    def reaches(self, switch: str, uplink: str) -> bool:
        """Tell whether a switch has an uplink, or the host one of this name; empty asks for the switch's alone."""

    def carries(self, switch: str, vlan: int) -> bool:
        """Tell whether an uplink of a switch carries a VLAN."""


class NoUplinks:
    """The uplinks of a host that has none."""

    def reaches(self, switch: str, uplink: str) -> bool:
        """None."""
        return False

    def carries(self, switch: str, vlan: int) -> bool:
        """None."""
        return False


class Networks:
    """Networks by id. `record` notes in the event log what happens to them."""

    def __init__(
        self, catalog: Catalog, store: NetworkStore, clock: Clock, rng: Rng, limit: int, record: Record
    ) -> None:
        self.catalog = catalog
        self.store = store
        self.clock = clock
        self.uplinks: Uplinks = NoUplinks()
        self.checks: list[Callable[[NetworkDefinition], None]] = []
        """Called in order with a network before it is made or changed; raise where it may not be."""
        self.routed: list[Callable[[NetworkDefinition, Router, NetworkState], None]] = []
        """Called in order with a network whose router came, or was defined anew: here a translator joins."""
        self.unrouted: list[Callable[[NetworkDefinition], None]] = []
        """Called in order with a routed network that is gone."""
        self.mtu_limits: list[Callable[[NetworkDefinition], int | None]] = []
        """Asked for the largest payload that something in a network's VLAN carries; None: it limits nothing there."""
        self._rng = rng
        self._limit = limit
        self._record = record
        self._states: dict[str, NetworkState] = {}
        self._of_vlan: dict[tuple[str, int], NetworkState] = {}
        self._requests = RequestLedger()
        catalog.unplugged.append(self._port_gone)
        catalog.switch_gone.append(self._switch_gone)
        catalog.switch_users.append(self._unrouted_on)

    # Start and end

    def load(self) -> None:
        """Read what is recorded. Before the catalog restores its ports, which learns here which ones are internal."""
        self.store.prepare()
        for recorded in self.store.load():
            self._add(recorded)
            definition = recorded.definition
            if definition.routed:
                self.catalog.expect_internal(definition.switch, definition.port, definition.vlan)

    def restore(self) -> None:
        """Attach the routers to their ports, which the catalog has restored."""
        wanted: dict[tuple[str, str], NetworkState] = {}
        for state in self._states.values():
            if state.definition.routed:
                wanted[state.definition.switch, state.definition.port] = state
        for switch in self.catalog.switches():
            for port in self.catalog.ports(switch.switch):
                if port.owner == self.catalog.own_owner and not self.catalog.is_internal(port):
                    self.catalog.delete_internal_port(port, self.clock.now_ns())
        for state in wanted.values():
            self._plug(state, self._port_of(state.definition))

    def stop(self) -> None:
        """End the routers. Idempotent."""
        for state in self._states.values():
            state.close()

    # Definitions

    def name(self, network: str) -> str:
        """Return the resource name of a network."""
        return NETWORK_NAME.format(host=self.catalog.host, network=network)

    def create(self, wanted: NetworkDefinition, request_id: str) -> NetworkState:
        """Create a network with its router, or return what the same request made before."""
        key, origin = (wanted.network,), Origin(request_id, repr(wanted))
        if self._requests.replayed("network", key, origin):
            return self._states[wanted.network]
        self.catalog.switch(wanted.switch)
        if wanted.network in self._states:
            raise network_exists(self.name(wanted.network))
        other = self._of_vlan.get((wanted.switch, wanted.vlan))
        if other is not None:
            raise vlan_has_network(wanted.vlan, self.name(other.definition.network))
        if wanted.vlan and not has_group(self.catalog, wanted.switch, wanted.vlan):
            raise no_group_in_vlan(self.catalog.switch_name(wanted.switch), wanted.vlan)
        self._check(wanted)
        if len(self._states) >= self._limit:
            raise network_limit(self._limit)
        definition = self._with_router(wanted)
        self.store.add(definition, origin)
        state = self._add(RecordedNetwork(definition, origin))
        if definition.routed:
            try:
                self._plug(state, self._port_of(definition))
            except LaminaError:
                self._remove(state)
                self.store.remove(definition.network)
                port = self.catalog.find_port(definition.switch, definition.port)
                if port is not None:
                    self.catalog.delete_internal_port(port, self.clock.now_ns())
                raise
        self._record(self.name(wanted.network), "network.created", mode=definition.mode.name, subnet=definition.subnet)
        return state

    def state(self, network: str) -> NetworkState:
        """Return a network."""
        found = self._states.get(network)
        if found is None:
            raise unknown_network(self.name(network))
        return found

    def routed_state(self, network: str) -> NetworkState:
        """Return a network that has a router."""
        found = self.state(network)
        if not found.definition.routed:
            raise unrouted(self.name(network))
        return found

    def all(self) -> list[NetworkState]:
        """Return all networks, ordered by id."""
        return [self._states[network] for network in sorted(self._states)]

    def in_vlan(self, switch: str, vlan: int) -> NetworkState | None:
        """Return the network of a VLAN."""
        return self._of_vlan.get((switch, vlan))

    def gives(self, slot: int, address: bytes, now_ns: int) -> bool:
        """Tell whether a lease, or the reservation of a device behind the port, gives an address to a port.

        This is what source guard asks. Where a device with a reservation is, the MAC table says.
        """
        port, number = self.catalog.port_in_slot(slot), int.from_bytes(address, "big")
        states = [state for state in self._states.values() if state.definition.switch == port.switch]
        return any(self._gives(state, port, number, now_ns) for state in states if len(address) == 4)

    def _gives(self, state: NetworkState, port: PortDefinition, address: int, now_ns: int) -> bool:
        vlan = state.definition.vlan
        if not carries(self.catalog, port, vlan):
            return False
        lease = state.book.lease(address, now_ns)
        if lease is not None:
            return lease.port == port.port
        reserved = state.book.reserved(address)
        if reserved is None:
            return False
        switch = self.catalog.switch_name(port.switch)
        entry = self.catalog.engine.mac_entry(switch, vlan, reserved.mac, now_ns)
        return entry is not None and entry.slot == port.slot

    def mtu_bytes(self, network: NetworkDefinition) -> int:
        """Return the largest payload that all of a network's VLAN carries."""
        limits = [limit(network) for limit in self.mtu_limits]
        mtu_bytes = self.catalog.switch(network.switch).mtu_bytes
        return min([mtu_bytes, *(limit for limit in limits if limit is not None)])

    def update(self, wanted: NetworkDefinition) -> NetworkState:
        """Give a network new settings; name, mode, switch, VLAN, subnet, MAC address and port are what they were."""
        state = self.state(wanted.network)
        if wanted == state.definition:
            return state
        self._check(wanted)
        with Checks() as check:
            for address in wanted.own_addresses:
                held = state.book.lease(address, self.clock.now_ns()) or state.book.reserved(address)
                check.that(held is None, "network", f"would have {format_address(address)}, which a device has")
        self.store.update(wanted)
        state.change(wanted)
        if state.router is not None:
            for joined in self.routed:
                joined(wanted, state.router, state)
        self._record(self.name(wanted.network), "network.updated")
        return state

    def delete(self, network: str, *, force: bool) -> None:
        """Delete a network with everything of it."""
        state = self.state(network)
        leases = state.book.count(self.clock.now_ns())
        if leases and not force:
            raise network_in_use(self.name(network), leases)
        self.store.remove(network)
        self._remove(state)
        if state.definition.routed:
            self.catalog.delete_internal_port(self._port_of(state.definition), self.clock.now_ns())
        self._record(self.name(network), "network.deleted", leases=leases)

    # Checks against what is there

    def _check(self, wanted: NetworkDefinition) -> None:
        switch = self.catalog.switch_name(wanted.switch)
        with Checks() as check:
            for route in wanted.routes:
                other = self.routed_state(route.network).definition.mode if route.network else Mode.NAT
                check.that(other is Mode.NAT, "network.routes", f"lead into {route.network}, which is host-only")
        outside = wanted.mode is Mode.NAT and wanted.nat.outside is Outside.UPLINK
        if (wanted.mode is Mode.BRIDGE or outside) and not self.uplinks.reaches(wanted.switch, wanted.nat.uplink):
            raise no_uplink(switch)
        if wanted.mode is Mode.HOST_ONLY and self.uplinks.carries(wanted.switch, wanted.vlan):
            raise vlan_has_uplink(switch, wanted.vlan, "nothing in it is the host's alone")
        for other_check in self.checks:
            other_check(wanted)
        self._check_subnet(wanted)
        self._check_clock(wanted)

    def _check_subnet(self, wanted: NetworkDefinition) -> None:
        for other in self.all():
            theirs, ours = other.definition.subnet, wanted.subnet
            if other.definition.network == wanted.network or not (other.definition.routed and wanted.routed):
                continue
            if ours is not None and theirs is not None and (ours.network in theirs or theirs.network in ours):
                raise subnets_overlap(ours, self.name(other.definition.network), theirs)

    def _check_clock(self, wanted: NetworkDefinition) -> None:
        if self.clock.mode != "virtual":
            return
        if wanted.mode is Mode.NAT and wanted.nat.outside is not Outside.UPLINK:
            raise clock_virtual("NAT by this machine")
        if wanted.dns is not None and wanted.dns.upstreams:
            raise clock_virtual("A DNS server to ask for other names")

    # Bookkeeping

    def _with_router(self, wanted: NetworkDefinition) -> NetworkDefinition:
        if not wanted.routed:
            return wanted
        rng = self._rng.child(f"{self.catalog.host}/{wanted.network}")
        return replace(wanted, mac=b"\x02" + rng.bytes(5), port=f"router.{wanted.network}")

    def _add(self, recorded: RecordedNetwork) -> NetworkState:
        definition = recorded.definition
        rng = self._rng.child(f"{definition.network}/dns")
        state = NetworkState(recorded, self.store, self.catalog, self.clock, rng, self.mtu_bytes)
        self._states[definition.network] = state
        self._of_vlan[definition.switch, definition.vlan] = state
        self._requests.remember("network", (definition.network,), recorded.origin)
        return state

    def _remove(self, state: NetworkState) -> None:
        definition = state.definition
        state.close()
        del self._states[definition.network]
        del self._of_vlan[definition.switch, definition.vlan]
        self._requests.forget("network", (definition.network,))
        if not definition.routed:
            return
        for other in self._states.values():
            if other.router is not None:
                other.router.peers.pop(definition.network, None)
        for left in self.unrouted:
            left(definition)

    def _plug(self, state: NetworkState, port: PortDefinition) -> None:
        name = self.name(state.definition.network)

        def failed(error: Exception) -> None:
            if isinstance(error, LaminaError):
                self._record(name, "network.refused", reason=error.reason, message=error.message)
            else:
                self.catalog.failed(error)

        router = state.plug(port, failed)
        for other in self._states.values():
            if other.router is not None and state.port is not None and other.port is not None:
                other.router.peers[state.definition.network] = state.port.take_packet
                router.peers[other.definition.network] = other.port.take_packet
        for joined in self.routed:
            joined(state.definition, router, state)

    def _port_of(self, definition: NetworkDefinition) -> PortDefinition:
        """Return the port of a network's router; make it when it is not there."""
        for port in self.catalog.ports(definition.switch):
            if port.port == definition.port:
                return port
        return self.catalog.create_internal_port(definition.switch, definition.port, definition.vlan)

    def _port_gone(self, port: PortDefinition) -> None:
        now_ns = self.clock.now_ns()
        for state in self._states.values():
            if state.definition.switch == port.switch:
                state.book.port_gone(port.port, now_ns)

    def _unrouted_on(self, switch: str) -> int:
        found = (state.definition for state in self._states.values())
        return sum(definition.switch == switch and not definition.routed for definition in found)

    def _switch_gone(self, switch: SwitchDefinition) -> None:
        for state in [each for each in self.all() if each.definition.switch == switch.switch]:
            self._remove(state)
