"""What the emulator calls in a portable core; compiled.

Only documented callbacks and functions are used. A callback on every instruction makes the emulator look for a stop
after each, so the core stops exactly, and counts exactly; that is also what makes this core slow. Blocks are still the
unit at which a budget ends, so both cores stop at the same places.
"""

from __future__ import annotations

import numba  # noqa: F401 (compiles when imported; `lamina_tools.warm` looks for it)
import numpy as np

from lamina_hardware.io.emulator.code.decoder import PREFIX_F2, PREFIX_F3, decode
from lamina_hardware.io.emulator.code.instruction_bytes import code_at
from lamina_hardware.io.emulator.hooks.breakpoints import before_instruction
from lamina_hardware.io.emulator.hooks.walker import callback, may_interrupt
from lamina_hardware.io.emulator.instructions.cpuid_tsc import PAGE_INPUT_WAITS
from lamina_hardware.io.emulator.instructions.ports import PORT_ALLOWED, port_right
from lamina_hardware.io.emulator.portable.intercepts import emulator_answers, handed_code
from lamina_hardware.io.emulator.portable.interpreter import (
    HANDED,
    PLAIN,
    READ_MSR,
    STRING_IN,
    STRING_OUT,
    WRITE_MSR,
    kind_of,
    port_size,
)
from lamina_hardware.io.emulator.portable.mode_entry import BYTES as STUB_BYTES
from lamina_hardware.io.emulator.portable.mode_entry import STUB
from lamina_hardware.io.emulator.portable.registers import look, pull
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.breakpoints import note_port
from lamina_hardware.io.emulator.state.control_block import (
    BLOCK_COUNT,
    BLOCK_PC,
    BLOCK_SIZE,
    BREAK_FLAG,
    BREAKS,
    BUDGET,
    CONSUMED,
    ENGINE,
    ENV,
    F_STOP,
    INPUT,
    LIMIT,
    REQUEST,
    REQUEST_EVENT,
    REQUEST_NMI,
    RUN_PAGE,
    SPECIAL,
    STOP,
    STOP_A,
    STOP_B,
    STOP_BUDGET,
    STOP_C,
    STOP_D,
    STOP_E,
    STOP_INTERRUPT,
    STOP_IO,
    STOP_NONE,
    STOP_REQUEST,
    STOP_SPECIAL,
    STUB_RUNS,
)
from lamina_hardware.io.emulator.state.exit_controls import port_exits, post
from lamina_hardware.io.emulator.state.exit_table import POST_PORT
from lamina_hardware.io.emulator.state.uc_registers import write_register
from lamina_hardware.io.emulator.tlb.fill import fill
from lamina_hardware.io.native import Word, call1, compiled, load32, load64, put, store32, store64, u64, word

_0, _1, _2, _3, _7, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 7, 8, 16))
_BYTE = u64(0xFF)
_STI, _IRET, _MOV_SEGMENT = u64(0xFB), u64(0xCF), u64(0x8E)
_SHADOWS, _RETURNS = _1, _2
_LOW = u64(0xFFFF_FFFF)
_WORD = u64(0xFFFF)
_FLAG_RF = u64(1 << 16)
_REG_EFLAGS = u64(253)


@callback("boolean(uint64, uint64, int32, uint64, uint64)")
def on_fill_portable(engine: int, va: int, kind: int, out: int, block: int) -> Word:
    """Fills the TLB for one page, or notes the fault; the core's own code finds its page and no other."""
    if word(block, STUB_RUNS) != _0:
        store64(out, va & ~u64(4095))
        store32(out + _8, _7)
        return va - STUB < STUB_BYTES
    look(block)
    return fill(block, va, u64(kind), out) != _0


@compiled("uint64(uint64)")
def _marks(found: int) -> Word:
    """Returns _SHADOWS for STI and MOV SS, _RETURNS for IRET, otherwise 0."""
    opcode = (found >> _8) & _BYTE
    if (found >> _16) & _BYTE != _0:
        return _0
    if opcode == _IRET:
        return _RETURNS
    to_stack = opcode == _MOV_SEGMENT and (found >> u64(27)) & u64(7) == _2
    return _SHADOWS if opcode == _STI or to_stack else _0


@compiled("uint64(uint64, uint64, uint64)")
def _survey(block: int, pc: int, size: int) -> Word:
    """Returns how many instructions a block has; notes whether one of them may have to be done by hand."""
    count = _0
    special = _0
    at_va = pc
    while at_va < pc + size:
        place = code_at(block, at_va)
        found = decode(block, place) if place != _0 else _0
        count += _1
        if found == _0:
            break
        if kind_of(found) != PLAIN:
            special |= _1
        if _marks(found) != _0:
            special |= _2
        at_va += found & _BYTE
    put(block, SPECIAL, special)
    return count


@compiled("uint64(uint64, uint64)")
def _mark(block: int, pc: int) -> Word:
    """Keeps what the API does not tell: whether the instruction holds interrupts back, or ends an NMI's handler."""
    env = word(block, ENV)
    shadow = _0
    if word(block, SPECIAL) & _2 != _0:
        kind = _marks(decode(block, code_at(block, pc)))
        if kind == _RETURNS:
            store32(env + at.HFLAGS2, load32(env + at.HFLAGS2) & ~at.HF2_NMI)
        elif kind == _SHADOWS:
            shadow = at.HF_SHADOW
    store32(env + at.HFLAGS, (load32(env + at.HFLAGS) & ~at.HF_SHADOW) | shadow)
    return _0


@callback("void(uint64, uint64, uint32, uint64)")
def on_block_portable(engine: int, pc: int, size: int, block: int) -> None:
    """Stops before a block that does not fit into the budget."""
    if word(block, STOP) != STOP_NONE:
        return
    look(block)
    put(block, BREAK_FLAG, load64(word(block, ENV) + at.EFLAGS) & _FLAG_RF)
    count = _survey(block, pc, u64(size))
    consumed = word(block, CONSUMED)
    if consumed + count <= word(block, LIMIT):
        return
    request = word(block, REQUEST)
    if (request & ~(REQUEST_EVENT | REQUEST_NMI)) != _0 or (request != _0 and may_interrupt(block, request) != _0):
        put(block, STOP, STOP_REQUEST)
    elif consumed == _0 or consumed + count <= word(block, BUDGET):
        return
    else:
        put(block, STOP, STOP_BUDGET)
    call1(word(block, F_STOP), word(block, ENGINE))


@compiled("uint64(uint64)")
def _leaves_itself(found: int) -> Word:
    """Returns whether an instruction can be followed by itself: a jump, or one that repeats."""
    opcode = (found >> _8) & _BYTE
    table = (found >> _16) & _BYTE
    if (found >> u64(40)) & (PREFIX_F2 | PREFIX_F3) != _0:
        return _1
    if table == _1:
        return _1 if opcode & u64(0xF0) == u64(0x80) else _0
    short = opcode & u64(0xF0) == u64(0x70)
    loops = opcode >= u64(0xE0) and opcode <= u64(0xEB)
    returns = opcode == u64(0xC3) or opcode == u64(0xC2) or opcode == u64(0xCF)
    return _1 if short or loops or returns or opcode == u64(0xFF) else _0


@compiled("uint64(uint64, uint64)")
def _by_hand(block: int, pc: int) -> Word:
    """Returns whether the instruction at `pc` is to be done by hand."""
    env = word(block, ENV)
    found = decode(block, code_at(block, pc))
    kind = kind_of(found)
    if kind == PLAIN:
        return _0
    pull(block)
    repeats = (found >> u64(40)) & (PREFIX_F2 | PREFIX_F3) != _0
    if kind in (STRING_IN, STRING_OUT) and repeats and load64(env + at.REGS + _8) == _0:
        return _0
    if kind in (STRING_IN, STRING_OUT):
        port, size = load64(env + at.REGS + _16) & _WORD, port_size(found)
        if kind == STRING_IN and load64(word(block, RUN_PAGE) + PAGE_INPUT_WAITS) != _0:
            return _0
        if port_right(block, port, size) != PORT_ALLOWED:
            return _1
        return port_exits(block, port, size) if kind == STRING_IN else _0
    if kind == HANDED:
        return handed_code(block, found)
    if kind in (READ_MSR, WRITE_MSR):
        if load32(env + at.HFLAGS) & at.HF_CPL != _0:
            return _0
        number = load64(env + at.REGS + _8) & _LOW
        return emulator_answers(block, number, _1 if kind == WRITE_MSR else _0) ^ _1
    return _1


@callback("void(uint64, uint64, uint32, uint64)")
def on_code(engine: int, pc: int, size: int, block: int) -> None:
    """Counts an instruction; stops in front of one that is to be done by hand.

    An instruction that begins twice in a row without being able to follow itself was begun again by the emulator,
    because it wrote over its own block; it counts once.
    """
    if word(block, STOP) != STOP_NONE:
        return
    if word(block, BREAKS) != _0:
        resume = word(block, BREAK_FLAG)
        put(block, BREAK_FLAG, _0)
        if before_instruction(block, pc, resume) != _0:
            call1(word(block, F_STOP), word(block, ENGINE))
            return
        if resume != _0:  # the flags are those of the block's beginning
            write_register(block, _REG_EFLAGS, load64(word(block, ENV) + at.EFLAGS) & ~_FLAG_RF)
    again = pc == word(block, BLOCK_PC) and word(block, BLOCK_COUNT) != _0
    if again and _leaves_itself(decode(block, code_at(block, pc))) == _0:
        return
    put(block, CONSUMED, word(block, CONSUMED) + _1)
    put(block, BLOCK_PC, pc)
    put(block, BLOCK_COUNT, _1)
    put(block, BLOCK_SIZE, u64(size))
    _mark(block, pc)
    if word(block, SPECIAL) & _1 != _0 and _by_hand(block, pc) != _0:
        put(block, STOP, STOP_SPECIAL)
        call1(word(block, F_STOP), word(block, ENGINE))


@callback("void(uint64, uint32, uint64)")
def on_interrupt_portable(engine: int, vector: int, block: int) -> None:
    """Ends the run at an exception or INT n; the API tells the vector alone."""
    if word(block, STOP) == STOP_NONE:
        put(block, STOP, STOP_INTERRUPT)
        put(block, STOP_A, u64(vector))
        put(block, STOP_B, _0)
    call1(word(block, F_STOP), word(block, ENGINE))


@callback("void(uint64, uint32, int32, uint32, uint64)")
def on_out_portable(engine: int, port: int, size: int, data: int, block: int) -> None:
    """Ends the run behind one repetition of OUTS, if its port exits; other port accesses are done by hand."""
    if word(block, BREAKS) != _0:
        note_port(block, u64(port), u64(size))
    if post(block, POST_PORT, u64(port), u64(size), u64(data)) != _0 or port_exits(block, u64(port), u64(size)) == _0:
        return
    put(block, STOP, STOP_IO)
    put(block, STOP_A, u64(port))
    put(block, STOP_B, u64(size))
    put(block, STOP_C, _1)
    put(block, STOP_D, u64(data))
    put(block, STOP_E, _0)
    call1(word(block, F_STOP), word(block, ENGINE))


@callback("uint32(uint64, uint32, int32, uint64)")
def on_in_portable(engine: int, port: int, size: int, block: int) -> Word:
    """Gives an INS that was reported before the holder's answer, and all ones for a port of nobody."""
    if word(block, BREAKS) != _0:
        note_port(block, u64(port), u64(size))
    if port_exits(block, u64(port), u64(size)) == _0:
        return np.uint32(0xFFFF_FFFF)
    store64(word(block, RUN_PAGE) + PAGE_INPUT_WAITS, _0)
    return np.uint32(word(block, INPUT))
