"""The boot protocol: what a kernel finds when it starts. Pure.

Every vCPU starts at the kernel's entry point in 64-bit long mode, ring 0, interrupts disabled, with

    RDI = guest physical address of the boot information, RSI = number of the vCPU, RSP = top of a stack of its own

and a page table that maps guest RAM one to one with 2 MiB pages. What the hypervisor puts into guest RAM for it:

    0x00000 ─ 0x8ffff   free for the kernel, zero
    0x90000             boot information (layout below), command line at + 0x800
    0x91000             GDT: null, 64-bit code (0x08), data (0x10)
    0x92000 ─ 0xa1fff   boot stacks, 4 KiB a vCPU
    0xb0000             PML4 · 0xb1000 PDPT · 0xb2000 PD, one for each GiB (at most 64)
    0x100000 ─          the kernel's segments

Boot information, little-endian: magic `LAMINA01` (8 bytes), version 1 and size (32 bits each), memory bytes (64),
vCPU count and length of the command line (32 each), address of the command line, first and end address of the kernel,
frequency of the time stamp counter in Hz (64 each), serial port and its interrupt vector (32 each).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lamina_hypervisor.domain.boot.elf import Kernel
from lamina_hypervisor.domain.memory.addresses import Gpa
from lamina_hypervisor.domain.vcpus.processor import NANOSECONDS
from lamina_kit import paging
from lamina_kit.paging import PRESENT, PS, RW

MAGIC = b"LAMINA01"
VERSION = 1
INFO = Gpa(0x90000)
COMMAND_LINE = Gpa(0x90800)
GDT = Gpa(0x91000)
STACKS = Gpa(0x92000)
PML4 = Gpa(0xB0000)
PDPT = Gpa(0xB1000)
PD = Gpa(0xB2000)
KERNEL_LOWEST = Gpa(0x100000)
MAX_MEMORY = 64 << 30
MAX_COMMAND_LINE = 2047
SERIAL_PORT = 0x3F8
SERIAL_VECTOR = 0x24

CODE_SELECTOR, DATA_SELECTOR = 0x08, 0x10
_GDT_ENTRIES = (0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)
CODE_ATTRIBUTES = 0xA09B
"""Access rights of the code segment: present, ring 0, 64-bit, accessed."""
DATA_ATTRIBUTES = 0xC093
UNUSABLE = 1 << 16
BUSY_TSS = 0x8B

CR0 = 0x8001_0033
"""Paging, write protect, numeric error, extension type, monitor, protected mode."""
CR4 = 0x0620
"""SSE exceptions, FXSAVE, PAE."""
EFER = 0x0D01
"""No-execute, long mode active and enabled, SYSCALL enabled."""
RFLAGS = 0x2

_INFO = struct.Struct("<8sIIQIIQQQQII")
_LARGE = 2 << 20


@dataclass(frozen=True)
class BootRegisters:
    """What a vCPU's registers are at its start; all others are zero."""

    rip: int
    rsp: int
    rdi: int
    rsi: int


@dataclass(frozen=True)
class Piece:
    """Bytes that the hypervisor writes to guest RAM before the start."""

    gpa: Gpa
    data: bytes


def registers(kernel: Kernel, vcpu: int) -> BootRegisters:
    """Returns the start registers of vCPU `vcpu` (0 to 15)."""
    return BootRegisters(rip=kernel.entry, rsp=STACKS + (vcpu + 1) * paging.PAGE_SIZE, rdi=INFO, rsi=vcpu)


def pieces(
    kernel: Kernel, memory_bytes: int, vcpu_count: int, command_line: str, tsc_hz: int = NANOSECONDS
) -> list[Piece]:
    """Returns everything that is written to guest RAM, kernel included, by address."""
    text = command_line.encode("ascii")
    info = _INFO.pack(
        MAGIC, VERSION, _INFO.size, memory_bytes, vcpu_count, len(text), COMMAND_LINE, kernel.start, kernel.end,
        tsc_hz, SERIAL_PORT, SERIAL_VECTOR,
    )  # fmt: skip
    low = [
        Piece(INFO, info),
        Piece(COMMAND_LINE, text + b"\0"),
        Piece(GDT, struct.pack("<3Q", *_GDT_ENTRIES)),
        *_identity_map(memory_bytes),
    ]
    return low + [Piece(segment.gpa, segment.data) for segment in kernel.segments if segment.data]


def _identity_map(memory_bytes: int) -> list[Piece]:
    """Returns the tables that map [0, memory_bytes), rounded up to 2 MiB, one to one."""
    large_pages = -(-memory_bytes // _LARGE)
    directories = -(-large_pages // paging.ENTRIES)
    upper = [(PD + directory * paging.PAGE_SIZE) | PRESENT | RW for directory in range(directories)]
    leaves = [number * _LARGE | PRESENT | RW | PS for number in range(large_pages)]
    return [
        Piece(PML4, struct.pack("<Q", PDPT | PRESENT | RW)),
        Piece(PDPT, struct.pack(f"<{directories}Q", *upper)),
        Piece(PD, struct.pack(f"<{large_pages}Q", *leaves)),
    ]
