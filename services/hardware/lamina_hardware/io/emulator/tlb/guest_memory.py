"""Memory that an instruction done by hand reads or writes, through the context's tables; compiled.

Each function returns 0 with the fault in the block and the address in STOP_A when the context may not; what it means is
decided where exits are. Bytes are found one by one where a value crosses a page.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_READ,
    ACCESS_WRITE,
    BUS_HEAD,
    ENV,
    FAULT,
    FAULT_ACCESS,
    FAULT_NONE,
    RAM_BASE,
    SCRATCH,
    STOP_A,
    WALK_PA,
)
from lamina_hardware.io.emulator.tlb.fill import walk_live
from lamina_hardware.io.emulator.walks.steps import SET_BITS
from lamina_hardware.io.emulator.walks.walker import walk
from lamina_hardware.io.native import Word, compiled, load8, load64, mark_written, put, store8, store64, u64, word

_0, _1, _3, _8, _12 = (u64(n) for n in (0, 1, 3, 8, 12))
_OFFSET = u64(4095)
_VALUE = u64(64)  # bytes into the scratch words: where a value is put together


@compiled("uint64(uint64, uint64, uint64, uint64)")
def byte_place(block: int, va: int, access: int, system: int) -> Word:
    """Returns this process's address of one byte; `system`: the processor's own access, as of the kernel.

    SMAP forbids the processor's own access to user pages whatever AC is. Source: Intel SDM vol. 3, 5.6.1.
    """
    env = word(block, ENV)
    put(block, FAULT, FAULT_NONE)
    if system != _0:
        ended = walk(block, load64(env + at.CR3), va, access, _0, load64(env + at.CR0), load64(env + at.CR4), SET_BITS)
    else:
        ended = walk_live(block, va, access, SET_BITS)
    if ended != FAULT_NONE:
        put(block, FAULT_ACCESS, access)
        put(block, STOP_A, va)
        return _0
    page = word(block, WALK_PA)
    if access == ACCESS_WRITE:
        mark_written(word(block, BUS_HEAD), page >> _12, _1)
    return word(block, RAM_BASE) + page + (va & _OFFSET)


@compiled("uint64(uint64, uint64, uint64, uint64)")
def fetch(block: int, va: int, size: int, system: int) -> Word:
    """Reads 1 to 8 bytes; returns the address of the 64-bit value."""
    value = _0
    i = _0
    while i < size:
        place = byte_place(block, va + i, ACCESS_READ, system)
        if place == _0:
            return _0
        value |= load8(place) << (i << _3)
        i += _1
    result = word(block, SCRATCH) + _VALUE
    store64(result, value)
    return result


@compiled("uint64(uint64, uint64, uint64, uint64)")
def deposit(block: int, va: int, size: int, value: int) -> Word:
    """Writes 1 to 8 bytes at the context's level, all or nothing; returns 1."""
    i = _0
    while i < size:
        if byte_place(block, va + i, ACCESS_WRITE, _0) == _0:
            return _0
        i += _1
    i = _0
    while i < size:
        store8(byte_place(block, va + i, ACCESS_WRITE, _0), (value >> (i << _3)) & u64(255))
        i += _1
    return _1
