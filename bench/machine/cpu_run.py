"""From an exit to the restart: what a core, its dispatcher and the `Cpu.Run` stream each take of it, interleaved.

    python bench/machine/cpu_run.py [--exits 20000] [--rounds 7]

A program makes system calls, and one touches pages that are not there; the holder answers at once: it maps the page by
one store, and asks again. The same is done three times: with the core alone, through the dispatcher, which arbitrates
and counts, and by messages on a `Cpu.Run` stream in the process, as the layers above do it. Microseconds are processor
time of this process, best of all rounds, so that others on the machine disturb little; ratios count more than figures.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc

from lamina_hardware.config import HardwareConfig
from lamina_hardware.domain.contexts.context import Handle
from lamina_hardware.engines.interface import CoreRun
from lamina_hardware.server import build
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import DIRTY_ALL, ExitReason, RunPage
from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng

RAM = 64 << 20
TEXT, DATA = 0x400000, 0x4000_0000
ROOT, TABLES, TEXT_FRAME, FRAMES = 0x1000, 0x10000, 0x20_0000, 0x100_0000
PAGES = 8192
PAGE = 4096

CALLS = bytes.fromhex("0f05ebfc")  # again: syscall; jmp again
TOUCHES = bytes.fromhex("488b074881c700100000ebf4")  # again: mov rax, [rdi]; add rdi, 4096; jmp again

Turn = Callable[[], Awaitable[int]]
"""Runs the context to its next exit; returns the reason."""


class Bench:
    """A machine, a context in ring 3 with a page of text, and tables for pages at DATA that are empty."""

    def __init__(self, service: Any, bus: MemoryBus, channel: Any) -> None:
        self.service, self.bus = service, bus
        self.cpu: Any = rpc.CpuStub(channel)
        self.core = service.machine.dispatcher._cores[0]
        self.dispatcher = service.machine.dispatcher

    async def prepare(self) -> None:
        """Makes the tables and the context."""
        self.context = await self.cpu.CreateContext(pb.CreateContextRequest(context=pb.Context(label="bench")))
        self.page = RunPage(self.bus.run_page(self.context.run_page))
        for place, entry in ((ROOT, 0x2007), (0x2000, 0x3007), (0x2008, 0x5007), (0x3010, 0x4007),
                             (0x4000, TEXT_FRAME | 5)):  # fmt: skip
            self.bus.store64(place, entry)
        for table in range(PAGES // 512):
            self.bus.store64(0x5000 + 8 * table, TABLES + PAGE * table | 7)
        self.bus.write(TEXT_FRAME, CALLS + TOUCHES)
        self.stream = self.cpu.Run()
        self.request = pb.RunRequest(handle=self.context.handle)
        handle = Handle(self.context.handle.id, self.context.handle.generation)
        self.turns: dict[str, Turn] = {
            "core": self._core(self.service.machine.engine.contexts.get(handle)),
            "dispatcher": self._dispatcher(handle),
            "Cpu.Run": self._stream,
        }

    def start(self, at: int) -> None:
        """Starts at an address, with all pages at DATA gone."""
        self.bus.write(TABLES, bytes(8 * PAGES))
        self.core.flush()
        self.page.cr3, self.page.rip, self.page.dirty = ROOT, at, DIRTY_ALL
        self.page.rdi = DATA

    def _core(self, context: Any) -> Turn:
        work = CoreRun(context.key, context.run_page)

        async def turn() -> int:
            return int(self.core.run(work).reason)

        return turn

    def _dispatcher(self, handle: Handle) -> Turn:
        async def turn() -> int:
            ended: list[Any] = []
            self.dispatcher.begin(handle, 0, 1, ended.append)
            return int(ended[0].reason)

        return turn

    async def _stream(self) -> int:
        await self.stream.write(self.request)
        return int((await self.stream.read()).reason)

    async def calls(self, turn: Turn, count: int) -> float:
        """Returns microseconds a system call."""
        self.start(TEXT)
        await turn()
        began = time.process_time()
        for _ in range(count):
            reason = await turn()
        took = time.process_time() - began
        assert reason == ExitReason.SYSCALL, reason
        return took / count * 1e6

    async def faults(self, turn: Turn, count: int) -> float:
        """Returns microseconds a page fault, with the store that maps the page."""
        count = min(count, PAGES)
        self.start(TEXT + len(CALLS))
        began = time.process_time()
        for page in range(count):
            reason = await turn()
            self.bus.store64(TABLES + 8 * page, FRAMES + page % 4096 * PAGE | 7)
        took = time.process_time() - began
        assert reason == ExitReason.PAGE_FAULT, reason
        return took / count * 1e6


async def main(exits: int, rounds: int) -> None:
    """Measures and prints."""
    best: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clock, rng = RealClock(), Rng(1)
        layer = LayerState("hardware", "h1", clock, rng)
        environment = Environment("h1", clock, rng, folder, layer, bus_path=folder / "ram")
        service = build(environment, HardwareConfig(memory_bytes=RAM, run_pages=8, cores=1))
        await service.start()
        assert environment.bus is not None
        bench = Bench(service, environment.bus, local(service, layer))
        await bench.prepare()
        for _ in range(rounds):
            for kind, work in (("system call", bench.calls), ("page fault", bench.faults)):
                for who, turn in bench.turns.items():
                    took = await work(turn, exits)
                    best[kind, who] = min(took, best.get((kind, who), took))
        bench.stream.cancel()
        await service.stop()
    print(f"{'µs an exit':14}{'core':>10}{'dispatcher':>12}{'Cpu.Run':>10}{'Cpu.Run / core':>16}")
    for kind in ("system call", "page fault"):
        core, dispatcher, stream = (best[kind, who] for who in ("core", "dispatcher", "Cpu.Run"))
        print(f"{kind:14}{core:10.2f}{dispatcher:12.2f}{stream:10.2f}{stream / core:15.1f}×")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--exits", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.exits, arguments.rounds))
