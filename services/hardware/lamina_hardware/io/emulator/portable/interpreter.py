"""Instructions that the portable core does itself, and what it must work out after a stop; compiled.

The portable core cannot leave the emulator in the middle of an instruction. It stops in front of those that exit
(`portable/hooks.py` finds them when it enters a block), and here does what the instruction does, on its own register
file.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.code.decoder import PREFIX_66, PREFIX_F2, PREFIX_F3, decode
from lamina_hardware.io.emulator.code.instruction_bytes import code_at, leave_after
from lamina_hardware.io.emulator.code.operand import access_in
from lamina_hardware.io.emulator.instructions.cpuid_tsc import PAGE_INPUT_WAITS, answer_cpuid, answer_timestamp
from lamina_hardware.io.emulator.instructions.ports import PORT_ALLOWED, PORT_REFUSED, port_right
from lamina_hardware.io.emulator.portable.intercepts import handed_code, may_be_handed
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.breakpoints import note_port
from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_EXECUTE,
    BLOCK_PC,
    BREAKS,
    ENV,
    FAULT_ACCESS,
    FAULT_VA,
    INTERCEPT_CPUID,
    INVALID_ADDRESS,
    L_FINISH_BY_HAND,
    L_FULL_ADDRESS,
    PORTABLE,
    RUN_PAGE,
    STOP,
    STOP_A,
    STOP_B,
    STOP_C,
    STOP_CPUID,
    STOP_D,
    STOP_E,
    STOP_INTERRUPT,
    STOP_IO,
    STOP_SPECIAL,
    STOP_TIMESTAMP,
)
from lamina_hardware.io.emulator.state.exit_controls import port_exits, post
from lamina_hardware.io.emulator.state.exit_table import POST_PORT
from lamina_hardware.io.emulator.state.mode import linear_rip, move_rip
from lamina_hardware.io.native import Word, compiled, linked, load8, load64, put, store64, u64, word

_0, _1, _2, _3, _4, _8 = (u64(n) for n in (0, 1, 2, 3, 4, 8))
_12, _16 = u64(12), u64(16)
_BYTE = u64(0xFF)
_WORD = u64(0xFFFF)
_LOW = u64(0xFFFF_FFFF)
_PAGE = ~u64(4095)
_DOUBLE_FAULT, _GENERAL_PROTECTION = u64(8), u64(13)

PLAIN, PORT_IN, PORT_OUT, STRING_IN, STRING_OUT, LEAF, CLOCK, CLOCK_AUX, READ_MSR, WRITE_MSR, HANDED = (
    u64(n) for n in range(11)
)
"""Kinds of instructions; all but PLAIN may be done by hand."""


@compiled("uint64(uint64)")
def kind_of(found: int) -> Word:
    """Returns the kind of a decoded instruction."""
    opcode = (found >> _8) & _BYTE
    table = (found >> _16) & _BYTE
    if table == _0:
        if opcode == u64(0x6C) or opcode == u64(0x6D):
            return STRING_IN
        if opcode == u64(0x6E) or opcode == u64(0x6F):
            return STRING_OUT
        port = opcode & u64(0xF4)
        if port == u64(0xE4):
            return PORT_OUT if opcode & _2 != _0 else PORT_IN
    if table == _1:
        if opcode == u64(0xA2):
            return LEAF
        if opcode == u64(0x31):
            return CLOCK
        if opcode == u64(0x32):
            return READ_MSR
        if opcode == u64(0x30):
            return WRITE_MSR
        if opcode == _1 and (found >> u64(24)) & _BYTE == u64(0xF9):
            return CLOCK_AUX
    return HANDED if may_be_handed(found) != _0 else PLAIN


@compiled("uint64(uint64)")
def _refuse_port(block: int) -> Word:
    put(block, STOP, STOP_INTERRUPT)
    put(block, STOP_A, _GENERAL_PROTECTION)
    put(block, STOP_B, _0)
    put(block, STOP_C, _0)
    return _0


@compiled("uint64(uint64)")
def port_size(found: int) -> Word:
    """Returns the bytes of a port access."""
    if (found >> _8) & _1 == _0:
        return _1
    return _2 if (found >> u64(40)) & PREFIX_66 != _0 else _4


@compiled("uint64(uint64, uint64, uint64)")
def _mask_to(value: int, size: int, kept: int) -> Word:
    """Returns the low `size` bytes of a value, with the rest of `kept` when they are fewer than 4."""
    if size == _4:
        return value & _LOW
    mask = _WORD if size == _2 else _BYTE
    return (value & mask) | (kept & ~mask)


@compiled("uint64(uint64, uint64, uint64)")
def _do_port(block: int, found: int, kind: int) -> Word:
    """Does IN, OUT or INS: reports it, counts a doorbell, or reads all ones from a port of nobody."""
    env = word(block, ENV)
    size = port_size(found)
    port = load64(env + at.REGS + _2 * _8) & _WORD
    if kind in (PORT_IN, PORT_OUT) and (found >> _8) & _8 == _0:
        port = load8(code_at(block, linear_rip(env)) + (found & _BYTE) - _1)
    right = port_right(block, port, size)
    if right != PORT_ALLOWED:
        return _refuse_port(block) if right == PORT_REFUSED else _0
    if word(block, BREAKS) != _0:
        note_port(block, port, size)
    data = _mask_to(load64(env + at.REGS), size, _0) if kind == PORT_OUT else _0
    exits = port_exits(block, port, size) != _0
    if kind == PORT_OUT and post(block, POST_PORT, port, size, data) != _0:
        exits = False
    leave_after(block, _0)
    if not exits:
        if kind == PORT_IN:
            store64(env + at.REGS, _mask_to(~_0, size, load64(env + at.REGS)))
        return _0
    if kind == STRING_IN:
        store64(word(block, RUN_PAGE) + PAGE_INPUT_WAITS, _1)
    put(block, STOP, STOP_IO)
    put(block, STOP_A, port)
    put(block, STOP_B, size)
    put(block, STOP_C, _1 if kind == PORT_OUT else _0)
    put(block, STOP_D, data)
    return _0


@compiled("uint64(uint64)")
def _do_special(block: int) -> Word:
    """Does the instruction at RIP; changes STOP to what it means, or leaves it when nothing exits."""
    env = word(block, ENV)
    found = decode(block, code_at(block, linear_rip(env)))
    kind = kind_of(found)
    if kind in (PORT_IN, PORT_OUT, STRING_IN, STRING_OUT):
        return _do_port(block, found, kind)
    if kind == LEAF:
        if word(block, INTERCEPT_CPUID) != _0 or answer_cpuid(block) == _0:
            put(block, STOP, STOP_CPUID)
    elif kind in (CLOCK, CLOCK_AUX):
        aux = _1 if kind == CLOCK_AUX else _0
        if answer_timestamp(block, aux) == _0:
            put(block, STOP, STOP_TIMESTAMP)
            put(block, STOP_A, aux)
    else:
        put(block, STOP, STOP_INTERRUPT)
        put(block, STOP_A, handed_code(block, found) if kind == HANDED else at.VMEXIT_MSR)
        put(block, STOP_B, _1 if kind == WRITE_MSR else _0)
        put(block, STOP_C, _0)
        return _0
    return leave_after(block, _0)


@compiled("uint64(uint64)")
def _was_software(block: int) -> Word:
    """Returns whether the instruction that ran last is an INT: the API tells the vector alone."""
    start = word(block, BLOCK_PC)
    if linear_rip(word(block, ENV)) == start:
        return _0
    place = code_at(block, start)
    found = decode(block, place) if place != _0 else _0
    opcode = (found >> _8) & _BYTE
    is_int = opcode == u64(0xCC) or opcode == u64(0xCD) or opcode == u64(0xCE) or opcode == u64(0xF1)
    return _1 if (found >> _16) & _BYTE == _0 and is_int else _0


@compiled("uint64(uint64)")
def _single_fault(block: int) -> Word:
    """Returns which exception the emulator reported as a double fault.

    It believes that an exception is being handled already, and the API cannot tell it otherwise; so each of the
    contributory ones arrives as vector 8. Of those a division raises #DE, and all else #GP.
    """
    place = code_at(block, linear_rip(word(block, ENV)))
    found = decode(block, place) if place != _0 else _0
    opcode = (found >> _8) & _BYTE
    group = (found >> u64(27)) & u64(7)
    is_unary = (found >> _16) & _BYTE == _0 and (opcode == u64(0xF6) or opcode == u64(0xF7))
    return _0 if is_unary and group >= u64(6) else _GENERAL_PROTECTION


@linked(L_FINISH_BY_HAND)
def finish_by_hand(block: int) -> Word:
    """Completes a stop of the portable core on its register file, which holds the emulator's registers."""
    env = word(block, ENV)
    stop = word(block, STOP)
    if stop == STOP_SPECIAL:
        return _do_special(block)
    if stop == STOP_IO:  # an OUTS that the emulator did: with no repetition left RIP goes behind it
        rip = load64(env + at.EIP)
        if linear_rip(env) == word(block, BLOCK_PC):
            found = decode(block, code_at(block, linear_rip(env)))
            repeats = (found >> u64(40)) & (PREFIX_F2 | PREFIX_F3) != _0
            if repeats and load64(env + at.REGS + _8) == _0:
                move_rip(env, found & _BYTE)
            else:
                put(block, STOP_E, rip)
    if stop == STOP_INTERRUPT:
        put(block, STOP_C, _was_software(block))
        if word(block, STOP_A) == _DOUBLE_FAULT:
            put(block, STOP_A, _single_fault(block))
    return _0


@linked(L_FULL_ADDRESS)
def full_address(block: int) -> Word:
    """Returns the address, to the byte, of the access that failed."""
    if word(block, PORTABLE) == _0:
        return load64(word(block, INVALID_ADDRESS))
    page = word(block, FAULT_VA) & _PAGE
    env = word(block, ENV)
    rip = linear_rip(env)
    if word(block, FAULT_ACCESS) == ACCESS_EXECUTE:
        return rip if rip & _PAGE == page else page
    place = code_at(block, rip)
    return access_in(block, place, rip, page) if place != _0 else page
