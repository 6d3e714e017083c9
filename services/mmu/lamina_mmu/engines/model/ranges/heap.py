"""The heap of a process: a private mapping whose end moves (brk)."""

from __future__ import annotations

from lamina_kit.checks import Checks
from lamina_kit.effects import Step
from lamina_kit.errors import AlreadyExists
from lamina_kit.paging import page_up
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.spaces.heap import check_start
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.tables.entry import READ, WRITE
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.ranges.mapping import map_range, settled, unmap_range

LABEL = "[heap]"


def set_break(m: Machine, handle: Handle, start: int, end: int) -> Step[tuple[int, int]]:
    """Moves the end of the heap to `end` (0: leaves it); returns (start, end). `start` is named first of all, once."""
    space = m.spaces.get(handle)
    check_start(space.number, space.heap_start, start)
    begin = space.heap_start or start
    with Checks() as check:
        check.that(not end or end >= begin, "end", f"is {end:#x}, before the start {begin:#x} of the heap")
    if end:
        yield from _move(m, handle, page_up(max(space.heap_end, begin)), page_up(end))
    space = m.spaces.get(handle)
    space.heap_start = begin
    space.heap_end = end or space.heap_end or begin
    return space.heap_start, space.heap_end


def _move(m: Machine, handle: Handle, old: int, new: int) -> Step[None]:
    """Maps or unmaps the pages between the old and the new end, both page aligned."""
    if new < old:
        yield from unmap_range(m, handle, new, old)
        return
    if new == old:
        return
    space = yield from settled(m, handle, old, new)
    taken = space.vmas.within(old, new)
    if taken:
        raise AlreadyExists(
            f"The mapping at {taken[0].start:#x} is in the way of the heap, which ends at {old:#x} as before.",
            reason="RANGE_IN_USE",
            next_step="Ask for a smaller heap, or map elsewhere.",
        )
    spec = MapSpec(old, new - old, READ | WRITE, fixed=True, label=LABEL)
    yield from map_range(m, handle, spec)
