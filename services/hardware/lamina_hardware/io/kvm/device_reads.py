"""Reads of device memory whose answer comes with the next run: what of a register the answer fills, and how. Pure.

KVM does the instruction itself, with any answer, once: a mark. What the mark left in the register says which move it
was; only when the register held ones above may the code have to be looked at. The holder's answer is merged or
extended when the context runs again, from a word of the run page that all cores have (`instructions/device_access.py`).

Source: Intel SDM vol. 2, MOV, MOVZX, MOVSX, MOVSXD; vol. 1, 3.4.1.1 (32-bit results clear the upper half).
"""

from __future__ import annotations

from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import RunPage

LOAD = (run_page.ENGINE_OFFSET + 0x30) >> 3
"""Word of the run page: a read that waits for its answer; 0: none does.

Bit 0 valid, 1 sign-extended, 2 the second byte of the register · 8–11 register · 16–19 bytes read · 24–27 bytes filled.
"""
_KEPT = LOAD + 1
_VALID, _SIGNED, _HIGH = 1, 2, 4
_WHOLE = (1 << 64) - 1
_PREFIXES = (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x67)


def _word(size: int, filled: int, how: int = 0) -> int:
    return _VALID | how | size << 16 | filled << 24


_MOVES = {
    1: (
        _word(1, 1), _word(1, 8), _word(1, 2), _word(1, 1, _HIGH),
        _word(1, 8, _SIGNED), _word(1, 4, _SIGNED), _word(1, 2, _SIGNED),
    ),
    2: (_word(2, 2), _word(2, 8), _word(2, 8, _SIGNED), _word(2, 4, _SIGNED)),
    4: (_word(4, 8), _word(4, 8, _SIGNED)),
    8: (_word(8, 8),),
}  # fmt: skip
"""The moves that read so many bytes. Those without sign do the same wherever a mark cannot tell them apart."""


def mark(registers: bytes) -> int:
    """Returns a byte with its upper bit set that is in neither of the two low bytes of any general register."""
    used = registers[0::8] + registers[1::8]
    return next(byte for byte in range(0xA5, 0x100) if byte not in used)


def moves(size: int, byte: int, before: int, after: int) -> list[int]:
    """Returns the moves, as words without a register, by which `size` marks made `after` out of `before`."""
    answer = int.from_bytes(bytes([byte]) * size, "little")
    return [word for word in _MOVES.get(size, ()) if filled(word, before, answer) == after]


def is_sure(found: list[int]) -> bool:
    """Whether all of these moves do the same with every answer."""
    return len(found) < 2 or not any(word & _SIGNED for word in found)


def by_code(found: list[int], code: bytes) -> list[int]:
    """Returns which of several moves the instruction is."""
    place, narrow, wide = 0, False, False
    while place < len(code) and (code[place] in _PREFIXES or code[place] == 0x66):
        narrow = narrow or code[place] == 0x66
        place += 1
    if place < len(code) and code[place] & 0xF0 == 0x40:
        wide = bool(code[place] & 8)
        place += 1
    rest = code[place : place + 2]
    operand = 8 if wide else 2 if narrow else 4
    if rest[:1] == b"\x63" or rest in (b"\x0f\xbe", b"\x0f\xbf"):
        return [word for word in found if word & _SIGNED and word >> 24 == operand]
    return [word for word in found if not word & _SIGNED]


def filled(word: int, kept: int, answer: int) -> int:
    """Returns a register that held `kept` after a move got `answer`."""
    size, count = word >> 16 & 15, word >> 24 & 15
    value = answer & (1 << 8 * size) - 1
    if word & _SIGNED and value >> 8 * size - 1:
        value |= _WHOLE << 8 * size
    value &= (1 << 8 * count) - 1
    if word & _HIGH:
        return kept & ~0xFF00 & _WHOLE | value << 8
    return value | kept >> 8 * count << 8 * count if count < 4 else value


def wait(page: RunPage, word: int, register: int, kept: int) -> None:
    """Notes in the run page that a read waits for its answer in `register`, which held `kept`."""
    page.words[LOAD] = word | register << 8
    page.words[_KEPT] = kept


def complete(page: RunPage) -> None:
    """Completes a read with what the holder put into the register; nothing when none waits."""
    word = page.words[LOAD]
    if not word:
        return
    page.words[LOAD] = 0
    register = word >> 8 & 15
    page.gpr[register] = filled(word, page.words[_KEPT], page.gpr[register])
    page.dirty |= run_page.DIRTY_GPRS
