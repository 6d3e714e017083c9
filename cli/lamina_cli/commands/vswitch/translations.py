"""`lamina vswitch nat`, `forwards`, `forward`, `virtual-servers`: what the routers of networks translate."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.client.resource_names import full_name
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word
from lamina_kit.checks import shown

if TYPE_CHECKING:
    from lamina.vswitch.v1.translations_pb2 import VirtualServer
    from lamina.vswitch.v1.translations_pb2_grpc import TranslationsStub


def configure(verbs: Any) -> None:
    """Adds the verbs."""
    sub = verbs.add_parser("nat", help="show the translation table of a network")
    sub.add_argument("network", help="name of the network")
    sub.add_argument("--inside", default="", metavar="ADDRESS", help="only of this address")
    command(sub, nat, lists=True)
    sub = verbs.add_parser("flush-nat", help="forget translations; connections through host sockets are reset")
    sub.add_argument("network", help="name of the network")
    sub.add_argument("--inside", default="", metavar="ADDRESS", help="only of this address")
    command(sub, flush_nat)
    sub = verbs.add_parser("forwards", help="list the forwarded ports of a network")
    sub.add_argument("network", help="name of the network")
    command(sub, forwards, lists=True)
    sub = verbs.add_parser("forward", help="forward a port of this machine to an address of a network")
    sub.add_argument("network", help="name of the network")
    sub.add_argument("forward", help="name of the forwarded port")
    sub.add_argument("inside", type=endpoint, help="where it leads: ADDRESS:PORT")
    sub.add_argument("--port", type=parse.INT32, default=0, help="port of this machine (default: a free one)")
    sub.add_argument("--address", default="", help="address of this machine (default 127.0.0.1)")
    sub.add_argument("--udp", action="store_true", help="UDP instead of TCP")
    sub.add_argument("--allow-remote", action="store_true", help="lets other machines in: any address may be given")
    command(sub, forward)
    sub = verbs.add_parser("delete-forward", help="delete a forwarded port; its connections go on")
    sub.add_argument("forward", help="NETWORK/FORWARD or the full name")
    command(sub, delete_forward)
    sub = verbs.add_parser("virtual-servers", help="list the virtual servers of a network with their backends")
    sub.add_argument("network", help="name of the network")
    command(sub, virtual_servers, lists=True)
    sub = verbs.add_parser("virtual-server", help="set a virtual server: an address whose flows go to its backends")
    _server(sub)
    sub.add_argument("backends", nargs="*", type=endpoint, metavar="ADDRESS:PORT", help="backends; without any, none")
    sub.add_argument("--affinity", type=parse.INT32, default=0, metavar="SECONDS", help="a client keeps its backend")
    sub.add_argument("--for", dest="description", default="", help="what it is for, in words")
    command(sub, set_virtual_server)
    sub = verbs.add_parser("delete-virtual-server", help="delete a virtual server that the same source has set")
    _server(sub)
    command(sub, delete_virtual_server)


def _server(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("network", help="name of the network")
    sub.add_argument("server", type=endpoint, help="its own ADDRESS:PORT")
    sub.add_argument("--udp", action="store_true", help="UDP instead of TCP")
    sub.add_argument("--source", default="cli", help="who sets it (default cli)")


def endpoint(text: str) -> tuple[str, int]:
    """Returns address and port of `10.0.2.15:80`."""
    address, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal() and len(port) <= 5):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not ADDRESS:PORT, such as 10.0.2.15:80")
    return address, int(port)


def _translations(client: Client) -> TranslationsStub:
    from lamina.vswitch.v1 import translations_pb2_grpc

    return client.stub("vswitch", translations_pb2_grpc.TranslationsStub)


async def _network_name(client: Client, network: str) -> str:
    return await full_name(client, "networks", network, "vswitch")


async def nat(client: Client, args: argparse.Namespace) -> None:
    """Shows a translation table."""
    from lamina.vswitch.v1 import translations_pb2

    parent = await _network_name(client, args.network)
    request = translations_pb2.ListNatEntriesRequest(parent=parent, inside_address=args.inside)
    printing.show(
        await collect(_translations(client).ListNatEntries, request, "nat_entries"),
        ("PROTOCOL", "INSIDE", "OUTSIDE", "PEER", "STATE", "AGE", "ENDS IN", "SENT", "RECEIVED", "VIA"),
        lambda item: (
            word(translations_pb2.Protocol, item.protocol),
            item.inside,
            item.outside,
            item.peer,
            word(translations_pb2.NatEntry.State, item.state),
            printing.duration(item.age_ns),
            printing.duration(item.expires_in_ns),
            printing.size(item.sent_bytes),
            printing.size(item.received_bytes),
            item.via or "-",
        ),
        form=args.output,
    )


async def flush_nat(client: Client, args: argparse.Namespace) -> None:
    """Forgets translations."""
    from lamina.vswitch.v1 import translations_pb2

    parent = await _network_name(client, args.network)
    request = translations_pb2.FlushNatEntriesRequest(parent=parent, inside_address=args.inside)
    done = await _translations(client).FlushNatEntries(request)
    print(f"forgot {done.flushed_entries} translations")


async def forwards(client: Client, args: argparse.Namespace) -> None:
    """Lists forwarded ports."""
    from lamina.vswitch.v1 import translations_pb2

    request = translations_pb2.ListPortForwardsRequest(parent=await _network_name(client, args.network))
    printing.show(
        await collect(_translations(client).ListPortForwards, request, "port_forwards"),
        ("FORWARD", "PROTOCOL", "OUTSIDE", "INSIDE", "REMOTE", "FLOWS"),
        lambda item: (
            last(item.name),
            word(translations_pb2.Protocol, item.protocol),
            f"{item.outside_address}:{item.outside_port}",
            f"{item.inside_address}:{item.inside_port}",
            "yes" if item.allow_remote else "no",
            item.flow_count,
        ),
        form=args.output,
    )


async def forward(client: Client, args: argparse.Namespace) -> None:
    """Forwards a port."""
    from lamina.vswitch.v1 import translations_pb2 as pb

    address, port = args.inside
    wanted = pb.PortForward(
        protocol=pb.PROTOCOL_UDP if args.udp else pb.PROTOCOL_TCP,
        outside_address=args.address,
        outside_port=args.port,
        inside_address=address,
        inside_port=port,
        allow_remote=args.allow_remote,
    )
    parent = await _network_name(client, args.network)
    request = pb.CreatePortForwardRequest(parent=parent, port_forward_id=args.forward, port_forward=wanted)
    made = await _translations(client).CreatePortForward(request)
    print(f"{made.name} {made.outside_address}:{made.outside_port}")


async def delete_forward(client: Client, args: argparse.Namespace) -> None:
    """Deletes a forwarded port."""
    from lamina.vswitch.v1 import translations_pb2

    name = await _forward_name(client, args.forward)
    await _translations(client).DeletePortForward(translations_pb2.DeletePortForwardRequest(name=name))
    print(f"deleted {name}")


async def _forward_name(client: Client, text: str) -> str:
    """Returns the name of a forwarded port given as NETWORK/FORWARD; a full name stays as it is."""
    from lamina_kit.errors import InvalidArgument

    network, slash, port_forward = text.partition("/")
    if not slash:
        raise InvalidArgument(
            f"{shown(text)} names no network",
            reason="NAME_MALFORMED",
            next_step="give NETWORK/FORWARD, for example n1/web; `lamina vswitch forwards NETWORK` lists them",
        )
    if "/" in port_forward:
        return text
    return f"{await _network_name(client, network)}/portForwards/{port_forward}"


def _wanted(args: argparse.Namespace) -> VirtualServer:
    from lamina.vswitch.v1 import translations_pb2 as pb

    address, port = args.server
    return pb.VirtualServer(address=address, port=port, protocol=pb.PROTOCOL_UDP if args.udp else pb.PROTOCOL_TCP)


async def set_virtual_server(client: Client, args: argparse.Namespace) -> None:
    """Sets a virtual server."""
    from lamina.vswitch.v1 import translations_pb2 as pb

    wanted = _wanted(args)
    wanted.affinity_seconds, wanted.description = args.affinity, args.description
    wanted.backends.extend(pb.VirtualServerBackend(address=to, port=port, weight=1) for to, port in args.backends)
    parent = await _network_name(client, args.network)
    request = pb.UpdateVirtualServersRequest(parent=parent, virtual_servers=[wanted], source=args.source)
    await _translations(client).UpdateVirtualServers(request)
    print(f"{wanted.address}:{wanted.port} has backends: {len(wanted.backends)}")


async def delete_virtual_server(client: Client, args: argparse.Namespace) -> None:
    """Deletes a virtual server."""
    from lamina.vswitch.v1 import translations_pb2 as pb

    parent = await _network_name(client, args.network)
    request = pb.UpdateVirtualServersRequest(parent=parent, removed_virtual_servers=[_wanted(args)], source=args.source)
    await _translations(client).UpdateVirtualServers(request)
    address, port = args.server
    print(f"{address}:{port} is not a virtual server of {args.source} any more")


async def virtual_servers(client: Client, args: argparse.Namespace) -> None:
    """Lists virtual servers, a line for each backend."""
    from lamina.vswitch.v1 import translations_pb2

    request = translations_pb2.ListVirtualServersRequest(parent=await _network_name(client, args.network))
    found = await collect(_translations(client).ListVirtualServers, request, "virtual_servers")
    if args.output == "json":
        printing.as_json(found)
        return
    rows = [row for item in found for row in _backend_rows(item)]
    printing.table(("SERVER", "PROTOCOL", "BACKEND", "WEIGHT", "OPEN", "FLOWS", "REFUSED", "SOURCE", "FOR"), rows)


def _backend_rows(server: Any) -> list[tuple[object, ...]]:
    from lamina.vswitch.v1 import translations_pb2

    head = (f"{server.address}:{server.port}", word(translations_pb2.Protocol, server.protocol))
    tail = (server.refused_flow_count, server.source, server.description or "-")
    if not server.backends:
        return [(*head, "-", "-", 0, server.flow_count, *tail)]
    return [
        (*head, f"{each.address}:{each.port}", each.weight, each.open_flow_count, each.flow_count, *tail)
        for each in server.backends
    ]
