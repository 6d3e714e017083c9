"""Atomic operations on shared memory, for compiled code and for Python.

The *intrinsics* (`load32`, `load64`, `store64`, `or32`, `and32`, `cas32`, `cas64`, `add64`, `fence`) are called from
other numba functions, such as a core's page walker; each becomes one instruction. The *entry points* below them are
compiled once, cached on disk and called by `bus/memory.py`. Addresses are absolute in this process; nothing is checked
here: whoever calls has checked the bounds. All are sequentially consistent and hold across processes.

This module imports numba (0.3 s), so a memory bus imports it when `machine_code.py` does not do. numba's cache does not
notice a change in a callee of another file: who calls an intrinsic from its own cached function clears that cache when
this file changes. Measured on the modelled core: a plain store of an accessed bit that races an unmap brings 0.1 % of
the cleared entries back; a compare-and-swap brings none. That is why table entries are never stored plainly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamina_kit import numba_cache

numba_cache.choose()

import numpy as np  # noqa: E402 (numba reads NUMBA_CACHE_DIR when it is imported)
from llvmlite import ir  # noqa: E402
from numba import njit, types  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

_U32 = ir.IntType(32)
_U64 = ir.IntType(64)

# Bits of a frame's state word; the same as in bus/memory.py, which does not import this module until it needs one.
EXEC = np.uint32(1)
DIRTY = np.uint32(4)
QUEUED = np.uint32(8)
PIN_ONE = np.uint32(1 << 8)
PIN_MASK = np.uint32(0xFFFF << 8)

# Offsets in the header page of a memory bus, and the number of slots of its ring; the same as in memory.py.
HEAD = np.uint64(128)
TAIL = np.uint64(192)
ALL = np.uint64(256)
RING = np.uint64(4096)
SLOTS = np.uint64(4096)

_PAGE_WORDS = 4
_SPINS = 1000


def numbers(count: int) -> Any:
    """Returns room for `count` frame numbers, as the entry points below fill it."""
    return np.zeros(count, dtype=np.int64)


def pinned_frames(states: memoryview, first: int, count: int) -> list[int]:
    """Returns which of `count` frames from `first` have pins, by a bus's state words. A look without any order."""
    words = np.frombuffer(states, np.uint32)[first : first + count]
    found: list[int] = (np.flatnonzero(words & PIN_MASK) + first).tolist()
    return found


def _intrinsic(emitter: Callable[..., Any]) -> Any:
    """Makes an intrinsic. To the type checker it is anything: its Python form is never called."""
    return intrinsic(emitter)


def _compiled(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """Compiles for one signature, or loads what was compiled before."""
    compile_one: Callable[[Callable[..., Any]], Any] = njit(signature, cache=True)
    return compile_one


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


@_intrinsic
def load32(typing: Any, address: Any) -> Any:
    """Returns the 4 bytes at `address` (a multiple of 4)."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_pointer(builder, arguments[0], _U32), "seq_cst", 4)

    return types.uint32(types.uint64), emit


@_intrinsic
def load64(typing: Any, address: Any) -> Any:
    """Returns the 8 bytes at `address` (a multiple of 8)."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_pointer(builder, arguments[0], _U64), "seq_cst", 8)

    return types.uint64(types.uint64), emit


@_intrinsic
def store64(typing: Any, address: Any, value: Any) -> Any:
    """Stores 8 bytes at `address` (a multiple of 8)."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], _pointer(builder, arguments[0], _U64), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), emit


@_intrinsic
def or32(typing: Any, address: Any, bits: Any) -> Any:
    """Sets bits in the 4 bytes at `address`; returns what was there before."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("or", _pointer(builder, arguments[0], _U32), arguments[1], "seq_cst")

    return types.uint32(types.uint64, types.uint32), emit


@_intrinsic
def and32(typing: Any, address: Any, bits: Any) -> Any:
    """Keeps only `bits` of the 4 bytes at `address`; returns what was there before."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("and", _pointer(builder, arguments[0], _U32), arguments[1], "seq_cst")

    return types.uint32(types.uint64, types.uint32), emit


@_intrinsic
def cas32(typing: Any, address: Any, expected: Any, new: Any) -> Any:
    """Stores `new` when `expected` is there; returns what was there before."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(builder, arguments[0], _U32)
        pair = builder.cmpxchg(pointer, arguments[1], arguments[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 0)

    return types.uint32(types.uint64, types.uint32, types.uint32), emit


@_intrinsic
def cas64(typing: Any, address: Any, expected: Any, new: Any) -> Any:
    """Stores `new` when `expected` is there; returns what was there before."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(builder, arguments[0], _U64)
        pair = builder.cmpxchg(pointer, arguments[1], arguments[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 0)

    return types.uint64(types.uint64, types.uint64, types.uint64), emit


@_intrinsic
def add64(typing: Any, address: Any, value: Any) -> Any:
    """Adds to the 8 bytes at `address`; returns what was there before."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, arguments[0], _U64), arguments[1], "seq_cst")

    return types.uint64(types.uint64, types.uint64), emit


@_intrinsic
def fence(typing: Any) -> Any:
    """Makes every store before it visible before any load behind it."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit


@_compiled("void(uint64, uint64)")
def push_code_write(head: int, frame: int) -> None:
    """Appends `frame` to the ring of a bus whose header is at `head`; sets the all flag when the ring is full.

    The caller has set QUEUED. On overflow QUEUED is cleared before the all flag is set: a writer that saw QUEUED and
    so did not append has written before that moment, hence before whoever consumes the flag drops all code.
    """
    while True:
        position = load64(head + HEAD)
        if position - load64(head + TAIL) >= SLOTS:
            state = head + load64(head + np.uint64(40)) + np.uint64(frame) * np.uint64(4)
            and32(state, ~QUEUED)
            store64(head + ALL, np.uint64(1))
            return
        if cas64(head + HEAD, position, position + np.uint64(1)) == position:
            store64(head + RING + (position % SLOTS) * np.uint64(8), np.uint64(frame) + np.uint64(1))
            return


@_compiled("void(uint64, uint64, uint64)")
def mark_written(head: int, first: int, count: int) -> None:
    """Sets DIRTY on `count` frames from `first`; queues those that were executed and are not queued yet."""
    fence()  # the bytes come first: a core that sets EXEC after this load fetches the new ones
    states = head + load64(head + np.uint64(40))
    for frame in range(np.uint64(first), np.uint64(first) + np.uint64(count)):
        address = states + np.uint64(frame) * np.uint64(4)
        word = load32(address)
        if word & (DIRTY | EXEC) == DIRTY:
            continue
        before = or32(address, DIRTY | QUEUED if word & EXEC else DIRTY)
        if word & EXEC:
            if before & QUEUED == np.uint32(0):
                push_code_write(head, np.uint64(frame))
        elif before & EXEC and or32(address, QUEUED) & QUEUED == np.uint32(0):
            push_code_write(head, np.uint64(frame))


@_compiled("int64(uint64, int64[::1])")
def drain_code_writes(head: int, out: Any) -> int:
    """Takes queued frames off the ring into `out`; returns how many, or -1 when all code is to be dropped.

    QUEUED is cleared before a frame is handed out, so a write after this moment queues it again. A slot that its
    writer has claimed but not filled yet is waited for briefly; then the rest stays for the next call.
    """
    taken = 0
    every = load64(head + ALL) != np.uint64(0)
    if every:
        store64(head + ALL, np.uint64(0))
    states = head + load64(head + np.uint64(40))
    tail = load64(head + TAIL)
    while taken < out.size and tail != load64(head + HEAD):
        slot = head + RING + (tail % SLOTS) * np.uint64(8)
        value = load64(slot)
        spins = 0
        while value == np.uint64(0) and spins < _SPINS:
            value = load64(slot)
            spins += 1
        if value == np.uint64(0):
            break
        store64(slot, np.uint64(0))
        tail += np.uint64(1)
        store64(head + TAIL, tail)
        and32(states + (value - np.uint64(1)) * np.uint64(4), ~QUEUED)
        out[taken] = np.int64(value - np.uint64(1))
        taken += 1
    return -1 if every else taken


@_compiled("int64(uint64, uint64, uint64, int64[::1])")
def collect_dirty(head: int, first: int, count: int, out: Any) -> int:
    """Clears DIRTY on `count` frames from `first`; writes those that had it to `out`; returns how many."""
    found = 0
    states = head + load64(head + np.uint64(40))
    for frame in range(np.uint64(first), np.uint64(first) + np.uint64(count)):
        address = states + np.uint64(frame) * np.uint64(4)
        if load32(address) & DIRTY and and32(address, ~DIRTY) & DIRTY:
            out[found] = np.int64(frame)
            found += 1
    return found


@_compiled("void(uint64, uint64[::1])")
def _take64(address: int, out: Any) -> None:
    for index in range(out.size):
        place = address + np.uint64(index) * np.uint64(8)
        word = load64(place)
        while cas64(place, word, np.uint64(0)) != word:
            word = load64(place)
        out[index] = word


def take64(address: int, count: int) -> Any:
    """Replaces `count` words from `address` (a multiple of 8) with zeros; returns what each exchange found."""
    out = np.zeros(count, dtype=np.uint64)
    _take64(address, out)
    return out


@_compiled("int64(uint64, boolean)")
def change_pins(state: int, more: bool) -> Any:
    """Adds or takes one pin in the state word at `state`; returns the new count, or -1 when it would leave 0…65535."""
    while True:
        word = load32(state)
        pins = word & PIN_MASK
        if pins == (PIN_MASK if more else np.uint32(0)):
            return -1
        changed = np.uint32(word + PIN_ONE) if more else np.uint32(word - PIN_ONE)
        if cas32(state, word, changed) == word:
            return np.int64((changed & PIN_MASK) >> np.uint32(8))


@_compiled("uint32(uint64, uint32, uint32)")
def change_state(state: int, keep: int, put: int) -> Any:
    """Keeps the bits `keep` of the state word at `state`, sets `put`; returns what was there before."""
    while True:
        word = load32(state)
        changed = (word & np.uint32(keep)) | np.uint32(put)
        if cas32(state, word, changed) == word:
            return word


@_compiled("uint64(uint64, uint64, uint64)")
def swap64(address: int, expected: int, new: int) -> Any:
    """Stores `new` when `expected` is at `address` (a multiple of 8); returns what was there before."""
    return cas64(address, expected, new)
