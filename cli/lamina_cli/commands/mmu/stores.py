"""`lamina mmu`, the words about its stores: frames in bulk, swap areas, the content of objects."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.client.resource_names import full_name
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.mmu.v1 import swap_pb2
    from lamina.mmu.v1.mmu_pb2_grpc import FramesStub
    from lamina.mmu.v1.swap_pb2_grpc import SwapStub


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""

    def named(call: Any, collection: str) -> Any:
        async def run(client: Client, args: argparse.Namespace) -> Any:
            args.name = await full_name(client, collection, args.name)
            return await call(client, args)

        return run

    command(verbs.add_parser("frames", help="list frames in use"), frames, lists=True)
    command(verbs.add_parser("fragmentation", help="show how free memory is cut up"), fragmentation, lists=True)
    compact = verbs.add_parser("compact", help="move pages together until huge blocks are free")
    compact.add_argument("blocks", type=parse.INT64, help="how many 2 MiB blocks")
    command(compact, compact_frames, lists=True)
    offline = verbs.add_parser("offline", help="take frames out of use whose memory fails")
    offline.add_argument("frames", type=parse.address, nargs="+", help="frame numbers")
    offline.add_argument("--lost", action="store_true", help="their bytes are lost already")
    command(offline, offline_frames, lists=True)
    command(verbs.add_parser("swap", help="list swap areas"), areas, lists=True)
    swapon = verbs.add_parser("swapon", help="make a swap area and take it into use")
    swapon.add_argument("name", help="name of the area")
    swapon.add_argument("size", type=parse.size, help="size, for example 1GiB")
    swapon.add_argument("--priority", type=parse.INT64, default=0, help="higher is used first (default: 0)")
    swapon.add_argument("--disk", default="", help="disk of the machine that holds it (default: a file)")

    async def swap_on(client: Client, args: argparse.Namespace) -> None:
        args.disk = await full_name(client, "disks", args.disk) if args.disk else ""
        await make_area(client, args)

    swap_on.__doc__ = make_area.__doc__
    command(swapon, swap_on, lists=True)
    for verb, call, text in (
        ("swapoff", swapoff, "take a swap area out of use: its pages go to RAM or to other areas"),
        ("swap-slots", slots, "list the slots in use of a swap area"),
        ("swap-check", check, "compare a swap area with its checksums"),
    ):
        parser = verbs.add_parser(verb, help=text)
        parser.add_argument("name", help="name of the area")
        command(parser, named(call, "swapAreas"), lists=True)
    settings = verbs.add_parser("swap-settings", help="show the settings of swapping and reclaim, or change some")
    settings.add_argument("--policy", help="replacement policy of groups that name none")
    for option, kind, text in (
        ("swappiness", parse.INT32, "preference of anonymous pages to pages of objects, 0 to 200"),
        ("readahead-pages", parse.INT32, "pages read around a slot that is needed: 1, 2, 4, … 64"),
        ("low-watermark-frames", parse.INT64, "free frames below which reclaim runs ahead; 0: a hundredth of RAM"),
        ("high-watermark-frames", parse.INT64, "free frames at which it stops; 0: one and a half of the low watermark"),
        ("zeroed-frames", parse.INT64, "frames that are kept zeroed"),
    ):
        settings.add_argument(f"--{option}", type=kind, help=text)
    command(settings, swap_settings, lists=True)
    read = verbs.add_parser("read-object", help="write the content of an object to standard output")
    read.add_argument("name", help="name of the object, for example o-1")
    command(read, named(read_object, "objects"))


def _frames(client: Client) -> FramesStub:
    from lamina.mmu.v1 import mmu_pb2_grpc

    return client.stub("mmu", mmu_pb2_grpc.FramesStub)


def _swap(client: Client) -> SwapStub:
    from lamina.mmu.v1 import swap_pb2_grpc

    return client.stub("mmu", swap_pb2_grpc.SwapStub)


async def frames(client: Client, args: argparse.Namespace) -> None:
    """Lists frames in use by number."""
    from lamina.mmu.v1 import mmu_pb2

    printing.show(
        await collect(_frames(client).ListFrames, mmu_pb2.ListFramesRequest(page_size=1000), "frames"),
        ("FRAME", "USE", "GROUP", "MAPPED", "AT", "OWNER"),
        lambda item: (
            f"{item.frame:#x}",
            word(mmu_pb2.Frame.Use, item.use),
            last(item.group) or "root",
            item.mapping_count,
            ", ".join(f"{last(place.space)} {place.address:#x}" for place in item.mappings) or "-",
            item.owner or "-",
        ),
        form=args.output,
    )


async def fragmentation(client: Client, args: argparse.Namespace) -> None:
    """Shows how free memory is cut up."""
    from lamina.mmu.v1 import frames_pb2

    answer = await _frames(client).GetFragmentation(frames_pb2.GetFragmentationRequest())
    if args.output == "json":
        printing.as_json(answer)
        return
    rows = [(printing.size(4096 << order), f"{count:,}") for order, count in enumerate(answer.free_blocks) if count]
    rows += [
        ("free frames", f"{answer.free_frames:,}"),
        ("huge blocks", f"{answer.huge_blocks:,}"),
        ("that can be emptied", f"{answer.movable_huge_blocks:,}"),
        ("frames that cannot move", f"{answer.unmovable_frames:,}"),
        ("zeroed ahead", f"{answer.zeroed_frames:,}"),
        ("out of use", f"{answer.offline_frames:,}"),
        ("moved so far", f"{answer.moved_frames:,}"),
    ]
    printing.table(("FREE BLOCKS OF", ""), rows)


async def compact_frames(client: Client, args: argparse.Namespace) -> None:
    """Moves pages together."""
    from lamina.mmu.v1 import frames_pb2

    done = await _frames(client).CompactFrames(frames_pb2.CompactFramesRequest(huge_blocks=args.blocks))
    printing.show(
        [done],
        ("MOVED", "FREE 2 MiB BLOCKS"),
        lambda item: (item.moved_frames, item.free_huge_blocks),
        form=args.output,
        one=True,
    )


async def offline_frames(client: Client, args: argparse.Namespace) -> None:
    """Takes frames out of use."""
    from lamina.mmu.v1 import frames_pb2

    request = frames_pb2.OfflineFramesRequest(frames=args.frames, lost=args.lost)
    done = await _frames(client).OfflineFrames(request)
    if args.output == "json":
        printing.as_json(done)
        return
    kinds = frames_pb2.OfflineFramesResponse.Result
    rows = [(f"{frame:#x}", word(kinds, result)) for frame, result in zip(args.frames, done.results, strict=True)]
    printing.table(("FRAME", "RESULT"), rows)


AREA_HEADERS = ("AREA", "SIZE", "USED", "CACHED", "PRIORITY", "STATE", "WRITTEN", "READ", "CORRUPT", "ON")


def area_row(area: swap_pb2.SwapArea) -> tuple[object, ...]:
    """Returns the cells of a swap area."""
    from lamina.mmu.v1 import swap_pb2

    return (
        last(area.name),
        printing.size(area.size_bytes),
        area.used_slots,
        area.cached_slots,
        area.priority,
        word(swap_pb2.SwapArea.State, area.state),
        area.written_pages,
        area.read_pages,
        area.corrupt_slots,
        last(area.disk) or "file",
    )


async def areas(client: Client, args: argparse.Namespace) -> None:
    """Lists swap areas."""
    from lamina.mmu.v1 import swap_pb2

    found = await _swap(client).ListSwapAreas(swap_pb2.ListSwapAreasRequest())
    printing.show(found.swap_areas, AREA_HEADERS, area_row, form=args.output)


async def make_area(client: Client, args: argparse.Namespace) -> None:
    """Makes a swap area."""
    from lamina.mmu.v1 import swap_pb2

    area = swap_pb2.SwapArea(size_bytes=args.size, priority=args.priority, disk=args.disk)
    made = await _swap(client).CreateSwapArea(swap_pb2.CreateSwapAreaRequest(swap_area_id=args.name, swap_area=area))
    printing.show([made], AREA_HEADERS, area_row, form=args.output, one=True)


async def swapoff(client: Client, args: argparse.Namespace) -> None:
    """Takes a swap area out of use."""
    from lamina.mmu.v1 import swap_pb2

    progress = swap_pb2.DeleteSwapAreaProgress()
    async for said in _swap(client).DeleteSwapArea(swap_pb2.DeleteSwapAreaRequest(name=args.name)):
        progress = said
    printing.show(
        [progress],
        ("TO RAM", "TO OTHER AREAS", "REMAINING"),
        lambda item: (item.returned_pages, item.moved_pages, item.remaining_slots),
        form=args.output,
        one=True,
    )


SLOT_HEADERS = ("SLOT", "REFERENCES", "USER", "ADDRESS", "GROUP", "FRAME", "CRC-32C")


def slot_row(slot: swap_pb2.SwapSlot) -> tuple[object, ...]:
    """Returns the cells of a slot."""
    return (
        slot.slot,
        slot.references,
        last(slot.user) or "-",
        f"{slot.address:#x}",
        last(slot.group) or "root",
        f"{slot.cached_frame:#x}" if slot.HasField("cached_frame") else "-",
        f"{slot.checksum:08x}",
    )


async def slots(client: Client, args: argparse.Namespace) -> None:
    """Lists the slots in use of an area."""
    from lamina.mmu.v1 import swap_pb2

    request = swap_pb2.ListSwapSlotsRequest(name=args.name, page_size=1000)
    slots = await collect(_swap(client).ListSwapSlots, request, "slots")
    printing.show(slots, SLOT_HEADERS, slot_row, form=args.output)


async def check(client: Client, args: argparse.Namespace) -> int:
    """Compares an area with its checksums; 1 when something is corrupt."""
    from lamina.mmu.v1 import swap_pb2

    corrupt: list[swap_pb2.SwapSlot] = []
    checked = 0
    async for said in _swap(client).CheckSwapArea(swap_pb2.CheckSwapAreaRequest(name=args.name)):
        corrupt += said.corrupt_slots
        checked = said.checked_slots
    printing.show(corrupt, SLOT_HEADERS, slot_row, form=args.output)
    if args.output != "json":
        print(f"{checked:,} slots read, {len(corrupt):,} corrupt")
    return 1 if corrupt else 0


SETTINGS = (
    *("policy", "swappiness", "readahead_pages"),
    *("low_watermark_frames", "high_watermark_frames", "zeroed_frames"),
)
"""Fields of `SwapSettings`, which are options by the same names."""


async def swap_settings(client: Client, args: argparse.Namespace) -> None:
    """Shows the settings of swapping and reclaim; changes those that are given first."""
    from google.protobuf.field_mask_pb2 import FieldMask
    from lamina.mmu.v1 import swap_pb2

    given = {name: value for name in SETTINGS if (value := getattr(args, name)) is not None}
    if given:
        request = swap_pb2.UpdateSwapSettingsRequest(
            settings=swap_pb2.SwapSettings(**given), update_mask=FieldMask(paths=list(given))
        )
        found = await _swap(client).UpdateSwapSettings(request)
    else:
        found = await _swap(client).GetSwapSettings(swap_pb2.GetSwapSettingsRequest())
    if args.output == "json":
        printing.as_json(found)
        return
    printing.table(("SETTING", ""), [(name.replace("_", " "), str(getattr(found, name))) for name in SETTINGS])


async def read_object(client: Client, args: argparse.Namespace) -> None:
    """Writes the content of an object to standard output; what was never written is zeros."""
    from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc, supply_pb2

    stub = client.stub("mmu", mmu_pb2_grpc.ObjectsStub)
    size = (await stub.GetObject(mmu_pb2.GetObjectRequest(name=args.name))).size_bytes
    place, out = 0, sys.stdout.buffer
    async for piece in stub.ReadObject(supply_pb2.ReadObjectRequest(name=args.name)):
        _zeros(out, piece.offset - place)
        out.write(piece.data)
        place = piece.offset + len(piece.data)
    _zeros(out, size - place)
    out.flush()


def _zeros(out: Any, count: int) -> None:
    """Writes zeros, a piece at a time."""
    while count > 0:
        part = min(count, 1 << 20)
        out.write(bytes(part))
        count -= part
