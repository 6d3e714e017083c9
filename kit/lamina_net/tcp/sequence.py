"""Sequence numbers without wrapping: inside this package they are plain integers that only grow.

A number of 32 bits on the wire means, of all integers congruent to it, the one nearest to a number that both ends know.
So every comparison in here is `<`, and the arithmetic modulo 2³² of RFC 9293, 3.4 stands in this one place.
"""

from __future__ import annotations

MASK = 0xFFFF_FFFF
_HALF = 0x8000_0000


def unwrap(number: int, near: int) -> int:
    """Return the integer congruent to `number` (32 bits) that lies in [near - 2³¹, near + 2³¹)."""
    below = near - _HALF
    return below + ((number - below) & MASK)
