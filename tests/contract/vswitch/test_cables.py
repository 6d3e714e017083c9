"""Cables that break and cables that lose frames: what every engine does then."""

from __future__ import annotations

from typing import Any

from lamina_kit.rng import Rng
from lamina_vswitch.domain.port.loss import MILLION, Loss

A = bytes.fromhex("020000000001")
B = bytes.fromhex("020000000002")
BROADCAST = b"\xff" * 6


def frame(dst: bytes, src: bytes, number: int = 0) -> bytes:
    """Returns a frame of the least length."""
    return (dst + src + b"\x88\xb5" + number.to_bytes(2, "big")).ljust(60, b"\0")


def test_a_broken_cable_is_a_link_that_is_down(bench: Any) -> None:
    """Nothing enters or leaves, what was learned there is forgotten, and the device is told both times."""
    b = bench()
    sinks = {slot: b.port(slot) for slot in (1, 2)}
    b.reached(1, frame(BROADCAST, A))
    b.engine.break_link(1, True, 0)
    assert not b.engine.link(1) and b.table() == []
    assert b.reached(1, frame(BROADCAST, A)) == {} and b.drops(1) == {"LINK_DOWN": 1}
    assert b.reached(2, frame(BROADCAST, B)) == {}
    b.engine.break_link(1, False, 0)
    assert b.reached(2, frame(BROADCAST, B)) == {1: [frame(BROADCAST, B)]}
    assert sinks[1].links == [False, True]


def test_a_cable_is_up_when_it_is_whole_and_plugged_in(bench: Any) -> None:
    """Mending does not plug in what its owner pulled out, plugging in does not mend, and nothing is told twice."""
    b = bench()
    sink = b.port(1)
    b.engine.break_link(1, True, 0)
    b.engine.set_link(1, False, 0)
    b.engine.break_link(1, False, 0)
    assert not b.engine.link(1)
    b.engine.break_link(1, True, 0)
    b.engine.set_link(1, True, 0)
    assert not b.engine.link(1)
    b.engine.break_link(1, False, 0)
    assert b.engine.link(1) and sink.links == [False, True]


def test_lost_frames_are_counted_in_both_directions(bench: Any) -> None:
    """With total loss nothing passes: on the way in it counts at the sender, on the way out once a copy."""
    b = bench()
    for slot in (1, 2, 3):
        b.port(slot)
    b.engine.set_loss(1, Loss(MILLION, Rng(1)))
    assert b.engine.transmit(1, [frame(BROADCAST, A)], 0) == 1
    assert b.drops(1) == {"FAULT": 1} and b.table() == []
    assert b.reached(2, frame(BROADCAST, B)) == {3: [frame(BROADCAST, B)]}
    assert b.drops(1) == {"FAULT": 2} and b.drops(2) == {}
    b.engine.set_loss(1, None)
    assert b.reached(1, frame(B, A)) == {2: [frame(B, A)]}


def test_a_share_of_the_frames_is_lost_and_the_rest_keeps_its_order(bench: Any) -> None:
    """About the probability is lost; every frame is delivered or counted; one seed loses the same ones."""
    arrived = []
    for _ in range(2):
        b = bench()
        b.port(1)
        sink = b.port(2)
        b.engine.set_loss(1, Loss(250_000, Rng(5)))
        frames = [frame(BROADCAST, A, number) for number in range(1000)]
        b.engine.transmit(1, frames, 0)
        arrived.append(sink.take())
        assert len(arrived[-1]) + b.drops(1)["FAULT"] == 1000
        assert arrived[-1] == [one for one in frames if one in set(arrived[-1])]
    assert arrived[0] == arrived[1] and 650 < len(arrived[0]) < 850
