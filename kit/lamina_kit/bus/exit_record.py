"""Why a core gave a context back, and the particulars: part of the run page (`bus/run_page.py`). Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


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
    SYSENTER = 16
    """SYSENTER; rip is behind it."""
    EXTERNAL_INTERRUPT = 17
    """An interrupt arrived that the controls let exit: `vector`."""
    PREEMPTION_TIMER = 18
    """The time of the preemption timer is used up."""
    CR_ACCESS = 19
    """MOV to or from a control register, CLTS, LMSW: `qualification`; rip is behind it, a write has not been made."""
    DR_ACCESS = 20
    """MOV to or from a debug register: as CR_ACCESS."""
    INVLPG = 21
    """INVLPG or INVPCID: `address`; rip is behind it."""
    PAUSE = 22
    """PAUSE; rip is behind it."""
    EPT_MISCONFIGURATION = 23
    """An entry of the second stage that the architecture does not know: `gpa`; rip is on the instruction."""
    MMIO = 24
    """Access to a device range: `gpa`, `access`, `access_size`, `access_value`, `access_register`; rip is behind it.
    With `access_size` 0 the instruction was not decoded, and rip is on it."""
    INTERRUPT_WINDOW = 25
    """An interrupt could be taken now."""
    NMI_WINDOW = 26
    """An NMI could be taken now."""
    DESCRIPTOR_TABLE = 27
    """LGDT, LIDT, LLDT, LTR or the stores: `qualification`; rip is on it."""
    WBINVD = 28
    """WBINVD or INVD; rip is behind it."""
    RDPMC = 29
    """RDPMC; rip is behind it."""
    MWAIT = 30
    """MONITOR or MWAIT; rip is behind it."""
    XSETBV = 31
    """XSETBV: number in rcx, the value in `io_data`; rip is behind it."""
    TASK_SWITCH = 32
    """Only of 32-bit contexts."""
    APIC_ACCESS = 33
    """An access to the APIC page that the core does not virtualize: offset in `address`."""
    END_OF_INTERRUPT = 34
    """The context ended an interrupt whose end exits: `vector`."""
    MACHINE_CHECK = 35
    """Memory failed: `gpa`."""
    ENTRY_FAILED = 36
    """The context cannot be entered as it is; nothing ran."""
    STARTUP = 37
    """INIT or a start-up IPI for the holder: `vector`."""
    NMI = 38
    """An NMI arrived that the controls let exit."""


ACCESS_READ = 1
ACCESS_WRITE = 2
ACCESS_EXECUTE = 3
"""Values of `ExitRecord.access`; the numbers of `lamina.common.v1.Access`."""

NO_REGISTER = 255


@dataclass(slots=True)
class ExitRecord:  # not frozen: it is made at every exit
    """What the holder needs to know about an exit. Fields that a reason does not use are 0.

    `io_direction` is 0 for in and 1 for out; `io_count` is 1, or the repetitions left of a REP INS or OUTS, whose
    memory address is then `address`. For device memory `access_size` is 1 to 8 bytes, `access_value` what is written,
    and `access_register` the general register that a read fills (255: none). `rip` is where the context goes on.
    `qualification` is what the manual calls exit qualification, for the reasons that have one.
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
    qualification: int = 0
