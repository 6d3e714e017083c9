"""How an access that an agent made ended, judged by what the kernel tells before and after it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_mmu.domain.kernel.maps import Region
from lamina_mmu.domain.kernel.pages import IN_SWAP, frame_of, is_resident
from lamina_mmu.domain.kernel.port import Reply
from lamina_mmu.domain.outcome import FaultResult, Outcome
from lamina_mmu.domain.tables.entry import WRITE

SIGBUS = 7
BUS_MCEERR_AR, BUS_MCEERR_AO = 4, 5
"""Codes of a SIGBUS for memory that failed."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an access: the reply, the region it went to (None: none), the page map's words before and after,
    the faults that were counted meanwhile, and whether the page was the kernel's page of zeros before.
    """

    reply: Reply
    region: Region | None
    before: int
    after: int
    minor: int
    major: int
    was_zero: bool = False


def judge(found: Evidence, access: int) -> FaultResult:
    """Returns how an access ended."""
    if found.reply.signal:
        if found.reply.signal != SIGBUS:
            return FaultResult(Outcome.SEGMENTATION_FAULT)
        lost = found.reply.code in (BUS_MCEERR_AR, BUS_MCEERR_AO)
        return FaultResult(Outcome.BUS_ERROR, refusal_reason="PAGE_LOST" if lost else "BEYOND_OBJECT")
    return FaultResult(_outcome(found, access), frame_of(found.after))


def _outcome(found: Evidence, access: int) -> Outcome:
    """Returns the outcome of an access that was made."""
    if found.before & IN_SWAP or found.major:
        return Outcome.SWAPPED_IN
    if not found.minor:
        return Outcome.SPURIOUS
    of_object = found.region is not None and found.region.inode != 0
    copies = of_object and found.region is not None and not found.region.shared and access == WRITE
    if is_resident(found.before) or copies:
        return Outcome.ZERO_FILLED if found.was_zero else Outcome.COPIED
    return Outcome.OBJECT_MAPPED if of_object else Outcome.ZERO_FILLED
