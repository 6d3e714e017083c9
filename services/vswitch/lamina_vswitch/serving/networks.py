"""`lamina.vswitch.v1.Networks`: networks, addresses, names and neighbours."""

from __future__ import annotations

from typing import Any

from grpc import aio
from lamina.vswitch.v1 import networks_pb2 as pb
from lamina.vswitch.v1 import networks_pb2_grpc as rpc

from lamina_vswitch.convert import addresses
from lamina_vswitch.convert import networks as convert_networks
from lamina_vswitch.domain.definitions.pages import page
from lamina_vswitch.domain.network.definition import NETWORK_NAME, address_key
from lamina_vswitch.domain.network.dhcp.lease import Lease
from lamina_vswitch.names import Names
from lamina_vswitch.networks.addresses import Addresses
from lamina_vswitch.networks.networks import Networks
from lamina_vswitch.networks.records import Records
from lamina_vswitch.networks.state import NetworkState

Context = aio.ServicerContext[Any, Any]


class NetworksServicer(rpc.NetworksServicer):
    """Serves `lamina.vswitch.v1.Networks`."""

    def __init__(self, networks: Networks, names: Names) -> None:
        self._networks = networks
        self._addresses = Addresses(networks)
        self._records = Records(networks)
        self._names = names

    # Networks

    async def CreateNetwork(self, request: pb.CreateNetworkRequest, context: Context) -> pb.Network:
        """Create a network."""
        wanted = convert_networks.network_definition(request, self._names)
        return self._network(self._networks.create(wanted, request.request_id))

    async def GetNetwork(self, request: pb.GetNetworkRequest, context: Context) -> pb.Network:
        """Return a network."""
        return self._network(self._networks.state(self._names.network(request.name)))

    async def ListNetworks(self, request: pb.ListNetworksRequest, context: Context) -> pb.ListNetworksResponse:
        """List networks."""
        found = self._networks.all()
        chosen, token = page(found, lambda each: each.definition.network, request.page_size, request.page_token)
        return pb.ListNetworksResponse(networks=map(self._network, chosen), next_page_token=token)

    async def UpdateNetwork(self, request: pb.UpdateNetworkRequest, context: Context) -> pb.Network:
        """Change a network."""
        old = self._networks.state(self._names.network(request.network.name, "network.name")).definition
        return self._network(self._networks.update(convert_networks.changed_network(request, old, self._names)))

    async def DeleteNetwork(self, request: pb.DeleteNetworkRequest, context: Context) -> pb.DeleteNetworkResponse:
        """Delete a network."""
        self._networks.delete(self._names.network(request.name), force=request.force)
        return pb.DeleteNetworkResponse()

    # Addresses

    async def AllocateAddress(self, request: pb.AllocateAddressRequest, context: Context) -> pb.Lease:
        """Take an address for a port."""
        wanted = addresses.allocation(request, self._names)
        state = self._networks.state(wanted.network)
        addresses.bridge_needs_address(wanted, state.definition.routed)
        return self._lease(state, self._addresses.allocate(wanted))

    async def ListLeases(self, request: pb.ListLeasesRequest, context: Context) -> pb.ListLeasesResponse:
        """List the addresses that are out."""
        network = self._names.network(request.parent, "parent")
        state, found = self._networks.state(network), self._addresses.leases(network)
        chosen, token = page(found, lambda each: address_key(each.address), request.page_size, request.page_token)
        return pb.ListLeasesResponse(leases=[self._lease(state, each) for each in chosen], next_page_token=token)

    async def DeleteLease(self, request: pb.DeleteLeaseRequest, context: Context) -> pb.DeleteLeaseResponse:
        """End a lease."""
        self._addresses.end_lease(*self._names.lease(request.name))
        return pb.DeleteLeaseResponse()

    async def CreateReservation(self, request: pb.CreateReservationRequest, context: Context) -> pb.Reservation:
        """Reserve an address."""
        network = self._names.network(request.parent, "parent")
        self._networks.routed_state(network)
        made = self._addresses.reserve(network, addresses.reservation(request.reservation))
        return addresses.reservation_message(self._addresses.reservation_name(network, made.mac), made)

    async def ListReservations(
        self, request: pb.ListReservationsRequest, context: Context
    ) -> pb.ListReservationsResponse:
        """List reservations."""
        network = self._names.network(request.parent, "parent")
        found = self._addresses.reservations(network)
        chosen, token = page(found, lambda each: address_key(each.address), request.page_size, request.page_token)
        made = [
            addresses.reservation_message(self._addresses.reservation_name(network, each.mac), each)
            for each in chosen
        ]
        return pb.ListReservationsResponse(reservations=made, next_page_token=token)

    async def DeleteReservation(
        self, request: pb.DeleteReservationRequest, context: Context
    ) -> pb.DeleteReservationResponse:
        """Delete a reservation."""
        self._addresses.unreserve(*self._names.reservation(request.name))
        return pb.DeleteReservationResponse()

    # Names

    async def UpdateDnsRecords(
        self, request: pb.UpdateDnsRecordsRequest, context: Context
    ) -> pb.UpdateDnsRecordsResponse:
        """Change names."""
        revision, count = self._records.update(addresses.records_update(request, self._names))
        return pb.UpdateDnsRecordsResponse(revision=revision, record_count=count)

    async def ListDnsRecords(self, request: pb.ListDnsRecordsRequest, context: Context) -> pb.ListDnsRecordsResponse:
        """List names."""
        found = self._records.sets(self._names.network(request.parent, "parent"))
        chosen, token = page(found, addresses.record_key, request.page_size, request.page_token)
        return pb.ListDnsRecordsResponse(dns_records=map(addresses.record, chosen), next_page_token=token)

    # Neighbours

    async def ListNeighbors(self, request: pb.ListNeighborsRequest, context: Context) -> pb.ListNeighborsResponse:
        """List the ARP table of a router."""
        state = self._networks.routed_state(self._names.network(request.parent, "parent"))
        router = state.router
        found = router.neighbours.neighbours(self._networks.clock.now_ns()) if router is not None else []
        chosen, token = page(found, lambda each: address_key(each.address), request.page_size, request.page_token)
        return pb.ListNeighborsResponse(neighbors=map(addresses.neighbor, chosen), next_page_token=token)

    # Messages

    def _network(self, state: NetworkState) -> pb.Network:
        definition, catalog = state.definition, self._networks.catalog
        port = catalog.port_name(definition.switch, definition.port) if definition.port else ""
        names = (self._networks.name(definition.network), catalog.switch_name(definition.switch), port)
        pattern = NETWORK_NAME.format(host=catalog.host, network="x").removesuffix("x") + "{}"
        leases = state.book.count(self._networks.clock.now_ns())
        return convert_networks.network(definition, names, state.mtu_bytes, leases, pattern)

    def _lease(self, state: NetworkState, found: Lease) -> pb.Lease:
        definition = state.definition
        port = self._networks.catalog.port_name(definition.switch, found.port) if found.port else ""
        name = self._addresses.lease_name(definition.network, found.address)
        return addresses.lease(name, found, state, port)
