"""Opening a hold, and answering what its holder wants (ADR 0002)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lamina_kit.effects import Step
from lamina_kit.errors import AlreadyExists, InvalidArgument, ResourceExhausted
from lamina_kit.paging import NX, PAGE_SHIFT, PAGE_SIZE, RW
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.hold import Grant, Hold, Opened, Refusal
from lamina_mmu.domain.spaces.space import Kind
from lamina_mmu.domain.tables.entry import HELD, frame_of
from lamina_mmu.domain.tables.table import update
from lamina_mmu.engines.model.faults.fault import fault
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.spaces.extents import grant_extent
from lamina_mmu.engines.model.withdrawal.holders import split_extent

MOST_WANTS = 1024
"""Wants of one holder that may be unanswered at once."""


def open_hold(m: Machine, handle: Handle, eptp: int, owner: str) -> Hold:
    """Opens a hold on a space of kind GUEST_RAM."""
    space = m.spaces.get(handle)
    if space.kind != Kind.GUEST_RAM:
        raise InvalidArgument(
            f"Space s-{space.number} is a process; its tables are the MMU's own.",
            reason="SPACE_NOT_HOLDABLE",
            next_step="Hold a space of kind KIND_GUEST_RAM.",
        )
    if space.holder:
        raise AlreadyExists(
            f"Space s-{space.number} has a holder.", reason="SPACE_HELD", next_step="End the other hold first."
        )
    frame = eptp >> PAGE_SHIFT
    if eptp and (eptp % PAGE_SIZE or frame >= m.frames.count or m.frames.use[frame] != Use.ALLOCATED):
        raise InvalidArgument(
            f"{eptp:#x} is not the address of a frame that AllocateFrames gave out.",
            reason="ROOT_NOT_ALLOCATED",
            next_step="Allocate the frame of the second-stage root here, or leave it 0.",
        )
    hold = Hold(space.id, space.generation, eptp, owner)
    m.add_hold(hold)
    space.holder = hold.id
    m.post(hold, Opened())
    m.record(m.names.space(space.number), "hold.opened", owner=owner, hold=hold.id)
    return hold


def want(m: Machine, hold: Hold, sequence: int, address: int, access: int) -> Step[None]:
    """Answers a want with a grant or a refusal in the outbox; says nothing when the hold ended meanwhile.

    The entry is marked HELD and the grant put into the outbox in one change. An extent that the page is held as a part
    of is split first.
    """
    with _counted(hold):
        yield from _grant_page(m, hold, sequence, address, access)


def want_extent(
    m: Machine, hold: Hold, sequence: int, address: int, access: int, size: int, pinned: bool
) -> Step[None]:
    """Answers a want of an extent of `size` bytes with it, or, where there is none, as `want` does."""
    with _counted(hold):
        if not (yield from grant_extent(m, hold, sequence, address, access, size, pinned)):
            yield from _grant_page(m, hold, sequence, address, access)


@contextmanager
def _counted(hold: Hold) -> Iterator[None]:
    """Counts a want while it has no answer; TOO_MANY_WANTS for one too many."""
    if hold.wants >= MOST_WANTS:
        raise ResourceExhausted(
            f"Hold {hold.id} has {MOST_WANTS} wants without an answer.",
            reason="TOO_MANY_WANTS",
            next_step="Wait for grants before asking for more.",
        )
    hold.wants += 1
    try:
        yield
    finally:
        hold.wants -= 1


def _grant_page(m: Machine, hold: Hold, sequence: int, address: int, access: int) -> Step[None]:
    while True:
        result = yield from fault(m, Handle(hold.space, hold.generation), address, access)
        if hold.closing:
            return
        if result.refused:
            m.post(hold, Refusal(sequence, address, result.outcome))
            return
        extent = hold.extent_of(address)
        if extent is None:
            break
        yield from split_extent(m, hold, extent)
    vpn = address >> PAGE_SHIFT
    entry = update(m.spaces.slot(hold.space).table, vpn, 0, HELD)
    grant = Grant(sequence, vpn << PAGE_SHIFT, frame_of(entry), bool(entry & RW), not entry & NX, result.outcome)
    m.post(hold, grant)
