"""Trunks in the compiled plane: where rings are left to Python, and what is kept of VLANs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from lamina_kit.rng import Rng
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.metadata import load_of
from lamina_vswitch.domain.offload.features import ALL, Takes
from lamina_vswitch.domain.offload.flow_hash import flow_hash
from lamina_vswitch.domain.policy.settings import PolicyInForce, Security
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.port.ring_layout import FIRST_SLOT, FRAME, Geometry
from lamina_vswitch.domain.uplink.teaming import Balancing, Team, choose
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.plane import vlans
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.compiled import layout
from lamina_vswitch.plane.memory_ring import MemoryRing, RingSink
from lamina_vswitch.plane.switching import Plane

SWITCH = "hosts/h1/switches/s1"
A, B, C = (bytes.fromhex(f"02000000000{last}") for last in "abc")
TAG = bytes.fromhex("8100000a")
REST = b"\x08\x00" + bytes(46)


class Heard(RingSink):
    """A ring that notes what Python writes into it."""

    def __init__(self, ring: MemoryRing) -> None:
        super().__init__(ring)
        self.by_python: list[bytes] = []

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Note the frames."""
        self.by_python.extend(frames)
        return super().deliver(frames)


def bench(mtu_bytes: int = 1500, takes: Takes | None = None) -> tuple[ModelEngine, Plane, Heard]:
    """Return a switch with an access port of VLAN 10 and a trunk, and the trunk's ring."""
    engine = ModelEngine(lambda notice: None)
    engine.add_switch(SWITCH, SwitchDefinition("s1", mtu_bytes=mtu_bytes))
    heard = Heard(MemoryRing.alone(64, 2048))
    for slot, sink in ((1, RingSink(MemoryRing.alone(64, 2048))), (2, heard)):
        engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", 10 if slot == 1 else 0, True)
        engine.attach(slot, sink, 0, takes if slot == 2 else None)
    engine.set_policy(2, 0, PolicyInForce(trunk=Trunk()), 0)
    return engine, Plane(engine, 5), heard


def test_a_trunk_s_ring_is_written_by_compiled_code() -> None:
    """The tag is put on where the frame is copied, and its VLAN is counted."""
    engine, plane, heard = bench()
    assert plane.transmit(1, Burst.of([B + A + REST]), 0) == 0
    assert heard.ring.pop() == [B + A + TAG + REST] and not heard.by_python
    counted = dict(engine.vlan_counters(SWITCH))[10]
    assert (counted.received_frames, counted.sent_frames, counted.sent_bytes) == (1, 1, 64)
    assert dict(engine.vlan_counters(SWITCH))[10] == counted


def test_a_device_that_takes_tags_beside_frames_gets_them_from_python() -> None:
    """Its frames have the tag in their header, which compiled code does not write."""
    _, plane, heard = bench(takes=ALL)
    plane.transmit(1, Burst.of([B + A + REST]), 0)
    offload, _ = load_of(heard.by_python[0])
    assert bytes(heard.by_python[0]) == B + A + REST
    assert offload is not None and (offload.tag_type, offload.tag) == (0x8100, 10)


def test_a_ring_too_small_for_tags_is_left_to_python() -> None:
    """Nothing is written beyond a slot: the longest frame does not fit with its tag, and is counted."""
    engine, plane, heard = bench(mtu_bytes=1906)
    frames = [B + A + b"\x08\x00" + bytes(size) for size in (1902, 1903, 1906)]
    plane.transmit(1, Burst.of(frames), 0)
    assert heard.by_python == [frame[:12] + TAG + frame[12:] for frame in frames]
    assert heard.ring.pop() == heard.by_python[:1]
    assert engine.counters(2).drops_by_reason() == ((DropReason.QUEUE_FULL, 2),)


def test_what_is_kept_of_vlans_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trunk that hears of all VLANs has their tables made anew, and each frame goes where it belongs."""
    monkeypatch.setattr(vlans, "MOST_WORDS", 64)
    _, plane, heard = bench()
    rng = Rng("bounded")
    for _ in range(60):
        tag = b"\x81\x00" + rng.randrange(4095).to_bytes(2, "big")
        plane.transmit(2, Burst.of([B + A + tag + REST, A + B + TAG + REST]), 0)
        plane.transmit(1, Burst.of([b"\xff" * 6 + A + REST]), 0)
    assert heard.ring.pop() == [b"\xff" * 6 + A + TAG + REST] * 60


def team(uplinks: tuple[int, ...] = (3, 4), active: int = 2) -> tuple[ModelEngine, Plane, dict[int, MemoryRing]]:
    """Return a switch with ports 1 to 4 in one VLAN, some of them uplinks that share flows, and all rings."""
    engine = ModelEngine(lambda notice: None)
    engine.add_switch(SWITCH, SwitchDefinition("s1"))
    rings = {slot: MemoryRing.alone(64, 2048) for slot in range(1, 5)}
    for slot, ring in rings.items():
        engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", 0, True)
        engine.attach(slot, RingSink(ring), 0)
    for slot in uplinks:
        engine.set_uplink(slot, True, 0)
    engine.set_teams(SWITCH, {"": Team(Balancing.FLOW, uplinks[:active], uplinks[active:])}, 0)
    return engine, Plane(engine, 5), rings


def packet_to(uplink: int) -> bytes:
    """Return a packet in a frame of 64 bytes whose flow takes one of two uplinks."""
    start, end = bytes.fromhex("4500001c00000000401100000a0000010a000002"), bytes.fromhex("003500080000")
    frames = (B + A + b"\x08\x00" + start + port.to_bytes(2, "big") + end + bytes(22) for port in range(1000, 1100))
    return next(frame for frame in frames if choose((3, 4), flow_hash(frame)) == uplink)


def test_a_frame_that_is_rewritten_while_it_is_flooded_takes_the_uplink_that_was_decided() -> None:
    """Its memory is where the first copy goes: that makes it one for an uplink which is not for the plane."""
    engine, plane, rings = team()
    engine.set_policy(4, 0, PolicyInForce(security=Security(mac_limit=9)), 0)
    before, behind = packet_to(3), packet_to(4)
    engine.detach(2, engine.sink_at(2), 0)  # type: ignore[arg-type]
    memory = np.zeros(Geometry(1, 64, 2048).ring_bytes, np.uint8)
    engine.attach(2, RingSink(MemoryRing(memory, 0, Geometry(1, 64, 2048))), 0)
    at = FIRST_SLOT + FRAME + 64
    memory[at : at + 128] = np.frombuffer(before + behind, np.uint8)
    burst = Burst.at(memory, np.array([at]), np.array([128]))
    assert burst is not None and plane.transmit(1, burst, 0) == 0
    assert memory[at : at + 64].tobytes() == behind
    assert [rings[slot].waiting() for slot in (3, 4)] == [1, 0]


def test_a_static_station_behind_an_uplink_is_reached_there() -> None:
    """Also when its sender is known, and by a link that stands by for the others."""
    engine, plane, rings = team(active=1)
    engine.add_static(SWITCH, 0, B, 4, 0)
    plane.transmit(1, Burst.of([B + A + REST] * 3), 0)
    assert [rings[slot].waiting() for slot in (2, 3, 4)] == [0, 0, 3]


def test_a_priority_tag_keeps_its_drop_bit_where_a_vlan_is_filled_in() -> None:
    """Priority and DEI of a tag without a VLAN are those of the tag with one."""
    _, plane, heard = bench()
    plane.transmit(1, Burst.of([B + A + bytes.fromhex(f"8100{top}000") + REST for top in "1f"]), 0)
    assert heard.ring.pop() == [B + A + bytes.fromhex(f"8100{top}00a") + REST for top in "1f"] and not heard.by_python


def test_entries_of_trunks_are_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trunk where frames enter has them; with more trunks than fit they are made anew."""
    monkeypatch.setattr(vlans, "MOST_WORDS", 3 * layout.KEYS)
    engine, plane, heard = bench()
    for slot in range(3, 9):
        engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", 0, True)
        engine.attach(slot, RingSink(MemoryRing.alone(64, 2048)), 0)
        engine.set_policy(slot, 0, PolicyInForce(trunk=Trunk()), 0)
    for slot in range(3, 9):
        plane.transmit(slot, Burst.of([B + A + TAG + REST]), 0)
        kept = plane._rows._vlans[SWITCH]
        assert sum(found.size for found in [*kept._entries.values(), *kept._blocks]) <= 4 * layout.KEYS + (1 << 13)
    assert heard.ring.waiting() == 6


def test_a_switch_that_is_gone_leaves_no_tables() -> None:
    """What the plane knew of it goes when it meets another one."""
    engine, plane, _ = bench()
    plane.transmit(1, Burst.of([B + A + REST]), 0)
    for slot in (1, 2):
        engine.remove_port(slot, 0)
    engine.remove_switch(SWITCH)
    other = SWITCH + "b"
    engine.add_switch(other, SwitchDefinition("s1b"))
    engine.add_port(other, 1, f"{other}/ports/p1", 0, True)
    engine.attach(1, RingSink(MemoryRing.alone(64, 2048)), 0)
    plane.transmit(1, Burst.of([B + A + REST]), 0)
    assert [*plane._rows._vlans] == [*plane._rows._revisions] == [*plane._rows._floods] == [other]


@pytest.mark.parametrize("later", [0, 1 << 51])
def test_a_static_station_is_reached_for_ever_and_in_its_vlan_alone(later: int) -> None:
    """A known sender's frames go to the port of a static entry, and nowhere when that is in another VLAN."""
    engine, plane, rings = team(uplinks=())
    engine.set_vlan(3, 20, 0)
    engine.add_static(SWITCH, 0, B, 2, 0)
    engine.add_static(SWITCH, 0, C, 3, 0)
    assert plane.transmit(1, Burst.of([B + A + REST, C + A + REST] * 3), later) == 3
    assert [rings[slot].waiting() for slot in (2, 3, 4)] == [3, 0, 0]
    assert engine.counters(1).drops_by_reason() == ((DropReason.DESTINATION_DOWN, 3),)
