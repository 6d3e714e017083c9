"""A guest's physical memory as KVM has it: memory slots of 1 GiB over a window, into which the EPT's pages are mapped.

    guest physical ──slot──► window of this process ──mmap(MAP_FIXED)──► memory bus, as the EPT in RAM says
                             (nothing where the EPT has nothing)

A change of a slot costs a grace period of the kernel (milliseconds), a change of a mapping microseconds; so slots stay,
and what the EPT says is mapped page by page, large pages whole, neighbours in one call. What is not mapped, or not for
this access, makes the core stop and ask. Ranges of devices have no slot.

KVM may walk a guest's own tables by itself, and then takes one that it cannot reach for a fault of the guest; so the
whole EPT is mapped before a context runs, and again when it changed, and A and D of its entries are set by then.

Source: Linux, Documentation/virt/kvm/api.rst, KVM_SET_USER_MEMORY_REGION; Intel SDM vol. 3, 30.3 (EPT).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lamina_hardware.domain.paging.walk import Access, Memory, Outcome, Walk, translate
from lamina_hardware.io.kvm import abi
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.errors import ResourceExhausted
from lamina_kit.paging import ADDR_MASK, EPT_A, EPT_D, EPT_PS, EPT_R, EPT_W, EPT_X, PAGE_SIZE, span

_GIB_SHIFT = 30
_GIB = 1 << _GIB_SHIFT
_MOST_REGIONS = 64
"""Regions of 1 GiB that one guest may reach."""
_MOST_TABLES = 8192
"""Tables of an EPT that are looked through; what lies beyond is mapped when it is asked for."""
_MOST_MAPPINGS = 24_000
"""Mappings that this process may have for a guest to get one more; the kernel gives a process 65,530."""
_ZAP_GPA = (1 << 39) - PAGE_SIZE
_RIGHTS = EPT_R | EPT_W | EPT_X
_TABLE = struct.Struct("<512Q")
_MAPPED_BY = ADDR_MASK | _RIGHTS | EPT_PS | 0x38
"""What of an entry says how its page is mapped."""
_TABLE_RESERVED = 0x78
_TYPES_RESERVED = (2, 3, 7)
_FIXED = 0x10
_NORESERVE = 0x4000
_PROT = {0: 0, EPT_R: mmap.PROT_READ, EPT_R | EPT_W: mmap.PROT_READ | mmap.PROT_WRITE}

_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_munmap = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


_Tables = dict[tuple[int, int], tuple[int, bytes]]
"""Tables by level and first guest physical address: what the levels above allow, and the table's bytes."""


@dataclass(slots=True)
class _Region:
    """1 GiB of guest physical memory: where its window begins, and its slots (number, address, bytes)."""

    window: int
    slots: list[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A page that is to be mapped."""

    gpa: int
    size: int
    pa: int
    rights: int


class GuestMemory:
    """The memory of one VM: that of one EPT. Used by one thread at a time, which holds the VM's lock."""

    def __init__(self, vm: int, bus: MemoryBus, eptp: int) -> None:
        self._vm = vm
        self.bus = bus
        self._eptp = eptp
        self._file = os.open(bus.path, os.O_RDWR | os.O_CLOEXEC)
        self._memory = Memory(bus.load64, bus.size)
        self._regions: dict[int, _Region] = {}
        self._tables: _Tables = {}
        self._holes: tuple[tuple[int, int], ...] = ()
        self._next_slot = 1
        self._free_slots: list[int] = []
        self._mappings = 0
        self._pieces = 0
        """How many mappings a look at the EPT has asked for so far: tables that point at themselves ask for ever."""
        self._logging = False
        self.gone: set[int] = set()
        """Numbers of pages that were mapped once, and now are not, or not to be written."""
        self._zap = _map_window(PAGE_SIZE)
        abi.set_region(vm, 0, _ZAP_GPA, PAGE_SIZE, self._zap)

    def close(self) -> None:
        """Unmaps everything; the VM is closed already."""
        for region in self._regions.values():
            _munmap(region.window, _GIB)
        self._regions.clear()
        _munmap(self._zap, PAGE_SIZE)
        os.close(self._file)

    # ── what the EPT says ────────────────────────────────────────────────────────────────────────────────────────

    def walk(self, gpa: int, access: Access) -> Walk:
        """Walks the EPT as it is in RAM now."""
        return translate(self._memory, 0, self._eptp, gpa, access, user=False)

    def sync(self) -> None:
        """Maps what the EPT in RAM says, and unmaps what it no longer does."""
        if not self._regions:  # KVM never enters a guest again whose tables were in no slot once
            self._add_region(0)
        seen: _Tables = {}
        self._pieces = 0
        wanted: list[_Leaf] = []
        dropped: list[tuple[int, int]] = []
        self._look(self._eptp & ADDR_MASK, 4, 0, _RIGHTS, seen, wanted, dropped)
        for (level, gpa), (_, content) in self._tables.items():
            if (level, gpa) not in seen:
                dropped.extend((gpa + n * span(level), span(level)) for n in _present(content, level))
        if dropped and self._logging:
            self.harvest()
        self._tables = seen
        for gpa, size in dropped:
            self._unmap(gpa, size)
            self.gone.update(range(gpa >> 12, gpa + size >> 12))
        for leaf in _joined(wanted):
            self._map(leaf)

    def reach(self, walk: Walk) -> None:
        """Maps the page that a walk found, and notes the access in the entries."""
        for step in walk.steps:
            self.bus.cas64(step.entry_address, step.entry, step.after)
        size = walk.page_size
        base = walk.pa & ~(size - 1)
        self._map(_Leaf(walk.gpa & ~(size - 1), min(size, self.bus.size - base), base, self._rights_of(walk)))

    def _rights_of(self, walk: Walk) -> int:
        rights = _RIGHTS
        for step in walk.steps:
            rights &= step.entry
        return rights

    def _look(
        self, table: int, level: int, gpa: int, rights: int, seen: _Tables, wanted: list[_Leaf],
        dropped: list[tuple[int, int]],
    ) -> None:  # fmt: skip
        """Compares a table with what it said when it was mapped; notes what is to be mapped and unmapped."""
        if table + PAGE_SIZE > self.bus.size or len(seen) >= _MOST_TABLES:
            return
        old_rights, old = self._tables.get((level, gpa), (rights, bytes(PAGE_SIZE)))
        content = self.bus.read(table, PAGE_SIZE)
        seen[level, gpa] = (rights, content)
        if level == 1 and old_rights == rights and old == content:
            return
        entries, before = list(_TABLE.unpack(content)), _TABLE.unpack(old)
        size = span(level)
        for n, entry in enumerate(entries):
            place, here = table + 8 * n, gpa + n * size
            if not entry & _RIGHTS or level == 1 or (level < 4 and entry & EPT_PS):
                if before[n] != entry or old_rights != rights:
                    was = before[n] if level == 1 or before[n] & EPT_PS else 0
                    kept = old_rights == rights and not (was ^ entry) & _MAPPED_BY
                    page = _Leaf(here, size, 0, rights)
                    entries[n] = self._leaf(place, entry, was, page, None if kept else wanted, dropped)
                continue
            if level < 4 and before[n] & EPT_PS and before[n] & _RIGHTS:
                dropped.append((here, size))
            if not entry & (_TABLE_RESERVED | EPT_PS * (level == 4)) and entry & 3 != EPT_W:
                entries[n] = self._note(place, entry, EPT_A)
                self._look(entry & ADDR_MASK, level - 1, here, rights & entry, seen, wanted, dropped)
        seen[level, gpa] = (rights, _TABLE.pack(*entries))

    def _leaf(
        self, place: int, entry: int, was: int, page: _Leaf, wanted: list[_Leaf] | None, dropped: list[tuple[int, int]]
    ) -> int:
        """Notes what one changed entry of a page asks for; sets its A, and its D when it may be written.

        Returns the entry as it is then. `page` says where the page is, and what the tables above allow; `wanted` is
        None for one that is mapped as it is.
        """
        allowed, base = entry & page.rights & _RIGHTS, entry & ADDR_MASK
        size = min(page.size, self.bus.size - base)
        usable = allowed & EPT_R and size > 0 and not base & (page.size - 1) and entry >> 3 & 7 not in _TYPES_RESERVED
        if was & _RIGHTS and (not usable or size < page.size):
            dropped.append((page.gpa, page.size))
        if not usable:
            return entry
        if wanted is not None:
            leaf = _Leaf(page.gpa, size, base, allowed)
            if not wanted or not _follows(wanted[-1], leaf):
                self._pieces += 1
                if self._pieces > _MOST_MAPPINGS:
                    raise _exhausted()
            wanted.append(leaf)
        return self._note(place, entry, EPT_A | (EPT_D if allowed & EPT_W else 0))

    def _note(self, place: int, entry: int, bits: int) -> int:
        """Sets bits of an entry; returns what the next look is to compare with. One that just changed stays as it is.

        Then the entry that was mapped is returned: the next look sees the difference.
        """
        if entry & bits != bits and self.bus.cas64(place, entry, entry | bits) == entry:
            return entry | bits
        return entry

    # ── the window ───────────────────────────────────────────────────────────────────────────────────────────────

    def _map(self, leaf: _Leaf) -> None:
        """Maps a page, or neighbours of one right, into the window."""
        if self.gone and leaf.rights & EPT_W:
            self.gone.difference_update(range(leaf.gpa >> 12, leaf.gpa + leaf.size >> 12))
        prot = _PROT[leaf.rights & (EPT_R | EPT_W)]
        offset = self.bus.ram_offset + leaf.pa
        for place, count in self._windows(leaf.gpa, leaf.size):
            done = _mmap(place, count, prot, mmap.MAP_SHARED | _FIXED, self._file, offset)
            self._mappings += 1
            if self._mappings > _MOST_MAPPINGS:
                self._mappings = _count_mappings()
            if done == _FAILED or self._mappings > _MOST_MAPPINGS:
                raise _exhausted()
            offset += count

    def _unmap(self, gpa: int, size: int) -> None:
        for region in range(gpa >> _GIB_SHIFT, ((gpa + size - 1) >> _GIB_SHIFT) + 1):
            found = self._regions.get(region)
            if found is None:
                continue
            first = max(gpa, region << _GIB_SHIFT)
            count = min(gpa + size, (region + 1) << _GIB_SHIFT) - first
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _FIXED | _NORESERVE
            _mmap(found.window + (first & _GIB - 1), count, 0, flags, -1, 0)

    def _windows(self, gpa: int, size: int) -> Iterator[tuple[int, int]]:
        """Yields (address, bytes) of the window's pieces, making the regions that are not there yet."""
        end = gpa + size
        while gpa < end:
            number = gpa >> _GIB_SHIFT
            region = self._regions.get(number) or self._add_region(number)
            count = min(end, (number + 1) << _GIB_SHIFT) - gpa
            yield region.window + (gpa & _GIB - 1), count
            gpa += count

    def _add_region(self, number: int) -> _Region:
        if len(self._regions) >= _MOST_REGIONS:
            raise ResourceExhausted(
                f"A guest reaches more than {_MOST_REGIONS} regions of 1 GiB.",
                reason="KVM_REGIONS_EXHAUSTED",
                next_step="Lay the guest's physical memory out more densely.",
            )
        region = _Region(_map_window(_GIB), [])
        self._regions[number] = region
        self._make_slots(number, region)
        return region

    # ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────

    def set_holes(self, holes: tuple[tuple[int, int], ...]) -> None:
        """Leaves ranges (address, bytes) of devices without a slot; the rest has one."""
        if holes == self._holes:
            return
        if self._logging:
            self.harvest()
        self._holes = holes
        for number, region in self._regions.items():
            self._drop_slots(region)
            self._make_slots(number, region)

    def _make_slots(self, number: int, region: _Region) -> None:
        base = number << _GIB_SHIFT
        flags = abi.REGION_LOG if self._logging else 0
        for gpa, size in _without(base, base + _GIB, self._holes):
            if number == _ZAP_GPA >> _GIB_SHIFT:
                size = min(size, _ZAP_GPA - gpa)
            slot = self._free_slots.pop() if self._free_slots else self._next_slot
            self._next_slot = max(self._next_slot, slot + 1)
            abi.set_region(self._vm, slot, gpa, size, region.window + gpa - base, flags)
            region.slots.append((slot, gpa, size))

    def _drop_slots(self, region: _Region) -> None:
        for slot, gpa, _ in region.slots:
            abi.set_region(self._vm, slot, gpa, 0, 0)
            self._free_slots.append(slot)
        region.slots.clear()

    def forget_guest_tables(self) -> None:
        """Has KVM forget what it derived from the guest's own tables: it does when any slot goes."""
        abi.set_region(self._vm, 0, _ZAP_GPA, 0, 0)
        abi.set_region(self._vm, 0, _ZAP_GPA, PAGE_SIZE, self._zap)

    # ── what was written ─────────────────────────────────────────────────────────────────────────────────────────

    def log(self, wanted: bool) -> None:
        """Begins or ends KVM's log of written pages."""
        if wanted == self._logging:
            return
        self._logging = wanted
        for number, region in self._regions.items():
            base = number << _GIB_SHIFT
            for slot, gpa, size in region.slots:
                abi.set_region(self._vm, slot, gpa, size, region.window + gpa - base, abi.REGION_LOG * wanted)

    def harvest(self) -> None:
        """Marks on the bus the frames that the guest wrote since the last time."""
        for region in self._regions.values():
            for slot, gpa, size in region.slots:
                bitmap = (ctypes.c_uint64 * ((size >> 18) + 1))()
                fcntl.ioctl(self._vm, abi.GET_DIRTY_LOG, struct.pack("<IIQ", slot, 0, ctypes.addressof(bitmap)))
                for page in _pages(bytes(bitmap)):
                    walk = self.walk(gpa + page * PAGE_SIZE, Access.READ)
                    if walk.outcome is Outcome.TRANSLATED:
                        self.bus.note_write(walk.pa >> 12)


def _map_window(size: int) -> int:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    found = _mmap(None, size, 0, flags, -1, 0)
    if found == _FAILED:
        raise ResourceExhausted(
            f"This process has no room for a window of {size} bytes.",
            reason="KVM_WINDOW_EXHAUSTED",
            next_step="Raise the limit of its address space (ulimit -v).",
        )
    return int(found)


def _present(content: bytes, level: int) -> Iterator[int]:
    """Yields the numbers of a table's entries that are pages."""
    for n, entry in enumerate(_TABLE.unpack(content)):
        if entry & _RIGHTS and (level == 1 or (level < 4 and entry & EPT_PS)):
            yield n


def _count_mappings() -> int:
    """Returns how many mappings this process has; what was replaced, or the kernel joined, is not among them."""
    return Path("/proc/self/maps").read_bytes().count(b"\n")


def _exhausted() -> ResourceExhausted:
    return ResourceExhausted(
        f"A guest's memory lies in more than {_MOST_MAPPINGS} pieces.",
        reason="KVM_MAPPINGS_EXHAUSTED",
        next_step="Back the guest with pages of 2 MiB, or with frames that follow one another.",
    )


def _follows(before: _Leaf, leaf: _Leaf) -> bool:
    """Whether a page continues another on both sides, with the same rights."""
    end = (before.gpa + before.size, before.pa + before.size, before.rights)
    return (leaf.gpa, leaf.pa, leaf.rights) == end


def _joined(leaves: list[_Leaf]) -> Iterator[_Leaf]:
    """Yields pages, neighbours that follow one another on both sides as one."""
    held: _Leaf | None = None
    for leaf in leaves:
        if held is not None and _follows(held, leaf):
            held = _Leaf(held.gpa, held.size + leaf.size, held.pa, held.rights)
            continue
        if held is not None:
            yield held
        held = leaf
    if held is not None:
        yield held


def _without(start: int, end: int, holes: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """Yields (address, bytes) of what the holes, which ascend, leave of a range."""
    for gpa, size in holes:
        if gpa + size <= start or gpa >= end:
            continue
        if gpa > start:
            yield start, gpa - start
        start = min(end, gpa + size)
    if start < end:
        yield start, end - start


def _pages(bitmap: bytes) -> Iterator[int]:
    """Yields the numbers of the bits that are set."""
    if not any(bitmap):
        return
    for place, byte in enumerate(bitmap):
        while byte:
            low = byte & -byte
            yield place * 8 + low.bit_length() - 1
            byte ^= low
