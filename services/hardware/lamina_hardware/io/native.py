"""Plain loads, stores and native calls for compiled code.

A core's compiled functions work on addresses: the control block, RAM, the emulator's registers. These intrinsics turn
into single machine instructions; nothing is checked here, so whoever computes an address has checked its bounds.
Atomic forms live in `lamina_kit.bus.atomics`.

Functions of the emulator are called through addresses that stand in the control block, not through names, so compiled
code can be cached on disk and loaded where the library lies elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

from llvmlite import ir
from numba import cfunc, njit, types
from numba.extending import intrinsic as _untyped_intrinsic

from lamina_hardware.io.machine_word import u64 as u64
from lamina_kit.bus import atomics  # chooses numba's cache before numba is imported

F = TypeVar("F", bound=Callable[..., Any])

Word: TypeAlias = Any
"""A 64-bit machine word, as compiled code sees it: numba gives it its type, not Python."""

intrinsic: Callable[[Callable[..., Any]], Any] = _untyped_intrinsic
_I8, _I16, _I32, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def _forget_stale_code() -> None:
    """Deletes compiled functions that are older than a source they may call: numba looks at one file only.

    Where NUMBA_CACHE_DIR is set whoever set it sees to that.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    here = Path(__file__).parent
    emulator = [*here.glob("*.py"), *here.glob("emulator/**/*.py"), *Path(atomics.__file__).parent.glob("*.py")]
    newest = max(source.stat().st_mtime for source in emulator)
    for cache in here.glob("**/__pycache__"):
        if not os.access(cache, os.W_OK):
            continue
        newest_here = max([newest, *(source.stat().st_mtime for source in cache.parent.glob("*.py"))])
        for compiled_file in cache.glob("*.nb[ic]"):
            if compiled_file.stat().st_mtime < newest_here:
                compiled_file.unlink(missing_ok=True)


_forget_stale_code()

cas32 = atomics.cas32
cas64 = atomics.cas64
or32 = atomics.or32
mark_written = atomics.mark_written


def compiled(signature: str) -> Callable[[F], F]:
    """Compiles a function for calls from compiled code and from Python; the result is cached on disk."""
    return cast(Callable[[F], F], njit(signature, cache=True, inline="never"))


def inlined(signature: str) -> Callable[[F], F]:
    """Compiles a small function that the optimizer may copy into its callers."""
    return cast(Callable[[F], F], njit(signature, cache=True))


def _load(width: Any) -> Any:
    @intrinsic
    def load(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = builder.load(builder.inttoptr(arguments[0], width.as_pointer()), align=1)
            return value if width is _I64 else builder.zext(value, _I64)

        return types.uint64(types.uint64), emit

    return load


def _store(width: Any) -> Any:
    @intrinsic
    def store(typing: Any, address: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            narrow = arguments[1] if width is _I64 else builder.trunc(arguments[1], width)
            builder.store(narrow, builder.inttoptr(arguments[0], width.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64), emit

    return store


load8, load16, load32, load64 = _load(_I8), _load(_I16), _load(_I32), _load(_I64)
store8, store16, store32, store64 = _store(_I8), _store(_I16), _store(_I32), _store(_I64)


@intrinsic
def word(typing: Any, block: Any, index: Any) -> Any:
    """Returns word `index` of the control block at `block`."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.add(arguments[0], builder.shl(arguments[1], ir.Constant(_I64, 3)))
        return builder.load(builder.inttoptr(address, _I64.as_pointer()))

    return types.uint64(types.uint64, types.uint64), emit


@intrinsic
def put(typing: Any, block: Any, index: Any, value: Any) -> Any:
    """Stores word `index` of the control block at `block`."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.add(arguments[0], builder.shl(arguments[1], ir.Constant(_I64, 3)))
        builder.store(arguments[2], builder.inttoptr(address, _I64.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.uint64), emit


def _native(count: int) -> Any:
    """Returns the type of a C function of `count` 64-bit arguments and a 64-bit result."""
    return ir.FunctionType(_I64, [_I64] * count)


def _typed(count: int, emit: Any) -> Any:
    return types.uint64(*([types.uint64] * count)), emit


def _call_address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Emits a call of the function at the address in the first argument, with the others."""
    pointer = builder.inttoptr(arguments[0], _native(len(arguments) - 1).as_pointer())
    return builder.call(pointer, list(arguments[1:]))


@intrinsic
def call1(typing: Any, function: Any, a: Any) -> Any:
    """Calls the C function at an address."""
    return _typed(2, _call_address)


@intrinsic
def call2(typing: Any, function: Any, a: Any, b: Any) -> Any:
    """Calls the C function at an address."""
    return _typed(3, _call_address)


@intrinsic
def call3(typing: Any, function: Any, a: Any, b: Any, c: Any) -> Any:
    """Calls the C function at an address."""
    return _typed(4, _call_address)


@intrinsic
def call4(typing: Any, function: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Calls the C function at an address."""
    return _typed(5, _call_address)


@intrinsic
def call5(typing: Any, function: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """Calls the C function at an address."""
    return _typed(6, _call_address)


LINKS: dict[int, int] = {}
"""Addresses of linked functions, by the word of the control block that holds each."""

_kept: list[Any] = []


def linked(slot: Word) -> Callable[[F], F]:
    """Compiles a function on its own; compiled callers reach it through word `slot` of their control block.

    Functions that call each other directly are optimized together, again and again for each caller: linked ones are
    compiled once, which halves the time to compile this package. The first argument is the control block; all
    arguments and the result are 64-bit words.
    """

    def wrap(function: F) -> F:
        count = function.__code__.co_argcount
        made = cfunc(f"uint64({', '.join(['uint64'] * count)})", cache=True)(function)
        _kept.append(made)
        LINKS[int(slot)] = int(made.address or 0)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = builder.add(arguments[0], ir.Constant(_I64, int(slot) * 8))
            address = builder.load(builder.inttoptr(place, _I64.as_pointer()))
            return builder.call(builder.inttoptr(address, _native(count).as_pointer()), list(arguments))

        return cast(F, _stub(count, emit))

    return wrap


def _stub(count: int, emit: Any) -> Any:
    """Returns what compiled code calls in place of a linked function of `count` arguments."""
    if count == 1:
        return intrinsic(lambda typing, a: _typed(1, emit))
    if count == 2:
        return intrinsic(lambda typing, a, b: _typed(2, emit))
    if count == 3:
        return intrinsic(lambda typing, a, b, c: _typed(3, emit))
    if count == 4:
        return intrinsic(lambda typing, a, b, c, d: _typed(4, emit))
    if count == 5:
        return intrinsic(lambda typing, a, b, c, d, e: _typed(5, emit))
    return intrinsic(lambda typing, a, b, c, d, e, f, g, h: _typed(8, emit))
