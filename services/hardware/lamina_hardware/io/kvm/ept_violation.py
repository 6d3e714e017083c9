"""The record of an access that the EPT refuses. Pure.

Source: Intel SDM vol. 3, table 28-7 (exit qualification for EPT violations).
"""

from __future__ import annotations

from lamina_hardware.domain.paging.walk import Access, Outcome, Walk
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import ExitReason, ExitRecord
from lamina_kit.paging import EPT_R, EPT_W, EPT_X

REFUSED = (Outcome.EPT_VIOLATION, Outcome.EPT_MISCONFIGURATION)
"""How a walk ends that the EPT refuses."""
KIND = {Access.READ: 1, Access.WRITE: 2, Access.EXECUTE: 4}
"""Bits of the qualification that say which access it was."""
_ACCESS = {
    Access.READ: run_page.ACCESS_READ,
    Access.WRITE: run_page.ACCESS_WRITE,
    Access.EXECUTE: run_page.ACCESS_EXECUTE,
}
_LINEAR, _FINAL = 1 << 7, 1 << 8


def refused(walk: Walk, gpa: int, access: Access, address: int) -> ExitRecord:
    """Returns the record of an access to `gpa` that the EPT refuses; `address` is the virtual one, 0 if unknown."""
    if walk.outcome is Outcome.EPT_MISCONFIGURATION:
        return ExitRecord(reason=ExitReason.EPT_MISCONFIGURATION, gpa=gpa, access=_ACCESS[access])
    rights = EPT_R | EPT_W | EPT_X
    for step in walk.steps:
        if step.table.startswith("EPT"):
            rights &= step.entry
    kind = KIND[access] | rights << 3 | (_LINEAR | _FINAL if address else 0)
    return ExitRecord(
        reason=ExitReason.EPT_VIOLATION, gpa=gpa, address=address, access=_ACCESS[access], qualification=kind
    )
