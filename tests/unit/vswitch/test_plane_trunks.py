"""Trunks in the compiled plane: where rings are left to Python, and what is kept of VLANs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lamina_kit.rng import Rng
from lamina_vswitch.domain.definition import SwitchDefinition
from lamina_vswitch.domain.drop import DropReason
from lamina_vswitch.domain.laden import load_of
from lamina_vswitch.domain.offload.takes import ALL, Takes
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.plane import vlans
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.memory_ring import MemoryRing, RingSink
from lamina_vswitch.plane.switching import Plane

SWITCH = "hosts/h1/switches/s1"
A, B = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")
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
