"""The two long works on swap areas, as streams of how far they are: taking one out of use, and checking one."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from lamina.mmu.v1 import swap_pb2 as pb

from lamina_kit.effects import Sleep
from lamina_mmu.convert import swap
from lamina_mmu.host import MmuHost

TOLD_EVERY_NS, TOLD_AT_FINDINGS = 500_000_000, 1000
"""How often a check tells how far it is: twice a second, or for so many findings."""


async def drain_area(host: MmuHost, name: str) -> AsyncGenerator[pb.DeleteSwapAreaProgress, None]:
    """Yields how far an area is drained until it is gone; closed before, the area is used again."""
    drain = host.engine.begin_drain(name)
    try:
        while not drain.done:
            await host.drive(host.engine.drain(drain))
            yield pb.DeleteSwapAreaProgress(
                remaining_slots=drain.remaining,
                returned_pages=drain.returned,
                moved_pages=drain.moved,
                done=drain.done,
            )
    finally:
        host.engine.end_drain(drain)


async def check_area(host: MmuHost, name: str) -> AsyncGenerator[pb.CheckSwapAreaResponse, None]:
    """Yields what comparing an area with its checksums finds, until all slots in use were read."""
    after, checked, told_ns = -1, 0, host.now_ns()
    findings: list[pb.SwapSlot] = []
    while True:
        found = await host.drive(host.engine.check_swap(name, after))
        after, checked = found.last, checked + found.checked
        findings += [swap.slot(view, host.names) for view in found.corrupt]
        done = not found.remaining
        if done or len(findings) >= TOLD_AT_FINDINGS or host.now_ns() - told_ns >= TOLD_EVERY_NS:
            told, findings, told_ns = findings[:TOLD_AT_FINDINGS], findings[TOLD_AT_FINDINGS:], host.now_ns()
            yield pb.CheckSwapAreaResponse(
                checked_slots=checked,
                corrupt_slots=told,
                remaining_slots=found.remaining,
                done=done and not findings,
            )
        if done and not findings:
            return
        await host.perform(Sleep(0))
