"""What an engine tells its observer, and what a port that only receives copies is left out of."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_kit.rng import Rng
from lamina_vswitch.domain.capture.observer import Direction, accepted
from lamina_vswitch.domain.drop import DropReason
from lamina_vswitch.domain.loss import MILLION, Loss

A = bytes.fromhex("020000000001")
B = bytes.fromhex("020000000002")
BROADCAST = b"\xff" * 6
RUNT = b"\x02" * 13


def frame(dst: bytes, src: bytes, number: int = 0) -> bytes:
    """Returns a frame of the least length."""
    return (dst + src + b"\x88\xb5" + number.to_bytes(2, "big")).ljust(60, b"\0")


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def passed(self, port: Any, direction: Direction, frames: Any, now_ns: int) -> None:
        """Note frames that passed."""
        self.told.append((direction.name, port.slot, list(frames), now_ns))

    def dropped(self, port: Any, reason: DropReason, frames: Any, now_ns: int) -> None:
        """Note frames that were dropped."""
        self.told.append((reason.name, port.slot, list(frames), now_ns))


@pytest.fixture
def watched(bench: Any) -> tuple[Any, Watcher]:
    """Returns a bench with three ports, of which the third takes one frame, and who watches it."""
    b = bench()
    for slot, room in ((1, 99), (2, 99), (3, 1)):
        b.port(slot, room=room)
    b.engine.observer = Watcher()
    return b, b.engine.observer


def test_every_frame_is_told_once_where_it_enters_and_once_a_copy(watched: Any) -> None:
    """A batch of good and bad frames is told as passed and as dropped; what a queue refuses as dropped there."""
    b, watcher = watched
    first, second = frame(BROADCAST, A, 1), frame(BROADCAST, A, 2)
    b.engine.transmit(1, [first, RUNT, second, RUNT], 7)
    assert watcher.told == [
        ("INGRESS", 1, [first, second], 7),
        ("EGRESS", 2, [first, second], 7),
        ("QUEUE_FULL", 3, [second], 7),
        ("EGRESS", 3, [first], 7),
        ("RUNT", 1, [RUNT, RUNT], 7),
    ]


def test_nothing_is_told_that_did_not_happen(watched: Any) -> None:
    """A batch of drops alone has no frames that passed, and a frame for a full queue none that left."""
    b, watcher = watched
    b.engine.transmit(1, [RUNT], 0)
    b.engine.set_loss(2, Loss(MILLION, Rng(1)))
    b.engine.transmit(3, [frame(BROADCAST, B)], 1)
    b.engine.transmit(2, [frame(BROADCAST, A)], 2)
    told = [(word, slot) for word, slot, _, _ in watcher.told]
    assert told == [("RUNT", 1), ("INGRESS", 3), ("EGRESS", 1), ("FAULT", 2), ("FAULT", 2)]


def test_a_traced_frame_is_not_told(watched: Any) -> None:
    """A trace only asks, so nobody who watches hears of it."""
    b, watcher = watched
    b.engine.trace(1, frame(BROADCAST, A), 0)
    assert watcher.told == []


def test_a_port_that_only_receives_copies_takes_part_in_nothing(bench: Any) -> None:
    """What it sends is dropped with a reason, it is not flooded to, and a static entry for it leads nowhere."""
    b = bench()
    for slot in (1, 2, 3):
        b.port(slot)
    b.reached(3, frame(BROADCAST, B))
    b.engine.set_copies_only(3, True, 0)
    assert b.table() == []
    assert b.reached(3, frame(BROADCAST, B)) == {} and b.drops(3) == {"MIRROR_PORT": 1}
    assert b.reached(1, frame(BROADCAST, A)) == {2: [frame(BROADCAST, A)]}
    b.engine.add_static("hosts/h1/switches/s1", 0, B, 3, 0)
    assert b.reached(1, frame(B, A)) == {} and b.drops(1) == {"DESTINATION_DOWN": 1}
    told = b.engine.trace(3, frame(BROADCAST, B), 0)
    assert [step.rule for step in told.steps] == ["ingress.mirror_port", "output.drop_mirror_port"]
    b.engine.set_copies_only(3, False, 0)
    assert b.reached(1, frame(B, A)) == {3: [frame(B, A)]}


def test_of_equal_frames_the_first_count_as_dropped() -> None:
    """What passed of a batch keeps its order, and as many are taken out as were dropped."""
    frames = [b"a", b"b", b"a", b"c", b"b"]
    assert accepted(frames, {DropReason.RUNT: [b"a", b"c"], DropReason.FAULT: [b"b"]}) == [b"a", b"b"]
    assert accepted(frames, {}) is frames
