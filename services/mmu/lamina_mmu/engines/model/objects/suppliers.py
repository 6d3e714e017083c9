"""Suppliers of objects: opening a stream, demanding pages, taking answers, the end (ADR 0012, a fault in a mapping).

fault ──▶ page absent ──▶ frames, TRANSIT in the object's table ──▶ demand ──▶ filled ──▶ whoever waits goes on
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina_kit.effects import Step
from lamina_kit.errors import Aborted, AlreadyExists, InvalidArgument, LaminaError
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE, PRESENT
from lamina_mmu.domain.effects import Answer, frame_key, supply_answer_key, supply_outbox_key
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.supply import SUPPLIED, Demand, Keep, NoContent, Opened, Question, Refused, Supply
from lamina_mmu.domain.tables.entry import transit
from lamina_mmu.engines.model.machine.state import Busy, Machine

ANSWER_NS = 30_000_000_000
"""How long a supplier may leave a demand or a keep unanswered."""


def open_supply(m: Machine, owner: str) -> Supply:
    """Begins a stream without objects."""
    supply = Supply(owner)
    m.add_supply(supply)
    return supply


def add_objects(
    m: Machine, supply: Supply, objects: Sequence[Handle], maps_memory: bool, keeps_writes: bool, readahead: int
) -> None:
    """Makes a stream the supplier of objects, all or none."""
    found = [m.objects.get(handle) for handle in objects]
    for entity in found:
        if entity.supplier:
            raise AlreadyExists(
                f"Object o-{entity.number} is supplied already.",
                reason="OBJECT_SUPPLIED",
                next_step="End the other stream first.",
            )
    supply.maps_memory = maps_memory
    for entity in found:
        entity.supplier, entity.supplied = supply.id, True
        entity.keeps_writes, entity.readahead = keeps_writes, readahead
        supply.objects[entity.id] = entity.handle
        m.record(m.names.object(entity.number), "object.supplied", owner=supply.owner, keeps_writes=keeps_writes)
    m.tell_supplier(supply, Opened(len(supply.objects)))


# ── demands ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def demand(m: Machine, entity: MemoryObject, page: int) -> Busy:
    """Demands an absent page of a supplied object, and those behind it; returns what to wait for.

    Raises Short when not even the first page has a frame, NoContent when the supplier is gone.
    """
    supply = m.supplies.get(entity.supplier)
    if supply is None or supply.closing:
        raise NoContent("SUPPLIER_GONE")
    take = m.take_zeroed if supply.maps_memory else m.take  # what a supplier leaves out must not show other's bytes
    frames = [take(Use.OBJECT, entity.group, entity.id, page)]
    end = min(page + entity.readahead, entity.pages)
    while page + len(frames) < end and not entity.table.load(page + len(frames)):
        if m.frames.free <= m.high or m.groups.over(entity.group) is not None:
            break
        frames.append(take(Use.OBJECT, entity.group, entity.id, page + len(frames)))
    for offset, frame in enumerate(frames):
        m.set_busy(frame, True)
        entity.table.cas(page + offset, 0, transit(frame << PAGE_SHIFT))
    entity.mappings += 1  # keeps a deleted object until the answer
    shown = tuple(frames) if supply.maps_memory else ()
    message = Demand(supply.next_sequence(), entity.handle, page, len(frames), shown)
    supply.asked[message.sequence] = Question(message, tuple(frames))
    m.tell_supplier(supply, message)
    return Busy(frame_key(frames[0]))


def filled(m: Machine, supply: Supply, sequence: int, data: bytes, pages: int, failure: str) -> None:
    """Takes the answer to a demand."""
    question = supply.answered(sequence, Demand)
    message = question.message
    try:
        count = _checked(supply, message, data, pages, failure)
    except LaminaError:
        supply.asked[sequence] = question  # the stream ends, and with it what it owes
        raise
    if question.stale:
        count, failure = 0, ""
    for index in range(count):
        _land(m, message, index, question.frames[index], data)
    _give_up(m, question, count, failure)
    m.ports.wake(supply_answer_key(supply.id, sequence), True)
    m.unlink_object(message.object.id, 1)


def _checked(supply: Supply, message: Demand | Keep, data: bytes, pages: int, failure: str) -> int:
    """Returns how many pages an answer has; SUPPLY_MALFORMED when it contradicts itself or the demand."""
    count = pages or -(-len(data) // PAGE_SIZE)
    why = ""
    if not 0 <= count <= message.pages:
        why = f"it has {count} pages, of {message.pages} demanded"
    elif data and count != -(-len(data) // PAGE_SIZE):
        why = f"{len(data)} bytes are not {count} pages"
    elif count and not data and not supply.maps_memory:
        why = "it has no bytes, and the supplier does not map memory"
    elif bool(count) == bool(failure):
        why = "it has neither the first page nor a failure" if not count else "it has pages and a failure"
    elif failure and not _is_reason(failure):
        why = "its failure is not UPPER_SNAKE of 2 to 63 characters"
    if why:
        raise InvalidArgument(
            f"The answer to demand {message.sequence} is wrong: {why}.",
            reason="SUPPLY_MALFORMED",
            next_step="Answer with whole pages from the first one demanded, or with the reason why it is not there.",
        )
    return count


def _is_reason(text: str) -> bool:
    plain = text.replace("_", "A")
    return 2 <= len(text) <= 63 and plain.isascii() and plain.isalnum() and plain.isupper() and text[0] != "_"


def _land(m: Machine, message: Demand | Keep, index: int, frame: int, data: bytes) -> None:
    """Makes one page that came the object's, clean."""
    entity, page = m.objects.slot(message.object.id), message.first + index
    if data:
        part = data[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]
        m.ram.write(frame << PAGE_SHIFT, part + bytes(PAGE_SIZE - len(part)))
    beyond = (page + 1) * PAGE_SIZE - entity.size
    if beyond > 0:
        m.ram.write(((frame + 1) << PAGE_SHIFT) - beyond, bytes(beyond))
    entity.table.cas(page, transit(frame << PAGE_SHIFT), frame << PAGE_SHIFT | PRESENT)
    entity.resident += 1
    m.keep(frame)
    m.policy.add(frame, entity.group)
    m.ports.wake(frame_key(frame), SUPPLIED)
    m.set_busy(frame, False)


def _give_up(m: Machine, question: Question, first: int, failure: str) -> None:
    """Takes frames back that were not filled; who waits for the first page is told why, the others try again."""
    message = question.message
    entity = m.objects.slot(message.object.id)
    for index in range(first, len(question.frames)):
        frame = question.frames[index]
        entity.table.cas(message.first + index, transit(frame << PAGE_SHIFT), 0)
        if failure and index == first:
            m.ports.wake(frame_key(frame), Refused(failure))
        m.set_busy(frame, False)
        m.release(frame)


def watch(m: Machine, supply: Supply, sequence: int) -> Step[None]:
    """Ends a stream that leaves a question unanswered for 30 s."""
    if (yield Answer(supply_answer_key(supply.id, sequence), ANSWER_NS)) is None and sequence in supply.asked:
        error = Aborted(
            f"Supply {supply.id} left {sequence} unanswered for 30 s.",
            reason="SUPPLIER_SILENT",
            next_step="Answer each demand and each keep, with a failure if need be; then open a new stream.",
        )
        end_supply(m, supply, error, silent=True)


def end_supply(m: Machine, supply: Supply, error: LaminaError | None = None, silent: bool = False) -> None:
    """Ends a stream: what it owes is not coming, its objects have no supplier. Idempotent.

    A supplier that maps memory and fell silent may still write to the frames that it was to fill: nobody gets them.
    """
    if supply.closing:
        return
    supply.closing, supply.ended = True, error
    del m.supplies[supply.id]
    for handle in supply.objects.values():
        entity = m.objects.find(handle.id)
        if entity is not None and entity.generation == handle.generation:
            entity.supplier = 0
    for sequence, question in list(supply.asked.items()):
        if isinstance(question.message, Demand):
            if silent and supply.maps_memory:
                for frame in question.frames:
                    m.ram.pin(frame)
                m.record(m.names.frame(question.frames[0]), "frames.lost", count=len(question.frames), reason="SILENT")
            _give_up(m, question, 0, "SUPPLIER_GONE")
            m.unlink_object(question.message.object.id, 1)
        else:
            question.kept = "SUPPLIER_GONE"
        m.ports.wake(supply_answer_key(supply.id, sequence), True)
    supply.asked.clear()
    m.ports.wake(supply_outbox_key(supply.id), None)
    m.record(supply.owner, "supply.ended", supply=supply.id, reason=error.reason if error else "CLOSED")
