"""The run page: registers and exit record of one execution context, 4096 bytes on the memory bus. Pure.

Who holds a context (a kernel, a hypervisor) and the core that runs it talk through this page, as KVM's user space does
through `kvm_run`; the messages of `Cpu.Run` carry only handle, budget and reason. All fields are 64-bit little-endian
words unless said otherwise:

    0x000  magic and version          0x0D0  rip, rflags                   0x240  FXSAVE area, 512 bytes
    0x008  dirty: groups changed      0x0E0  control registers, MSRs       0x440  exit record
    0x010  cpl                        0x150  descriptor tables             0x540  time stamp counter, 0x560 event
    0x040  16 general registers       0x170  8 segments of 24 bytes        0x580  CPUID answers, 32 entries
           in hardware order                                               0x8C0  free for the engine

`dirty` works as KVM's `kvm_dirty_regs`: the holder sets the bit of each group of registers that it changed since the
last exit, the core loads those and clears the word. A core that has the registers of this context still loaded needs
nothing else. After an exit the page holds the whole truth. While a core runs, the page belongs to the core.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import astuple, dataclass

from lamina_kit.errors import FailedPrecondition, InvalidArgument, ResourceExhausted

PAGE_BYTES = 4096
MAGIC = 0x0001_3147_5052_4D4C
"""`LMRPG1` and version 1."""

GPR_OFFSET = 0x040
RIP_OFFSET = 0x0D0
CONTROL_OFFSET = 0x0E0
TABLES_OFFSET = 0x150
SEGMENTS_OFFSET = 0x170
FXSAVE_OFFSET = 0x240
FXSAVE_BYTES = 512
EXIT_OFFSET = 0x440
TSC_OFFSET = 0x540
CPUID_OFFSET = 0x580
CPUID_ENTRIES = 32
ENGINE_OFFSET = 0x8C0
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


class ExitReason(enum.IntEnum):
    """Why a core gave a context back. The numbers are those of `lamina.hardware.v1.ExitReason`."""

    NONE = 0
    """Never ran."""
    SYSCALL = 1
    """SYSCALL; rip is behind the instruction, rcx and r11 are as it leaves them."""
    PAGE_FAULT = 2
    """First-stage fault: `address` is CR2, `error_code` as in the SDM; rip is on the instruction."""
    EXCEPTION = 3
    """Any other exception: `vector` and `error_code`; rip is on the instruction, or behind it for traps and INT n."""
    IO = 4
    """IN or OUT: `port`, `io_size`, `io_direction`, `io_data`; rip is behind the instruction. For IN the holder puts
    the answer into rax."""
    HLT = 5
    """HLT; rip is behind it."""
    CPUID = 6
    """CPUID of a leaf that the page's table does not answer; rip is behind it."""
    EPT_VIOLATION = 7
    """Second-stage fault: `gpa`, `address` (the virtual one) and `access`; rip is on the instruction."""
    BUDGET = 8
    """The budget of instructions was used up; nothing else happened."""
    HYPERCALL = 9
    """VMCALL or VMMCALL; rip is behind it."""
    MSR = 10
    """RDMSR or WRMSR of a register that the page does not hold: number in rcx, `io_direction` 0 reads, 1 writes with
    the value in `io_data`; rip is behind it."""
    SHUTDOWN = 11
    """Triple fault: the context cannot go on."""
    CANCELED = 12
    """The run was cancelled: kicked, deleted, its session broke, or its stream closed."""
    REFUSED = 13
    """The run was not begun; never in a run page, only in a `RunResponse`."""
    TIMESTAMP = 14
    """RDTSC or RDTSCP that the page's counter does not answer; rip is behind it."""
    RANDOM = 15
    """RDRAND or RDSEED; rip is behind it; `access_register` is the register to fill, `access_size` its bytes."""


ACCESS_READ = 1
ACCESS_WRITE = 2
ACCESS_EXECUTE = 3
"""Values of `ExitRecord.access`; the numbers of `lamina.common.v1.Access`."""

NO_REGISTER = 255

EVENT_EXTERNAL = 0 << 8
"""Kind of event in `event`: an external interrupt, delivered once RFLAGS.IF allows."""
EVENT_EXCEPTION = 3 << 8
"""Kind of event in `event`: a hardware exception, delivered at once."""
EVENT_ERROR_CODE = 1 << 11
"""In `event`: the exception pushes `event_error_code`."""
EVENT_VALID = 1 << 31
"""In `event`: there is one. Layout as VMX's VM-entry interruption information (Intel SDM vol. 3, 26.8.3)."""


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """What the holder needs to know about an exit. Fields that a reason does not use are 0.

    `io_direction` is 0 for in and 1 for out; `io_count` is 1, or the repetitions left of a REP INS or OUTS, whose
    memory address is then `address`. For device memory `access_size` is 1 to 8 bytes, `access_value` what is written,
    and `access_register` the general register that a read fills (255: none). `rip` is where the context goes on.
    """

    reason: int = ExitReason.NONE
    vector: int = 0
    error_code: int = 0
    address: int = 0
    gpa: int = 0
    access: int = 0
    access_size: int = 0
    access_value: int = 0
    access_register: int = NO_REGISTER
    port: int = 0
    io_size: int = 0
    io_direction: int = 0
    io_data: int = 0
    io_count: int = 0
    instruction_length: int = 0
    rip: int = 0
    instructions_retired: int = 0


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


_EXIT = struct.Struct("<17Q")
_SEGMENT = struct.Struct("<QIIII")  # base, limit, attributes, selector, nothing
_CPUID = struct.Struct("<6I")
_CPUID_COUNT_WORD = 0x578 // 8
_REGISTERS_END = EXIT_OFFSET


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
        _EXIT.pack_into(self.view, EXIT_OFFSET, *astuple(record))

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

    def save(self) -> bytes:
        """Returns all registers, for a fork or a snapshot: the page from `cpl` to the end of the FXSAVE area."""
        return bytes(self.view[0x010:_REGISTERS_END])

    def restore(self, registers: bytes) -> None:
        """Stores registers that `save` returned, and marks every group dirty."""
        if len(registers) != _REGISTERS_END - 0x010:
            raise InvalidArgument(
                f"{len(registers)} bytes are not the registers of a run page.", reason="REGISTERS_MALFORMED"
            )
        self.view[0x010:_REGISTERS_END] = registers
        self.dirty = DIRTY_ALL

    @staticmethod
    def _segment_offset(name: str) -> int:
        return SEGMENTS_OFFSET + 24 * SEGMENT_NAMES.index(name)
