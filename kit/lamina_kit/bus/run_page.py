"""The run page: registers and exit record of one execution context, 4096 bytes on the memory bus. Pure.

Who holds a context (a kernel, a hypervisor) and the core that runs it talk through this page, as KVM's user space does
through `kvm_run`; the messages of `Cpu.Run` carry only handle, budget and reason. All fields are 64-bit little-endian
words unless said otherwise:

    0x000  magic and version          0x0D0  rip, rflags                   0x240  FXSAVE area, 512 bytes
    0x008  dirty: groups changed      0x0E0  control registers, MSRs       0x440  exit record
    0x010  cpl                        0x150  descriptor tables             0x4D0  what blocks interrupts, activity,
    0x040  16 general registers       0x170  8 segments of 24 bytes               debug registers, XCR0
           in hardware order                                               0x540  time stamp counter, 0x560 event
                                                                           0x580  CPUID answers, 32 entries
                                                                           0x8C0  16 posted writes (count, value)
                                                                           0x9C0  free for the engine

`dirty` works as KVM's `kvm_dirty_regs`: the holder sets the bit of each group of registers that it changed since the
last exit, the core loads those and clears the word. A core that has the registers of this context still loaded needs
nothing else. After an exit the page holds the whole truth. While a core runs, the page belongs to the core.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import astuple, dataclass, fields
from operator import attrgetter

from lamina_kit.bus.exit_record import ACCESS_EXECUTE as ACCESS_EXECUTE
from lamina_kit.bus.exit_record import ACCESS_READ as ACCESS_READ
from lamina_kit.bus.exit_record import ACCESS_WRITE as ACCESS_WRITE
from lamina_kit.bus.exit_record import NO_REGISTER as NO_REGISTER
from lamina_kit.bus.exit_record import ExitReason as ExitReason
from lamina_kit.bus.exit_record import ExitRecord as ExitRecord
from lamina_kit.errors import FailedPrecondition, InvalidArgument, ResourceExhausted

PAGE_BYTES = 4096
MAGIC = 0x0002_3147_5052_4D4C
"""`LMRPG1` and version 2: what version 1 left free between 0x4C8 and 0x540 and from 0x8C0 on has a meaning."""

GPR_OFFSET = 0x040
RIP_OFFSET = 0x0D0
CONTROL_OFFSET = 0x0E0
TABLES_OFFSET = 0x150
SEGMENTS_OFFSET = 0x170
FXSAVE_OFFSET = 0x240
FXSAVE_BYTES = 512
EXIT_OFFSET = 0x440
STATE_OFFSET = 0x4D0
TSC_OFFSET = 0x540
CPUID_OFFSET = 0x580
CPUID_ENTRIES = 32
POSTED_OFFSET = 0x8C0
POSTED_SLOTS = 16
ENGINE_OFFSET = 0x9C0
"""From here to the end of the page the engine keeps what it likes."""

GPR_NAMES = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
"""Order of the general registers: the numbers that instructions use."""

SEGMENT_NAMES = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
"""Order of the segments: the numbers that instructions use, then LDTR and TR."""

DIRTY_GPRS = 1 << 0
DIRTY_RIP = 1 << 1
"""rip, rflags and cpl."""
DIRTY_CONTROL = 1 << 2
"""cr0 to cr4 and efer."""
DIRTY_MSRS = 1 << 3
"""star, lstar, sfmask, kernel_gs_base and tsc_aux."""
DIRTY_SEGMENTS = 1 << 4
"""Segments, fs_base and gs_base among them, and descriptor tables."""
DIRTY_FPU = 1 << 5
DIRTY_CPUID = 1 << 6
DIRTY_ALL = (1 << 7) - 1


EVENT_EXTERNAL = 0 << 8
"""Kind of event in `event`: an external interrupt, delivered once RFLAGS.IF allows."""
EVENT_NMI = 2 << 8
"""Kind of event in `event`: a non-maskable interrupt, delivered once no other is being handled."""
EVENT_EXCEPTION = 3 << 8
"""Kind of event in `event`: a hardware exception, delivered at once."""
EVENT_SOFTWARE = 4 << 8
"""Kind of event in `event`: INT n; rip is where the handler returns to."""
EVENT_ERROR_CODE = 1 << 11
"""In `event`: the exception pushes `event_error_code`."""
EVENT_VALID = 1 << 31
"""In `event`: there is one. Layout as VMX's VM-entry interruption information (Intel SDM vol. 3, 26.8.3)."""

BLOCKED_BY_STI = 1 << 0
BLOCKED_BY_MOV_SS = 1 << 1
"""In `interruptibility`: the instruction before holds interrupts back for one more. A core that cannot tell the two
apart says the first. Layout as VMX's interruptibility state (Intel SDM vol. 3, guest non-register state)."""
BLOCKED_BY_NMI = 1 << 3
"""In `interruptibility`: an NMI is being handled; the next waits for IRET."""


class Activity(enum.IntEnum):
    """What a context does between instructions. The numbers are VMX's activity states."""

    ACTIVE = 0
    HALTED = 1
    SHUTDOWN = 2
    WAIT_FOR_STARTUP = 3


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register: `limit` in bytes, `attributes` as VMX access rights (type, S, DPL, P …; 1 << 16 unusable)."""

    selector: int
    base: int
    limit: int
    attributes: int


@dataclass(frozen=True, slots=True)
class CpuidEntry:
    """The answer to one CPUID leaf."""

    leaf: int
    subleaf: int
    eax: int
    ebx: int
    ecx: int
    edx: int


_EXIT = struct.Struct("<18Q")
_EXIT_FIELDS = tuple(field.name for field in fields(ExitRecord))
_EXIT_RIP = _EXIT_FIELDS.index("rip")
_exit_words = attrgetter(*_EXIT_FIELDS)
_SEGMENT = struct.Struct("<QIIII")  # base, limit, attributes, selector, nothing
_CPUID = struct.Struct("<6I")
_CPUID_COUNT_WORD = 0x578 // 8
_REGISTERS_END = EXIT_OFFSET
_STATE_END = STATE_OFFSET + 9 * 8
_SAVED = _REGISTERS_END - 0x010 + _STATE_END - STATE_OFFSET


def _word(offset: int, what: str) -> property:
    """Returns a property for the 64-bit word at `offset`."""
    index = offset >> 3

    def get(page: RunPage) -> int:
        return page.words[index]

    def put(page: RunPage, value: int) -> None:
        page.words[index] = value

    return property(get, put, doc=what)


class RunPage:
    """A typed view of one run page. Setting a register does not set `dirty`: the holder does, once for a group.

    `gpr` is indexable in hardware order (`page.gpr[0]` is rax); `words` is the page as 512 words, `fxsave` the FXSAVE
    area. A page of zeros is formatted; one that holds something else is `FailedPrecondition` `RUN_PAGE_FOREIGN`.
    """

    __slots__ = ("fxsave", "gpr", "view", "words")

    def __init__(self, view: memoryview) -> None:
        if view.nbytes != PAGE_BYTES or view.readonly:
            raise InvalidArgument("A run page is 4096 writable bytes.", reason="RUN_PAGE_INVALID")
        self.view = view.cast("B")
        self.words = self.view.cast("Q")
        self.gpr = self.words[GPR_OFFSET >> 3 : (GPR_OFFSET >> 3) + 16]
        self.fxsave = self.view[FXSAVE_OFFSET : FXSAVE_OFFSET + FXSAVE_BYTES]
        if self.words[0] == 0:
            self.words[0] = MAGIC
        elif self.words[0] != MAGIC:
            raise FailedPrecondition(
                f"This run page starts with {self.words[0]:#x}, not with this version's mark.",
                reason="RUN_PAGE_FOREIGN",
                next_step="Use the same version of Lamina on both sides of the memory bus.",
            )

    dirty = _word(0x008, "Groups of registers that the holder changed: DIRTY_… bits.")
    cpl = _word(0x010, "Current privilege level, 0 or 3.")
    rax = _word(GPR_OFFSET + 0x00, "RAX.")
    rcx = _word(GPR_OFFSET + 0x08, "RCX.")
    rdx = _word(GPR_OFFSET + 0x10, "RDX.")
    rbx = _word(GPR_OFFSET + 0x18, "RBX.")
    rsp = _word(GPR_OFFSET + 0x20, "RSP.")
    rbp = _word(GPR_OFFSET + 0x28, "RBP.")
    rsi = _word(GPR_OFFSET + 0x30, "RSI.")
    rdi = _word(GPR_OFFSET + 0x38, "RDI.")
    r8 = _word(GPR_OFFSET + 0x40, "R8.")
    r9 = _word(GPR_OFFSET + 0x48, "R9.")
    r10 = _word(GPR_OFFSET + 0x50, "R10.")
    r11 = _word(GPR_OFFSET + 0x58, "R11.")
    r12 = _word(GPR_OFFSET + 0x60, "R12.")
    r13 = _word(GPR_OFFSET + 0x68, "R13.")
    r14 = _word(GPR_OFFSET + 0x70, "R14.")
    r15 = _word(GPR_OFFSET + 0x78, "R15.")
    rip = _word(RIP_OFFSET, "Instruction pointer.")
    rflags = _word(RIP_OFFSET + 8, "Flags.")
    cr0 = _word(CONTROL_OFFSET + 0x00, "CR0.")
    cr2 = _word(CONTROL_OFFSET + 0x08, "CR2: address of the last page fault.")
    cr3 = _word(CONTROL_OFFSET + 0x10, "CR3: root of the first-stage table.")
    cr4 = _word(CONTROL_OFFSET + 0x18, "CR4.")
    cr8 = _word(CONTROL_OFFSET + 0x20, "CR8: task priority.")
    efer = _word(CONTROL_OFFSET + 0x28, "EFER.")
    star = _word(CONTROL_OFFSET + 0x30, "STAR: selectors of SYSCALL and SYSRET.")
    lstar = _word(CONTROL_OFFSET + 0x38, "LSTAR: where SYSCALL goes.")
    sfmask = _word(CONTROL_OFFSET + 0x40, "SFMASK: flags that SYSCALL clears.")
    kernel_gs_base = _word(CONTROL_OFFSET + 0x48, "The base that SWAPGS exchanges with gs_base.")
    gdtr_base = _word(TABLES_OFFSET + 0x00, "Base of the GDT.")
    gdtr_limit = _word(TABLES_OFFSET + 0x08, "Limit of the GDT in bytes.")
    idtr_base = _word(TABLES_OFFSET + 0x10, "Base of the IDT.")
    idtr_limit = _word(TABLES_OFFSET + 0x18, "Limit of the IDT in bytes.")
    fs_base = _word(SEGMENTS_OFFSET + 24 * 4, "Base of FS: the same word as `segment('fs').base`.")
    gs_base = _word(SEGMENTS_OFFSET + 24 * 5, "Base of GS: the same word as `segment('gs').base`.")
    exit_reason = _word(EXIT_OFFSET, "Why the core gave the context back: an `ExitReason`.")
    exit_error_code = _word(EXIT_OFFSET + 0x10, "`ExitRecord.error_code` of the last exit.")
    exit_address = _word(EXIT_OFFSET + 0x18, "`ExitRecord.address` of the last exit.")
    interruptibility = _word(STATE_OFFSET, "What holds interrupts back: BLOCKED_BY_… bits; of the group DIRTY_RIP.")
    activity = _word(STATE_OFFSET + 0x08, "An `Activity`; a core runs a context only when it is ACTIVE.")
    dr0 = _word(STATE_OFFSET + 0x10, "DR0.")
    dr1 = _word(STATE_OFFSET + 0x18, "DR1.")
    dr2 = _word(STATE_OFFSET + 0x20, "DR2.")
    dr3 = _word(STATE_OFFSET + 0x28, "DR3.")
    dr6 = _word(STATE_OFFSET + 0x30, "DR6.")
    dr7 = _word(STATE_OFFSET + 0x38, "DR7.")
    xcr0 = _word(STATE_OFFSET + 0x40, "XCR0: what XSAVE keeps.")
    tsc = _word(TSC_OFFSET, "Time stamp counter that RDTSC reads, set by the core or the holder before a run.")
    tsc_offset = _word(TSC_OFFSET + 0x08, "Added to the counter (modulo 2^64) for this context.")
    tsc_aux = _word(TSC_OFFSET + 0x10, "What RDTSCP puts into ECX.")
    tsc_answered = _word(TSC_OFFSET + 0x18, "1: the core answers RDTSC from this page; 0: it exits.")

    event = _word(
        TSC_OFFSET + 0x20, "Event to deliver through the IDT: vector | kind | EVENT_VALID; the core clears it."
    )
    event_error_code = _word(TSC_OFFSET + 0x28, "Error code of an injected exception.")

    def clear(self) -> None:
        """Makes the page one of a context that never ran: all zero but its mark."""
        self.view[:] = bytes(PAGE_BYTES)
        self.words[0] = MAGIC

    def segment(self, name: str) -> Segment:
        """Returns a segment register, LDTR or TR (`SEGMENT_NAMES`)."""
        base, limit, attributes, selector, _ = _SEGMENT.unpack_from(self.view, self._segment_offset(name))
        return Segment(selector, base, limit, attributes)

    def set_segment(self, name: str, segment: Segment) -> None:
        """Stores a segment register, LDTR or TR."""
        _SEGMENT.pack_into(
            self.view,
            self._segment_offset(name),
            segment.base,
            segment.limit,
            segment.attributes,
            segment.selector,
            0,
        )

    def load_exit(self) -> ExitRecord:
        """Returns the exit record."""
        return ExitRecord(*_EXIT.unpack_from(self.view, EXIT_OFFSET))

    def store_exit(self, record: ExitRecord) -> None:
        """Stores the exit record. For cores."""
        _EXIT.pack_into(self.view, EXIT_OFFSET, *_exit_words(record))

    def leave(self, record: ExitRecord, instructions: int) -> None:
        """Stores the exit record with the page's RIP and a count of instructions. For cores."""
        words, rip = _exit_words(record), self.words[RIP_OFFSET >> 3]
        _EXIT.pack_into(self.view, EXIT_OFFSET, *words[:_EXIT_RIP], rip, instructions, *words[_EXIT_RIP + 2 :])

    def cpuid(self) -> tuple[CpuidEntry, ...]:
        """Returns the CPUID leaves that the core answers without an exit."""
        count = min(self.words[_CPUID_COUNT_WORD], CPUID_ENTRIES)
        return tuple(
            CpuidEntry(*_CPUID.unpack_from(self.view, CPUID_OFFSET + position * _CPUID.size))
            for position in range(count)
        )

    def set_cpuid(self, entries: tuple[CpuidEntry, ...]) -> None:
        """Stores the CPUID leaves that the core answers; more than 32 are `ResourceExhausted` `CPUID_TABLE_FULL`."""
        if len(entries) > CPUID_ENTRIES:
            raise ResourceExhausted(
                f"{len(entries)} CPUID leaves do not fit; a run page holds {CPUID_ENTRIES}.", reason="CPUID_TABLE_FULL"
            )
        for position, entry in enumerate(entries):
            _CPUID.pack_into(self.view, CPUID_OFFSET + position * _CPUID.size, *astuple(entry))
        self.words[_CPUID_COUNT_WORD] = len(entries)

    def posted(self, slot: int) -> tuple[int, int]:
        """Returns (how many writes, last value) of a slot of the posted writes, 0 to 15."""
        place = (POSTED_OFFSET >> 3) + 2 * slot
        return self.words[place], self.words[place + 1]

    def post(self, slot: int, value: int) -> None:
        """Counts a write to a slot of the posted writes. For cores."""
        place = (POSTED_OFFSET >> 3) + 2 * slot
        self.words[place] = (self.words[place] + 1) & (1 << 64) - 1
        self.words[place + 1] = value

    def save(self) -> bytes:
        """Returns all registers, for a fork or a snapshot: from `cpl` to the FXSAVE area, and from 0x4D0 to XCR0."""
        return bytes(self.view[0x010:_REGISTERS_END]) + bytes(self.view[STATE_OFFSET:_STATE_END])

    def restore(self, registers: bytes) -> None:
        """Stores registers that `save` returned, and marks every group dirty."""
        if len(registers) != _SAVED:
            raise InvalidArgument(
                f"{len(registers)} bytes are not the registers of a run page.", reason="REGISTERS_MALFORMED"
            )
        split = _REGISTERS_END - 0x010
        self.view[0x010:_REGISTERS_END] = registers[:split]
        self.view[STATE_OFFSET:_STATE_END] = registers[split:]
        self.dirty = DIRTY_ALL

    @staticmethod
    def _segment_offset(name: str) -> int:
        return SEGMENTS_OFFSET + 24 * SEGMENT_NAMES.index(name)
