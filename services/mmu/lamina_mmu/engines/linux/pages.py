"""Pages of the `linux` engine: faults, bytes, translations, residency, reclaim."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

from lamina_kit.effects import Step
from lamina_kit.errors import FailedPrecondition, OutOfRange
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE, USER_END, page_down, page_up
from lamina_mmu.domain.fault_feed import FaultEvent, FaultWatch
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.kernel import pages
from lamina_mmu.domain.kernel.faults import Evidence, judge
from lamina_mmu.domain.kernel.maps import Region, at, parse_sizes, within
from lamina_mmu.domain.kernel.port import JUMP, TOUCH_READ, TOUCH_WRITE
from lamina_mmu.domain.outcome import FaultResult, Outcome, ReclaimResult, Trail
from lamina_mmu.domain.spaces.advice import Advice
from lamina_mmu.domain.tables.entry import EXECUTE, WRITE
from lamina_mmu.domain.views import Translation
from lamina_mmu.engines.interface import Key
from lamina_mmu.engines.linux import agents
from lamina_mmu.engines.linux.advice import MADV
from lamina_mmu.engines.linux.mapping import MappingCalls
from lamina_mmu.engines.linux.refusals import refuse
from lamina_mmu.engines.linux.state import KernelSpace

PIECE = 8192
"""Pages that are looked at in one piece: some 50 ms of work."""
CHUNK = 4096
"""Most pages that one system call pages out (16 MiB), so that the process itself gets on meanwhile."""
IS_ACCESSED, IS_DIRTY, IS_WRITABLE, IS_LOCKED = 1 << 52, 1 << 53, 1 << 54, 1 << 55
IS_SHARED, IS_HUGE, IS_COW = 1 << 56, 1 << 57, 1 << 58
IN_SWAP, IN_RAM = 1 << 62, 2 << 62
"""Bits of a word; those of the contract's `ResidencyPiece`."""


class PageCalls(MappingCalls):
    """Implements the parts of the engine's interface about pages."""

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────

    def fault(self, handle: Handle, address: int, access: int, told: bool = True) -> Step[FaultResult]:
        """Has the agent make the access, and says how it ended, with its steps if they are to be `told`."""
        state, space = self.state, agents.own(self.state, handle)
        begin, trail = state.ports.now_ns(), Trail(state.ports.now_ns)
        page, offset = address >> PAGE_SHIFT, address % PAGE_SIZE
        trail.add("access.attempted", f"page {page:#x}, offset {offset:#x}")
        result = yield from self._access(space, address, access, trail)
        result.steps = trail.steps
        space.cow_faults += result.outcome == Outcome.COPIED
        space.refused_faults += result.refused
        if state.feed.wants(space.number):
            state.feed.add(FaultEvent(space.number, address, access, begin, state.ports.now_ns() - begin, result))
        return result

    def _access(self, space: KernelSpace, address: int, access: int, trail: Trail) -> Step[FaultResult]:
        state = self.state
        region = at(agents.regions(state, space), address)
        trail.add("vma.found" if region else "vma.missing", f"{region.start:#x}-{region.end:#x}" if region else "")
        if agents.covers_agent(address, address + 1):
            trail.add("access.refused", "the agent's own page")
            return FaultResult(Outcome.SEGMENTATION_FAULT)
        operation = TOUCH_WRITE if access == WRITE else TOUCH_READ
        if access == EXECUTE and not (region is not None and region.rights & EXECUTE):
            operation = JUMP  # the processor refuses the fetch; where it would not, a read brings the page in as well
        before, counted = agents.word(state, space, address), agents.faults(state, space)
        was_zero = self._is_zero_page(before)
        try:
            reply = yield from agents.call(state, space, operation, (address,))
        except FailedPrecondition:
            if not space.out_of_memory:
                raise
            trail.add("access.refused", "the kernel ended the process")
            return FaultResult(Outcome.OUT_OF_MEMORY, limit_group=space.group, victim_space=space.number)
        after, now = agents.word(state, space, address), agents.faults(state, space)
        evidence = Evidence(
            reply, region, before, after, now.minor - counted.minor, now.major - counted.major, was_zero
        )
        result = judge(evidence, access)
        if not result.refused:
            trail.add("kernel.resolved", f"{evidence.minor} minor, {evidence.major} major faults")
        trail.add("access.refused" if result.refused else "access.restarted", result.outcome.name.lower())
        return result

    def _is_zero_page(self, word: int) -> bool:
        """Returns whether a page is the kernel's page of zeros, as far as it lets us know."""
        frame = pages.frame_of(word)
        found = self.state.kernel.memory.words("kpageflags", frame, 1) if frame else 0
        return not isinstance(found, int) and bool(found and found[0] & pages.ZERO_PAGE)

    def watch_faults(self, name: str, sample: int) -> FaultWatch:
        """Keeps faults that `Fault` calls resolve; the kernel tells nobody of others."""
        number = self.state.space(name).number if name else 0
        return self.state.feed.open(number, sample or 1)

    def end_watch(self, watch: FaultWatch) -> None:
        """Forgets a watch."""
        self.state.feed.close(watch)

    # ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def read_space(self, handle: Handle, address: int, size: int) -> Step[bytes]:
        """Returns bytes of a space."""
        space = self.state.spaces.get(handle)
        yield from self._bring_in(space, address, size, Advice.POPULATE_READ)
        found = b"" if self._hidden(space, address) else self.state.kernel.processes.read(space.pid, address, size)
        data = self._checked(space, address, found)
        if len(data) < size or self._hidden(space, address, size):
            raise _bad_address(address + len(data))
        return data

    def write_space(self, handle: Handle, address: int, data: bytes, force: bool) -> Step[None]:
        """Stores bytes in a space. What is stored before an error stays."""
        space, processes = self.state.spaces.get(handle), self.state.kernel.processes
        if self._hidden(space, address, len(data)):
            raise _bad_address(address)
        yield from self._bring_in(space, address, len(data), Advice.POPULATE_WRITE)
        done = (processes.force if force else processes.write)(space.pid, address, data)
        if done < 0:
            self._checked(space, address, done)
        if max(done, 0) < len(data):
            raise _bad_address(address + max(done, 0))

    def _bring_in(self, space: KernelSpace, address: int, size: int, advice: Advice) -> Step[None]:
        """Has the agent fault the pages in, so that the faults are its own; what cannot be is found out afterwards."""
        if space.agent is not None and address + size <= USER_END:
            start, end = page_down(address), page_up(address + size)
            yield from agents.call(self.state, space, agents.MADVISE, (start, end - start, MADV[advice]))

    def _hidden(self, space: KernelSpace, address: int, size: int = 1) -> bool:
        return space.agent is not None and agents.covers_agent(address, address + size)

    def _checked(self, space: KernelSpace, address: int, found: bytes | int) -> bytes:
        """Returns bytes that the kernel gave; what it refuses as a whole is its address, or its process."""
        if not isinstance(found, int):
            return found
        if -found in (errno.ESRCH, errno.EPERM, errno.EACCES):
            raise agents.refused_by_kernel(self.state, space, found)
        return b""

    # ── where pages are ──────────────────────────────────────────────────────────────────────────────────────────

    def translate(self, key: Key, address: int) -> Translation:
        """Explains an address. Tables cannot be seen from here."""
        state, space = self.state, self.state.space(key)
        region = at(agents.regions(state, space, sizes=True), address)
        if region is None:
            return Translation(address, None)
        word = agents.word(state, space, address)
        frame = pages.frame_of(word)
        return Translation(
            address,
            self.mapping_view(space, region),
            frame=frame,
            slot=pages.slot_of(word),
            cow=_is_cow(word, region),
            hidden=pages.is_resident(word) and not frame,
        )

    def read_residency(self, key: Key, start: int, end: int, clear: bool) -> Step[tuple[int, bytes]]:
        """Returns a word for each page of the next piece."""
        yield from ()
        state, space = self.state, self.state.space(key)
        if clear:
            raise refuse("idle", "clear the accessed bits of a range: the kernel clears those of a whole process")
        behind = min(end, start + PIECE * PAGE_SIZE)
        found = within(self._regions_with_locks(space), start, behind)
        told = bytearray((behind - start) >> PAGE_SHIFT << 3)
        for region in found:
            low, high = max(start, region.start), min(behind, region.end)
            raw = agents.words(state, space, low >> PAGE_SHIFT, (high - low) >> PAGE_SHIFT)
            flags = self._flags([pages.frame_of(word) for word in raw])
            shown = [_told(word, flags.get(pages.frame_of(word), 0), region) for word in raw]
            struct.pack_into(f"<{len(shown)}Q", told, (low - start) >> PAGE_SHIFT << 3, *shown)
        return behind, bytes(told)

    def _regions_with_locks(self, space: KernelSpace) -> list[Region]:
        """Returns regions with their flags where some are locked; else without: the kernel walks all pages for them."""
        text = self.state.kernel.processes.text(space.pid, "status")
        is_locked = isinstance(text, str) and parse_sizes(text).get("VmLck", 0)
        return agents.regions(self.state, space, sizes=bool(is_locked))

    def _flags(self, frames: Sequence[int]) -> dict[int, int]:
        """Returns the flags of frames, asked for in runs; none of those that the kernel keeps to itself."""
        found: dict[int, int] = {}
        wanted = sorted({frame for frame in frames if frame})
        position = 0
        while position < len(wanted):
            last = position
            while last + 1 < len(wanted) and wanted[last + 1] == wanted[last] + 1:
                last += 1
            told = self.state.kernel.memory.words("kpageflags", wanted[position], last - position + 1)
            if not isinstance(told, int):
                found.update(zip(wanted[position : last + 1], told, strict=False))
            position = last + 1
        return found

    # ── reclaim ──────────────────────────────────────────────────────────────────────────────────────────────────

    def reclaim(self, handle: Handle | None, group: str, pages: int) -> Step[ReclaimResult]:
        """Pushes pages out of RAM: of a space by process_madvise(2), of a group by its cgroup."""
        if handle is None:
            taken, written = yield from self.reclaim_group(self.group_of(group), pages)
            return ReclaimResult(taken, written)
        space, left = self.state.spaces.get(handle), pages
        resident, swapped = self._counts(space)
        for region in agents.regions(self.state, space, sizes=True):
            if left <= 0:
                break
            if region.resident and "lo" not in region.flags:
                yield from self._page_out(space, region, left)
                left = pages - max(resident - self._counts(space)[0], 0)
        after, out = self._counts(space)
        return ReclaimResult(max(resident - after, 0), max(out - swapped, 0))

    def _page_out(self, space: KernelSpace, region: Region, most: int) -> Step[None]:
        """Has up to `most` pages of a region paged out."""
        address = region.start
        while address < region.end and most > 0:
            count = min(CHUNK, (region.end - address) >> PAGE_SHIFT)
            raw = agents.words(self.state, space, address >> PAGE_SHIFT, count)
            chosen = [index for index, word in enumerate(raw) if pages_resident(word)][:most]
            runs = _runs(address, chosen)
            if runs:
                result = yield from agents.advise(self.state, space, runs, MADV[Advice.PAGE_OUT])
                if result == -errno.EPERM:
                    raise agents.not_pageable(space.pid)
                if result < 0:
                    raise agents.refused_by_kernel(self.state, space, result)
            most -= len(chosen)
            address += count << PAGE_SHIFT

    def _counts(self, space: KernelSpace) -> tuple[int, int]:
        found = agents.regions(self.state, space, sizes=True)
        return sum(region.resident for region in found), sum(region.swapped for region in found)

    def reclaim_ahead(self) -> Step[None]:
        """Does nothing: the kernel reclaims ahead of need."""
        yield from ()


def pages_resident(word: int) -> bool:
    """Returns whether a page is in RAM."""
    return pages.is_resident(word)


def _runs(base: int, chosen: Sequence[int]) -> list[tuple[int, int]]:
    """Returns pages, by their index from an address, as (start, size) ranges."""
    runs: list[tuple[int, int]] = []
    for index in chosen:
        address = base + (index << PAGE_SHIFT)
        if runs and sum(runs[-1]) == address:
            runs[-1] = (runs[-1][0], runs[-1][1] + PAGE_SIZE)
        else:
            runs.append((address, PAGE_SIZE))
    return runs


def _is_cow(word: int, region: Region) -> bool:
    return pages.is_shared(word) and not region.shared and bool(region.rights & WRITE)


def _told(word: int, flags: int, region: Region) -> int:
    """Returns what the contract tells of a page."""
    locked = IS_LOCKED if "lo" in region.flags else 0
    slot = pages.slot_of(word)
    if slot >= 0:
        return slot | IN_SWAP | locked
    if not pages.is_resident(word):
        return 0
    told = pages.frame_of(word) | IN_RAM | locked
    told |= IS_ACCESSED if flags & pages.REFERENCED else 0
    told |= IS_DIRTY if flags & (pages.DIRTY | pages.ANON) else 0
    told |= IS_HUGE if flags & (pages.THP | pages.HUGE) else 0
    told |= IS_SHARED if pages.is_shared(word) else 0
    if _is_cow(word, region):
        return told | IS_COW
    return told | (IS_WRITABLE if region.rights & WRITE else 0)


def _bad_address(address: int) -> OutOfRange:
    return OutOfRange(
        f"{address:#x} cannot be accessed.",
        reason="BAD_ADDRESS",
        next_step="Map it with the rights that the access needs.",
        address=f"{address:#x}",
    )
