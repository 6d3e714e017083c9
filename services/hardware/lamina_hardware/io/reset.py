"""The registers of a new context: 64-bit long mode with flat segments, at ring 3 or ring 0; and those of real mode.

Source: Intel SDM vol. 3, table 10-1 (state after INIT), 9.4.3 (start-up IPI).
"""

from __future__ import annotations

import struct

from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import RunPage, Segment

CR0 = 0x8001_0033  # PG WP NE ET MP PE
CR4 = 0x620  # OSXMMEXCPT OSFXSR PAE: SSE works
EFER = 0xD01  # NXE LMA LME SCE
RFLAGS = 0x2
DR6, DR7 = 0xFFFF_0FF0, 0x400
XCR0 = 0x1

_FLAT = 0xFFFF_FFFF
_CODE, _DATA, _TSS, _LDT = 0xA09B, 0xC093, 0x008B, 0x0082
_REAL_CODE, _REAL_DATA, _REAL_LIMIT = 0x9B, 0x93, 0xFFFF
_REAL_CR0 = 0x6000_0010  # CD NW ET
_PE, _PAGE_SHIFT, _SELECTOR_SHIFT = 1, 12, 8


def reset_registers(view: memoryview, ring: int) -> None:
    """Writes the reset state of a context at `ring` (0 or 3) to its run page and marks it all as changed."""
    view[:] = bytes(run_page.PAGE_BYTES)
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
    page.dirty = run_page.DIRTY_ALL


def reset_after_init(view: memoryview, ring: int) -> None:
    """Does what INIT does: the registers of a new context, which waits for a start-up IPI.

    What is not a register of the processor stays: its answers to CPUID and its clock.
    """
    page = RunPage(view)
    kept, clock = page.cpuid(), (page.tsc, page.tsc_offset, page.tsc_aux, page.tsc_answered)
    posted = bytes(view[run_page.POSTED_OFFSET : run_page.ENGINE_OFFSET])
    reset_registers(view, ring)
    page.set_cpuid(kept)
    page.tsc, page.tsc_offset, page.tsc_aux, page.tsc_answered = clock
    view[run_page.POSTED_OFFSET : run_page.ENGINE_OFFSET] = posted
    page.activity = run_page.Activity.WAIT_FOR_STARTUP


def enter_real_mode(page: RunPage) -> None:
    """Gives a context the registers that a processor has after INIT."""
    page.cr0, page.cr4, page.efer, page.cpl = _REAL_CR0, 0, 0, 0
    page.rip, page.rdx = 0xFFF0, 0x600
    page.set_segment("cs", Segment(0xF000, 0xFFFF_0000, _REAL_LIMIT, _REAL_CODE))
    for name in ("ss", "ds", "es", "fs", "gs"):
        page.set_segment(name, Segment(0, 0, _REAL_LIMIT, _REAL_DATA))
    page.set_segment("ldtr", Segment(0, 0, _REAL_LIMIT, _LDT))
    page.gdtr_limit = page.idtr_limit = _REAL_LIMIT
    page.dirty = run_page.DIRTY_ALL


def is_real(page: RunPage) -> bool:
    """Whether a context is in real mode: INIT found an APIC that starts it itself."""
    return not page.cr0 & _PE


def start_up(page: RunPage, vector: int) -> None:
    """Does what a start-up IPI does: the context goes on at the page that the vector names."""
    page.set_segment("cs", Segment(vector << _SELECTOR_SHIFT, vector << _PAGE_SHIFT, _REAL_LIMIT, _REAL_CODE))
    page.rip = 0
    page.dirty |= run_page.DIRTY_RIP | run_page.DIRTY_SEGMENTS
