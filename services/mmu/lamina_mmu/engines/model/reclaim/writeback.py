"""Writing an object's changes back: its supplier keeps them (SupplyKeep).

    dirty pages ──▶ TRANSIT, withdraw (A, D come back) ──▶ entries again, D clear ──▶ keep ──▶ kept: clean, else dirty
                                                           writes meanwhile set D anew

While a page is being kept it cannot be evicted: dropped as clean, it would come back from the supplier as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import DataLoss, LaminaError, Unavailable
from lamina_kit.paging import DIRTY as D_BIT
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE, PRESENT
from lamina_mmu.domain.effects import supply_answer_key
from lamina_mmu.domain.frames.table import DIRTY
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.supply import MOST_PAGES, Keep, Question, Supply
from lamina_mmu.domain.tables.entry import HELD, frame_of, is_swap, is_transit
from lamina_mmu.domain.tables.table import entries
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.reclaim.eviction import may_be_dirty
from lamina_mmu.engines.model.withdrawal.migration import is_movable, lift, put_down
from lamina_mmu.engines.model.withdrawal.users import withdraw


def is_changed(m: Machine, entry: int) -> bool:
    """Returns whether a page is, or may be, other than its supplier has it."""
    if not entry & PRESENT:
        return is_swap(entry) or is_transit(entry)
    frame = frame_of(entry)
    return may_be_dirty(m, frame) or m.frames.slot[frame] != 0


def write_back(m: Machine, groups: Sequence[int], pages: int, cause: str) -> Step[int]:
    """Has suppliers keep up to `pages` changed pages of objects of `groups`, so that they can be dropped; how many.

    What cannot be kept stays in RAM; that is recorded.
    """
    for entity in m.objects:
        if entity.group not in groups or not entity.supplier or not entity.keeps_writes:
            continue
        for vpns, found in entries(entity.table, 0, entity.pages):
            for page, entry in zip(vpns.tolist(), found.tolist(), strict=True):
                if entry & PRESENT and is_changed(m, entry) and is_movable(m, frame_of(entry)):
                    try:
                        return (yield from keep_run(m, entity, page, page + pages))
                    except LaminaError as error:
                        name = m.names.object(entity.number)
                        m.record(name, "object.not_kept", cause=cause, reason=error.reason, message=error.message)
                        return 0
    return 0


def keep_run(m: Machine, entity: MemoryObject, page: int, end: int) -> Step[int]:
    """Has one run of changed pages in RAM kept; returns how many, 0 when the first is in somebody's hands."""
    frames: list[int] = []
    while page + len(frames) < min(end, page + MOST_PAGES):
        entry = entity.table.load(page + len(frames))
        if not entry & PRESENT or not is_changed(m, entry) or not is_movable(m, frame_of(entry)):
            break
        frames.append(frame_of(entry))
    if not frames:
        return 0
    supply = m.supplies[entity.supplier]
    with _held(m, entity, frames):
        yield from _clean(m, frames)
        data = b"" if supply.maps_memory else b"".join(m.ram.read(frame << PAGE_SHIFT, PAGE_SIZE) for frame in frames)
        shown = tuple(frames) if supply.maps_memory else ()
        yield from _ask(m, supply, entity, page, frames, shown, data)
    return len(frames)


@contextmanager
def _held(m: Machine, entity: MemoryObject, frames: list[int]) -> Iterator[None]:
    """Keeps frames of an object in RAM, and the object."""
    entity.mappings += 1
    for frame in frames:
        m.keep(frame)
    try:
        yield
    finally:
        for frame in frames:
            m.drop(frame)
        m.unlink_object(entity.id, 1)


def _clean(m: Machine, frames: list[int]) -> Step[None]:
    """Takes the D bits of all users of frames; from here on a write shows anew. The frames count as clean."""
    lifted = [lift(m, frame) for frame in frames]
    done = False
    try:
        yield from withdraw(m, [page for one in lifted for page in one.taken])
        done = True
    finally:
        for one in lifted:
            if done:
                one.taken = [page._replace(entry=page.entry & ~(D_BIT | HELD)) for page in one.taken]
            put_down(m, one, held=not done)
    for frame in frames:
        m.frames.flags[frame] &= ~DIRTY & 0xFF


def _ask(
    m: Machine, supply: Supply, entity: MemoryObject, page: int, frames: list[int], shown: tuple[int, ...], data: bytes
) -> Step[None]:
    """Asks the supplier to keep pages and waits for the answer; what was not kept is dirty again."""
    kept = False
    try:
        if supply.closing:
            raise _failed(entity, "SUPPLIER_GONE")
        message = Keep(supply.next_sequence(), entity.handle, page, len(frames), shown, data)
        question = supply.asked[message.sequence] = Question(message, tuple(frames))
        m.tell_supplier(supply, message)
        while question.kept is None:
            yield WaitFor(supply_answer_key(supply.id, message.sequence))
        if question.kept:
            raise _failed(entity, question.kept)
        kept = True
        for frame in frames:
            m.forget_copy(frame)  # the supplier's is newer
    finally:
        if not kept:
            for frame in frames:
                m.soil(frame)


def _failed(entity: MemoryObject, reason: str) -> DataLoss | Unavailable:
    if reason == "SUPPLIER_GONE":
        return Unavailable(
            f"The supplier of object o-{entity.number} went while it was to keep pages.",
            reason="SUPPLIER_GONE",
            next_step="Supply the object again; its changes stay in RAM.",
        )
    return DataLoss(
        f"The supplier of object o-{entity.number} could not keep its changes: {reason}.",
        reason="WRITE_BACK_FAILED",
        next_step="The pages stay in RAM, changed; repair the supplier's medium, and repeat.",
        supplier_reason=reason,
    )


def kept(m: Machine, supply: Supply, sequence: int, failure: str) -> None:
    """Takes the answer to a keep."""
    question = supply.answered(sequence, Keep)
    question.kept = failure
    m.ports.wake(supply_answer_key(supply.id, sequence), True)
