"""What an engine tells its observer, keeps in records and counts by VLAN; ports that only receive copies."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_kit.rng import Rng
from lamina_vswitch.domain.capture.observer import Direction, accepted
from lamina_vswitch.domain.capture.records import MAX_RECORDS
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.metadata import laden
from lamina_vswitch.domain.offload.features import Takes
from lamina_vswitch.domain.port.loss import MILLION, Loss

A = bytes.fromhex("020000000001")
B = bytes.fromhex("020000000002")
BROADCAST = b"\xff" * 6
SECOND_NS = 1_000_000_000
RUNT = b"\x02" * 13


def frame(dst: bytes, src: bytes, number: int = 0) -> bytes:
    """Returns a frame of the least length."""
    return (dst + src + b"\x88\xb5" + number.to_bytes(2, "big")).ljust(60, b"\0")


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def wants(self, port: Any) -> bool:
        """Wants everything."""
        return True

    def missed(self, port: Any, direction: Direction, count: int, now_ns: int) -> None:
        """Notes nothing: that is told where frames come from the kernel alone."""

    def passed(self, port: Any, direction: Direction, frames: Any, now_ns: int) -> None:
        """Note frames that passed."""
        self.told.append((direction.name, port.slot, list(frames), now_ns))

    def dropped(self, port: Any, direction: Direction, reason: DropReason, frames: Any, now_ns: int) -> None:
        """Note frames that were dropped."""
        self.told.append((f"{reason.name} {direction.name}", port.slot, list(frames), now_ns))


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
        ("QUEUE_FULL EGRESS", 3, [second], 7),
        ("EGRESS", 3, [first], 7),
        ("RUNT INGRESS", 1, [RUNT, RUNT], 7),
    ]


def test_nothing_is_told_that_did_not_happen(watched: Any) -> None:
    """A batch of drops alone has no frames that passed, and a frame for a full queue none that left."""
    b, watcher = watched
    b.engine.transmit(1, [RUNT], 0)
    b.engine.set_loss(2, Loss(MILLION, Rng(1)))
    b.engine.transmit(3, [frame(BROADCAST, B)], 1)
    b.engine.transmit(2, [frame(BROADCAST, A)], 2)
    told = [(word, slot) for word, slot, _, _ in watcher.told]
    assert told == [("RUNT INGRESS", 1), ("INGRESS", 3), ("EGRESS", 1), ("FAULT EGRESS", 2), ("FAULT INGRESS", 2)]


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


def test_the_first_frame_of_a_port_and_outcome_in_a_second_is_recorded(bench: Any) -> None:
    """Passed and dropped frames are recorded once a second each, newest first, with the rules as they were applied."""
    b = bench()
    b.port(1)
    b.port(2)
    for now_ns in (0, 1, SECOND_NS - 1, SECOND_NS):
        b.engine.transmit(1, [frame(BROADCAST, A, 1), RUNT, frame(B, A, 2), RUNT], now_ns)
    records = b.engine.records("hosts/h1/switches/s1")
    found = [(record.time_ns, record.port[-2:], record.length, record.told.steps[-1].rule) for record in records]
    assert found == [
        (SECOND_NS, "p1", 13, "output.drop_runt"),
        (SECOND_NS, "p1", 60, "output.flood"),
        (0, "p1", 13, "output.drop_runt"),
        (0, "p1", 60, "output.flood"),
    ]
    rules = [[step.rule for step in record.told.steps] for record in records]
    assert "learn.new" in rules[3] and "learn.refreshed" in rules[1]
    assert [record.number for record in records] == [4, 3, 2, 1] and records[3].told.frame == b""


def test_what_a_queue_refuses_is_recorded_where_it_entered(watched: Any) -> None:
    """The record names the port of its source, the way through the switch, and the port that had no room."""
    b, _ = watched
    b.engine.transmit(1, [frame(BROADCAST, A, 1), frame(BROADCAST, A, 2)], 5)
    record = next(r for r in b.engine.records("hosts/h1/switches/s1") if r.told.decision.drop is not None)
    assert (record.port[-2:], record.told.decision.drop) == ("p1", DropReason.QUEUE_FULL)
    assert record.told.steps[-1].rule == "port.drop_queue_full" and record.told.steps[-1].detail.endswith("ports/p3")


def test_frames_with_a_sampled_trace_are_all_recorded(bench: Any) -> None:
    """A device that sends traces finds each of its sampled frames; the others are sampled like any."""
    b = bench()
    b.port(2)
    b.engine.add_port("hosts/h1/switches/s1", 1, "hosts/h1/switches/s1/ports/p1", 0, True)
    b.engine.attach(1, type(b.sinks[2])(), 0, Takes())
    trace = bytes(range(16)) + bytes(8)
    sampled = [laden(frame(BROADCAST, A, n), None, trace + b"\x01" + bytes(7)) for n in (1, 2)]
    b.engine.transmit(1, [frame(BROADCAST, A), *sampled, laden(frame(BROADCAST, A, 3), None, trace + bytes(8))], 0)
    traces = [record.trace_id for record in b.engine.records("hosts/h1/switches/s1")]
    assert traces == [bytes(range(16)).hex()] * 2 + [""]


def test_the_first_frame_that_passes_is_recorded_wherever_it_is(bench: Any) -> None:
    """Neither drops nor sampled frames before it in its batch hide it; what was dropped is recorded beside it."""
    b = bench()
    b.port(1)
    b.engine.add_port("hosts/h1/switches/s1", 2, "hosts/h1/switches/s1/ports/p2", 0, True)
    b.engine.attach(2, type(b.sinks[1])(), 0, Takes())
    traced = laden(frame(BROADCAST, A, 1), None, bytes(range(16)) + bytes(8) + b"\x01" + bytes(7))
    b.engine.transmit(1, [RUNT, traced, frame(BROADCAST, A, 2), frame(BROADCAST, A, 3)], 0)
    found = [(r.head[14:16], r.told.decision.drop) for r in b.engine.records("hosts/h1/switches/s1")]
    assert found == [(b"", DropReason.RUNT), (b"\0\1", None), (b"\0\2", None)]


@pytest.mark.parametrize("takes", [Takes(records=True), Takes(checksum=True), None])
def test_every_sampled_frame_that_is_lost_behind_the_switch_is_recorded_again(bench: Any, takes: Takes | None) -> None:
    """A full queue is told of each of them with the port that had no room, and of the others once a second."""
    b = bench()
    b.port(1)
    b.engine.add_port("hosts/h1/switches/s1", 2, "hosts/h1/switches/s1/ports/p2", 0, True)
    b.engine.attach(2, type(b.sinks[1])(1), 0, takes)
    b.engine.add_port("hosts/h1/switches/s1", 3, "hosts/h1/switches/s1/ports/p3", 1, True)
    b.engine.attach(3, type(b.sinks[1])(), 0, Takes(records=True))  # somebody sends traces
    record = bytes(range(16)) + bytes(8) + b"\x01" + bytes(7)
    traced = [laden(frame(BROADCAST, A, number), None, record) for number in (3, 4)]
    b.engine.transmit(1, [frame(BROADCAST, A, 1), frame(BROADCAST, A, 2), *traced], 0)
    lost = [r for r in b.engine.records("hosts/h1/switches/s1") if r.told.decision.drop is DropReason.QUEUE_FULL]
    assert sorted(r.head[14:16] for r in lost) == [b"\0\2", b"\0\3", b"\0\4"]
    assert all(r.told.steps[-1].detail.endswith("ports/p2") for r in lost)


def test_a_sampled_frame_is_recorded_once(bench: Any) -> None:
    """One that passes is not the first of its second besides, nor is one that is dropped the first of its reason."""
    b = bench()
    b.port(2)
    b.engine.add_port("hosts/h1/switches/s1", 1, "hosts/h1/switches/s1/ports/p1", 0, True)
    b.engine.attach(1, type(b.sinks[2])(), 0, Takes())
    record = bytes(range(16)) + bytes(8) + b"\x01" + bytes(7)
    b.engine.transmit(1, [laden(frame(BROADCAST, source), None, record) for source in (A, BROADCAST)], 0)
    found = [record.told.decision.drop for record in b.engine.records("hosts/h1/switches/s1")]
    assert found == [DropReason.SOURCE_INVALID, None]


def test_records_are_bounded_and_go_with_their_switch(bench: Any) -> None:
    """The oldest makes room, and a switch of the same name begins anew."""
    b = bench()
    b.port(1)
    b.port(2)
    for second in range(MAX_RECORDS + 5):
        b.engine.transmit(1, [frame(BROADCAST, A)], second * SECOND_NS)
    records = b.engine.records("hosts/h1/switches/s1")
    assert (len(records), records[0].number, records[-1].number) == (MAX_RECORDS, MAX_RECORDS + 5, 6)
    for slot in (1, 2):
        b.engine.remove_port(slot, 0)
    b.engine.remove_switch("hosts/h1/switches/s1")
    b.engine.add_switch("hosts/h1/switches/s1", SwitchDefinition("s1"))
    assert b.engine.records("hosts/h1/switches/s1") == []


def test_a_vlan_counts_what_its_ports_counted_while_they_were_in_it(bench: Any) -> None:
    """Frames and drops stay with the VLAN when a port moves, and when it is gone; a slot's next port begins anew."""
    b = bench()
    for slot, vlan in ((1, 5), (2, 5), (3, 7)):
        b.port(slot, vlan)
    b.reached(1, frame(BROADCAST, A))
    b.reached(1, RUNT)
    b.engine.set_vlan(1, 7, 0)
    b.reached(1, frame(BROADCAST, A))
    b.engine.remove_port(1, 0)
    b.port(1, 7)
    b.reached(1, frame(BROADCAST, A))
    counted = b.engine.vlan_counters("hosts/h1/switches/s1")
    found = [(v, c.received_frames, c.received_bytes, c.sent_frames, c.flooded_frames, c.drops) for v, c in counted]
    assert found == [(5, 2, 73, 1, 1, {DropReason.RUNT: 1}), (7, 2, 120, 2, 2, {})]


def test_changes_of_ports_are_told(bench: Any) -> None:
    """A carrier, a link, a broken cable and another VLAN are changes; what stays as it is is none."""
    b = bench()
    told: list[int] = []
    b.engine.port_changed = told.append
    sink = b.port(1)
    b.port(2, attach=False)
    b.engine.set_link(2, False, 0)
    b.engine.set_link(2, False, 0)
    b.engine.break_link(1, True, 0)
    b.engine.set_vlan(1, 9, 0)
    b.engine.detach(1, sink, 0)
    assert told == [1, 2, 1, 1, 1]
