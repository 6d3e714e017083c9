"""Pinning ranges for DMA: each page stays in its frame, whatever becomes of the mapping, until it is unpinned.

A pin is a count in the frame's state word on the memory bus, so that everybody who moves frames sees it. Copies that
are due are made first: afterwards a write of the space finds the page in the pinned frame. A fork copies pinned pages
for the child at once (`fork.py`), so that no later write takes the parent off its frame.
Source: Linux, Documentation/core-api/pin_user_pages.rst.
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import OutOfRange, ResourceExhausted
from lamina_kit.paging import COW, PAGE_SHIFT, PAGE_SIZE, page_down, page_up
from lamina_mmu.domain.effects import frame_key
from lamina_mmu.domain.frames.table import BUSY, Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.spaces.pin import Pin, runs_of
from lamina_mmu.domain.tables.entry import READ, WRITE, frame_of, is_transit
from lamina_mmu.engines.model.faults.fault import fault
from lamina_mmu.engines.model.faults.populate import check_memory
from lamina_mmu.engines.model.machine.state import Machine


def pin_range(m: Machine, handle: Handle, address: int, size: int, write: bool, session: Session) -> Step[Pin]:
    """Pins the pages of a range; all or none."""
    first, end = page_down(address), page_up(address + size)
    space = m.spaces.get(handle)
    frames: list[int] = []
    pin: Pin | None = None
    try:
        for vpn in range(first >> PAGE_SHIFT, end >> PAGE_SHIFT):
            frame = yield from _reach(m, handle, vpn, max(address, vpn << PAGE_SHIFT), write)
            _check_limit(m)
            m.ram.pin(frame)
            m.pinned_frames += 1
            frames.append(frame)
        pin = m.pins.add(Pin(space.number, runs_of(first, frames, PAGE_SIZE), session))
    finally:
        if pin is None:
            _let_go(m, frames)
    m.record(m.names.space(space.number), "range.pinned", address=f"{address:#x}", size_bytes=size, write=write)
    return pin


def _reach(m: Machine, handle: Handle, vpn: int, address: int, write: bool) -> Step[int]:
    """Returns the frame of a page once it may be pinned; valid until the next yield.

    A page that is to be read, and that a private mapping shares with another space, gets its own copy too: otherwise
    the space's next write would leave the frame that is pinned.
    """
    while True:
        result = yield from fault(m, handle, vpn << PAGE_SHIFT, WRITE if write else READ)
        check_memory(m, result, vpn)
        if result.refused:
            raise OutOfRange(
                f"The address {address:#x} cannot be {'written' if write else 'read'}; nothing was pinned.",
                reason="BAD_ADDRESS",
                next_step="Look at the mappings of the space (ListMappings).",
                address=f"{address:#x}",
            )
        entry = m.spaces.get(handle).table.load(vpn)
        if is_transit(entry):
            yield WaitFor(frame_key(frame_of(entry)))
            continue
        frame = frame_of(entry)
        if m.frames.flags[frame] & BUSY:
            yield WaitFor(frame_key(frame))
            continue
        if entry & COW and m.frames.use[frame] == Use.ANONYMOUS:
            result = yield from fault(m, handle, vpn << PAGE_SHIFT, WRITE, force=True)
            check_memory(m, result, vpn)
            continue
        return frame


def _check_limit(m: Machine) -> None:
    if m.pinned_frames + 1 > m.frames.count // 2:
        raise ResourceExhausted(
            f"{m.pinned_frames} of {m.frames.count} frames are pinned: the half of RAM.",
            reason="PIN_LIMIT",
            next_step="End pins that are not needed (UnpinRanges).",
        )


def unpin_ranges(m: Machine, handles: Sequence[Handle], written: bool) -> None:
    """Ends pins, all or none; with `written` their pages count as dirty."""
    pins = [m.pins.get(handle) for handle in handles]
    seen: dict[int, Pin] = {}
    for pin in pins:
        if pin.id in seen:
            m.pins.get(Handle(pin.id, 0))  # named twice: by the second time it is gone
        seen[pin.id] = pin
    for pin in pins:
        end_pin(m, pin, written)


def end_pin(m: Machine, pin: Pin, written: bool = False) -> None:
    """Ends one pin."""
    frames = pin.frames
    m.pins.remove(pin)
    for frame in frames:
        if written and m.frames.use[frame] in (Use.ANONYMOUS, Use.OBJECT):
            m.soil(frame)
    _let_go(m, frames)


def _let_go(m: Machine, frames: Sequence[int]) -> None:
    for frame in frames:
        m.ram.unpin(frame)
    m.pinned_frames -= len(frames)
    m.settle()
