"""The registers of a user program: how a run page looks when a program begins, and what a clone changes.

Ring 3, 64-bit code, flat segments, paging with NX; SYSCALL and all exceptions come to the kernel.
Source: Intel SDM vol. 3, 2.5 and 5.8; Linux arch/x86/kernel/process_64.c (start_thread).
"""

from __future__ import annotations

import struct

from lamina_kit.bus.run_page import DIRTY_ALL, CpuidEntry, RunPage, Segment

USER_CS, USER_SS = 0x33, 0x2B
_CODE = Segment(USER_CS, 0, 0xFFFFFFFF, 0xA0FB)
_STACK = Segment(USER_SS, 0, 0xFFFFFFFF, 0xC0F3)
_NULL = Segment(0, 0, 0xFFFFFFFF, 0xC0F3)
CR0 = 0x8005_0033
"""PG, AM, WP, NE, ET, MP, PE."""
CR4 = 0x620
"""PAE, OSFXSR, OSXMMEXCPT."""
EFER = 0xD01
"""NXE, LMA, LME, SCE."""
RFLAGS = 0x202
USER_RFLAGS = 0x0005_0DD5
"""Flags that a program may set: CF, PF, AF, ZF, SF, TF, DF, OF, RF, AC."""

_FEATURES_EDX = sum(1 << bit for bit in (0, 4, 6, 8, 11, 13, 15, 16, 19, 23, 24, 25, 26))
"""FPU, TSC, PAE, CX8, SEP, PGE, CMOV, PAT, CLFLUSH, MMX, FXSR, SSE, SSE2."""
HWCAP = _FEATURES_EDX
"""What AT_HWCAP tells a program: CPUID leaf 1, EDX."""
_FEATURES_ECX = sum(1 << bit for bit in (0, 9, 13, 19, 20, 23))
"""SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT: x86-64-v2. RDRAND, XSAVE and AVX are not there."""


def user_cpuid() -> tuple[CpuidEntry, ...]:
    """Returns the CPUID leaves of the model: an x86-64 baseline machine that is the same on every host."""
    vendor = struct.unpack("<3I", b"LaminaModel ")
    brand = struct.unpack("<12I", b"Lamina modelled x86-64 core".ljust(48, b"\0"))
    leaves = [
        CpuidEntry(0, 0, 1, vendor[0], vendor[2], vendor[1]),
        CpuidEntry(1, 0, 0x0006_0FB1, 0x0000_0800, _FEATURES_ECX, _FEATURES_EDX),
        CpuidEntry(0x8000_0000, 0, 0x8000_0008, vendor[0], vendor[2], vendor[1]),
        CpuidEntry(0x8000_0001, 0, 0x0006_0FB1, 0, 1, 1 << 11 | 1 << 20 | 1 << 29),
        CpuidEntry(0x8000_0008, 0, 0x0000_3030, 0, 0, 0),
    ]
    for part in range(3):
        leaves.append(CpuidEntry(0x8000_0002 + part, 0, *brand[4 * part : 4 * part + 4]))
    return tuple(leaves)


def start(page: RunPage, root: int, entry: int, stack: int) -> None:
    """Makes `page` that of a program about to begin at `entry`: everything else zero, as exec leaves it."""
    page.gpr[:] = memoryview(bytes(128)).cast("Q")
    page.rsp = stack
    page.rip = entry
    page.rflags = RFLAGS
    page.cpl = 3
    page.cr0, page.cr3, page.cr4, page.efer = CR0, root, CR4, EFER
    page.set_segment("cs", _CODE)
    page.set_segment("ss", _STACK)
    for name in ("ds", "es", "fs", "gs"):
        page.set_segment(name, _NULL)
    page.fxsave[:] = bytes(len(page.fxsave))
    page.fxsave[0:2] = (0x37F).to_bytes(2, "little")
    page.fxsave[24:28] = (0x1F80).to_bytes(4, "little")
    page.set_cpuid(user_cpuid())
    page.dirty = DIRTY_ALL


def copy(source: RunPage, target: RunPage) -> None:
    """Makes `target` a copy of the registers of a thread that is in a system call."""
    target.restore(source.save())
    target.set_cpuid(source.cpuid())
    target.dirty = DIRTY_ALL
