"""Marked places of a ring, compiled: bits, bits that say which words of them are not 0, and such bits of those.

    words 0 … size/64 - 1    one bit a place
    then size/4096 words     one bit for each of those words: it may have bits
    then size/262144 words   one bit for each of these

So marks that are few and far between come out in the order of their places, with no sort: what is read is words that
have some, and a word a quarter of a million places.
"""

from __future__ import annotations

import numpy as np

from lamina_mmu.replay.memory.native import Word, bits, compiled, i64, lowest, set_bits, set_word, u64, void, word
from lamina_mmu.replay.memory.state import Array

_ONE = np.uint64(1)
_NONE = np.uint64(0)


def words_of(size: int) -> Array:
    """Returns marks for a ring of `size` places, a power of two of at least 64: none is set."""
    return np.zeros((size >> 6) + max(1, size >> 12) + max(1, size >> 18), np.uint64)


@compiled(void(i64, i64, i64, u64))
def mark(marks: Word, size: Word, place: Word, bit: Word) -> None:
    """Marks a place if `bit` is 1; with 0 it stays as it was."""
    above = size >> 6
    top = above + max(1, size >> 12)
    at = place >> 6
    set_bits(marks, at, bits(marks, at) | (bit << np.uint64(place & 63)))
    set_bits(marks, above + (at >> 6), bits(marks, above + (at >> 6)) | (_ONE << np.uint64(at & 63)))
    at >>= 6
    set_bits(marks, top + (at >> 6), bits(marks, top + (at >> 6)) | (_ONE << np.uint64(at & 63)))


@compiled(void(i64, i64))
def unmark(marks: Word, place: Word) -> None:
    """Takes the mark of a place away, if there is one."""
    set_bits(marks, place >> 6, bits(marks, place >> 6) & ~(_ONE << np.uint64(place & 63)))


@compiled(i64(i64, i64, i64, i64, i64))
def take(marks: Word, size: Word, ring: Word, first: Word, out: Word) -> Word:
    """Writes what stands in marked places of a ring to the words at `out`, by place, and takes all marks away.

    Returns how many there are, · 2^32, + how many of them stand before place `first`.
    """
    above = size >> 6
    top = above + max(1, size >> 12)
    found = before = 0
    for high in range(max(1, size >> 18)):
        tops = bits(marks, top + high)
        set_bits(marks, top + high, _NONE)
        while tops:
            middle = (high << 6) + lowest(tops)
            tops &= tops - _ONE
            words = bits(marks, above + middle)
            set_bits(marks, above + middle, _NONE)
            while words:
                at = (middle << 6) + lowest(words)
                words &= words - _ONE
                places = bits(marks, at)
                set_bits(marks, at, _NONE)
                while places:
                    place = (at << 6) + lowest(places)
                    places &= places - _ONE
                    set_word(out, found, word(ring, place))
                    found += 1
                    before += place < first
    return found << 32 | before
