"""`lamina hardware`: the host, its cores, contexts, run groups, disks and RAM."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.commands.hardware import devices, disks, interrupts, machine, nics, performance, registers, wires
from lamina_cli.commands.hardware.examples import EXAMPLES
from lamina_cli.input import parse
from lamina_cli.input.verbs import Verbs
from lamina_cli.output import printing, walks
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.hardware.v1.hardware_pb2 import Host
    from lamina.hardware.v1.hardware_pb2_grpc import CpuStub, HostsStub, MemoryStub

BYTES_A_ROW = 16


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands."""
    verbs = Verbs(parser, "hardware", EXAMPLES)
    command(verbs.add_parser("host", help="show the host and its counters"), host, lists=True)
    command(verbs.add_parser("cores", help="list cores"), cores, lists=True)
    command(verbs.add_parser("contexts", help="list execution contexts"), contexts, lists=True)
    command(verbs.add_parser("groups", help="list run groups"), groups, lists=True)
    command(verbs.add_parser("time", help="show the host's time"), time, lists=True)
    disks.configure(verbs)
    interrupts.configure(verbs)
    registers.configure(verbs)
    read = verbs.add_parser("read", help="dump bytes of RAM")
    read.add_argument("address", type=parse.address, help="physical address, for example 0x1000")
    read.add_argument("size", type=parse.size, nargs="?", default=256, help="bytes (default 256)")
    command(read, read_ram)
    walk = verbs.add_parser("translate", help="walk page tables as a core would")
    walk.add_argument("root", type=parse.address, help="physical address of the root table (CR3)")
    walk.add_argument("address", type=parse.address, help="virtual address")
    walk.add_argument("--eptp", type=parse.address, default=0, help="root of the second stage")
    command(walk, translate, lists=True)
    devices.configure(verbs)
    nics.configure(verbs)
    wires.configure(verbs)
    machine.configure(verbs)
    performance.configure(verbs)


def _hosts(client: Client) -> HostsStub:
    from lamina.hardware.v1 import hardware_pb2_grpc

    return client.stub("hardware", hardware_pb2_grpc.HostsStub)


def _cpu(client: Client) -> CpuStub:
    from lamina.hardware.v1 import hardware_pb2_grpc

    return client.stub("hardware", hardware_pb2_grpc.CpuStub)


def _memory(client: Client) -> MemoryStub:
    from lamina.hardware.v1 import hardware_pb2_grpc

    return client.stub("hardware", hardware_pb2_grpc.MemoryStub)


async def host(client: Client, args: argparse.Namespace) -> None:
    """Shows the host."""
    from lamina.hardware.v1 import hardware_pb2

    found = await _hosts(client).GetHost(hardware_pb2.GetHostRequest())
    if args.output == "json":
        printing.as_json(found)
        return
    counters = found.counters
    rows = [
        ("name", found.name),
        ("engine", f"{found.engine}, {_cores_of(found)} ({found.core_path_reason})"),
        ("boot", found.boot_id),
        ("cores", found.core_count),
        ("memory", printing.size(found.memory_bytes)),
        ("instructions", f"{counters.instructions:,}"),
        ("exits", f"{counters.exits:,}"),
        ("TLB fills", f"{counters.tlb_fills:,}"),
        ("walk faults", f"{counters.walk_faults:,}"),
        ("shootdowns", f"{counters.shootdowns:,}"),
        ("code invalidations", f"{counters.code_invalidations:,}"),
        ("run time", printing.duration(counters.run_time_ns)),
        ("wait time", printing.duration(counters.wait_time_ns)),
    ]
    rows += [
        (f"exits: {word(hardware_pb2.ExitReason, item.reason)}", f"{item.count:,}") for item in counters.exits_by_reason
    ]
    printing.table(("HOST", ""), rows)


def _cores_of(host: Host) -> str:
    """Returns on which path a host's cores are."""
    return f"cores on the {host.core_path} path" if host.core_count else "no cores"


async def cores(client: Client, args: argparse.Namespace) -> None:
    """Lists cores."""
    from lamina.hardware.v1 import hardware_pb2

    response = await _cpu(client).ListCores(hardware_pb2.ListCoresRequest())
    printing.show(
        response.cores,
        ("CORE", "STATE", "CONTEXT", "INSTRUCTIONS", "EXITS", "TLB FILLS", "RUN TIME"),
        lambda core: (
            core.number,
            word(hardware_pb2.Core.State, core.state),
            last(core.context) or "-",
            f"{core.counters.instructions:,}",
            f"{core.counters.exits:,}",
            f"{core.counters.tlb_fills:,}",
            printing.duration(core.counters.run_time_ns),
        ),
        form=args.output,
    )


async def contexts(client: Client, args: argparse.Namespace) -> None:
    """Lists execution contexts."""
    from lamina.hardware.v1 import hardware_pb2

    listed = await collect(_cpu(client).ListContexts, hardware_pb2.ListContextsRequest(), "contexts")
    printing.show(
        listed,
        ("CONTEXT", "STATE", "GROUP", "EPTP", "INSTRUCTIONS", "EXITS", "LABEL"),
        lambda context: (
            last(context.name),
            word(hardware_pb2.Context.State, context.state),
            last(context.run_group) or "root",
            f"{context.eptp:#x}" if context.eptp else "-",
            f"{context.counters.instructions:,}",
            f"{context.counters.exits:,}",
            context.label,
        ),
        form=args.output,
    )


async def groups(client: Client, args: argparse.Namespace) -> None:
    """Lists run groups."""
    from lamina.hardware.v1 import hardware_pb2

    listed = await collect(_cpu(client).ListRunGroups, hardware_pb2.ListRunGroupsRequest(), "run_groups")
    printing.show(
        listed,
        ("GROUP", "PARENT", "WEIGHT", "QUOTA", "PERIOD", "CORES", "CONTEXTS", "USED", "THROTTLED"),
        lambda group: (
            last(group.name),
            last(group.parent) or "root",
            group.weight,
            printing.duration(group.quota_ns) if group.quota_ns else "-",
            printing.duration(group.period_ns),
            ",".join(map(str, group.cores)) or "all",
            group.context_count,
            printing.duration(group.used_ns),
            printing.duration(group.throttled_ns),
        ),
        form=args.output,
    )


async def time(client: Client, args: argparse.Namespace) -> None:
    """Shows the host's time."""
    from lamina.hardware.v1 import hardware_pb2

    now = await _hosts(client).GetTime(hardware_pb2.GetTimeRequest())
    printing.show(
        [now],
        ("MODE", "SINCE START", "NANOSECONDS"),
        lambda time: (time.mode, printing.duration(time.now_ns), time.now_ns),
        form=args.output,
        one=True,
    )


async def read_ram(client: Client, args: argparse.Namespace) -> None:
    """Dumps bytes of RAM."""
    from lamina.hardware.v1 import hardware_pb2

    request = hardware_pb2.ReadMemoryRequest(address=args.address, size_bytes=args.size)
    response = await _memory(client).ReadMemory(request)
    for row in hexdump(args.address, response.data):
        print(row)


def hexdump(address: int, data: bytes) -> list[str]:
    """Returns the rows of a dump: address, 16 bytes in hexadecimal, and the printable ones as text."""
    rows = []
    for start in range(0, len(data), BYTES_A_ROW):
        piece = data[start : start + BYTES_A_ROW]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        rows.append(f"{address + start:012x}  {piece.hex(' '):<47}  {text}")
    return rows


async def translate(client: Client, args: argparse.Namespace) -> int:
    """Walks page tables."""
    from lamina.hardware.v1 import hardware_pb2

    request = hardware_pb2.TranslateRequest(root=args.root, eptp=args.eptp, address=args.address)
    response: Any = await _cpu(client).Translate(request)
    if args.output == "json":
        printing.as_json(response)
    else:
        walks.steps(response.steps)
        outcome = word(hardware_pb2.TranslateResponse.Outcome, response.outcome)
        found = f" at {response.physical_address:#x}" if outcome == "translated" else ""
        print(f"{args.address:#x}: {outcome}{found}")
    return 0 if response.outcome == hardware_pb2.TranslateResponse.OUTCOME_TRANSLATED else 1
