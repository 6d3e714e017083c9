"""Watching ports whose policy looks at frames: counters by VLAN at trunks, shapers, and ports that are shut."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_vswitch.domain.capture.mirror import MirrorDefinition, Tap
from lamina_vswitch.domain.capture.observer import Direction, accepted
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.metadata import NEEDS_CHECKSUM, Offload, laden
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.switch.topology import Port
from lamina_vswitch.domain.switch.vlan_counters import vlan_of

A = bytes.fromhex("020000000001")
B = bytes.fromhex("020000000002")
BROADCAST = b"\xff" * 6
SWITCH = "hosts/h1/switches/s1"
TRUNK = PolicyInForce(trunk=Trunk(ranges=((5, 9),), native=3))


def frame(dst: bytes, src: bytes, vlan: int | None = None) -> bytes:
    """Returns a frame, tagged with a VLAN if one is given."""
    tag = b"" if vlan is None else b"\x81\x00" + vlan.to_bytes(2, "big")
    return (dst + src + tag + b"\x88\xb5").ljust(60, b"\0")


def counted(bench: Any) -> dict[int, tuple[int, int, int, dict[str, int]]]:
    """Returns frames received, sent, flooded, and drops, by VLAN."""
    found = {}
    for vlan, one in bench.engine.vlan_counters(SWITCH):
        drops = {reason.name: frames for reason, frames in one.drops.items()}
        found[vlan] = (one.received_frames, one.sent_frames, one.flooded_frames, drops)
    return found


@pytest.fixture
def trunked(bench: Any) -> Any:
    """Returns a bench with a trunk at port 1 (VLANs 5 to 9, native 3) and access ports 2 in VLAN 5 and 3 in VLAN 3."""
    b = bench()
    for slot, vlan in ((1, 0), (2, 5), (3, 3)):
        b.port(slot, vlan)
    b.engine.set_policy(1, 3, TRUNK, 0)
    return b


def test_frames_at_a_trunk_count_in_the_vlan_that_carries_them(trunked: Any) -> None:
    """Received, sent, flooded and dropped frames are counted one by one; what fits no VLAN counts in the native one."""
    b = trunked
    b.engine.transmit(1, [frame(BROADCAST, A, 5), frame(BROADCAST, A), frame(BROADCAST, A, 44), b"\x02" * 13], 0)
    b.reached(2, frame(A, B))
    assert counted(b) == {
        0: (0, 0, 0, {}),
        3: (3, 1, 1, {"VLAN_MISMATCH": 1, "RUNT": 1}),
        5: (2, 2, 1, {}),
    }


def test_a_port_that_becomes_a_trunk_and_an_access_port_again_counts_once(bench: Any) -> None:
    """The sum over VLANs is the sum over ports at every moment."""
    b = bench()
    b.port(1, 5)
    b.port(2, 5)
    policies = [(3, TRUNK), (5, PolicyInForce()), (3, TRUNK), (7, PolicyInForce())]
    for turn, (vlan, policy) in enumerate([(5, PolicyInForce()), *policies]):
        b.engine.set_policy(1, vlan, policy, turn)
        b.reached(1, frame(BROADCAST, A, 5 if policy is TRUNK else None))
        b.reached(2, frame(BROADCAST, B))
        ports = [b.engine.counters(slot) for slot in (1, 2)]
        vlans = [found for _, found in b.engine.vlan_counters(SWITCH)]
        for field in ("received_frames", "received_bytes", "sent_frames", "sent_bytes", "flooded_frames"):
            assert sum(getattr(one, field) for one in ports) == sum(getattr(one, field) for one in vlans), (turn, field)
        drops = [sum(sum(one.drops.values()) for one in group) for group in (ports, vlans)]
        assert drops[0] == drops[1]
    assert counted(b)[7][0] == 1 and counted(b)[5][0] == 9


def test_a_mirror_of_a_vlan_takes_its_frames_alone_at_a_trunk() -> None:
    """At a trunk each frame is looked at; at an access port its VLAN says it all."""
    trunk = Port(1, f"{SWITCH}/ports/p1", 3, policy=TRUNK)
    access = Port(2, f"{SWITCH}/ports/p2", 5)
    tap = Tap(MirrorDefinition("s1", "m", (), (), (5,), None, "x"), SWITCH, frozenset(), 9)
    frames = [frame(BROADCAST, A, 5), frame(BROADCAST, A), frame(BROADCAST, A, 6)]
    assert tap.copies(trunk, Direction.INGRESS, frames) == frames[:1]
    assert tap.copies(access, Direction.INGRESS, frames) == frames


@pytest.mark.parametrize(
    ("data", "vlan"),
    [
        (frame(BROADCAST, A, 9), 9),
        (frame(BROADCAST, A, 0), 3),
        (frame(BROADCAST, A, 4095), 3),
        (frame(BROADCAST, A, 9)[:15], 3),
        (frame(BROADCAST, A, 9).replace(b"\x81\x00", b"\x88\xa8"), 3),
        (b"", 3),
    ],
)
def test_the_vlan_of_a_frame_at_a_trunk(data: bytes, vlan: int) -> None:
    """It is the one of its tag where the trunk carries that, else the native one; any bytes have one."""
    assert vlan_of(Port(1, "p", 3, policy=TRUNK), data) == vlan


def test_drops_of_earlier_frames_do_not_hide_those_of_the_batch() -> None:
    """What a shaper let go and was dropped then is no part of the batch, and takes nothing out of it."""
    drops = {DropReason.NO_DESTINATION: [b"earlier", b"b"], DropReason.RUNT: [b"a"]}
    assert accepted([b"a", b"b", b"c"], drops) == [b"c"]


def test_a_trunk_whose_port_is_updated_counts_once(trunked: Any) -> None:
    """Giving a trunk its VLAN again, as each update of its port does, adds nothing to what its VLANs counted."""
    b = trunked
    b.engine.transmit(1, [frame(BROADCAST, A, 5), frame(BROADCAST, A)], 0)
    before = counted(b)
    b.engine.set_vlan(1, 3, 0)
    assert counted(b) == before


def test_a_copy_with_a_load_keeps_it_within_the_snap_length() -> None:
    """Only what is longer than a mirror's longest copy is cut; the rest is finished at the destination."""
    tap = Tap(MirrorDefinition("s1", "m", ("p",), (), (), None, "x", snap_bytes=64), SWITCH, frozenset({1}), 9)
    short, long = (laden(bytes(size), Offload(flags=NEEDS_CHECKSUM, sum_start=34), None) for size in (64, 65))
    copies = tap.copies(Port(1, "p", 0), Direction.INGRESS, [short, long])
    assert copies[0] is short and copies[1] == bytes(64)
