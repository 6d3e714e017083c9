"""`lamina hardware counters`, `costs`, `tlb` and `walk`: what cores counted, what it costs, what they keep and find."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.commands.hardware.registers import find
from lamina_cli.input import parse
from lamina_cli.output import printing
from lamina_cli.output.enum_words import word

if TYPE_CHECKING:
    from lamina.hardware.v1.performance_pb2 import PerformanceCounters
    from lamina.hardware.v1.performance_pb2_grpc import PerformanceStub

MOST_CORES, MOST_ADDRESSES = 256, 1024
ACCESSES = ("read", "write", "execute")
PAGES = ("4 KiB", "2 MiB", "1 GiB")


def configure(verbs: Any) -> None:
    """Adds the sub-commands to those of `lamina hardware`."""
    counters_ = verbs.add_parser("counters", help="show what the machine, a core or a context counted")
    whose = counters_.add_mutually_exclusive_group()
    whose.add_argument("--core", type=parse.whole(0, MOST_CORES - 1), help="number of a core")
    whose.add_argument("--context", help="context as `hardware contexts` has it, for example c-1")
    command(counters_, counters, lists=True)
    costs_help = "show what events cost in cycles, and where the figures are from"
    command(verbs.add_parser("costs", help=costs_help), costs, lists=True)
    tlb_ = verbs.add_parser("tlb", help="list the translations that a core keeps")
    tlb_.add_argument("core", type=parse.whole(0, MOST_CORES - 1), help="number of the core")
    command(tlb_, tlb, lists=True)
    walk_ = verbs.add_parser("walk", help="check addresses against page tables as accesses would be")
    walk_.add_argument("root", type=parse.address, help="physical address of the root table (CR3)")
    walk_.add_argument("addresses", type=parse.address, nargs="+", help="virtual addresses")
    walk_.add_argument("--eptp", type=parse.address, default=0, help="root of the second stage")
    walk_.add_argument("--access", choices=ACCESSES, default="read", help="access to check (default read)")
    walk_.add_argument("--ring", type=parse.whole(0, 3), default=0, help="privilege level (default 0)")
    command(walk_, walk, lists=True)


def _performance(client: Client) -> PerformanceStub:
    from lamina.hardware.v1 import performance_pb2_grpc

    return client.stub("hardware", performance_pb2_grpc.PerformanceStub)


async def counters(client: Client, args: argparse.Namespace) -> None:
    """Shows counters; those that are 0 are left out of the table."""
    from lamina.hardware.v1 import performance_pb2

    request = performance_pb2.GetPerformanceRequest()
    if args.context is not None:
        request.handle.CopyFrom(await find(client, args.context))
    elif args.core is not None:
        request.core = args.core
    found = await _performance(client).GetPerformance(request)
    if args.output == "json":
        printing.as_json(found)
        return
    printing.table(("COUNTER", "VALUE"), [row for row in _rows(found) if row[1] not in ("0", "0 ns")])


def _rows(found: PerformanceCounters) -> Iterator[tuple[str, str]]:
    from lamina.hardware.v1 import hardware_pb2

    for name in ("instructions", "cycles", "guest_cycles", "tlb_hits", "tlb_misses", "walk_references"):
        yield name.replace("_", " "), f"{getattr(found, name):,}"
    yield "ept references", f"{found.ept_references:,}"
    yield from ((f"fills: {size}", f"{count:,}") for size, count in zip(PAGES, found.fills_by_size, strict=False))
    for name in ("accessed_bits_set", "dirty_bits_set", "interrupts", "shootdowns", "code_invalidations", "migrations"):
        yield name.replace("_", " "), f"{getattr(found, name):,}"
    for name in ("run_time_ns", "wait_time_ns", "idle_time_ns"):
        yield name.removesuffix("_ns").replace("_", " "), printing.duration(getattr(found, name))
    yield from ((f"exception {item.vector}", f"{item.count:,}") for item in found.exceptions)
    for item in found.exits:
        told = f"{item.count:,}, {item.cycles:,} cycles, handled in {printing.duration(item.handling_time_ns)}"
        yield f"exits: {word(hardware_pb2.ExitReason, item.reason)}", told


async def costs(client: Client, args: argparse.Namespace) -> None:
    """Shows the cost table."""
    from lamina.hardware.v1 import performance_pb2

    found = await _performance(client).GetCostTable(performance_pb2.GetCostTableRequest())
    printing.show(
        found.costs,
        ("EVENT", "CYCLES", "SOURCE"),
        lambda cost: (cost.event, f"{cost.millicycles / 1000:g}", cost.source),
        form=args.output,
    )


async def tlb(client: Client, args: argparse.Namespace) -> None:
    """Lists the translations in a core's TLB."""
    from lamina.hardware.v1 import performance_pb2

    request = performance_pb2.ListTlbEntriesRequest(core=args.core)
    listed = await collect(_performance(client).ListTlbEntries, request, "entries")
    printing.show(
        listed,
        ("ADDRESS", "PHYSICAL", "PAGE", "RIGHTS", "ROOT", "EPTP", "PCID"),
        lambda entry: (
            f"{entry.address:#x}",
            f"{entry.physical_address:#x}",
            printing.size(entry.page_size_bytes),
            _rights(entry),
            f"{entry.root:#x}",
            f"{entry.eptp:#x}" if entry.eptp else "-",
            entry.pcid,
        ),
        form=args.output,
    )


def _rights(entry: Any) -> str:
    held = ((entry.writable, "w"), (entry.executable, "x"), (entry.user, "u"), (getattr(entry, "global"), "g"))
    return "r" + "".join(letter if has else "-" for has, letter in held)


async def walk(client: Client, args: argparse.Namespace) -> int:
    """Walks page tables for addresses; the exit status is 1 when an access would fault."""
    from lamina.common.v1 import access_pb2
    from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc

    access = access_pb2.Access.Value(f"ACCESS_{args.access.upper()}")
    stub = client.stub("hardware", hardware_pb2_grpc.CpuStub)
    walks: list[Any] = []
    for begin in range(0, len(args.addresses), MOST_ADDRESSES):
        request = hardware_pb2.WalkAddressesRequest(
            root=args.root,
            eptp=args.eptp,
            addresses=args.addresses[begin : begin + MOST_ADDRESSES],
            access=access,
            cpl=args.ring,
        )
        walks += (await stub.WalkAddresses(request)).walks
    outcomes = hardware_pb2.TranslateResponse.Outcome
    rows = zip(args.addresses, walks, strict=True)
    if args.output == "json":
        printing.as_json(walks)
    else:
        printing.table(
            ("ADDRESS", "OUTCOME", "PHYSICAL", "ENTRIES", "LAST ENTRY"),
            [
                (
                    f"{address:#x}",
                    word(outcomes, found.outcome),
                    f"{found.physical_address:#x}" if found.outcome == outcomes.OUTCOME_TRANSLATED else "-",
                    len(found.steps),
                    f"{found.steps[-1].entry:#x}" if found.steps else "-",
                )
                for address, found in rows
            ],
        )
    return 0 if all(found.outcome == outcomes.OUTCOME_TRANSLATED for found in walks) else 1
