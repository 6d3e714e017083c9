"""`lamina mmu`: spaces, page tables, frames, swap, memory groups; `commands/mmu/replay.py` has the replay of traces."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.client.resource_names import full_name
from lamina_cli.commands.mmu import groups as mmu_groups
from lamina_cli.commands.mmu import policies, replay, stores
from lamina_cli.commands.mmu import spaces as mmu_spaces
from lamina_cli.input import parse
from lamina_cli.output import printing, walks
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.mmu.v1 import mmu_pb2
    from lamina.mmu.v1.mmu_pb2_grpc import FramesStub, GroupsStub, ObjectsStub, SpacesStub


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    command(verbs.add_parser("memory", help="show frames and swap by use"), memory, lists=True)
    command(verbs.add_parser("spaces", help="list address spaces"), spaces, lists=True)
    maps = verbs.add_parser("maps", help="list the mappings of a space, as /proc/PID/maps does")
    maps.add_argument("space", help="name of the space, for example s-1 or hosts/h1/spaces/s-1")
    command(maps, mappings, lists=True)
    walk = verbs.add_parser("translate", help="explain an address of a space")
    walk.add_argument("space", help="name of the space")
    walk.add_argument("address", type=parse.address, help="virtual address")
    command(walk, translate, lists=True)
    mmu_spaces.configure(verbs)
    frame = verbs.add_parser("frame", help="show what a frame is used for")
    frame.add_argument("frame", type=parse.address, help="frame number")
    command(frame, show_frame, lists=True)
    command(verbs.add_parser("objects", help="list memory objects"), objects, lists=True)
    command(verbs.add_parser("groups", help="list memory groups"), groups, lists=True)
    limit = verbs.add_parser("limit", help="change a memory group's limit")
    limit.add_argument("group", help="name of the group")
    limit.add_argument("size", type=parse.size, help="most bytes of RAM, 0 for no limit")
    command(limit, set_limit, lists=True)
    reclaim = verbs.add_parser("reclaim", help="push pages out of RAM now")
    reclaim.add_argument("pages", type=parse.INT64, help="how many")
    whose = reclaim.add_mutually_exclusive_group()
    whose.add_argument("--group", default="", help="name of a memory group (default: the whole host)")
    whose.add_argument("--space", default="", help="name of a space, whose pages alone are pushed out")
    command(reclaim, reclaim_pages, lists=True)
    mmu_groups.configure(verbs)
    policies.configure(verbs)
    stores.configure(verbs)
    replay.configure(verbs)


def _spaces(client: Client) -> SpacesStub:
    from lamina.mmu.v1 import mmu_pb2_grpc

    return client.stub("mmu", mmu_pb2_grpc.SpacesStub)


def _objects(client: Client) -> ObjectsStub:
    from lamina.mmu.v1 import mmu_pb2_grpc

    return client.stub("mmu", mmu_pb2_grpc.ObjectsStub)


def _frames(client: Client) -> FramesStub:
    from lamina.mmu.v1 import mmu_pb2_grpc

    return client.stub("mmu", mmu_pb2_grpc.FramesStub)


def _groups(client: Client) -> GroupsStub:
    from lamina.mmu.v1 import mmu_pb2_grpc

    return client.stub("mmu", mmu_pb2_grpc.GroupsStub)


async def memory(client: Client, args: argparse.Namespace) -> None:
    """Shows the state of memory."""
    from lamina.mmu.v1 import mmu_pb2

    status = await _frames(client).GetMemory(mmu_pb2.GetMemoryRequest())
    if args.output == "json":
        printing.as_json(status)
        return
    rows = [
        ("frames", f"{status.total_frames:,}"),
        ("free", f"{status.free_frames:,}"),
        *((f"used: {word(mmu_pb2.Frame.Use, use.use)}", f"{use.frames:,}") for use in status.uses),
        ("swap slots", f"{status.swap_slots:,}"),
        ("free slots", f"{status.free_swap_slots:,}"),
        ("pages out", f"{status.swapped_out_pages:,}"),
        ("pages in", f"{status.swapped_in_pages:,}"),
        ("pages dropped clean", f"{status.dropped_pages:,}"),
        ("policy", status.policy),
    ]
    printing.table(("MEMORY", ""), rows)


async def spaces(client: Client, args: argparse.Namespace) -> None:
    """Lists address spaces."""
    from lamina.mmu.v1 import mmu_pb2

    printing.show(
        await collect(_spaces(client).ListSpaces, mmu_pb2.ListSpacesRequest(), "spaces"),
        ("SPACE", "KIND", "ROOT", "RESIDENT", "SWAPPED", "TABLES", "MINOR", "MAJOR", "COW", "GROUP", "LABEL"),
        lambda space: (
            last(space.name),
            word(mmu_pb2.Space.Kind, space.kind),
            f"{space.root_address:#x}" if space.root_address else "-",
            space.resident_pages,
            space.swapped_pages,
            space.table_frames,
            space.minor_faults,
            space.major_faults,
            space.cow_faults,
            last(space.group) or "root",
            space.label,
        ),
        form=args.output,
    )


def rights(mapping: mmu_pb2.Mapping) -> str:
    """Returns a mapping's rights as /proc/PID/maps writes them, for example `r-xp`."""
    has = mapping.protection
    letters = ("r" if has.read else "-") + ("w" if has.write else "-") + ("x" if has.execute else "-")
    return letters + ("s" if mapping.shared else "p")


async def mappings(client: Client, args: argparse.Namespace) -> None:
    """Lists the mappings of a space."""
    from lamina.mmu.v1 import mmu_pb2

    name = await full_name(client, "spaces", args.space)
    printing.show(
        await collect(_spaces(client).ListMappings, mmu_pb2.ListMappingsRequest(name=name), "mappings"),
        ("START", "END", "RIGHTS", "RESIDENT", "SWAPPED", "OBJECT", "LABEL"),
        lambda mapping: (
            f"{mapping.start:012x}",
            f"{mapping.end:012x}",
            rights(mapping),
            mapping.resident_pages,
            mapping.swapped_pages,
            last(mapping.object) or "-",
            mapping.label,
        ),
        form=args.output,
    )


async def translate(client: Client, args: argparse.Namespace) -> int:
    """Explains an address of a space."""
    from lamina.mmu.v1 import mmu_pb2

    name = await full_name(client, "spaces", args.space)
    response = await _spaces(client).Translate(mmu_pb2.TranslateRequest(name=name, address=args.address))
    if args.output == "json":
        printing.as_json(response)
    else:
        print(f"{args.address:#x} = page {response.page_number:#x}, offset {response.offset:#x}")
        if response.steps:  # the kernel's tables are its own
            walks.steps(response.steps)
        print(where(response))
    return 0 if response.residency == mmu_pb2.TranslateResponse.RESIDENCY_RAM else 1


def where(response: mmu_pb2.TranslateResponse) -> str:
    """Returns one sentence that says where a page is."""
    from lamina.mmu.v1 import mmu_pb2

    shared = ", shared copy-on-write" if response.copy_on_write else ""
    sentences = {
        mmu_pb2.TranslateResponse.RESIDENCY_RAM: (
            f"in RAM: frame {response.frame:#x}, physical address {response.physical_address:#x}{shared}"
        ),
        mmu_pb2.TranslateResponse.RESIDENCY_SWAP: f"in the swap area: slot {response.swap_slot}",
        mmu_pb2.TranslateResponse.RESIDENCY_NONE: "mapped and never touched: the first access allocates a frame",
        mmu_pb2.TranslateResponse.RESIDENCY_UNMAPPED: "not mapped: an access is a segmentation fault",
    }
    return sentences.get(response.residency, "unknown")


async def show_frame(client: Client, args: argparse.Namespace) -> None:
    """Shows a frame."""
    from lamina.mmu.v1 import mmu_pb2

    frame = await _frames(client).GetFrame(mmu_pb2.GetFrameRequest(frame=args.frame))
    printing.show(
        [frame],
        ("FRAME", "USE", "PINS", "GROUP", "MAPPED AT"),
        lambda item: (
            f"{item.frame:#x}",
            word(mmu_pb2.Frame.Use, item.use),
            item.pins,
            last(item.group) or "root",
            ", ".join(f"{last(place.space)} {place.address:#x}" for place in item.mappings) or item.owner or "-",
        ),
        form=args.output,
        one=True,
    )


async def objects(client: Client, args: argparse.Namespace) -> None:
    """Lists memory objects."""
    from lamina.mmu.v1 import mmu_pb2

    printing.show(
        await collect(_objects(client).ListObjects, mmu_pb2.ListObjectsRequest(), "objects"),
        ("OBJECT", "SIZE", "RESIDENT", "SWAPPED", "LABEL"),
        lambda item: (
            last(item.name),
            printing.size(item.size_bytes),
            item.resident_pages,
            item.swapped_pages,
            item.label,
        ),
        form=args.output,
    )


GROUP_HEADERS = ("GROUP", "PARENT", "MAX", "USAGE", "PEAK", "SWAP", "RECLAIMED", "OOM")


def group_row(group: mmu_pb2.Group) -> tuple[object, ...]:
    """Returns the cells of a memory group."""
    return (
        last(group.name),
        last(group.parent) or "root",
        printing.size(group.max_bytes) if group.max_bytes else "-",
        printing.size(group.usage_bytes),
        printing.size(group.peak_bytes),
        printing.size(group.swap_usage_bytes),
        group.reclaimed_pages,
        group.oom_events,
    )


async def groups(client: Client, args: argparse.Namespace) -> None:
    """Lists memory groups."""
    from lamina.mmu.v1 import mmu_pb2

    listed = await collect(_groups(client).ListGroups, mmu_pb2.ListGroupsRequest(), "groups")
    printing.show(listed, GROUP_HEADERS, group_row, form=args.output)


async def set_limit(client: Client, args: argparse.Namespace) -> None:
    """Changes a memory group's limit."""
    from lamina.mmu.v1 import mmu_pb2

    name = await full_name(client, "memoryGroups", args.group)
    group = await _groups(client).UpdateGroup(mmu_pb2.UpdateGroupRequest(name=name, max_bytes=args.size))
    printing.show([group], GROUP_HEADERS, group_row, form=args.output, one=True)


async def reclaim_pages(client: Client, args: argparse.Namespace) -> None:
    """Pushes pages out of RAM."""
    from lamina.mmu.v1 import mmu_pb2

    group = await full_name(client, "memoryGroups", args.group) if args.group else ""
    request = mmu_pb2.ReclaimRequest(group=group, pages=args.pages)
    if args.space:
        name = await full_name(client, "spaces", args.space)
        space = await _spaces(client).GetSpace(mmu_pb2.GetSpaceRequest(name=name))
        request.handle.CopyFrom(space.handle)
    done = await _spaces(client).Reclaim(request)
    printing.show(
        [done],
        ("RECLAIMED", "WRITTEN TO SWAP"),
        lambda item: (item.reclaimed_pages, item.written_pages),
        form=args.output,
        one=True,
    )
