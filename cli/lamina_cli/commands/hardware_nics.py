"""`lamina hardware nics`, `queues`, `wires`: network interfaces, their rings, and what connects them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli import output
from lamina_cli.client import Client, command
from lamina_cli.paging import collect
from lamina_cli.words import last, word

if TYPE_CHECKING:
    from lamina.hardware.v1.nics_pb2_grpc import NicsStub
    from lamina.hardware.v1.wires_pb2_grpc import WiresStub


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""
    command(verbs.add_parser("nics", help="list network interfaces and what they dropped"), nics, lists=True)
    rings = verbs.add_parser("queues", help="list the rings of a network interface")
    rings.add_argument("nic", help="its name, for example nic0")
    command(rings, queues, lists=True)
    command(verbs.add_parser("wires", help="list wires and who is on them"), wires, lists=True)


def _nics(client: Client) -> NicsStub:
    from lamina.hardware.v1 import nics_pb2_grpc

    return client.stub("hardware", nics_pb2_grpc.NicsStub)


def _wires(client: Client) -> WiresStub:
    from lamina.hardware.v1 import wires_pb2_grpc

    return client.stub("hardware", wires_pb2_grpc.WiresStub)


async def nics(client: Client, args: argparse.Namespace) -> None:
    """Lists network interfaces."""
    from lamina.hardware.v1 import nics_pb2

    listed = await collect(_nics(client).ListNics, nics_pb2.ListNicsRequest(), "nics")
    if args.output == "json":
        output.show(listed, (), lambda nic: (), form="json")
        return
    rows = []
    for nic in listed:
        counters = await _nics(client).GetNicCounters(nics_pb2.GetNicCountersRequest(nic=nic.name))
        rows.append(
            (
                last(nic.name),
                nic.mac_address,
                word(nics_pb2.Nic.LinkState, nic.link),
                last(nic.wire) or "-",
                nic.mtu_bytes,
                f"{counters.received_frames:,}",
                f"{counters.sent_frames:,}",
                " ".join(f"{word(nics_pb2.NicDropReason, drop.reason)}:{drop.count}" for drop in counters.drops) or "-",
            )
        )
    output.table(("NIC", "ADDRESS", "LINK", "WIRE", "MTU", "RECEIVED", "SENT", "DROPPED"), rows)


async def queues(client: Client, args: argparse.Namespace) -> None:
    """Lists rings."""
    from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc, nics_pb2

    name = args.nic
    if "/" not in name:
        host = await client.stub("hardware", hardware_pb2_grpc.HostsStub).GetHost(hardware_pb2.GetHostRequest())
        name = f"{host.name}/nics/{name}"
    response = await _nics(client).ListQueues(nics_pb2.ListQueuesRequest(nic=name))
    output.show(
        response.queues,
        ("QUEUE", "KIND", "RING", "DESCRIPTORS", "HEAD", "TAIL", "VECTOR", "MODERATION", "STOPPED"),
        lambda queue: (
            queue.number,
            "transmit" if queue.number % 2 else "receive",
            f"{queue.ring_iova:#x}",
            queue.descriptors,
            queue.head,
            queue.tail,
            queue.vector,
            output.duration(queue.moderation_ns),
            queue.stop_reason or "-",
        ),
        form=args.output,
    )


async def wires(client: Client, args: argparse.Namespace) -> None:
    """Lists wires."""
    from lamina.hardware.v1 import wires_pb2

    listed = await collect(_wires(client).ListWires, wires_pb2.ListWiresRequest(), "wires")
    output.show(
        listed,
        ("WIRE", "MEDIUM", "RATE", "DELAY", "LOSS", "CUT", "NICS", "FRAMES", "LOST"),
        lambda wire: (
            last(wire.name),
            wire.WhichOneof("medium"),
            f"{wire.rate_bits_per_second:,} bit/s" if wire.rate_bits_per_second else "-",
            output.duration(wire.delay_ns),
            f"{wire.loss_ppm} ppm" if wire.loss_ppm else "-",
            "yes" if wire.cut else "no",
            " ".join(last(nic) for nic in wire.nics) or "-",
            f"{wire.frames:,}",
            f"{wire.lost_frames:,}",
        ),
        form=args.output,
    )
