"""Bursts through the compiled plane leave by the same ports, with the same bytes, as Open vSwitch sends them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence

import pytest
from tests.linux.vswitch.open_vswitch import OpenVSwitch
from tests.linux.vswitch.test_open_vswitch import GROUPS, STATIONS, TYPES, PortRow, tag, topology

from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.memory_ring import MemoryRing, RingSink
from lamina_vswitch.plane.switching import Plane

FRAMES = int(os.environ.get("LAMINA_OVS_FRAMES", "1600"))
"""How many frames are compared, over all topologies; a long run takes 100,000, with `--timeout 600`."""
FRAMES_OF_A_TOPOLOGY = 200
LONGEST_BURST = 48


class Counting(ModelEngine):
    """An engine that counts the frames that the plane leaves to it."""

    left = 0

    def transmit(self, slot: int, frames: Sequence[bytes], now_ns: int) -> int:
        """Switch frames by the reference."""
        self.left += len(frames)
        return super().transmit(slot, frames, now_ns)


class Planed:
    """Our switch with ports of (number, VLAN, trunk or None), a ring at each, and a plane."""

    def __init__(self, ports: Sequence[PortRow]) -> None:
        self.engine = Counting(lambda notice: None)
        self.engine.add_switch("s", SwitchDefinition("s"))
        self.plane = Plane(self.engine, 7)
        self.rings = {number: MemoryRing.alone(64, 2048) for number, _, _ in ports}
        for number, vlan, trunk in ports:
            self.engine.add_port("s", number, f"p{number}", vlan, True)
            self.engine.set_policy(number, vlan, PolicyInForce(trunk=trunk), 0)
            self.engine.attach(number, RingSink(self.rings[number]), 0)

    def send(self, port: int, frames: Sequence[bytes]) -> dict[int, list[bytes]]:
        """Send a burst; return which frames leave by which port."""
        self.plane.transmit(port, Burst.of(frames), 0)
        found = {number: ring.pop(64) for number, ring in self.rings.items()}
        return {number: came for number, came in found.items() if came}

    def addresses(self) -> list[tuple[int, bytes, int]]:
        """Return (VLAN, address, port) of what was learned, sorted."""
        return sorted((entry.vlan, entry.mac, entry.slot) for entry in self.engine.mac_entries("s", 0))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenVSwitch]:
    """Returns an Open vSwitch."""
    made = OpenVSwitch(tmp_path_factory.mktemp("ovs"))
    yield made
    made.close()


@pytest.mark.parametrize("trunks", [False, True], ids=["access", "mixed"])
def test_bursts_go_where_open_vswitch_sends_their_frames(judge: OpenVSwitch, trunks: bool) -> None:
    """Ports, order and bytes are the same for every burst, and in the end the tables; access ports are compiled."""
    left = sent = 0
    for seed in range(max(1, FRAMES // FRAMES_OF_A_TOPOLOGY // 2)):
        rng = random.Random(1000 + seed)
        ports = [row if trunks else (*row[:2], None) for row in topology(rng)]
        with judge.bridge(ports):
            ours = Planed(ports)
            sent += compare(ours, judge, ports, rng)
            left += ours.engine.left
    assert trunks or left < sent / 10, f"{left} of {sent} frames were left to the reference"


def compare(ours: Planed, theirs: OpenVSwitch, ports: list[PortRow], rng: random.Random) -> int:
    """Compares what becomes of bursts on one topology, and the tables in the end; returns the number of frames."""
    sent = 0
    while sent < FRAMES_OF_A_TOPOLOGY:
        port = rng.choice(ports)
        frames = [
            rng.choice(STATIONS * 2 + GROUPS)
            + rng.choice(STATIONS)
            + tag(rng, port)
            + rng.choice(TYPES)
            + rng.randbytes(size)
            for size in rng.choices((46, 100, 1496), k=rng.randint(1, LONGEST_BURST))
        ]
        expected: dict[int, list[bytes]] = {}
        for frame in frames:
            for number, leaving in theirs.send(port[0], frame).items():
                expected.setdefault(number, []).append(leaving)
        assert ours.send(port[0], frames) == expected, (ports, port)
        sent += len(frames)
    assert ours.addresses() == theirs.addresses()
    return sent
