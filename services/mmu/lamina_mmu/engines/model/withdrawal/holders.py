"""What the MMU asks of a holder, and the end of a hold (ADR 0002).

A page of a held space is HELD from its grant until the holder acknowledged its revocation, was fenced, or ended the
stream. Only then may the frame be used for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import Aborted, LaminaError
from lamina_kit.paging import DIRTY, PAGE_SIZE, RW
from lamina_mmu.domain.effects import Answer, Shootdown, answer_key, ended_key, outbox_key
from lamina_mmu.domain.hold import (
    BATCH,
    Age,
    ExtentRevocation,
    HeldExtent,
    Hold,
    Message,
    PageBits,
    Question,
    Revocation,
)
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.tables.entry import HELD, frame_of, is_present
from lamina_mmu.domain.tables.table import entries, update
from lamina_mmu.engines.model.machine.state import Machine

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
        if page.address not in question.pages:
            continue
        if page.dirty:
            for frame in question.frames(page.address):
                m.soil(frame)
        if page.accessed:
            question.accessed.add(page.address)
    m.ports.wake(answer_key(hold.id, number), True)


def revoke(m: Machine, hold: Hold, pages: Sequence[tuple[int, int]], write_only: bool = False) -> Step[None]:
    """Takes (address, frame) pages back from a holder; when it returns the holder has them no longer.

    Extents that all pages are taken of go whole; those of which some are, are split first. For the MMU they are no
    extents from the message on.
    """
    if hold.closing:
        yield from _wait_for_end(m, hold, pages)
        return
    questions: list[tuple[int, Question]] = []
    if hold.extents:
        given = {address for address, _ in pages}
        touched = _extents_of(hold, pages)
        whole = [one for one in touched if not write_only and given.issuperset(_addresses(one))]
        questions += _post_extents(m, hold, [one for one in touched if one not in whole], split=True)
        questions += _post_extents(m, hold, whole, split=False)
        gone = {address for one in whole for address in _addresses(one)}
        pages = [page for page in pages if page[0] not in gone]
    questions += _post(m, hold, pages, lambda number, part: Revocation(number, part, write_only))
    yield from _answers(m, hold, questions)


def split_extent(m: Machine, hold: Hold, extent: HeldExtent) -> Step[None]:
    """Has a holder split an extent: its pages are held one by one from here on, A and D of the whole are known."""
    yield from _answers(m, hold, _post_extents(m, hold, [extent], split=True))


def _post_extents(m: Machine, hold: Hold, extents: Sequence[HeldExtent], split: bool) -> list[tuple[int, Question]]:
    for extent in extents:
        extent_gone(m, hold.extents.pop(extent.address))
    sizes = {extent.address: extent.pages for extent in extents}
    pages = [(extent.address, extent.frame) for extent in extents]
    return _post(m, hold, pages, lambda number, part: ExtentRevocation(number, part, split), sizes)


def extent_gone(m: Machine, extent: HeldExtent) -> None:
    """Lets the pages of an extent that is one no longer move and leave RAM again, if it was pinned."""
    if not extent.pinned:
        return
    for frame in range(extent.frame, extent.frame + extent.pages):
        m.unlock_frame(frame)
        m.ram.unpin(frame)
    m.pinned_frames -= extent.pages
    m.settle()


def sample(m: Machine, hold: Hold, pages: Sequence[tuple[int, int]]) -> Step[set[int]]:
    """Returns which of (address, frame) pages the holder accessed since it was last asked; it clears the bits.

    An extent is asked about as one, so with one of its pages all of them are returned.
    """
    if hold.closing:
        yield from _wait_for_end(m, hold, pages)
        return set()
    extents = _extents_of(hold, pages) if hold.extents else []
    if not extents:
        return (yield from _answers(m, hold, _post(m, hold, pages, Age)))
    inside = {address for one in extents for address in _addresses(one)}
    single = [page for page in pages if page[0] not in inside]
    asked = sorted([*single, *((one.address, one.frame) for one in extents)])
    sizes = {one.address: one.pages for one in extents}
    accessed = yield from _answers(m, hold, _post(m, hold, asked, Age, sizes))
    for one in extents:
        if one.address in accessed:
            accessed.update(_addresses(one))
    return accessed


def _extents_of(hold: Hold, pages: Sequence[tuple[int, int]]) -> list[HeldExtent]:
    """Returns the extents that some of (address, frame) pages are parts of, in the order of the pages."""
    found = (hold.extent_of(address) for address, _ in pages)
    return list(dict.fromkeys(one for one in found if one is not None))


def _addresses(extent: HeldExtent) -> range:
    return range(extent.address, extent.address + extent.size, PAGE_SIZE)


def _post(
    m: Machine,
    hold: Hold,
    pages: Sequence[tuple[int, int]],
    message: Callable[[int, tuple[int, ...]], Message],
    sizes: Mapping[int, int] | None = None,
) -> list[tuple[int, Question]]:
    """Asks in parts of BATCH pages; `sizes` tells which of them are extents, of how many pages."""
    questions: list[tuple[int, Question]] = []
    for start in range(0, len(pages), BATCH):
        part = pages[start : start + BATCH]
        number = hold.ask(part, sizes)
        questions.append((number, hold.asked[number]))
        m.post(hold, message(number, tuple(address for address, _ in part)))
    return questions


def _answers(m: Machine, hold: Hold, questions: Sequence[tuple[int, Question]]) -> Step[set[int]]:
    """Waits for every answer; returns the addresses accessed."""
    accessed: set[int] = set()
    for number, question in questions:
        while not question.done:
            if (yield Answer(answer_key(hold.id, number))) is None and not question.done:
                yield from _fence(m, hold, number)
        accessed |= question.accessed
    return accessed


def _wait_for_end(m: Machine, hold: Hold, pages: Sequence[tuple[int, int]]) -> Step[None]:
    """Waits for a hold that is ending: until its second stage is empty its pages may still be written."""
    for _, frame in pages:
        m.soil(frame)
    yield from _until_ended(m, hold)


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
    asked = hold.asked.values()
    frames = [frame for question in asked for address in question.pages for frame in question.frames(address)]
    for _, found in entries(space.table, 0, ALL_PAGES):
        frames += [frame_of(entry) for entry in found.tolist() if entry & HELD and is_present(entry)]
    for frame in dict.fromkeys(frames):
        m.ram.pin(frame)
    m.record(m.names.space(space.number), "frames.lost", count=len(dict.fromkeys(frames)), reason=failed.reason)


def _settle(m: Machine, hold: Hold) -> None:
    space = m.spaces.slot(hold.space)
    _void_grants(m, space)
    for extent in hold.extents.values():
        extent_gone(m, extent)
    hold.extents.clear()
    space.holder = 0
    del m.holds[hold.id]
    for number, question in list(hold.asked.items()):
        question.done = True
        for address in question.pages:
            for frame in question.frames(address):
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
