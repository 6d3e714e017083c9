"""The code that a core runs, as bytes: where it lies, how many instructions a stretch has; compiled."""

from __future__ import annotations

from lamina_hardware.io.emulator.code.decoder import PREFIX_F2, PREFIX_F3, decode
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_EXECUTE,
    ENV,
    FAULT,
    FAULT_CODE,
    FAULT_GPA,
    FAULT_MISCONFIGURED,
    FAULT_NONE,
    FAULT_STAGE_ACCESS,
    FAULT_STAGE_RIGHTS,
    FAULT_VA,
    L_CODE_AT,
    L_COUNT_BETWEEN,
    L_LEAVE_AFTER,
    RAM_BASE,
    SCRATCH,
    STOP_E,
    WALK_PA,
)
from lamina_hardware.io.emulator.state.mode import is_64, linear_rip, move_rip
from lamina_hardware.io.emulator.walks.steps import NO_EFFECT
from lamina_hardware.io.emulator.walks.walker import walk
from lamina_hardware.io.native import (
    Word,
    compiled,
    linked,
    load8,
    load32,
    load64,
    put,
    store8,
    store32,
    store64,
    u64,
    word,
)

_0, _1, _3, _8 = u64(0), u64(1), u64(3), u64(8)
_OFFSET = u64(4095)
_WINDOW = u64(15)
_LAST_WHOLE = u64(4096 - 15)
_BUFFER = u64(32)  # bytes into the scratch words
_BYTE = u64(0xFF)
_NO_WP_NO_SMAP = u64(0)


@compiled("uint64(uint64, uint64)")
def peek(block: int, va: int) -> Word:
    """Returns the address of the byte at `va` in this process, looked up without effects; 0: not mapped for fetches."""
    kind, code, gpa, where = word(block, FAULT), word(block, FAULT_CODE), word(block, FAULT_GPA), word(block, FAULT_VA)
    tried, left = word(block, FAULT_STAGE_ACCESS), word(block, FAULT_STAGE_RIGHTS)
    malformed = word(block, FAULT_MISCONFIGURED)
    env = word(block, ENV)
    user = _1 if (load32(env + at.HFLAGS) & at.HF_CPL) == _3 else _0
    ended = walk(block, load64(env + at.CR3), va, ACCESS_EXECUTE, user, _NO_WP_NO_SMAP, _NO_WP_NO_SMAP, NO_EFFECT)
    put(block, FAULT, kind)
    put(block, FAULT_CODE, code)
    put(block, FAULT_GPA, gpa)
    put(block, FAULT_VA, where)
    put(block, FAULT_STAGE_ACCESS, tried)
    put(block, FAULT_STAGE_RIGHTS, left)
    put(block, FAULT_MISCONFIGURED, malformed)
    if ended != FAULT_NONE:
        return _0
    return word(block, RAM_BASE) + word(block, WALK_PA) + (va & _OFFSET)


@linked(L_CODE_AT)
def code_at(block: int, va: int) -> Word:
    """Returns the address of 15 readable bytes of code at `va`; 0: nothing is mapped there.

    Code that crosses a page is copied together; bytes of an unmapped second page read as 0.
    """
    place = peek(block, va)
    if place == _0 or (va & _OFFSET) <= _LAST_WHOLE:
        return place
    first = u64(4096) - (va & _OFFSET)
    second = peek(block, va + first)
    buffer = word(block, SCRATCH) + _BUFFER
    i = _0
    while i < _WINDOW:
        if i < first:
            store8(buffer + i, load8(place + i))
        else:
            store8(buffer + i, load8(second + i - first) if second != _0 else _0)
        i += _1
    return buffer


@linked(L_COUNT_BETWEEN)
def count_between(block: int, start: int, end: int) -> Word:
    """Returns how many instructions begin in [start, end), which is a stretch of straight code."""
    count = _0
    at_va = start
    while at_va < end:
        place = code_at(block, at_va)
        if place == _0:
            return count
        length = decode(block, place) & _BYTE
        if length == _0:
            return count + _1
        at_va += length
        count += _1
    return count


@compiled("uint64(uint64)")
def _low_mask(env: int) -> Word:
    """Returns the bits of an index register that code outside 64-bit mode has."""
    return ~_0 if is_64(env) != _0 else u64(0xFFFF_FFFF)


@linked(L_LEAVE_AFTER)
def leave_after(block: int, out_size: int) -> Word:
    """Moves RIP behind the instruction at RIP; returns 1 for an INS, on which RIP stays.

    `out_size` is not 0 for OUT and OUTS; one repetition of an OUTS moves RSI and RCX on as the instruction would, and
    RIP moves only when none is left.
    """
    env = word(block, ENV)
    rip = load64(env + at.EIP)
    width = _low_mask(env)
    put(block, STOP_E, _0)
    store32(env + at.HFLAGS, load32(env + at.HFLAGS) & ~at.HF_SHADOW)
    place = code_at(block, linear_rip(env))
    found = decode(block, place) if place != _0 else _1
    opcode = (found >> _8) & _BYTE
    table = (found >> u64(16)) & _BYTE
    prefixes = found >> u64(40)
    if table == _0 and (opcode == u64(0x6C) or opcode == u64(0x6D)):
        return _1
    if table == _0 and (opcode == u64(0x6E) or opcode == u64(0x6F)):
        step = out_size if load32(env + at.DF) == _1 else _0 - out_size
        source = env + at.REGS + u64(6 * 8)
        store64(source, (load64(source) + step) & width)
        if (prefixes & (PREFIX_F2 | PREFIX_F3)) != _0:
            count = env + at.REGS + _8
            store64(count, (load64(count) - _1) & width)
            if load64(count) != _0:
                put(block, STOP_E, rip)
                return _0
    move_rip(env, found & _BYTE)
    return _0
