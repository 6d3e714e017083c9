"""How long an in-process call takes in virtual time: 2 to 40 µs, drawn from the seed.

In real time a call takes what it takes, and two calls that two tasks begin at one instant arrive in either order. In
virtual time everything would be instantaneous and in one order; the drawn latency gives each seed an order of its own.
"""

from __future__ import annotations

from lamina_kit.rng import Rng
from lamina_kit.rpc.inproc.local import Latency

LEAST_NS = 2_000
MOST_NS = 40_000


def drawn(rng: Rng) -> Latency:
    """Returns a latency for the calls of one channel; the channels of a stack take children of one `Rng`."""
    draw = rng.random
    span = MOST_NS - LEAST_NS + 1
    return lambda: LEAST_NS + int(draw() * span)
