"""Between the contract and the domain: overlays and remote ends."""

from __future__ import annotations

from dataclasses import replace

from lamina.vswitch.v1 import overlays_pb2 as pb

from lamina_kit.checks import Checks, shown
from lamina_net.packets.address import Subnet, format_address, is_loopback, is_unicast, parse_address, subnet
from lamina_vswitch.convert.policies import changed_paths
from lamina_vswitch.domain.definitions.switches import MAX_REQUEST_ID_BYTES, VLAN_ID
from lamina_vswitch.domain.frames.header import format_mac, is_station, parse_mac
from lamina_vswitch.domain.overlay import vxlan
from lamina_vswitch.domain.overlay.definition import SUBNET_LENGTH, OverlayDefinition, RemoteDefinition, address_id
from lamina_vswitch.domain.overlay.end import Learning, Way
from lamina_vswitch.domain.overlay.remote_ends import MAX_MACS_OF_END, RemoteEnd, RemoteMac
from lamina_vswitch.domain.uplink.definition import UPLINK_NAME
from lamina_vswitch.names import Names

MUTABLE = ("gateway_address", "no_learning", "accept_unknown_endpoints")
_NOWHERE = Subnet(0, 30)

# Requests


def overlay_definition(request: pb.CreateOverlayRequest, names: Names) -> OverlayDefinition:
    """Return the overlay that a request asks for; the MAC address of its tunnel is ours."""
    switch, wanted = names.switch(request.parent, "parent"), request.overlay
    uplink = names.of("uplink", UPLINK_NAME, wanted.uplink, "overlay.uplink")
    with Checks() as check:
        check.identifier("overlay_id", request.overlay_id)
        check.range("overlay.vni", wanted.vni, 1, vxlan.MAX_VNI)
        check.range("overlay.vlan_id", wanted.vlan_id, *VLAN_ID)
        check.range("overlay.udp_port", wanted.udp_port, 0, 65535)
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID_BYTES)
        address, inside = _local(check, wanted.local_address)
        check.raise_violations()
        gateway = _gateway(check, wanted.gateway_address, address, inside)
    way = Way(inside, gateway, wanted.udp_port or vxlan.PORT)
    learning = Learning(wanted.no_learning, wanted.accept_unknown_endpoints)
    return OverlayDefinition(switch, request.overlay_id, wanted.vni, wanted.vlan_id, uplink, address, way, learning)


def changed_overlay(request: pb.UpdateOverlayRequest, old: OverlayDefinition) -> OverlayDefinition:
    """Return an overlay with what the request changes."""
    wanted = request.overlay
    paths = changed_paths(request, wanted, MUTABLE)
    way, learning = old.way, old.learning
    if "gateway_address" in paths:
        with Checks() as check:
            way = way._replace(gateway=_gateway(check, wanted.gateway_address, old.address, way.subnet))
    if "no_learning" in paths:
        learning = replace(learning, nothing=wanted.no_learning)
    if "accept_unknown_endpoints" in paths:
        learning = replace(learning, accept_unknown=wanted.accept_unknown_endpoints)
    return replace(old, way=way, learning=learning)


def remote_definition(request: pb.CreateRemoteEndpointRequest, overlay: OverlayDefinition) -> RemoteDefinition:
    """Return the remote end that a request tells of: its addresses in order, none of them twice."""
    wanted = request.remote_endpoint
    with Checks() as check:
        address = _host(check, "remote_endpoint.address", wanted.address)
        check.that(address != overlay.address, "remote_endpoint.address", "is the overlay's own")
        count = len(wanted.mac_addresses)
        field = "remote_endpoint.mac_addresses"
        check.that(count <= MAX_MACS_OF_END, field, f"has {count} values, more than {MAX_MACS_OF_END}")
        macs = [_station(check, field, text) for text in wanted.mac_addresses[:MAX_MACS_OF_END]]
    return RemoteDefinition(address, tuple(sorted(set(macs))))


def _local(check: Checks, text: str) -> tuple[int, Subnet]:
    left, _, right = text.partition("/")
    field = "overlay.local_address"
    length = int(right) if right.isascii() and right.isdecimal() and len(right) <= 2 else -1
    wanted = f"is {shown(text)}, not an address with its length, such as 192.0.2.1/24"
    low, high = SUBNET_LENGTH
    if parse_address(left) is None or not check.that(low <= length <= high, field, wanted):
        check.that(parse_address(left) is not None, field, wanted)
        return 0, _NOWHERE
    address = _host(check, field, left)
    inside = subnet(address, length)
    check.that(address not in (inside.network, inside.broadcast), field, "is the subnet's own or its broadcast address")
    return address, inside


def _gateway(check: Checks, text: str, own: int, inside: Subnet) -> int:
    if not text:
        return 0
    field = "overlay.gateway_address"
    gateway = _host(check, field, text)
    usable = gateway in inside and gateway not in (own, inside.network, inside.broadcast)
    check.that(usable, field, f"is {shown(text)}, not another host's in {inside}")
    return gateway


def _host(check: Checks, field: str, text: str) -> int:
    address = parse_address(text)
    ok = address is not None and is_unicast(address) and not is_loopback(address)
    check.that(ok, field, f"is {shown(text)}, not the IPv4 address of a host")
    return address or 0


def _station(check: Checks, field: str, text: str) -> bytes:
    mac = parse_mac(text)
    ok = mac is not None and is_station(mac)
    check.that(ok, field, f"has {shown(text)}, which is not the address of a station, such as 02:00:00:00:00:01")
    return mac or b""


# Responses


def overlay(name: str, definition: OverlayDefinition, uplink: str, port: str, mtu_bytes: int, ends: int) -> pb.Overlay:
    """Return an overlay as a message; `ends` is how many remote ends are known."""
    way, learning = definition.way, definition.learning
    return pb.Overlay(
        name=name,
        vni=definition.vni,
        vlan_id=definition.vlan,
        uplink=uplink,
        local_address=f"{format_address(definition.address)}/{way.subnet.length}",
        gateway_address=format_address(way.gateway) if way.gateway else "",
        udp_port=way.udp_port,
        no_learning=learning.nothing,
        accept_unknown_endpoints=learning.accept_unknown,
        port=port,
        mtu_bytes=mtu_bytes,
        remote_endpoint_count=ends,
    )


def remote_endpoint(overlay_name: str, end: RemoteEnd) -> pb.RemoteEndpoint:
    """Return a remote end as a message."""
    return pb.RemoteEndpoint(
        name=f"{overlay_name}/remoteEndpoints/{address_id(end.address)}",
        address=format_address(end.address),
        configured=end.configured,
        mac_addresses=map(format_mac, end.macs),
        age_ns=end.age_ns,
        received_packets=end.received,
        sent_packets=end.sent,
    )


def remote_mac(mac: RemoteMac) -> pb.RemoteMac:
    """Return an address behind a remote end as a message."""
    return pb.RemoteMac(
        mac_address=format_mac(mac.mac),
        endpoint_address=format_address(mac.address),
        configured=mac.configured,
        age_ns=mac.age_ns,
    )
