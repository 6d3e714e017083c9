"""Sets of ways as vectors, compiled: a set is searched and moved on in a few instructions, whatever its length.

The words of a set lie next to each other, the newest first, and 0 is an empty way. A set of up to four ways takes four
words, a longer one whole pieces of sixteen; words behind its ways stay 0. So one comparison looks at all ways of a
piece, and a move to the front is a shift of the lanes up to the way that was found: no branch depends on where it was.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from lamina_mmu.replay.memory.native import I32_TYPE, I64_TYPE, Word, compiled, i64, intrinsic, set_word, void, word

FEW, MANY = 4, 16
"""Ways that one comparison looks at: of a small set, of a piece of a larger one."""
_I1 = ir.IntType(1)


def stride(ways: int) -> int:
    """Returns how many words a set of `ways` takes."""
    return FEW if ways <= FEW else -(-ways // MANY) * MANY


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    """Emits a vector with `value` in each lane."""
    vector = ir.VectorType(I32_TYPE, lanes)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(I32_TYPE, 0))
    zeros = ir.Constant(vector, [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _found(builder: Any, vector: Any, wanted: Any, otherwise: Any, lanes: int) -> Any:
    """Emits the number of the first lane that is `wanted`, or `otherwise`."""
    equal = builder.icmp_unsigned("==", vector, _splat(builder, wanted, lanes))
    bits = builder.zext(builder.bitcast(equal, ir.IntType(lanes)), I32_TYPE)
    limit = builder.shl(ir.Constant(I32_TYPE, 1), otherwise)
    return builder.cttz(builder.or_(bits, limit), ir.Constant(_I1, 1))


def _load(builder: Any, address: Any, lanes: int) -> tuple[Any, Any]:
    """Emits the load of a piece; returns its pointer too."""
    pointer = builder.inttoptr(address, ir.VectorType(I32_TYPE, lanes).as_pointer())
    return pointer, builder.load(pointer, align=4)


def _shift_in(builder: Any, arguments: Any, lanes: int) -> Any:
    """Emits the move of a piece up to the lane that is found (or the last), and the word that left that lane."""
    address, wanted, coming, last = (arguments[0], *(builder.trunc(one, I32_TYPE) for one in arguments[1:]))
    pointer, vector = _load(builder, address, lanes)
    lane = _found(builder, vector, wanted, last, lanes)
    offset = builder.shl(builder.zext(lane, I64_TYPE), ir.Constant(I64_TYPE, 2))
    left = builder.load(builder.inttoptr(builder.add(address, offset), I32_TYPE.as_pointer()))
    order = ir.Constant(ir.VectorType(I32_TYPE, lanes), [lanes, *range(lanes - 1)])
    moved = builder.shuffle_vector(vector, _splat(builder, coming, lanes), order)
    numbers = ir.Constant(ir.VectorType(I32_TYPE, lanes), list(range(lanes)))
    behind = builder.icmp_unsigned("<=", numbers, _splat(builder, lane, lanes))
    builder.store(builder.select(behind, moved, vector), pointer, align=4)
    return builder.sext(left, I64_TYPE)


@intrinsic
def _shift_in_few(typing: Any, address: Any, wanted: Any, coming: Any, last: Any) -> Any:
    """Puts `coming` at the front of a small set, up to `wanted` or way `last`; returns what was there."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _shift_in(builder, arguments, FEW)

    return types.int64(types.int64, types.int64, types.int64, types.int64), emit


@intrinsic
def _shift_in_many(typing: Any, address: Any, wanted: Any, coming: Any, last: Any) -> Any:
    """The same with a piece of a larger set."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _shift_in(builder, arguments, MANY)

    return types.int64(types.int64, types.int64, types.int64, types.int64), emit


@intrinsic
def _find_few(typing: Any, address: Any, wanted: Any) -> Any:
    """Returns the way of `wanted` in a small set, or `FEW`."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, vector = _load(builder, arguments[0], FEW)
        wanted = builder.trunc(arguments[1], I32_TYPE)
        return builder.zext(_found(builder, vector, wanted, ir.Constant(I32_TYPE, FEW), FEW), I64_TYPE)

    return types.int64(types.int64, types.int64), emit


@intrinsic
def _find_many(typing: Any, address: Any, wanted: Any) -> Any:
    """Returns the way of `wanted` in a piece of a larger set, or `MANY`."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, vector = _load(builder, arguments[0], MANY)
        wanted = builder.trunc(arguments[1], I32_TYPE)
        return builder.zext(_found(builder, vector, wanted, ir.Constant(I32_TYPE, MANY), MANY), I64_TYPE)

    return types.int64(types.int64, types.int64), emit


@compiled(i64(i64, i64, i64))
def touch(tags: Word, ways: Word, node: Word) -> Word:
    """Puts a node at the front of the set at an address; returns what was displaced: the node itself when it was in."""
    if ways <= FEW:
        return _shift_in_few(tags, node, node, ways - 1)
    carried = node
    while ways > MANY:
        carried = _shift_in_many(tags, node, carried, MANY - 1)
        if carried == node:
            return carried
        tags += 4 * MANY
        ways -= MANY
    return _shift_in_many(tags, node, carried, ways - 1)


@compiled(i64(i64, i64, i64))
def way_of(tags: Word, ways: Word, node: Word) -> Word:
    """Returns the way of a node in the set at an address; `ways` or more when it is not in it."""
    if ways <= FEW:
        return _find_few(tags, node)
    for piece in range(0, ways, MANY):
        way = _find_many(tags + 4 * piece, node)
        if way < MANY:
            return piece + way
    return ways


@compiled(void(i64, i64, i64))
def drop(tags: Word, ways: Word, node: Word) -> None:
    """Takes a node out of the set at an address, if it is in it; those behind it move up."""
    way = way_of(tags, ways, node)
    if way < ways:
        for behind in range(way, ways - 1):
            set_word(tags, behind, word(tags, behind + 1))
        set_word(tags, ways - 1, 0)
