"""What KVM does not say of an instruction, by its opcode. Pure.

KVM on hardware says where an access was refused, not whether it was a read: an entry that allows nothing refuses both,
and the record has to say one. And it does not say whether an item of output was the last of a string.

Source: Intel SDM vol. 2, appendix A.
"""

from __future__ import annotations

_PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
_PLAIN = frozenset(
    (0x88, 0x89, 0x8C, 0xC6, 0xC7, 0xA2, 0xA3, 0xAA, 0xAB, 0x68, 0x6A, 0xE8, 0x9C, 0xC8, *range(0x50, 0x58))
)
_TWO = frozenset((0x11, 0x13, 0x17, 0x29, 0x2B, 0x7E, 0x7F, 0xC3, 0xD6, 0xE7, *range(0x90, 0xA0)))


def stores_first(code: bytes) -> bool:
    """Returns whether the instruction's first access to memory is a store; False for one that is not known."""
    place = 0
    while place < len(code) and (code[place] in _PREFIXES or 0x40 <= code[place] <= 0x4F):
        place += 1
    if place >= len(code):
        return False
    if code[place] == 0x0F:
        return place + 1 < len(code) and code[place + 1] in _TWO
    return code[place] in _PLAIN


def length_of_outs(code: bytes) -> int:
    """Returns the bytes of a REP OUTS; 0 for another instruction."""
    place, repeats = 0, False
    while place < len(code) and (code[place] in _PREFIXES or 0x48 <= code[place] <= 0x4F):
        repeats = repeats or code[place] in (0xF2, 0xF3)
        place += 1
    return place + 1 if repeats and code[place : place + 1] in (b"\x6e", b"\x6f") else 0
