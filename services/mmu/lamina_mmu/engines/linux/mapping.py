"""Mappings of the `linux` engine: mmap, munmap, mprotect, mremap, brk and what the kernel tells of them."""

from __future__ import annotations

import errno
import struct

from lamina_kit.checks import Checks
from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError, NotFound
from lamina_kit.paging import PAGE_SIZE, USER_END, page_up
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.kernel.maps import Region, within
from lamina_mmu.domain.kernel.port import AGENT_END, AGENT_START, SCRATCH
from lamina_mmu.domain.spaces.heap import check_start
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.spaces.remap_spec import Move
from lamina_mmu.domain.spaces.settings import HugePages
from lamina_mmu.domain.spaces.vma import Vma
from lamina_mmu.domain.spaces.vmas import MAX_MAPPINGS
from lamina_mmu.domain.tables.entry import EXECUTE, READ, WRITE
from lamina_mmu.domain.views import MappingView
from lamina_mmu.engines.interface import Key
from lamina_mmu.engines.linux import agents
from lamina_mmu.engines.linux.groups import GroupCalls
from lamina_mmu.engines.linux.state import KernelSpace

MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 0x01, 0x02, 0x10, 0x20
MAP_GROWSDOWN, MAP_NORESERVE, MAP_FIXED_NOREPLACE = 0x100, 0x4000, 0x10_0000
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
MADV_HUGEPAGE = 14
RLIMIT_STACK = 3
PR_SET_MM, PR_SET_MM_MAP = 35, 14
MM_MAP = struct.Struct("<11QQIi")
"""struct prctl_mm_map: where code, data, heap, stack, arguments and environment lie; no auxv, no new program."""
KERNEL_TOP = USER_END - PAGE_SIZE
"""Mappings end at or below this address. Source: Linux, TASK_SIZE_MAX."""


class MappingCalls(GroupCalls):
    """Implements the parts of the engine's interface that change mappings."""

    def map_range(self, handle: Handle, spec: MapSpec, request: str = "") -> Step[int]:
        """Maps a range."""

        def make() -> Step[int]:
            space = agents.own(self.state, handle)
            self._check_place(space, spec)
            if spec.grows_down:
                address = yield from self._map_stack(space, spec)
            else:
                address = yield from self._map(space, spec)
            space.labels.put(address, address + spec.size, spec.label)
            return address

        return (yield from self.state.once(request, ("map", handle, spec), make))

    def _check_place(self, space: KernelSpace, spec: MapSpec) -> None:
        start, end = spec.address, spec.address + spec.size
        if spec.fixed and (start < PAGE_SIZE or end > KERNEL_TOP or agents.covers_agent(start, end)):
            raise agents.not_mappable(start, end)

    def _map(self, space: KernelSpace, spec: MapSpec) -> Step[int]:
        flags = MAP_NORESERVE | (MAP_SHARED if spec.shared else MAP_PRIVATE)
        if spec.fixed:
            flags |= MAP_FIXED if spec.replace else MAP_FIXED_NOREPLACE
        hint = spec.address if spec.fixed or not agents.covers_agent(spec.address, spec.address + spec.size) else 0
        content = None
        if spec.object is None:
            flags |= MAP_ANONYMOUS
        else:
            content = self.state.objects.get(spec.object).content
        arguments = (hint, spec.size, _protection(spec.rights), flags, -1, spec.offset)
        reply = yield from agents.call(self.state, space, agents.MMAP, arguments, content)
        if reply.result < 0:
            raise self._not_mapped(space, spec, reply.result)
        if space.settings.huge_pages == HugePages.ALWAYS and spec.object is None and not spec.shared:
            yield from agents.call(self.state, space, agents.MADVISE, (reply.result, spec.size, MADV_HUGEPAGE))
        return reply.result

    def _map_stack(self, space: KernelSpace, spec: MapSpec) -> Step[int]:
        """Maps the last page of a stack, which the kernel grows down to the process's limit, set for this size."""
        if not spec.fixed:  # has the kernel find room, and gives it back: nobody else maps in this space
            place = yield from self._map(space, _plain(spec))
            yield from agents.call(self.state, space, agents.MUNMAP, (place, spec.size))
            spec = _plain(spec, place)
        end = spec.address + spec.size
        taken = within(agents.regions(self.state, space), spec.address, end)
        if taken and not spec.replace:
            raise agents.in_use(spec.address, end)
        if taken:
            yield from agents.call(self.state, space, agents.MUNMAP, (spec.address, spec.size))
        self.state.kernel.processes.limit(space.pid, RLIMIT_STACK, spec.size)
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE
        arguments = (end - PAGE_SIZE, PAGE_SIZE, _protection(spec.rights), flags, -1, 0)
        reply = yield from agents.call(self.state, space, agents.MMAP, arguments)
        if reply.result < 0:
            raise self._not_mapped(space, spec, reply.result)
        return spec.address

    def _not_mapped(self, space: KernelSpace, spec: MapSpec, result: int) -> LaminaError:
        """Returns what a failed mmap means; ENOMEM means several things."""
        start, end = spec.address, spec.address + spec.size
        if -result == errno.EEXIST:
            return agents.in_use(start, end)
        if -result == errno.EAGAIN:
            return agents.exhausted("LOCK_LIMIT", f"{spec.size} more bytes may not be locked.", "Raise the limit.")
        if -result in (errno.EPERM, errno.EINVAL) and spec.fixed:
            return agents.not_mappable(start, end)
        if -result != errno.ENOMEM:
            return agents.failed("map it", result)
        return self._no_room(space, spec.size)

    def _no_room(self, space: KernelSpace, more: int) -> LaminaError:
        found = agents.regions(self.state, space)
        mapped, limit = sum(region.end - region.start for region in found), space.settings.mapped_max_bytes
        if limit is not None and mapped + more > limit:
            text = f"{mapped} bytes are mapped; {more} more would be beyond the limit of {limit}."
            return agents.exhausted("MAPPED_LIMIT", text, "Unmap something, or raise mapped_max_bytes.")
        if len(found) >= MAX_MAPPINGS - 2:
            text = f"The space has {len(found)} mappings; {MAX_MAPPINGS} is the limit."
            return agents.exhausted("TOO_MANY_MAPPINGS", text, "Unmap something, or map larger ranges.")
        text = f"The space has no free range of {more} bytes, or the machine does not commit that much."
        return agents.exhausted("ADDRESS_SPACE_FULL", text, "Unmap something, or map less at once.")

    def unmap_range(self, handle: Handle, start: int, end: int, request: str = "") -> Step[int]:
        """Unmaps a range; the agent itself is passed over."""

        def make() -> Step[int]:
            space = agents.own(self.state, handle)
            before = self._held(space)
            for low, high in ((start, min(end, AGENT_START)), (max(start, AGENT_END), min(end, KERNEL_TOP))):
                if low >= high:
                    continue
                reply = yield from agents.call(self.state, space, agents.MUNMAP, (low, high - low))
                if reply.result < 0:
                    raise self._no_room(space, 0)
                space.labels.put(low, high, "")
            return max(before - self._held(space), 0)

        return (yield from self.state.once(request, ("unmap", handle, start, end), make))

    def _held(self, space: KernelSpace) -> int:
        """Returns the pages of a space in RAM and in swap."""
        return sum(one.resident + one.swapped for one in agents.regions(self.state, space, sizes=True))

    def protect_range(self, handle: Handle, start: int, end: int, rights: int, request: str = "") -> Step[None]:
        """Changes the rights of a range that is mapped as a whole."""

        def make() -> Step[bool]:
            space = agents.own(self.state, handle)
            agents.check_mapped(self.state, space, start, end)
            arguments = (start, end - start, _protection(rights))
            reply = yield from agents.call(self.state, space, agents.MPROTECT, arguments)
            if reply.result < 0:
                raise (
                    self._no_room(space, 0) if -reply.result == errno.ENOMEM else agents.failed("do it", reply.result)
                )
            return True

        yield from self.state.once(request, ("protect", handle, start, end, rights), make)

    def remap_range(self, handle: Handle, move: Move, request: str) -> Step[int]:
        """Resizes or moves a mapping."""

        def make() -> Step[int]:
            space = agents.own(self.state, handle)
            self._check_move(space, move)
            flags = (MREMAP_MAYMOVE if move.may_move else 0) | (MREMAP_FIXED if move.target is not None else 0)
            arguments = (move.address, move.old_size, move.new_size, flags, move.target or 0)
            reply = yield from agents.call(self.state, space, agents.MREMAP, arguments)
            if reply.result < 0:
                raise self._not_moved(space, move, reply.result)
            label, size = space.labels.at(move.address), min(move.old_size, move.new_size)
            if move.old_size:
                space.labels.put(move.address + size, move.address + move.old_size, "")
                space.labels.move(move.address, move.address + size, reply.result)
            space.labels.put(reply.result, reply.result + move.new_size, label)
            return reply.result

        return (yield from self.state.once(request, ("remap", handle, move), make))

    def _check_move(self, space: KernelSpace, move: Move) -> None:
        end = move.address + max(move.old_size, PAGE_SIZE)
        inside = [one for one in within(agents.regions(self.state, space), move.address, end) if one.end >= end]
        if not inside or inside[0].start > move.address:
            raise NotFound(
                f"{move.address:#x}-{end:#x} is not within one mapping.",
                reason="RANGE_NOT_MAPPED",
                next_step="Name a range of one mapping, as ListMappings tells them.",
            )
        if move.target is None:
            return
        low, high = move.target, move.target + move.new_size
        if low < PAGE_SIZE or high > KERNEL_TOP or agents.covers_agent(low, high):
            raise agents.not_mappable(low, high)
        with Checks() as check:
            check.that(low >= end or high <= move.address, "new_address", f"{low:#x} overlaps the range that moves")

    def _not_moved(self, space: KernelSpace, move: Move, result: int) -> LaminaError:
        if -result == errno.EAGAIN:
            return agents.exhausted("LOCK_LIMIT", "The mapping is locked, and may not be larger.", "Raise the limit.")
        if -result == errno.ENOMEM and not move.may_move:
            return agents.in_use(move.address + move.old_size, move.address + move.new_size)
        if -result == errno.ENOMEM:
            return self._no_room(space, max(move.new_size - move.old_size, 0))
        return agents.failed("move it", result)

    # ── heap ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def set_break(self, handle: Handle, start: int, end: int) -> Step[tuple[int, int]]:
        """Moves the kernel's own break, which begins where the first call says."""
        space = agents.own(self.state, handle)
        check_start(space.number, space.heap_start, start)
        begin = space.heap_start or start
        with Checks() as check:
            check.that(not end or end >= begin, "end", f"is {end:#x}, before the start {begin:#x} of the heap")
            check.that(begin >= AGENT_END and max(begin, end) < KERNEL_TOP, "start", "is outside what a space may use")
        if not space.heap_start:
            yield from self._place_heap(space, begin)
        now = (yield from agents.call(self.state, space, agents.BRK, (0,))).result
        if end and end != now:
            reached = (yield from agents.call(self.state, space, agents.BRK, (end,))).result
            if reached != end:
                raise self._heap_stopped(space, page_up(now), page_up(end))
            now = end
        return begin, now

    def _place_heap(self, space: KernelSpace, begin: int) -> Step[None]:
        code, data = (AGENT_START, AGENT_START + 0x1000), (AGENT_START + 0x1000, AGENT_END)
        layout = MM_MAP.pack(*code, *data, begin, begin, AGENT_END - 16, *([AGENT_END - 16] * 4), 0, 0, -1)
        processes = self.state.kernel.processes
        if processes.write(space.pid, SCRATCH, layout) != len(layout):
            raise agents.not_traceable(space.pid)
        arguments = (PR_SET_MM, PR_SET_MM_MAP, SCRATCH, len(layout), 0)
        reply = yield from agents.call(self.state, space, agents.PRCTL, arguments)
        if reply.result < 0:
            raise agents.failed("place the heap", reply.result)
        space.heap_start = begin

    def _heap_stopped(self, space: KernelSpace, old: int, new: int) -> LaminaError:
        taken = within(agents.regions(self.state, space), old, new + PAGE_SIZE)
        if taken:
            return agents.in_use(old, new)
        return self._no_room(space, new - old)

    # ── what is mapped ───────────────────────────────────────────────────────────────────────────────────────────

    def mappings(self, key: Key, after: int, count: int) -> list[MappingView]:
        """Returns mappings by address."""
        space = self.state.space(key)
        found = [one for one in agents.regions(self.state, space, sizes=True) if one.start >= after]
        return [self.mapping_view(space, region) for region in found[:count]]

    def mapping_view(self, space: KernelSpace, region: Region) -> MappingView:
        """Returns a region as a mapping; what lies behind it is an object of ours, or named by the label."""
        number = self.state.inodes.get(region.inode, 0) if "/memfd:" in region.path else 0
        label = space.labels.at(region.start) or ("" if number else region.path)
        if region.path == "[heap]" or (space.heap_start and region.start == space.heap_start and not label):
            label = "[heap]"
        vma = Vma(
            region.start,
            region.end,
            region.rights,
            region.shared,
            number,
            region.offset if region.inode else 0,
            label,
            grows_down="gd" in region.flags,
        )
        return MappingView(vma, number, region.resident, region.swapped)


def _protection(rights: int) -> int:
    """Returns rights as PROT_… bits."""
    return bool(rights & READ) | bool(rights & WRITE) << 1 | bool(rights & EXECUTE) << 2


def _plain(spec: MapSpec, address: int | None = None) -> MapSpec:
    """Returns what to map for a stack's whole range: where the kernel likes, or fixed."""
    fixed = address is not None
    return MapSpec(address or spec.address, spec.size, spec.rights, fixed, label=spec.label, grows_down=fixed)
