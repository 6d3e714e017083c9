"""`lamina vswitch mirrors`, `records`, `counters` and `watch`: what people see of a switch at work."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.commands.vswitch import frames
from lamina_cli.commands.vswitch.capture import DIRECTIONS
from lamina_cli.commands.vswitch.names import in_switch, part_name, port_name, switch_name
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word
from lamina_cli.stack.stop_signal import StopSignal

if TYPE_CHECKING:
    from lamina.vswitch.v1.captures_pb2_grpc import CapturesStub


def configure(verbs: Any) -> None:
    """Adds the verbs."""
    sub = verbs.add_parser("mirrors", help="list the mirrors of a switch")
    sub.add_argument("switch", help="name of the switch")
    command(sub, mirrors, lists=True)
    _configure_mirror(verbs)
    sub = verbs.add_parser("delete-mirror", help="delete a mirror")
    sub.add_argument("mirror", help="SWITCH/MIRROR or the full name")
    command(sub, delete_mirror)
    sub = verbs.add_parser("records", help="show what became of frames that passed, newest first")
    sub.add_argument("switch", help="name of the switch")
    sub.add_argument("filter", nargs="*", help="filter, for example: arp")
    sub.add_argument("--port", default="", help="only of frames that entered there: PORT, SWITCH/PORT or the full name")
    sub.add_argument("--trace-id", default="", help="only of frames of this trace")
    sub.add_argument("--steps", action="store_true", help="with the rules that each frame met")
    command(sub, records, lists=True)
    sub = verbs.add_parser("counters", help="show counters and drops by reason: of a port, of all ports, or of VLANs")
    sub.add_argument("of", metavar="PORT|SWITCH", help="SWITCH/PORT or the full name; or a switch, for all its ports")
    sub.add_argument("--vlans", action="store_true", help="of the VLANs of a switch")
    command(sub, counters, lists=True)
    sub = verbs.add_parser("path", help="tell a frame's way through this host, without sending it")
    sub.add_argument("port", help="port where it comes in: SWITCH/PORT or the full name")
    frames.configure(sub)
    command(sub, path, lists=True)
    sub = verbs.add_parser("watch", help="show the ports of a switch, then every change")
    sub.add_argument("switch", help="name of the switch")
    sub.add_argument("--once", action="store_true", help="end after what is so now")
    command(sub, watch, lists=True)


def _configure_mirror(verbs: Any) -> None:
    sub = verbs.add_parser("mirror", help="copy frames of a switch to one of its ports")
    sub.add_argument("switch", help="name of the switch")
    sub.add_argument("mirror", help="name of the mirror")
    sub.add_argument("filter", nargs="*", help="filter of what is copied")
    sub.add_argument("--to", required=True, metavar="PORT", help="port that gets the copies, and nothing else")
    sub.add_argument("--port", action="append", default=[], help="port to copy from; repeatable")
    sub.add_argument("--group", action="append", default=[], help="port group to copy from; repeatable")
    sub.add_argument("--vlan", action="append", default=[], type=parse.INT32, help="VLAN to copy from; repeatable")
    sub.add_argument("--direction", choices=sorted(DIRECTIONS), default="both", help="seen from the switch")
    sub.add_argument("--drops", action="store_true", help="dropped frames too")
    sub.add_argument("--snap", type=parse.INT32, default=0, metavar="BYTES", help="longest copy")
    command(sub, mirror)


def _captures(client: Client) -> CapturesStub:
    from lamina.vswitch.v1 import captures_pb2_grpc

    return client.stub("vswitch", captures_pb2_grpc.CapturesStub)


async def mirrors(client: Client, args: argparse.Namespace) -> None:
    """Lists mirrors."""
    from lamina.vswitch.v1 import captures_pb2

    request = captures_pb2.ListMirrorsRequest(parent=await switch_name(client, args.switch))
    printing.show(
        await collect(_captures(client).ListMirrors, request, "mirrors"),
        ("MIRROR", "FROM", "DIRECTION", "TO", "DROPS", "COPIED", "FILTER"),
        lambda item: (
            last(item.name),
            _sources(item),
            word(captures_pb2.Direction, item.direction) if item.direction else "both",
            last(item.destination_port),
            "yes" if item.drops else "no",
            item.copied_frames,
            item.filter or "-",
        ),
        form=args.output,
    )


def _sources(mirror: Any) -> str:
    found = [
        *(last(name) for name in mirror.source_ports),
        *(f"group {last(name)}" for name in mirror.source_port_groups),
        *(f"vlan {number}" for number in mirror.source_vlan_ids),
    ]
    return ", ".join(found) or "-"


async def mirror(client: Client, args: argparse.Namespace) -> None:
    """Creates a mirror."""
    from lamina.vswitch.v1 import captures_pb2

    parent = await switch_name(client, args.switch)
    wanted = captures_pb2.Mirror(
        source_ports=[await in_switch(client, parent, "ports", text) for text in args.port],
        source_port_groups=[await in_switch(client, parent, "portGroups", text) for text in args.group],
        source_vlan_ids=args.vlan,
        direction=captures_pb2.Direction.ValueType(DIRECTIONS[args.direction]),
        destination_port=await in_switch(client, parent, "ports", args.to),
        filter=" ".join(args.filter),
        snap_bytes=args.snap,
        drops=args.drops,
    )
    request = captures_pb2.CreateMirrorRequest(parent=parent, mirror_id=args.mirror, mirror=wanted)
    print((await _captures(client).CreateMirror(request)).name)


async def delete_mirror(client: Client, args: argparse.Namespace) -> None:
    """Deletes a mirror."""
    from lamina.vswitch.v1 import captures_pb2

    name = await part_name(client, "mirrors", args.mirror)
    await _captures(client).DeleteMirror(captures_pb2.DeleteMirrorRequest(name=name))
    print(f"deleted {name}")


async def records(client: Client, args: argparse.Namespace) -> None:
    """Shows what became of frames."""
    from lamina.vswitch.v1 import captures_pb2, vswitch_pb2

    parent = await switch_name(client, args.switch)
    request = captures_pb2.ListFrameRecordsRequest(
        parent=parent,
        port=await in_switch(client, parent, "ports", args.port) if args.port else "",
        trace_id=args.trace_id,
        filter=" ".join(args.filter),
    )
    found = await collect(_captures(client).ListFrameRecords, request, "frame_records")
    if args.steps and args.output == "table":
        for record in found:
            print(f"{printing.span(record.time_ns)}  {last(record.port)}  {record.length_bytes} bytes")
            printing.table(
                ("  STAGE", "RULE", "DETAIL"), ((f"  {s.stage}", s.rule, s.detail) for s in record.decision.steps)
            )
        return
    printing.show(
        found,
        ("TIME", "PORT", "BYTES", "VERDICT", "WHY", "TO", "TRACE", "HEAD"),
        lambda item: (
            printing.span(item.time_ns),
            last(item.port),
            item.length_bytes,
            word(vswitch_pb2.TraceFrameResponse.Verdict, item.decision.verdict),
            word(vswitch_pb2.DropReason, item.decision.drop_reason) if item.decision.drop_reason else "-",
            ", ".join(last(port) for port in item.decision.output_ports) or "-",
            item.trace_id or "-",
            item.head[:14].hex(),
        ),
        form=args.output,
    )


async def path(client: Client, args: argparse.Namespace) -> None:
    """Tells a frame's way: each hop, with the rules that it met there."""
    from lamina.vswitch.v1 import captures_pb2, vswitch_pb2

    frame = frames.frame_of(args)
    request = captures_pb2.TraceFramePathRequest(port=await port_name(client, args.port), frame=frame)
    found = await _captures(client).TraceFramePath(request)
    if args.output == "json":
        printing.as_json(found)
        return
    for number, hop in enumerate(found.hops):
        verdict = word(vswitch_pb2.TraceFrameResponse.Verdict, hop.decision.verdict)
        after = f", after {hop.parent_index}" if hop.parent_index >= 0 else ""
        print(f"{number}  {hop.object}  {verdict}{after}")
        steps = ((f"   {s.stage}", s.rule, s.detail) for s in hop.decision.steps)
        printing.table(("   STAGE", "RULE", "DETAIL"), steps)
    if found.loop:
        print("the way goes on; it is cut off here")


async def counters(client: Client, args: argparse.Namespace) -> None:
    """Shows counters of one port, of all ports of a switch, or of its VLANs."""
    from lamina.vswitch.v1 import captures_pb2

    from lamina_kit.errors import InvalidArgument

    if "/ports/" in args.of or args.of.count("/") == 1:
        if args.vlans:
            raise InvalidArgument(
                f"{args.of} is a port, and VLANs are counted for a switch",
                reason="SWITCH_MISSING",
                next_step="give the switch alone, or leave --vlans out",
            )
        await _port_counters(client, args)
        return
    request = captures_pb2.ListCountersRequest(parent=await switch_name(client, args.of), by_vlan=args.vlans)
    field = "vlans" if args.vlans else "ports"
    printing.show(
        await collect(_captures(client).ListCounters, request, field),
        ("VLAN" if args.vlans else "PORT", "RECEIVED", "BYTES", "SENT", "BYTES", "FLOODED", "DROPPED"),
        lambda item: (
            item.vlan_id if args.vlans else last(item.port),
            item.received_frames,
            item.received_bytes,
            item.sent_frames,
            item.sent_bytes,
            item.flooded_frames,
            _drops(item.drops),
        ),
        form=args.output,
    )


async def _port_counters(client: Client, args: argparse.Namespace) -> None:
    from lamina.vswitch.v1 import vswitch_pb2, vswitch_pb2_grpc

    request = vswitch_pb2.GetPortCountersRequest(port=await port_name(client, args.of))
    found = await client.stub("vswitch", vswitch_pb2_grpc.PortsStub).GetPortCounters(request)
    if args.output == "json":
        printing.as_json(found)
        return
    rows = [
        ("received", f"{found.received_frames:,} frames, {printing.size(found.received_bytes)}"),
        ("sent", f"{found.sent_frames:,} frames, {printing.size(found.sent_bytes)}"),
        ("flooded", f"{found.flooded_frames:,} frames"),
        *((f"dropped: {word(vswitch_pb2.DropReason, drop.reason)}", f"{drop.frames:,} frames") for drop in found.drops),
    ]
    printing.table(("PORT", last(found.port)), rows)


def _drops(drops: Any) -> str:
    from lamina.vswitch.v1 import vswitch_pb2

    return ", ".join(f"{word(vswitch_pb2.DropReason, drop.reason)} {drop.frames}" for drop in drops) or "-"


async def watch(client: Client, args: argparse.Namespace) -> None:
    """Shows the ports of a switch, and what changes until Ctrl-C: a line a change, as JSON an object a line."""
    from lamina.vswitch.v1 import captures_pb2

    stop = StopSignal()
    stop.install()
    request = captures_pb2.WatchPortsRequest(parent=await switch_name(client, args.switch))
    call = _captures(client).WatchPorts(request)
    ending = asyncio.get_running_loop().create_task(stop.cancels(call))
    try:
        async for message in call:
            for change in message.changes:
                print(_line(change, args.output), flush=True)
            if args.once and message.initial_end:
                call.cancel()
                return
    except asyncio.CancelledError:
        if not stop.told.is_set():
            raise
    finally:
        ending.cancel()


def _line(change: Any, form: str) -> str:
    from lamina.vswitch.v1 import policies_pb2, vswitch_pb2

    if form == "json":
        return json.dumps(printing.plain(change), sort_keys=True)
    state = "gone" if change.deleted else word(vswitch_pb2.Port.State, change.port.state)
    why = f" ({word(policies_pb2.ShutReason, change.shut_reason)})" if change.shut_reason else ""
    return f"{last(change.port.name)}  {state}{why}{'  held' if change.held else ''}"
