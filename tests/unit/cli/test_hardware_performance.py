"""`lamina hardware counters`, `tlb`, `walk` and `topology`: what stands in their tables."""

from __future__ import annotations

import argparse
import json
from typing import Any, cast

import pytest
from lamina.common.v1 import access_pb2, handle_pb2
from lamina.hardware.v1 import hardware_pb2, performance_pb2, topology_pb2

from lamina_cli.client.client import Client
from lamina_cli.commands.hardware.machine import topology
from lamina_cli.commands.hardware.performance import counters, tlb, walk

COUNTERS = performance_pb2.PerformanceCounters(
    instructions=12345,
    fills_by_size=[7, 0, 1],
    run_time_ns=2_000_000,
    exceptions=[performance_pb2.VectorCount(vector=14, count=3)],
    exits=[performance_pb2.ExitCost(reason=hardware_pb2.EXIT_REASON_HLT, count=2, cycles=3000, handling_time_ns=1000)],
)
ENTRY = performance_pb2.TlbEntry(
    address=0x400000, physical_address=0x1000, page_size_bytes=4096, root=0x2000, user=True
)
Topology = topology_pb2.Topology
MACHINE = Topology(
    cpu_model="Some processor",
    threads=[Topology.Thread(number=n, core=n % 2, socket=n % 2, node=n % 2) for n in range(4)],
    offline_threads=[4, 5, 7],
    caches=[Topology.Cache(level=3, kind="unified", size_bytes=1 << 20, threads=[n]) for n in range(2)],
    nodes=[
        Topology.MemoryNode(
            number=n, address=n << 30, size_bytes=1 << 30, distances=[10, 21], memory_blocks=8, online_memory_blocks=7
        )
        for n in range(2)
    ],
    memory_block_bytes=128 << 20,
    huge_page_pools=[Topology.HugePagePool(node=1, page_bytes=2 << 20, pages=8, free_pages=5)],
    facilities=[Topology.Facility(name="kvm", usable=False, detail="there is none")],
)


class Stubs:
    """A host; it notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def stub(self, layer: str, kind: Any) -> Any:
        """Returns itself for every service."""
        return self

    async def ListContexts(self, request: Any) -> Any:
        """Returns one context."""
        context = hardware_pb2.Context(name="hosts/h1/contexts/c-4", handle=handle_pb2.Handle(id=4, generation=1))
        return hardware_pb2.ListContextsResponse(contexts=[context])

    async def GetPerformance(self, request: Any) -> Any:
        """Returns counters."""
        self.asked.append(request)
        return COUNTERS

    async def ListTlbEntries(self, request: Any) -> Any:
        """Returns two pages of one entry each."""
        self.asked.append(request)
        token = "" if request.page_token else "more"
        return performance_pb2.ListTlbEntriesResponse(entries=[ENTRY], next_page_token=token)

    async def WalkAddresses(self, request: Any) -> Any:
        """Returns a translation of each address below 0x1000000, a page fault of the others."""
        self.asked.append(request)
        outcomes = hardware_pb2.TranslateResponse.Outcome
        return hardware_pb2.WalkAddressesResponse(
            walks=[
                hardware_pb2.TranslateResponse(
                    outcome=outcomes.OUTCOME_TRANSLATED if address < 1 << 24 else outcomes.OUTCOME_PAGE_FAULT,
                    physical_address=address + 0x1000 if address < 1 << 24 else 0,
                    steps=[access_pb2.WalkStep(table="PML4", entry=0x3003)],
                )
                for address in request.addresses
            ]
        )

    async def GetTopology(self, request: Any) -> Any:
        """Returns a machine."""
        return MACHINE


def asked(form: str = "table", **words: Any) -> argparse.Namespace:
    """Returns arguments."""
    return argparse.Namespace(output=form, **words)


def rows(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Returns the printed rows, split at the columns."""
    return [[cell for cell in line.split("  ") if cell] for line in capsys.readouterr().out.splitlines()]


async def test_counters_that_are_not_zero(capsys: pytest.CaptureFixture[str]) -> None:
    """Zeros are left out, fills go by page size, and exits tell cycles and time; JSON has the message."""
    stubs = Stubs()
    await counters(cast(Client, stubs), asked(core=None, context=None))
    assert [[cell.strip() for cell in row] for row in rows(capsys)] == [
        ["COUNTER", "VALUE"],
        ["instructions", "12,345"],
        ["fills: 4 KiB", "7"],
        ["fills: 1 GiB", "1"],
        ["run time", "2.0 ms"],
        ["exception 14", "3"],
        ["exits: hlt", "2, 3,000 cycles, handled in 1.0 µs"],
    ]
    await counters(cast(Client, stubs), asked("json", core=3, context=None))
    assert json.loads(capsys.readouterr().out)["exceptions"][0]["vector"] == 14
    await counters(cast(Client, stubs), asked(core=None, context="c-4"))
    assert [request.WhichOneof("subject") for request in stubs.asked] == [None, "core", "handle"]
    assert (stubs.asked[1].core, stubs.asked[2].handle.id) == (3, 4)


async def test_a_tlb_is_listed_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """All pages of the list are there, with rights as letters."""
    await tlb(cast(Client, Stubs()), asked(core=1))
    header, first, second = rows(capsys)
    assert first == second and [cell.strip() for cell in first] == [
        "0x400000", "0x1000", "4 KiB", "r--u-", "0x2000", "-", "0",
    ]  # fmt: skip
    assert header[0].strip() == "ADDRESS"


async def test_walks_of_many_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    """More than one request has room for are asked in pieces; a fault makes the exit status 1."""
    stubs = Stubs()
    words: dict[str, Any] = {"root": 0x2000, "eptp": 0, "access": "write", "ring": 3}
    assert await walk(cast(Client, stubs), asked(addresses=list(range(1500)), **words)) == 0
    assert [len(request.addresses) for request in stubs.asked] == [1024, 476]
    assert {(request.access, request.cpl) for request in stubs.asked} == {(access_pb2.ACCESS_WRITE, 3)}
    assert len(rows(capsys)) == 1501
    assert await walk(cast(Client, stubs), asked(addresses=[0x1000, 1 << 24], **words)) == 1
    found = [[cell.strip() for cell in row] for row in rows(capsys)]
    assert found[1:] == [
        ["0x1000", "translated", "0x2000", "1", "0x3003"],
        ["0x1000000", "page-fault", "-", "1", "0x3003"],
    ]


async def test_a_topology_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Threads that are off, caches by size, nodes with what lies in them, pools, and reasons."""
    await topology(cast(Client, Stubs()), asked())
    found = {row[0].strip(): row[-1].strip() for row in rows(capsys) if len(row) > 1}
    assert (found["threads"], found["cores"], found["sockets"]) == ("4, off: 4-5,7", "2", "2")
    assert found["cache: L3 unified"] == "2 of 1 MiB"
    assert found["memory: node 1"] == (
        "1 GiB at 0x40000000, threads 1,3, 7 of 8 blocks of 128 MiB in use, distances 10 21"
    )
    assert found["huge pages: node 1, 2 MiB"] == "5 of 8 free"
    assert found["facility: kvm"] == "no (there is none)"
