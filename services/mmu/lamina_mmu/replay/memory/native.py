"""Compiled code of a replay: how it is compiled and cached, and how it reaches the memory of a replayed policy.

That memory is one block of 16-byte records (`state.py` says what is in them), known by its address: passing arrays from
function to function costs more than the functions do. These intrinsics turn into single instructions; nothing is
checked here, so whoever makes the block makes it large enough for every node that an access can name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic as _untyped_intrinsic

from lamina_kit.bus import atomics  # chooses numba's cache before a function is compiled

F = TypeVar("F", bound=Callable[..., Any])

Word: TypeAlias = Any
"""A 64-bit number, as compiled code sees it: numba gives it its type, not Python."""

U8 = types.uint8[::1]
I32 = types.int32[::1]
I64 = types.int64[::1]
U32 = types.uint32[::1]
U64 = types.uint64[::1]
ROWS = types.int64[:, ::1]
i64 = types.int64
u64 = types.uint64
void = types.void

NUMBERS_AT = 1152
"""Where the numbers of a block begin, in bytes; the records of its lists lie before them."""
RECORD_SHIFT = 4

I32_TYPE, I64_TYPE, _BYTE, _F64 = ir.IntType(32), ir.IntType(64), ir.IntType(8), ir.DoubleType()
intrinsic: Callable[[Callable[..., Any]], Any] = _untyped_intrinsic
"""Makes a function that emits instructions itself; they stand where it is called."""

AHEAD = 24
"""How many accesses ahead records are fetched into the cache: what comes next is known, and memory is slow."""


def _forget_stale_code() -> None:
    """Deletes compiled functions that are older than a source they may call: numba looks at one file only.

    Where NUMBA_CACHE_DIR is set whoever set it sees to that.
    """
    here = Path(__file__).parents[1]
    if "NUMBA_CACHE_DIR" in os.environ or not os.access(here, os.W_OK):
        return
    sources = [*sorted(here.rglob("*.py")), Path(atomics.__file__)]
    newest = max(source.stat().st_mtime for source in sources)
    for compiled_file in sorted(here.rglob("__pycache__/*.nb[ic]")):
        if compiled_file.stat().st_mtime < newest:
            compiled_file.unlink(missing_ok=True)


_forget_stale_code()


def compiled(signature: Any) -> Callable[[F], F]:
    """Compiles a function for one signature; the result is cached on disk."""
    return cast(Callable[[F], F], njit(signature, cache=True))


def _field(builder: Any, arguments: Any) -> Any:
    """Emits the address of a field of a node's record."""
    record = builder.add(arguments[0], builder.shl(arguments[1], ir.Constant(I64_TYPE, RECORD_SHIFT)))
    address = builder.add(record, builder.shl(arguments[2], ir.Constant(I64_TYPE, 2)))
    return builder.inttoptr(address, I32_TYPE.as_pointer())


def _number(builder: Any, arguments: Any, kind: Any) -> Any:
    """Emits the address of a number of a block."""
    offset = builder.add(builder.shl(arguments[1], ir.Constant(I64_TYPE, 3)), ir.Constant(I64_TYPE, NUMBERS_AT))
    return builder.inttoptr(builder.add(arguments[0], offset), kind.as_pointer())


def _word(builder: Any, arguments: Any) -> Any:
    """Emits the address of a 32-bit word of an array."""
    offset = builder.shl(arguments[1], ir.Constant(I64_TYPE, 2))
    return builder.inttoptr(builder.add(arguments[0], offset), I32_TYPE.as_pointer())


@intrinsic
def get(typing: Any, block: Any, node: Any, field: Any) -> Any:
    """Returns a field of a node's record."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sext(builder.load(_field(builder, arguments)), I64_TYPE)

    return types.int64(types.int64, types.int64, types.int64), emit


@intrinsic
def put(typing: Any, block: Any, node: Any, field: Any, value: Any) -> Any:
    """Stores the low 32 bits of `value` in a field of a node's record."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(builder.trunc(arguments[3], I32_TYPE), _field(builder, arguments))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), emit


@intrinsic
def num(typing: Any, block: Any, index: Any) -> Any:
    """Returns a number of a block."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_number(builder, arguments, I64_TYPE))

    return types.int64(types.int64, types.int64), emit


@intrinsic
def set_num(typing: Any, block: Any, index: Any, value: Any) -> Any:
    """Stores a number of a block."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _number(builder, arguments, I64_TYPE))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def real(typing: Any, block: Any, index: Any) -> Any:
    """Returns a number of a block that is a real one."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_number(builder, arguments, _F64))

    return types.float64(types.int64, types.int64), emit


@intrinsic
def set_real(typing: Any, block: Any, index: Any, value: Any) -> Any:
    """Stores a number of a block that is a real one."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _number(builder, arguments, _F64))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float64), emit


@intrinsic
def word(typing: Any, array: Any, index: Any) -> Any:
    """Returns a 32-bit word of the array at an address."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sext(builder.load(_word(builder, arguments)), I64_TYPE)

    return types.int64(types.int64, types.int64), emit


@intrinsic
def set_word(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Stores the low 32 bits of `value` in the array at an address."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(builder.trunc(arguments[2], I32_TYPE), _word(builder, arguments))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


def _long(builder: Any, arguments: Any) -> Any:
    """Emits the address of a 64-bit word of an array."""
    offset = builder.shl(arguments[1], ir.Constant(I64_TYPE, 3))
    return builder.inttoptr(builder.add(arguments[0], offset), I64_TYPE.as_pointer())


@intrinsic
def bits(typing: Any, array: Any, index: Any) -> Any:
    """Returns a 64-bit word of the array at an address."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_long(builder, arguments))

    return types.uint64(types.int64, types.int64), emit


@intrinsic
def set_bits(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Stores a 64-bit word in the array at an address."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _long(builder, arguments))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.uint64), emit


@intrinsic
def lowest(typing: Any, value: Any) -> Any:
    """Returns the number of the lowest bit of a word that is 1; the word is not 0."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), emit


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Asks for the cache line at an address, to be written; any address will do."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _BYTE.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), I32_TYPE, I32_TYPE, I32_TYPE])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [_BYTE.as_pointer()], kind)
        builder.call(fetch, [pointer, *(ir.Constant(I32_TYPE, value) for value in (1, 3, 1))])
        return context.get_dummy_value()

    return types.void(types.int64), emit


@intrinsic
def ones(typing: Any, value: Any) -> Any:
    """Returns how many bits of a 64-bit word are 1."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), emit


@compiled(void(i64, i64, i64))
def add_num(block: Word, index: Word, change: Word) -> None:
    """Adds to a number of a block."""
    set_num(block, index, num(block, index) + change)


@compiled(void(i64, i64))
def fetch(block: Word, node: Word) -> None:
    """Asks for a node's record, which will be wanted soon."""
    prefetch(block + (node << RECORD_SHIFT))


@compiled(i64(i64))
def low32(value: Word) -> Word:
    """Returns the low 32 bits of a number as a record keeps them: signed."""
    return np.int64(np.int32(value))
