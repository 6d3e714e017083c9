"""The two translations of a guest address, entry by entry: GVA → GPA by the guest's tables, GPA → HPA by the EPT. Pure.

    GVA ──PML4──▶ PDPT ──▶ PD ──▶ PT ──▶ GPA ──EPT──▶ HPA
            │        │      │      │
           EPT      EPT    EPT    EPT       each table of the guest lies at a GPA itself: up to 4 · 5 + 4 = 24 reads

The walk has no side effects; it is what `TranslateAddress` shows and what the injection of an event looks up with.
Source: Intel SDM vol. 3, 5.5.4 and 30.3.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from lamina_hypervisor.domain.memory.addresses import Gpa, Gva, Hpa
from lamina_hypervisor.domain.memory.ept import Ept, EptVisit, TableMemory
from lamina_kit import paging
from lamina_kit.paging import ADDR_MASK, EPT_R, EPT_W, EPT_X, LEVELS, NX, PRESENT, PS, RW, US


class Outcome(enum.Enum):
    """How a walk ends."""

    TRANSLATED = "translated"
    PAGE_FAULT = "page fault"
    EPT_VIOLATION = "ept violation"
    NOT_CANONICAL = "not canonical"


@dataclass(frozen=True)
class Access:
    """What the access wants. `user` is an access at ring 3."""

    write: bool = False
    execute: bool = False
    user: bool = False


@dataclass(frozen=True)
class GuestVisit:
    """One entry of a guest table: `entry` and `address` are None when the EPT does not map the table."""

    level: int
    index: int
    entry_gpa: Gpa
    ept: tuple[EptVisit, ...]
    address: Hpa | None
    entry: int | None


@dataclass
class Walk:
    """A walk as far as it got."""

    gva: Gva
    outcome: Outcome = Outcome.NOT_CANONICAL
    gpa: Gpa | None = None
    hpa: Hpa | None = None
    visits: list[GuestVisit] = field(default_factory=list)
    ept_visits: list[EptVisit] = field(default_factory=list)
    error_code: int = 0
    page_bytes: int = 0


def walk(memory: TableMemory, ept: Ept, cr3: int, gva: Gva, access: Access) -> Walk:
    """Returns the walk of `gva` from the guest's root table `cr3`. CR0.WP and EFER.NXE count as set."""
    result = Walk(gva)
    if not paging.is_canonical(gva):
        return result
    table = cr3 & ADDR_MASK
    rights = RW | US
    no_execute = False
    for level in range(LEVELS, 0, -1):
        visit = _visit(memory, ept, Gpa(table), level, gva)
        result.visits.append(visit)
        if visit.entry is None:
            result.outcome, result.gpa = Outcome.EPT_VIOLATION, visit.entry_gpa
            return result
        if not visit.entry & PRESENT:
            return _fault(result, access, present=False)
        rights &= visit.entry
        no_execute |= bool(visit.entry & NX)
        table = visit.entry & ADDR_MASK
        if level == 1 or (level < LEVELS and visit.entry & PS):
            result.page_bytes = paging.span(level)
            break
    if (access.write and not rights & RW) or (access.user and not rights & US) or (access.execute and no_execute):
        return _fault(result, access, present=True)
    offset = gva & (result.page_bytes - 1)
    result.gpa = Gpa(table & ~(result.page_bytes - 1) | offset)
    return _second_stage(result, ept, result.gpa, access)


def _visit(memory: TableMemory, ept: Ept, table: Gpa, level: int, gva: Gva) -> GuestVisit:
    index = paging.index(gva, level)
    entry_gpa = Gpa(table + 8 * index)
    visits = tuple(ept.walk(entry_gpa))
    address = _address(visits, entry_gpa)
    return GuestVisit(level, index, entry_gpa, visits, address, None if address is None else memory.load64(address))


def _address(visits: tuple[EptVisit, ...], gpa: Gpa) -> Hpa | None:
    """Returns where a finished EPT walk leads, None when it ended early."""
    if len(visits) < LEVELS or not visits[-1].entry & EPT_R:
        return None
    return Hpa((visits[-1].entry & ADDR_MASK) | (gpa & paging.PAGE_MASK))


def _fault(result: Walk, access: Access, *, present: bool) -> Walk:
    result.outcome = Outcome.PAGE_FAULT
    result.error_code = present | access.write << 1 | access.user << 2 | access.execute << 4
    return result


def _second_stage(result: Walk, ept: Ept, gpa: Gpa, access: Access) -> Walk:
    result.ept_visits = ept.walk(gpa)
    address = _address(tuple(result.ept_visits), gpa)
    need = EPT_W if access.write else EPT_X if access.execute else EPT_R
    if address is None or not result.ept_visits[-1].entry & need:
        result.outcome = Outcome.EPT_VIOLATION
        return result
    result.outcome, result.hpa = Outcome.TRANSLATED, address
    return result
