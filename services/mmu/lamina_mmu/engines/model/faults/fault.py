"""Resolving a fault: the document's seven steps.

    1 the access    2 the entry is not enough    3 the core raises #PF    4 the handler (here)
    5 judged:  first touch ─▶ a zeroed frame, or a page of the object       ─┐
               swapped out ─▶ a frame, read from the slot                    ├─▶ 6 the entry is written
               write to a shared page ─▶ copied, or handed to its last user ─┘
               no mapping, or not these rights ─▶ segmentation fault
               nothing left to reclaim ─▶ out of memory
    7 the instruction runs again

`attempt` does all of it in one change when it can. When a frame must be made free, or another operation works on the
page, it says so (Short, Busy), the fault yields, and starts over from the look-ups.
"""

from __future__ import annotations

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import DataLoss
from lamina_kit.paging import COW, PAGE_MASK, PAGE_SHIFT, USER_END
from lamina_mmu.domain.effects import fault_key, frame_key
from lamina_mmu.domain.fault_feed import FaultEvent
from lamina_mmu.domain.frames.table import BUSY, Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.outcome import FaultResult, Outcome, Trail
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import Vma
from lamina_mmu.domain.supply import SUPPLIED, NoContent, Refused
from lamina_mmu.domain.swap.areas import PageLost
from lamina_mmu.domain.tables.entry import (
    EXECUTE,
    READ,
    WRITE,
    frame_of,
    is_swap,
    is_transit,
    leaf,
    rights_allow,
    slot_of,
    transit,
)
from lamina_mmu.domain.tables.table import exchange, update
from lamina_mmu.engines.model.faults.around import map_around
from lamina_mmu.engines.model.faults.huge import map_huge, take_over, wants_huge
from lamina_mmu.engines.model.groups.protection import slow_down
from lamina_mmu.engines.model.machine.accounting import lost, note_fault, waiting
from lamina_mmu.engines.model.machine.state import Busy, Machine, Short
from lamina_mmu.engines.model.machine.tables import brought_up, build_tables
from lamina_mmu.engines.model.objects.objects import object_frame
from lamina_mmu.engines.model.reclaim.victims import make_room, oom_victim
from lamina_mmu.engines.model.swap.pages import swap_in
from lamina_mmu.engines.model.withdrawal.users import Taken, withdraw

ACCESS_NAMES = {READ: "read", WRITE: "write", EXECUTE: "execute"}
_OUTCOME_NAMES = {outcome: outcome.name.lower() for outcome in Outcome}
_SPURIOUS, _ZERO_FILLED, _ANONYMOUS = Outcome.SPURIOUS, Outcome.ZERO_FILLED, Use.ANONYMOUS  # look-ups in enums cost


def fault(
    m: Machine, handle: Handle, address: int, access: int, trail: Trail | None = None, force: bool = False
) -> Step[FaultResult]:
    """Makes `access` to `address` possible, or says why it is not.

    With `force` the rights of the mapping are ignored, as a debugger's writes do (private mappings only).
    """
    if not m.feed.watches:  # as almost always: one generator less
        return (yield from _resolve(m, handle, address, access, trail, force))
    number = m.spaces.get(handle).number
    if not m.feed.wants(number):
        return (yield from _resolve(m, handle, address, access, trail, force))
    began, asked = m.ports.now_ns(), trail is not None
    result = yield from _resolve(m, handle, address, access, trail or Trail(m.ports.now_ns), force)
    if asked or result.outcome != Outcome.SPURIOUS:
        m.feed.add(FaultEvent(number, address, access, began, m.ports.now_ns() - began, result))
    return result


def _resolve(
    m: Machine, handle: Handle, address: int, access: int, trail: Trail | None, force: bool
) -> Step[FaultResult]:
    work = _Fault(m, handle, address, access, trail, force)
    try:
        if m.slows_down:
            yield from slow_down(m, m.spaces.get(handle), address >> PAGE_SHIFT)
        while True:
            try:
                result = work.attempt()
                if result is None:
                    yield from work.copy()
                    continue
            except Busy as busy:
                work.note("page.awaited", f"another operation has the page: {busy.key}")
                told = yield WaitFor(busy.key)
                if not isinstance(told, Refused):
                    work.supplied = told == SUPPLIED
                    continue
                result = work.bus_error(told.reason)
            except NoContent as missing:
                result = work.bus_error(missing.reason)
            except PageLost:
                result = work.bus_error("PAGE_LOST")
            except Short as short:
                work.claim()
                work.note("frame.missing", f"{short.group.name} has no frame to give")
                if (yield from work.make_room(short)):
                    continue
                result = work.out_of_memory(short)
            return result
    finally:
        if work.claimed:
            work.close()


class _Fault:
    """One fault at work. What it found is valid until its next yield."""

    outcome = _SPURIOUS
    claimed = supplied = was_read = made_room = False
    source = around = entry = 0
    space: Space
    vma: Vma

    def __init__(self, m: Machine, handle: Handle, address: int, access: int, trail: Trail | None, force: bool) -> None:
        self.m, self.handle, self.address = m, handle, address
        self.access, self.trail, self.force = access, trail, force
        self.vpn = address >> PAGE_SHIFT

    def note(self, step: str, detail: str) -> None:
        """Adds a step to the trail, if somebody wants to see it."""
        if self.trail is not None:
            self.trail.add(step, detail)

    def cause(self) -> str:
        """Returns the page as the cause of what is evicted for it."""
        return self.m.names.page(self.space.number, self.vpn)

    def claim(self) -> None:
        """Makes other faults on the page wait until this one is done."""
        self.m.faulting.add(fault_key(self.space.id, self.vpn))
        self.claimed = True

    def make_room(self, short: Short) -> Step[bool]:
        """Reclaims from the group at its limit; returns whether it is worth trying again.

        The page that is to be copied stays in RAM meanwhile: otherwise it could be the one that is evicted, for ever.
        """
        m, source = self.m, self.source
        self.made_room = True
        if source:
            m.keep(source)
        try:
            with waiting(m, self.space):
                return (yield from make_room(m, short.group, self.cause(), m.page_of(self.space, self.vma, self.vpn)))
        finally:
            if source:
                m.drop(source)

    def close(self) -> None:
        """Lets the other faults on the page go on."""
        key = fault_key(self.space.id, self.vpn)
        self.m.faulting.discard(key)
        self.m.ports.wake(key, None)

    # ── judging ──────────────────────────────────────────────────────────────────────────────────────────────────

    def attempt(self) -> FaultResult | None:
        """Resolves the fault in one change; None when the page must be copied, which takes a yield."""
        m = self.m
        self.source = 0
        self.space = space = m.spaces.get(self.handle)
        first = self.trail is not None and not self.trail.steps
        if first:
            self.note_entry()
        vma = space.vmas.at(self.address) if self.address < USER_END else None
        if vma is None:
            vma = self.grown_vma()
            if vma is None:
                return self.segmentation_fault("no mapping covers the address")
        self.vma = vma
        allowed = vma.rights & self.access or rights_allow(vma.rights, self.access)
        if not allowed and not (self.force and not vma.shared):
            return self.segmentation_fault(f"the mapping does not allow to {ACCESS_NAMES[self.access]}")
        if first:
            self.note("vma.found", f"{vma.start:#x}-{vma.end:#x} {vma.label}: the address is valid")
        self.entry = entry = space.table.load(self.vpn)
        if entry and is_transit(entry):
            raise Busy(frame_key(frame_of(entry)))
        if m.faulting and not self.claimed and fault_key(space.id, self.vpn) in m.faulting:
            raise Busy(fault_key(space.id, self.vpn))
        if not entry:
            if wants_huge(space, vma, self.vpn) and map_huge(m, space, vma, self.vpn):
                self.outcome = Outcome.ZERO_FILLED
                self.note("frames.allocated", "512 in a row, zeroed, for a huge page of 2 MiB")
                return self.finish()
            if space.table.missing(self.vpn):
                for table in build_tables(m, space, self.vpn):
                    self.note("table.allocated", f"frame {table}")
            return self.first_touch()
        if is_swap(entry):
            entry = self.read_swap()
        if self.access == WRITE and self.must_copy(entry):
            return None
        return self.finish()

    def grown_vma(self) -> Vma | None:
        """Returns the mapping above the address, which none covers, grown down to it if it may."""
        if self.address >= USER_END:
            return None
        vmas = self.space.vmas
        vma = vmas.growable(self.address)
        if vma is None or not self.space.may_grow(vma):
            return None
        vmas.grow(vma)
        self.note("vma.grown", f"{vma.label or 'the mapping'} now begins at {vma.start:#x}")
        return vma

    def must_copy(self, entry: int) -> bool:
        """Returns whether a write to a page in RAM needs a copy; hands a page over to its last user."""
        m = self.m
        if not entry & COW:
            return False
        frame = frame_of(entry)
        frames = m.frames
        if frames.flags[frame] & BUSY:
            raise Busy(frame_key(frame))
        slot = frames.slot[frame] - 1
        if frames.use[frame] != Use.ANONYMOUS or frames.refs[frame] > 1 or (slot >= 0 and m.swap.refs[slot]):
            return True
        if not take_over(m, self.space, self.vma, self.vpn):
            update(self.space.table, self.vpn, COW, leaf(frame, self.vma.rights, False))
        self.outcome = Outcome.COPIED if self.outcome == Outcome.SPURIOUS else self.outcome
        self.note("page.taken_over", f"frame {frame} has no other user")
        return False

    # ── filling ──────────────────────────────────────────────────────────────────────────────────────────────────

    def first_touch(self) -> FaultResult:
        """Maps a page that has no entry yet."""
        m, vma = self.m, self.vma
        if not vma.object:
            frame = m.take_zeroed(_ANONYMOUS, self.space.group)
            if self.trail is not None:
                self.note("frame.allocated", f"frame {frame} from the free list")
                self.note("page.zeroed", f"frame {frame}")
            m.policy.add(frame, self.space.group)
            self.outcome = _ZERO_FILLED
            return self.install(frame, cow=False)
        entity = m.objects.slot(vma.object)
        page = vma.object_page(self.vpn)
        if page >= entity.pages:
            if entity.supplied or entity.resized:
                raise NoContent("BEYOND_OBJECT")
            return self.segmentation_fault(f"page {page} is beyond the end of object o-{entity.number}")
        frame, was_read = object_frame(m, entity, page)
        self.was_read = was_read or self.supplied
        how = "read from swap" if was_read else "brought by its supplier" if self.supplied else "in RAM"
        self.note("object.page", f"page {page} of o-{entity.number} is in frame {frame} ({how})")
        if self.access == WRITE and not vma.shared:
            return self.private_copy(frame)
        here = Outcome.SUPPLIED if self.supplied else Outcome.OBJECT_MAPPED
        self.outcome = Outcome.SWAPPED_IN if was_read else here
        if self.access != WRITE:
            self.around = map_around(m, self.space, vma, self.vpn)
            self.note("pages.around", f"{self.around} more pages of o-{entity.number} in RAM were mapped")
        return self.install(frame, cow=not vma.shared)

    def private_copy(self, source: int) -> FaultResult:
        """Maps a copy of an object's page that the space never saw: a write comes first, so nothing is taken away."""
        m, self.source = self.m, source
        frame = m.take(Use.ANONYMOUS, self.space.group)
        m.ram.copy_frame(source, frame)
        m.soil(frame)
        m.policy.add(frame, self.space.group)
        self.note("page.copied", f"frame {source} to frame {frame}")
        self.outcome = Outcome.COPIED
        return self.install(frame, cow=False)

    def read_swap(self) -> int:
        """Brings a page back from swap; returns its new entry."""
        m, slot = self.m, slot_of(self.entry)
        try:
            with waiting(m, self.space):
                frame, was_read = swap_in(m, slot, self.space.group)
        except DataLoss as error:
            lost(m, self.space, self.address, error)
            raise
        self.was_read = was_read
        self.note("page.read", f"frame {frame} {'from' if was_read else 'still holds'} slot {slot}")
        m.swap.refs[slot] -= 1
        self.space.swapped -= 1
        shared = m.swap.refs[slot] > 0 or m.frames.refs[frame] > 0
        self.outcome = Outcome.SWAPPED_IN
        entry = leaf(frame, self.vma.rights, shared)
        exchange(self.space.table, self.vpn, entry)
        m.note_mapped(self.space, self.vpn, frame)
        return entry

    def install(self, frame: int, cow: bool) -> FaultResult:
        """Writes the entry for a page that had none."""
        entry, table = leaf(frame, self.vma.rights, cow), self.space.table
        if table.cas(self.vpn, 0, entry):
            exchange(table, self.vpn, entry)
        self.m.note_mapped(self.space, self.vpn, frame)
        return self.finish(frame, entry)

    def copy(self) -> Step[None]:
        """Gives the space a frame of its own with the shared page's content. The page is in transit meanwhile."""
        m, space, vpn = self.m, self.space, self.vpn
        entry = space.table.load(vpn)
        self.source = old = frame_of(entry)
        new = m.take(Use.ANONYMOUS, space.group)
        m.keep(new)
        self.note("frame.allocated", f"frame {new} from the free list")
        m.set_busy(old, True)
        entry = exchange(space.table, vpn, transit(entry))
        done = False
        try:
            yield from withdraw(m, [Taken(space.id, vpn, entry)])
            self.note("translations.dropped", f"no core and no holder uses frame {old} for this page")
            m.ram.copy_frame(old, new)
            m.soil(new)
            vma = space.vmas.at(self.address)
            rights = vma.rights if vma is not None else 0
            exchange(space.table, vpn, leaf(new, rights, False))
            m.policy.add(new, space.group)
            m.note_mapped(space, vpn, new)
            m.note_unmapped(space, vpn, old, entry)
            done = True
            self.outcome = Outcome.COPIED if self.outcome != Outcome.SWAPPED_IN else self.outcome
            self.note("page.copied", f"frame {old} to frame {new}")
        finally:
            if not done:
                exchange(space.table, vpn, entry)
            m.set_busy(old, False)
            if done:
                m.drop(old)
            m.drop(new)

    # ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self, frame: int = 0, entry: int = 0) -> FaultResult:
        """Returns the result for a page in RAM: of an entry that was just written with its frame, or as it stands.

        One that lags behind its mapping's rights is brought up.
        """
        if not frame:
            entry = brought_up(self.space.table, self.vpn, self.vma.rights, 0 if self.force else self.access)
            frame = frame_of(entry)
        if self.outcome != _SPURIOUS:
            self.count()
        if self.trail is None:
            return FaultResult(self.outcome, frame, entry)
        self.note("entry.written", f"{entry:#x} at page {self.vpn:#x}")
        self.note("access.restarted", f"the {ACCESS_NAMES[self.access]} runs again and finds frame {frame}")
        evicted = self.made_room and self.m.feed.was_evicted_for(frame, self.cause())
        return FaultResult(self.outcome, frame, entry, self.trail.steps, around=self.around, evicted=evicted)

    def count(self) -> None:
        """Adds the fault to the space's counters: what read bytes from somewhere is major, all else minor."""
        m, space = self.m, self.space
        space.major_faults += self.was_read
        space.minor_faults += not self.was_read
        space.cow_faults += self.outcome == Outcome.COPIED
        note_fault(m, space, self.vma, self.vpn, self.outcome, self.was_read)
        outcome, access = _OUTCOME_NAMES[self.outcome], ACCESS_NAMES[self.access]
        m.record(m.names.page(space.number, self.vpn), "page.faulted", outcome=outcome, access=access)

    def segmentation_fault(self, why: str) -> FaultResult:
        """Refuses the access: its mapping, or the lack of one, does not allow it."""
        return self._refuse(Outcome.SEGMENTATION_FAULT, why)

    def bus_error(self, reason: str) -> FaultResult:
        """Refuses an access that its mapping allows and that has no content."""
        result = self._refuse(Outcome.BUS_ERROR, reason)
        result.refusal_reason = reason
        return result

    def _refuse(self, outcome: Outcome, why: str) -> FaultResult:
        self.space.refused_faults += 1
        self.note("access.refused", why)
        page, rule = self.m.names.page(self.space.number, self.vpn), outcome.name.lower().replace("_", " ")
        self.m.record(page, "fault.refused", rule=rule, access=ACCESS_NAMES[self.access], why=why)
        return FaultResult(outcome, steps=self.trail.steps if self.trail else ())

    def out_of_memory(self, short: Short) -> FaultResult:
        """Gives up: names the group at its limit and the space in it that holds most."""
        self.note("memory.exhausted", f"nothing in {short.group.name} can be reclaimed")
        victim = oom_victim(self.m, short.group, self.cause())
        steps = self.trail.steps if self.trail else ()
        return FaultResult(Outcome.OUT_OF_MEMORY, steps=steps, limit_group=short.group.name, victim_space=victim)

    def note_entry(self) -> None:
        """Notes the steps before the handler: the access, what the core found, the exception."""
        entry = self.space.table.load(self.vpn)
        place = f"{self.address:#x}: page {self.vpn:#x}, offset {self.address & PAGE_MASK:#x}"
        self.note("access.attempted", f"{ACCESS_NAMES[self.access]} at {place}")
        self.note("table.checked", f"entry {entry:#x}, P = {entry & 1}")
        self.note("fault.raised", "page not present" if not entry & 1 else "the entry does not allow it")
        self.note("handler.entered", f"space s-{self.space.number}")
