"""Buckets and shapers against exact rational arithmetic: times to the nanosecond, and nothing lost by rounding."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from lamina_vswitch.domain.policy.bucket import TokenBucket
from lamina_vswitch.domain.policy.settings import Shaping
from lamina_vswitch.domain.policy.shaper import QUEUE_FRAMES, Shaper

BILLION = 10**9
RATE = st.one_of(st.integers(8000, 10**12), st.sampled_from([8000, 999_999_937, 10**12]))
STEP = st.one_of(st.just(0), st.integers(0, 10**6), st.integers(0, 10**11))


class ExactBucket:
    """Tokens as fractions."""

    def __init__(self, rate: int, depth: Fraction, now: int) -> None:
        self.rate, self.depth, self.level, self.at = Fraction(rate, BILLION), depth, depth, now

    def pass_to(self, now: int) -> None:
        """Fill until a time."""
        self.level = min(self.depth, self.level + self.rate * (now - self.at))
        self.at = now

    def ready(self, tokens: Fraction, now: int) -> int:
        """Return the first whole nanosecond at which there is enough."""
        self.pass_to(now)
        return now + max(0, ceil((min(tokens, self.depth) - self.level) / self.rate))

    def spend(self, tokens: int, now: int) -> None:
        """Take tokens."""
        self.pass_to(now)
        self.level -= tokens


@given(RATE, st.integers(1, 10**10), st.lists(st.tuples(STEP, st.integers(1, 10**6), st.booleans()), max_size=60))
def test_a_bucket_holds_what_exact_arithmetic_says(rate: int, depth: int, uses: list[tuple[int, int, bool]]) -> None:
    """After any use, level, readiness and the answer whether there is enough are those of fractions."""
    bucket, exact, now = TokenBucket(rate, depth, 0), ExactBucket(rate, Fraction(depth), 0), 0
    for step, tokens, takes in uses:
        now += step
        exact.pass_to(now)
        assert Fraction(bucket.level(now), BILLION) == exact.level
        assert bucket.holds(tokens, now) == (exact.level >= tokens)
        assert bucket.ready_ns(tokens, now) == exact.ready(Fraction(tokens), now)
        if takes:
            bucket.spend(tokens, now)
            exact.spend(tokens, now)


FRAMES = st.lists(st.tuples(st.integers(0, 2000), st.integers(14, 9018)), min_size=1, max_size=60)


@given(st.integers(8000, 10**10), st.integers(0, 10**4), st.sampled_from([0, 9018, 20_000]), FRAMES, st.booleans())
def test_frames_leave_when_exact_arithmetic_says(
    average: int, times: int, burst: int, frames: list[tuple[int, int]], late: bool
) -> None:
    """Each frame leaves at its own nanosecond, whether one looks at every one or only at the end; none is reordered."""
    shaping = Shaping(average, average * times, burst)
    shaper, now = Shaper(shaping, 0), 0
    left: list[tuple[bytes, int]] = []
    wanted: list[tuple[bytes, int]] = []
    tokens = ExactBucket(average, Fraction(8 * shaping.bucket_bytes), 0)
    line = ExactBucket(shaping.peak or 1, Fraction(shaping.peak or 1, BILLION), 0)
    line.level = Fraction(0)
    before = 0
    for number, (gap, size) in enumerate(frames):
        now += gap * 1000
        frame = number.to_bytes(2, "big").ljust(size, b"\0")
        at = tokens.ready(Fraction(8 * size), max(now, before))
        if shaping.peak:
            at = line.ready(Fraction(0), at)
            line.spend(8 * size, at)
        tokens.spend(8 * size, at)
        before = at
        wanted.append((frame[:2], at))
        if not late:
            while shaper.due_ns is not None and shaper.due_ns <= now:
                due = shaper.due_ns
                left.extend((out[:2], due) for out in shaper.release(due))
        assert shaper.has_room(now)
        shaper.push(frame, now)
    while shaper.due_ns is not None:
        due = shaper.due_ns
        left.extend((out[:2], due) for out in shaper.release(due))
    assert left == wanted


@given(st.integers(8000, 10**9), st.integers(1, 10), st.lists(st.integers(64, 9018), min_size=2, max_size=80))
def test_no_window_carries_more_than_the_bucket_and_the_rate(average: int, times: int, sizes: list[int]) -> None:
    """Between any two departures: at most the burst and what the average brings, and never faster than the peak."""
    shaping = Shaping(average, average * times, 20_000)
    shaper = Shaper(shaping, 0)
    left: list[tuple[int, int]] = []
    for size in sizes:
        shaper.push(bytes(size), 0)
    while shaper.due_ns is not None:
        due = shaper.due_ns
        left.extend((due, 8 * len(frame)) for frame in shaper.release(due))
    for first in range(len(left)):
        bits = 0
        for at, size in left[first:]:
            passed = at - left[first][0]
            assert bits * BILLION <= shaping.peak * (passed + 1)
            bits += size
            assert bits * BILLION <= 160_000 * BILLION + average * passed


def test_a_queue_is_bounded() -> None:
    """There is room for so many frames, and again once one has left."""
    shaper = Shaper(Shaping(8000), 0)
    for _ in range(QUEUE_FRAMES + 8):
        assert shaper.has_room(0)
        shaper.push(bytes(1125), 0)
        shaper.release(0)
    assert (len(shaper), shaper.has_room(0), shaper.has_room(shaper.due_ns or 0)) == (QUEUE_FRAMES, False, True)
