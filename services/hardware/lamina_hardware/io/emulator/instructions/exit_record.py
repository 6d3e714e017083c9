"""The exit record as compiled code writes it, and the account of instructions that ends with it; compiled."""

from __future__ import annotations

from lamina_hardware.io.emulator.instructions.cpuid_tsc import retired
from lamina_hardware.io.emulator.state.control_block import BLOCK_COUNT, BLOCK_SIZE, CONSUMED, RUN_PAGE
from lamina_hardware.io.native import Word, compiled, put, store64, u64, word
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import ExitReason

_0, _1, _8, _16 = (u64(n) for n in (0, 1, 8, 16))
_EXIT = u64(run_page.EXIT_OFFSET)
_NO_REGISTER = u64(run_page.NO_REGISTER)

# Words of the exit record, in the order of `runpage.ExitRecord`.
(REASON, VECTOR, ERROR_CODE, ADDRESS, GPA, ACCESS, ACCESS_SIZE, ACCESS_VALUE, ACCESS_REGISTER, PORT, IO_SIZE,
 IO_DIRECTION, IO_DATA, IO_COUNT, LENGTH, RIP, RETIRED, QUALIFICATION) = (u64(n) for n in range(18))  # fmt: skip
_RECORD_WORDS = u64(18)

SYSCALL, PAGE_FAULT, EXCEPTION, IO, HLT, CPUID, EPT_VIOLATION, STOPPED, HYPERCALL, MSR, SHUTDOWN, CANCELED = (
    u64(int(ExitReason(n))) for n in range(1, 13)
)
TIMESTAMP, RANDOM, SYSENTER = u64(14), u64(15), u64(16)
CR_ACCESS, DR_ACCESS, INVLPG, PAUSE, EPT_MISCONFIGURATION, MMIO, INTERRUPT_WINDOW, NMI_WINDOW = (
    u64(int(ExitReason(n))) for n in range(19, 27)
)
DESCRIPTOR_TABLE, WBINVD, RDPMC, MWAIT, XSETBV = (u64(int(ExitReason(n))) for n in range(27, 32))
APIC_ACCESS, NMI = u64(int(ExitReason.APIC_ACCESS)), u64(int(ExitReason.NMI))
TASK_SWITCH = u64(int(ExitReason.TASK_SWITCH))
MACHINE_CHECK = u64(int(ExitReason.MACHINE_CHECK))
PAUSED = u64(255)
"""Not an exit: the core was asked to pause and goes on with the same run."""
ASLEEP = u64(254)
"""Not an exit: the context halted, or waits for a start-up IPI; its run goes on when something wakes it."""
ACKNOWLEDGE = u64(253)
"""Not an exit: the next vector of the local APIC can be delivered now."""
APIC = u64(252)
"""Not an exit: an access to the local APIC, in the block, which is to be done."""

REARM = u64(251)
"""Not an exit: the core's hooks are not those that the context's breakpoints need."""

GO_ON = u64(0)

RAISES = u64(1 << 16)
"""RAISES | vector: not an exit; the instruction raises this exception, with error code 0."""
FAULTED = u64(1 << 17)
"""Not an exit: an access that an instruction makes failed, with the fault in the block and its address in STOP_A."""


@compiled("uint64(uint64, uint64, uint64)")
def record(block: int, index: int, value: int) -> Word:
    """Stores one word of the exit record."""
    store64(word(block, RUN_PAGE) + _EXIT + index * _8, value)
    return _0


@compiled("uint64(uint64)")
def clear_record(block: int) -> Word:
    """Empties the exit record."""
    i = _0
    while i < _RECORD_WORDS:
        record(block, i, _0)
        i += _1
    return record(block, ACCESS_REGISTER, _NO_REGISTER)


@compiled("uint64(uint64, uint64)")
def settle(block: int, extra: int) -> Word:
    """Takes back what was charged for instructions that did not run; `extra` counts the one that ended the run."""
    if word(block, BLOCK_COUNT) != _0:
        put(block, CONSUMED, retired(block) + extra)
        put(block, BLOCK_COUNT, _0)
        put(block, BLOCK_SIZE, _0)
    return _0
