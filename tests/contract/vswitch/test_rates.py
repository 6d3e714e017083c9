"""What an engine owes to rates: storm control, shapers and their times, loops that are found and shut."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_kit.rng import Rng
from lamina_vswitch.domain.policy.loops import PROBE_TYPE
from lamina_vswitch.domain.policy.settings import LoopDetection, PolicyInForce, Security, Shaping, StormControl

SWITCH = "hosts/h1/switches/s1"
MS = 1_000_000
SECOND_NS = 1000 * MS
A, B, C = (bytes([2, 0, 0, 0, 0, number]) for number in (10, 11, 12))
ALL = b"\xff" * 6
GROUP = b"\x01\x00\x5e\x00\x00\x05"


def frame(dst: bytes, src: bytes, size: int = 64) -> bytes:
    """Return a frame of a size."""
    return (dst + src + b"\x08\x00").ljust(size, b"\0")


def let(made: Any, slot: int, now_ns: int = 0, **parts: Any) -> None:
    """Let a policy hold for a port in VLAN 0."""
    made.engine.set_policy(slot, 0, PolicyInForce(**parts), now_ns)


def watch(made: Any, now_ns: int = 0, **detection: int) -> None:
    """Watch the switch for loops."""
    made.engine.set_loop_detection(SWITCH, LoopDetection(**detection), Rng("probes"), now_ns)


def came(made: Any, slot: int) -> int:
    """Return how many frames came out of a port since the last call."""
    return len(made.sinks[slot].take())


@pytest.fixture
def made(bench: Any) -> Any:
    """Returns an engine with three ports, if it has policies."""
    made = bench()
    if "policies" not in made.engine.capabilities:
        pytest.skip("the engine has no policies")
    for slot in (1, 2, 3):
        made.port(slot)
    return made


def test_storm_control_bounds_each_class_by_itself(made: Any) -> None:
    """A second's worth passes at once, then the rate; known unicast and link-local frames are none of its business."""
    let(made, 1, storm_control=StormControl(10, 20, 5))
    made.engine.transmit(2, [frame(ALL, B)], 0)
    made.sinks[3].take()
    made.engine.transmit(1, [frame(dst, A) for dst in (ALL, GROUP, C) for _ in range(30)], 0)
    assert (came(made, 3), made.drops(1)) == (35, {"STORM": 55})
    made.engine.transmit(1, [frame(B, A)] * 50 + [frame(b"\x01\x80\xc2\0\0\x03", A)], 0)
    assert made.drops(1) == {"STORM": 55, "LINK_LOCAL": 1}
    assert made.engine.trace(1, frame(ALL, A), 99 * MS).steps[-2].rule == "storm.above_rate"
    assert made.engine.trace(1, frame(ALL, A), 100 * MS).decision.drop is None
    made.engine.transmit(1, [frame(ALL, A)] * 2, 100 * MS)
    assert came(made, 3) == 1


def test_a_storm_that_lasts_shuts_its_port(made: Any) -> None:
    """A second of calm begins anew; drops that go on for longer than allowed shut the port, and nobody opens it."""
    let(made, 1, storm_control=StormControl(1, shut_after_ns=2 * SECOND_NS))
    burst = [frame(ALL, A)] * 3
    for now_ns in (0, 900 * MS, 1800 * MS, 2900 * MS, 3800 * MS, 4700 * MS):
        made.engine.transmit(1, burst, now_ns)
        assert made.engine.shut(1) is None
    assert made.engine.trace(1, frame(ALL, A), 4901 * MS).decision.shutting is not None
    made.engine.transmit(1, burst, 4901 * MS)
    shut = made.engine.shut(1)
    assert (shut.reason.name, shut.since_ns, shut.peer) == ("STORM", 4901 * MS, "")
    made.engine.advance(10**15)
    for slot in (2, 3):
        made.sinks[slot].take()
    assert made.reached(1, frame(B, A), 10**15) == {}
    assert made.drops(1)["PORT_SHUT"] == 3


def test_frames_leave_a_shaper_when_their_bits_may(made: Any) -> None:
    """The bucket goes at the peak rate, the rest at the average; each at its own time, which the engine names."""
    times: list[int | None] = []
    made.engine.timer = times.append
    let(made, 2, egress_shaping=Shaping(8_000_000, 80_000_000, 10_000))
    made.engine.transmit(1, [frame(ALL, A, 1000)] * 13, 0)
    assert (came(made, 2), came(made, 3), times[-1]) == (1, 13, 100_000)
    for count in range(1, 10):
        made.engine.advance(count * 100_000)
        assert came(made, 2) == 1
    assert times[-1] == 1_000_000
    made.engine.advance(times[-1] - 1)
    assert came(made, 2) == 0
    made.engine.advance(3_000_000)
    assert came(made, 2) == 3
    assert times.pop() is None
    assert made.engine.counters(2).sent_frames == 13


def test_a_task_that_fails_keeps_no_other_from_its_time(made: Any) -> None:
    """A defect where frames leave one shaper is raised; what is due beside it is still due, and the engine says so."""
    times: list[int | None] = []
    made.engine.timer = times.append
    for slot in (2, 3):
        let(made, slot, egress_shaping=Shaping(8_000_000, 80_000_000, 10_000))
    made.engine.transmit(1, [frame(ALL, A, 1000)] * 2, 0)
    assert (came(made, 2), came(made, 3), times[-1]) == (1, 1, 100_000)
    made.sinks[2].deliver = None  # not a device, so that calling it fails
    with pytest.raises(TypeError):
        made.engine.advance(100_000)
    assert times[-1] == 100_000
    made.engine.advance(100_000)
    assert came(made, 3) == 1 and times.pop() is None


def test_probes_go_on_after_one_failed(made: Any) -> None:
    """A defect at a port that gets a probe is raised, and the next round of probes has its time."""
    times: list[int | None] = []
    made.engine.timer = times.append
    made.sinks[1].deliver = None
    watch(made, probe_interval_ns=SECOND_NS)
    with pytest.raises(TypeError):
        made.engine.advance(0)
    assert times[-1] == SECOND_NS
    del made.sinks[1].deliver
    made.engine.advance(SECOND_NS)
    assert (came(made, 1), times[-1]) == (1, 2 * SECOND_NS)


def test_a_shaper_without_room_drops(made: Any) -> None:
    """1024 frames wait each way; further ones are dropped at the port whose shaping it is, as the trace says."""
    slow = Shaping(8_000, 0, 9018)
    let(made, 2, egress_shaping=slow)
    let(made, 1, ingress_shaping=slow)
    sent = made.engine.transmit(1, [frame(ALL, A, 9018 // 8)] * 1100, 0)
    assert (came(made, 3), sent, made.drops(1)) == (8, 68, {"SHAPED": 68})
    assert made.engine.trace(1, frame(ALL, A), 0).steps[-2].rule == "shape.queue_full"
    let(made, 1)
    assert (came(made, 3), came(made, 2), made.drops(2)) == (1024, 8, {})
    made.engine.transmit(3, [frame(ALL, C)], 0)
    assert made.drops(2) == {"SHAPED": 1}
    assert made.engine.trace(3, frame(ALL, C), 0).outputs == (f"{SWITCH}/ports/p1",)
    made.engine.set_link(2, False, 0)
    assert made.drops(2) == {"SHAPED": 1025}


def test_shaped_frames_meet_the_switch_when_they_leave(made: Any) -> None:
    """What waits at the way in is not learned yet, and meets what holds when its time has come."""
    let(made, 1, ingress_shaping=Shaping(8_000, 0, 9018))
    made.engine.transmit(1, [frame(ALL, A, 1514)] * 5 + [frame(ALL, B, 1514)] * 2, 0)
    assert [mac for _, mac, _ in made.table()] == [A]
    made.engine.advance(3 * SECOND_NS)
    assert [mac for _, mac, _ in made.table(3 * SECOND_NS)] == [A, B]
    made.engine.transmit(1, [frame(ALL, C, 1514)], 3 * SECOND_NS)
    made.engine.detach(1, made.sinks[1], 3 * SECOND_NS)
    assert made.drops(1) == {"SHAPED": 1}


def test_a_probe_that_comes_back_shuts_the_higher_port(made: Any) -> None:
    """Both ends are named, the loop is tried again after its time, and shut again while it is there."""
    watch(made, probe_interval_ns=SECOND_NS, reopen_after_ns=5 * SECOND_NS)
    made.engine.advance(0)
    probes = {slot: made.sinks[slot].take() for slot in (1, 2, 3)}
    assert [(len(sent), sent[0][12:14], len(sent[0])) for sent in probes.values()] == [(1, b"\x88\xb5", 60)] * 3
    assert made.engine.trace(1, probes[3][0], 7).steps[-2].rule == "loop.probe"
    assert made.engine.shut(3) is None
    made.engine.transmit(1, probes[3], 7)
    shut = made.engine.shut(3)
    assert (shut.reason.name, shut.since_ns, shut.peer) == ("LOOP", 7, f"{SWITCH}/ports/p1")
    assert made.drops(1) == {"LOOP_PROBE": 1}
    made.engine.advance(5 * SECOND_NS)
    assert (came(made, 1), came(made, 3)) == (1, 0)
    made.engine.advance(5 * SECOND_NS + 7)
    assert made.engine.shut(3) is None
    made.engine.advance(6 * SECOND_NS)
    made.engine.transmit(3, made.sinks[2].take()[-1:], 6 * SECOND_NS)
    assert made.engine.shut(3).peer == f"{SWITCH}/ports/p2"


def test_only_real_probes_shut(made: Any) -> None:
    """A probe that is changed, is older than four rounds, or comes from elsewhere, is an ordinary frame."""
    watch(made, probe_interval_ns=SECOND_NS)
    made.engine.advance(0)
    probe, _, _ = (made.sinks[slot].take()[0] for slot in (2, 1, 3))
    forged = [probe[:14] + bytes(46), probe[:23] + bytes(37), probe[:20], probe[:15] + bytes(8) + probe[23:]]
    for each in forged:
        assert list(made.reached(1, each)) == [2, 3]
    for round_ in range(1, 5):
        made.engine.advance(round_ * SECOND_NS)
    later = [made.sinks[slot].take()[-1] for slot in (1, 2, 3)]
    assert list(made.reached(1, probe)) == [2, 3]
    assert (made.engine.shut(2), int.from_bytes(probe[12:14], "big")) == (None, PROBE_TYPE)
    made.engine.set_loop_detection(SWITCH, None, Rng(0), 4 * SECOND_NS)
    assert list(made.reached(1, later[1], 4 * SECOND_NS)) == [2, 3]


def test_a_port_that_hears_itself_is_shut(made: Any) -> None:
    """A reflecting cable is a loop with one end."""
    watch(made)
    made.engine.advance(0)
    made.engine.transmit(2, made.sinks[2].take(), 0)
    assert made.engine.shut(2).peer == f"{SWITCH}/ports/p2"


@pytest.mark.parametrize(("step_ns", "found"), [(30 * MS, True), (33 * MS, False)])
def test_an_address_that_jumps_shows_a_loop(made: Any, step_ns: int, found: bool) -> None:
    """32 moves between the same two ports within a second are one; slower ones are a device that travels."""
    watch(made, probe_interval_ns=3600 * SECOND_NS)
    for turn in range(40):
        made.engine.transmit(3 if turn % 2 else 1, [frame(ALL, A)], turn * step_ns)
    assert (made.engine.shut(3) is not None, made.engine.shut(1)) == (found, None)
    if found:
        assert made.engine.shut(3).since_ns == 32 * step_ns


def test_the_mac_flood_of_a_second_stays_within_its_bounds(made: Any) -> None:
    """100,000 addresses in a second: the table and the port keep their limits, and each frame has its reason."""
    # an engine with a time of its own gets as many as fill the table: each frame costs it some system calls
    flood = 100_000 if "given-time" in made.engine.capabilities else 12_000
    let(made, 1, security=Security(mac_limit=100))
    for start in range(0, flood, 1000):
        for slot, count in ((1, 100), (2, 1000)):
            sources = (bytes([2, slot]) + number.to_bytes(4, "big") for number in range(start, start + count))
            made.engine.transmit(slot, [frame(ALL, source) for source in sources], start * 10_000)
            made.sinks[3].frames.clear()
    assert made.drops(1) == {"MAC_LIMIT": flood // 10 - 100}
    tally = made.engine.tally(SWITCH, SECOND_NS)
    assert (tally.mac_entries, tally.mac_refusals) == (8192, flood + 100 - 8192)


def test_what_waits_for_a_held_port_outlives_its_device(made: Any) -> None:
    """A device that moves while frames wait for its shaper finds them in the hold, at their times."""
    if "hold-frames" not in made.engine.capabilities:
        pytest.skip("the engine holds no frames")
    let(made, 2, egress_shaping=Shaping(8_000, 0, 9018))
    made.engine.transmit(1, [frame(ALL, A, 1514)] * 6, 0)
    made.engine.quiesce(2, 16, 0)
    made.engine.detach(2, made.sinks[2], 0)
    made.engine.advance(10 * SECOND_NS)
    assert (len(made.engine.hold(2)), made.drops(2)) == (1, {})


def test_what_comes_behind_a_probe_in_its_batch_meets_shut_ports(made: Any) -> None:
    """A port that a frame has shut gets nothing more of the batch, and one that was shut itself sends no more of it."""
    flood, back = frame(ALL, A), frame(ALL, B)
    for slot, mac in ((1, A), (3, C)):
        made.engine.add_static(SWITCH, 0, mac, slot, 0)
    watch(made)
    made.engine.advance(0)
    probes = [made.sinks[slot].take()[0] for slot in (1, 2, 3)]
    made.engine.transmit(1, [flood, probes[2], flood], 0)
    assert (came(made, 2), came(made, 3), made.engine.shut(3).peer[-2:]) == (2, 1, "p1")
    made.engine.transmit(2, [back, probes[0], back], 0)
    assert (came(made, 1), made.drops(2)) == (1, {"LOOP_PROBE": 1, "PORT_SHUT": 1})


def test_what_waits_at_a_port_goes_with_its_hold(made: Any) -> None:
    """Without a device the hold alone keeps a port up: when it ends, frames that wait for the shaper are dropped."""
    if "hold-frames" not in made.engine.capabilities:
        pytest.skip("the engine holds no frames")
    let(made, 2, egress_shaping=Shaping(8_000, 0, 9018))
    made.engine.transmit(1, [frame(ALL, A, 1500)] * 9, 0)
    assert came(made, 2) == 6
    made.engine.quiesce(2, 100, 0)
    made.engine.detach(2, made.sinks[2], 0)
    assert made.engine.release(2, 0) == 0
    assert made.drops(2) == {"SHAPED": 3}
    made.engine.advance(10**15)
