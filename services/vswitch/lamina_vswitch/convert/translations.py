"""Between the contract and the domain: translations, forwarded ports and virtual servers."""

from __future__ import annotations

from collections import Counter

from lamina.vswitch.v1 import translations_pb2 as pb

from lamina_kit.checks import Checks
from lamina_net.packets.address import LOOPBACK, format_address, is_unicast
from lamina_vswitch.convert.addresses import ipv4_address
from lamina_vswitch.domain.definitions.switches import MAX_REQUEST_ID_BYTES
from lamina_vswitch.domain.nat.flows.entry import Endpoint, Entry
from lamina_vswitch.domain.nat.flows.forwards import Forward, ForwardDefinition
from lamina_vswitch.domain.nat.packets.packet import ICMP, TCP, UDP
from lamina_vswitch.domain.nat.servers.book import ServerChange
from lamina_vswitch.domain.nat.servers.definition import Backend, Server, ServerDefinition, ServerKey
from lamina_vswitch.names import Names

PORT = (1, 65535)
WEIGHT = (0, 1000)
AFFINITY_SECONDS = (0, 86_400)
MAX_SERVERS_A_CALL = 1000
MAX_BACKENDS_A_SERVER = 1000
MAX_DESCRIPTION = 253

_PROTOCOLS = {pb.PROTOCOL_TCP: TCP, pb.PROTOCOL_UDP: UDP, pb.PROTOCOL_ICMP: ICMP}
_MESSAGES = {number: message for message, number in _PROTOCOLS.items()}
_WITH_PORTS = (pb.PROTOCOL_TCP, pb.PROTOCOL_UDP)

# Requests


def entries_wanted(inside_address: str, protocol: pb.Protocol.ValueType) -> tuple[int | None, int | None]:
    """Return address and protocol number of the entries that a request names; None: all."""
    with Checks() as check:
        inside = ipv4_address(check, "inside_address", inside_address) if inside_address else None
        check.one_of("protocol", protocol, (pb.PROTOCOL_UNSPECIFIED, *_PROTOCOLS))
    return inside, _PROTOCOLS.get(protocol)


def forward_definition(request: pb.CreatePortForwardRequest, names: Names) -> ForwardDefinition:
    """Return the forwarded port that a request asks for; its port outside may be 0 still."""
    wanted = request.port_forward
    network = names.network(request.parent, "parent")
    with Checks() as check:
        check.identifier("port_forward_id", request.port_forward_id)
        protocol = _protocol(check, "port_forward.protocol", wanted.protocol)
        outside = LOOPBACK
        if wanted.outside_address:
            outside = ipv4_address(check, "port_forward.outside_address", wanted.outside_address)
        check.range("port_forward.outside_port", wanted.outside_port, 0, 65535)
        inside = _host(check, "port_forward.inside_address", wanted.inside_address)
        check.range("port_forward.inside_port", wanted.inside_port, *PORT)
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID_BYTES)
    return ForwardDefinition(
        network, request.port_forward_id, protocol, (outside, wanted.outside_port), (inside, wanted.inside_port),
        wanted.allow_remote,
    )  # fmt: skip


def server_change(request: pb.UpdateVirtualServersRequest) -> ServerChange:
    """Return the change of virtual servers that a request asks for."""
    with Checks() as check:
        check.identifier("source", request.source)
        check.that(request.revision >= 0, "revision", f"is {request.revision}, below 0")
        for field in ("virtual_servers", "removed_virtual_servers"):
            count = len(getattr(request, field))
            check.that(count <= MAX_SERVERS_A_CALL, field, f"has {count} servers, more than {MAX_SERVERS_A_CALL}")
        check.raise_violations()
        wanted = [
            _server(check, f"virtual_servers[{place}]", each, request.source)
            for place, each in enumerate(request.virtual_servers)
        ]
        removed = [
            _server_key(check, f"removed_virtual_servers[{place}]", each)
            for place, each in enumerate(request.removed_virtual_servers)
        ]
        check.raise_violations()
        for (address, _, port), count in Counter([*(each.key for each in wanted), *dict.fromkeys(removed)]).items():
            name = f"{format_address(address)}:{port}"
            check.that(count == 1, "virtual_servers", f"names {name} twice, or removes it as well")
    return ServerChange(
        request.source, request.revision, tuple(wanted), tuple(dict.fromkeys(removed)), request.replace_all,
        request.reset_removed,
    )  # fmt: skip


def _server(check: Checks, field: str, message: pb.VirtualServer, source: str) -> ServerDefinition:
    address, protocol, port = _server_key(check, field, message)
    count = len(message.backends)
    few = check.that(
        count <= MAX_BACKENDS_A_SERVER, f"{field}.backends", f"has {count}, more than {MAX_BACKENDS_A_SERVER}"
    )
    backends = [
        _backend(check, f"{field}.backends[{place}]", each)
        for place, each in enumerate(message.backends if few else ())
    ]
    places = {each.endpoint for each in backends}
    check.that(len(places) == len(backends), f"{field}.backends", "names one backend twice")
    check.range(f"{field}.affinity_seconds", message.affinity_seconds, *AFFINITY_SECONDS)
    size = len(message.description)
    check.that(size <= MAX_DESCRIPTION, f"{field}.description", f"has {size} characters, more than {MAX_DESCRIPTION}")
    return ServerDefinition(
        address, protocol, port, tuple(backends), message.affinity_seconds, message.description, source
    )


def _server_key(check: Checks, field: str, message: pb.VirtualServer) -> ServerKey:
    address = _host(check, f"{field}.address", message.address)
    protocol = _protocol(check, f"{field}.protocol", message.protocol)
    check.range(f"{field}.port", message.port, *PORT)
    return address, protocol, message.port


def _backend(check: Checks, field: str, message: pb.VirtualServerBackend) -> Backend:
    address = _host(check, f"{field}.address", message.address)
    check.range(f"{field}.port", message.port, *PORT)
    check.range(f"{field}.weight", message.weight, *WEIGHT)
    return Backend(address, message.port, message.weight)


def _protocol(check: Checks, field: str, protocol: pb.Protocol.ValueType) -> int:
    ok = check.that(protocol in _WITH_PORTS, field, "is neither TCP nor UDP")
    return _PROTOCOLS[protocol] if ok else TCP


def _host(check: Checks, field: str, text: str) -> int:
    """Return an address that one host can have."""
    address = ipv4_address(check, field, text)
    if address:
        check.that(is_unicast(address), field, f"is {text}, which is not one host's")
    return address


# Responses


def nat_entry(entry: Entry, now_ns: int) -> pb.NatEntry:
    """Return an entry as a message."""
    return pb.NatEntry(
        protocol=_MESSAGES[entry.protocol],
        inside=endpoint(entry.inside),
        outside=endpoint(entry.outside),
        peer=endpoint(entry.peer),
        state=pb.NatEntry.State.ValueType(int(entry.track.state)),
        age_ns=now_ns - entry.began_ns,
        expires_in_ns=entry.ends_ns - now_ns,
        sent_packets=entry.sent.packets,
        sent_bytes=entry.sent.octets,
        received_packets=entry.received.packets,
        received_bytes=entry.received.octets,
        via=endpoint(entry.via) if entry.via else "",
    )


def nat_entry_key(entry: Entry) -> str:
    """Return a text by which entries sort as they are listed."""
    ends = "-".join(f"{address:08x}-{port:05d}" for address, port in (entry.inside, entry.dialled, entry.outside))
    return f"{_MESSAGES[entry.protocol]:d}-{ends}"


def port_forward(name: str, forward: Forward) -> pb.PortForward:
    """Return a forwarded port as a message."""
    wanted = forward.definition
    return pb.PortForward(
        name=name,
        protocol=_MESSAGES[wanted.protocol],
        outside_address=format_address(wanted.outside[0]),
        outside_port=wanted.outside[1],
        inside_address=format_address(wanted.inside[0]),
        inside_port=wanted.inside[1],
        allow_remote=wanted.allow_remote,
        flow_count=forward.flows,
    )


def virtual_server(server: Server, open_flows: Counter[tuple[ServerKey, Endpoint]]) -> pb.VirtualServer:
    """Return a virtual server as a message."""
    wanted = server.definition
    backends = [
        pb.VirtualServerBackend(
            address=format_address(each.address),
            port=each.port,
            weight=each.weight,
            open_flow_count=open_flows[wanted.key, each.endpoint],
            flow_count=server.flows_of.get(each.endpoint, 0),
        )
        for each in wanted.backends
    ]
    return pb.VirtualServer(
        address=format_address(wanted.address),
        protocol=_MESSAGES[wanted.protocol],
        port=wanted.port,
        backends=backends,
        affinity_seconds=wanted.affinity_seconds,
        description=wanted.description,
        source=wanted.source,
        flow_count=server.flows,
        refused_flow_count=server.refused,
    )


def virtual_server_key(server: Server) -> str:
    """Return a text by which virtual servers sort as they are listed."""
    address, protocol, port = server.definition.key
    return f"{address:08x}-{protocol:03d}-{port:05d}"


def endpoint(place: Endpoint) -> str:
    """Return `ADDRESS:PORT`."""
    return f"{format_address(place[0])}:{place[1]}"
