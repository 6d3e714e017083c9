"""Reads the headers of an ELF program: what to map where, bounds checked first.

    file                                     memory (ET_EXEC as written, ET_DYN + load bias)
    ┌────────────┐
    │ ELF header │──▶ entry, program headers
    ├────────────┤
    │ PT_LOAD R X│──────────────────────────▶ [vaddr, vaddr + file_size)
    ├────────────┤
    │ PT_LOAD RW │──────────────────────────▶ [vaddr, vaddr + file_size)  then zeroes up to mem_size (bss)
    └────────────┘

A page of a file can only be mapped when its offset and its address agree modulo the page size, as mmap(2) wants.
Source: System V ABI, chapters 4 and 5; AMD64 supplement; Linux fs/binfmt_elf.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from lamina_kit.errors import InvalidArgument
from lamina_kit.paging import PAGE_MASK, USER_END, page_down, page_up

Read = Callable[[int, int], bytes]
"""`read(offset, count)` of the program's file; shorter at its end."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_MACHINES = {3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S/390", 40: "ARM", 183: "AArch64", 243: "RV64"}
_TYPES = {0: "none", 1: "a relocatable object", 4: "a core dump"}
_PT_LOAD, _PT_INTERP, _PT_PHDR, _PT_GNU_STACK = 1, 3, 6, 0x6474E551
_PF_X, _PF_W, _PF_R = 1, 2, 4
PIE_BASE = 0x5555_5555_4000
"""Where the first segment of a relocatable program goes."""
MAX_PROGRAM_HEADERS = 1024
MACHINE_X86_64 = 62


@dataclass(frozen=True)
class Segment:
    """One PT_LOAD entry; addresses and sizes in bytes."""

    offset: int
    vaddr: int
    file_size: int
    mem_size: int
    readable: bool
    writable: bool
    executable: bool

    @property
    def start(self) -> int:
        """First address of the pages it covers."""
        return page_down(self.vaddr)

    @property
    def end(self) -> int:
        """Address behind the pages it covers."""
        return page_up(self.vaddr + self.mem_size)

    @property
    def file_end(self) -> int:
        """Address behind the pages that hold bytes of the file."""
        return page_up(self.vaddr + self.file_size) if self.file_size else self.start


@dataclass(frozen=True)
class Program:
    """A loadable program. `relocatable` is ET_DYN (static-pie): all addresses are relative to the load bias."""

    entry: int
    relocatable: bool
    segments: tuple[Segment, ...]
    program_headers: int
    program_header_count: int
    executable_stack: bool

    @property
    def start(self) -> int:
        """First address of all segments."""
        return self.segments[0].start

    @property
    def end(self) -> int:
        """Address behind all segments."""
        return max(segment.end for segment in self.segments)

    @property
    def bias(self) -> int:
        """What is added to every address of the file; may be negative."""
        return PIE_BASE - self.start if self.relocatable else 0


def parse(read: Read, size: int) -> Program:
    """Returns what the headers of an ELF file of `size` bytes say.

    `InvalidArgument` with reason `ELF_TRUNCATED`, `ELF_FOREIGN` (another machine, class or system), `ELF_DYNAMIC` (it
    needs an interpreter), `ELF_MALFORMED` or `PROGRAM_NOT_EXECUTABLE` (no ELF file at all).
    """
    head = read(0, _HEADER.size)
    if head[:4] != b"\x7fELF":
        raise InvalidArgument(
            "The program is neither an ELF file nor a script that begins with #!.",
            reason="PROGRAM_NOT_EXECUTABLE",
            next_step="Build it as a static x86-64 Linux program.",
        )
    if len(head) < _HEADER.size:
        raise _truncated(f"its header needs {_HEADER.size} bytes and it has {len(head)}")
    ident, kind, machine, _, entry, table, _, _, _, entry_size, count, *_ = _HEADER.unpack(head)
    _check_identity(ident, kind, machine)
    if entry_size != _PROGRAM_HEADER.size or not 0 < count <= MAX_PROGRAM_HEADERS:
        raise _malformed(f"it has {count} program headers of {entry_size} bytes")
    if table + count * entry_size > size:
        raise _truncated(f"its program headers end at {table + count * entry_size} and it has {size} bytes")
    raw = read(table, count * entry_size)
    if len(raw) < count * entry_size:
        raise _truncated("its program headers cannot be read")
    entries = [_PROGRAM_HEADER.unpack_from(raw, position) for position in range(0, len(raw), entry_size)]
    return _program(entries, entry, kind == 3, table, size)


def _check_identity(ident: bytes, kind: int, machine: int) -> None:
    if ident[4] != 2 or ident[5] != 1 or machine != MACHINE_X86_64:
        name = _MACHINES.get(machine, f"machine {machine}") if machine != MACHINE_X86_64 else "x86-64"
        raise InvalidArgument(
            f"The program is for {name} ({'64' if ident[4] == 2 else '32'} bit, "
            f"{'little' if ident[5] == 1 else 'big'} endian); these cores run 64-bit x86-64 programs.",
            reason="ELF_FOREIGN",
            next_step="Build it for x86_64-linux.",
        )
    if ident[6] != 1 or ident[7] not in (0, 3):
        raise InvalidArgument(
            f"The program is for another system (ELF version {ident[6]}, OS ABI {ident[7]}).",
            reason="ELF_FOREIGN",
            next_step="Build it for x86_64-linux.",
        )
    if kind not in (2, 3):
        raise _malformed(f"it is {_TYPES.get(kind, f'of type {kind}')}, not a program")


def _program(entries: list[tuple[int, ...]], entry: int, relocatable: bool, table: int, size: int) -> Program:
    segments: list[Segment] = []
    headers = 0
    executable_stack = False
    for kind, flags, offset, vaddr, _, file_size, mem_size, align in entries:
        if kind == _PT_INTERP:
            raise InvalidArgument(
                "The program is dynamically linked: it names an interpreter (PT_INTERP).",
                reason="ELF_DYNAMIC",
                next_step="Link it statically (-static, or static-pie).",
            )
        if kind == _PT_GNU_STACK:
            executable_stack = bool(flags & _PF_X)
        if kind == _PT_PHDR:
            headers = vaddr
        if kind == _PT_LOAD and mem_size:
            segments.append(_segment(flags, offset, vaddr, file_size, mem_size, align, size))
    if not segments:
        raise _malformed("it has no segment to load")
    segments.sort(key=lambda segment: segment.vaddr)
    for lower, upper in pairwise(segments):
        if lower.vaddr + lower.mem_size > upper.vaddr:
            raise _malformed(f"its segments at {lower.vaddr:#x} and {upper.vaddr:#x} overlap")
    if not headers:
        holders = [part for part in segments if part.offset <= table < part.offset + part.file_size]
        headers = holders[0].vaddr + table - holders[0].offset if holders else 0
    if entry >= USER_END:
        raise _malformed(f"its entry point {entry:#x} is not a user address")
    program = Program(entry, relocatable, tuple(segments), headers, len(entries), executable_stack)
    _check_addresses(program)
    return program


def _check_addresses(program: Program) -> None:
    """Refuses a program of which an address is no user address, as written or where it would be loaded."""
    if program.program_headers >= USER_END:
        raise _malformed(f"its program headers at {program.program_headers:#x} are not at a user address")
    places = [("entry point", program.entry), ("last byte", program.end - 1)]
    if program.program_headers:
        places.append(("program header table", program.program_headers))
    for what, address in places:
        loaded = address + program.bias
        if not 0 <= loaded < USER_END:
            raise _malformed(f"its {what} at {address:#x} would be loaded at {loaded:#x}, which is no user address")


def _segment(flags: int, offset: int, vaddr: int, file_size: int, mem_size: int, align: int, size: int) -> Segment:
    if file_size > mem_size:
        raise _malformed(f"its segment at {vaddr:#x} has more bytes in the file than in memory")
    if vaddr + mem_size > USER_END or vaddr + mem_size < vaddr:
        raise _malformed(f"its segment at {vaddr:#x} reaches beyond user addresses")
    if offset + file_size > size:
        raise _truncated(f"its segment at {vaddr:#x} ends at {offset + file_size} and the file has {size} bytes")
    if file_size and (offset ^ vaddr) & PAGE_MASK:
        raise _malformed(f"its segment at {vaddr:#x} has the offset {offset:#x}, which is not congruent modulo 4096")
    if align & (align - 1):
        raise _malformed(f"its segment at {vaddr:#x} has the alignment {align:#x}, which is no power of two")
    return Segment(offset, vaddr, file_size, mem_size, bool(flags & _PF_R), bool(flags & _PF_W), bool(flags & _PF_X))


def _truncated(why: str) -> InvalidArgument:
    return InvalidArgument(
        f"The program is a truncated ELF file: {why}.",
        reason="ELF_TRUNCATED",
        next_step="Copy or build the file again.",
    )


def _malformed(why: str) -> InvalidArgument:
    return InvalidArgument(
        f"The program is a malformed ELF file: {why}.",
        reason="ELF_MALFORMED",
        next_step="Build it as a static x86-64 Linux program.",
    )
