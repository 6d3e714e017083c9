"""`lamina mmu usage`, `attach`, `pages` and `faults`: what spaces use, where their pages are, and how they come."""

from __future__ import annotations

import argparse
import struct
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect, first
from lamina_cli.client.resource_names import full_name
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.mmu.v1.mmu_pb2_grpc import SpacesStub

PAGE = 4096
BITS = ((52, "A"), (53, "D"), (54, "RW"), (55, "locked"), (56, "shared"), (57, "huge"), (58, "COW"), (59, "pinned"))
NUMBER = (1 << 52) - 1
PLACES = ("nowhere", "swap", "ram")


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""
    usage = verbs.add_parser("usage", help="show what spaces use, as smaps_rollup and getrusage do")
    usage.add_argument("space", nargs="?", default="", help="name of a space (default: each)")
    command(usage, show_usage, lists=True)
    attach = verbs.add_parser("attach", help="make a process of the kernel a space; only with the engine linux")
    attach.add_argument("pid", type=parse.INT32, help="process, in the PID namespace of the service")
    attach.add_argument("--group", default="", help="name of a memory group to move it into (default: it stays)")
    attach.add_argument("--label", default="", help="label for people")
    command(attach, attach_process, lists=True)
    pages = verbs.add_parser("pages", help="show where the pages of a space are, as pagemap does")
    pages.add_argument("space", help="name of the space")
    pages.add_argument("address", type=parse.address, help="first address")
    pages.add_argument("count", type=parse.INT64, nargs="?", default=16, help="how many pages (default 16)")
    command(pages, show_pages, lists=True)
    faults = verbs.add_parser("faults", help="watch faults as they are resolved")
    faults.add_argument("space", nargs="?", default="", help="name of a space (default: each)")
    faults.add_argument("--count", type=parse.INT64, default=20, help="how many faults to show (default 20)")
    faults.add_argument("--sample", type=parse.INT64, default=1, help="show one fault of this many (default each)")
    command(faults, watch, lists=True)


def _stub(client: Client) -> SpacesStub:
    from lamina.mmu.v1 import mmu_pb2_grpc

    return client.stub("mmu", mmu_pb2_grpc.SpacesStub)


async def attach_process(client: Client, args: argparse.Namespace) -> None:
    """Makes a process a space, and shows it."""
    from lamina.mmu.v1 import ranges_pb2

    group = await full_name(client, "memoryGroups", args.group) if args.group else ""
    request = ranges_pb2.AttachProcessRequest(pid=args.pid, group=group, label=args.label)
    space = await _stub(client).AttachProcess(request)
    printing.show(
        [space],
        ("SPACE", "RESIDENT", "SWAPPED", "MINOR", "MAJOR", "GROUP", "LABEL"),
        lambda one: (
            last(one.name),
            one.resident_pages,
            one.swapped_pages,
            one.minor_faults,
            one.major_faults,
            last(one.group),
            one.label,
        ),
        form=args.output,
        one=True,
    )


async def show_usage(client: Client, args: argparse.Namespace) -> None:
    """Shows what spaces use."""
    from lamina.mmu.v1 import mmu_pb2, ranges_pb2

    stub = _stub(client)
    if args.space:
        names = [await full_name(client, "spaces", args.space)]
    else:
        names = [space.name for space in await collect(stub.ListSpaces, mmu_pb2.ListSpacesRequest(), "spaces")]
    found = [await stub.GetSpaceStatistics(ranges_pb2.GetSpaceStatisticsRequest(name=name)) for name in names]
    if args.output == "json":
        plain = [printing.plain(one) | {"space": name} for name, one in zip(names, found, strict=True)]
        printing.as_json(plain[0] if args.space else plain)
        return
    printing.table(
        ("SPACE", "MAPPED", "ANON", "OBJECT", "SHARED", "PSS", "SWAP", "LOCKED", "HUGE", "MINOR", "MAJOR", "AROUND"),
        (
            (
                last(name),
                printing.size(one.mapped_pages * PAGE),
                printing.size(one.anonymous_pages * PAGE),
                printing.size(one.object_pages * PAGE),
                printing.size(one.shared_pages * PAGE),
                printing.size(one.proportional_bytes),
                printing.size(one.swapped_pages * PAGE),
                printing.size(one.locked_pages * PAGE),
                printing.size(one.huge_pages * PAGE),
                one.minor_faults,
                one.major_faults,
                one.around_pages,
            )
            for name, one in zip(names, found, strict=True)
        ),
    )


async def show_pages(client: Client, args: argparse.Namespace) -> None:
    """Shows where pages are."""
    from lamina.mmu.v1 import ranges_pb2

    name = await full_name(client, "spaces", args.space)
    start = args.address // PAGE * PAGE
    request = ranges_pb2.ReadResidencyRequest(name=name, address=start, size_bytes=args.count * PAGE)
    words: list[int] = []
    async for piece in _stub(client).ReadResidency(request):
        words += struct.unpack(f"<{len(piece.pages) // 8}Q", piece.pages)
    rows = [(f"{start + index * PAGE:#x}", *page(entry)) for index, entry in enumerate(words)]
    if args.output == "json":
        keys = ("address", "place", "number", "bits")
        printing.as_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        printing.table(("ADDRESS", "PLACE", "FRAME OR SLOT", "BITS"), rows)


def page(entry: int) -> tuple[str, str, str]:
    """Returns where a page is, the number of its frame or slot, and its bits, from its word."""
    place = PLACES[min(entry >> 62, 2)]
    bits = " ".join(name for bit, name in BITS if entry >> bit & 1)
    return place, "" if place == "nowhere" else str(entry & NUMBER), bits


async def watch(client: Client, args: argparse.Namespace) -> None:
    """Shows faults until there were enough, or the space is gone."""
    from lamina.mmu.v1 import mmu_pb2

    name = await full_name(client, "spaces", args.space) if args.space else ""
    request = mmu_pb2.WatchFaultsRequest(name=name, sample=args.sample)
    printing.show(
        await first(_stub(client).WatchFaults(request), "faults", args.count),
        ("TIME", "SPACE", "ADDRESS", "OUTCOME", "NS", "STEPS"),
        lambda event: (
            event.time_ns,
            last(event.space),
            f"{event.address:#x}",
            word(mmu_pb2.FaultResponse.Outcome, event.answer.outcome),
            event.duration_ns,
            " ".join(step.step for step in event.answer.steps),
        ),
        form=args.output,
    )
