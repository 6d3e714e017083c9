"""`lamina hardware topology` and `events`: what the machine consists of, and what happened to it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli import output
from lamina_cli.client import Client, command
from lamina_cli.words import last, word

if TYPE_CHECKING:
    from lamina.hardware.v1.hardware_pb2_grpc import HostsStub
    from lamina.hardware.v1.topology_pb2 import MachineEvent


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
        output.as_json(found)
        return
    rows: list[tuple[object, object]] = [
        ("processor", found.cpu_model),
        ("threads", len(found.threads)),
        ("sockets", len({thread.socket for thread in found.threads})),
        ("memory", ", ".join(f"node {node.number}: {output.size(node.size_bytes)}" for node in found.nodes)),
        ("pages", ", ".join(output.size(size) for size in found.page_sizes_bytes)),
        ("addresses", f"{found.physical_address_bits} bits physical, {found.virtual_address_bits} virtual"),
        ("features", " ".join(found.cpu_features)),
    ]
    rows += [
        (f"facility: {facility.name}", f"{'yes' if facility.usable else 'no'} ({facility.detail})")
        for facility in found.facilities
    ]
    output.table(("MACHINE", ""), rows)


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
                output.as_json(event)
            else:
                print(f"{event.sequence:>6}  {output.duration(event.time_ns):>12}  {_told(event)}", flush=True)
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
