"""What two exceptions make together: handled one after the other, a double fault, or shutdown; compiled.

Source: Intel SDM vol. 3, 7.15 (interrupt 8, tables 7-4 and 7-5).
"""

from __future__ import annotations

from lamina_hardware.io.native import Word, compiled, u64

_0, _1 = u64(0), u64(1)
_CONTRIBUTORY = u64(1 << 0 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13)
_PAGE = u64(14)

DOUBLE_FAULT = u64(8)
NO_VECTOR = u64(255)
"""Instead of a vector: shutdown."""
TASK_GATE = u64(0x100)
"""Instead of a vector: the event goes through a task gate, which its holder does; the error code is the event's."""


@compiled("uint64(uint64, uint64)")
def second_vector(first: int, second: int) -> Word:
    """Returns the vector that two exceptions make together (table 7-5); NO_VECTOR means shutdown."""
    if second == TASK_GATE:
        return TASK_GATE
    if first == DOUBLE_FAULT:
        return NO_VECTOR
    hard = (_CONTRIBUTORY >> second) & _1 != _0
    if first == _PAGE and (second == _PAGE or hard):
        return DOUBLE_FAULT
    if first < u64(32) and (_CONTRIBUTORY >> first) & _1 != _0 and hard:
        return DOUBLE_FAULT
    return second
