"""What the emulator calls while it runs: TLB fills, blocks, and the instructions that exit; compiled.

Every function gets the address of its core's control block as user data. Those that end a run note why in the block
and stop the emulator; `run.py` reads it.

A block is charged when it is entered, by the number of its instructions; one that does not fit into the budget is not
entered and not charged, except as the first of a run. The number comes from the emulator's own table of translated
blocks, where the block being entered was just looked up; when another stands there, the emulator is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numba
import numpy as np

from lamina_hardware.io.emulator.code.instruction_bytes import code_at, count_between, leave_after
from lamina_hardware.io.emulator.instructions.cpuid_tsc import PAGE_INPUT_WAITS, answer_cpuid, answer_timestamp
from lamina_hardware.io.emulator.instructions.ports import PORT_ALLOWED, PORT_REFUSED, port_right
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.breakpoints import note_port
from lamina_hardware.io.emulator.state.control_block import (
    BLOCK_COUNT,
    BLOCK_PC,
    BLOCK_SIZE,
    BREAKS,
    BUDGET,
    CONSUMED,
    CPU,
    ENGINE,
    ENV,
    F_CONTROL,
    F_LEAVE,
    F_STOP,
    INPUT,
    INTERCEPT_CPUID,
    JUMP_CACHE,
    LIMIT,
    REQUEST,
    REQUEST_EVENT,
    REQUEST_NMI,
    RUN_PAGE,
    SCRATCH,
    STOP,
    STOP_A,
    STOP_B,
    STOP_BUDGET,
    STOP_C,
    STOP_CPUID,
    STOP_D,
    STOP_INTERRUPT,
    STOP_INVALID,
    STOP_IO,
    STOP_NONE,
    STOP_REQUEST,
    STOP_SYSCALL,
    STOP_SYSENTER,
    STOP_TIMESTAMP,
)
from lamina_hardware.io.emulator.state.exit_controls import port_exits, post
from lamina_hardware.io.emulator.state.exit_table import POST_PORT
from lamina_hardware.io.emulator.state.mode import linear_rip
from lamina_hardware.io.emulator.tlb.fill import fill
from lamina_hardware.io.native import (
    Word,
    call1,
    call4,
    compiled,
    load16,
    load32,
    load64,
    put,
    store64,
    u64,
    word,
)


def callback(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """Compiles a function that the emulator calls; its C address is the result's `address`."""
    return cast(Callable[[Callable[..., Any]], Any], numba.cfunc(signature, cache=True))


_0, _1, _2, _3, _4, _6, _8 = (u64(n) for n in (0, 1, 2, 3, 4, 6, 8))


_FLAG_IF = u64(1 << 9)
_GENERAL_PROTECTION = u64(13)

_REQUEST_BLOCK = u64(0xC800_0008)  # UC_CTL_TB_REQUEST_CACHE, two arguments, read and write
_HASH_PAGE = u64(4096 - 64)
_HASH_ADDRESS = u64(63)


@callback("boolean(uint64, uint64, int32, uint64, uint64)")
def on_fill(engine: int, va: int, kind: int, out: int, block: int) -> Word:
    """Fills the TLB for one page, or notes the fault."""
    return fill(block, va, u64(kind), out) != _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _count_slowly(block: int, pc: int, size: int, found: int) -> Word:
    """Returns the instruction count of the block at `pc` when the emulator's table does not show it at once."""
    if found != _0 and load64(found) == pc and (load32(found + at.TB_CFLAGS) & at.TB_COUNT_LIMIT) == _1:
        # A block of one instruction is made when code has just overwritten its own block: that one was left early.
        start = word(block, BLOCK_PC)
        if start <= pc and pc < start + word(block, BLOCK_SIZE):
            done = count_between(block, start, pc)
            put(block, CONSUMED, word(block, CONSUMED) - (word(block, BLOCK_COUNT) - done))
        return _1
    scratch = word(block, SCRATCH)
    store64(scratch + _8, _0)
    call4(word(block, F_CONTROL), word(block, ENGINE), _REQUEST_BLOCK, pc, scratch)
    if load16(scratch + u64(10)) == size:
        return load16(scratch + _8)
    return count_between(block, pc, pc + size)


@compiled("uint64(uint64, uint64)")
def may_interrupt(block: int, request: int) -> Word:
    """Returns whether an interrupt that is asked for (REQUEST_EVENT, REQUEST_NMI) could be taken now."""
    env = word(block, ENV)
    if load32(env + at.HFLAGS) & at.HF_SHADOW != _0:
        return _0
    if request & REQUEST_EVENT != _0 and load64(env + at.EFLAGS) & _FLAG_IF != _0:
        return _1
    return _1 if request & REQUEST_NMI != _0 and load32(env + at.HFLAGS2) & at.HF2_NMI == _0 else _0


@compiled("uint64(uint64, uint64, uint64)")
def _refuse(block: int, consumed: int, count: int) -> Word:
    """Decides about a block that does not fit or comes up while someone wants something; 1: the core stops before it.

    A pending external interrupt stops the core at the first block at which RFLAGS.IF is set, a pending NMI at the
    first one after IRET; neither in the shadow of STI or MOV SS.
    """
    request = word(block, REQUEST)
    if (request & ~(REQUEST_EVENT | REQUEST_NMI)) != _0 or (request != _0 and may_interrupt(block, request) != _0):
        put(block, STOP, STOP_REQUEST)
    elif consumed == _0 or consumed + count <= word(block, BUDGET):
        return _0
    else:
        put(block, STOP, STOP_BUDGET)
    call1(word(block, F_STOP), word(block, ENGINE))
    return _1


@callback("void(uint64, uint64, uint32, uint64)")
def on_block(engine: int, pc: int, size: int, block: int) -> None:
    """Charges a block, or stops before it."""
    bytes_ = u64(size)
    mixed = pc ^ (pc >> _6)
    place = ((mixed >> _6) & _HASH_PAGE) | (mixed & _HASH_ADDRESS)
    found = load64(word(block, JUMP_CACHE) + place * _8)
    if found != _0 and load64(found) == pc and load16(found + at.TB_SIZE) == bytes_:
        count = load16(found + at.TB_COUNT)
        if (load32(found + at.TB_CFLAGS) & at.TB_COUNT_LIMIT) != _0:
            count = _count_slowly(block, pc, bytes_, found)
    else:
        count = _count_slowly(block, pc, bytes_, found)
    consumed = word(block, CONSUMED)
    if consumed + count > word(block, LIMIT) and _refuse(block, consumed, count) != _0:
        return
    put(block, CONSUMED, consumed + count)
    put(block, BLOCK_PC, pc)
    put(block, BLOCK_SIZE, bytes_)
    put(block, BLOCK_COUNT, count)


@callback("void(uint64, uint64)")
def on_syscall(engine: int, block: int) -> None:
    """Ends the run behind SYSCALL."""
    put(block, STOP, STOP_SYSCALL)
    call1(word(block, F_STOP), word(block, ENGINE))


@callback("void(uint64, uint64)")
def on_sysenter(engine: int, block: int) -> None:
    """Ends the run behind SYSENTER."""
    put(block, STOP, STOP_SYSENTER)
    call1(word(block, F_STOP), word(block, ENGINE))


@callback("void(uint64, uint32, uint64)")
def on_interrupt(engine: int, vector: int, block: int) -> None:
    """Ends the run at an exception, INT n, or an intercepted instruction (vector 0x100 and above)."""
    env = word(block, ENV)
    if word(block, STOP) == STOP_NONE:
        put(block, STOP, STOP_INTERRUPT)
        put(block, STOP_A, u64(vector))
        put(block, STOP_B, load32(env + at.ERROR_CODE))
        put(block, STOP_C, load32(env + at.EXCEPTION_IS_INT))
    call1(word(block, F_STOP), word(block, ENGINE))


@callback("boolean(uint64, uint64)")
def on_invalid(engine: int, block: int) -> Word:
    """Ends the run on an instruction that the emulator does not execute (VMCALL, RDRAND, UD2 and undefined ones)."""
    put(block, STOP, STOP_INVALID)
    return False


@compiled("uint64(uint64)")
def _leave(block: int) -> Word:
    """Leaves the emulator's inner loop at once; RIP stays as it is. Does not return to its caller."""
    call1(word(block, F_STOP), word(block, ENGINE))
    return call1(word(block, F_LEAVE), word(block, CPU))


@compiled("uint64(uint64, uint64, uint64)")
def _port_denied(block: int, port: int, size: int) -> Word:
    """Raises #GP when the context may not use the port, or the fault of the bitmap that says so; does not return then.

    A core that wants its registers to be those of the instruction leaves at once: RIP stays as it is.
    """
    right = port_right(block, port, size)
    if right == PORT_ALLOWED:
        return _0
    if right == PORT_REFUSED:
        put(block, STOP, STOP_INTERRUPT)
        put(block, STOP_A, _GENERAL_PROTECTION)
        put(block, STOP_B, _0)
        put(block, STOP_C, _0)
    return _leave(block)


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def _port_exit(block: int, port: int, size: int, out: int, data: int) -> Word:
    put(block, STOP, STOP_IO)
    put(block, STOP_A, port)
    put(block, STOP_B, size)
    put(block, STOP_C, out)
    put(block, STOP_D, data)
    return _leave(block)


@callback("void(uint64, uint32, int32, uint32, uint64)")
def on_out(engine: int, port: int, size: int, data: int, block: int) -> None:
    """Ends the run behind OUT, or one repetition of OUTS; a doorbell is only counted, a port of nobody does nothing."""
    _port_denied(block, u64(port), u64(size))
    if word(block, BREAKS) != _0:
        note_port(block, u64(port), u64(size))
    if post(block, POST_PORT, u64(port), u64(size), u64(data)) != _0 or port_exits(block, u64(port), u64(size)) == _0:
        return
    leave_after(block, u64(size))
    _port_exit(block, u64(port), u64(size), _1, u64(data))


@callback("uint32(uint64, uint32, int32, uint64)")
def on_in(engine: int, port: int, size: int, block: int) -> Word:
    """Ends the run behind IN; an INS ends it on itself and takes the holder's data when it runs again.

    A port of nobody reads all ones.
    """
    _port_denied(block, u64(port), u64(size))
    if word(block, BREAKS) != _0:
        note_port(block, u64(port), u64(size))
    if port_exits(block, u64(port), u64(size)) == _0:
        return np.uint32(0xFFFF_FFFF)
    waiting = word(block, RUN_PAGE) + PAGE_INPUT_WAITS
    if load64(waiting) != _0:
        store64(waiting, _0)
        return np.uint32(word(block, INPUT))
    if leave_after(block, _0) != _0:
        store64(waiting, _1)
    _port_exit(block, u64(port), u64(size), _0, _0)
    return np.uint32(0)


@callback("int32(uint64, uint64)")
def on_cpuid(engine: int, block: int) -> Word:
    """Answers CPUID from the run page, or ends the run behind it."""
    if word(block, INTERCEPT_CPUID) == _0 and answer_cpuid(block) != _0:
        return np.int32(1)
    leave_after(block, _0)
    put(block, STOP, STOP_CPUID)
    _leave(block)
    return np.int32(1)


@callback("int32(uint64, uint64)")
def on_timestamp(engine: int, block: int) -> Word:
    """Answers RDTSC and RDTSCP from the run page, or ends the run behind it."""
    code = code_at(block, linear_rip(word(block, ENV)))
    with_aux = code != _0 and load16(code) == u64(0x010F)
    if answer_timestamp(block, _1 if with_aux else _0) != _0:
        return np.int32(1)
    leave_after(block, _0)
    put(block, STOP, STOP_TIMESTAMP)
    put(block, STOP_A, _1 if with_aux else _0)
    _leave(block)
    return np.int32(1)
