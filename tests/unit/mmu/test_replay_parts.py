"""Parts of the replay engine by themselves: pages far apart, traces longer than a block on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lamina_kit.errors import ResourceExhausted
from lamina_mmu.replay.memory.state import FIRST
from lamina_mmu.replay.traces.accesses import NO_KINDS
from lamina_mmu.replay.traces.pages import CHUNK, MOST_REGIONS, REGION, PageNumbers, followed
from lamina_mmu.replay.traces.spool import BLOCK, BYTES_PER_ACCESS, Spool


def numbered(pages: PageNumbers, wanted: list[int], kinds: list[int] | None = None) -> list[int]:
    """Returns the words of accesses."""
    given = NO_KINDS if kinds is None else np.array(kinds, np.uint8)
    found: list[int] = pages.number(np.array(wanted, np.uint64), given).tolist()
    return found


def test_pages_far_apart_are_told_apart() -> None:
    """Beyond the 64 regions with a table each, pages share chunks in a hash that grows, and keep their numbers."""
    pages = PageNumbers(0x1234_5678_9ABC_DEF1)
    far = [region * REGION for region in range(MOST_REGIONS)] + [(1 << 40) + 977 * CHUNK * n for n in range(3000)]
    first = [word for start in range(0, len(far), 250) for word in numbered(pages, far[start : start + 250])]
    assert first == [(FIRST + n) << 1 for n in range(len(far))]
    assert numbered(pages, far) == first, "the same page is the same number"
    neighbours = numbered(pages, [page + 1 for page in far])
    assert len(set(neighbours) | set(first)) == 2 * len(far)
    assert pages.distinct == 2 * len(far) and pages.nodes == FIRST + pages.distinct <= pages.nodes_room
    assert [int(pages.page_of[word >> 1]) for word in first] == far
    assert pages.size_bytes >= MOST_REGIONS * 4 * REGION


def test_the_largest_page_is_a_page() -> None:
    """Page numbers are anything below 2^64, and 0 is one."""
    pages = PageNumbers(7)
    many = [n * REGION for n in range(1, MOST_REGIONS + 1)]
    numbered(pages, many)
    words = numbered(pages, [(1 << 64) - 1, 0, (1 << 64) - 2, (1 << 64) - 1])
    assert words[0] == words[3] and len(set(words)) == 3


def test_a_write_is_the_lowest_bit() -> None:
    """Reads and executions are not; without kinds all are reads."""
    pages = PageNumbers(7)
    assert numbered(pages, [5, 5, 5], [1, 2, 3]) == [FIRST << 1, FIRST << 1 | 1, FIRST << 1]
    assert numbered(pages, [5]) == [FIRST << 1]


def test_a_sample_follows_pages_and_not_accesses() -> None:
    """One page of so many, chosen by the page: all of its accesses or none; one of one is everything."""
    pages = PageNumbers(7)
    words = np.array(numbered(pages, list(range(4000)) * 2), np.uint32)
    kept = followed(words, pages.page_of, 8).tolist()
    assert len(kept) == 2 * len(set(kept)) and 400 < len(set(kept)) < 600
    assert followed(words, pages.page_of, 1).tolist() == words.tolist()


def test_a_long_trace_comes_back_in_blocks(tmp_path: Path) -> None:
    """Words and next uses of each block are where they were put, positions go on over blocks, the last one is short."""
    spool = Spool(tmp_path / "new", 1 << 30)
    words = np.arange(2 * BLOCK + 5, dtype=np.uint32)
    for start in range(0, words.size, 50_000):
        spool.append(words[start : start + 50_000])
    assert (spool.accesses, spool.blocks()) == (words.size, 3)
    assert [(at, found[0], found.size) for at, found in spool.forwards()] == [
        (0, 0, BLOCK), (BLOCK, BLOCK, BLOCK), (2 * BLOCK, 2 * BLOCK, 5),
    ]  # fmt: skip
    nexts = words.astype(np.int64) + (1 << 40)
    for block in (2, 0, 1):
        spool.put_nexts(block, nexts[block * BLOCK : (block + 1) * BLOCK])
    assert all((spool.nexts(block) == nexts[block * BLOCK : (block + 1) * BLOCK]).all() for block in range(3))
    assert list((tmp_path / "new").iterdir()) == [], "the files have no names"
    spool.close()
    spool.close()


def test_an_empty_trace_has_no_blocks(tmp_path: Path) -> None:
    """And one that fills a block has one."""
    spool = Spool(tmp_path, 1 << 30)
    assert spool.blocks() == 0 and list(spool.forwards()) == []
    spool.append(np.zeros(BLOCK, np.uint32))
    assert spool.blocks() == 1
    spool.close()


def test_a_trace_has_its_limit_on_disk(tmp_path: Path) -> None:
    """Exactly as many accesses as fit are taken; one more is REPLAY_TOO_BIG, and what was taken is still there."""
    spool = Spool(tmp_path, 10 * BYTES_PER_ACCESS)
    spool.append(np.arange(4, dtype=np.uint32))
    spool.append(np.arange(4, 10, dtype=np.uint32))
    with pytest.raises(ResourceExhausted) as refused:
        spool.append(np.zeros(1, np.uint32))
    assert refused.value.reason == "REPLAY_TOO_BIG" and spool.words(0).tolist() == list(range(10))
    spool.close()
