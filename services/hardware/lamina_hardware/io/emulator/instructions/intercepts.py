"""Instructions that the emulator hands over before it does them, and undefined ones that are ours; compiled.

The walker core gets them by the emulator's intercepts, the portable one by looking at each instruction; both come here
with the same code and RIP on the instruction. The result is an exit, GO_ON when the instruction is done, or RAISES or
FAULTED.

Source: Intel SDM vol. 3, 26.1.3 (instructions that exit conditionally), tables 28-3 and 28-4; vol. 2.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.code.decoder import decode
from lamina_hardware.io.emulator.code.instruction_bytes import code_at
from lamina_hardware.io.emulator.code.operand import modrm_address
from lamina_hardware.io.emulator.instructions.control_registers import (
    CLEAR_TASK,
    LOAD_STATUS,
    MOVE_FROM,
    MOVE_TO,
    move_control,
    read_control,
    write_control,
)
from lamina_hardware.io.emulator.instructions.cpuid_tsc import answer_timestamp, retired
from lamina_hardware.io.emulator.instructions.device_access import operand_size
from lamina_hardware.io.emulator.instructions.exit_record import (
    ACCESS,
    ACCESS_REGISTER,
    ACCESS_SIZE,
    ADDRESS,
    CR_ACCESS,
    DESCRIPTOR_TABLE,
    DR_ACCESS,
    FAULTED,
    GO_ON,
    HYPERCALL,
    INVLPG,
    IO_DATA,
    IO_DIRECTION,
    LENGTH,
    MSR,
    MWAIT,
    PAUSE,
    QUALIFICATION,
    RAISES,
    RANDOM,
    RDPMC,
    SHUTDOWN,
    TIMESTAMP,
    WBINVD,
    record,
    settle,
)
from lamina_hardware.io.emulator.instructions.extended_state import extended_state
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    BEGAN,
    CONSUMED,
    ENV,
    L_INTERCEPTED,
    L_UNKNOWN,
    RAISE,
    RUN_PAGE,
)
from lamina_hardware.io.emulator.state.exit_controls import (
    MSR_REFUSED,
    MSR_SHADOW,
    msr_verdict,
    setting,
    shadow_place,
    traps,
)
from lamina_hardware.io.emulator.state.exit_table import FLAG_DEBUG, T_FLAGS, T_PAUSE_GAP, T_PAUSE_WINDOW
from lamina_hardware.io.emulator.state.mode import linear_rip, move_rip
from lamina_hardware.io.emulator.state.registers import flags, set_flags
from lamina_hardware.io.emulator.tlb.fill import flush_tlb
from lamina_hardware.io.emulator.tlb.guest_memory import deposit, fetch
from lamina_hardware.io.native import Word, compiled, linked, load32, load64, put, store32, store64, u64, word
from lamina_kit.bus import run_page

_0, _1, _2, _3, _4, _5, _6, _7, _8, _9 = (u64(n) for n in range(10))
_10, _11, _13, _14, _15, _16 = (u64(n) for n in (10, 11, 13, 14, 15, 16))
_BYTE, _LOW = u64(0xFF), u64(0xFFFF_FFFF)
_DEBUG, _UNDEFINED, _PROTECTION = RAISES | _1, RAISES | u64(6), RAISES | _13
_PAGE_DR = u64(run_page.STATE_OFFSET + 0x10)
_CR4_DE = _8
_DR6_FIXED, _DR6_KNOWN, _DR7_FIXED, _DR7_KNOWN = u64(0xFFFF_0FF0), u64(0xE00F), u64(0x400), u64(0xFFFF_2FFF)
_DR7_DETECT, _DR6_DETECTED = u64(1 << 13), u64(1 << 13)
_FLAG_TF, _FLAG_RF, _DR6_SINGLE_STEP = u64(1 << 8), u64(1 << 16), u64(1 << 14)
_ARITHMETIC = u64(0x8D5)  # CF PF AF ZF SF OF

PAGE_RETIRED = u64(run_page.ENGINE_OFFSET + 0x40)
"""Word of the engine's own: instructions that the context retired before this slice."""
_PAGE_LAST_PAUSE = u64(run_page.ENGINE_OFFSET + 0x48)
_PAGE_FIRST_PAUSE = u64(run_page.ENGINE_OFFSET + 0x50)
PAGE_RANDOM = u64(run_page.ENGINE_OFFSET + 0x58)
"""Word of the engine's own: state of the generator that answers RDRAND."""


@compiled("uint64(uint64, uint64, uint64)")
def _done(block: int, found: int, result: int) -> Word:
    """Counts the instruction, moves RIP behind it, and returns `result`."""
    env = word(block, ENV)
    settle(block, _1)
    move_rip(env, found & _BYTE)
    store32(env + at.HFLAGS, load32(env + at.HFLAGS) & ~at.HF_SHADOW)
    store64(env + at.EFLAGS, load64(env + at.EFLAGS) & ~_FLAG_RF)
    record(block, LENGTH, _0 if result == GO_ON else found & _BYTE)
    if result == GO_ON and load64(env + at.EFLAGS) & _FLAG_TF != _0:  # the emulator did not see it run
        place = word(block, RUN_PAGE) + _PAGE_DR + u64(32)
        store64(place, load64(place) | _DR6_SINGLE_STEP)
        put(block, RAISE, _1 + _1)
    return result


@compiled("uint64(uint64, uint64, uint64)")
def _unless_raised(block: int, found: int, result: int) -> Word:
    """Finishes an instruction that may have raised an exception or failed to reach its operand."""
    if result >= RAISES:
        settle(block, _0)
        return result
    return _done(block, found, result)


@compiled("uint64(uint64, uint64)")
def _operand(block: int, found: int) -> Word:
    """Returns the address of the instruction's memory operand."""
    env = word(block, ENV)
    return modrm_address(env, code_at(block, linear_rip(env)), found, load64(env + at.EIP) + (found & _BYTE))


@compiled("uint64(uint64, uint64)")
def _status_word(block: int, found: int) -> Word:
    """Does LMSW and SMSW."""
    modrm = (found >> u64(24)) & _BYTE
    register = (modrm & _7) | ((found >> u64(32)) & _1) << _3
    in_memory = modrm < u64(0xC0)
    place = word(block, ENV) + at.REGS + register * _8
    address = _operand(block, found) if in_memory else _0
    if modrm & u64(0x38) == u64(0x20):  # SMSW
        value = read_control(block, _0)
        if in_memory:
            return GO_ON if deposit(block, address, _2, value & u64(0xFFFF)) != _0 else FAULTED
        size = operand_size(found)
        kept = load64(place)
        value = value & u64(0xFFFF) | kept & ~u64(0xFFFF) if size == _2 else value
        store64(place, value & _LOW if size == _4 else value)
        return GO_ON
    if in_memory:
        place = fetch(block, address, _2, _0)
        if place == _0:
            return FAULTED
    value = load64(place) & u64(0xFFFF)
    result = write_control(block, _0, LOAD_STATUS, value)
    if result == CR_ACCESS:
        kind = LOAD_STATUS << _4 | (u64(1 << 6) if in_memory else register << _8)
        record(block, QUALIFICATION, kind | value << _16)
        record(block, ADDRESS, address)
        record(block, IO_DIRECTION, _1)
    return result


@compiled("uint64(uint64, uint64)")
def _control_register(block: int, found: int) -> Word:
    """Does MOV CR, CLTS, LMSW and SMSW."""
    opcode = (found >> _8) & _BYTE
    if opcode == _6:
        result = write_control(block, _0, CLEAR_TASK, _0)
        if result == CR_ACCESS:
            record(block, QUALIFICATION, CLEAR_TASK << _4)
            record(block, IO_DIRECTION, _1)
        return result
    if opcode == _1:
        return _status_word(block, found)
    rex = (found >> u64(32)) & _BYTE
    modrm = (found >> u64(24)) & _BYTE
    number = ((modrm >> _3) & _7) | (rex & _4) << _1
    register = (modrm & _7) | (rex & _1) << _3
    return move_control(block, number, register, MOVE_TO if opcode == u64(0x22) else MOVE_FROM)


@compiled("uint64(uint64, uint64)")
def _debug_register(block: int, found: int) -> Word:
    """Does MOV DR. The core looks what is armed before it goes on."""
    env, page = word(block, ENV), word(block, RUN_PAGE)
    rex = (found >> u64(32)) & _BYTE
    modrm = (found >> u64(24)) & _BYTE
    number = (modrm >> _3) & _7
    place = env + at.REGS + ((modrm & _7) | (rex & _1) << _3) * _8
    reads = (found >> _8) & _2 == _0
    if rex & _4 != _0 or (number >> _1 == _2 and load64(env + at.CR4) & _CR4_DE != _0):
        return _UNDEFINED
    if number >> _1 == _2:
        number += _2
    dr6, dr7 = page + _PAGE_DR + u64(32), page + _PAGE_DR + u64(40)
    if load64(dr7) & _DR7_DETECT != _0:
        store64(dr7, load64(dr7) & ~_DR7_DETECT)
        store64(dr6, load64(dr6) | _DR6_DETECTED)
        return _DEBUG
    if setting(block, T_FLAGS) & FLAG_DEBUG != _0:
        record(block, QUALIFICATION, number | (_16 if reads else _0) | ((modrm & _7) | (rex & _1) << _3) << _8)
        record(block, IO_DIRECTION, _0 if reads else _1)
        record(block, IO_DATA, _0 if reads else load64(place))
        return DR_ACCESS
    own = dr6 if number == _6 else (dr7 if number == _7 else page + _PAGE_DR + number * _8)
    if reads:
        store64(place, load64(own))
        return GO_ON
    value = load64(place)
    if number >= _6 and value > _LOW:
        return _PROTECTION
    if number == _6:
        value = value & _DR6_KNOWN | _DR6_FIXED
    elif number == _7:
        value = value & _DR7_KNOWN | _DR7_FIXED
    store64(own, value)
    return GO_ON


@compiled("uint64(uint64)")
def _pauses(block: int) -> Word:
    """Returns whether a PAUSE exits. Time is that of instructions. Source: Intel SDM vol. 3, 26.1.3, PAUSE."""
    gap, window = setting(block, T_PAUSE_GAP), setting(block, T_PAUSE_WINDOW)
    if gap == _0:
        return _1
    page = word(block, RUN_PAGE)
    now = load64(page + PAGE_RETIRED) + retired(block) - word(block, BEGAN) + _1
    last, first = load64(page + _PAGE_LAST_PAUSE), load64(page + _PAGE_FIRST_PAUSE)
    store64(page + _PAGE_LAST_PAUSE, now)
    if last == _0 or now - last > gap:
        store64(page + _PAGE_FIRST_PAUSE, now)
        return _0
    if now - first <= window:
        return _0
    store64(page + _PAGE_LAST_PAUSE, _0)
    return _1


@compiled("uint64(uint64, uint64, uint64)")
def _msr(block: int, found: int, writes: int) -> Word:
    """Does RDMSR and WRMSR of a register that the core does not keep."""
    env = word(block, ENV)
    number = load64(env + at.REGS + _8) & _LOW
    value = load64(env + at.REGS) & _LOW | load64(env + at.REGS + _16) << u64(32)
    verdict = msr_verdict(block, number, writes)
    if verdict & _BYTE == MSR_REFUSED:
        return _PROTECTION
    if verdict & _BYTE == MSR_SHADOW:
        place = shadow_place(block, verdict >> _8)
        if writes != _0:
            store64(place, value)
        else:
            store64(env + at.REGS, load64(place) & _LOW)
            store64(env + at.REGS + _16, load64(place) >> u64(32))
        return GO_ON
    record(block, IO_DIRECTION, writes)
    record(block, IO_DATA, value if writes != _0 else _0)
    return MSR


@linked(L_INTERCEPTED)
def intercepted(block: int, code: int, writes: int) -> Word:
    """Does an instruction that was handed over; `code` is the emulator's, `writes` 1 for WRMSR."""
    place = code_at(block, linear_rip(word(block, ENV)))
    found = decode(block, place) if place != _0 else _0
    if code == at.VMEXIT_SHUTDOWN or found == _0:
        settle(block, _0)
        return SHUTDOWN if code == at.VMEXIT_SHUTDOWN else GO_ON  # code that is gone is fetched again, and faults
    if code == at.VMEXIT_MSR:
        return _unless_raised(block, found, _msr(block, found, writes))
    if code < at.VMEXIT_DR_READ:
        return _unless_raised(block, found, _control_register(block, found))
    if code < at.VMEXIT_DR_WRITE + _16:
        return _unless_raised(block, found, _debug_register(block, found))
    if code == at.VMEXIT_PAUSE:
        return _done(block, found, PAUSE if _pauses(block) != _0 else GO_ON)
    if code == at.VMEXIT_INVLPG:
        flush_tlb(block)
        record(block, ADDRESS, _operand(block, found))
        record(block, QUALIFICATION, _operand(block, found))
        return _done(block, found, INVLPG)
    if code == at.VMEXIT_WBINVD:
        return _done(block, found, WBINVD if traps(block, _9, _0) != _0 else GO_ON)
    if code == at.VMEXIT_RDPMC:
        return _unless_raised(block, found, RDPMC if traps(block, _8, _0) != _0 else _PROTECTION)
    settle(block, _0)
    if code >= at.VMEXIT_TABLE and code < at.VMEXIT_TABLE_END:
        if (found >> u64(24)) & _BYTE < u64(0xC0):
            record(block, ADDRESS, _operand(block, found))
        record(block, IO_DIRECTION, _1 if code >= at.VMEXIT_TABLE + _4 else _0)
        record(block, LENGTH, found & _BYTE)
        return DESCRIPTOR_TABLE
    return SHUTDOWN


@compiled("uint64(uint64, uint64, uint64)")
def _random(block: int, found: int, modrm: int) -> Word:
    """Does RDRAND and RDSEED: exits, or answers from the context's generator (SplitMix64)."""
    rex = (found >> u64(32)) & _BYTE
    register = (modrm & _7) | (rex & _1) << _3
    size = operand_size(found)
    if traps(block, _14, _1) != _0:
        record(block, ACCESS_REGISTER, register)
        record(block, ACCESS_SIZE, size)
        return _done(block, found, RANDOM)
    state = word(block, RUN_PAGE) + PAGE_RANDOM
    value = load64(state) + u64(0x9E37_79B9_7F4A_7C15)
    store64(state, value)
    value = (value ^ (value >> u64(30))) * u64(0xBF58_476D_1CE4_E5B9)
    value = (value ^ (value >> u64(27))) * u64(0x94D0_49BB_1331_11EB)
    value ^= value >> u64(31)
    place = word(block, ENV) + at.REGS + register * _8
    kept = load64(place) & ~u64(0xFFFF)
    store64(place, value if size == _8 else (value & _LOW if size == _4 else value & u64(0xFFFF) | kept))
    set_flags(block, flags(block) & ~_ARITHMETIC | _1)
    return _done(block, found, GO_ON)


@compiled("uint64(uint64, uint64)")
def _invalidate(block: int, found: int) -> Word:
    """Does INVPCID: whatever its kind, this core's TLB is emptied."""
    env = word(block, ENV)
    register = ((found >> u64(27)) & _7) | ((found >> u64(34)) & _1) << _3
    if load32(env + at.HFLAGS) & at.HF_CPL != _0:
        return _PROTECTION
    place = fetch(block, _operand(block, found) + _8, _8, _0)
    if place == _0:
        return FAULTED
    address = load64(place)
    if load64(env + at.REGS + register * _8) > _3:
        return _PROTECTION
    flush_tlb(block)
    if traps(block, _5, _0) == _0:
        return GO_ON
    record(block, ADDRESS, address)
    record(block, QUALIFICATION, address)
    record(block, ACCESS, _1)
    return INVLPG


@compiled("uint64(uint64, uint64, uint64)")
def _system(block: int, found: int, modrm: int) -> Word:
    """Does what 0F 01 with a register operand has; _UNDEFINED when it is not ours."""
    env = word(block, ENV)
    if modrm == u64(0xC1) or modrm == u64(0xD9):
        return HYPERCALL if traps(block, _13, _1) != _0 else _UNDEFINED
    if modrm == u64(0xC8) or modrm == u64(0xC9):
        kernel = load32(env + at.HFLAGS) & at.HF_CPL == _0
        return MWAIT if kernel and traps(block, _10, _0) != _0 else _UNDEFINED
    if modrm == u64(0xD0) or modrm == u64(0xD1):
        return extended_state(block, modrm)
    return _UNDEFINED


@linked(L_UNKNOWN)
def unknown(block: int) -> Word:
    """Does an instruction that the emulator does not execute, if it is one of ours; else it is undefined."""
    env = word(block, ENV)
    place = code_at(block, linear_rip(env))
    found = decode(block, place) if place != _0 else _0
    opcode = (found >> _8) & _BYTE
    table = (found >> _16) & _BYTE
    modrm = (found >> u64(24)) & _BYTE
    if table == _1 and opcode == _1 and modrm == u64(0xF9):  # RDTSCP
        settle(block, _0)
        answered = answer_timestamp(block, _1)
        put(block, CONSUMED, word(block, CONSUMED) + _1)
        move_rip(env, found & _BYTE)
        return GO_ON if answered != _0 else TIMESTAMP
    if table == _1 and opcode == _1 and modrm >= u64(0xC0):
        return _unless_raised(block, found, _system(block, found, modrm))
    if table == _1 and opcode == u64(0xC7) and modrm >= u64(0xF0):
        return _random(block, found, modrm)
    if table == _2 and opcode == u64(0x82) and (found >> u64(40)) & _1 != _0 and modrm < u64(0xC0):
        return _unless_raised(block, found, _invalidate(block, found))
    settle(block, _0)
    return _UNDEFINED
