"""A machine to test, over every registered engine and both core paths, with page tables built by hand."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc
from lamina.hardware.v1 import interrupts_pb2 as interrupts
from lamina.hardware.v1 import interrupts_pb2_grpc
from tests.contract import outside
from tests.contract.hardware.device_bench import modelled_cores
from tests.virtual_time import clock_of_loop

from lamina_hardware.config import HardwareConfig
from lamina_hardware.server import build
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import DIRTY_ALL, ExitRecord, RunPage
from lamina_kit.clock import RealClock
from lamina_kit.engines import engines_of
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng


def _code(name: str) -> dict[str, bytes]:
    """Returns the machine code of a file beside this one."""
    spec = importlib.util.spec_from_file_location(f"hardware_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, bytes] = module.CODE
    return found


CODE = _code("programs") | _code("interrupt_programs")
TEXT, DATA, STACK_TOP = 0x400000, 0x600000, 0x611000
KERNEL = 0xFFFF_8000_0000_0000
KERNEL_DATA = KERNEL + 0x10000
KERNEL_STACK_TOP = KERNEL + 0x24000
KERNEL_GDT, KERNEL_IDT, KERNEL_TSS = KERNEL + 0x30000, KERNEL + 0x31000, KERNEL + 0x32000
P, RW, US, A, D, PS, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 63
ADDRESS = 0x000F_FFFF_FFFF_F000
RAM = 64 << 20
EPT_ALL, EPT_A, EPT_D = 7, 1 << 8, 1 << 9


class Tables:
    """Page tables in RAM, written entry by entry. With an EPT the guest's tables lie in guest physical memory."""

    def __init__(self, bus: MemoryBus, frames: Callable[[int], int], host_of: Callable[[int], int]) -> None:
        self.bus = bus
        self._frames = frames
        self._host_of = host_of
        self.root = frames(1)

    def entry(self, va: int, level: int = 1, make: int = P | RW | US) -> int:
        """Returns the physical address of the entry that maps `va` at `level`, making the tables above it."""
        table = self.root
        for above in range(4, level, -1):
            place = self._host_of(table) + ((va >> (12 + 9 * (above - 1))) & 511) * 8
            entry = self.bus.load64(place)
            if not entry & 7:
                entry = self._frames(1) | make
                self.bus.store64(place, entry)
            table = entry & ADDRESS
        return self._host_of(table) + ((va >> (12 + 9 * (level - 1))) & 511) * 8

    def map(self, va: int, pa: int, bits: int = P | RW | US, level: int = 1, make: int = P | RW | US) -> int:
        """Maps one page; returns where its entry lies."""
        place = self.entry(va, level, make)
        self.bus.store64(place, pa | bits)
        return place


class Bench:
    """A running machine with stubs, frames to give away, and one context at ring 3 with text, data and stack."""

    def __init__(self, environment: Environment, channel: Any) -> None:
        assert environment.bus is not None
        self.environment = environment
        self.bus = environment.bus
        self.hosts, self.memory, self.cpu = rpc.HostsStub(channel), rpc.MemoryStub(channel), rpc.CpuStub(channel)
        self.interrupts = interrupts_pb2_grpc.InterruptsStub(channel)
        self._next = 0x10_0000
        self.channel = channel
        self.stream = self.cpu.Run()
        self._sequence = 0

    def frames(self, count: int = 1) -> int:
        """Returns the address of `count` fresh frames, all zeros."""
        address = self._next
        self._next += 4096 * count
        for page in range(address, self._next, 4096):
            self.bus.zero(page // 4096)
        return address

    def tables(self) -> Tables:
        """Returns empty one-stage tables."""
        return Tables(self.bus, self.frames, lambda address: address)

    async def process(self, program: str = "", **wish: Any) -> Process:
        """Makes a ring-3 context with a program at TEXT, 32 pages of data at DATA (its end is the stack)."""
        tables = self.tables()
        text, data = self.frames(2), self.frames(32)
        for page in range(2):
            tables.map(TEXT + page * 4096, text + page * 4096, P | US)
        for page in range(32):
            tables.map(DATA + page * 4096, data + page * 4096, P | RW | US | NX)
        made = await self.create(**wish)
        process = Process(self, made, tables, text, data)
        process.page.cr3 = tables.root
        process.load(program or "syscall_loop")
        return process

    async def create(self, **wish: Any) -> pb.Context:
        """Makes a context."""
        return await self.cpu.CreateContext(pb.CreateContextRequest(context=pb.Context(**wish)))

    async def guest(self, program: str = "hlt", **wish: Any) -> Guest:
        """Makes a ring-0 context behind an EPT, with a kernel's tables, and a user program at TEXT."""
        ept = Tables(self.bus, self.frames, lambda address: address)
        guest = Guest(self, ept)
        wish.setdefault("intercepts", pb.Intercepts(exceptions=0, cpuid=True, syscall=False))
        guest.context = await self.create(eptp=ept.root, **wish)
        guest.finish(program)
        return guest

    async def apic(
        self, context: pb.Context, apic_id: int, mode: Any = interrupts.Apic.MODE_X2APIC, **wish: Any
    ) -> interrupts.Apic:
        """Gives a context a local APIC (x2APIC unless told otherwise) in the interrupt domain `vm`."""
        wish.setdefault("interrupt_domain", "vm")
        frames = self.frames(2)
        apic = interrupts.Apic(
            handle=context.handle, mode=mode, apic_id=apic_id, page_address=frames, descriptor_address=frames + 4096,
            **wish,
        )  # fmt: skip
        return await self.interrupts.ConfigureApic(interrupts.ConfigureApicRequest(apic=apic))

    async def state(self, context: pb.Context) -> interrupts.Apic.State:
        """Returns what the page of a context's APIC says."""
        return (await self.interrupts.GetApic(interrupts.GetApicRequest(handle=context.handle))).state

    async def signal(
        self, context: pb.Context, vector: int = 0, kind: Any = interrupts.ContextSignal.KIND_FIXED
    ) -> int:
        """Raises an interrupt for one context; returns what became of it."""
        signal = interrupts.ContextSignal(handle=context.handle, kind=kind, vector=vector)
        one = interrupts.Interrupt(context=signal)
        answer = await self.interrupts.RaiseInterrupts(interrupts.RaiseInterruptsRequest(interrupts=[one]))
        return answer.results[0]

    async def delete_all(self) -> None:
        """Deletes every context and run group of the machine."""
        self.stream.cancel()
        for context in (await self.cpu.ListContexts(pb.ListContextsRequest(page_size=1000))).contexts:
            await self.cpu.DeleteContext(pb.DeleteContextRequest(handle=context.handle))
        groups = (await self.cpu.ListRunGroups(pb.ListRunGroupsRequest(page_size=1000))).run_groups
        parents = {group.name: group.parent for group in groups}
        while leaves := [name for name in parents if name not in parents.values()]:
            for name in leaves:
                await self.cpu.DeleteRunGroup(pb.DeleteRunGroupRequest(name=name))
                del parents[name]

    async def run(self, context: pb.Context, budget: int = 0) -> pb.RunResponse:
        """Runs a context once on the bench's stream."""
        self._sequence += 1
        await self.begin(context, budget, self._sequence)
        response = await self.stream.read()
        assert isinstance(response, pb.RunResponse)
        assert response.sequence == self._sequence
        return response

    async def begin(self, context: pb.Context, budget: int = 0, sequence: int = 0) -> None:
        """Begins a run without waiting for its end."""
        request = pb.RunRequest(handle=context.handle, budget_instructions=budget, sequence=sequence)
        await self.stream.write(request)


class Process:
    """A ring-3 context and what it maps."""

    def __init__(self, bench: Bench, context: pb.Context, tables: Tables, text: int, data: int) -> None:
        self.bench = bench
        self.context = context
        self.tables = tables
        self.text = text
        self.data = data
        self.page = RunPage(bench.bus.run_page(context.run_page))
        self.response = pb.RunResponse()

    def load(self, program: str) -> None:
        """Puts a program at TEXT and starts there."""
        self.bench.bus.write(self.text, CODE[program].ljust(64, b"\x90"))
        self.at(TEXT)

    def at(self, rip: int) -> None:
        """Goes on at another address."""
        self.page.rip = rip
        self.page.dirty = DIRTY_ALL

    async def run(self, budget: int = 0) -> ExitRecord:
        """Runs until the next exit; returns its record, which agrees with the response."""
        self.response = await self.bench.run(self.context, budget)
        record = self.page.load_exit()
        assert record.reason == self.response.reason
        assert record.instructions_retired == self.response.instructions
        assert record.rip == self.page.rip
        return record

    def entry(self, va: int, level: int = 1) -> int:
        """Returns the table entry of an address as it is in RAM now."""
        return self.bench.bus.load64(self.tables.entry(va, level))


class Guest(Process):
    """A context behind an EPT. Guest physical frames are backed when they are asked for."""

    def __init__(self, bench: Bench, ept: Tables) -> None:
        self.bench = bench
        self.ept = ept
        self._backed: dict[int, int] = {}
        self._next_gpa = 0x10_0000
        self.context = pb.Context()
        self.tables = Tables(bench.bus, self.gpa_frames, self.host_of)

    def gpa_frames(self, count: int = 1) -> int:
        """Returns the guest physical address of `count` fresh frames, backed by host frames through the EPT."""
        address = self._next_gpa
        self._next_gpa += 4096 * count
        for page in range(address, self._next_gpa, 4096):
            self.back(page)
        return address

    def back(self, gpa: int, rights: int = EPT_ALL) -> int:
        """Backs one guest physical frame; returns the host's."""
        host = self._backed.setdefault(gpa & ~4095, 0) or self.bench.frames()
        self._backed[gpa & ~4095] = host
        self.ept.map(gpa & ~4095, host, rights, make=EPT_ALL)
        return host

    def host_of(self, gpa: int) -> int:
        """Returns the host physical address of a guest physical one."""
        return self._backed[gpa & ~4095] | (gpa & 4095)

    def ept_entry(self, gpa: int) -> int:
        """Returns the EPT entry of a guest physical frame as it is in RAM now."""
        return self.bench.bus.load64(self.ept.entry(gpa, make=EPT_ALL))

    def finish(self, program: str) -> None:
        """Maps kernel and user memory, fills GDT, IDT and TSS, and starts at the kernel's first byte."""
        bus = self.bench.bus
        self.page = RunPage(bus.run_page(self.context.run_page))
        self.text, self.data = self.gpa_frames(2), self.gpa_frames(32)
        for page in range(2):
            self.tables.map(TEXT + page * 4096, self.text + page * 4096, P | US)
        for page in range(32):
            self.tables.map(DATA + page * 4096, self.data + page * 4096, P | RW | US | NX)
        self.kernel: dict[int, int] = {}
        for va, bits, count in (
            (KERNEL, 0, 4),
            (KERNEL_DATA, NX, 1),
            (KERNEL_STACK_TOP - 0x4000, NX, 4),
            (KERNEL_GDT, NX, 1),
            (KERNEL_IDT, NX, 1),
            (KERNEL_TSS, NX, 1),
        ):
            for page in range(count):
                gpa = self.gpa_frames()
                self.kernel[va + page * 4096] = gpa
                self.tables.map(va + page * 4096, gpa, P | RW | bits, make=P | RW | US)
        selectors = (0, 0x00AF9B00_0000FFFF, 0x00CF9300_0000FFFF, 0x00CFFB00_0000FFFF, 0x00CFF300_0000FFFF,
                     0x00AFFB00_0000FFFF)  # fmt: skip
        self.put(KERNEL_GDT, struct.pack("<6Q", *selectors))
        self.put(KERNEL_TSS + 4, struct.pack("<Q", KERNEL_STACK_TOP))
        page_ = self.page
        page_.cr3, page_.rsp = self.tables.root, KERNEL_STACK_TOP
        page_.gdtr_base, page_.gdtr_limit = KERNEL_GDT, 47
        page_.idtr_base, page_.idtr_limit = KERNEL_IDT, 4095
        page_.set_segment("tr", replace(page_.segment("tr"), selector=0x30, base=KERNEL_TSS, limit=0x67))
        self.put(KERNEL, CODE[program])
        self.at(KERNEL)

    def put(self, va: int, data: bytes) -> None:
        """Writes to the kernel's memory."""
        self.bench.bus.write(self.host_of(self.kernel[va & ~4095]) + (va & 4095), data)

    def get(self, va: int) -> int:
        """Returns eight bytes of the kernel's memory."""
        return self.bench.bus.load64(self.host_of(self.kernel[va & ~4095]) + (va & 4095))

    def gate(self, vector: int, program: str, place: int, level: int = 0) -> None:
        """Puts a handler at KERNEL + `place` and an interrupt gate for it into the IDT."""
        offset = KERNEL + place
        self.put(offset, CODE[program])
        low = (offset & 0xFFFF) | 8 << 16 | (0x8E | level << 5) << 40 | (offset >> 16 & 0xFFFF) << 48
        self.put(KERNEL_IDT + vector * 16, struct.pack("<QQ", low, offset >> 32))

    def user(self, program: str) -> None:
        """Puts a program at TEXT, for ring 3."""
        self.bench.bus.write(self.host_of(self.text), CODE[program].ljust(64, b"\x90"))


def _matrix() -> list[Any]:
    names = modelled_cores()
    return [pytest.param((name, path), id=f"{name}-{path}") for name in names for path in ("walker", "portable")]


async def power_on(folder: Path, engine: str, clock: Any = None, **config: Any) -> tuple[Any, Bench]:
    """Starts a machine with 64 MiB of RAM; returns its service and a bench for it."""
    clock = clock or clock_of_loop()
    rng = Rng(7)
    layer = LayerState("hardware", "h1", clock, rng, engine=engine)
    environment = Environment("h1", clock, rng, folder, layer, bus_path=folder / "ram")
    service = build(environment, HardwareConfig(memory_bytes=RAM, run_pages=64, **config))
    await service.start()
    return service, Bench(environment, local(service, layer))


@pytest.fixture(params=_matrix())
def variant(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Returns an engine's name and a core path."""
    engine, path = request.param
    missing = engines_of("hardware")[engine].missing()
    if missing:
        pytest.skip("; ".join(missing))
    return engine, path


@pytest.fixture
async def bench(variant: tuple[str, str], tmp_path: Path) -> AsyncIterator[Bench]:
    """Returns a machine of two cores, or the one that runs outside."""
    if outside.targets():
        with MemoryBus.open(outside.bus_path()) as bus:
            layer = LayerState("hardware", "h1", RealClock(), Rng(7))
            environment = Environment("h1", RealClock(), Rng(7), tmp_path, layer, bus=bus)
            async with outside.channels()["hardware"] as channel:
                found = Bench(environment, channel)
                yield found
                await found.delete_all()
        return
    engine, path = variant
    service, bench = await power_on(tmp_path, engine, core_path=path, cores=2)
    yield bench
    await service.stop()


@pytest.fixture
def power(variant: tuple[str, str], tmp_path: Path) -> Callable[..., Any]:
    """Returns a function that starts a machine with a configuration of one's own."""
    engine, path = variant

    async def on(clock: Any = None, **config: Any) -> tuple[Any, Bench]:
        return await power_on(tmp_path, engine, clock, core_path=path, **config)

    return on
