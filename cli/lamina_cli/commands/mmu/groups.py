"""`lamina mmu`, the words that make and remove memory groups, and follow what happens to them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import first
from lamina_cli.client.resource_names import full_name
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.mmu.v1.mmu_pb2_grpc import GroupsStub


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""
    make = verbs.add_parser("make-group", help="make a memory group")
    make.add_argument("group", help="last part of its name")
    make.add_argument("--parent", default="", help="name of the group that it lies in (default: the root)")
    make.add_argument(
        "--max", type=parse.size, default=0, help="most bytes of RAM, for example 64MiB (default: no limit)"
    )
    command(make, make_group, lists=True)
    remove = verbs.add_parser("remove-group", help="remove an empty memory group")
    remove.add_argument("group", help="name of the group")
    command(remove, remove_group)
    events = verbs.add_parser("group-events", help="watch what happens to memory groups: limits, kills, pressure")
    events.add_argument("group", nargs="?", default="", help="name of a group (default: each)")
    events.add_argument("--after", type=parse.INT64, help="begin behind this event; 0: with all that are kept")
    events.add_argument("--count", type=parse.INT64, default=20, help="how many events to show (default 20)")
    events.add_argument("--pressure-ppm", type=parse.INT32, default=0, help="tell pressure from so many millionths on")
    command(events, watch, lists=True)


def _groups(client: Client) -> GroupsStub:
    from lamina.mmu.v1 import mmu_pb2_grpc

    return client.stub("mmu", mmu_pb2_grpc.GroupsStub)


async def make_group(client: Client, args: argparse.Namespace) -> None:
    """Makes a memory group."""
    from lamina.mmu.v1 import mmu_pb2

    parent = await full_name(client, "memoryGroups", args.parent) if args.parent else ""
    wanted = mmu_pb2.Group(parent=parent, max_bytes=args.max)
    made = await _groups(client).CreateGroup(mmu_pb2.CreateGroupRequest(group_id=args.group, group=wanted))
    printing.show(
        [made],
        ("GROUP", "PARENT", "MAX"),
        lambda group: (
            last(group.name),
            last(group.parent) or "root",
            printing.size(group.max_bytes) if group.max_bytes else "-",
        ),
        form=args.output,
        one=True,
    )


async def remove_group(client: Client, args: argparse.Namespace) -> None:
    """Removes an empty memory group."""
    from lamina.mmu.v1 import mmu_pb2

    name = await full_name(client, "memoryGroups", args.group)
    await _groups(client).DeleteGroup(mmu_pb2.DeleteGroupRequest(name=name))
    print(f"removed {name}")


async def watch(client: Client, args: argparse.Namespace) -> None:
    """Shows events of groups until there were enough, or the group is gone."""
    from lamina.mmu.v1 import group_events_pb2

    names = [await full_name(client, "memoryGroups", args.group)] if args.group else []
    request = group_events_pb2.WatchGroupsRequest(
        groups=names, pressure_ppm=args.pressure_ppm, after_sequence=args.after
    )
    printing.show(
        await first(_groups(client).WatchGroups(request), "events", args.count),
        ("SEQUENCE", "TIME", "GROUP", "EVENT", "USAGE", "LIMIT", "SPACES"),
        lambda event: (
            event.sequence,
            event.time_ns,
            last(event.group),
            word(group_events_pb2.GroupEventKind, event.kind),
            printing.size(event.usage_bytes),
            printing.size(event.limit_bytes) if event.limit_bytes else "-",
            " ".join(last(name) for name in event.spaces) or "-",
        ),
        form=args.output,
    )
