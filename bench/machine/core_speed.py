"""The modelled core against the bare emulator, and what exits cost: run by `./run bench core_speed`.

Both run the same loops in turns; what counts is the ratio of the medians. The bare emulator runs without paging and
without a budget; ours has the walker, exact exits and an exact budget. The third loop is slow on the bare emulator: it
keeps watching pages that were once executable for changed code, where our walker takes one right away for the other.
Then what exits cost: a system call, a page fault that is mapped, a port write, at the core alone and through `Cpu.Run`
on the in-process channel.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc

from lamina_hardware.config import HardwareConfig
from lamina_hardware.engines.interface import CoreEngine, CoreRun
from lamina_hardware.io.cores.path import choose
from lamina_hardware.io.emulator.api import DATA_RIGHTS, Emulator
from lamina_hardware.io.reset import reset_registers
from lamina_hardware.server import build
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import DIRTY_ALL, DIRTY_RIP, RunPage
from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng

RAM = 64 << 20
TEXT, DATA = 0x400000, 0x600000
ROUNDS = 5
AIM = 0.4

# mov rcx, N; l: add rax, rcx; xor rbx, rax; lea rdx, [rax+rbx]; dec rcx; jnz l; syscall
LOOP = "48b9{n}4801c84831c3488d141848ffc975f10f05"
# the same with 4 times (add, xor, lea, imul) a turn
LONG = "48b9{n}" + "4801c84831c3488d1418480faff2" * 4 + "48ffc975c30f05"
# mov rcx, N; mov rdi, DATA; l: mov [rdi], rcx; mov rax, [rdi+64]; add rdi, 8; and rdi, DATA|0x7ff8; dec rcx; jnz l
STORE = "48b9{n}48c7c70000600048890f488b47404883c7084881e7f87f600048ffc975e90f05"
TABLES = {0x1000: 0x2007, 0x2000: 0x3007, 0x3010: 0x4007, 0x3018: 0x5007, 0x4000: 0x100007}
PROGRAMS = {"5-instruction loop": (LOOP, 5), "18-instruction loop": (LONG, 18), "stores and loads": (STORE, 6)}
SYSCALLS = "0f05ebfc"
FAULTS = "48890f4881c700100000ebf4"
PORTS = "e680ebfc"


def program(text: str, turns: int) -> bytes:
    """Returns machine code with its number of turns filled in."""
    return bytes.fromhex(text.format(n=turns.to_bytes(8, "little").hex()))


class Ours:
    """One core of ours with text, and 32 pages of data."""

    def __init__(self, folder: Path) -> None:
        self.bus = MemoryBus.create(folder / "ram", RAM, run_pages=4)
        path = choose("auto", folder, self.bus)
        self.core: CoreEngine = path.make()
        self.name = path.name
        store = self.bus.store64
        for address, value in TABLES.items():
            store(address, value)
        for page in range(32):
            store(0x5000 + 8 * page, 0x200000 + page * 4096 | 7)
        self.page = RunPage(self.bus.run_page(0))
        self.work = CoreRun(1, 0)

    def load(self, code: bytes, **registers: int) -> None:
        """Puts a program at TEXT."""
        self.bus.write(0x100000, code.ljust(256, b"\x90"))
        self.bus.drain_code_writes()
        self.core.drop_code(None)
        reset_registers(self.page.view, 3)
        self.page.cr3, self.page.rip, self.page.rflags = 0x1000, TEXT, 0x3002
        for name, value in registers.items():
            setattr(self.page, name, value)

    def run(self) -> None:
        """Runs to the next exit."""
        self.core.run(self.work)

    def repeat(self, count: int) -> None:
        """Runs to an exit `count` times."""
        for _ in range(count):
            self.core.run(self.work)

    def again(self) -> None:
        """Runs the program from its begin."""
        self.page.rip, self.page.dirty = TEXT, DIRTY_RIP
        self.core.run(self.work)


class Bare:
    """The emulator alone, on the same bytes of RAM, with addresses that translate to themselves."""

    def __init__(self, bus: MemoryBus) -> None:
        self.engine = Emulator()
        self.engine.map(TEXT, 4096, bus.base + 0x100000)
        self.engine.map(DATA, 32 * 4096, bus.base + 0x200000, DATA_RIGHTS)

    def run(self) -> None:
        """Runs the program at TEXT to its system call, which ends it."""
        self.engine.run_plain(TEXT)


def seconds(action: Callable[[], object]) -> float:
    """Returns how long an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def compare(ours: Ours, bare: Bare) -> bool:
    """Prints millions of instructions a second of both; returns whether every ratio meets the aim."""
    print(f"{'':22}{'bare MIPS':>12}{'ours MIPS':>12}{'ratio':>8}   ({ours.name} core, median of {ROUNDS})")
    good = True
    for name, (text, width) in PROGRAMS.items():
        turns = 6_000_000 * 5 // width
        ours.load(program(text, turns))
        bare.engine.flush_code()
        ours.run()
        bare.run()
        pairs = [(seconds(bare.run), seconds(ours.again)) for _ in range(ROUNDS)]
        mine, theirs = (statistics.median(pair[side] for pair in pairs) for side in (1, 0))
        millions = turns * width / 1e6
        print(f"{name:22}{millions / theirs:12.0f}{millions / mine:12.0f}{theirs / mine:8.2f}")
        good &= theirs / mine >= AIM
    return good


def exits(ours: Ours) -> None:
    """Prints what an exit costs at the core itself."""
    count = 5000
    for name, code in (("system call", SYSCALLS), ("port write", PORTS)):
        ours.load(bytes.fromhex(code))
        ours.run()
        cost = statistics.median(seconds(lambda: ours.repeat(count)) for _ in range(ROUNDS)) / count
        print(f"{name:22}{cost * 1e6:9.2f} µs at the core {1 / cost:12.0f} a second")
    costs = []
    for _ in range(ROUNDS):
        ours.load(bytes.fromhex(FAULTS), rdi=0x800000)
        ours.bus.store64(0x3020, 0x6007)
        ours.bus.write(0x6000, bytes(4096))
        costs.append(seconds(lambda: faults(ours)) / 512)
    cost = statistics.median(costs)
    print(f"{'page fault, mapped':22}{cost * 1e6:9.2f} µs at the core {1 / cost:12.0f} a second")


def faults(ours: Ours) -> None:
    """Takes 512 first-touch faults, mapping a page for each."""
    for page in range(512):
        ours.run()
        ours.bus.cas64(0x6000 + 8 * page, 0, 0x300000 + page * 4096 | 7)


async def through_the_contract(folder: Path) -> None:
    """Prints what a system call costs through `Cpu.Run` on the in-process channel."""
    clock, rng = RealClock(), Rng(1)
    layer = LayerState("hardware", "h1", clock, rng)
    environment = Environment("h1", clock, rng, folder, layer, bus_path=folder / "ram2")
    service = build(environment, HardwareConfig(cores=2, memory_bytes=RAM, run_pages=8))
    await service.start()
    cpu = rpc.CpuStub(local(service, layer))
    bus = environment.bus
    assert bus is not None
    made = await cpu.CreateContext(pb.CreateContextRequest())
    for address, value in TABLES.items():
        bus.store64(address, value)
    bus.write(0x100000, bytes.fromhex(SYSCALLS))
    page = RunPage(bus.run_page(made.run_page))
    page.cr3, page.rip, page.dirty = 0x1000, TEXT, DIRTY_ALL
    stream = cpu.Run()
    request = pb.RunRequest(handle=made.handle)
    count, costs = 2000, []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(count):
            await stream.write(request)
            await stream.read()
        costs.append((time.perf_counter() - began) / count)
    cost = statistics.median(costs)
    print(f"{'system call':22}{cost * 1e6:9.2f} µs by Cpu.Run  {1 / cost:12.0f} a second")
    stream.cancel()
    await service.stop()


def main() -> int:
    """Runs all measurements."""
    with tempfile.TemporaryDirectory(prefix="lamina-bench-") as folder:
        ours = Ours(Path(folder))
        bare = Bare(ours.bus)
        good = compare(ours, bare)
        exits(ours)
        asyncio.run(through_the_contract(Path(folder)))
    print(f"aim: at least {AIM} of the bare emulator: {'met' if good else 'missed'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
