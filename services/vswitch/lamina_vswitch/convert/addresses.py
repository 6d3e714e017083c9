"""Between the contract and the domain: leases, reservations, DNS records and neighbours of networks."""

from __future__ import annotations

import ipaddress

from lamina.vswitch.v1 import networks_pb2 as pb

from lamina_kit.checks import Checks, shown
from lamina_net.ip.neighbours import Neighbour, NeighbourState
from lamina_net.packets.address import format_address, parse_address
from lamina_vswitch.domain.frames.header import format_mac, is_station, parse_mac
from lamina_vswitch.domain.network import definition as bounds
from lamina_vswitch.domain.network.definition import RECORDS_SOURCE_OF_LEASES, Reservation
from lamina_vswitch.domain.network.dhcp.lease import Lease
from lamina_vswitch.domain.network.dns.message import Type
from lamina_vswitch.domain.network.dns.name import REVERSE_ZONE, is_label, is_name
from lamina_vswitch.domain.network.dns.zone import RecordSet
from lamina_vswitch.names import Names
from lamina_vswitch.networks.addresses import AllocationRequest
from lamina_vswitch.networks.records import RecordsUpdate
from lamina_vswitch.networks.state import NetworkState

_TYPES = {
    pb.DnsRecord.TYPE_A: Type.A,
    pb.DnsRecord.TYPE_AAAA: Type.AAAA,
    pb.DnsRecord.TYPE_CNAME: Type.CNAME,
    pb.DnsRecord.TYPE_SRV: Type.SRV,
    pb.DnsRecord.TYPE_PTR: Type.PTR,
}
_TYPE_MESSAGES = {kind: message for message, kind in _TYPES.items()}
_STATES = {
    NeighbourState.INCOMPLETE: pb.Neighbor.STATE_INCOMPLETE,
    NeighbourState.REACHABLE: pb.Neighbor.STATE_REACHABLE,
    NeighbourState.STALE: pb.Neighbor.STATE_STALE,
    NeighbourState.FAILED: pb.Neighbor.STATE_FAILED,
}

# Requests


def allocation(request: pb.AllocateAddressRequest, names: Names) -> AllocationRequest:
    """Return what AllocateAddress asks for."""
    network = names.network(request.parent, "parent")
    switch, port = names.port(request.port, "port")
    with Checks() as check:
        address = ipv4_address(check, "address", request.address) if request.address else 0
        mac = _mac(check, "mac_address", request.mac_address) if request.mac_address else b""
        _check_label(check, "host_name", request.host_name)
    return AllocationRequest(network, switch, port, address, mac, request.host_name)


def bridge_needs_address(wanted: AllocationRequest, routed: bool) -> None:
    """Refuse an allocation without an address in a network that gives none."""
    with Checks() as check:
        check.that(routed or wanted.address != 0, "address", "is empty, and a network in bridge mode gives none")


def reservation(message: pb.Reservation) -> Reservation:
    """Return the reservation that a message asks for."""
    with Checks() as check:
        mac = _mac(check, "reservation.mac_address", message.mac_address)
        address = ipv4_address(check, "reservation.address", message.address)
        _check_label(check, "reservation.host_name", message.host_name)
    return Reservation(mac, address, message.host_name)


def records_update(request: pb.UpdateDnsRecordsRequest, names: Names) -> RecordsUpdate:
    """Return the change of names that a request asks for."""
    network = names.network(request.parent, "parent")
    with Checks() as check:
        check.identifier("source", request.source)
        check.that(request.source != RECORDS_SOURCE_OF_LEASES, "source", "is what names of leases have")
        check.that(request.revision >= 0, "revision", f"is {request.revision}, below 0")
        count = len(request.dns_records)
        check.that(count <= bounds.MAX_UPDATED_RECORDS, "dns_records", f"has {count} sets, more than 1000")
        check.raise_violations()
        sets = [
            _record_set(check, f"dns_records[{index}]", each, request.source)
            for index, each in enumerate(request.dns_records)
        ]
    return RecordsUpdate(network, sets, request.source, request.revision, request.replace_all)


def _record_set(check: Checks, field: str, message: pb.DnsRecord, source: str) -> RecordSet:
    name = message.dns_name
    check.that(is_name(name, wildcard=True), f"{field}.dns_name", f"is {shown(name)}, not a lower-case name")
    check.one_of(f"{field}.type", message.type, tuple(_TYPES))
    kind = _TYPES.get(message.type, Type.A)
    count, most = len(message.answers), 1 if kind is Type.CNAME else bounds.MAX_ANSWERS
    check.that(count <= most, f"{field}.answers", f"has {count}, more than {most}")
    check.range(f"{field}.ttl_seconds", message.ttl_seconds, *bounds.TTL_SECONDS)
    if kind is Type.PTR:
        ok = name.endswith(f".{REVERSE_ZONE}")
        check.that(ok, f"{field}.dns_name", f"is {shown(name)}, not under {REVERSE_ZONE}")
    for answer in message.answers[:most]:
        check.that(_fits(kind, answer), f"{field}.answers", f"has {shown(answer)}, no answer of type {kind.name}")
    return RecordSet(name, kind, tuple(_plain(kind, each) for each in message.answers), message.ttl_seconds, source)


def _fits(kind: Type, answer: str) -> bool:
    if kind is Type.A:
        return parse_address(answer) is not None
    if kind is Type.AAAA:
        return _ipv6(answer) is not None
    if kind is not Type.SRV:
        return is_name(answer)
    *numbers, target = answer.split(" ")
    fit = all(each.isascii() and each.isdecimal() and len(each) <= 5 and int(each) <= 65535 for each in numbers)
    return len(numbers) == 3 and fit and is_name(target)


def _plain(kind: Type, answer: str) -> str:
    address = _ipv6(answer) if kind is Type.AAAA else None
    return str(address) if address is not None else answer


def _ipv6(text: str) -> ipaddress.IPv6Address | None:
    try:
        return ipaddress.IPv6Address(text) if "%" not in text else None
    except ValueError:
        return None


def _check_label(check: Checks, field: str, text: str) -> None:
    check.that(not text or is_label(text), field, f"is {shown(text)}, not a DNS label in lower case")


def ipv4_address(check: Checks, field: str, text: str) -> int:
    """Return the address that a field has, 0 with a complaint where it has none."""
    address = parse_address(text)
    check.that(address is not None, field, f"is {shown(text)}, not an address such as 10.0.2.15")
    return address or 0


def _mac(check: Checks, field: str, text: str) -> bytes:
    mac = parse_mac(text)
    ok = mac is not None and is_station(mac)
    check.that(ok, field, f"is {shown(text)}, not an address of one device such as 02:00:00:00:00:01")
    return mac or b""


# Responses


def lease(name: str, found: Lease, state: NetworkState, port: str) -> pb.Lease:
    """Return a lease as a message; `port` is the name of its port, or empty."""
    definition = state.definition
    address = format_address(found.address)
    return pb.Lease(
        name=name,
        address=f"{address}/{definition.subnet.length}" if definition.subnet is not None else f"{address}/32",
        mac_address=format_mac(found.mac) if found.mac else "",
        port=port,
        host_name=found.host_name,
        origin=pb.Lease.Origin.ValueType(int(found.origin)),
        end_time_ns=found.end_ns,
        gateway_address=format_address(definition.gateway) if definition.gateway else "",
        dns_addresses=map(format_address, state.dns_addresses),
        mtu_bytes=state.mtu_bytes,
    )


def reservation_message(name: str, found: Reservation) -> pb.Reservation:
    """Return a reservation as a message."""
    return pb.Reservation(
        name=name,
        mac_address=format_mac(found.mac),
        address=format_address(found.address),
        host_name=found.host_name,
    )


def record(found: RecordSet) -> pb.DnsRecord:
    """Return a set of records as a message."""
    return pb.DnsRecord(
        dns_name=found.name,
        type=_TYPE_MESSAGES[found.type],
        answers=found.answers,
        ttl_seconds=found.ttl,
        source=found.source,
    )


def record_key(found: RecordSet) -> str:
    """Return a text by which sets sort as they are listed, and that fits a page token."""
    return f"{found.name.encode().hex()}-{int(found.type):05d}"


def neighbor(found: Neighbour) -> pb.Neighbor:
    """Return a neighbour as a message."""
    return pb.Neighbor(
        address=format_address(found.address),
        mac_address=format_mac(found.mac) if found.mac else "",
        state=_STATES[found.state],
        age_ns=found.age_ns,
    )
