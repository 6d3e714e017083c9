"""Single registers through the emulator's public interface; compiled."""

from __future__ import annotations

from lamina_hardware.io.emulator.state.control_block import ENGINE, F_REG_READ, F_REG_WRITE, SCRATCH
from lamina_hardware.io.native import Word, call3, compiled, load64, store64, u64, word

_0 = u64(0)


@compiled("uint64(uint64, uint64)")
def read_register(block: int, number: int) -> Word:
    """Returns a register through the public API."""
    scratch = word(block, SCRATCH)
    store64(scratch, _0)
    call3(word(block, F_REG_READ), word(block, ENGINE), number, scratch)
    return load64(scratch)


@compiled("uint64(uint64, uint64, uint64)")
def write_register(block: int, number: int, value: int) -> Word:
    """Writes a register through the public API, with the side effects that the emulator attaches to it."""
    scratch = word(block, SCRATCH)
    store64(scratch, value)
    return call3(word(block, F_REG_WRITE), word(block, ENGINE), number, scratch)
