"""`lamina hardware wires`, `create-wire`, `connect` …: what network interfaces are connected by."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.commands.hardware.names import on_host
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last

if TYPE_CHECKING:
    from lamina.hardware.v1.wires_pb2 import Wire
    from lamina.hardware.v1.wires_pb2_grpc import WiresStub


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""
    command(verbs.add_parser("wires", help="list wires and who is on them"), wires, lists=True)
    making = verbs.add_parser("create-wire", help="make a wire, within the stack or to the outside")
    making.add_argument("wire", help="its name")
    making.add_argument("--rate", type=parse.INT64, default=0, help="bits a second (default: no limit)")
    making.add_argument("--delay", type=parse.duration, default=0, help="time that a frame needs")
    making.add_argument("--loss", type=parse.INT32, default=0, metavar="PPM", help="frames lost of a million")
    outside = making.add_mutually_exclusive_group()
    outside.add_argument("--tap", metavar="INTERFACE", help="its other end is a TAP device of this machine")
    outside.add_argument("--packet", metavar="INTERFACE", help="its other end is an interface of this machine")
    outside.add_argument("--udp", nargs=2, metavar=("LOCAL", "REMOTE"), help="UDP datagrams between two ADDRESS:PORT")
    outside.add_argument("--unix", nargs=2, metavar=("LOCAL", "REMOTE"), help="datagrams between two UNIX sockets")
    command(making, create)
    deleting = verbs.add_parser("delete-wire", help="delete a wire; who is on it loses the link")
    deleting.add_argument("wire", help="its name")
    command(deleting, delete)
    connecting = verbs.add_parser("connect", help="put a network interface on a wire")
    connecting.add_argument("nic", help="its name, for example nic0")
    connecting.add_argument("wire", help="name of the wire")
    command(connecting, connect)
    disconnecting = verbs.add_parser("disconnect", help="take a network interface off its wire")
    disconnecting.add_argument("nic", help="its name")
    command(disconnecting, disconnect)


def _wires(client: Client) -> WiresStub:
    from lamina.hardware.v1 import wires_pb2_grpc

    return client.stub("hardware", wires_pb2_grpc.WiresStub)


async def wires(client: Client, args: argparse.Namespace) -> None:
    """Lists wires."""
    from lamina.hardware.v1 import wires_pb2

    listed = await collect(_wires(client).ListWires, wires_pb2.ListWiresRequest(), "wires")
    printing.show(
        listed,
        ("WIRE", "MEDIUM", "RATE", "DELAY", "LOSS", "CUT", "NICS", "FRAMES", "LOST"),
        lambda wire: (
            last(wire.name),
            wire.WhichOneof("medium"),
            f"{wire.rate_bits_per_second:,} bit/s" if wire.rate_bits_per_second else "-",
            printing.duration(wire.delay_ns),
            f"{wire.loss_ppm} ppm" if wire.loss_ppm else "-",
            "yes" if wire.cut else "no",
            " ".join(last(nic) for nic in wire.nics) or "-",
            f"{wire.frames:,}",
            f"{wire.lost_frames:,}",
        ),
        form=args.output,
    )


def _wanted(args: argparse.Namespace) -> Wire:
    """Returns the wire that was asked for."""
    from lamina.hardware.v1 import wires_pb2 as pb

    wire = pb.Wire(rate_bits_per_second=args.rate, delay_ns=args.delay, loss_ppm=args.loss)
    if args.tap is not None:
        wire.tap.CopyFrom(pb.TapMedium(interface=args.tap))
    elif args.packet is not None:
        wire.packet.CopyFrom(pb.PacketMedium(interface=args.packet))
    elif args.udp is not None:
        wire.udp.CopyFrom(pb.UdpMedium(local=args.udp[0], remote=args.udp[1]))
    elif args.unix is not None:
        local, remote = (os.path.abspath(path) for path in args.unix)  # the service is somewhere else
        wire.unix.CopyFrom(pb.UnixMedium(local=local, remote=remote))
    return wire


async def create(client: Client, args: argparse.Namespace) -> None:
    """Makes a wire."""
    from lamina.hardware.v1 import wires_pb2

    wire = await _wires(client).CreateWire(wires_pb2.CreateWireRequest(wire_id=args.wire, wire=_wanted(args)))
    print(wire.name)


async def delete(client: Client, args: argparse.Namespace) -> None:
    """Deletes a wire."""
    from lamina.hardware.v1 import wires_pb2

    name = await on_host(client, "wires", args.wire)
    await _wires(client).DeleteWire(wires_pb2.DeleteWireRequest(name=name))
    print(f"deleted {name}")


async def connect(client: Client, args: argparse.Namespace) -> None:
    """Puts a network interface on a wire."""
    from lamina.hardware.v1 import wires_pb2

    nic, wire = await on_host(client, "nics", args.nic), await on_host(client, "wires", args.wire)
    await _wires(client).ConnectNic(wires_pb2.ConnectNicRequest(nic=nic, wire=wire))
    print(f"{nic} is on {last(wire)}")


async def disconnect(client: Client, args: argparse.Namespace) -> None:
    """Takes a network interface off its wire."""
    from lamina.hardware.v1 import wires_pb2

    nic = await on_host(client, "nics", args.nic)
    await _wires(client).DisconnectNic(wires_pb2.DisconnectNicRequest(nic=nic))
    print(f"{nic} is on no wire")
