"""The state of the model engine, and the small transitions that all operations are made of.

Each method here is one indivisible change: it yields nothing. Invariants that hold whenever an operation yields:

    refs(frame) = entries that name it (rmap) + 1 for an object's page + operations in progress that keep it
    dirty(frame) not set and no D bit anywhere  ⇒  the content equals the frame's swap slot, or zeros without one
    an entry says TRANSIT  ⇔  exactly one operation in progress will replace it, and wakes the frame's key then
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from lamina_kit.paging import DIRTY as D_BIT
from lamina_kit.paging import PAGE_SHIFT
from lamina_mmu.domain.effects import PRESSURE, ZEROED, supply_outbox_key
from lamina_mmu.domain.fault_feed import FaultFeed
from lamina_mmu.domain.frames.buddy import HUGE_ORDER
from lamina_mmu.domain.frames.rmap import ReverseMap
from lamina_mmu.domain.frames.table import BUSY, DIRTY, HUGE_FRAMES, FrameTable, Use
from lamina_mmu.domain.groups.events import GroupEvents
from lamina_mmu.domain.groups.group import Group, GroupTree
from lamina_mmu.domain.groups.shadows import Shadows
from lamina_mmu.domain.handles import HandleTable
from lamina_mmu.domain.hold import Hold, Message
from lamina_mmu.domain.names import Names
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.policies.catalogue import OWN
from lamina_mmu.domain.policies.decisions import Evictions
from lamina_mmu.domain.policies.replacement import Replacement
from lamina_mmu.domain.policy import Policy
from lamina_mmu.domain.ports import Ports, Settings
from lamina_mmu.domain.requests import RequestLog
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.spaces.pin import Pin
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import LOCKED
from lamina_mmu.domain.supply import Message as ToSupplier
from lamina_mmu.domain.supply import Supply
from lamina_mmu.domain.swap.areas import FIRST, LOST, SwapSpace
from lamina_mmu.domain.tables.entry import frame_of, is_swap, slot_of
from lamina_mmu.engines.model.machine.policies import PolicyChoice

_FREE = int(Use.FREE)


def usual_watermarks(frames: int, low: int = 0) -> tuple[int, int]:
    """Returns the watermarks (low, high) of a host with so many frames; the high one of a `low` that was chosen.

    Low is a hundredth of RAM, not fewer than 32 frames (the batch of a reclaim), yet at most an eighth of RAM.
    """
    low = low or min(max(32, frames // 100), frames // 8)
    return low, low + low // 2


class Short(Exception):
    """No frame can be had: `group` is at its limit (the root group: RAM is full)."""

    def __init__(self, group: Group) -> None:
        super().__init__(group.name)
        self.group = group


class Busy(Exception):
    """Another operation works on the page: wait for `key`, then look again."""

    def __init__(self, key: Hashable) -> None:
        super().__init__(str(key))
        self.key = key


@dataclass(slots=True)
class Allocation:
    """Who allocated frames in one call, and how many are left: in extents of `extent` frames, or one by one (0)."""

    owner: str
    session: Session
    frames: int
    extent: int = 0


class Machine(PolicyChoice):
    """All state of one host's memory."""

    def __init__(self, ports: Ports, settings: Settings) -> None:
        self.policies: dict[str, type[Policy]] = {**OWN, **settings.installed}
        self.default_policy = self.live_policy(settings.policy)
        self.ports = ports
        self.ram = ports.ram
        self.record = ports.record
        self.names = Names(ports.host)
        count = min(settings.frames or ports.ram.frames, ports.ram.frames)
        self.frames = FrameTable(count)
        self.rmap = ReverseMap(count)
        self.policy = Replacement(self.frames.use, self._make_policy, self.page_number)
        self.evictions = Evictions()
        self.shadows = Shadows()
        self.group_events = GroupEvents()
        self.slows_down = self.protects = False
        self.swap = SwapSpace()
        if ports.swap.slots:
            self.swap.add(ports.swap, FIRST, 0)
        self.readahead, self.zeroed = settings.readahead, min(settings.zeroed, count // 8)
        self.groups = GroupTree()
        self.spaces: HandleTable[Space] = HandleTable("space", "s", "SPACE_UNKNOWN")
        self.objects: HandleTable[MemoryObject] = HandleTable("object", "o", "OBJECT_UNKNOWN")
        self.holds: dict[int, Hold] = {}
        self.supplies: dict[int, Supply] = {}
        self.requests = RequestLog()
        self.allocations: dict[int, Allocation] = {}
        self.faulting: set[tuple[str, int, int]] = set()
        self.pins: HandleTable[Pin] = HandleTable("pin", "pin", "PIN_UNKNOWN")
        self.pinned_frames = 0
        self.locked: dict[int, int] = {}
        self.feed = FaultFeed(ports.wake)
        self.dropped = 0
        self.low, self.high = usual_watermarks(count)
        self.last_plug = 0
        self._last_hold = self._last_supply = 0
        self._last_allocation = 0

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, use: Use, group: int, owner: int = 0, index: int = 0) -> int:
        """Takes a frame and charges it to `group`; raises Short. Its content is undefined, its refs are 0."""
        over = self.groups.over(group)
        if over is not None:
            raise Short(over)
        frames = self.frames
        if frames.limbo:
            self.settle()
        frame = frames.take(use, group, owner, index)
        if not frame:
            raise Short(self.groups.root)
        self.groups.charge(group, 1)
        if frames.by_use[_FREE] < self.low:
            self.ports.wake(PRESSURE, None)
        return frame

    def take_zeroed(self, use: Use, group: int, owner: int = 0, index: int = 0) -> int:
        """As `take`, but for a frame of zeros: one of the stock when there is one."""
        if self.frames.zeroed and self.groups.over(group) is None:
            frame = self.frames.take_zeroed(use, group, owner, index)
            self.groups.charge(group, 1)
            if self.frames.zeroed < self.zeroed // 2:
                self.ports.wake(ZEROED, None)
            return frame
        frame = self.take(use, group, owner, index)
        self.ram.zero(frame)
        return frame

    def take_huge(self, use: Use, group: int, owner: int = 0) -> int:
        """Takes 512 contiguous frames aligned to 2 MiB, charged to `group`; returns the first, 0 without such a block.

        Their content is undefined, their refs are 0. Raises Short when the group is at its limit. They may be released
        one by one.
        """
        over = self.groups.over(group, HUGE_FRAMES)
        if over is not None:
            raise Short(over)
        first = self.frames.take_block(HUGE_ORDER, use, group, owner)
        if first:
            self.groups.charge(group, HUGE_FRAMES)
        return first

    def settle(self) -> None:
        """Makes the frames free whose last pin went after their page was given up."""
        for frame in list(self.frames.limbo):
            if not self.ram.pins(frame):
                self.frames.settle(frame)

    def release(self, frame: int) -> None:
        """Gives a frame back that nothing refers to, with its copy in swap if no entry needs that."""
        self.policy.remove(frame)
        self.forget_copy(frame)
        self.groups.charge(self.frames.group[frame], -1)
        self.frames.give_back(frame, self.ram.pins(frame) > 0)

    def keep(self, frame: int) -> None:
        """Adds a reference."""
        self.frames.refs[frame] += 1

    def drop(self, frame: int) -> None:
        """Takes a reference away; the last one releases the frame."""
        refs = self.frames.refs
        refs[frame] -= 1
        if not refs[frame]:
            self.release(frame)

    def soil(self, frame: int) -> None:
        """Notes that the content of a frame differs from what swap has of it."""
        self.frames.flags[frame] |= DIRTY

    def set_busy(self, frame: int, busy: bool) -> None:
        """Marks a frame as in transit; unmarking wakes who waits for it."""
        flags = self.frames.flags
        if busy:
            flags[frame] |= BUSY
        else:
            flags[frame] &= ~BUSY & 0xFF
            self.ports.wake(("frame", frame), None)

    # ── pages of spaces ──────────────────────────────────────────────────────────────────────────────────────────

    def note_mapped(self, space: Space, vpn: int, frame: int) -> None:
        """Accounts for an entry of `space` that names `frame` from now on."""
        self.rmap.add(frame, space.id, vpn)
        self.frames.refs[frame] += 1
        space.resident += 1
        if space.resident > space.peak:
            space.peak = space.resident
        if space.vmas.locked_bytes and self._is_locked(space, vpn):
            self.lock_frame(frame)

    def note_unmapped(self, space: Space, vpn: int, frame: int, entry: int) -> None:
        """Accounts for an entry that names `frame` no longer; the reference stays with the caller, who drops it.

        `entry` is the last value of the entry: a D bit in it must not be lost.
        """
        self.rmap.remove(frame, space.id, vpn)
        space.resident -= 1
        if entry & D_BIT:
            self.soil(frame)
        if space.vmas.locked_bytes and self._is_locked(space, vpn):
            self.unlock_frame(frame)

    def _is_locked(self, space: Space, vpn: int) -> bool:
        vma = space.vmas.at(vpn << PAGE_SHIFT)
        return vma is not None and bool(vma.flags & LOCKED)

    def lock_frame(self, frame: int) -> None:
        """Counts an entry of a locked mapping that names `frame`: with one the page is in no policy's order."""
        self.locked[frame] = self.locked.get(frame, 0) + 1
        self.policy.remove(frame)

    def unlock_frame(self, frame: int) -> None:
        """Takes that back; with the last one the page can leave RAM again."""
        self.locked[frame] -= 1
        if not self.locked[frame]:
            del self.locked[frame]
            self.policy.remove(frame)
            self.policy.add(frame, self.frames.group[frame])

    def drop_slot(self, slot: int) -> None:
        """Takes an entry's reference to a swap slot away; a slot that nobody needs is freed.

        With it goes a frame that was read ahead, and that nobody came for.
        """
        swap = self.swap
        refs = swap.refs[slot] - 1
        swap.refs[slot] = refs
        if refs or slot == LOST:
            return
        frame = swap.frame[slot]
        if not frame:
            self._free_slot(slot)
        elif not self.frames.refs[frame] and not self.frames.flags[frame] & BUSY:
            self.release(frame)

    # ── swap ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def take_slot(self, group: int, avoid: int = -1) -> int:
        """Takes a swap slot and charges it to `group`; -1 when swap is full or forbidden. Not of the area `avoid`."""
        slot = -1 if self.groups.swap_over(group) is not None else self.swap.take(group, avoid)
        if slot >= 0:
            self.groups.charge_swap(group, 1)
        return slot

    def swap_room(self, group: int) -> bool:
        """Returns whether a slot can be had for `group`."""
        return self.swap.has_room and self.groups.swap_over(group) is None

    def trim_swap(self, group: int, pages: int) -> None:
        """Takes slots back that merely repeat a page in RAM, until `pages` more fit for `group` or none is left.

        The pages count as dirty then: the next eviction writes them again.
        """
        while (over := self.groups.swap_over(group, pages)) is not None or self.swap.free < pages:
            members = {level.id for level in (over or self.groups.root).subtree()}
            for slot in self.swap.cached_only():
                frame = self.swap.frame[slot]
                if self.swap.group[slot] in members and not self.frames.flags[frame] & BUSY:
                    self.soil(frame)
                    self.forget_copy(frame)
                    if self.groups.swap_over(group, pages) is not over or self.swap.free >= pages:
                        break
            else:
                return

    def remember_copy(self, frame: int, slot: int) -> None:
        """Notes that `slot` holds the same bytes as `frame`, which is clean from now on."""
        self.frames.slot[frame] = slot + 1
        self.swap.frame[slot] = frame
        self.frames.flags[frame] &= ~DIRTY & 0xFF

    def forget_copy(self, frame: int) -> None:
        """Cuts a frame off its swap slot; the slot is freed when no entry names it."""
        slot = self.frames.slot[frame] - 1
        if slot < 0:
            return
        self.frames.slot[frame] = 0
        self.swap.frame[slot] = 0
        if not self.swap.refs[slot]:
            self._free_slot(slot)

    def _free_slot(self, slot: int) -> None:
        self.groups.charge_swap(self.swap.group[slot], -1)
        self.swap.give_back(slot)

    # ── objects, holds, allocations ──────────────────────────────────────────────────────────────────────────────

    def free_object(self, entity: MemoryObject) -> None:
        """Frees an object that is deleted and mapped nowhere."""
        for number, live in entity.table.leaves(0, entity.pages):
            for offset in live.nonzero()[0].tolist():
                entry = int(live[offset])
                entity.table.cas(number * 512 + offset, entry, 0)
                if is_swap(entry):
                    self.drop_slot(slot_of(entry))
                else:
                    self.drop(frame_of(entry))
        self.groups.get(entity.group).members -= 1
        self.objects.remove(entity)
        self.record(self.names.object(entity.number), "object.freed")

    def unlink_object(self, object_id: int, pages: int) -> None:
        """Accounts for `pages` of an object that are mapped no longer."""
        entity = self.objects.slot(object_id)
        entity.mappings -= pages
        if entity.closing and not entity.mappings:
            self.free_object(entity)

    def post(self, hold: Hold, message: Message) -> None:
        """Says something to a holder."""
        hold.post(message)
        self.ports.wake(("outbox", hold.id), None)

    def tell_supplier(self, supply: Supply, message: ToSupplier) -> None:
        """Says something to a supplier."""
        supply.post(message)
        self.ports.wake(supply_outbox_key(supply.id), None)

    def add_hold(self, hold: Hold) -> None:
        """Registers a hold under a new id."""
        self._last_hold += 1
        hold.id = self._last_hold
        self.holds[hold.id] = hold

    def add_supply(self, supply: Supply) -> None:
        """Registers a supplier's stream under a new id."""
        self._last_supply += 1
        supply.id = self._last_supply
        self.supplies[supply.id] = supply

    def add_allocation(self, owner: str, session: Session, frames: int, extent: int = 0) -> int:
        """Registers who allocates frames; returns the id for their owner column."""
        self._last_allocation += 1
        self.allocations[self._last_allocation] = Allocation(owner, session, frames, extent)
        return self._last_allocation

    def allocation_of(self, frame: int) -> Allocation | None:
        """Returns the allocation that a frame belongs to; None for a frame that is not allocated, or outside RAM."""
        if not 0 < frame < self.frames.count or self.frames.use[frame] != Use.ALLOCATED:
            return None
        return self.allocations.get(self.frames.owner[frame])

    def drop_allocated(self, frame: int) -> None:
        """Frees a frame that was allocated."""
        self.forget_allocated(frame, 1)
        self.drop(frame)

    def forget_allocated(self, frame: int, count: int) -> None:
        """Takes `count` frames off the allocation of `frame`, which is forgotten with its last one."""
        number = self.frames.owner[frame]
        allocation = self.allocations[number]
        allocation.frames -= count
        if not allocation.frames:
            del self.allocations[number]
