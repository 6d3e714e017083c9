"""The callback that runs at every block, written in LLVM's own language.

It is the hottest code there is: one call for each few instructions of a guest. numba would wrap it into a second call
with bookkeeping that costs more than the work, so this one function is put together by hand. It does only what is
common; everything else is `walker.on_block`, which it leaves to:

    found = jump_cache[hash(pc)]                       the block that the emulator has just looked up
    if found and found.pc == pc and found.size == size and found was not cut short
       and CONSUMED + found.count ≤ LIMIT:
        CONSUMED += found.count; note the block
    else: on_block(engine, pc, size, block)
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    BLOCK_COUNT,
    BLOCK_PC,
    BLOCK_SIZE,
    CONSUMED,
    JUMP_CACHE,
    LIMIT,
)

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_HASH_SHIFT, _HASH_PAGE, _HASH_ADDRESS = 6, 4096 - 64, 63
_COUNT_SHIFT = (int(at.TB_COUNT) - int(at.TB_SIZE)) * 8
_CFLAGS_SHIFT = (int(at.TB_CFLAGS) - int(at.TB_SIZE)) * 8
_SAME = int(at.TB_COUNT_LIMIT) << _CFLAGS_SHIFT | 0xFFFF
"""Bits of the eight bytes at TB_SIZE that must equal the size alone: the size, and no limit on the count."""

_kept: list[Any] = []


def build(slow: int) -> int:
    """Returns the address of a block callback that leaves what is not common to the one at address `slow`."""
    module = ir.Module(name="lamina_block_hook")
    module.triple = binding.get_process_triple()
    kind = ir.FunctionType(ir.VoidType(), [_I64, _I64, _I32, _I64])
    function = ir.Function(module, kind, name="lamina_block_hook")
    _emit(function, slow, kind)
    machine = binding.Target.from_triple(module.triple).create_target_machine(opt=2)
    parsed = binding.parse_assembly(str(module))
    engine = binding.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    _kept.append(engine)
    return int(engine.get_function_address("lamina_block_hook"))


def _emit(function: Any, slow: int, kind: Any) -> None:
    """Writes the body."""
    entry, look, same, fits, rest = (
        function.append_basic_block(name) for name in ("entry", "look", "same", "fits", "rest")
    )
    engine, pc, size, block = function.args
    build = ir.IRBuilder(entry)

    def number(value: int) -> Any:
        return ir.Constant(_I64, value)

    def load(address: Any) -> Any:
        return build.load(build.inttoptr(address, _I64.as_pointer()), align=1)

    def place(index: Any) -> Any:
        return build.add(block, number(int(index) * 8))

    def put(index: Any, value: Any) -> None:
        build.store(value, build.inttoptr(place(index), _I64.as_pointer()))

    mixed = build.xor(pc, build.lshr(pc, number(_HASH_SHIFT)))
    slot = build.or_(
        build.and_(build.lshr(mixed, number(_HASH_SHIFT)), number(_HASH_PAGE)), build.and_(mixed, number(_HASH_ADDRESS))
    )
    found = load(build.add(load(place(JUMP_CACHE)), build.shl(slot, number(3))))
    build.cbranch(build.icmp_unsigned("!=", found, number(0)), look, rest)

    build.position_at_end(look)
    facts = load(build.add(found, number(int(at.TB_SIZE))))
    wide = build.zext(size, _I64)
    right_size = build.icmp_unsigned("==", build.and_(facts, number(_SAME)), wide)
    right_pc = build.icmp_unsigned("==", load(build.add(found, number(int(at.TB_PC)))), pc)
    build.cbranch(build.and_(right_size, right_pc), same, rest)

    build.position_at_end(same)
    count = build.and_(build.lshr(facts, number(_COUNT_SHIFT)), number(0xFFFF))
    consumed = build.add(load(place(CONSUMED)), count)
    build.cbranch(build.icmp_unsigned("<=", consumed, load(place(LIMIT))), fits, rest)

    build.position_at_end(fits)
    put(CONSUMED, consumed)
    put(BLOCK_PC, pc)
    put(BLOCK_SIZE, wide)
    put(BLOCK_COUNT, count)
    build.ret_void()

    build.position_at_end(rest)
    build.call(build.inttoptr(number(slow), kind.as_pointer()), [engine, pc, size, block])
    build.ret_void()
