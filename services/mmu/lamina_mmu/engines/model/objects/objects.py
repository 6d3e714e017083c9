"""Memory objects: creation, content, deletion, and the frame behind one of their pages."""

from __future__ import annotations

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import DataLoss, OutOfRange
from lamina_kit.paging import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, PRESENT
from lamina_mmu.domain.effects import frame_key
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.supply import NoContent, Refused
from lamina_mmu.domain.swap.areas import PageLost
from lamina_mmu.domain.tables.entry import frame_of, is_swap, is_transit, slot_of
from lamina_mmu.engines.model.machine.state import Busy, Machine, Short
from lamina_mmu.engines.model.objects.suppliers import demand
from lamina_mmu.engines.model.reclaim.victims import make_room, no_free_frame, oom_victim
from lamina_mmu.engines.model.swap.pages import swap_in


def create_object(m: Machine, size: int, group: Group, label: str, session: Session) -> MemoryObject:
    """Makes an object of zeros; no page of it takes a frame yet."""
    entity = m.objects.add(MemoryObject(size, group.id, label, session))
    group.members += 1
    m.record(m.names.object(entity.number), "object.created", owner=session.owner, size_bytes=size, label=label)
    return entity


def delete_object(m: Machine, entity: MemoryObject) -> None:
    """Takes the object's handle away; its pages go now, or with the last mapping of it."""
    entity.closing = True
    m.record(m.names.object(entity.number), "object.deleted", mapped_pages=entity.mappings)
    if not entity.mappings:
        m.free_object(entity)


def object_frame(m: Machine, entity: MemoryObject, page: int) -> tuple[int, bool]:
    """Returns the frame of a page of an object, and whether it was read from swap.

    Raises Short, Busy (of a page that is demanded from a supplier, too), NoContent and PageLost.

    A page that was never written becomes a frame of zeros, as shared memory does.
    """
    entry = entity.table.load(page)
    if entry & PRESENT:
        return frame_of(entry), False
    if is_transit(entry):
        raise Busy(frame_key(frame_of(entry)))
    was_read = is_swap(entry)
    if not entry and entity.supplied:
        raise demand(m, entity, page)
    if was_read:
        frame, _ = swap_in(m, slot_of(entry), entity.group, Use.OBJECT, entity.id, page)
        m.swap.refs[slot_of(entry)] -= 1
        entity.swapped -= 1
    else:
        frame = m.take(Use.OBJECT, entity.group, entity.id, page)
        m.ram.zero(frame)
        m.policy.add(frame, entity.group)
    m.keep(frame)
    entity.table.cas(page, entry, frame << PAGE_SHIFT | PRESENT)
    entity.resident += 1
    return frame, was_read


def write_object(m: Machine, handle: Handle, offset: int, data: bytes) -> Step[int]:
    """Stores bytes in an object; returns how many. What is written before an error stays."""
    size = m.objects.get(handle).size
    if offset + len(data) > size:
        raise OutOfRange(
            f"Bytes {offset} to {offset + len(data)} are beyond the object of {size} bytes.",
            reason="BEYOND_OBJECT",
            next_step="Create the object with the size of its content.",
        )
    done = 0
    while done < len(data):
        place = offset + done
        part = data[done : done + PAGE_SIZE - (place & PAGE_MASK)]
        frame = yield from frame_for_write(m, handle, place >> PAGE_SHIFT)
        m.ram.write((frame << PAGE_SHIFT) + (place & PAGE_MASK), part)
        m.soil(frame)
        m.policy.accessed(frame)
        done += len(part)
    return done


def frame_for_write(m: Machine, handle: Handle, page: int) -> Step[int]:
    """Returns the frame of an object's page, making room as needed; valid until the next yield."""
    while True:
        entity = m.objects.get(handle)
        try:
            return object_frame(m, entity, page)[0]
        except Busy as busy:
            told = yield WaitFor(busy.key)
            if isinstance(told, Refused):
                raise no_content(entity, page, told.reason) from None
        except NoContent as missing:
            raise no_content(entity, page, missing.reason) from None
        except PageLost:
            raise no_content(entity, page, "PAGE_LOST") from None
        except Short as short:
            name = m.names.object(entity.number)
            if not (yield from make_room(m, short.group, name)):
                oom_victim(m, short.group, name)
                raise no_free_frame(short.group) from None


def no_content(entity: MemoryObject, page: int, reason: str) -> DataLoss:
    """Returns the error of a call that could not get a page of an object."""
    return DataLoss(
        f"Page {page} of object o-{entity.number} cannot be had: {reason}.",
        reason="SUPPLY_FAILED",
        next_step="Look at whoever supplies the object; with its supplier back, repeat.",
        supplier_reason=reason,
    )
