"""All snippets."""

from __future__ import annotations

from tests.contract.hardware.snippets import (
    arithmetic,
    breakpoints,
    code_changes,
    descriptor_tables,
    devices,
    faults,
    floating,
    interrupts,
    paging,
    ring_3,
    rings,
    second_stage,
    strings,
    system,
)
from tests.contract.hardware.snippets.snippet import Snippet

SNIPPETS: tuple[Snippet, ...] = (
    *arithmetic.SNIPPETS,
    *strings.SNIPPETS,
    *floating.SNIPPETS,
    *faults.SNIPPETS,
    *descriptor_tables.SNIPPETS,
    *rings.SNIPPETS,
    *ring_3.SNIPPETS,
    *devices.SNIPPETS,
    *paging.SNIPPETS,
    *second_stage.SNIPPETS,
    *code_changes.SNIPPETS,
    *interrupts.SNIPPETS,
    *system.SNIPPETS,
    *breakpoints.SNIPPETS,
)
