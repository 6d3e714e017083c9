"""Who has which frame, read from outside: page tables from the memory bus, books from the MMU, guest pages from VMs."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamina.hypervisor.v1 import hypervisor_pb2, hypervisor_pb2_grpc
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc

from lamina_cli.client.client import Client
from lamina_cli.client.pagination import collect
from lamina_kit import paging
from lamina_kit.bus.memory import MemoryBus

AT_ONCE = 100
"""Frames that are asked for at the same time."""
Place = tuple[str, int]
"""A space and an address in it."""


async def faults(client: Client, bus: Path) -> list[str]:
    """Returns what is wrong with the frames of a host whose bus is the file `bus`; nothing when each has one owner.

    Every entry of every page table in RAM, and every page of every VM, must be in the MMU's reverse map of its frame
    and the other way round; a page that several may write, or that is a table too, has two owners.
    """
    spaces: Any = client.stub("mmu", mmu_pb2_grpc.SpacesStub)
    frames: Any = client.stub("mmu", mmu_pb2_grpc.FramesStub)
    used: dict[int, dict[Place, bool]] = defaultdict(dict)
    tables: dict[int, list[str]] = defaultdict(list)
    with MemoryBus.open(bus) as ram:
        for space in await collect(spaces.ListSpaces, mmu_pb2.ListSpacesRequest(), "spaces"):
            if space.root_address:
                for frame, address, writable in _walk(ram, space.root_address, 4, 0):
                    if address is None:
                        tables[frame].append(space.name)
                    else:
                        used[frame][space.name, address] = writable
    for place, frame in await _guest_pages(client):
        used[frame][place] = True
    asked = sorted({*used, *tables})
    wrong = [] if used and tables else ["nothing is mapped: there is nothing to compare"]
    for start in range(0, len(asked), AT_ONCE):
        some = asked[start : start + AT_ONCE]
        told = await asyncio.gather(*(frames.GetFrame(mmu_pb2.GetFrameRequest(frame=frame)) for frame in some))
        for frame, entry in zip(some, told, strict=True):
            wrong += _compare(frame, entry, used.get(frame, {}), tables.get(frame, []))
    return wrong


def _walk(ram: MemoryBus, table: int, level: int, base: int) -> Iterator[tuple[int, int | None, bool]]:
    """Yields (frame, address, writable) of every page below a table, and (frame, None, False) of every table."""
    yield table >> paging.PAGE_SHIFT, None, False
    for index in range(paging.ENTRIES):
        entry = ram.load64(table + 8 * index)
        if not entry & paging.PRESENT:
            continue
        address = base | index << (paging.PAGE_SHIFT + 9 * (level - 1))
        if level > 1:
            yield from _walk(ram, entry & paging.ADDR_MASK, level - 1, address)
        else:
            yield (entry & paging.ADDR_MASK) >> paging.PAGE_SHIFT, address, bool(entry & paging.RW)


async def _guest_pages(client: Client) -> list[tuple[Place, int]]:
    """Returns the pages that VMs have in their second tables, with their frames."""
    vms: Any = client.stub("hypervisor", hypervisor_pb2_grpc.VirtualMachinesStub)
    found = []
    for vm in await collect(vms.ListVirtualMachines, hypervisor_pb2.ListVirtualMachinesRequest(), "virtual_machines"):
        request = hypervisor_pb2.ListGuestPagesRequest(name=vm.name, page_size=10_000)
        for page in await collect(vms.ListGuestPages, request, "pages"):
            found.append(((str(vm.space), int(page.guest_physical_address)), int(page.frame)))
    return found


def _compare(frame: int, entry: Any, used: dict[Place, bool], tables: list[str]) -> list[str]:
    """Returns where the books about one frame and its uses in RAM differ."""
    wrong = []
    known = {(mapping.space, mapping.address) for mapping in entry.mappings}
    if len(tables) + bool(used) > 1:
        wrong.append(f"frame {frame} is a table of {tables} and mapped at {sorted(used)}")
    if tables and (entry.use != mmu_pb2.Frame.USE_TABLE or entry.owner not in tables):
        wrong.append(f"frame {frame} is a table of {tables}, and {entry.use} of {entry.owner!r} in the books")
    if set(used) != known:
        wrong.append(f"frame {frame} is mapped at {sorted(used)}, in the books at {sorted(known)}")
    if entry.use != mmu_pb2.Frame.USE_OBJECT and len(used) > 1 and any(used.values()):
        wrong.append(f"frame {frame} can be written at one of several places: {used}")
    return wrong
