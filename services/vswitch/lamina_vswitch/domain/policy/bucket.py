"""Token buckets in closed form: how many tokens there are is computed when somebody asks, in exact integers.

Tokens are counted in billionths, so that a rate of tokens a second is a rate of billionths a nanosecond, and nothing is
ever rounded away: a bucket that was used a million times holds what exact arithmetic says.

Source: ITU-T Y.1221 (token bucket); the words average, peak and burst are VMware's.
"""

from __future__ import annotations

BILLION = 1_000_000_000


class TokenBucket:
    """Tokens come at `rate` a second and are kept up to `depth`. A full bucket is what one starts with.

    Levels are in billionths of a token. They may go below zero: somebody took more than there was, and it is owed.
    """

    def __init__(self, rate: int, depth: int, now_ns: int) -> None:
        self._rate = rate
        self._cap = depth * BILLION
        self._level = self._cap
        self._at_ns = now_ns

    @classmethod
    def link(cls, rate: int, now_ns: int) -> TokenBucket:
        """Return a bucket that keeps nothing: what was spent is paid back at the rate before anything more goes.

        It keeps what comes within one nanosecond, because times are whole nanoseconds: no time on the line is lost.
        """
        bucket = cls(rate, 0, now_ns)
        bucket._cap = rate
        return bucket

    def resize(self, rate: int, depth: int, now_ns: int) -> None:
        """Change rate and depth; what is above the new depth is gone."""
        level = self.level(now_ns)
        self._rate, self._cap, self._at_ns = rate, depth * BILLION, max(now_ns, self._at_ns)
        self._level = min(level, self._cap)

    def level(self, now_ns: int) -> int:
        """Return how many billionths of tokens there are."""
        return min(self._cap, self._level + self._rate * max(0, now_ns - self._at_ns))

    def holds(self, tokens: int, now_ns: int) -> bool:
        """Tell whether there are so many tokens."""
        return self.level(now_ns) >= tokens * BILLION

    def ready_ns(self, tokens: int, not_before_ns: int) -> int:
        """Return the first time, `not_before_ns` or later, at which there are so many tokens, if nobody takes any.

        More tokens than the bucket can hold count as those that it can hold.
        """
        missing = min(tokens * BILLION, self._cap) - self.level(not_before_ns)
        return not_before_ns if missing <= 0 else not_before_ns - (-missing // self._rate)

    def spend(self, tokens: int, now_ns: int) -> None:
        """Take tokens, also those that are not there."""
        self._level = self.level(now_ns) - tokens * BILLION
        self._at_ns = max(now_ns, self._at_ns)
