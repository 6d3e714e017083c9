"""Memory for what compiled code reads at random: words in rows that begin at cache lines, in huge pages where many.

Allocators put their own head before an array. A record of half a cache line would then lie across two of them, every
other time, and the second one is waited for by whoever asked for the first ahead.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np

LINE = 64
HUGE = 2 << 20
"""Bytes of a huge page. Tables of at least half of one get whole ones, where the kernel has them."""
_WORD = 8


def words(rows: int, columns: int) -> Any:
    """Return `rows` rows of `columns` 64-bit numbers, all 0, that begin at a cache line."""
    size = rows * columns * _WORD
    if size < HUGE // 2:
        data: Any = np.zeros(size + LINE, np.uint8)
        line = LINE
    else:
        pages = mmap.mmap(-1, size + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel may be built without
                pages.madvise(mmap.MADV_HUGEPAGE)
        data = np.frombuffer(pages, np.uint8)
        line = HUGE
    first = -data.ctypes.data % line
    found: Any = data[first : first + size].view(np.int64).reshape(rows, columns)
    return found
