"""The content of objects as a whole: reading it, having changes kept, dropping pages, resizing."""

from __future__ import annotations

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import FailedPrecondition, OutOfRange, Unavailable
from lamina_kit.paging import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, PRESENT
from lamina_mmu.domain.effects import frame_key
from lamina_mmu.domain.frames.table import DIRTY
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.supply import Demand, Supply
from lamina_mmu.domain.tables.entry import frame_of, is_swap, is_transit, slot_of, swapped
from lamina_mmu.domain.tables.table import entries, exchange
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.objects.objects import frame_for_write
from lamina_mmu.engines.model.reclaim.eviction import may_be_dirty
from lamina_mmu.engines.model.reclaim.writeback import is_changed, keep_run
from lamina_mmu.engines.model.withdrawal.migration import Lifted, is_movable, let_go, lift, put_down
from lamina_mmu.engines.model.withdrawal.users import withdraw

MOST_READ = 1 << 20
"""Bytes read in one step."""


def read_object(m: Machine, handle: Handle, offset: int, size: int) -> Step[list[tuple[int, bytes]]]:
    """Returns up to `size` bytes from `offset`, as (offset, bytes) of pages that have content; pages are brought in.

    Neighbouring pages are one piece. What was never written is left out: it is zero.
    """
    pieces: list[tuple[int, bytearray]] = []
    end = offset + size
    while offset < end:
        entity = m.objects.get(handle)
        end = min(end, entity.size)
        page = offset >> PAGE_SHIFT
        stop = min(end, (page + 1) << PAGE_SHIFT)
        if entity.supplied or entity.table.load(page):
            frame = yield from frame_for_write(m, handle, page)
            data = m.ram.read((frame << PAGE_SHIFT) + (offset & PAGE_MASK), max(stop - offset, 0))
            if pieces and pieces[-1][0] + len(pieces[-1][1]) == offset:
                pieces[-1][1].extend(data)
            else:
                pieces.append((offset, bytearray(data)))
        offset = stop
    return [(start, bytes(data)) for start, data in pieces]


def check_range(m: Machine, handle: Handle, offset: int, size: int) -> int:
    """Returns the end of a range of an object, 0 meaning to its end; BEYOND_OBJECT when it is not within."""
    total = m.objects.get(handle).size
    end = offset + size if size else total
    if offset > total or end > -(-total // PAGE_SIZE) * PAGE_SIZE:
        raise OutOfRange(
            f"Bytes {offset} to {end} are beyond the object of {total} bytes.",
            reason="BEYOND_OBJECT",
            next_step="Look at the object's size (GetObject).",
        )
    return min(end, total)


def sync_object(m: Machine, handle: Handle, first: int, end: int, drop: bool) -> Step[tuple[int, int]]:
    """Has changes of pages `first` to `end` - 1 kept, then drops clean pages that nobody maps if asked to.

    Returns (pages kept, pages dropped). Raises WRITE_BACK_FAILED and SUPPLIER_GONE.
    """
    written = yield from keep_pages(m, handle, first, end)
    dropped = 0
    if drop:
        entity = m.objects.get(handle)
        for vpns, found in entries(entity.table, first, end):
            for page, entry in zip(vpns.tolist(), found.tolist(), strict=True):
                dropped += bool(entry & PRESENT) and _drop_clean(m, entity, page, frame_of(entry))
    return written, dropped


def _drop_clean(m: Machine, entity: MemoryObject, page: int, frame: int) -> bool:
    """Drops a page that nobody maps and that is elsewhere, too; returns whether it did."""
    if m.rmap.count(frame) or not is_movable(m, frame) or may_be_dirty(m, frame):
        return False
    slot = m.frames.slot[frame] - 1
    entity.table.cas(page, frame << PAGE_SHIFT | PRESENT, swapped(slot) if slot >= 0 else 0)
    entity.resident -= 1
    if slot >= 0:
        m.swap.refs[slot] += 1
        entity.swapped += 1
    m.drop(frame)
    m.dropped += 1
    return True


def keep_pages(m: Machine, handle: Handle, first: int, end: int) -> Step[int]:
    """Has the supplier keep what changed in pages `first` to `end` - 1; returns how many pages.

    An object that nobody ever supplied, or whose supplier keeps nothing, has its changes in RAM and swap: 0.
    """
    entity = m.objects.get(handle)
    if not entity.supplied or (entity.supplier and not entity.keeps_writes):
        return 0
    kept, page = 0, first
    while (page := _next_changed(m, entity, page, end)) < end:
        if not entity.supplier:
            raise Unavailable(
                f"The supplier of object o-{entity.number} is gone.",
                reason="SUPPLIER_GONE",
                next_step="Supply the object again; its changes stay in RAM.",
            )
        key = _in_transit(entity, page)
        if key is not None:
            yield WaitFor(key)
        elif is_swap(entity.table.load(page)):
            yield from frame_for_write(m, handle, page)  # its bytes are in swap alone
        else:
            count = yield from keep_run(m, entity, page, end)
            if not count:
                raise _in_use(m, entity, page)
            kept += count
            page += count
        entity = m.objects.get(handle)
    return kept


def _in_use(m: Machine, entity: MemoryObject, page: int) -> FailedPrecondition:
    frame = frame_of(entity.table.load(page))
    return FailedPrecondition(
        f"Page {page} of object o-{entity.number} in frame {frame} is pinned, or in the hands of another call.",
        reason="RANGE_PINNED",
        next_step="Let the accesses in progress end, and repeat.",
        frame=frame,
    )


def _in_transit(entity: MemoryObject, page: int) -> tuple[str, int] | None:
    entry = entity.table.load(page)
    return frame_key(frame_of(entry)) if is_transit(entry) else None


def _next_changed(m: Machine, entity: MemoryObject, page: int, end: int) -> int:
    """Returns the first page from `page` on that changed; `end` without one."""
    for vpns, found in entries(entity.table, page, end):
        for number, entry in zip(vpns.tolist(), found.tolist(), strict=True):
            if is_changed(m, entry) and not _is_demanded(m, entity, number):
                return int(number)
    return end


def _is_demanded(m: Machine, entity: MemoryObject, page: int) -> bool:
    """Returns whether a page in transit is one that the supplier was asked for: it is not changed."""
    supply = m.supplies.get(entity.supplier)
    asked = supply.asked.values() if supply is not None else ()
    return any(
        isinstance(one.message, Demand)
        and one.message.object == entity.handle
        and one.message.first <= page < one.message.first + one.message.pages
        for one in asked
    )


# ── dropping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def invalidate(m: Machine, supply: Supply, handle: Handle, first: int, end: int) -> Step[None]:
    """Drops pages whose content changed behind the object, unless they are dirty or pinned; demands begin anew."""
    entity = m.objects.get(handle)
    for question in supply.asked.values():
        asked = question.message
        if (
            isinstance(asked, Demand)
            and asked.object == handle
            and asked.first < end
            and first < asked.first + asked.pages
        ):
            question.stale = True
    frames: list[int] = []
    for _, found in entries(entity.table, first, end):
        frames += [frame_of(entry) for entry in found.tolist() if entry & PRESENT]
    chosen = [frame for frame in frames if is_movable(m, frame) and not may_be_dirty(m, frame)]
    yield from _drop(m, chosen, even_dirty=False)


def _drop(m: Machine, frames: list[int], even_dirty: bool) -> Step[int]:
    """Takes pages of objects from all that map them and forgets them; returns how many. Pinned ones stay."""
    lifted = [lift(m, frame) for frame in frames]
    gone = 0
    try:
        yield from withdraw(m, [page for one in lifted for page in one.taken])
        while lifted:
            one = lifted.pop(0)
            dirty = bool(m.frames.flags[one.frame] & DIRTY)
            if m.ram.pins(one.frame) or (dirty and not even_dirty):
                put_down(m, one, held=False)
            else:
                _forget(m, one)
                gone += 1
    finally:
        for one in lifted:
            put_down(m, one, held=True)
    return gone


def _forget(m: Machine, one: Lifted) -> None:
    """Frees a lifted page of an object: nobody's entry names it any more."""
    entity = one.entity
    assert entity is not None
    for page in one.taken:
        exchange(m.spaces.slot(page.space).table, page.vpn, 0)
        m.note_unmapped(m.spaces.slot(page.space), page.vpn, one.frame, 0)
    exchange(entity.table, one.page, 0)
    entity.resident -= 1
    let_go(m, one)
    m.frames.refs[one.frame] = 0
    m.release(one.frame)


def resize_object(m: Machine, handle: Handle, size: int) -> Step[None]:
    """Changes the size of an object; pages beyond it are dropped, wherever they are mapped."""
    entity = m.objects.get(handle)
    first = -(-size // PAGE_SIZE)
    while True:
        waits, pinned, frames = _beyond(m, entity, first)
        if pinned:
            raise _in_use(m, entity, m.frames.index[pinned])
        if waits is not None:
            yield WaitFor(waits)
        elif frames:
            yield from _drop(m, frames, even_dirty=True)
        else:
            break
        entity = m.objects.get(handle)
    for vpns, found in entries(entity.table, first, 1 << 40):
        for page, entry in zip(vpns.tolist(), found.tolist(), strict=True):
            entity.table.cas(page, entry, 0)
            entity.swapped -= 1
            m.drop_slot(slot_of(entry))
    shrunk, entity.size, entity.resized = size < entity.size, size, True
    m.record(m.names.object(entity.number), "object.resized", size_bytes=size)
    if shrunk and size & PAGE_MASK and entity.table.load(first - 1):
        frame = yield from frame_for_write(m, handle, first - 1)
        m.ram.write((frame << PAGE_SHIFT) + (size & PAGE_MASK), bytes(PAGE_SIZE - (size & PAGE_MASK)))
        m.soil(frame)


def _beyond(m: Machine, entity: MemoryObject, first: int) -> tuple[tuple[str, int] | None, int, list[int]]:
    """Returns what stands from page `first` on: what to wait for, a pinned frame, the frames that can be dropped."""
    frames: list[int] = []
    waits: tuple[str, int] | None = None
    for _, found in entries(entity.table, first, 1 << 40):
        for entry in found.tolist():
            if is_transit(entry):
                waits = waits or frame_key(frame_of(entry))
            elif entry & PRESENT and m.ram.pins(frame_of(entry)):
                return None, frame_of(entry), []
            elif entry & PRESENT and is_movable(m, frame_of(entry)):
                frames.append(frame_of(entry))
            elif entry & PRESENT:
                return None, frame_of(entry), []
    return waits, 0, frames
