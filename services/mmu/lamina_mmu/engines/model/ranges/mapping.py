"""Mapping, unmapping and protecting ranges of a space."""

from __future__ import annotations

from collections.abc import Sequence

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import AlreadyExists, InvalidArgument, LaminaError, NotFound, ResourceExhausted
from lamina_kit.paging import ACCESSED, COW, DIRTY, NX, PAGE_SHIFT, PAGE_SIZE, PRESENT, RW, USER_END
from lamina_mmu.domain.effects import frame_key
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.spaces.settings import LockFuture
from lamina_mmu.domain.spaces.space import Kind, Space
from lamina_mmu.domain.spaces.vma import LOCKED, ON_FAULT, Vma
from lamina_mmu.domain.tables.entry import HELD, frame_of, in_ram, is_swap, is_transit, leaf, slot_of
from lamina_mmu.domain.tables.table import entries, exchange
from lamina_mmu.engines.model.faults import huge
from lamina_mmu.engines.model.faults.populate import fill
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.objects.objects import create_object, delete_object
from lamina_mmu.engines.model.withdrawal.users import Taken, withdraw


def map_range(m: Machine, handle: Handle, spec: MapSpec) -> Step[int]:
    """Maps a range; returns its first address. Nothing is allocated."""
    while True:
        space = m.spaces.get(handle)
        _check_limits(space, spec)
        address = _place(space, spec)
        if not space.vmas.within(address, address + spec.size):
            break
        if not spec.replace:
            raise AlreadyExists(
                f"Something is mapped within {address:#x}-{address + spec.size:#x}.",
                reason="RANGE_IN_USE",
                next_step="Unmap it, set replace, or leave the choice of the address to the MMU.",
            )
        yield from unmap_range(m, handle, address, address + spec.size)
    flags = _add(m, space, spec, address)
    if flags & LOCKED and not flags & ON_FAULT:
        yield from fill(m, handle, address, address + spec.size)
    return address


def _place(space: Space, spec: MapSpec) -> int:
    """Returns where the mapping goes; for one that is not fixed the place is free."""
    lowest = 0 if space.kind == Kind.GUEST_RAM else PAGE_SIZE
    end = spec.address + spec.size
    if spec.fixed:
        if spec.address < lowest or end > USER_END:
            raise InvalidArgument(
                f"{spec.address:#x}-{end:#x} is not within {lowest:#x}-{USER_END:#x}.",
                reason="ADDRESS_NOT_MAPPABLE",
                next_step="Take an address of the lower half; a process never maps page 0.",
            )
        return spec.address
    if lowest < spec.address and end <= USER_END and not space.vmas.within(spec.address, end):
        return spec.address
    return space.vmas.choose(spec.size)


def _check_limits(space: Space, spec: MapSpec) -> None:
    """Refuses what would go beyond the space's limits; what a fixed mapping replaces counts as gone."""
    start, end = spec.address, spec.address + spec.size
    replaced = space.vmas.within(start, end) if spec.fixed and spec.replace else []
    gone = sum(min(end, vma.end) - max(start, vma.start) for vma in replaced)
    check_mapped(space, spec.size - gone)
    if space.settings.lock_future != LockFuture.NO:
        check_locked(space, spec.size - sum(vma.size for vma in replaced if vma.flags & LOCKED))


def check_mapped(space: Space, more: int) -> None:
    """Refuses when `more` bytes would be too many for RLIMIT_AS."""
    limit = space.settings.mapped_max_bytes
    if limit is not None and more > 0 and space.vmas.mapped_bytes + more > limit:
        raise ResourceExhausted(
            f"Space s-{space.number} maps {space.vmas.mapped_bytes} bytes; {more} more are beyond its {limit}.",
            reason="MAPPED_LIMIT",
            next_step="Unmap something, or raise mapped_max_bytes (UpdateSpaceSettings).",
        )


def check_locked(space: Space, more: int) -> None:
    """Refuses when `more` locked bytes would be too many for RLIMIT_MEMLOCK."""
    limit = space.settings.locked_max_bytes
    if limit is not None and more > 0 and space.vmas.locked_bytes + more > limit:
        raise ResourceExhausted(
            f"Space s-{space.number} has locked {space.vmas.locked_bytes} bytes; {more} more are beyond its {limit}.",
            reason="LOCK_LIMIT",
            next_step="Unlock something, or raise locked_max_bytes (UpdateSpaceSettings).",
        )


def _flags_for(space: Space) -> int:
    """Returns the flags that mappings of a space begin with."""
    future = space.settings.lock_future
    return 0 if future == LockFuture.NO else LOCKED if future == LockFuture.NOW else LOCKED | ON_FAULT


def _add(m: Machine, space: Space, spec: MapSpec, address: int) -> int:
    """Adds the mapping to a free range; returns its flags."""
    object_id, offset, pages = 0, 0, spec.size >> PAGE_SHIFT
    space.vmas.check_room(1)
    if spec.object is not None:
        object_id, offset = m.objects.get(spec.object).id, spec.offset
    elif spec.shared:
        group = m.groups.get(space.group)
        entity = create_object(m, spec.size, group, "anonymous shared", space.session)
        object_id = entity.id
    start = address + spec.size - PAGE_SIZE if spec.grows_down else address
    floor = address if spec.grows_down else 0
    vma = Vma(
        start,
        address + spec.size,
        spec.rights,
        spec.shared,
        object_id,
        offset,
        spec.label,
        spec.grows_down,
        floor,
        _flags_for(space),
    )
    space.vmas.insert(vma)
    if object_id:
        entity = m.objects.slot(object_id)
        entity.mappings += pages
        if spec.object is None:
            delete_object(m, entity)  # it lives as long as it is mapped
    return vma.flags


def unmap_range(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    """Unmaps a range; returns how many pages in RAM or swap are gone from the space."""
    space = yield from settled(m, handle, start, end)
    unlock_pages(m, space, start, end)
    removed = space.vmas.remove(start, end)
    return (yield from clear(m, space, removed))


def unlock_pages(m: Machine, space: Space, start: int, end: int) -> None:
    """Takes the locks from the mappings of a range, and from their pages."""
    if not space.vmas.locked_bytes:
        return
    for vma in space.vmas.change(start, end, lambda part: part.with_flags(0, LOCKED | ON_FAULT)):
        if vma.flags & LOCKED:
            for frame in frames_within(space, vma):
                m.unlock_frame(frame)


def frames_within(space: Space, vma: Vma) -> list[int]:
    """Returns the frames that the pages of a mapping are in, by address."""
    found: list[int] = []
    for _, some in entries(space.table, vma.pages.start, vma.pages.stop):
        found += [frame_of(entry) for entry in some.tolist() if in_ram(entry)]
    return found


def settled(m: Machine, handle: Handle, start: int, end: int) -> Step[Space]:
    """Returns the space once no page of the range is in transit; valid until the next yield."""
    while True:
        space = m.spaces.get(handle)
        key = transit_within(space, start, end)
        if key is None:
            return space
        yield WaitFor(key)


def transit_within(space: Space, start: int, end: int) -> tuple[str, int] | None:
    """Returns the key to wait for when a page of the range is in transit."""
    for _, found in entries(space.table, start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        for entry in found[(found & PRESENT) == 0].tolist():
            if is_transit(entry):
                return frame_key(frame_of(entry))
    return None


def clear(m: Machine, space: Space, removed: Sequence[Vma]) -> Step[int]:
    """Takes all pages of mappings that were removed, and lets go of their objects; returns how many pages they had."""
    gone = yield from drop_pages(m, space, removed)
    for vma in removed:
        if vma.object:
            m.unlink_object(vma.object, len(vma.pages))
    return gone


def drop_pages(m: Machine, space: Space, parts: Sequence[Vma]) -> Step[int]:
    """Takes all pages of parts of mappings; they are free when every user has let go of them.

    Pages that could not be taken away, because the hardware failed, are never given to anybody again.
    """
    taken: list[Taken] = []
    frames: list[int] = []
    swapped = 0
    for vma in parts:
        for vpns, _ in entries(space.table, vma.start >> PAGE_SHIFT, vma.end >> PAGE_SHIFT):
            for vpn in vpns.tolist():
                entry = exchange(space.table, vpn, 0)
                if is_swap(entry):
                    m.drop_slot(slot_of(entry))
                    swapped += 1
                    continue
                m.note_unmapped(space, vpn, frame_of(entry), entry)
                frames.append(frame_of(entry))
                taken.append(Taken(space.id, vpn, entry))
    space.swapped -= swapped
    tables = _prune(space, parts)
    try:
        yield from withdraw(m, taken)
    except LaminaError as error:
        m.record(m.names.space(space.number), "frames.lost", count=len(frames) + len(tables), reason=error.reason)
        raise
    for frame in (*frames, *tables):
        m.drop(frame)
    return len(frames) + swapped


def _prune(space: Space, parts: Sequence[Vma]) -> list[int]:
    """Detaches tables that hold nothing any more; returns their frames."""
    tables: list[int] = []
    for vma in parts:
        tables += space.table.prune(vma.start >> PAGE_SHIFT, vma.end >> PAGE_SHIFT)
    return tables


def protect_range(m: Machine, handle: Handle, start: int, end: int, rights: int) -> Step[None]:
    """Changes the rights of a range that is mapped as a whole."""
    space = yield from settled(m, handle, start, end)
    hole = space.vmas.covers(start, end)
    if hole < end:
        raise NotFound(
            f"Nothing is mapped at {hole:#x}.", reason="RANGE_NOT_MAPPED", next_step="Protect mapped ranges only."
        )
    taken: list[Taken] = []
    for vma in space.vmas.protect(start, end, rights):
        whole = huge.protect(space, vma, rights, taken)
        for vpns, found in entries(space.table, vma.start >> PAGE_SHIFT, vma.end >> PAGE_SHIFT):
            for vpn, entry in zip(vpns.tolist(), found.tolist(), strict=True):
                if in_ram(entry) and vpn >> 9 not in whole:
                    _protect_page(m, space, vpn, rights, taken)
    yield from withdraw(m, taken)


def _protect_page(m: Machine, space: Space, vpn: int, rights: int, taken: list[Taken]) -> None:
    """Rewrites one entry for new rights, keeping A, D, COW; a page whose rights shrink is added to `taken`."""
    entry = space.table.load(vpn)
    while True:
        new = leaf(frame_of(entry), rights, bool(entry & COW)) | entry & (ACCESSED | DIRTY)
        shrinks = entry & (PRESENT | RW) & ~new or new & NX & ~entry
        write_only = bool(shrinks) and not (entry & PRESENT & ~new or new & NX & ~entry)
        if entry & HELD and (not shrinks or write_only):
            new |= HELD
        found = space.table.cas(vpn, entry, new)
        if found == entry:
            break
        entry = found
    if shrinks:
        taken.append(Taken(space.id, vpn, entry, write_only))
        if entry & HELD and entry & RW:
            m.soil(frame_of(entry))
