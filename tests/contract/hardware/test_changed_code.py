"""Code written by others is executed as written: by another context on another core, and under a range shootdown."""

from __future__ import annotations

from typing import Any

from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import performance_pb2 as perf
from lamina.hardware.v1 import performance_pb2_grpc as perf_rpc

from lamina_kit.bus.run_page import DIRTY_RIP, ExitReason

TEXT, FREE = 0x400000, 0x70_0000
P, RW, US = 1, 2, 4


async def test_code_written_by_another_context_runs(bench: Any) -> None:
    """A store of one context through its own address replaces what another runs, on whichever core."""
    runner = await bench.process("return_7")
    await runner.run()
    assert runner.page.rax == 7
    writer = await bench.process("store")
    writer.tables.map(FREE, runner.text, P | RW | US)
    old = bench.bus.load64(runner.text)
    writer.page.rdi, writer.page.rbx = FREE, old & ~0xFF_FFFF_FFFF | 0x09_B8
    assert (await writer.run()).reason == ExitReason.SYSCALL
    runner.page.rip, runner.page.dirty = TEXT, DIRTY_RIP
    await runner.run()
    assert runner.page.rax == 9


async def test_a_shootdown_of_ranges_is_counted_and_covers_them(bench: Any) -> None:
    """A range shootdown reaches the core that holds the root, counts once, and the range is walked again."""
    process = await bench.process("store")
    place = process.tables.map(FREE, bench.frames())
    process.page.rdi = FREE
    await process.run()
    bench.bus.store64(place, 0)
    ranges = [pb.AddressRange(start=FREE, size_bytes=4096)]
    answer = await bench.cpu.Shootdown(pb.ShootdownRequest(root=process.tables.root | 5, ranges=ranges))
    assert answer.cores == 1
    process.load("store")
    assert (await process.run()).reason == ExitReason.PAGE_FAULT
    counted = await perf_rpc.PerformanceStub(bench.channel).GetPerformance(
        perf.GetPerformanceRequest(handle=process.context.handle)
    )
    assert counted.shootdowns == 1
