"""Accesses to device memory, decoded: what the holder needs to answer one without reading the code; compiled.

Moves between a register or an immediate and memory are decoded (MOV in all its forms, MOVZX, MOVSX, MOVSXD, MOVNTI,
STOS, LODS, and MOVS out of RAM), as drivers use them; another instruction exits on itself with size 0, for the holder
to do. A read is completed when the context runs again: from the register that the record names the core takes as many
bytes as were read, and extends them as the instruction says.

Source: Intel SDM vol. 2, MOV, MOVZX, MOVSX, STOS, LODS, MOVS.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.code.decoder import ADDRESS_16, PREFIX_66, PREFIX_67, PREFIX_F2, PREFIX_F3, decode
from lamina_hardware.io.emulator.code.instruction_bytes import code_at
from lamina_hardware.io.emulator.instructions.exit_record import (
    ACCESS,
    ACCESS_REGISTER,
    ACCESS_SIZE,
    ACCESS_VALUE,
    ADDRESS,
    FAULTED,
    GO_ON,
    GPA,
    IO_COUNT,
    LENGTH,
    MMIO,
    record,
    settle,
)
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_READ,
    ACCESS_WRITE,
    ENV,
    FAULT_ACCESS,
    FAULT_GPA,
    L_DEVICE_ACCESS,
    RUN_PAGE,
)
from lamina_hardware.io.emulator.state.exit_controls import post
from lamina_hardware.io.emulator.state.exit_table import POST_GPA
from lamina_hardware.io.emulator.state.mode import is_64, linear_rip, move_rip
from lamina_hardware.io.emulator.tlb.guest_memory import fetch
from lamina_hardware.io.native import Word, compiled, linked, load8, load16, load32, load64, store32, store64, u64, word
from lamina_kit.bus import run_page

_0, _1, _2, _3, _4, _7, _8, _15 = (u64(n) for n in (0, 1, 2, 3, 4, 7, 8, 15))
_16 = u64(16)
_BYTE = u64(0xFF)
_OFFSET = u64(4095)
_RSI, _RDI = u64(6 * 8), u64(7 * 8)

PAGE_LOAD = u64(run_page.ENGINE_OFFSET + 0x30)
"""Word of the engine's own: a read of device memory that waits for its answer; 0: none does.

Bit 0 valid, 1 sign-extended, 2 the second byte of the register · 8–11 register · 16–19 bytes read · 24–27 bytes filled.
"""
_WENT_ON = u64(1 << 18)  # a posted write: done, and no exit
_PAGE_KEPT = u64(run_page.ENGINE_OFFSET + 0x38)  # what the register held before


@compiled("uint64(uint64, uint64)")
def _mask(value: int, size: int) -> Word:
    return value if size >= _8 else value & ((_1 << (size << _3)) - _1)


@compiled("uint64(uint64)")
def operand_size(found: int) -> Word:
    """Returns the bytes of a full-size operand."""
    if (found >> u64(32)) & _8 != _0:
        return _8
    return _2 if (found >> u64(40)) & PREFIX_66 != _0 else _4


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def _loads(block: int, register: int, size: int, filled: int, how: int) -> Word:
    """Notes a read of `size` bytes whose answer fills `filled` bytes of a register; `how` are bits 1 and 2."""
    page = word(block, RUN_PAGE)
    store64(page + _PAGE_KEPT, load64(word(block, ENV) + at.REGS + register * _8))
    store64(page + PAGE_LOAD, _1 | how | register << _8 | size << _16 | filled << u64(24))
    record(block, ACCESS, ACCESS_READ)
    record(block, ACCESS_SIZE, size)
    return record(block, ACCESS_REGISTER, register)


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _stores(block: int, gpa: int, size: int, value: int) -> Word:
    """Notes a write; returns whether it is only counted."""
    value = _mask(value, size)
    if post(block, POST_GPA, gpa, size, value) != _0:
        return _1
    record(block, ACCESS, ACCESS_WRITE)
    record(block, ACCESS_SIZE, size)
    record(block, ACCESS_VALUE, value)
    return _0


@compiled("uint64(uint64, uint64, uint64)")
def _step(block: int, offset: int, size: int) -> Word:
    """Moves an index register of a string instruction on; `offset` is that of RSI or RDI."""
    env = word(block, ENV)
    place = env + at.REGS + offset
    moved = load64(place) + (size if load32(env + at.DF) == _1 else _0 - size)
    store64(place, moved if is_64(env) != _0 else moved & u64(0xFFFF_FFFF))
    return _0


@compiled("uint64(uint64, uint64)")
def _flat_32(env: int, found: int) -> Word:
    """Returns whether a string instruction outside 64-bit mode has 32-bit addresses in flat segments."""
    bases = load64(env + at.SEGMENTS + _8) | load64(env + at.SEGMENTS + _3 * at.SEGMENT_STRIDE + _8)
    return _1 if (found >> u64(40)) & ADDRESS_16 == _0 and bases == _0 else _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _leave(block: int, found: int, posted: int, string: int) -> Word:
    """Counts the instruction and moves RIP behind it, unless repetitions are left; returns the exit, if it is one."""
    env = word(block, ENV)
    settle(block, _1)
    store32(env + at.HFLAGS, load32(env + at.HFLAGS) & ~at.HF_SHADOW)
    record(block, LENGTH, found & _BYTE)
    record(block, IO_COUNT, _1)
    if string != _0 and (found >> u64(40)) & (PREFIX_F2 | PREFIX_F3) != _0:
        count = load64(env + at.REGS + _8)
        record(block, IO_COUNT, count)
        store64(env + at.REGS + _8, count - _1)
        if count != _1:
            return _WENT_ON if posted != _0 else MMIO
    move_rip(env, found & _BYTE)
    return _WENT_ON if posted != _0 else MMIO


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _string(block: int, found: int, gpa: int, va: int) -> Word:
    """Does one item of STOS, LODS or MOVS; 0 when it is another, or one that is not decoded."""
    env = word(block, ENV)
    opcode = (found >> _8) & _BYTE
    size = operand_size(found) if opcode & _1 != _0 else _1
    short = (found >> u64(40)) & (PREFIX_67 | ADDRESS_16) != _0
    if (short if is_64(env) != _0 else _flat_32(env, found) == _0) or (va & _OFFSET) + size > u64(4096):
        return _0
    posted = _0
    if opcode & u64(0xFE) == u64(0xAA):
        posted = _stores(block, gpa, size, load64(env + at.REGS))
        _step(block, _RDI, size)
    elif opcode & u64(0xFE) == u64(0xAC):
        _loads(block, _0, size, size, _0)
        _step(block, _RSI, size)
    elif opcode & u64(0xFE) == u64(0xA4) and word(block, FAULT_ACCESS) == ACCESS_WRITE:
        if load64(env + at.REGS + _RDI) != va:
            return _0
        value = fetch(block, load64(env + at.REGS + _RSI), size, _0)
        if value == _0:
            return FAULTED
        posted = _stores(block, gpa, size, load64(value))
        _step(block, _RDI, size)
        _step(block, _RSI, size)
    else:
        return _0
    return _leave(block, found, posted, _1)


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _immediate(code: int, found: int, size: int, filled: int) -> Word:
    """Returns the immediate at the end of an instruction: `size` bytes, sign-extended."""
    place = code + (found & _BYTE) - size
    if size == _1:
        return load8(place)
    if size == _2:
        return load16(place)
    value = load32(place)
    return value | ~u64(0xFFFF_FFFF) if filled == _8 and value >> u64(31) != _0 else value


@compiled("uint64(uint64, uint64, uint64)")
def _byte_register(block: int, found: int, number: int) -> Word:
    """Returns 4 when ModRM's register is the second byte of one (AH, CH, DH, BH), for `_loads`; else 0."""
    has_rex = (found >> u64(32)) & _BYTE != _0
    return _4 if not has_rex and number >= _4 and number < _8 else _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _move(block: int, found: int, code: int, gpa: int) -> Word:
    """Does a move between a register or an immediate and device memory; 0 when it is another instruction."""
    env = word(block, ENV)
    opcode = (found >> _8) & _BYTE
    table = (found >> _16) & _BYTE
    number = ((found >> u64(27)) & _7) | ((found >> u64(34)) & _1) << _3
    full = operand_size(found)
    size = full if opcode & _1 != _0 else _1
    extends = table == _1 and opcode & u64(0xF6) == u64(0xB6)
    if extends:
        size = min(size, _2)
    if (gpa & _OFFSET) + size > u64(4096):
        return _0
    if extends:  # MOVZX, MOVSX
        _loads(block, number, size, full, _2 if opcode & _8 != _0 else _0)
        return _leave(block, found, _0, _0)
    if table == _1 and opcode == u64(0xC3):
        return _leave(block, found, _stores(block, gpa, full, load64(env + at.REGS + number * _8)), _0)
    if table != _0:
        return _0
    if opcode == u64(0x63):
        _loads(block, number, min(full, _4), full, _2)
        return _leave(block, found, _0, _0)
    if opcode == u64(0xC6) or opcode == u64(0xC7):
        value = _immediate(code, found, min(size, _4), size)
        return _leave(block, found, _stores(block, gpa, size, value), _0)
    if opcode & u64(0xFC) == u64(0xA0):
        number = _0
    elif opcode & u64(0xFC) != u64(0x88):
        return _0
    high = _byte_register(block, found, number) if size == _1 else _0
    register = number & _3 if high != _0 else number
    if opcode & _2 == (_2 if opcode >= u64(0xA0) else _0):
        value = load64(env + at.REGS + register * _8) >> (_8 if high != _0 else _0)
        return _leave(block, found, _stores(block, gpa, size, value), _0)
    _loads(block, register, size, size, high)
    return _leave(block, found, _0, _0)


@linked(L_DEVICE_ACCESS)
def device_access(block: int, va: int) -> Word:
    """Handles an access to device memory at `va`: MMIO with the record filled, GO_ON for a posted write, or FAULTED."""
    gpa = word(block, FAULT_GPA) & ~_OFFSET | va & _OFFSET
    rip = linear_rip(word(block, ENV))
    code = code_at(block, rip)
    found = decode(block, code) if code != _0 and rip != va else _0
    record(block, GPA, gpa)
    record(block, ADDRESS, va)
    record(block, ACCESS, word(block, FAULT_ACCESS))
    if found != _0:
        done = _move(block, found, code, gpa)
        if done == _0 and (found >> _16) & _BYTE == _0:
            done = _string(block, found, gpa, va)
        if done != _0:
            return GO_ON if done == _WENT_ON else done
    settle(block, _0)
    record(block, LENGTH, found & _BYTE)
    return MMIO


@compiled("uint64(uint64)")
def finish_load(block: int) -> Word:
    """Completes a read of device memory with what the holder put into the register."""
    page = word(block, RUN_PAGE)
    wanted = load64(page + PAGE_LOAD)
    if wanted & _1 == _0:
        return _0
    store64(page + PAGE_LOAD, _0)
    place = word(block, ENV) + at.REGS + ((wanted >> _8) & _15) * _8
    size, filled = (wanted >> _16) & _15, (wanted >> u64(24)) & _15
    value = _mask(load64(place), size)
    kept = load64(page + _PAGE_KEPT)
    if wanted & _2 != _0 and size < _8 and (value >> ((size << _3) - _1)) & _1 != _0:
        value |= ~_0 << (size << _3)
    value = _mask(value, filled)
    if wanted & _4 != _0:
        value = kept & ~u64(0xFF00) | value << _8
    elif filled < _4:
        value |= kept & ~((_1 << (filled << _3)) - _1)
    store64(place, value)
    return _1
