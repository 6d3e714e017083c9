"""What is said of a range, with the meaning that madvise(2) gives it. Pure."""

from __future__ import annotations

from enum import IntEnum

from lamina_mmu.domain.spaces.vma import DONT_FORK, HUGE, NO_HUGE, RANDOM, SEQUENTIAL, WIPE_ON_FORK


class Advice(IntEnum):
    """Advice; the numbers are those of the contract's `Advice`."""

    NORMAL = 1
    SEQUENTIAL = 2
    RANDOM = 3
    WILL_NEED = 4
    DONT_NEED = 5
    FREE = 6
    COLD = 7
    PAGE_OUT = 8
    HUGE_PAGE = 9
    NO_HUGE_PAGE = 10
    COLLAPSE = 11
    DONT_FORK = 12
    DO_FORK = 13
    WIPE_ON_FORK = 14
    KEEP_ON_FORK = 15
    POPULATE_READ = 16
    POPULATE_WRITE = 17


FLAGS = {
    Advice.NORMAL: (0, SEQUENTIAL | RANDOM),
    Advice.SEQUENTIAL: (SEQUENTIAL, RANDOM),
    Advice.RANDOM: (RANDOM, SEQUENTIAL),
    Advice.HUGE_PAGE: (HUGE, NO_HUGE),
    Advice.NO_HUGE_PAGE: (NO_HUGE, HUGE),
    Advice.DONT_FORK: (DONT_FORK, 0),
    Advice.DO_FORK: (0, DONT_FORK),
    Advice.WIPE_ON_FORK: (WIPE_ON_FORK, 0),
    Advice.KEEP_ON_FORK: (0, WIPE_ON_FORK),
}
"""Advice that a mapping remembers: the flags that it sets and clears."""

PRIVATE_ONLY = (Advice.FREE, Advice.HUGE_PAGE, Advice.COLLAPSE, Advice.WIPE_ON_FORK)
"""Advice for private anonymous mappings alone."""

TAKES_AWAY = (Advice.DONT_NEED, Advice.FREE, Advice.PAGE_OUT)
"""Advice that locked or pinned pages refuse."""
