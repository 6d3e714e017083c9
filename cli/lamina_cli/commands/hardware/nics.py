"""`lamina hardware nics`, `queues`: network interfaces and their rings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.commands.hardware.names import on_host
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.hardware.v1.nics_pb2_grpc import NicsStub


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""
    command(verbs.add_parser("nics", help="list network interfaces and what they dropped"), nics, lists=True)
    rings = verbs.add_parser("queues", help="list the rings of a network interface")
    rings.add_argument("nic", help="its name, for example nic0")
    command(rings, queues, lists=True)


def _nics(client: Client) -> NicsStub:
    from lamina.hardware.v1 import nics_pb2_grpc

    return client.stub("hardware", nics_pb2_grpc.NicsStub)


async def nics(client: Client, args: argparse.Namespace) -> None:
    """Lists network interfaces."""
    from lamina.hardware.v1 import nics_pb2

    listed = await collect(_nics(client).ListNics, nics_pb2.ListNicsRequest(), "nics")
    if args.output == "json":
        printing.show(listed, (), lambda nic: (), form="json")
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
    printing.table(("NIC", "ADDRESS", "LINK", "WIRE", "MTU", "RECEIVED", "SENT", "DROPPED"), rows)


async def queues(client: Client, args: argparse.Namespace) -> None:
    """Lists rings."""
    from lamina.hardware.v1 import nics_pb2

    name = await on_host(client, "nics", args.nic)
    response = await _nics(client).ListQueues(nics_pb2.ListQueuesRequest(nic=name))
    printing.show(
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
            printing.duration(queue.moderation_ns),
            queue.stop_reason or "-",
        ),
        form=args.output,
    )
