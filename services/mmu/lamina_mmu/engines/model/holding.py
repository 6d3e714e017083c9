"""What the MMU asks of a holder, and the end of a hold (ADR 0002).

A page of a held space is HELD from its grant until the holder acknowledged its revocation, was fenced, or ended the
stream. Only then may the frame be used for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import Aborted, LaminaError
from lamina_kit.paging import DIRTY, PAGE_SIZE, RW
from lamina_mmu.domain.effects import Answer, Shootdown, answer_key, ended_key, outbox_key
from lamina_mmu.domain.entry import HELD, frame_of, is_present
from lamina_mmu.domain.hold import BATCH, Age, Hold, Message, PageBits, Question, Revocation
from lamina_mmu.domain.space import Space
from lamina_mmu.domain.table import entries, update
from lamina_mmu.engines.model.machine import Machine

VOID = 1 << 11
"""An EPT entry that is not present and not 0. Source: Intel SDM vol. 3, 30.3.2 (R, W, X clear; bit 11 ignored)."""
ALL_PAGES = 1 << 36
"""End of every space's page numbers."""


def acknowledge(m: Machine, hold: Hold, number: int, bits: Sequence[PageBits]) -> None:
    """Takes a holder's answer to a revocation or an age: dirty pages are noted, whoever waits goes on.

    Bits of pages that were not asked for are passed over, and so is an answer that comes after the hold's end.
    """
    if hold.closing and number not in hold.asked:
        return
    question = hold.answered(number)
    for page in bits:
        frame = question.pages.get(page.address)
        if frame is None:
            continue
        if page.dirty:
            m.soil(frame)
        if page.accessed:
            question.accessed.add(page.address)
    m.ports.wake(answer_key(hold.id, number), True)


def revoke(m: Machine, hold: Hold, pages: Sequence[tuple[int, int]], write_only: bool = False) -> Step[None]:
    """Takes (address, frame) pages back from a holder; when it returns the holder has them no longer."""
    yield from _ask(m, hold, pages, lambda number, part: Revocation(number, part, write_only))


def sample(m: Machine, hold: Hold, pages: Sequence[tuple[int, int]]) -> Step[set[int]]:
    """Returns which of (address, frame) pages the holder accessed since it was last asked; it clears the bits."""
    return (yield from _ask(m, hold, pages, Age))


def _ask(
    m: Machine, hold: Hold, pages: Sequence[tuple[int, int]], message: Callable[[int, tuple[int, ...]], Message]
) -> Step[set[int]]:
    """Asks in parts of BATCH pages, all at once, and waits for every answer; returns the addresses accessed.

    A hold that is ending is not asked but waited for: until its second stage is empty its pages may still be written.
    """
    if hold.closing:
        for _, frame in pages:
            m.soil(frame)
        yield from _until_ended(m, hold)
        return set()
    questions: list[tuple[int, Question]] = []
    for start in range(0, len(pages), BATCH):
        part = pages[start : start + BATCH]
        number = hold.ask(part)
        questions.append((number, hold.asked[number]))
        m.post(hold, message(number, tuple(address for address, _ in part)))
    accessed: set[int] = set()
    for number, question in questions:
        while not question.done:
            if (yield Answer(answer_key(hold.id, number))) is None and not question.done:
                yield from _fence(m, hold, number)
        accessed |= question.accessed
    return accessed


def _fence(m: Machine, hold: Hold, number: int) -> Step[None]:
    error = Aborted(
        f"Hold {hold.id} left question {number} unanswered for 1 s; all its grants are void.",
        reason="HOLDER_FENCED",
        next_step="Stop the contexts that use these pages, then open a new hold.",
    )
    if not hold.closing:
        name = m.names.space(m.spaces.slot(hold.space).number)
        m.record(name, "hold.fenced", rule="an answer is due within 1 s", hold=hold.id, question=number)
    yield from end_hold(m, hold, error)


def end_hold(m: Machine, hold: Hold, error: LaminaError | None = None) -> Step[None]:
    """Ends a hold: its second stage is emptied, its grants are void, whoever waits for it goes on.

    Every page that it could write counts as written. A hold that is ending already is waited for. When its cores cannot
    be told, nobody gets its frames any more.
    """
    if hold.closing:
        yield from _until_ended(m, hold)
        return
    hold.closing = True
    hold.ended = error
    try:
        if hold.eptp:
            _void_root(m, hold.eptp)
            yield Shootdown(0, eptp=hold.eptp)
    except LaminaError as failed:
        _keep_granted(m, hold, failed)
        raise
    finally:
        _settle(m, hold)


def _until_ended(m: Machine, hold: Hold) -> Step[None]:
    while hold.id in m.holds:
        yield WaitFor(ended_key(hold.id))


def _void_root(m: Machine, eptp: int) -> None:
    """Voids every entry of a holder's root table, so that its cores translate nothing any more.

    A grant that the holder has yet to read cannot be installed either: its compare-and-swap from 0 fails.
    """
    for address in range(eptp, eptp + PAGE_SIZE, 8):
        entry = m.ram.load64(address)
        while (found := m.ram.cas64(address, entry, VOID)) != entry:
            entry = found


def _keep_granted(m: Machine, hold: Hold, failed: LaminaError) -> None:
    """Keeps every frame that a holder has where it is for ever: its cores may go on writing to them."""
    space = m.spaces.slot(hold.space)
    frames = [frame for question in hold.asked.values() for frame in question.pages.values()]
    for _, found in entries(space.table, 0, ALL_PAGES):
        frames += [frame_of(entry) for entry in found.tolist() if entry & HELD and is_present(entry)]
    for frame in dict.fromkeys(frames):
        m.ram.pin(frame)
    m.record(m.names.space(space.number), "frames.lost", count=len(dict.fromkeys(frames)), reason=failed.reason)


def _settle(m: Machine, hold: Hold) -> None:
    space = m.spaces.slot(hold.space)
    _void_grants(m, space)
    space.holder = 0
    del m.holds[hold.id]
    for number, question in list(hold.asked.items()):
        question.done = True
        for frame in question.pages.values():
            m.soil(frame)
        m.ports.wake(answer_key(hold.id, number), True)
    hold.asked.clear()
    m.ports.wake(ended_key(hold.id), None)
    m.ports.wake(outbox_key(hold.id), None)
    reason = hold.ended.reason if hold.ended else "CLOSED"
    m.record(m.names.space(space.number), "hold.ended", hold=hold.id, reason=reason)


def _void_grants(m: Machine, space: Space) -> None:
    """Takes HELD from all entries of a space."""
    for vpns, found in entries(space.table, 0, ALL_PAGES):
        for vpn, entry in zip(vpns.tolist(), found.tolist(), strict=True):
            if entry & HELD and is_present(entry):
                old = update(space.table, vpn, HELD, 0)
                if old & (RW | DIRTY):
                    m.soil(frame_of(old))
