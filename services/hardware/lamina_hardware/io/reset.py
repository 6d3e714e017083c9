"""The registers of a new context: 64-bit long mode with flat segments, at ring 3 or ring 0."""

from __future__ import annotations

import struct

from lamina_kit import runpage
from lamina_kit.runpage import RunPage, Segment

CR0 = 0x8001_0033  # PG WP NE ET MP PE
CR4 = 0x620  # OSXMMEXCPT OSFXSR PAE: SSE works
EFER = 0xD01  # NXE LMA LME SCE
RFLAGS = 0x2
DR6, DR7 = 0xFFFF_0FF0, 0x400
XCR0 = 0x1

_FLAT = 0xFFFF_FFFF
_CODE, _DATA, _TSS, _LDT = 0xA09B, 0xC093, 0x008B, 0x0082


def reset_registers(view: memoryview, ring: int) -> None:
    """Writes the reset state of a context at `ring` (0 or 3) to its run page and marks it all as changed."""
    view[:] = bytes(runpage.PAGE_BYTES)
    page = RunPage(view)
    page.cr0, page.cr4, page.efer, page.rflags, page.cpl = CR0, CR4, EFER, RFLAGS, ring
    page.dr6, page.dr7, page.xcr0 = DR6, DR7, XCR0
    code, data = (0x33, 0x2B) if ring == 3 else (0x08, 0x10)
    level = ring << 5
    page.set_segment("cs", Segment(code, 0, _FLAT, _CODE | level))
    for name in ("ss", "ds", "es", "fs", "gs"):
        page.set_segment(name, Segment(data if name == "ss" else 0, 0, _FLAT, _DATA | level))
    page.set_segment("tr", Segment(0, 0, 0xFFFF, _TSS))
    page.set_segment("ldtr", Segment(0, 0, 0, _LDT))
    struct.pack_into("<H", page.fxsave, 0, 0x37F)
    struct.pack_into("<I", page.fxsave, 24, 0x1F80)
    page.dirty = runpage.DIRTY_ALL


def reset_after_init(view: memoryview, ring: int) -> None:
    """Does what INIT does: the registers of a new context, which waits for a start-up IPI.

    What is not a register of the processor stays: its answers to CPUID and its clock.
    """
    page = RunPage(view)
    kept, clock = page.cpuid(), (page.tsc, page.tsc_offset, page.tsc_aux, page.tsc_answered)
    posted = bytes(view[runpage.POSTED_OFFSET : runpage.ENGINE_OFFSET])
    reset_registers(view, ring)
    page.set_cpuid(kept)
    page.tsc, page.tsc_offset, page.tsc_aux, page.tsc_answered = clock
    view[runpage.POSTED_OFFSET : runpage.ENGINE_OFFSET] = posted
    page.activity = runpage.Activity.WAIT_FOR_STARTUP
