"""A rate that is not exceeded, in whole numbers. Pure.

A bucket of tokens kept as an instant: the one at which it will be full again. Taking one moves it on by the time that a
token takes; the bucket is empty when it lies a whole bucket ahead. So nothing is refilled and no fraction is lost.
Source: the virtual scheduling algorithm of ITU-T I.371 (GCRA).
"""

from __future__ import annotations

SECOND = 1_000_000_000


class RateLimiter:
    """At most `burst` at once, and `per_second` in the long run; both at least 1."""

    def __init__(self, per_second: int, burst: int) -> None:
        self._token_ns = SECOND // per_second
        self._room_ns = self._token_ns * burst
        self._full_ns = 0

    def take(self, now_ns: int) -> bool:
        """Take a token, if there is one."""
        full_ns = max(self._full_ns, now_ns) + self._token_ns
        if full_ns - now_ns > self._room_ns:
            return False
        self._full_ns = full_ns
        return True
