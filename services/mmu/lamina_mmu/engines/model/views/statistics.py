"""What a space uses, as /proc/PID/smaps_rollup and getrusage tell it."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_kit.paging import ADDR_MASK, PAGE_SHIFT, PRESENT, USER_END
from lamina_mmu.domain.frames.table import DIRTY, Use
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.tables.entry import GUARDED
from lamina_mmu.domain.tables.table import PAGES_PER_LEAF, entries
from lamina_mmu.domain.views import SpaceStatistics
from lamina_mmu.engines.model.machine.state import Machine

_PSS_SHIFT = 12
"""Shares are summed with so many bits behind the point. Source: Linux, fs/proc/task_mmu.c, PSS_SHIFT."""
_IN_RAM = np.uint64(PRESENT | GUARDED)


def statistics(m: Machine, space: Space) -> SpaceStatistics:
    """Counts the pages of a space. A page is shared when other entries name its frame too."""
    anonymous = content = private = shared = cached = share = 0
    for _, found in entries(space.table, 0, USER_END >> PAGE_SHIFT):
        frames = ((found[(found & _IN_RAM) != 0] & np.uint64(ADDR_MASK)) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        if not len(frames):
            continue
        of_object = m.frames.uses[frames] == Use.OBJECT
        users: Any = np.maximum(m.frames.refs_array[frames].astype(np.int64) - of_object, 1)
        content += int(np.count_nonzero(of_object))
        anonymous += len(frames) - int(np.count_nonzero(of_object))
        private += int(np.count_nonzero(users == 1))
        shared += int(np.count_nonzero(users > 1))
        share += int(np.sum((1 << PAGE_SHIFT + _PSS_SHIFT) // users))
        clean = (m.frames.flags_array[frames] & DIRTY) == 0
        cached += int(np.count_nonzero((m.frames.slot_array[frames] != 0) & clean))
    return SpaceStatistics(
        mapped=space.vmas.mapped_bytes >> PAGE_SHIFT,
        anonymous=anonymous,
        objects=content,
        private=private,
        shared=shared,
        proportional_bytes=share >> _PSS_SHIFT,
        swapped=space.swapped,
        swap_cached=cached,
        locked=space.vmas.locked_bytes >> PAGE_SHIFT,
        pinned=sum(len(pin.frames) for pin in m.pins if pin.space == space.number),
        huge=space.huge_pages * PAGES_PER_LEAF,
        table_frames=space.table_frames,
        minor_faults=space.minor_faults,
        major_faults=space.major_faults,
        around=space.around,
        read_ahead=space.read_ahead,
        peak_resident=space.peak,
        time_ns=m.ports.now_ns(),
    )
