"""TLB fills: a walk, and what it means for the frame that it found; compiled.

Translated code and writable mappings exclude each other, frame by frame, through the frame's state word on the memory
bus: a fetch takes the right to write away, a write drops translated code. A TLB entry that allows both would be slow,
and cores do not see each other's stores. Only code that writes into its own frame keeps both rights; there the emulator
itself watches each store.
"""

from __future__ import annotations

import numpy as np

from lamina_hardware.io.emulator.code.instruction_bytes import peek
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.breakpoints import note_fill
from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_EXECUTE,
    ACCESS_READ,
    ACCESS_WRITE,
    BREAKS,
    BUS_HEAD,
    CODE_DROPS,
    ENGINE,
    ENV,
    F_CONTROL,
    F_INVALIDATE,
    FAULT_ACCESS,
    FAULT_NONE,
    FILLS,
    FILLS_1G,
    FILLS_2M,
    FILLS_4K,
    L_COUNT_WALK,
    L_FILL,
    OBSERVATION,
    PORTABLE,
    RAM_BASE,
    REFERENCES,
    RIGHT_EXECUTE,
    RIGHT_READ,
    RIGHT_WRITE,
    SECOND_REFERENCES,
    STATE_BASE,
    STOP,
    STOP_A,
    STOP_CODE_WRITE,
    WALK_FAULTS,
    WALK_PA,
    WALK_READS,
    WALK_RIGHTS,
    WALK_SECOND_READS,
    WALK_SECOND_SHIFT,
    WALK_SHIFT,
)
from lamina_hardware.io.emulator.state.mode import linear_rip
from lamina_hardware.io.emulator.walks.steps import CR4_SMAP, SET_BITS
from lamina_hardware.io.emulator.walks.walker import walk
from lamina_hardware.io.native import (
    Word,
    call3,
    call4,
    cas32,
    compiled,
    linked,
    load32,
    load64,
    mark_written,
    put,
    store32,
    store64,
    u64,
    word,
)

_0, _1, _2, _3, _8, _12, _22 = (u64(n) for n in (0, 1, 2, 3, 8, 12, 22))
_PAGE = u64(4096)
_63 = u64(63)
_16, _24 = u64(16), u64(24)
_FILLED, _FILLS, _LAST_FILL = u64(13 * 8), u64(16 * 8), u64(7)  # as in `observation/hooks.py`, which imports this
_NO_FLUSH = u64(1 << 63)
_PAGE_MASK = ~u64(4095)
_WINDOWS = at.TLB_WINDOWS

_STATE_EXEC = u64(1)
_STATE_WRITE = u64(2)
_STATE_DIRTY = u64(4)

_TYPE_WRITE = u64(17)
_TYPE_FETCH = u64(18)
_FLAG_AC = u64(1 << 18)
_FLUSH_TLB = u64(0x4000_000B)  # UC_CTL_TLB_FLUSH, write
_FLUSH_CODE = u64(0x4000_000A)  # UC_CTL_TB_FLUSH, write


@compiled("uint64(uint64, uint64, uint64, uint64)")
def walk_live(block: int, va: int, access: int, effect: int) -> Word:
    """Walks with the registers as they stand in the register file now.

    Bit 63 of a value moved to CR3 asks that translations be kept (CR4.PCIDE); the register does not hold it. The
    emulator stores it all the same, empties its TLB, which is allowed, and so comes here before anything can read CR3.
    """
    env = word(block, ENV)
    cr3 = load64(env + at.CR3)
    if (cr3 >> _63) != _0:
        cr3 &= ~_NO_FLUSH
        store64(env + at.CR3, cr3)
    user = _1 if (load32(env + at.HFLAGS) & at.HF_CPL) == _3 else _0
    cr4 = load64(env + at.CR4)
    if (load64(env + at.EFLAGS) & _FLAG_AC) != _0:
        cr4 &= ~CR4_SMAP
    return walk(block, cr3, va, access, user, load64(env + at.CR0), cr4, effect)


@compiled("uint64(uint64)")
def flush_tlb(block: int) -> Word:
    """Drops every translation of an address."""
    return call4(word(block, F_CONTROL), word(block, ENGINE), _FLUSH_TLB, _0, _0)


@compiled("uint64(uint64)")
def flush_code(block: int) -> Word:
    """Drops all translated code; not for use inside a callback."""
    return call4(word(block, F_CONTROL), word(block, ENGINE), _FLUSH_CODE, _0, _0)


@compiled("uint64(uint64, uint64, uint64)")
def change_state(state: int, keep: int, bits: int) -> Word:
    """Keeps and sets bits of a frame's state word; returns what was there."""
    while True:
        old = load32(state)
        new = (old & keep) | bits
        if old == new or u64(cas32(state, np.uint32(old), np.uint32(new))) == old:
            return old


@compiled("uint64(uint64, uint64, uint64)")
def _fetch_rights(block: int, state: int, rights: int) -> Word:
    """Makes a frame one of code: no writable translation of it stays."""
    old = load32(state)
    if (old & (_STATE_EXEC | _STATE_WRITE)) != _STATE_EXEC:
        old = change_state(state, ~_STATE_WRITE, _STATE_EXEC)
        if (old & _STATE_WRITE) != _0:
            flush_tlb(block)
    return rights & (RIGHT_READ | RIGHT_EXECUTE)


@compiled("uint64(uint64, uint64)")
def _runs_in(block: int, page: int) -> Word:
    """Returns whether the instruction that runs now lies in this physical page."""
    place = peek(block, linear_rip(word(block, ENV)))
    return _1 if place != _0 and ((place - word(block, RAM_BASE)) & _PAGE_MASK) == page else _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _write_rights(block: int, state: int, page: int, rights: int) -> Word:
    """Makes a frame one of data; returns 0 when the core must stop first to drop translated code."""
    old = load32(state)
    frame = page >> _12
    if (old & _STATE_EXEC) == _0:
        if (old & (_STATE_WRITE | _STATE_DIRTY)) != (_STATE_WRITE | _STATE_DIRTY):
            change_state(state, ~_0, _STATE_WRITE)
            mark_written(word(block, BUS_HEAD), frame, _1)
        return rights & (RIGHT_READ | RIGHT_WRITE)
    mark_written(word(block, BUS_HEAD), frame, _1)
    if _runs_in(block, page) != _0:
        change_state(state, ~_0, _STATE_WRITE)
        return rights
    put(block, CODE_DROPS, word(block, CODE_DROPS) + _1)
    if word(block, PORTABLE) != _0:
        put(block, STOP, STOP_CODE_WRITE)
        put(block, STOP_A, state)
        return _0
    call3(word(block, F_INVALIDATE), word(block, ENGINE), page, page + _PAGE)
    flush_tlb(block)
    change_state(state, ~_STATE_EXEC, _STATE_WRITE)
    return rights & (RIGHT_READ | RIGHT_WRITE)


@compiled("uint64(uint64)")
def drop_code(block: int) -> Word:
    """Does what a portable core stopped for at STOP_CODE_WRITE: the frame becomes one of data."""
    flush_code(block)
    flush_tlb(block)
    change_state(word(block, STOP_A), ~_STATE_EXEC, _STATE_WRITE)
    return _0


@linked(L_COUNT_WALK)
def count_walk(block: int, ended: int) -> Word:
    """Counts a walk that a core asked for: the entries that it read, and the size of the page or that it failed."""
    put(block, FILLS, word(block, FILLS) + _1)
    put(block, REFERENCES, word(block, REFERENCES) + word(block, WALK_READS))
    put(block, SECOND_REFERENCES, word(block, SECOND_REFERENCES) + word(block, WALK_SECOND_READS))
    place = WALK_FAULTS
    if ended == FAULT_NONE:
        shift = min(word(block, WALK_SHIFT), word(block, WALK_SECOND_SHIFT))
        place = FILLS_4K if shift == _12 else (FILLS_2M if shift <= _22 else FILLS_1G)  # 4 MiB counts as 2 MiB
    put(block, place, word(block, place) + _1)
    return _0


@compiled("uint64(uint64)")
def _keep_size(env: int) -> Word:
    """Keeps the emulator's TLB from shrinking: it would do so by the host's clock, and the number of fills would too.

    It grows at a flush when it was used well, which is a matter of the program, and begins to measure time then; the
    first fetch after any flush comes here.
    """
    for before in _WINDOWS:
        store64(env - before, at.TLB_WINDOW_NEVER)
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def _note_fill(head: int, va: int, page: int, access: int, rights: int) -> Word:
    """Notes for `observation/hooks.py` which address lies where; returns rights for accesses of this kind only."""
    if access == ACCESS_EXECUTE:
        return rights
    count = load64(head + _FILLED)
    place = head + _FILLS + min(count, _LAST_FILL) * _24
    store64(place, va & _PAGE_MASK)
    store64(place + _8, page)
    store64(place + _16, access)
    store64(head + _FILLED, count + _1)
    return RIGHT_READ if access == ACCESS_READ else rights & ~RIGHT_READ


@linked(L_FILL)
def fill(block: int, va: int, kind: int, out: int) -> Word:
    """Looks a page up for the TLB; returns 0 with the fault or the stop in the block."""
    access = ACCESS_READ
    if kind == _TYPE_WRITE:
        access = ACCESS_WRITE
    elif kind == _TYPE_FETCH:
        access = ACCESS_EXECUTE
    if word(block, PORTABLE) == _0:
        _keep_size(word(block, ENV))
    ended = walk_live(block, va, access, SET_BITS)
    observed = word(block, OBSERVATION)
    if observed == _0 or ended != FAULT_NONE:  # `observation/hooks.py` counts hits and misses of observed contexts
        count_walk(block, ended)
    if ended != FAULT_NONE:
        put(block, FAULT_ACCESS, access)
        return _0
    page = word(block, WALK_PA)
    rights = word(block, WALK_RIGHTS)
    state = word(block, STATE_BASE) + ((page >> _12) << _2)
    if access == ACCESS_EXECUTE:
        rights = _fetch_rights(block, state, rights)
    elif access == ACCESS_WRITE:
        rights = _write_rights(block, state, page, rights)
        if rights == _0:
            return _0
    else:
        rights &= RIGHT_READ | RIGHT_WRITE
        if (load32(state) & (_STATE_EXEC | _STATE_WRITE | _STATE_DIRTY)) != (_STATE_WRITE | _STATE_DIRTY):
            rights = RIGHT_READ
    if word(block, BREAKS) != _0 and access != ACCESS_EXECUTE:
        note_fill(block, va, page)
    if observed != _0:
        rights = _note_fill(observed, va, page, access, rights)
    store64(out, page)
    store32(out + _8, rights)
    return _1
