"""Reading and writing a space's bytes, faulting pages in on the way."""

from __future__ import annotations

from lamina_kit.effects import Step
from lamina_kit.errors import OutOfRange, ResourceExhausted
from lamina_kit.paging import ACCESSED, DIRTY, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.outcome import Outcome
from lamina_mmu.domain.tables.entry import READ, WRITE
from lamina_mmu.domain.tables.table import update
from lamina_mmu.engines.model.faults.fault import fault
from lamina_mmu.engines.model.machine.state import Machine


def read_space(m: Machine, handle: Handle, address: int, size: int) -> Step[bytes]:
    """Returns `size` bytes at `address`."""
    parts: list[bytes] = []
    end = address + size
    while address < end:
        count = min(end - address, PAGE_SIZE - (address & PAGE_MASK))
        frame = yield from _reach(m, handle, address, READ, False)
        parts.append(m.ram.read((frame << PAGE_SHIFT) + (address & PAGE_MASK), count))
        address += count
    return b"".join(parts)


def write_space(m: Machine, handle: Handle, address: int, data: bytes, force: bool) -> Step[None]:
    """Stores bytes at `address`. What is stored before an error stays."""
    source = memoryview(data)
    while source:
        count = min(len(source), PAGE_SIZE - (address & PAGE_MASK))
        frame = yield from _reach(m, handle, address, WRITE, force)
        m.ram.write((frame << PAGE_SHIFT) + (address & PAGE_MASK), source[:count])
        address += count
        source = source[count:]


def _reach(m: Machine, handle: Handle, address: int, access: int, force: bool) -> Step[int]:
    """Returns the frame behind an address once the access is possible; sets A and D as a core would.

    The frame is valid until the next yield.
    """
    result = yield from fault(m, handle, address, access, force=force)
    if result.outcome in (Outcome.SEGMENTATION_FAULT, Outcome.BUS_ERROR):
        why = f": {result.refusal_reason}" if result.refusal_reason else ""
        raise OutOfRange(
            f"The address {address:#x} cannot be {'written' if access == WRITE else 'read'}{why}.",
            reason="BAD_ADDRESS",
            next_step="Look at the mappings of the space (ListMappings), and at the suppliers of its objects.",
            address=f"{address:#x}",
        )
    if result.refused:
        raise ResourceExhausted(
            f"There is no frame for {address:#x}: group {result.limit_group} is at its limit and nothing can go.",
            reason="NO_FREE_FRAME",
            next_step="Raise the limit, add swap, or end something in the group.",
            group=result.limit_group,
        )
    wanted = ACCESSED | (DIRTY if access == WRITE else 0)
    if result.entry & wanted != wanted:
        update(m.spaces.get(handle).table, address >> PAGE_SHIFT, 0, wanted)
    return result.frame
