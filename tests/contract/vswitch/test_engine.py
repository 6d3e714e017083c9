"""What every vswitch engine does: switching, learning, VLANs, drops with reasons, links, traces."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_kit.errors import FailedPrecondition, ResourceExhausted
from lamina_vswitch.domain.definitions.switches import SwitchDefinition

SWITCH = "hosts/h1/switches/s1"
SECOND_NS = 1_000_000_000
A = bytes.fromhex("020000000001")
B = bytes.fromhex("020000000002")
C = bytes.fromhex("020000000003")
BROADCAST = b"\xff" * 6


def frame(dst: bytes, src: bytes, tag: str = "") -> bytes:
    """Return a frame with an IPv4 EtherType, tagged if wanted."""
    return dst + src + bytes.fromhex(tag) + b"\x08\x00" + bytes(46)


def test_it_says_what_it_can(bench: Any) -> None:
    """Capabilities are named in alphabetical order, and an engine that can run misses nothing."""
    engine = bench().engine
    assert list(engine.capabilities) == sorted(engine.capabilities)
    assert engine.missing() == []


def test_unknown_unicast_is_flooded_and_known_unicast_is_not(bench: Any) -> None:
    """The first frame goes everywhere but back; once the answer was seen, frames go to one port."""
    b = bench()
    for slot in (1, 2, 3):
        b.port(slot)
    assert b.reached(1, frame(B, A)) == {2: [frame(B, A)], 3: [frame(B, A)]}
    assert b.reached(2, frame(A, B)) == {1: [frame(A, B)]}
    assert b.reached(1, frame(B, A)) == {2: [frame(B, A)]}
    assert b.engine.counters(1).flooded_frames == 1


@pytest.mark.parametrize("dst", [BROADCAST, bytes.fromhex("01005e0000fb"), bytes.fromhex("0180c2000000")])
def test_group_addresses_reach_everybody_else(bench: Any, dst: bytes) -> None:
    """Broadcast and multicast frames go to every other port, and are never learned as a destination."""
    b = bench()
    for slot in (1, 2, 3):
        b.port(slot)
    assert sorted(b.reached(1, frame(dst, A))) == [2, 3]
    assert b.table() == [(0, A, 1)]


def test_a_frame_never_returns_to_its_port(bench: Any) -> None:
    """A destination behind the same port is filtered, with its reason."""
    b = bench()
    b.port(1)
    b.port(2)
    b.reached(1, frame(BROADCAST, A))
    assert b.reached(1, frame(A, B)) == {}
    assert b.drops(1) == {"SAME_PORT": 1}


def test_vlans_are_separate_switches(bench: Any) -> None:
    """Broadcasts, floods and learned addresses of one VLAN do not exist in another; equal VLANs share all."""
    b = bench()
    for slot, vlan in ((1, 100), (2, 100), (3, 200), (4, 200), (5, 100)):
        b.port(slot, vlan)
    assert sorted(b.reached(1, frame(BROADCAST, A))) == [2, 5]
    assert sorted(b.reached(3, frame(BROADCAST, A))) == [4]
    assert b.table() == [(100, A, 1), (200, A, 3)]
    assert b.reached(2, frame(A, B)) == {1: [frame(A, B)]}
    assert b.reached(4, frame(B, C)) == {3: [frame(B, C)]}


@pytest.mark.parametrize(("tag", "passes"), [("81000064", True), ("8100a000", True), ("810000c8", False)])
def test_access_ports_take_their_own_tag_off_and_refuse_others(bench: Any, tag: str, passes: bool) -> None:
    """A frame with the port's VLAN id or none in its tag leaves untagged; any other VLAN id is a mismatch."""
    b = bench()
    b.port(1, 100)
    b.port(2, 100)
    b.port(3, 200)
    expected = {2: [frame(BROADCAST, A)]} if passes else {}
    assert b.reached(1, frame(BROADCAST, A, tag)) == expected
    assert b.drops(1) == ({} if passes else {"VLAN_MISMATCH": 1})
    assert b.table() == ([(100, A, 1)] if passes else [])


def test_provider_tags_pass_untouched(bench: Any) -> None:
    """An 802.1ad tag is payload to an access port."""
    b = bench()
    b.port(1, 100)
    b.port(2, 100)
    assert b.reached(1, frame(BROADCAST, A, "88a80064")) == {2: [frame(BROADCAST, A, "88a80064")]}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "RUNT"),
        (bytes(13), "RUNT"),
        (frame(B, A)[:14] + bytes(577), "OVERSIZE"),
        (frame(B, A, "81000000")[:18] + bytes(577), "OVERSIZE"),
        (frame(B, A, "81000000")[:17], "VLAN_TRUNCATED"),
        (frame(B, BROADCAST), "SOURCE_INVALID"),
        (frame(B, bytes(6)), "SOURCE_INVALID"),
        (frame(bytes.fromhex("0180c200000e"), A), "LINK_LOCAL"),
    ],
)
def test_bad_frames_are_dropped_with_their_reason(bench: Any, bad: bytes, reason: str) -> None:
    """Runts, giants, cut tags, impossible sources and link-local destinations go nowhere, and are counted."""
    b = bench(mtu_bytes=576)
    b.port(1)
    b.port(2)
    assert b.reached(1, bad) == {}
    assert b.drops(1) == {reason: 1}
    assert b.engine.counters(1).received_frames == 1


def test_the_longest_frames_pass(bench: Any) -> None:
    """MTU bytes of payload pass, and a tag on top of them does too."""
    b = bench(mtu_bytes=9000)
    b.port(1)
    b.port(2)
    longest = frame(B, A)[:14] + bytes(9000)
    assert b.reached(1, longest) == {2: [longest]}
    assert b.reached(1, longest[:12] + bytes.fromhex("81000000") + longest[12:]) == {2: [longest]}


def test_entries_age(bench: Any) -> None:
    """An address is known for the ageing time after its last frame, and not longer; its age is shown."""
    b = bench(ageing_seconds=2)
    b.needs("given-time")
    for slot in (1, 2, 3):
        b.port(slot)
    b.reached(1, frame(BROADCAST, A), 0)
    b.reached(1, frame(BROADCAST, A), SECOND_NS)
    assert [entry.age_ns for entry in b.engine.mac_entries(SWITCH, 3 * SECOND_NS - 1)] == [2 * SECOND_NS - 1]
    assert sorted(b.reached(2, frame(A, B), 3 * SECOND_NS - 1)) == [1]
    assert sorted(b.reached(2, frame(A, B), 3 * SECOND_NS)) == [1, 3]


def test_an_address_that_moves_is_followed_and_noted(bench: Any) -> None:
    """After a station spoke from another port, frames go there; the move is counted and noted with both ports."""
    b = bench()
    for slot in (1, 2, 3):
        b.port(slot)
    b.reached(1, frame(BROADCAST, A))
    b.reached(2, frame(BROADCAST, A))
    assert b.reached(3, frame(A, B)) == {2: [frame(A, B)]}
    assert b.engine.tally(SWITCH, 0).mac_moves == 1
    (notice,) = [notice for notice in b.notices if notice.event == "mac.moved"]
    assert notice.object == SWITCH
    assert dict(notice.inputs) == {
        "count": "1",
        "from": f"{SWITCH}/ports/p1",
        "mac": "02:00:00:00:00:01",
        "to": f"{SWITCH}/ports/p2",
        "vlan": "0",
    }


def test_a_full_table_still_forwards(bench: Any) -> None:
    """An address that finds no place is flooded to, counted and noted once a second, and what is known stays known."""
    b = bench(mac_limit=1)
    for slot in (1, 2, 3):
        b.port(slot)
    b.reached(1, frame(BROADCAST, A))
    flood = [frame(A, bytes([2, 0, 0, 0, 1, number])) for number in range(200)]
    b.engine.transmit(2, flood, 0)
    assert len(b.sinks[1].take()) == 200
    assert b.table() == [(0, A, 1)]
    assert b.engine.tally(SWITCH, 0).mac_refusals == 200
    assert [dict(n.inputs)["count"] for n in b.notices if n.event == "mac.refused"] == ["200"]


def test_static_entries_stay(bench: Any) -> None:
    """A static entry neither ages nor moves; a spoofed frame passes all the same, and is noted."""
    b = bench(ageing_seconds=1)
    for slot in (1, 2, 3):
        b.port(slot)
    b.engine.add_static(SWITCH, 0, A, 1, 0)
    late = 10 * SECOND_NS
    assert sorted(b.reached(2, frame(BROADCAST, A), late)) == [1, 3]
    assert b.reached(3, frame(A, C), late) == {1: [frame(A, C)]}
    entry = b.engine.mac_entry(SWITCH, 0, A, late)
    assert (entry.slot, entry.static, entry.age_ns) == (1, True, 0)
    assert [notice.event for notice in b.notices] == ["mac.spoofed", "mac.learned"]


def test_a_static_entry_needs_a_place(bench: Any) -> None:
    """A full table refuses a static entry with its reason."""
    b = bench(mac_limit=1)
    b.port(1)
    b.engine.add_static(SWITCH, 0, A, 1, 0)
    with pytest.raises(ResourceExhausted) as caught:
        b.engine.add_static(SWITCH, 0, B, 1, 0)
    assert caught.value.reason == "MAC_TABLE_FULL"


def test_a_static_entry_to_a_dead_port_drops(bench: Any) -> None:
    """Frames for a static entry are not flooded when its port is not up or left the VLAN: they are dropped, counted."""
    b = bench()
    b.port(1)
    b.port(2)
    b.port(3)
    b.engine.add_static(SWITCH, 0, A, 2, 0)
    b.engine.set_link(2, False, 0)
    assert b.reached(1, frame(A, C)) == {}
    b.engine.set_link(2, True, 0)
    b.engine.set_vlan(2, 7, 0)
    assert b.reached(1, frame(A, C)) == {}
    assert b.drops(1) == {"DESTINATION_DOWN": 2}


def test_links_and_carriers_gate_traffic(bench: Any) -> None:
    """Only ports that are attached with their link up send or receive; a port that goes down is forgotten."""
    b = bench()
    for slot in (1, 2, 3):
        b.port(slot)
    b.reached(1, frame(BROADCAST, A))
    b.engine.set_link(1, False, 0)
    assert b.sinks[1].links == [False]
    assert b.table() == []
    assert b.reached(1, frame(BROADCAST, A)) == {}
    assert b.drops(1) == {"LINK_DOWN": 1}
    assert sorted(b.reached(2, frame(BROADCAST, B))) == [3]
    b.engine.set_link(1, True, 0)
    assert sorted(b.reached(2, frame(A, B))) == [1, 3]
    assert b.engine.detach(3, b.sinks[3], 0)
    assert not b.engine.detach(3, b.sinks[3], 0)
    assert sorted(b.reached(2, frame(A, B))) == [1]
    assert b.engine.attached(1) and not b.engine.attached(3)


def test_a_lonely_port_floods_to_nobody(bench: Any) -> None:
    """A flood without any other port is a drop with its reason."""
    b = bench()
    b.port(1)
    b.port(2, 5)
    assert b.reached(1, frame(BROADCAST, A)) == {}
    assert b.drops(1) == {"NO_DESTINATION": 1}


def test_only_one_sink_holds_a_port(bench: Any) -> None:
    """A second attach is refused, and the first sink still receives."""
    b = bench()
    b.port(1)
    b.port(2)
    with pytest.raises(FailedPrecondition) as caught:
        b.engine.attach(1, b.sinks[2], 0)
    assert caught.value.reason == "PORT_ATTACHED"
    assert sorted(b.reached(2, frame(BROADCAST, B))) == [1]


def test_a_full_queue_drops_at_the_receiver(bench: Any) -> None:
    """What a sink does not take is counted at its port, once a copy, and every other port still gets its own."""
    b = bench()
    b.port(1)
    b.port(2, room=2)
    b.port(3)
    frames = [frame(BROADCAST, A)] * 5
    b.engine.transmit(1, frames, 0)
    assert b.sinks[2].take() == frames[:2]
    assert b.sinks[3].take() == frames
    counters = b.engine.counters(2)
    assert (counters.sent_frames, counters.sent_bytes) == (2, 120)
    assert b.drops(2) == {"QUEUE_FULL": 3}
    assert b.drops(1) == {}


def test_removing_a_port_forgets_it(bench: Any) -> None:
    """Its sink learns of it, its entries go, static ones too, and its slot can be used again."""
    b = bench()
    b.port(1)
    b.port(2)
    b.reached(1, frame(BROADCAST, A))
    b.engine.add_static(SWITCH, 0, B, 1, 0)
    b.engine.remove_port(1, 0)
    assert b.sinks[1].gone
    assert b.table() == []
    sink = b.port(1)
    assert sorted(b.reached(2, frame(A, C))) == [1]
    assert b.engine.counters(1).received_frames == 0
    assert not sink.gone


def test_switches_do_not_see_each_other(bench: Any) -> None:
    """Two switches of a host share nothing but the table of slots."""
    b = bench()
    other = "hosts/h1/switches/s2"
    b.engine.add_switch(other, SwitchDefinition("s2"))
    b.port(1)
    b.port(2)
    b.engine.add_port(other, 3, f"{other}/ports/p3", 0, True)
    b.sinks[3] = type(b.sinks[1])()
    b.engine.attach(3, b.sinks[3], 0)
    assert sorted(b.reached(1, frame(BROADCAST, A))) == [2]
    assert b.engine.mac_entries(other, 0) == []
    b.engine.remove_port(3, 0)
    b.engine.remove_switch(other)
    assert sorted(b.reached(1, frame(BROADCAST, A))) == [2]


def test_flushing_says_how_much_it_forgot(bench: Any) -> None:
    """A flush of a VLAN and port forgets just their live dynamic entries."""
    b = bench()
    b.port(1, 10)
    b.port(2, 10)
    b.port(3, 20)
    for slot, mac in ((1, A), (2, B), (3, C)):
        b.engine.transmit(slot, [frame(BROADCAST, mac)], 0)
    assert b.engine.flush(SWITCH, 10, 1, 0) == 1
    assert b.engine.flush(SWITCH, 10, 3, 0) == 0
    assert b.engine.flush(SWITCH, None, None, 0) == 2
    assert b.engine.remove_mac(SWITCH, 10, A, 0) is False


def test_a_trace_tells_the_rules_and_changes_nothing(bench: Any) -> None:
    """A trace names every stage up to the output, and leaves table and counters as they were."""
    b = bench()
    if "trace-frame" not in b.engine.capabilities:
        pytest.skip("the engine has no trace-frame")
    for slot in (1, 2, 3):
        b.port(slot, 100)
    b.reached(2, frame(BROADCAST, B))
    told = b.engine.trace(1, frame(B, A, "81000064"), 0)
    assert told.outputs == (f"{SWITCH}/ports/p2",)
    assert told.vlan == 100
    assert told.frame == frame(B, A)
    assert [step.rule for step in told.steps] == [
        "ingress.port_up",
        "parse.accepted",
        "vlan.own_tag",
        "source.station",
        "learn.new",
        "lookup.known_unicast",
        "output.forward",
    ]
    assert b.table() == [(100, B, 2)]
    assert b.engine.counters(1).received_frames == 0


@pytest.mark.parametrize(
    ("what", "last"),
    [
        (b"", ("parse.refused", "output.drop_runt")),
        (frame(B, A, "81000005"), ("vlan.mismatch", "output.drop_vlan_mismatch")),
        (frame(B, BROADCAST), ("source.invalid", "output.drop_source_invalid")),
        (frame(bytes.fromhex("0180c2000003"), A), ("lookup.link_local", "output.drop_link_local")),
        (frame(A, A), ("lookup.known_unicast", "output.drop_same_port")),
        (frame(BROADCAST, A), ("lookup.group", "output.flood")),
        (frame(C, A), ("lookup.unknown_unicast", "output.flood")),
    ],
)
def test_a_trace_ends_with_the_rule_that_decided(bench: Any, what: bytes, last: tuple[str, str]) -> None:
    """The step before the output is the one that decided."""
    b = bench()
    if "trace-frame" not in b.engine.capabilities:
        pytest.skip("the engine has no trace-frame")
    b.port(1)
    b.port(2)
    steps = b.engine.trace(1, what, 0).steps
    assert (steps[-2].rule, steps[-1].rule) == last


def test_drops_are_noted_once_a_second_with_their_number(bench: Any) -> None:
    """A storm of bad frames writes one event a second and reason, which says how many it stands for."""
    b = bench()
    b.port(1)
    for turn in range(20):
        b.engine.transmit(1, [b"runt"] * 10, turn * SECOND_NS // 10)
    counts = [dict(notice.inputs)["count"] for notice in b.notices if notice.event == "frame.dropped.runt"]
    assert counts == ["10", "100"]
