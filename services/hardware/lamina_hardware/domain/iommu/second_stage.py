"""The walk of a DMA address through a domain's table, in the second-stage format of VT-d. Pure.

     iova, 48 bits: │ SS-PML4 [47:39] │ SS-PDP [38:30] │ SS-PD [29:21] │ SS-PT [20:12] │ offset │

     63      52 51                         12 11 10  9  8  7   6  5    3   2  1  0
    ┌──────────┬─────────────────────────────┬──┬──┬──┬──┬──┬────┬──────┬───┬──┬──┐
    │ ignored  │ address of the table or page│  │  │ D│ A│PS│IPAT│  MT  │ X │ W│ R│
    └──────────┴─────────────────────────────┴──┴──┴──┴──┴──┴────┴──────┴───┴──┴──┘

Bits 6 to 3 are reserved where an entry names a table, PS in the root, and the low address bits of a large page. An
EPT has the same format in all of this, so a VM's EPT can be the table of its devices' domain. An entry may allow
writes without reads, unlike in an EPT. A is set in every entry that a transfer uses and D in the leaf of a write, by
compare-and-swap.

Sources: Intel VT-d specification 4.1, 9.8 (second-stage entries) and 3.7 (second-stage translation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lamina_hardware.domain.devices.dma import DmaOutcome, Physical
from lamina_hardware.domain.paging.walk import Step
from lamina_kit.paging import (
    ADDR_MASK,
    EPT_A,
    EPT_D,
    EPT_PS,
    EPT_R,
    EPT_W,
    PAGE_SIZE,
    TABLE_NAMES,
    ept_bit_names,
    index,
    span,
)

IOVA_BITS = 48
_ANY = 7
_RESERVED_IN_TABLE = 0x78
Reachable = Callable[[int], bool]


@dataclass(slots=True)
class DmaWalk:
    """How a walk ended: the physical address, the leaf's level, what it allows, the entry that decided."""

    outcome: DmaOutcome
    pa: int = 0
    level: int = 0
    readable: bool = False
    writable: bool = False
    dirty: bool = False
    entry: int = 0
    steps: list[Step] = field(default_factory=list)


def walk(
    memory: Physical,
    root: int,
    iova: int,
    write: bool,
    *,
    effect: bool,
    keep_steps: bool = False,
    reachable: Reachable | None = None,
) -> DmaWalk:
    """Translates one DMA address. With `effect` it sets A and D as a transfer does; without, it only looks.

    `reachable` says of a page's physical address whether the domain may have it; by default all that exists.
    """
    if reachable is None:
        reachable = _exists(memory)
    steps: list[Step] = []
    if iova >> IOVA_BITS:
        return DmaWalk(DmaOutcome.ADDRESS_TOO_WIDE)
    table, rights = root, EPT_R | EPT_W
    for level in (4, 3, 2, 1):
        place = table + 8 * index(iova, level)
        while True:
            entry = memory.load64(place)
            leaf = level == 1 or bool(entry & EPT_PS)
            outcome = _judge(memory, entry, level, leaf, rights & entry, write)
            pa = (entry & ADDR_MASK) | (iova & (span(level) - 1))
            if leaf and outcome is DmaOutcome.TRANSLATED and not reachable(pa & -PAGE_SIZE):
                outcome = DmaOutcome.MALFORMED_ENTRY
            wanted = entry | EPT_A | (EPT_D if leaf and write else 0)
            if outcome is not DmaOutcome.TRANSLATED or not effect or wanted == entry:
                break
            if memory.cas64(place, entry, wanted) == entry:
                entry = wanted
                break
        if keep_steps:
            steps.append(_step(level, iova, place, entry))
        if outcome is not DmaOutcome.TRANSLATED:
            return DmaWalk(outcome, entry=entry, level=level, steps=steps)
        rights &= entry
        if leaf:
            readable, writable = bool(rights & EPT_R), bool(rights & EPT_W)
            return DmaWalk(outcome, pa, level, readable, writable, bool(entry & EPT_D), entry, steps)
        table = entry & ADDR_MASK
    raise AssertionError("level 1 is a leaf")


def _exists(memory: Physical) -> Reachable:
    return lambda pa: memory.contains(pa, PAGE_SIZE)


def _judge(memory: Physical, entry: int, level: int, leaf: bool, rights: int, write: bool) -> DmaOutcome:
    """Returns whether a walk may go on with an entry, and why not."""
    if not entry & _ANY:
        return DmaOutcome.NOT_PRESENT
    if leaf and (level == 4 or entry & ADDR_MASK & (span(level) - 1)):
        return DmaOutcome.MALFORMED_ENTRY
    if not leaf and (entry & _RESERVED_IN_TABLE or not memory.contains(entry & ADDR_MASK, PAGE_SIZE)):
        return DmaOutcome.MALFORMED_ENTRY
    if not rights & (EPT_W if write else EPT_R):
        return DmaOutcome.NO_RIGHT
    return DmaOutcome.TRANSLATED


def _step(level: int, iova: int, place: int, entry: int) -> Step:
    return Step(f"SS {TABLE_NAMES[level]}", level, index(iova, level), place, entry, ept_bit_names(entry), iova)
