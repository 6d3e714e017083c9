"""Accesses become touches of pages, compiled: one that crosses a border of pages touches several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lamina_kit.errors import InvalidArgument
from lamina_mmu.replay.memory.native import I64, U8, U32, U64, Word, compiled, i64, void
from lamina_mmu.replay.memory.state import Array
from lamina_mmu.replay.traces.accesses import BATCH, NO_KINDS, Columns

INDEX, PAGE, FILLED, WRONG = range(4)


@compiled(void(U64, U8, U32, i64, U64, U8, I64))
def _spread(addresses: Any, kinds: Any, sizes: Any, shift: Word, pages: Any, page_kinds: Any, n: Any) -> None:
    """Writes pages until `pages` is full or all accesses are done. `n`: access, pages of it done, pages written."""
    n[FILLED] = 0
    while n[INDEX] < addresses.size:
        address = addresses[n[INDEX]]
        span = np.uint64(max(sizes[n[INDEX]], np.uint32(1))) - np.uint64(1)
        last = address + span
        if last < address:
            n[WRONG] = 1
            return
        page = (address >> np.uint64(shift)) + np.uint64(n[PAGE])
        end = last >> np.uint64(shift)
        while n[FILLED] < pages.size:
            pages[n[FILLED]] = page
            if kinds.size:
                page_kinds[n[FILLED]] = kinds[n[INDEX]]
            n[FILLED] += 1
            n[PAGE] += 1
            if page == end:
                n[PAGE] = 0
                n[INDEX] += 1
                break
            page += np.uint64(1)
        if n[FILLED] == pages.size:
            return


def touches(columns: Columns, shift: int, position: int) -> Iterator[tuple[Array, Array]]:
    """Yields pages (u64) with their kinds (u8, or none), at most `BATCH` at a time.

    `position` is the number of the first access, for the error of one that reaches beyond 2^64.
    """
    addresses, kinds, sizes = columns
    if not sizes.size:
        for start in range(0, addresses.size, BATCH):
            part = slice(start, start + BATCH)
            yield addresses[part] >> np.uint64(shift), kinds[part]
        return
    n = np.zeros(4, np.int64)
    while n[INDEX] < addresses.size:
        pages, page_kinds = np.empty(BATCH, np.uint64), np.empty(BATCH if kinds.size else 0, np.uint8)
        _spread(addresses, kinds, sizes, shift, pages, page_kinds, n)
        if n[WRONG]:
            raise InvalidArgument(
                f"Access {position + int(n[INDEX])} of the trace reaches beyond 2^64 bytes.",
                reason="TRACE_MALFORMED",
                next_step="Check the column of sizes.",
            )
        filled = int(n[FILLED])
        yield pages[:filled], page_kinds[:filled] if kinds.size else NO_KINDS
