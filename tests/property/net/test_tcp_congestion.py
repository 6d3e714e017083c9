"""Congestion control over a bottleneck with a queue: the pipe is full, two flows share it, curves are the RFC's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.net.wire import MS, Application, Badness, World

from lamina_net.tcp.config import SECOND, Congestion, SocketOptions, TcpConfig
from lamina_net.tcp.connection.congestion import Cubic, NewReno, cube_root

RATE = 500_000
"""Bytes per second: 4 Mb/s."""
DELAY_NS = 20 * MS
QUEUE = RATE * 2 * DELAY_NS // SECOND
"""One bandwidth-delay product."""
GOODPUT = 1448 / 1500
"""Payload of what a full packet brings."""


def goodput(flows: int, congestion: Congestion, seconds: int, config: TcpConfig) -> list[int]:
    """Return the bytes that each flow delivers in the last two thirds of the time."""
    world = World(5, Badness(rate=RATE, delay_ns=DELAY_NS, queue=QUEUE), Badness(delay_ns=DELAY_NS), config)
    world.is_checked = False
    receivers = []
    for _ in range(flows):
        receiver = Application(b"")
        world.connect(Application(bytes(RATE * seconds)), receiver, SocketOptions(congestion=congestion))
        receivers.append(receiver)
    world.run(seconds * SECOND // 3)
    before = [len(receiver.received) for receiver in receivers]
    world.run(seconds * SECOND)
    assert world.counts["queue full"] > 0, "nothing was congested"
    return [len(receiver.received) - start for receiver, start in zip(receivers, before, strict=True)]


@pytest.mark.parametrize("selective_ack", [True, False])
@pytest.mark.parametrize("congestion", list(Congestion))
def test_one_flow_fills_the_pipe(congestion: Congestion, selective_ack: bool) -> None:
    """With a queue of one bandwidth-delay product at least 95 % of the rate is used, losses and all."""
    (got,) = goodput(1, congestion, 15, TcpConfig(selective_ack=selective_ack))
    assert got >= 0.95 * GOODPUT * RATE * 10


@pytest.mark.parametrize("congestion", list(Congestion))
def test_two_flows_share(congestion: Congestion) -> None:
    """Neither of two flows gets more than 1.5 times what the other gets, and together they fill the pipe."""
    got = goodput(2, congestion, 30, TcpConfig())
    assert max(got) <= 1.5 * min(got)
    assert sum(got) >= 0.95 * GOODPUT * RATE * 20


def test_slow_start_doubles() -> None:
    """Each acknowledged segment adds one, at most two for one ACK."""
    control = NewReno(1000)
    assert control.window == 10_000
    for _ in range(10):
        control.acknowledged(1000, 0, 0, careful=False)
    assert control.window == 20_000
    control.acknowledged(9000, 0, 0, careful=False)
    assert control.window == 22_000


def test_new_reno_grows_by_a_segment_in_a_round_trip() -> None:
    """In congestion avoidance a window's worth of ACKs adds one segment; a loss halves it."""
    control = NewReno(1000)
    control.lost(20_000, 0)
    assert control.window == control.threshold == 10_000
    for _ in range(10):
        control.acknowledged(1000, 0, 0, careful=False)
    assert 10_900 <= control.window <= 11_000
    half = control.window // 2
    control.timed_out(control.window, 0, again=False)
    assert (control.window, control.threshold) == (1000, half)
    control.timed_out(1000, 0, again=True)
    assert (control.window, control.threshold) == (1000, half)


def test_cubic_returns_to_the_top_after_k() -> None:
    """After a loss at W_max CUBIC has 0.7 W_max and comes back with K = cbrt(0.3 W_max / 0.4) s (RFC 9438, 4.2)."""
    control = Cubic(1000)
    control.window = control.threshold = 800_000  # 800 segments: K = cbrt(600) = 8.43 s
    control.lost(800_000, 0)
    assert control.window == 560_000
    now, round_trip = 0, 100 * MS
    while control.window < 795_000:
        for _ in range(control.window // 100_000):
            control.acknowledged(100_000, now, round_trip, careful=False)
        now += round_trip
    assert 5.9 * SECOND < now < 6.4 * SECOND  # K - cbrt(5 / 0.4) = 6.11 s, up to a round trip


def test_cubic_is_no_slower_than_reno_where_reno_is_fast() -> None:
    """With small windows and short round trips it grows as Reno would with the same losses (RFC 9438, 4.3)."""
    control = Cubic(1000)
    control.window = control.threshold = 20_000
    control.lost(20_000, 0)
    now = 0
    for _ in range(20):
        for _ in range(control.window // 1000):
            control.acknowledged(1000, now, MS, careful=False)
        now += MS
    assert 14_000 + 20 * 1000 * 9 // 17 - 2000 <= control.window <= 14_000 + 20 * 1000


@given(st.integers(0, 10**30))
def test_cube_roots_are_exact(number: int) -> None:
    """The largest integer whose cube is not larger."""
    root = cube_root(number)
    assert root**3 <= number < (root + 1) ** 3
