"""Addresses of networks as callers see them: allocations, leases and reservations."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.checks import Checks
from lamina_net.packets.address import format_address
from lamina_vswitch.domain.definitions.switches import PortDefinition
from lamina_vswitch.domain.frames.header import format_mac
from lamina_vswitch.domain.network.definition import (
    LEASE_NAME,
    MAX_RESERVATIONS,
    RESERVATION_NAME,
    Reservation,
    lease_id,
    usable,
)
from lamina_vswitch.domain.network.dhcp.lease import FOREVER, Lease, LeaseOrigin, Taken
from lamina_vswitch.domain.network.refusals import (
    address_taken,
    addresses_exhausted,
    reservation_exists,
    reservation_limit,
    unknown_lease,
    unknown_reservation,
)
from lamina_vswitch.networks.networks import Networks
from lamina_vswitch.networks.state import NetworkState
from lamina_vswitch.switches.vlan_members import carries


@dataclass(frozen=True, slots=True)
class AllocationRequest:
    """What AllocateAddress asks for. `address` is 0 for the next free one; `mac` is empty when it is not known."""

    network: str
    switch: str
    port: str
    address: int
    mac: bytes
    host_name: str


class Addresses:
    """The addresses of the networks of a host."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def allocate(self, wanted: AllocationRequest) -> Lease:
        """Take an address for a port, or return what the port has under that host name."""
        state = self._networks.state(wanted.network)
        port = self._networks.catalog.port(wanted.switch, wanted.port)
        self._check_port(state, port)
        now_ns = self._networks.clock.now_ns()
        for lease in state.book.leases(now_ns):
            same = lease.origin is LeaseOrigin.ALLOCATED and lease.port == port.port
            if same and lease.host_name == wanted.host_name and wanted.address in (0, lease.address):
                return lease
        address = wanted.address or state.book.next_free(now_ns)
        if address is None:
            raise addresses_exhausted(self._networks.name(wanted.network))
        self._check_free(state, address, wanted.mac, now_ns)
        made = Lease(address, wanted.mac, port.port, wanted.host_name, LeaseOrigin.ALLOCATED, FOREVER)
        state.book.commit(made, now_ns)
        return made

    def leases(self, network: str) -> list[Lease]:
        """Return the addresses that are out, ordered by address."""
        return self._networks.state(network).book.leases(self._networks.clock.now_ns())

    def end_lease(self, network: str, address: int) -> None:
        """End a lease at once; its address rests for 60 s."""
        state, now_ns = self._networks.state(network), self._networks.clock.now_ns()
        if state.book.lease(address, now_ns) is None:
            raise unknown_lease(self.lease_name(network, address))
        state.book.end(address, now_ns)

    def lease_name(self, network: str, address: int) -> str:
        """Return the resource name of a lease."""
        return LEASE_NAME.format(host=self._networks.catalog.host, network=network, lease=lease_id(address))

    def reserve(self, network: str, wanted: Reservation) -> Reservation:
        """Keep an address for a MAC address."""
        state = self._networks.routed_state(network)
        with Checks() as check:
            subnet = state.definition.subnet
            low, high = usable(subnet) if subnet is not None else (0, 0)
            inside = low <= wanted.address <= high and wanted.address not in state.definition.own_addresses
            check.that(inside, "reservation.address", "is not one that a device of the subnet may have")
        known = state.book.reservation(wanted.mac)
        if known == wanted:
            return known
        if known is not None and known.address != wanted.address:
            raise reservation_exists(format_mac(wanted.mac), known.address)
        why = state.book.obstacle(wanted.address, wanted.mac, self._networks.clock.now_ns())
        if why is not None and why is not Taken.RESTING:
            raise address_taken(wanted.address, why)
        if known is None and len(state.book.reservations()) >= MAX_RESERVATIONS:
            raise reservation_limit(MAX_RESERVATIONS)
        self._networks.store.add_reservation(network, wanted)
        state.book.reserve(wanted)
        return wanted

    def reservations(self, network: str) -> list[Reservation]:
        """Return the reservations of a network, ordered by address."""
        return self._networks.state(network).book.reservations()

    def unreserve(self, network: str, mac: bytes) -> None:
        """Delete a reservation."""
        state = self._networks.state(network)
        if state.book.reservation(mac) is None:
            raise unknown_reservation(self.reservation_name(network, mac))
        self._networks.store.remove_reservation(network, mac)
        state.book.unreserve(mac)

    def reservation_name(self, network: str, mac: bytes) -> str:
        """Return the resource name of a reservation."""
        return RESERVATION_NAME.format(host=self._networks.catalog.host, network=network, reservation=mac.hex())

    def _check_port(self, state: NetworkState, port: PortDefinition) -> None:
        definition = state.definition
        with Checks() as check:
            same = port.switch == definition.switch and carries(self._networks.catalog, port, definition.vlan)
            check.that(same, "port", f"is not in VLAN {definition.vlan} of switch {definition.switch}")
            check.that(not self._networks.catalog.is_internal(port), "port", "is that of a router")

    def _check_free(self, state: NetworkState, address: int, mac: bytes, now_ns: int) -> None:
        why = state.book.obstacle(address, mac, now_ns)
        with Checks() as check:
            check.that(why is not Taken.OUTSIDE, "address", f"is {format_address(address)}, {Taken.OUTSIDE.value}")
        # an address that a device has by DHCP is not free for a port that says the device's MAC address
        if why is None and state.book.lease(address, now_ns) is not None:
            why = Taken.OUT
        if why is not None:
            raise address_taken(address, why)
