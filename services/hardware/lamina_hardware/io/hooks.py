"""What the emulator calls while it runs: TLB fills, blocks, and the instructions that exit; compiled.

Every function gets the address of its core's control block as user data. Those that end a run note why in the block
and stop the emulator; `machine.py` reads it.

A block is charged when it is entered, by the number of its instructions; one that does not fit into the budget is not
entered and not charged, except as the first of a run. The number comes from the emulator's own table of translated
blocks, where the block being entered was just looked up; when another stands there, the emulator is asked.
"""

from __future__ import annotations

import numpy as np

from lamina_hardware.io import unicorn_layout as at
from lamina_hardware.io.code import code_at, count_between, leave_after
from lamina_hardware.io.control import (
    ACCESS_EXECUTE,
    ACCESS_READ,
    ACCESS_WRITE,
    BLOCK_COUNT,
    BLOCK_PC,
    BLOCK_SIZE,
    BUDGET,
    BUS_HEAD,
    CODE_DROPS,
    CONSUMED,
    CPU,
    ENGINE,
    ENV,
    F_CONTROL,
    F_FLUSH,
    F_INVALIDATE,
    F_LEAVE,
    F_STOP,
    FAULT_ACCESS,
    FAULT_NONE,
    FILLS,
    INPUT,
    INTERCEPT_CPUID,
    JUMP_CACHE,
    LIMIT,
    REQUEST,
    REQUEST_EVENT,
    RIGHT_EXECUTE,
    RIGHT_READ,
    RIGHT_WRITE,
    RUN_PAGE,
    SCRATCH,
    STATE_BASE,
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
    STOP_TIMESTAMP,
    WALK_FAULTS,
    WALK_PA,
    WALK_RIGHTS,
)
from lamina_hardware.io.native import (
    call1,
    call3,
    call4,
    callback,
    cas32,
    compiled,
    load16,
    load32,
    load64,
    mark_written,
    put,
    store32,
    store64,
    word,
)
from lamina_hardware.io.answers import PAGE_INPUT_WAITS, answer_cpuid, answer_timestamp
from lamina_hardware.io.walker import CR4_SMAP, NO_EFFECT, SET_BITS, walk

_0, _1, _2, _3, _4, _6, _8 = (np.uint64(n) for n in (0, 1, 2, 3, 4, 6, 8))
_12 = np.uint64(12)
_PAGE = np.uint64(4096)
_PAGE_MASK = ~np.uint64(4095)

_STATE_EXEC = np.uint64(1)
_STATE_WRITE = np.uint64(2)
_STATE_DIRTY = np.uint64(4)

_TYPE_WRITE = np.uint64(17)
_TYPE_FETCH = np.uint64(18)
_FLAG_IF = np.uint64(1 << 9)
_FLAG_AC = np.uint64(1 << 18)
_GENERAL_PROTECTION = np.uint64(13)

_REQUEST_BLOCK = np.uint64(0xC800_0008)  # UC_CTL_TB_REQUEST_CACHE, two arguments, read and write
_HASH_PAGE = np.uint64(4096 - 64)
_HASH_ADDRESS = np.uint64(63)


@compiled("uint64(uint64, uint64, uint64, uint64)")
def walk_live(block: int, va: int, access: int, effect: int) -> int:
    """Walks with the registers as they stand in the emulator now."""
    env = word(block, ENV)
    user = _1 if (load32(env + at.HFLAGS) & at.HF_CPL) == _3 else _0
    cr4 = load64(env + at.CR4)
    if (load64(env + at.EFLAGS) & _FLAG_AC) != _0:
        cr4 &= ~CR4_SMAP
    return walk(block, load64(env + at.CR3), va, access, user, load64(env + at.CR0), cr4, effect)


@compiled("uint64(uint64, uint64, uint64)")
def _change_state(state: int, keep: int, bits: int) -> int:
    """Keeps and sets bits of a frame's state word; returns what was there."""
    while True:
        old = load32(state)
        new = (old & keep) | bits
        if old == new or np.uint64(cas32(state, np.uint32(old), np.uint32(new))) == old:
            return old


@compiled("uint64(uint64, uint64, uint64)")
def _fetch_rights(block: int, state: int, rights: int) -> int:
    """Makes a frame one of code: no writable translation of it stays."""
    old = load32(state)
    if (old & (_STATE_EXEC | _STATE_WRITE)) != _STATE_EXEC:
        old = _change_state(state, ~_STATE_WRITE, _STATE_EXEC)
        if (old & _STATE_WRITE) != _0:
            call1(word(block, F_FLUSH), word(block, CPU))
    return rights & (RIGHT_READ | RIGHT_EXECUTE)


@compiled("uint64(uint64, uint64)")
def _runs_in(block: int, page: int) -> int:
    """Returns whether the instruction that runs now lies in this physical page."""
    here = load64(word(block, ENV) + at.EIP)
    if walk_live(block, here, ACCESS_EXECUTE, NO_EFFECT) != FAULT_NONE:
        return _0
    return _1 if word(block, WALK_PA) == page else _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _write_rights(block: int, state: int, page: int, rights: int) -> int:
    """Makes a frame one of data: no translated code of it stays, at this core or another.

    When the code that writes lies in the same frame the page stays executable, and the emulator itself drops the blocks
    that each store hits, even the one that is running.
    """
    old = load32(state)
    frame = page >> _12
    if (old & _STATE_EXEC) == _0:
        if (old & (_STATE_WRITE | _STATE_DIRTY)) != (_STATE_WRITE | _STATE_DIRTY):
            _change_state(state, ~_0, _STATE_WRITE)
            mark_written(word(block, BUS_HEAD), frame, _1)
        return rights & (RIGHT_READ | RIGHT_WRITE)
    mark_written(word(block, BUS_HEAD), frame, _1)
    if _runs_in(block, page) != _0:
        _change_state(state, ~_0, _STATE_WRITE)
        return rights
    call3(word(block, F_INVALIDATE), word(block, ENGINE), page, page + _PAGE)
    call1(word(block, F_FLUSH), word(block, CPU))
    put(block, CODE_DROPS, word(block, CODE_DROPS) + _1)
    _change_state(state, ~_STATE_EXEC, _STATE_WRITE)
    return rights & (RIGHT_READ | RIGHT_WRITE)


@callback("boolean(uint64, uint64, int32, uint64, uint64)")
def on_fill(engine: int, va: int, kind: int, out: int, block: int) -> bool:
    """Fills the TLB for one page, or notes the fault."""
    put(block, FILLS, word(block, FILLS) + _1)
    sort = np.uint64(kind)
    access = ACCESS_READ
    if sort == _TYPE_WRITE:
        access = ACCESS_WRITE
    elif sort == _TYPE_FETCH:
        access = ACCESS_EXECUTE
    if walk_live(block, va, access, SET_BITS) != FAULT_NONE:
        put(block, WALK_FAULTS, word(block, WALK_FAULTS) + _1)
        put(block, FAULT_ACCESS, access)
        return False
    page = word(block, WALK_PA)
    rights = word(block, WALK_RIGHTS)
    state = word(block, STATE_BASE) + ((page >> _12) << _2)
    if access == ACCESS_EXECUTE:
        rights = _fetch_rights(block, state, rights)
    elif access == ACCESS_WRITE:
        rights = _write_rights(block, state, page, rights)
    else:
        rights &= RIGHT_READ | RIGHT_WRITE
        if (load32(state) & (_STATE_EXEC | _STATE_WRITE | _STATE_DIRTY)) != (_STATE_WRITE | _STATE_DIRTY):
            rights = RIGHT_READ
    store64(out, page)
    store32(out + _8, rights)
    return True


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _count_slowly(block: int, pc: int, size: int, found: int) -> int:
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
    if load16(scratch + np.uint64(10)) == size:
        return load16(scratch + _8)
    return count_between(block, pc, pc + size)


@compiled("uint64(uint64, uint64, uint64)")
def _refuse(block: int, consumed: int, count: int) -> int:
    """Decides about a block that does not fit or comes up while someone wants something; 1: the core stops before it.

    A pending external interrupt stops the core at the first block at which RFLAGS.IF is set.
    """
    request = word(block, REQUEST)
    may_interrupt = (load64(word(block, ENV) + at.EFLAGS) & _FLAG_IF) != _0
    if (request & ~REQUEST_EVENT) != _0 or (request != _0 and may_interrupt):
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
    bytes_ = np.uint64(size)
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


@callback("void(uint64, uint32, uint64)")
def on_interrupt(engine: int, vector: int, block: int) -> None:
    """Ends the run at an exception, INT n, or an intercepted instruction (vector 0x100 and above)."""
    env = word(block, ENV)
    if word(block, STOP) == STOP_NONE:
        put(block, STOP, STOP_INTERRUPT)
        put(block, STOP_A, np.uint64(vector))
        put(block, STOP_B, load32(env + at.ERROR_CODE))
        put(block, STOP_C, load32(env + at.EXCEPTION_IS_INT))
    call1(word(block, F_STOP), word(block, ENGINE))


@callback("boolean(uint64, uint64)")
def on_invalid(engine: int, block: int) -> bool:
    """Ends the run on an instruction that the emulator does not execute (VMCALL, RDRAND, UD2 and undefined ones)."""
    put(block, STOP, STOP_INVALID)
    return False


@compiled("uint64(uint64)")
def _leave(block: int) -> int:
    """Leaves the emulator's inner loop at once; RIP stays as it is. Does not return to its caller."""
    call1(word(block, F_STOP), word(block, ENGINE))
    return call1(word(block, F_LEAVE), word(block, CPU))


@compiled("uint64(uint64)")
def _port_denied(block: int) -> int:
    """Raises #GP when CPL is above IOPL; does not return then."""
    env = word(block, ENV)
    if (load32(env + at.HFLAGS) & at.HF_CPL) <= ((load64(env + at.EFLAGS) >> _12) & _3):
        return _0
    put(block, STOP, STOP_INTERRUPT)
    put(block, STOP_A, _GENERAL_PROTECTION)
    put(block, STOP_B, _0)
    put(block, STOP_C, _0)
    return _leave(block)


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def _port_exit(block: int, port: int, size: int, out: int, data: int) -> int:
    put(block, STOP, STOP_IO)
    put(block, STOP_A, port)
    put(block, STOP_B, size)
    put(block, STOP_C, out)
    put(block, STOP_D, data)
    return _leave(block)


@callback("void(uint64, uint32, int32, uint32, uint64)")
def on_out(engine: int, port: int, size: int, data: int, block: int) -> None:
    """Ends the run behind OUT, or behind one repetition of OUTS."""
    _port_denied(block)
    leave_after(block, np.uint64(size))
    _port_exit(block, np.uint64(port), np.uint64(size), _1, np.uint64(data))


@callback("uint32(uint64, uint32, int32, uint64)")
def on_in(engine: int, port: int, size: int, block: int) -> int:
    """Ends the run behind IN; an INS ends it on itself and takes the holder's data when it runs again."""
    _port_denied(block)
    waiting = word(block, RUN_PAGE) + PAGE_INPUT_WAITS
    if load64(waiting) != _0:
        store64(waiting, _0)
        return np.uint32(word(block, INPUT))
    if leave_after(block, _0) != _0:
        store64(waiting, _1)
    _port_exit(block, np.uint64(port), np.uint64(size), _0, _0)
    return np.uint32(0)


@callback("int32(uint64, uint64)")
def on_cpuid(engine: int, block: int) -> int:
    """Answers CPUID from the run page, or ends the run behind it."""
    if word(block, INTERCEPT_CPUID) == _0 and answer_cpuid(block) != _0:
        return np.int32(1)
    leave_after(block, _0)
    put(block, STOP, STOP_CPUID)
    _leave(block)
    return np.int32(1)


@callback("int32(uint64, uint64)")
def on_timestamp(engine: int, block: int) -> int:
    """Answers RDTSC and RDTSCP from the run page, or ends the run behind it."""
    code = code_at(block, load64(word(block, ENV) + at.EIP))
    with_aux = code != _0 and load16(code) == np.uint64(0x010F)
    if answer_timestamp(block, _1 if with_aux else _0) != _0:
        return np.int32(1)
    leave_after(block, _0)
    put(block, STOP, STOP_TIMESTAMP)
    put(block, STOP_A, _1 if with_aux else _0)
    _leave(block)
    return np.int32(1)
