"""`lamina hardware topology` and `events`: what the machine consists of, and what happened to it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.output import printing
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.hardware.v1.hardware_pb2_grpc import HostsStub
    from lamina.hardware.v1.topology_pb2 import MachineEvent, Topology


def configure(verbs: Any) -> None:
    """Adds the sub-commands."""
    command(verbs.add_parser("topology", help="show what the machine consists of"), topology, lists=True)
    watch = verbs.add_parser("events", help="tell what is lost, failed or there, then what happens")
    watch.add_argument("--follow", "-f", action="store_true", help="go on with news until interrupted")
    command(watch, events, lists=True)


def _hosts(client: Client) -> HostsStub:
    from lamina.hardware.v1 import hardware_pb2_grpc

    return client.stub("hardware", hardware_pb2_grpc.HostsStub)


async def topology(client: Client, args: argparse.Namespace) -> None:
    """Shows the topology."""
    from lamina.hardware.v1 import topology_pb2

    found = await _hosts(client).GetTopology(topology_pb2.GetTopologyRequest())
    if args.output == "json":
        printing.as_json(found)
        return
    off = f", off: {_spans(found.offline_threads)}" if found.offline_threads else ""
    rows: list[tuple[object, object]] = [
        ("processor", found.cpu_model),
        ("threads", f"{len(found.threads)}{off}"),
        ("cores", len({thread.core for thread in found.threads})),
        ("sockets", len({thread.socket for thread in found.threads})),
        *((f"cache: L{level} {kind}", told) for (level, kind), told in _caches(found).items()),
        *((f"memory: node {node.number}", _node(found, node)) for node in found.nodes),
        *(
            (
                f"huge pages: node {pool.node}, {printing.size(pool.page_bytes)}",
                f"{pool.free_pages} of {pool.pages} free",
            )
            for pool in found.huge_page_pools
        ),
        ("pages", ", ".join(printing.size(size) for size in found.page_sizes_bytes)),
        ("addresses", f"{found.physical_address_bits} bits physical, {found.virtual_address_bits} virtual"),
        ("features", " ".join(found.cpu_features)),
    ]
    rows += [
        (f"facility: {facility.name}", f"{'yes' if facility.usable else 'no'} ({facility.detail})")
        for facility in found.facilities
    ]
    printing.table(("MACHINE", ""), rows)


def _spans(numbers: Sequence[int]) -> str:
    """Returns ascending numbers as the kernel writes lists: `0-3,8`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{first}-{last_}" if first != last_ else str(first) for first, last_ in spans)


def _caches(found: Topology) -> dict[tuple[int, str], str]:
    """Returns what is told of the caches of each level and kind; most machines have one size of each."""
    sizes: dict[tuple[int, str], dict[int, int]] = {}
    for cache in found.caches:
        counts = sizes.setdefault((cache.level, cache.kind), {})
        counts[cache.size_bytes] = counts.get(cache.size_bytes, 0) + 1
    return {
        place: ", ".join(f"{count} of {printing.size(size)}" for size, count in counts.items())
        for place, counts in sizes.items()
    }


def _node(found: Topology, node: Topology.MemoryNode) -> str:
    """Returns what is told of a memory node."""
    told = f"{printing.size(node.size_bytes)} at {node.address:#x}"
    threads = [thread.number for thread in found.threads if thread.node == node.number]
    told += f", threads {_spans(threads)}" if threads else ""
    if node.memory_blocks:
        block = printing.size(found.memory_block_bytes)
        told += f", {node.online_memory_blocks} of {node.memory_blocks} blocks of {block} in use"
    return told + (f", distances {' '.join(map(str, node.distances))}" if len(node.distances) > 1 else "")


async def events(client: Client, args: argparse.Namespace) -> None:
    """Tells events, one line each."""
    from lamina.hardware.v1 import topology_pb2

    stream = _hosts(client).WatchMachine(topology_pb2.WatchMachineRequest())
    try:
        async for event in stream:
            if event.WhichOneof("event") == "current":
                if not args.follow:
                    return
                continue
            if args.output == "json":
                printing.as_json(event)
            else:
                print(f"{event.sequence:>6}  {printing.duration(event.time_ns):>12}  {_told(event)}", flush=True)
    finally:
        stream.cancel()


def _told(event: MachineEvent) -> str:
    from lamina.hardware.v1 import topology_pb2

    kind = event.WhichOneof("event")
    if kind == "core":
        return f"core {event.core.core} {'lost' if event.core.lost else 'back'}"
    if kind == "memory":
        found = event.memory
        how = "corrected" if found.corrected else "uncorrected"
        return f"memory error, {how}, at {found.address:#x}, {found.count} in this frame"
    return f"device {last(event.device.device)} {word(topology_pb2.DeviceChange.Change, event.device.change)}"
