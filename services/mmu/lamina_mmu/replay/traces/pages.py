"""The pages of a trace: each gets a small number at its first touch, compiled.

Page numbers are anything below 2^64. The first 64 *regions* of 2^20 pages that are touched have a table each, 4 MiB of
zeros that the system gives only where they are written. Pages beyond share *chunks*: sixteen neighbours, found through
an open-addressed hash of chunk numbers, about 100 bytes a page where none has a neighbour. The hash is keyed, so nobody
can make a trace whose chunks all collide.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.replay.memory.native import I32, I64, U8, U32, U64, Word, compiled, i64, u64, void
from lamina_mmu.replay.memory.state import FIRST, longer

CHUNK_SHIFT = 4
CHUNK = 1 << CHUNK_SHIFT
MIX_A, MIX_B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
REGION_SHIFT = 20
REGION = 1 << REGION_SHIFT
MOST_REGIONS = 64
NODES, CHUNKS, REGIONS = range(3)
ONE = np.uint64(1)
SAMPLE_KEY = np.uint64(0x5A17)
WRITE = 2
"""`lamina.common.v1.Access` of a write."""


@compiled(u64(u64, u64))
def _mixed(chunk: Word, key: Word) -> Word:
    """Returns a hash of a chunk's number."""
    word = (chunk ^ key) * MIX_A
    word = (word ^ (word >> np.uint64(32))) * MIX_B
    return word ^ (word >> np.uint64(29))


@compiled(i64(u64, u64, U64, I32, I64))
def _new_chunk(chunk: Word, key: Word, keys: Any, chunks: Any, counts: Any) -> Word:
    """Makes a chunk and returns its number."""
    mask = np.uint64(keys.size - 1)
    at = _mixed(chunk, key) & mask
    while keys[at] != np.uint64(0):
        at = (at + ONE) & mask
    keys[at] = chunk + ONE
    chunks[at] = counts[CHUNKS]
    counts[CHUNKS] += 1
    return chunks[at]


@compiled(i64(u64, u64, U64, I32, I64))
def _place(page: Word, key: Word, keys: Any, chunks: Any, counts: Any) -> Word:
    """Returns where the number of a page stands among those of all chunks; makes its chunk when it is new."""
    chunk = page >> np.uint64(CHUNK_SHIFT)
    mask = np.uint64(keys.size - 1)
    at = _mixed(chunk, key) & mask
    while keys[at] != chunk + ONE and keys[at] != np.uint64(0):
        at = (at + ONE) & mask
    found = np.int64(chunks[at]) if keys[at] else _new_chunk(chunk, key, keys, chunks, counts)
    return (found << CHUNK_SHIFT) + np.int64(page & np.uint64(CHUNK - 1))


@compiled(i64(u64, U64, I64))
def _region(page: Word, regions: Any, counts: Any) -> Word:
    """Returns the number of a page's region, taking a new one when there is one left; -1 for a page without."""
    wanted = (page >> np.uint64(REGION_SHIFT)) + ONE
    for at in range(counts[REGIONS]):
        if regions[at] == wanted:
            return at
    if counts[REGIONS] == regions.size:
        return -1
    regions[counts[REGIONS]] = wanted
    counts[REGIONS] += 1
    return counts[REGIONS] - 1


@compiled(i64(U64, u64, U64, I32, I32, U64, I32, U64, I64, U32))
def number(
    pages: Any,
    key: Word,
    keys: Any,
    chunks: Any,
    nodes: Any,
    regions: Any,
    dense: Any,
    page_of: Any,
    counts: Any,
    out: Any,
) -> Word:
    """Writes node · 2 of each page to `out`; returns how many pages were new."""
    before = counts[NODES]
    last, last_region = np.uint64(0), np.int64(-2)
    for index in range(pages.size):
        page = pages[index]
        high = page >> np.uint64(REGION_SHIFT)
        if last_region == -2 or high != last:
            last, last_region = high, _region(page, regions, counts)
        if last_region >= 0:
            place = (last_region << REGION_SHIFT) + np.int64(page & np.uint64(REGION - 1))
            node = np.int64(dense[place])
        else:
            place = _place(page, key, keys, chunks, counts)
            node = np.int64(nodes[place])
        if node == 0:
            node = counts[NODES]
            counts[NODES] += 1
            page_of[node] = page
            if last_region >= 0:
                dense[place] = node
            else:
                nodes[place] = node
        out[index] = np.uint32(node << 1)
    return counts[NODES] - before


@compiled(void(U8, U32))
def note_writes(kinds: Any, words: Any) -> None:
    """Sets the lowest bit of each access that is a write."""
    for index in range(kinds.size):
        words[index] |= np.uint32(kinds[index] == WRITE)


@compiled(i64(U64, I32, u64, U64, I32))
def _rehash(old_keys: Any, old_chunks: Any, key: Word, keys: Any, chunks: Any) -> Word:
    """Moves a hash into a larger one; returns how many chunks there are."""
    moved = 0
    mask = np.uint64(keys.size - 1)
    for place in range(old_keys.size):
        wanted = old_keys[place]
        if wanted:
            at = _mixed(wanted - ONE, key) & mask
            while keys[at]:
                at = (at + ONE) & mask
            keys[at] = wanted
            chunks[at] = old_chunks[place]
            moved += 1
    return moved


@compiled(i64(U32, U64, i64, U32))
def _follow(words: Any, page_of: Any, sample: Word, out: Any) -> Word:
    """Copies the accesses to pages whose hash is 0 modulo `sample`; returns how many."""
    kept = 0
    for index in range(words.size):
        page = page_of[words[index] >> 1]
        if _mixed(page, SAMPLE_KEY) % np.uint64(sample) == np.uint64(0):
            out[kept] = words[index]
            kept += 1
    return kept


def followed(words: Any, page_of: Any, sample: int) -> Any:
    """Returns the access words whose pages are among one of `sample`, chosen by a fixed hash."""
    out = np.empty(words.size, np.uint32)
    return out[: _follow(words, page_of, sample, out)]


class PageNumbers:
    """Gives pages their numbers. `key` is any 64-bit number, and changes no result."""

    def __init__(self, key: int) -> None:
        self._key = np.uint64(key)
        self._keys = np.zeros(1024, np.uint64)
        self._chunks = np.zeros(1024, np.int32)
        self._nodes = np.zeros(CHUNK, np.int32)
        self._regions = np.zeros(MOST_REGIONS, np.uint64)
        self._dense = np.zeros(MOST_REGIONS << REGION_SHIFT, np.int32)
        self._counts = np.array([FIRST, 0, 0], np.int64)
        self.page_of = np.zeros(FIRST, np.uint64)

    @property
    def nodes(self) -> int:
        """Returns one more than the largest number that was given."""
        return int(self._counts[NODES])

    @property
    def nodes_room(self) -> int:
        """Returns how many nodes the next accesses may name: what state has room for grows in steps."""
        return int(self.page_of.size)

    @property
    def distinct(self) -> int:
        """Returns how many pages were seen."""
        return self.nodes - FIRST

    @property
    def size_bytes(self) -> int:
        """Returns the memory that this takes."""
        arrays = (self._keys, self._chunks, self._nodes, self.page_of)
        return sum(array.nbytes for array in arrays) + 4 * REGION * int(self._counts[REGIONS])

    def number(self, pages: Any, kinds: Any) -> Any:
        """Returns the access words of pages (u64), with their kinds (u8, or none at all)."""
        self._make_room(pages.size)
        words = np.empty(pages.size, np.uint32)
        number(
            pages, self._key, self._keys, self._chunks, self._nodes, self._regions, self._dense, self.page_of,
            self._counts, words,
        )  # fmt: skip
        note_writes(kinds, words)
        return words

    def _make_room(self, more: int) -> None:
        """Makes sure that `more` pages find room even if each is new and in a chunk of its own."""
        chunks = int(self._counts[CHUNKS]) + more
        if 2 * chunks > self._keys.size:
            size = 1 << (2 * chunks).bit_length()
            keys, places = np.zeros(size, np.uint64), np.zeros(size, np.int32)
            _rehash(self._keys, self._chunks, self._key, keys, places)
            self._keys, self._chunks = keys, places
        if chunks * CHUNK > self._nodes.size:
            self._nodes = longer(self._nodes, max(chunks * CHUNK, 2 * self._nodes.size))
        if self.nodes + more > self.page_of.size:
            self.page_of = longer(self.page_of, max(self.nodes + more, 2 * self.page_of.size))
