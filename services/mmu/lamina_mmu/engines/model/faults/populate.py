"""Faulting a range in before it is accessed: what locks, pins and advice have in common."""

from __future__ import annotations

from collections.abc import Iterator

from lamina_kit.effects import Sleep, Step
from lamina_kit.errors import ResourceExhausted
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE
from lamina_mmu.domain.groups.group import ROOT
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.outcome import FaultResult, Outcome
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import Vma
from lamina_mmu.domain.tables.entry import READ, WRITE, is_present, permits
from lamina_mmu.engines.model.faults.fault import fault
from lamina_mmu.engines.model.machine.state import Machine

CHUNK = 256
"""Pages after which others get their turn."""


def populate(
    m: Machine, handle: Handle, start: int, end: int, access: int = 0, limit_reason: str = "NO_FREE_FRAME"
) -> Step[int]:
    """Faults the pages of a range in; returns how many were not there as they were wanted.

    `access` 0 means: for writing where a write would make a private copy, else for reading, so that no access faults
    later. What is not mapped, without rights, or beyond its object is passed over. When memory runs out it is
    NO_FREE_FRAME, or `limit_reason` for a group below the root; what is there by then stays.
    """
    done = 0
    address = start
    while address < end:
        space = m.spaces.get(handle)
        part = _next_part(m, space, address, end)
        if part is None:
            break
        vma, low, high = part
        wanted = access or (WRITE if vma.rights & WRITE and not vma.shared else READ)
        address = min(high, low + CHUNK * PAGE_SIZE)
        for vpn in range(low >> PAGE_SHIFT, address >> PAGE_SHIFT):
            if not permits(space.table.load(vpn), wanted):
                done += not is_present(space.table.load(vpn)) or wanted == WRITE
                check_memory(m, (yield from fault(m, handle, vpn << PAGE_SHIFT, wanted)), vpn, limit_reason)
        if address < end:
            yield Sleep(0)
    return done


def _next_part(m: Machine, space: Space, address: int, end: int) -> tuple[Vma, int, int] | None:
    """Returns the first mapping of the range that can be faulted in, and its part (start, end) of the range."""
    for vma in _accessible(space, address, end):
        high = min(vma.end, end)
        if vma.object:
            content = m.objects.slot(vma.object).pages << PAGE_SHIFT
            high = min(high, max(vma.start, vma.start + content - vma.offset))
        if max(vma.start, address) < high:
            return vma, max(vma.start, address), high
    return None


def _accessible(space: Space, address: int, end: int) -> Iterator[Vma]:
    return (vma for vma in space.vmas.within(address, end) if vma.rights)


def fill(m: Machine, handle: Handle, start: int, end: int) -> Step[None]:
    """Faults in what a locked mapping gained. As on Linux, it stays mapped and locked where memory does not suffice."""
    try:
        yield from populate(m, handle, start, end)
    except ResourceExhausted as error:
        name = m.names.space(m.spaces.get(handle).number)
        m.record(name, "populate.stopped", reason=error.reason, address=f"{start:#x}", size_bytes=end - start)


def check_memory(m: Machine, result: FaultResult, vpn: int, limit_reason: str = "NO_FREE_FRAME") -> None:
    """Refuses when a fault ended without memory."""
    if result.outcome != Outcome.OUT_OF_MEMORY:
        return
    of_root = result.limit_group == ROOT
    raise ResourceExhausted(
        f"There is no frame for {vpn << PAGE_SHIFT:#x}: group {result.limit_group} has none, and nothing in it can go.",
        reason="NO_FREE_FRAME" if of_root else limit_reason,
        next_step="Raise the limit, add swap, or end something in the group.",
        group=m.names.group(result.limit_group),
    )
