"""Networks as definitions: life, defaults, masks, refusals, pages, and what they do to ports and switches."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.network_bench import LAN, SECOND_NS, SWITCH, NetworkBench
from tests.integration.vswitch.refusals import refusal

from lamina_vswitch.config import VswitchConfig

ROUTER = f"{SWITCH}/ports/router.lan"
NAT, HOST_ONLY, BRIDGE = nets.Network.MODE_NAT, nets.Network.MODE_HOST_ONLY, nets.Network.MODE_BRIDGE


BAD_FIELDS: tuple[dict[str, Any], ...] = (
    {"mode": nets.Network.MODE_UNSPECIFIED},
    {"subnet": ""},
    {"subnet": "10.0.2.1/24"},
    {"subnet": "10.0.0.0/7"},
    {"subnet": "10.0.2.0/31"},
    {"gateway_address": "10.0.3.1"},
    {"gateway_address": "10.0.2.255"},
    {"host_address": "10.0.2.0"},
    {"mode": NAT, "host_address": "10.0.2.9"},
    {"vlan_id": 4095},
    {"dhcp": nets.DhcpServer(lease_seconds=59)},
    {"dhcp": nets.DhcpServer(first_address="10.0.2.9", last_address="10.0.2.8")},
    {"dhcp": nets.DhcpServer(domain="Lab.")},
    {"dhcp": nets.DhcpServer(dns_addresses=["10.0.0.1"] * 4)},
    {"dhcp": nets.DhcpServer(addresses_per_port=65537)},
    {"dns": nets.DnsResponder(domains=["a b"])},
    {"dns": nets.DnsResponder(upstream_addresses=["192.0.2.1:0"])},
    {"dns": nets.DnsResponder(ttl_seconds=86401)},
    {"nat": nets.NatSettings(first_port=2000)},
    {"mode": NAT, "nat": nets.NatSettings(first_port=5000, last_port=4999)},
    {"mode": NAT, "nat": nets.NatSettings(entry_limit=15)},
    {"mode": NAT, "nat": nets.NatSettings(allowed_destinations=["x"])},
    {"mode": NAT, "nat": nets.NatSettings(outside=nets.NatSettings.OUTSIDE_UPLINK)},
    {"mode": NAT, "nat": nets.NatSettings(outside=nets.NatSettings.Outside.ValueType(4))},
    {"routes": [nets.Route(destination="10.9.0.0/24", via_address="10.0.2.9")]},
    {"mode": NAT, "routes": [nets.Route(destination="10.9.0.0/24")]},
    {"mode": NAT, "routes": [nets.Route(destination="10.9.0.0/24", via_address="10.9.0.1")]},
    {"mode": NAT, "routes": [nets.Route(destination="10.9.0.0/24", network=LAN)]},
    {"mode": BRIDGE, "subnet": "", "dhcp": nets.DhcpServer()},
)


@pytest.fixture
async def bench(start: Any, device: Any) -> NetworkBench:
    """Returns a service with a switch."""
    return await NetworkBench(await start(), device).open()


class WithUplink:
    """A host whose every switch has an uplink, which carries VLAN 5."""

    def reaches(self, switch: str, uplink: str) -> bool:
        """Yes."""
        return True

    def carries(self, switch: str, vlan: int) -> bool:
        """VLAN 5."""
        return vlan == 5


async def test_a_network_lives(bench: NetworkBench) -> None:
    """Defaults are filled in, the router has an address and a port, and both go with the network."""
    made = await bench.create("lan", mode=NAT, dhcp=nets.DhcpServer(), dns=None)
    assert made == nets.Network(
        name=LAN,
        mode=NAT,
        switch=SWITCH,
        subnet="10.0.2.0/24",
        gateway_address="10.0.2.1",
        dhcp=nets.DhcpServer(lease_seconds=3600, addresses_per_port=4),
        nat=nets.NatSettings(
            outside=nets.NatSettings.OUTSIDE_SOCKETS,
            first_port=32768,
            last_port=60999,
            entry_limit=65536,
            entries_per_address=8192,
        ),
        gateway_mac_address=made.gateway_mac_address,
        port=ROUTER,
        mtu_bytes=1500,
    )
    assert made.gateway_mac_address.startswith("02:")
    port = await bench.running.ports.GetPort(pb.GetPortRequest(name=ROUTER))
    assert (port.state, port.owner, port.vlan_id) == (pb.Port.STATE_UP, "h1/vswitch", 0)
    assert await bench.networks.GetNetwork(nets.GetNetworkRequest(name=LAN)) == made
    await bench.networks.DeleteNetwork(nets.DeleteNetworkRequest(name=LAN))
    assert await refusal(bench.networks.GetNetwork(nets.GetNetworkRequest(name=LAN))) == (
        "NOT_FOUND",
        "NETWORK_UNKNOWN",
    )
    assert await refusal(bench.running.ports.GetPort(pb.GetPortRequest(name=ROUTER))) == ("NOT_FOUND", "PORT_UNKNOWN")


async def test_creating_is_idempotent_by_request(bench: NetworkBench) -> None:
    """The same request makes one network; the same id with another request, and a name that is taken, are refused."""
    network = nets.Network(mode=HOST_ONLY, switch=SWITCH, subnet="10.0.2.0/24")
    request = nets.CreateNetworkRequest(network_id="lan", network=network, request_id="one")
    assert await bench.networks.CreateNetwork(request) == await bench.networks.CreateNetwork(request)
    request.network.subnet = "10.0.3.0/24"
    assert await refusal(bench.networks.CreateNetwork(request)) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    request.request_id = ""
    assert await refusal(bench.networks.CreateNetwork(request)) == ("ALREADY_EXISTS", "NETWORK_EXISTS")


async def test_bad_fields_are_refused(bench: NetworkBench) -> None:
    """Each field out of its bounds is INVALID_ARGUMENT, and nothing is made."""
    for fields in BAD_FIELDS:
        found = await refusal(bench.create(**{"dhcp": None, "dns": None, **fields}))
        assert found == ("INVALID_ARGUMENT", "REQUEST_INVALID"), fields
    assert not (await bench.networks.ListNetworks(nets.ListNetworksRequest())).networks
    assert not (await bench.running.ports.ListPorts(pb.ListPortsRequest(parent=SWITCH))).ports


async def test_what_is_there_may_refuse_a_network(bench: NetworkBench) -> None:
    """Unknown switch, VLAN without a group, VLAN with a network, overlapping subnets, missing uplinks."""
    await bench.create()
    await bench.group("g5", 5)
    none = "hosts/h1/switches/none"
    assert await refusal(bench.create("b", switch=none)) == ("NOT_FOUND", "SWITCH_UNKNOWN")
    assert await refusal(bench.create("b", vlan_id=9)) == ("NOT_FOUND", "PORT_GROUP_UNKNOWN")
    assert await refusal(bench.create("b")) == ("ALREADY_EXISTS", "VLAN_HAS_NETWORK")
    wide = bench.create("b", vlan_id=5, subnet="10.0.0.0/16")
    assert await refusal(wide) == ("FAILED_PRECONDITION", "SUBNET_OVERLAPS")
    bare: dict[str, Any] = {"vlan_id": 5, "dhcp": None, "dns": None}
    bridge = bench.create("b", mode=BRIDGE, subnet=None, **bare)
    assert await refusal(bridge) == ("FAILED_PRECONDITION", "NO_UPLINK")
    outside = nets.NatSettings(
        outside=nets.NatSettings.OUTSIDE_UPLINK, uplink=f"{SWITCH}/uplinks/u", outside_address="192.0.2.2/24"
    )
    by_uplink = bench.create("b", mode=NAT, nat=outside, subnet="10.9.0.0/24", **bare)
    assert await refusal(by_uplink) == ("FAILED_PRECONDITION", "NO_UPLINK")
    route = nets.Route(destination="10.7.0.0/24", network="hosts/h1/networks/none")
    lost = bench.create("b", mode=NAT, routes=[route], subnet="10.9.0.0/24", **bare)
    assert await refusal(lost) == ("NOT_FOUND", "NETWORK_UNKNOWN")
    route = nets.Route(destination="10.0.2.0/24", network=LAN)
    inward = bench.create("b", mode=NAT, routes=[route], subnet="10.9.0.0/24", **bare)
    assert await refusal(inward) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


@pytest.mark.inside
async def test_a_network_in_bridge_mode_has_no_router(bench: NetworkBench) -> None:
    """It records addresses that are given, and refuses what only a router has; host-only avoids uplinks."""
    bench.running.service._networks.uplinks = WithUplink()
    await bench.group("g5", 5)
    only = bench.create("only", vlan_id=5, subnet="10.9.0.0/24")
    assert await refusal(only) == ("FAILED_PRECONDITION", "VLAN_HAS_UPLINK")
    made = await bench.create("lan", mode=BRIDGE, gateway_address="10.0.2.254", dhcp=None, dns=None)
    assert (made.gateway_mac_address, made.port, made.gateway_address) == ("", "", "10.0.2.254")
    guest = nets.AllocateAddressRequest(parent=LAN, port=f"{SWITCH}/ports/p1")
    await bench.guest(1)
    assert await refusal(bench.networks.AllocateAddress(guest)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    guest.address = "10.0.2.77"
    lease = await bench.networks.AllocateAddress(guest)
    assert (lease.address, lease.gateway_address, list(lease.dns_addresses)) == ("10.0.2.77/24", "10.0.2.254", [])
    reserve = nets.CreateReservationRequest(
        parent=LAN, reservation=nets.Reservation(mac_address="02:00:00:00:00:09", address="10.0.2.9")
    )
    names = nets.UpdateDnsRecordsRequest(parent=LAN, source="me")
    for call in (
        bench.networks.CreateReservation(reserve),
        bench.networks.UpdateDnsRecords(names),
        bench.networks.ListNeighbors(nets.ListNeighborsRequest(parent=LAN)),
    ):
        assert await refusal(call) == ("FAILED_PRECONDITION", "NETWORK_UNROUTED")
    delete = pb.DeleteSwitchRequest(name=SWITCH)
    await bench.running.ports.DeletePort(pb.DeletePortRequest(name=f"{SWITCH}/ports/p1"))
    assert await refusal(bench.running.switches.DeleteSwitch(delete)) == ("FAILED_PRECONDITION", "SWITCH_IN_USE")


@pytest.mark.inside
async def test_sockets_know_no_virtual_time(start: Any, device: Any, manual_clock: Any) -> None:
    """On a virtual clock NAT by this machine and DNS servers outside are refused; host-only is not."""
    manual_clock.mode = "virtual"
    bench = await NetworkBench(await start(), device).open()
    kernel = nets.NatSettings(outside=nets.NatSettings.OUTSIDE_KERNEL)
    assert await refusal(bench.create(mode=NAT)) == ("FAILED_PRECONDITION", "CLOCK_VIRTUAL")
    assert await refusal(bench.create(mode=NAT, nat=kernel)) == ("FAILED_PRECONDITION", "CLOCK_VIRTUAL")
    asks = nets.DnsResponder(upstream_addresses=["192.0.2.1"])
    assert await refusal(bench.create(dns=asks)) == ("FAILED_PRECONDITION", "CLOCK_VIRTUAL")
    await bench.create()


async def test_networks_are_bounded_and_listed_by_page(start: Any, device: Any) -> None:
    """The host's limit holds, and pages give every network once, ordered by name."""
    bench = await NetworkBench(await start(VswitchConfig(max_networks=3)), device).open()
    for number in (2, 3, 1):
        await bench.group(f"g{number}", number)
        await bench.create(f"n{number}", vlan_id=number, subnet=f"10.{number}.0.0/16")
    await bench.group("g4", 4)
    assert await refusal(bench.create("n4", vlan_id=4, subnet="10.4.0.0/16")) == (
        "RESOURCE_EXHAUSTED",
        "NETWORK_LIMIT",
    )
    first = await bench.networks.ListNetworks(nets.ListNetworksRequest(page_size=2))
    rest = await bench.networks.ListNetworks(nets.ListNetworksRequest(page_token=first.next_page_token))
    found = [*first.networks, *rest.networks]
    assert [network.name for network in found] == [f"hosts/h1/networks/n{number}" for number in (1, 2, 3)]
    bad = bench.networks.ListNetworks(nets.ListNetworksRequest(page_token="?"))
    assert await refusal(bad) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_settings_change_by_mask(bench: NetworkBench) -> None:
    """What is named changes, what is named and absent goes to its default, other fields are refused."""
    await bench.create(host_address="10.0.2.9")
    change = nets.UpdateNetworkRequest(network=nets.Network(name=LAN, gateway_address="10.0.2.254"))
    changed = await bench.networks.UpdateNetwork(change)
    assert (changed.gateway_address, changed.host_address) == ("10.0.2.254", "10.0.2.9")
    assert changed.HasField("dhcp") and changed.HasField("dns")
    change = nets.UpdateNetworkRequest(
        network=nets.Network(name=LAN), update_mask=FieldMask(paths=["dhcp", "host_address", "gateway_address"])
    )
    changed = await bench.networks.UpdateNetwork(change)
    assert (changed.gateway_address, changed.host_address) == ("10.0.2.1", "10.0.2.1")
    assert not changed.HasField("dhcp")
    guest = await bench.guest(1)
    guest.address = 0x0A000207
    await guest.use_router(0x0A000201)
    assert guest.router_mac.hex(":") == changed.gateway_mac_address
    kept = nets.Reservation(mac_address="02:00:00:00:00:09", address="10.0.2.9")
    await bench.networks.CreateReservation(nets.CreateReservationRequest(parent=LAN, reservation=kept))
    taken = nets.UpdateNetworkRequest(network=nets.Network(name=LAN, gateway_address="10.0.2.9"))
    assert await refusal(bench.networks.UpdateNetwork(taken)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    for path in ("subnet", "mode", "lease_count"):
        change.update_mask.paths[:] = [path]
        assert await refusal(bench.networks.UpdateNetwork(change)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    change.network.name = "hosts/h1/networks/none"
    assert await refusal(bench.networks.UpdateNetwork(change)) == ("NOT_FOUND", "NETWORK_UNKNOWN")


async def test_a_router_s_port_is_not_for_others(bench: NetworkBench) -> None:
    """It cannot be deleted, moved to a group, or attached to; its link may be switched."""
    await bench.create()
    ports, group = bench.running.ports, await bench.group("g", 3)
    delete = ports.DeletePort(pb.DeletePortRequest(name=ROUTER))
    assert await refusal(delete) == ("FAILED_PRECONDITION", "PORT_INTERNAL")
    move = ports.UpdatePort(pb.UpdatePortRequest(port=pb.Port(name=ROUTER, port_group=group)))
    assert await refusal(move) == ("FAILED_PRECONDITION", "PORT_INTERNAL")
    handle = (await ports.GetPort(pb.GetPortRequest(name=ROUTER))).handle
    attach = bench._device(ports, handle)
    assert await refusal(attach.next()) == ("FAILED_PRECONDITION", "PORT_ATTACHED")
    down = await ports.UpdatePort(pb.UpdatePortRequest(port=pb.Port(name=ROUTER, link=pb.LINK_DOWN)))
    assert down.state == pb.Port.STATE_DOWN


async def test_a_network_in_use_is_deleted_by_force_only(bench: NetworkBench) -> None:
    """Addresses that are out hold it; its switch goes with all of its networks, by force."""
    await bench.create()
    guest = await bench.guest(1)
    await guest.get_address()
    delete = nets.DeleteNetworkRequest(name=LAN)
    assert await refusal(bench.networks.DeleteNetwork(delete)) == ("FAILED_PRECONDITION", "NETWORK_IN_USE")
    await bench.networks.DeleteNetwork(nets.DeleteNetworkRequest(name=LAN, force=True))
    await bench.create()
    switch = pb.DeleteSwitchRequest(name=SWITCH, force=True)
    await bench.running.switches.DeleteSwitch(switch)
    assert not (await bench.networks.ListNetworks(nets.ListNetworksRequest())).networks
    await bench.open()
    await bench.create()


async def test_everything_outlives_a_restart(start: Any, device: Any, manual_clock: Any) -> None:
    """Network, MAC address, leases, reservations and names are back; the router answers; nothing was freed."""
    before = await NetworkBench(await start(), device).open()
    made = await before.create()
    guest = await before.guest(1)
    await guest.get_address(host_name=b"alice")
    await before.networks.CreateReservation(
        nets.CreateReservationRequest(
            parent=LAN, reservation=nets.Reservation(mac_address="02:00:00:00:00:09", address="10.0.2.9")
        )
    )
    record = nets.DnsRecord(dns_name="a.lab", type=nets.DnsRecord.TYPE_A, answers=["10.0.2.9"])
    update = nets.UpdateDnsRecordsRequest(parent=LAN, source="me", revision=4, dns_records=[record])
    await before.networks.UpdateDnsRecords(update)
    leases = await before.leases()
    await before.running.stop()
    after = NetworkBench(await start(), device)
    await manual_clock.advance(31 * SECOND_NS)
    made.lease_count = 1
    assert await after.networks.GetNetwork(nets.GetNetworkRequest(name=LAN)) == made
    assert await after.leases() == leases
    kept = await after.networks.ListReservations(nets.ListReservationsRequest(parent=LAN))
    assert [each.address for each in kept.reservations] == ["10.0.2.9"]
    assert (await after.networks.UpdateDnsRecords(update)).record_count == 1
    names = await after.networks.ListDnsRecords(nets.ListDnsRecordsRequest(parent=LAN))
    assert [(each.dns_name, each.source) for each in names.dns_records] == [
        ("2.2.0.10.in-addr.arpa", "lease"),
        ("a.lab", "me"),
        ("alice.lab", "lease"),
    ]
    again = await after.guest(2)
    again.address = 0x0A000203
    await again.use_router(0x0A000201)
    assert again.router_mac.hex(":") == made.gateway_mac_address
