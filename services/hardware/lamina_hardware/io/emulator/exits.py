"""What a stop of the emulator means: an exit with its record, or something that the core handles itself; compiled.

Exceptions are in `exceptions.py`.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.delivery.exceptions import raise_exception, second_stage_exit
from lamina_hardware.io.emulator.delivery.long_mode import enter_syscall
from lamina_hardware.io.emulator.delivery.sysenter import enter_sysenter
from lamina_hardware.io.emulator.hooks.breakpoints import break_exit, raise_debug
from lamina_hardware.io.emulator.instructions.apic_access import decode_access, is_apic_msr, leave_instruction
from lamina_hardware.io.emulator.instructions.device_access import device_access
from lamina_hardware.io.emulator.instructions.exit_record import (
    ACCESS,
    ADDRESS,
    APIC,
    APIC_ACCESS,
    CANCELED,
    CPUID,
    FAULTED,
    GO_ON,
    GPA,
    HLT,
    IO,
    IO_COUNT,
    IO_DATA,
    IO_DIRECTION,
    IO_SIZE,
    MACHINE_CHECK,
    MMIO,
    PAUSED,
    PORT,
    RAISES,
    SHUTDOWN,
    STOPPED,
    SYSCALL,
    SYSENTER,
    TIMESTAMP,
    VECTOR,
    clear_record,
    record,
    settle,
)
from lamina_hardware.io.emulator.instructions.intercepts import intercepted, unknown
from lamina_hardware.io.emulator.portable.interpreter import full_address
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_EXECUTE,
    BLOCK_COUNT,
    BLOCK_SIZE,
    BREAK_HITS,
    CONSUMED,
    ENV,
    EXCEPTIONS,
    FAULT,
    FAULT_ACCESS,
    FAULT_APIC,
    FAULT_CANONICAL,
    FAULT_CODE,
    FAULT_DEVICE,
    FAULT_EPT,
    FAULT_GPA,
    FAULT_IN_PAGE,
    FAULT_MEMORY,
    FAULT_NONE,
    FAULT_VA,
    HALTS,
    INTERCEPT_SYSCALL,
    L_CLASSIFY,
    REQUEST,
    REQUEST_CANCEL,
    REQUEST_PAUSE,
    RUN_PAGE,
    STOP,
    STOP_A,
    STOP_B,
    STOP_BREAK,
    STOP_BUDGET,
    STOP_C,
    STOP_CODE_WRITE,
    STOP_CPUID,
    STOP_D,
    STOP_E,
    STOP_ERROR,
    STOP_FAULT,
    STOP_INTERRUPT,
    STOP_INVALID,
    STOP_IO,
    STOP_NONE,
    STOP_REQUEST,
    STOP_SPECIAL,
    STOP_SYSCALL,
    STOP_SYSENTER,
    STOP_TIMESTAMP,
)
from lamina_hardware.io.emulator.state.exit_controls import traps
from lamina_hardware.io.emulator.state.mode import is_64, move_rip
from lamina_hardware.io.emulator.state.registers import flags
from lamina_hardware.io.emulator.tlb.fill import drop_code
from lamina_hardware.io.native import Word, compiled, linked, load32, load64, put, store64, u64, word
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import Activity

_0, _1, _2, _3, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 8, 16))
_BYTE = u64(0xFF)
_OFFSET = u64(4095)
_EFER_SCE = _1
_DR6_SINGLE_STEP = u64(1 << 14)
PAGE_ACTIVITY = u64(run_page.STATE_OFFSET + 8)
HALTED, WAIT_FOR_STARTUP = u64(int(Activity.HALTED)), u64(int(Activity.WAIT_FOR_STARTUP))
_INVALID_OPCODE, _PROTECTION, _PAGE = (u64(n) for n in (6, 13, 14))
_SOFTWARE = u64(0xFFFF_FFFF & ~(1 << 1 | 1 << 3 | 1 << 4))  # all but INT1, INT3 and INTO, which have opcodes


@compiled("uint64(uint64, uint64)")
def _apic_page(block: int, address: int) -> Word:
    """Handles an access to the page of the local APIC's registers."""
    length = _0
    if word(block, FAULT_ACCESS) != ACCESS_EXECUTE:
        length = decode_access(block, address)
    if length == _0:
        record(block, ADDRESS, address & _OFFSET)
        record(block, ACCESS, word(block, FAULT_ACCESS))
        return APIC_ACCESS
    settle(block, _1)
    leave_instruction(block, length)
    return APIC


@compiled("uint64(uint64)")
def _halt(block: int) -> Word:
    """Handles HLT: an exit, or the context sleeps."""
    if word(block, HALTS) == _0:
        return HLT
    store64(word(block, RUN_PAGE) + PAGE_ACTIVITY, HALTED)
    return GO_ON


@compiled("uint64(uint64, uint64)")
def _fault_exit(block: int, full_address: int) -> Word:
    """Handles a walk that failed; `full_address` is the address with its offset within the page."""
    if word(block, FAULT) == FAULT_DEVICE:
        result = device_access(block, full_address)
        if result != FAULTED:
            return result
        settle(block, _0)
        if word(block, FAULT) == FAULT_DEVICE:
            return MMIO  # both operands are device memory: not decoded
        clear_record(block)
        full_address = word(block, STOP_A)
    fault = word(block, FAULT)
    env = word(block, ENV)
    if fault == FAULT_EPT:
        put(block, FAULT_VA, full_address)
        if word(block, FAULT_CODE) == FAULT_IN_PAGE:
            put(block, FAULT_GPA, word(block, FAULT_GPA) | (full_address & _OFFSET))
        return second_stage_exit(block)
    if fault == FAULT_CANONICAL:
        return raise_exception(block, _PROTECTION, _0, _0)
    if fault == FAULT_MEMORY:
        record(block, ADDRESS, full_address)
        in_page = word(block, FAULT_CODE) == FAULT_IN_PAGE
        record(block, GPA, word(block, FAULT_GPA) | (full_address & _OFFSET if in_page else _0))
        return MACHINE_CHECK
    if fault == FAULT_APIC:
        return _apic_page(block, full_address)
    store64(env + at.CR2, full_address)
    return raise_exception(block, _PAGE, word(block, FAULT_CODE), _0)


@compiled("uint64(uint64, uint64)")
def _meaning(block: int, result: int) -> Word:
    """Turns what an instruction done by hand came to into an exit or GO_ON."""
    if result & FAULTED != _0:
        return _fault_exit(block, word(block, STOP_A))
    return raise_exception(block, result & _BYTE, _0, _0) if result & RAISES != _0 else result


@compiled("uint64(uint64)")
def _single_step(block: int) -> Word:
    """Handles the trap behind an instruction that ran with RFLAGS.TF: it counts, and DR6 says why."""
    put(block, BLOCK_COUNT, _0)
    put(block, BLOCK_SIZE, _0)
    return raise_debug(block, _DR6_SINGLE_STEP)


@compiled("uint64(uint64)")
def _interrupt_exit(block: int) -> Word:
    """Handles a vector that the emulator raised."""
    vector = word(block, STOP_A)
    software = word(block, STOP_C)
    code = word(block, STOP_B)
    if vector == at.VMEXIT_MSR and is_apic_msr(block, code & _1) != _0:
        settle(block, _1)
        leave_instruction(block, _2)
        return APIC
    if vector >= at.VMEXIT:
        return _meaning(block, intercepted(block, vector, code & _1))
    if software != _0 and vector < u64(32) and (_SOFTWARE & word(block, EXCEPTIONS)) >> vector & _1 != _0:
        # INT n must not pass for the exception of that number: it is refused, as by a gate of level 0.
        move_rip(word(block, ENV), _0 - _2)
        code = vector << _3 | _2
        vector = _PROTECTION
        software = _0
    if vector == _1 and software == _0:
        return _single_step(block)
    settle(block, _0)
    return raise_exception(block, vector, code, software)


@compiled("uint64(uint64)")
def _syscall_exit(block: int) -> Word:
    env = word(block, ENV)
    if load64(env + at.EFER) & _EFER_SCE == _0 or is_64(env) == _0:  # outside 64-bit code it is AMD's alone
        move_rip(env, _0 - _2)
        settle(block, _0)
        return raise_exception(block, _INVALID_OPCODE, _0, _0)
    if word(block, INTERCEPT_SYSCALL) == _0:
        enter_syscall(block)
        return GO_ON
    store64(env + at.REGS + _8, load64(env + at.EIP))
    store64(env + at.REGS + u64(88), flags(block))
    return SYSCALL


@compiled("uint64(uint64)")
def _sysenter_exit(block: int) -> Word:
    """Exits for SYSENTER, or goes to IA32_SYSENTER_EIP; RIP is behind it. Source: Intel SDM vol. 2, SYSENTER."""
    env = word(block, ENV)
    if traps(block, _3, _0) != _0:
        return SYSENTER
    if load32(env + at.SYSENTER_CS) & u64(0xFFFC) == _0:
        move_rip(env, _0 - _2)
        put(block, CONSUMED, word(block, CONSUMED) - _1)
        return raise_exception(block, _PROTECTION, _0, _0)
    enter_sysenter(block)
    return GO_ON


@compiled("uint64(uint64)")
def _io_exit(block: int) -> Word:
    before = load64(word(block, ENV) + at.EIP)
    settle(block, _1 if word(block, STOP_E) == before else _0)
    record(block, PORT, word(block, STOP_A))
    record(block, IO_SIZE, word(block, STOP_B))
    record(block, IO_DIRECTION, word(block, STOP_C))
    record(block, IO_DATA, word(block, STOP_D))
    record(block, IO_COUNT, _1)
    return IO


@linked(L_CLASSIFY)
def classify(block: int) -> Word:
    """Decides what a stop of the emulator means: GO_ON, or the reason to leave."""
    stop = word(block, STOP)
    if word(block, FAULT) != FAULT_NONE and stop == STOP_NONE:
        fetch = word(block, FAULT_ACCESS) == ACCESS_EXECUTE
        if not fetch and word(block, FAULT) != FAULT_DEVICE:
            settle(block, _0)
        return _fault_exit(block, full_address(block))
    if word(block, BREAK_HITS) != _0 and stop in (STOP_BUDGET, STOP_REQUEST):
        return GO_ON  # the trap of what ran comes first
    if stop == STOP_BREAK:
        settle(block, _0)
        return break_exit(block)
    if stop == STOP_BUDGET:
        return STOPPED
    if stop == STOP_REQUEST:
        request = word(block, REQUEST)
        if request & REQUEST_CANCEL != _0:
            return CANCELED
        return PAUSED if request & REQUEST_PAUSE != _0 else GO_ON
    if stop == STOP_SYSCALL:
        return _syscall_exit(block)
    if stop == STOP_SYSENTER:
        return _sysenter_exit(block)
    if stop == STOP_FAULT:
        settle(block, _0)
        return _fault_exit(block, word(block, STOP_A))
    if stop == STOP_INTERRUPT:
        return _interrupt_exit(block)
    if stop == STOP_IO:
        return _io_exit(block)
    if stop in (STOP_CPUID, STOP_TIMESTAMP):
        settle(block, _0)
        return CPUID if stop == STOP_CPUID else TIMESTAMP
    if stop == STOP_INVALID:
        return _meaning(block, unknown(block))
    if stop == STOP_SPECIAL:
        settle(block, _0)
        return GO_ON
    if stop == STOP_CODE_WRITE:
        settle(block, _0)
        drop_code(block)
        return GO_ON
    error = word(block, STOP_ERROR) & u64(0xFFFF_FFFF)
    if error != _0:
        record(block, VECTOR, error)
        return SHUTDOWN
    return _halt(block)
