"""`lamina vswitch backends`, `plug` and `unplug`: devices, sockets and capture files at ports."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.commands.vswitch.names import port_name, switch_name
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import word

if TYPE_CHECKING:
    from lamina.vswitch.v1.backends_pb2 import Backend, FileBackend
    from lamina.vswitch.v1.backends_pb2_grpc import BackendsStub


def configure(verbs: Any) -> None:
    """Adds the verbs."""
    listing = verbs.add_parser("backends", help="list what is plugged into the ports of a switch from outside")
    listing.add_argument("switch", help="name of the switch")
    command(listing, backends, lists=True)
    plugging = verbs.add_parser("plug", help="plug a device, a socket or capture files into a port")
    plugging.add_argument("port", help="SWITCH/PORT or the full name")
    kinds = plugging.add_subparsers(metavar="KIND", dest="kind", required=True)
    tap = kinds.add_parser("tap", help="a TAP device; one that does not exist is made")
    tap.add_argument("interface", help="its name")
    tap.add_argument("--queues", type=parse.INT32, default=1, help="how many queues it has (default 1)")
    tap.add_argument("--up", action="store_true", help="bring it up")
    packet = kinds.add_parser("packet", help="an interface of this machine, by a packet socket")
    packet.add_argument("interface", help="its name")
    packet.add_argument("--promiscuous", action="store_true", help="see what is for others, too")
    datagram = kinds.add_parser("datagram", help="a datagram socket, as QEMU's -netdev dgram has it")
    datagram.add_argument("address", help="own address: unix:PATH or udp:ADDRESS:PORT")
    datagram.add_argument("--remote", default="", help="address of the peer (default: of whoever sent last)")
    datagram.add_argument("--allow-remote", action="store_true", help="allow addresses beyond this machine")
    stream = kinds.add_parser("stream", help="a stream socket, as QEMU's -netdev stream has it")
    stream.add_argument("address", help="unix:PATH or tcp:ADDRESS:PORT, to connect to")
    stream.add_argument("--listen", action="store_true", help="wait there for a peer instead")
    stream.add_argument("--allow-remote", action="store_true", help="allow addresses beyond this machine")
    file = kinds.add_parser("file", help="capture files")
    file.add_argument("--input", default="", help="file to play into the switch, pcap or pcapng")
    file.add_argument("--output", dest="file", default="", help="file to write what leaves by the port to, as pcapng")
    file.add_argument("--original-timing", action="store_true", help="keep the distances of the file's times")
    veth = kinds.add_parser("veth", help="a new interface whose other end is a port in the kernel (engine linux)")
    veth.add_argument("interface", help="its name")
    veth.add_argument("--up", action="store_true", help="bring it up")
    for sub in (tap, packet, datagram, stream, file, veth):
        command(sub, plug)
    unplugging = verbs.add_parser("unplug", help="unplug what is plugged into a port from outside, and close it")
    unplugging.add_argument("port", help="SWITCH/PORT or the full name")
    command(unplugging, unplug)


def _backends(client: Client) -> BackendsStub:
    from lamina.vswitch.v1 import backends_pb2_grpc

    return client.stub("vswitch", backends_pb2_grpc.BackendsStub)


async def backends(client: Client, args: argparse.Namespace) -> None:
    """Lists backends."""
    from lamina.vswitch.v1 import backends_pb2

    request = backends_pb2.ListBackendsRequest(parent=await switch_name(client, args.switch))
    printing.show(
        await collect(_backends(client).ListBackends, request, "backends"),
        ("PORT", "KIND", "WHERE", "STATE", "DETAIL"),
        lambda item: (
            item.name.split("/")[-2],
            item.WhichOneof("kind"),
            _place(item),
            word(backends_pb2.Backend.State, item.state),
            item.state_detail or "-",
        ),
        form=args.output,
    )


def _place(backend: Backend) -> str:
    """Returns where a backend is, as `plug` takes it."""
    kind = backend.WhichOneof("kind")
    if kind in ("tap", "packet", "veth"):
        interface: str = getattr(backend, kind).interface
        return interface
    if kind == "datagram":
        return backend.datagram.local_address
    if kind == "stream":
        return backend.stream.address
    return " ".join(path for path in (backend.file.input_path, backend.file.output_path) if path) or "-"


def _absolute(path: str) -> str:
    """Returns a path as the service needs it, which is somewhere else; empty for none."""
    return os.path.abspath(path) if path else ""


async def plug(client: Client, args: argparse.Namespace) -> None:
    """Plugs something in."""
    from lamina.vswitch.v1 import backends_pb2 as pb

    wanted = _wanted(args)
    request = pb.CreateBackendRequest(parent=await port_name(client, args.port), backend=wanted)
    backend = await _backends(client).CreateBackend(request)
    print(f"{backend.name} {_place(backend)}")


def _wanted(args: argparse.Namespace) -> Backend:
    """Returns the backend that the arguments say.

    Raises:
        InvalidArgument: `FILE_MISSING`, capture files are wanted and none is named.
    """
    from lamina.vswitch.v1 import backends_pb2 as pb

    wanted = pb.Backend()
    if args.kind == "tap":
        wanted.tap.CopyFrom(pb.TapBackend(interface=args.interface, queues=args.queues, up=args.up))
    elif args.kind == "veth":
        wanted.veth.CopyFrom(pb.VethBackend(interface=args.interface, up=args.up))
    elif args.kind == "packet":
        wanted.packet.CopyFrom(pb.PacketBackend(interface=args.interface, promiscuous=args.promiscuous))
    elif args.kind == "datagram":
        made = pb.DatagramBackend(
            local_address=args.address, remote_address=args.remote, allow_remote=args.allow_remote
        )
        wanted.datagram.CopyFrom(made)
    elif args.kind == "stream":
        wanted.stream.CopyFrom(
            pb.StreamBackend(address=args.address, listen=args.listen, allow_remote=args.allow_remote)
        )
    else:
        wanted.file.CopyFrom(_files(args))
    return wanted


def _files(args: argparse.Namespace) -> FileBackend:
    from lamina.vswitch.v1 import backends_pb2 as pb

    from lamina_kit.errors import InvalidArgument

    if not args.input and not args.file:
        raise InvalidArgument(
            "no file is named: nothing would come in, and what leaves by the port would be counted and lost",
            reason="FILE_MISSING",
            next_step="give --input FILE to play one, --output FILE to write one, or both",
        )
    return pb.FileBackend(
        input_path=_absolute(args.input), output_path=_absolute(args.file), original_timing=args.original_timing
    )


async def unplug(client: Client, args: argparse.Namespace) -> None:
    """Unplugs what is plugged in."""
    from lamina.vswitch.v1 import backends_pb2

    name = f"{await port_name(client, args.port)}/backend"
    await _backends(client).DeleteBackend(backends_pb2.DeleteBackendRequest(name=name))
    print(f"deleted {name}")
