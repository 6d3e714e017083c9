"""Page faults a second through the embedded MMU, against the kernel's own, in one interleaved run.

    python bench/memory/mmu_faults.py [--pages 2000] [--rounds 5]

Each round touches the same number of pages once: through `Spaces.Fault` over the in-process channel (first touch, copy
after a fork, return from swap), and, as the measure of the machine, in a fresh anonymous mmap of this process, one byte
a page. The hardware is a stand-in that answers shootdowns at once, so a copy's price is the MMU's and one call's. The
machine is shared: only the ratios count; absolute figures are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from lamina.common.v1 import access_pb2
from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import mmu_pb2_grpc as rpc

from lamina_kit.bus.memory import MemoryBus
from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_mmu.config import MmuConfig
from lamina_mmu.server import build

PAGE = 4096
BASE = 0x4000_0000
AIM_US = 80.0
"""What a first touch may cost, in microseconds."""


class Memory(hardware_pb2_grpc.MemoryServicer):
    """Says where RAM is."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus

    async def MapMemory(self, request: Any, context: Any) -> hardware_pb2.MapMemoryResponse:
        """Returns the one extent."""
        extent = hardware_pb2.Extent(path=str(self.bus.path), offset=self.bus.ram_offset, size_bytes=self.bus.size)
        return hardware_pb2.MapMemoryResponse(extents=[extent])


class Cpu(hardware_pb2_grpc.CpuServicer):
    """Has no core, so no translation."""

    async def Shootdown(self, request: Any, context: Any) -> hardware_pb2.ShootdownResponse:
        """Answers at once."""
        return hardware_pb2.ShootdownResponse()


class Hardware:
    """What the MMU needs below it."""

    layer = "hardware"
    service_names = ("lamina.hardware.v1.Memory", "lamina.hardware.v1.Cpu")

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus

    def register(self, server: Any) -> None:
        """Adds both servicers."""
        hardware_pb2_grpc.add_MemoryServicer_to_server(Memory(self.bus), server)
        hardware_pb2_grpc.add_CpuServicer_to_server(Cpu(), server)

    async def start(self) -> None:
        """Has nothing to open."""

    async def stop(self) -> None:
        """Has nothing to close."""


class Bench:
    """One space a round, and what is done with it."""

    def __init__(self, channel: Any, pages: int) -> None:
        self.spaces, self.pages = rpc.SpacesStub(channel), pages
        self.space = self.child = pb.Space()

    async def begin(self) -> None:
        """Makes a space with one mapping."""
        self.space = await self.spaces.CreateSpace(pb.CreateSpaceRequest())
        rights = pb.Protection(read=True, write=True)
        request = pb.MapRangeRequest(
            handle=self.space.handle, address=BASE, size_bytes=self.pages * PAGE, protection=rights, fixed=True
        )
        await self.spaces.MapRange(request)

    async def end(self) -> None:
        """Deletes what the round made."""
        for space in (self.space, self.child):
            await self.spaces.DeleteSpace(pb.DeleteSpaceRequest(handle=space.handle))

    async def touch(self, space: pb.Space, access: Any) -> None:
        """Faults on each page once."""
        for index in range(self.pages):
            request = pb.FaultRequest(handle=space.handle, address=BASE + index * PAGE, access=access)
            await self.spaces.Fault(request)

    async def zero_fill(self) -> None:
        """First touches."""
        await self.touch(self.space, access_pb2.ACCESS_WRITE)

    async def copy(self) -> None:
        """Writes to pages shared after a fork."""
        await self.touch(self.child, access_pb2.ACCESS_WRITE)

    async def swap_in(self) -> None:
        """Reads pages that lie in swap."""
        await self.touch(self.space, access_pb2.ACCESS_READ)

    async def fork(self) -> None:
        """Forks, after the pages were written."""
        for start in range(0, self.pages, 512):
            data = b"\1" * min(512, self.pages - start) * PAGE
            request = pb.WriteSpaceRequest(handle=self.space.handle, address=BASE + start * PAGE, data=data)
            await self.spaces.WriteSpace(request)
        self.child = await self.spaces.ForkSpace(pb.ForkSpaceRequest(handle=self.space.handle))

    async def swap_out(self) -> None:
        """Pushes all pages of the space to swap."""
        await self.spaces.Reclaim(pb.ReclaimRequest(handle=self.space.handle, pages=self.pages))


async def kernel(pages: int) -> None:
    """Touches the pages of a fresh anonymous mapping of this process."""
    with mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for index in range(0, pages * PAGE, PAGE):
            memory[index] = 1


async def measure(pages: int, rounds: int) -> dict[str, float]:
    """Returns the median microseconds a page of each kind of work."""
    taken: dict[str, list[float]] = {}

    async def timed(name: str, work: Callable[[], Awaitable[None]]) -> None:
        start = time.perf_counter()
        await work()
        taken.setdefault(name, []).append((time.perf_counter() - start) / pages * 1e6)

    with tempfile.TemporaryDirectory() as folder:
        clock, rng = RealClock(), Rng(1)
        bus = MemoryBus.create(Path(folder) / "ram", 8 * pages * PAGE, run_pages=1)
        below = local(Hardware(bus), LayerState("hardware", "h1", clock, rng))
        layer = LayerState("mmu", "h1", clock, rng)
        service = build(
            Environment("h1", clock, rng, Path(folder), layer, {"hardware": below}), MmuConfig(8 * pages * PAGE)
        )
        await service.start()
        bench = Bench(local(service, layer), pages)
        for _ in range(rounds):
            await bench.begin()
            await timed("kernel", lambda: kernel(pages))
            await timed("zero fill", bench.zero_fill)
            await bench.fork()
            await timed("copy", bench.copy)
            await timed("swap out", bench.swap_out)
            await timed("swap in", bench.swap_in)
            await bench.end()
        await service.stop()
        bus.close()
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=2000, help="pages touched in a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.pages, arguments.rounds))
    base = found["kernel"]
    print(f"{'':12}{'µs a page':>12}{'pages a second':>18}{'of the kernel':>16}")
    for name, value in found.items():
        print(f"{name:12}{value:>12.2f}{1e6 / value:>18,.0f}{base / value:>15.4f}×")
    verdict = "within" if found["zero fill"] <= AIM_US else "over"
    print(f"a first touch takes {found['zero fill']:.1f} µs, {verdict} the aim of {AIM_US:.0f} µs")


if __name__ == "__main__":
    main()
