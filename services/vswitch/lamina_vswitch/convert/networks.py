"""Between the contract and the domain: networks and their settings."""

from __future__ import annotations

from dataclasses import replace

from lamina.vswitch.v1 import networks_pb2 as pb

from lamina_kit.checks import Checks, shown
from lamina_net.packets.address import Subnet, format_address, is_unicast, parse_address, parse_subnet
from lamina_vswitch.domain.definitions.switches import MAX_REQUEST_ID_BYTES, VLAN_ID
from lamina_vswitch.domain.frames.header import format_mac
from lamina_vswitch.domain.network import definition as bounds
from lamina_vswitch.domain.network.definition import (
    DhcpSettings,
    DnsSettings,
    Mode,
    NatSettings,
    NetworkDefinition,
    Outside,
    RouteDefinition,
    usable,
)
from lamina_vswitch.domain.network.dns.message import PORT as DNS_PORT
from lamina_vswitch.domain.network.dns.name import is_name
from lamina_vswitch.names import Names

MUTABLE = ("gateway_address", "host_address", "dhcp", "dns", "nat", "routes")
_MODES = (pb.Network.MODE_BRIDGE, pb.Network.MODE_NAT, pb.Network.MODE_HOST_ONLY)
_OUTSIDES = {
    pb.NatSettings.OUTSIDE_UNSPECIFIED: Outside.SOCKETS,
    pb.NatSettings.OUTSIDE_SOCKETS: Outside.SOCKETS,
    pb.NatSettings.OUTSIDE_UPLINK: Outside.UPLINK,
    pb.NatSettings.OUTSIDE_KERNEL: Outside.KERNEL,
}
_NO_SUBNET = Subnet(0, 32)


def network_definition(request: pb.CreateNetworkRequest, names: Names) -> NetworkDefinition:
    """Return the network that a request asks for, defaults filled in; MAC address and port of the router are ours."""
    wanted = request.network
    switch = names.switch(wanted.switch, "network.switch")
    with Checks() as check:
        check.identifier("network_id", request.network_id)
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID_BYTES)
        check.one_of("network.mode", wanted.mode, _MODES)
        check.range("network.vlan_id", wanted.vlan_id, *VLAN_ID)
        check.raise_violations()
        mode = Mode(wanted.mode)
        found = _subnet(check, wanted.subnet, mode)
        check.raise_violations()
    empty = NetworkDefinition(request.network_id, mode, switch, wanted.vlan_id, found)
    return _with_settings(empty, wanted, MUTABLE, names)


def changed_network(request: pb.UpdateNetworkRequest, old: NetworkDefinition, names: Names) -> NetworkDefinition:
    """Return `old` with what the request changes."""
    wanted = request.network
    given = [field.name for field, _ in wanted.ListFields() if field.name in MUTABLE]
    paths = list(request.update_mask.paths) or given
    with Checks() as check:
        for path in paths:
            check.one_of("update_mask", path, MUTABLE)
    if "gateway_address" in paths and "host_address" not in paths and old.host == old.gateway:
        paths.append("host_address")  # it was the router's by default, and stays so
        wanted = pb.Network()
        wanted.CopyFrom(request.network)
        wanted.host_address = ""
    return _with_settings(old, wanted, paths, names)


def _subnet(check: Checks, text: str, mode: Mode) -> Subnet | None:
    if not text and mode is Mode.BRIDGE:
        return None
    found = parse_subnet(text)
    if check.that(found is not None, "network.subnet", f"is {shown(text)}, not a subnet such as 10.0.2.0/24"):
        length = found.length if found is not None else 0
        check.range("network.subnet", length, *bounds.SUBNET_LENGTH)
    return found


def _with_settings(
    old: NetworkDefinition, wanted: pb.Network, paths: tuple[str, ...] | list[str], names: Names
) -> NetworkDefinition:
    """Return a network with the settings that `paths` name taken from a message; all faults are told together."""
    made = old
    with Checks() as check:
        if "gateway_address" in paths:
            made = replace(made, gateway=_gateway(check, wanted.gateway_address, made))
        if "host_address" in paths:
            made = replace(made, host=_host(check, wanted.host_address, made))
        if "dhcp" in paths:
            made = replace(made, dhcp=_dhcp(check, wanted.dhcp, made) if wanted.HasField("dhcp") else None)
        if "dns" in paths:
            made = replace(made, dns=_dns(check, wanted.dns, made) if wanted.HasField("dns") else None)
        if "nat" in paths:
            made = replace(made, nat=_nat(check, wanted, made))
        if "routes" in paths:
            made = replace(made, routes=_routes(check, wanted, made, names))
    return made


def _gateway(check: Checks, text: str, network: NetworkDefinition) -> int:
    if network.subnet is None or (not network.routed and not text):
        return _address(check, "network.gateway_address", text) if text else 0
    return _inside(check, "network.gateway_address", text, network) if text else usable(network.subnet)[0]


def _host(check: Checks, text: str, network: NetworkDefinition) -> int:
    if network.mode is not Mode.HOST_ONLY:
        check.that(not text, "network.host_address", "is of host-only networks alone")
        return 0
    return _inside(check, "network.host_address", text, network) if text else network.gateway


def _dhcp(check: Checks, wanted: pb.DhcpServer, network: NetworkDefinition) -> DhcpSettings:
    if not check.that(network.routed, "network.dhcp", "is not of bridge mode"):
        return DhcpSettings()
    first = _inside(check, "network.dhcp.first_address", wanted.first_address, network) if wanted.first_address else 0
    last = _inside(check, "network.dhcp.last_address", wanted.last_address, network) if wanted.last_address else 0
    low, high = usable(network.subnet or _NO_SUBNET)
    check.that((first or low) <= (last or high), "network.dhcp.last_address", "is below the first")
    lease_seconds = wanted.lease_seconds or bounds.DEFAULT_LEASE_SECONDS
    per_port = wanted.addresses_per_port or bounds.DEFAULT_ADDRESSES_PER_PORT
    check.range("network.dhcp.lease_seconds", lease_seconds, *bounds.LEASE_SECONDS)
    check.range("network.dhcp.addresses_per_port", per_port, *bounds.ADDRESSES_PER_PORT)
    count = len(wanted.dns_addresses)
    check.that(count <= bounds.MAX_DNS_SERVERS, "network.dhcp.dns_addresses", f"has {count}, more than 3")
    dns = tuple(_address(check, "network.dhcp.dns_addresses", each) for each in wanted.dns_addresses)
    ok = not wanted.domain or is_name(wanted.domain)
    check.that(ok, "network.dhcp.domain", f"is {shown(wanted.domain)}, not a lower-case domain name")
    return DhcpSettings(first, last, lease_seconds, dns, wanted.domain, per_port)


def _dns(check: Checks, wanted: pb.DnsResponder, network: NetworkDefinition) -> DnsSettings:
    check.that(network.routed, "network.dns", "is not of bridge mode")
    count = len(wanted.domains)
    check.that(count <= bounds.MAX_DOMAINS, "network.dns.domains", f"has {count}, more than {bounds.MAX_DOMAINS}")
    for domain in wanted.domains:
        check.that(is_name(domain), "network.dns.domains", f"has {shown(domain)}, not a lower-case domain name")
    count = len(wanted.upstream_addresses)
    check.that(count <= bounds.MAX_DNS_SERVERS, "network.dns.upstream_addresses", f"has {count}, more than 3")
    upstreams = tuple(_endpoint(check, each) for each in wanted.upstream_addresses)
    check.range("network.dns.ttl_seconds", wanted.ttl_seconds, *bounds.TTL_SECONDS)
    return DnsSettings(tuple(wanted.domains), upstreams, wanted.ttl_seconds or bounds.DEFAULT_TTL_SECONDS)


def _endpoint(check: Checks, text: str) -> tuple[int, int]:
    host, colon, port = text.partition(":")
    address = _address(check, "network.dns.upstream_addresses", host)
    number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else 0
    ok = not colon or 1 <= number <= 65535
    check.that(ok, "network.dns.upstream_addresses", f"has {shown(text)}, whose port is not within 1 to 65535")
    return address, number if colon else DNS_PORT


def _nat(check: Checks, message: pb.Network, network: NetworkDefinition) -> NatSettings:
    wanted = message.nat
    check.that(network.mode is Mode.NAT or not message.HasField("nat"), "network.nat", "is of NAT mode alone")
    check.one_of("network.nat.outside", wanted.outside, _OUTSIDES)
    uplink = wanted.outside == pb.NatSettings.OUTSIDE_UPLINK
    for field in ("uplink", "outside_address"):
        given = bool(getattr(wanted, field))
        check.that(given or not uplink, f"network.nat.{field}", "is required for an uplink outside")
    first, last = wanted.first_port or bounds.DEFAULT_FIRST_PORT, wanted.last_port or bounds.DEFAULT_LAST_PORT
    limit = wanted.entry_limit or bounds.DEFAULT_ENTRY_LIMIT
    each = wanted.entries_per_address or min(bounds.DEFAULT_ENTRIES_PER_ADDRESS, limit)
    check.range("network.nat.first_port", first, *bounds.FIRST_PORT)
    check.range("network.nat.last_port", last, first, bounds.FIRST_PORT[1])
    check.range("network.nat.entry_limit", limit, *bounds.ENTRY_LIMIT)
    check.range("network.nat.entries_per_address", each, bounds.ENTRY_LIMIT[0], limit)
    field, count = "network.nat.allowed_destinations", len(wanted.allowed_destinations)
    check.that(count <= bounds.MAX_ALLOWED_DESTINATIONS, field, f"has {count}, more than 64")
    allowed = [parse_subnet(text) for text in wanted.allowed_destinations]
    check.that(None not in allowed, field, "has what is not a subnet such as 192.0.2.0/24")
    gateway, alias = wanted.outside_gateway_address, wanted.host_alias_address
    return NatSettings(
        _OUTSIDES.get(wanted.outside, Outside.SOCKETS),
        wanted.uplink,
        wanted.outside_address,
        _address(check, "network.nat.outside_gateway_address", gateway) if gateway else 0,
        *(first, last, limit, each),
        tuple(found for found in allowed if found is not None),
        _address(check, "network.nat.host_alias_address", alias) if alias else 0,
    )


def _routes(
    check: Checks, message: pb.Network, network: NetworkDefinition, names: Names
) -> tuple[RouteDefinition, ...]:
    count, may = len(message.routes), network.mode is Mode.NAT
    check.that(may or not count, "network.routes", "may be of NAT mode alone: nothing else is reached")
    check.that(count <= bounds.MAX_ROUTES, "network.routes", f"has {count}, more than {bounds.MAX_ROUTES}")
    check.raise_violations()
    found: dict[Subnet, RouteDefinition] = {}
    for index, route in enumerate(message.routes):
        field = f"network.routes[{index}]"
        to = parse_subnet(route.destination)
        check.that(to is not None, f"{field}.destination", f"is {shown(route.destination)}, not a subnet")
        check.that(to not in found, f"{field}.destination", "has a route already")
        one = bool(route.via_address) != bool(route.network)
        check.that(one, field, "needs either via_address or network")
        via = _inside(check, f"{field}.via_address", route.via_address, network) if route.via_address else 0
        other = names.network(route.network, f"{field}.network") if route.network else ""
        check.that(other != network.network, f"{field}.network", "is the network itself")
        if to is not None:
            found[to] = RouteDefinition(to, via, other)
    return tuple(found.values())


def _inside(check: Checks, field: str, text: str, network: NetworkDefinition) -> int:
    """Return an address that a host of the subnet may have."""
    address = _address(check, field, text)
    if network.subnet is not None and address:
        low, high = usable(network.subnet)
        check.that(low <= address <= high, field, f"is {shown(text)}, not one that a host of {network.subnet} may have")
    return address


def _address(check: Checks, field: str, text: str) -> int:
    address = parse_address(text)
    check.that(address is not None and is_unicast(address), field, f"is {shown(text)}, not an address of one host")
    return address or 0


def network(
    definition: NetworkDefinition, names: tuple[str, str, str], mtu_bytes: int, leases: int, network_name: str
) -> pb.Network:
    """Return a network as a message. `names` are those of the network, its switch and its router's port.

    `network_name` is the pattern with `{}` for the id of another network, for routes.
    """
    made = pb.Network(
        name=names[0],
        mode=pb.Network.Mode.ValueType(int(definition.mode)),
        switch=names[1],
        vlan_id=definition.vlan,
        subnet=str(definition.subnet) if definition.subnet is not None else "",
        gateway_address=_text(definition.gateway),
        host_address=_text(definition.host),
        routes=[_route(route, network_name) for route in definition.routes],
        gateway_mac_address=format_mac(definition.mac) if definition.mac else "",
        port=names[2],
        mtu_bytes=mtu_bytes,
        lease_count=leases,
    )
    if definition.dhcp is not None:
        made.dhcp.CopyFrom(_dhcp_message(definition.dhcp))
    if definition.dns is not None:
        made.dns.CopyFrom(_dns_message(definition.dns))
    if definition.mode is Mode.NAT:
        made.nat.CopyFrom(_nat_message(definition.nat))
    return made


def _route(route: RouteDefinition, network_name: str) -> pb.Route:
    other = network_name.format(route.network) if route.network else ""
    return pb.Route(destination=str(route.destination), via_address=_text(route.via), network=other)


def _dhcp_message(settings: DhcpSettings) -> pb.DhcpServer:
    return pb.DhcpServer(
        first_address=_text(settings.first),
        last_address=_text(settings.last),
        lease_seconds=settings.lease_seconds,
        dns_addresses=map(format_address, settings.dns),
        domain=settings.domain,
        addresses_per_port=settings.addresses_per_port,
    )


def _dns_message(settings: DnsSettings) -> pb.DnsResponder:
    upstreams = [f"{format_address(address)}:{port}" for address, port in settings.upstreams]
    return pb.DnsResponder(domains=settings.domains, upstream_addresses=upstreams, ttl_seconds=settings.ttl_seconds)


def _nat_message(settings: NatSettings) -> pb.NatSettings:
    return pb.NatSettings(
        outside=pb.NatSettings.Outside.ValueType(int(settings.outside)),
        uplink=settings.uplink,
        outside_address=settings.outside_address,
        outside_gateway_address=_text(settings.outside_gateway),
        first_port=settings.first_port,
        last_port=settings.last_port,
        entry_limit=settings.entry_limit,
        entries_per_address=settings.entries_per_address,
        allowed_destinations=map(str, settings.allowed_destinations),
        host_alias_address=_text(settings.host_alias),
    )


def _text(address: int) -> str:
    return format_address(address) if address else ""
