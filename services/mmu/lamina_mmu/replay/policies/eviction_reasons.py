"""Why a page went, as a number in compiled code and as words for people."""

from __future__ import annotations

OLDEST_ARRIVAL, LEAST_RECENT, NOT_REFERENCED, NOT_VISITED, LEAST_FREQUENT = 1, 2, 3, 4, 5
A1IN_FULL, AM_OLDEST, T1_ABOVE_TARGET, T1_WITHOUT_GHOSTS, T2_OLDEST = 6, 7, 8, 9, 10
SMALL_UNUSED, MAIN_UNUSED, OLDEST_GENERATION, FARTHEST_USE = 11, 12, 13, 14

_WORDS = {
    OLDEST_ARRIVAL: "came first, at access {came}",
    LEAST_RECENT: "least recently used, {ago} accesses ago",
    NOT_REFERENCED: "first with reference bit 0 at the hand, which passed {value}",
    NOT_VISITED: "first not visited at the hand, which passed {value}",
    LEAST_FREQUENT: "least frequently used, {value} times; of those the first",
    A1IN_FULL: "oldest of A1in, which has {value} pages, more than Kin",
    AM_OLDEST: "least recently used of Am; A1in has no more than Kin",
    T1_ABOVE_TARGET: "least recent of T1, which is above its target p = {value}",
    T1_WITHOUT_GHOSTS: "least recent of T1, which fills all frames",
    T2_OLDEST: "least recent of T2; T1 is within its target p = {value}",
    SMALL_UNUSED: "oldest of the small queue, used {value} times there",
    MAIN_UNUSED: "first of the main queue with counter 0, {value} passed",
    OLDEST_GENERATION: "oldest of the oldest generation, {value}",
    FARTHEST_USE: "its next use is the farthest",
}


def words(reason: int, value: int, access: int, came: int, used: int) -> str:
    """Returns the reason in words. `access`, `came`, `used`: when it went, came, and was last used."""
    return _WORDS[reason].format(value=value, came=came, ago=access - used)
