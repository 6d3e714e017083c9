"""Single instructions for the compiled plane: loads, stores and copies at addresses, and how functions are compiled.

Tables, rings and frames are known by their addresses: arrays as arguments cost more than the functions do. These
intrinsics check nothing; whoever computes an address has checked its bounds. Everything is a signed 64-bit number, as
numba makes a float of a signed and an unsigned one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic as _untyped_intrinsic

from lamina_kit.bus import atomics  # chooses numba's cache before a function is compiled

F = TypeVar("F", bound=Callable[..., Any])

Word: TypeAlias = Any
"""A 64-bit number, as compiled code sees it: numba gives it its type, not Python."""

i64 = types.int64
void = types.void
_BYTE, _I16, _I32, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_intrinsic: Callable[[Callable[..., Any]], Any] = _untyped_intrinsic


def _forget_stale_code() -> None:
    """Deletes compiled functions that are older than a source they may call: numba looks at one file only.

    Where NUMBA_CACHE_DIR is set whoever set it sees to that.
    """
    here = Path(__file__).parent
    cache = here / "__pycache__"
    if "NUMBA_CACHE_DIR" in os.environ or not os.access(cache, os.W_OK):
        return
    newest = max(source.stat().st_mtime for source in (*sorted(here.glob("*.py")), Path(atomics.__file__)))
    for compiled_file in sorted(cache.glob("*.nb[ic]")):
        if compiled_file.stat().st_mtime < newest:
            compiled_file.unlink(missing_ok=True)


_forget_stale_code()


def compiled(signature: Any) -> Callable[[F], F]:
    """Compiles a function for one signature; the result is cached on disk."""
    return cast(Callable[[F], F], njit(signature, cache=True))


def inlined(signature: Any) -> Callable[[F], F]:
    """Compiles a function whose text is copied into those that call it: a call costs as much as what it does."""
    return cast(Callable[[F], F], njit(signature, cache=True, inline="always"))


def _loader(width: Any) -> Any:
    @_intrinsic
    def load(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = builder.load(builder.inttoptr(arguments[0], width.as_pointer()), align=1)
            return value if width is _I64 else builder.zext(value, _I64)

        return types.int64(types.int64), emit

    return load


def _storer(width: Any) -> Any:
    @_intrinsic
    def store(typing: Any, address: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kept = arguments[1] if width is _I64 else builder.trunc(arguments[1], width)
            builder.store(kept, builder.inttoptr(arguments[0], width.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    return store


def _copier(words: int) -> Any:
    @_intrinsic
    def copy(typing: Any, target: Any, source: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = ir.VectorType(_I64, words).as_pointer()
            piece = builder.load(builder.inttoptr(arguments[1], pointer), align=1)
            builder.store(piece, builder.inttoptr(arguments[0], pointer), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    return copy


load8, load16, load32, load64 = _loader(_BYTE), _loader(_I16), _loader(_I32), _loader(_I64)
"""Return the little-endian number of 1, 2, 4 or 8 bytes at an address; those below 8 bytes are never negative."""
store8, store16, store32, store64 = _storer(_BYTE), _storer(_I16), _storer(_I32), _storer(_I64)
"""Store the low 1, 2, 4 or 8 bytes of a number at an address."""
copy16, copy32, copy64 = _copier(2), _copier(4), _copier(8)
"""Copy 16, 32 or 64 bytes from the second address to the first; neither has to be aligned."""


@compiled(i64(i64))
def load_big16(address: Word) -> Word:
    """Returns two bytes in the order of the network."""
    return load8(address) << 8 | load8(address + 1)


@_intrinsic
def store_line(typing: Any, address: Any, value: Any) -> Any:
    """Stores a number, and 56 bytes of zeros behind it, at an address."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line = ir.VectorType(_I64, 8)
        kept = builder.insert_element(ir.Constant(line, [0] * 8), arguments[1], ir.Constant(_I32, 0))
        builder.store(kept, builder.inttoptr(arguments[0], line.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@_intrinsic
def alike4(typing: Any, line: Any, number: Any, mask: Any) -> Any:
    """Returns which of four records of 16 bytes begin with a number, its bits in `mask` only: bit 2 n for record n.

    Nothing branches.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, lanes = ir.VectorType(_I64, 8), ir.Constant(ir.VectorType(_I32, 8), [0] * 8)

        def spread(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
            return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)

        words = builder.load(builder.inttoptr(arguments[0], vector.as_pointer()), align=8)
        same = builder.icmp_unsigned("==", builder.and_(words, spread(arguments[2])), spread(arguments[1]))
        found = builder.zext(builder.bitcast(same, _BYTE), _I64)
        return builder.and_(found, ir.Constant(_I64, 0b01010101))

    return types.int64(types.int64, types.int64, types.int64), emit


@_intrinsic
def lowest(typing: Any, number: Any) -> Any:
    """Returns the number of the lowest bit that is set; 64 when none is."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), emit


def _fetcher(write: bool) -> Any:
    @_intrinsic
    def fetch(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], _BYTE.as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _I32, _I32, _I32])
            fetch = builder.module.declare_intrinsic("llvm.prefetch", [_BYTE.as_pointer()], kind)
            builder.call(fetch, [pointer, *(ir.Constant(_I32, value) for value in (int(write), 3, 1))])
            return context.get_dummy_value()

        return types.void(types.int64), emit

    return fetch


prefetch, prefetch_to_write = _fetcher(False), _fetcher(True)
"""Ask for the cache line at an address, to be read or to be written; any address will do."""


@_intrinsic
def acquire32(typing: Any, address: Any) -> Any:
    """Returns the 4 bytes at an address (a multiple of 4); what is loaded later is at least as new."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _I32.as_pointer())
        return builder.zext(builder.load_atomic(pointer, "acquire", 4), _I64)

    return types.int64(types.int64), emit


@_intrinsic
def release32(typing: Any, address: Any, value: Any) -> Any:
    """Stores the low 4 bytes of a number at an address (a multiple of 4), behind everything stored before."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _I32.as_pointer())
        builder.store_atomic(builder.trunc(arguments[1], _I32), pointer, "release", 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit
