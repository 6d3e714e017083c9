"""Moving pages together until enough large blocks are free, and how far free memory is cut up.

    block 7  │ . . A . B . . . │  the fewest pages first:    block 7  │ . . . . . . . . │  free as a whole
    block 9  │ A C . . . D E F │  A and B move to gaps of    block 9  │ A C A B . D E F │
                                  blocks that stay in use

Source: Linux mm/compaction.c (which scans from both ends; here the block with the fewest pages is emptied first).
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from lamina_kit.effects import Step
from lamina_mmu.domain.frames.buddy import HUGE_ORDER
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.views import FragmentationView
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.withdrawal.migration import is_movable, isolated, move, spare_like

CHUNK = 128
"""Pages moved without a yield, so that others are not kept waiting."""


def compact(m: Machine, order: int, wanted: int, cause: str, most: int = 0) -> Step[int]:
    """Moves pages until `wanted` aligned blocks of 2^order frames are free, as far as it goes; returns how many moved.

    A page that is pinned, or in somebody's hands, keeps its block; with `most` so do those of blocks with more pages.
    """
    size, moved = 1 << order, 0
    m.frames.drain()
    candidates = _by_pages(m, order, most or size)
    while candidates:
        free = m.frames.buddy
        # the blocks' own gaps are no room, so each takes as many small free frames as it has frames
        count = min(wanted - free.of_order(order), free.below(order) >> order)
        if count <= 0:
            break
        chosen: list[int] = []
        while candidates and len(chosen) < count:
            first = candidates.pop(0)
            if not m.frames.is_isolated(first) and all(is_movable(m, frame) for frame in _pages(m, first, size)):
                chosen.append(first)
        done = yield from _empty(m, chosen, size, cause)
        m.frames.moved += done
        moved += done
        m.frames.drain()
    return moved


def _empty(m: Machine, blocks: list[int], size: int, cause: str) -> Step[int]:
    """Moves the pages of blocks to gaps of others; returns how many moved."""
    moved = 0
    with ExitStack() as stack:
        for first in blocks:
            stack.enter_context(isolated(m, first, size))
        for first in blocks:
            pages = _pages(m, first, size)
            for start in range(0, len(pages), CHUNK):
                chunk = pages[start : start + CHUNK]
                done = yield from move(m, chunk, partial(spare_like, m), cause)
                moved += done
                if done < len(chunk):
                    break
    return moved


def _pages(m: Machine, first: int, size: int) -> list[int]:
    """Returns the frames of a block that hold pages."""
    uses = m.frames.uses[first : first + size]
    found: list[int] = (np.flatnonzero((uses == Use.ANONYMOUS) | (uses == Use.OBJECT)) + first).tolist()
    return found


def _blocks(m: Machine, order: int) -> tuple[Any, Any]:
    """Returns, for each aligned block that lies in RAM as a whole, its pages and its frames that cannot be moved.

    Pins are not counted in.
    """
    size = 1 << order
    blocks = m.frames.uses[: m.frames.count // size * size].reshape(-1, size)
    pages = ((blocks == Use.ANONYMOUS) | (blocks == Use.OBJECT)).sum(axis=1)
    return pages, (blocks >= Use.TABLE).sum(axis=1)


def _by_pages(m: Machine, order: int, most: int) -> list[int]:
    """Returns the first frames of the blocks of up to `most` pages that can go, the one with the fewest first."""
    pages, fixed = _blocks(m, order)
    candidates = np.flatnonzero((pages > 0) & (pages <= most) & (fixed == 0))
    ordered = candidates[np.argsort(pages[candidates], kind="stable")]
    return [int(block) << order for block in ordered]


def fragmentation(m: Machine) -> FragmentationView:
    """Returns how free memory is cut up."""
    frames = m.frames
    _, fixed = _blocks(m, HUGE_ORDER)
    kinds = (Use.ANONYMOUS, Use.OBJECT)
    pinned = [frame for frame in m.ram.pinned_frames(0, frames.top) if frames.use[frame] in kinds]
    for frame in pinned:
        if frame >> HUGE_ORDER < len(fixed):
            fixed[frame >> HUGE_ORDER] += 1
    by_use = frames.by_use
    return FragmentationView(
        tuple(frames.free_blocks()),
        frames.free,
        int(np.count_nonzero(fixed == 0)),
        len(fixed),
        by_use[Use.TABLE] + by_use[Use.ALLOCATED] + by_use[Use.RESERVED] + len(pinned),
        frames.zeroed,
        by_use[Use.OFFLINE],
        frames.moved,
    )
