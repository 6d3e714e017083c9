"""`lamina hardware disks` and `io-groups`: block devices, and who shares them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.hardware.v1.disks_pb2_grpc import DisksStub


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""
    command(verbs.add_parser("disks", help="list disks"), disks, lists=True)
    command(verbs.add_parser("io-groups", help="list the groups that share disks"), groups, lists=True)


def _disks(client: Client) -> DisksStub:
    from lamina.hardware.v1 import disks_pb2_grpc

    return client.stub("hardware", disks_pb2_grpc.DisksStub)


async def disks(client: Client, args: argparse.Namespace) -> None:
    """Lists disks."""
    from lamina.hardware.v1 import disks_pb2

    listed = await collect(_disks(client).ListDisks, disks_pb2.ListDisksRequest(), "disks")
    printing.show(
        listed,
        ("DISK", "STATE", "SIZE", "LATENCY", "RATE", "DEPTH", "CACHE", "READS", "WRITES", "FAILED", "BUSY"),
        lambda disk: (
            last(disk.name),
            word(disks_pb2.Disk.State, disk.state),
            printing.size(disk.size_bytes),
            printing.duration(disk.latency_ns),
            f"{printing.size(disk.rate_bytes_per_second)}/s" if disk.rate_bytes_per_second else "-",
            disk.queue_depth,
            "volatile" if disk.write_cache else "none",
            f"{disk.counters.reads:,}",
            f"{disk.counters.writes:,}",
            f"{disk.counters.failures:,}",
            printing.duration(disk.counters.busy_ns),
        ),
        form=args.output,
    )


async def groups(client: Client, args: argparse.Namespace) -> None:
    """Lists I/O groups, a row for each disk that they use."""
    from lamina.hardware.v1 import disks_pb2

    listed = await collect(_disks(client).ListIoGroups, disks_pb2.ListIoGroupsRequest(), "io_groups")
    if args.output == "json":
        printing.show(listed, (), lambda group: (), form="json")
        return
    rows = [(group, usage) for group in listed for usage in (group.usage or [disks_pb2.IoGroup.IoUsage()])]
    printing.table(
        ("GROUP", "PARENT", "WEIGHT", "LIMITS", "DISK", "READS", "WRITES", "WAITED", "THROTTLED"),
        [
            (
                last(group.name),
                last(group.parent) or "root",
                group.weight,
                len(group.limits) or "-",
                last(usage.disk) or "-",
                f"{usage.counters.reads:,}",
                f"{usage.counters.writes:,}",
                printing.duration(usage.counters.wait_ns),
                printing.duration(usage.throttled_ns),
            )
            for group, usage in rows
        ],
    )
