"""The compiled plane against the reference: the same bursts into two engines, one of which has a plane.

Everything that can be seen has to be equal after every burst: frames at every port in their order, counters, MAC
tables with ages, tallies, and what the event log hears. Some ports have rings, the others queues of Python.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lamina_kit.rng import Rng
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.policy.settings import PolicyInForce, Security
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.port.loss import Loss
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.engines.interface import FrameSink
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.memory_ring import MemoryRing, RingSink
from lamina_vswitch.plane.switching import Plane

SWITCH = "hosts/h1/switches/s1"
PORTS = 6
MTU = 576
AGEING_S = 2
NS = 1_000_000_000
SLOTS = 64

STATIONS = [bytes.fromhex(f"0200000000{n:02x}") for n in range(1, 9)]
ODD = [bytes.fromhex(mac) for mac in ("ffffffffffff", "01005e000001", "0180c2000000", "0180c200000e", "000000000000")]
TAGS = [b"", b"", b"", b"", *map(bytes.fromhex, ("81000000", "8100e00a", "81000014", "88a8000a"))]
SIZES = [0, 1, 2, 18, 31, 46, 64, 65, 200, 575, 576, 577]
POLICIES = [
    PolicyInForce(),
    PolicyInForce(),
    PolicyInForce(mac=STATIONS[0]),
    PolicyInForce(trunk=Trunk(((10, 20),))),
    PolicyInForce(isolated=True),
    PolicyInForce(security=Security(promiscuous=True)),
    PolicyInForce(security=Security(reject_forged_transmits=True)),
    PolicyInForce(security=Security(reject_mac_changes=True), mac=STATIONS[1]),
    PolicyInForce(security=Security(mac_limit=2)),
]
"""What the plane has to leave to the reference, wherever it stands."""


class Queue:
    """A bounded sink of Python; `frames` is what it took."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.free = SLOTS

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take what fits."""
        taken = frames[: self.free]
        self.frames.extend(taken)
        self.free -= len(taken)
        return len(taken)

    def link_changed(self, up: bool) -> None:
        """Ignore the link."""

    def removed(self) -> None:
        """Ports are not removed here."""


class Side:
    """One engine with its sinks. `rings` are the ports behind rings; the reference has queues there too."""

    def __init__(self, vlans: list[int], limit: int, rings: set[int]) -> None:
        self.notices: list[Notice] = []
        self.engine = ModelEngine(self.notices.append)
        self.engine.add_switch(SWITCH, SwitchDefinition("s1", MTU, AGEING_S, limit))
        self.queues = {slot: Queue() for slot in range(1, PORTS + 1)}
        self.rings = {slot: MemoryRing.alone(SLOTS, 2048) for slot in sorted(rings)}
        for slot, vlan in enumerate(vlans, start=1):
            self.engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", vlan, True)
            self.engine.attach(slot, self.sink(slot), 0)

    def sink(self, slot: int) -> FrameSink:
        """Return what is attached to a port."""
        return RingSink(self.rings[slot]) if slot in self.rings else self.queues[slot]

    def drain(self, slot: int, most: int) -> list[bytes]:
        """Take up to `most` frames out of a port."""
        if slot in self.rings:
            frames = self.rings[slot].pop(most)
            assert frames is not None
            return frames
        queue = self.queues[slot]
        frames, queue.frames = queue.frames[:most], queue.frames[most:]
        queue.free += len(frames)
        return frames

    def seen(self, now: int, *, parted: bool) -> tuple[object, ...]:
        """Return everything that can be asked. A burst that is parted has its events and records in parts too."""
        counters = [self.engine.counters(slot) for slot in range(1, PORTS + 1)]
        notices = sorted(repr((one.object, one.event, one.rule) if parted else one) for one in self.notices)
        self.notices.clear()
        book = [] if parted else self.engine.records(SWITCH)
        records = sorted((one.port, one.head, [step.rule for step in one.told.steps]) for one in book)
        vlans = self.engine.vlan_counters(SWITCH)
        firsts = [self.engine.switch_at(slot).ports[slot].first_mac for slot in range(1, PORTS + 1)]
        return (
            records,
            vlans,
            firsts,
            counters,
            self.engine.mac_entries(SWITCH, now),
            self.engine.tally(SWITCH, now),
            notices,
        )


def frame(rng: Rng) -> bytes:
    """Return a frame of any kind, some of them cut or garbage."""
    kind = rng.randrange(20)
    if kind == 0:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(30)))
    few = STATIONS[: 3 if kind < 12 else 8]
    addresses = few if kind < 17 else few + ODD
    head = addresses[rng.randrange(len(addresses))] + addresses[rng.randrange(len(addresses))]
    tag = TAGS[rng.randrange(len(TAGS))] if kind > 6 else b""
    whole = head + tag + b"\x08\x00" + bytes([rng.randrange(256)]) * SIZES[rng.randrange(len(SIZES))]
    return whole[: rng.randrange(20)] if kind == 1 else whole


class World:
    """Two engines to which the same happens."""

    def __init__(self, rng: Rng) -> None:
        self.rng, self.now = rng, 0
        vlans = [(0, 10, 10, 20)[rng.randrange(4)] for _ in range(PORTS)]
        rings = {slot for slot in range(1, PORTS + 1) if rng.randrange(3)}
        limit = 1 + rng.randrange(8) if rng.randrange(2) else 1000
        self.reference, self.tested = Side(vlans, limit, set()), Side(vlans, limit, rings)
        self.plane = Plane(self.tested.engine, rng.randrange(1 << 64))
        self.parted = False

    def both(self) -> tuple[ModelEngine, ModelEngine]:
        """Return both engines."""
        return self.reference.engine, self.tested.engine

    def burst(self) -> None:
        """Send a burst through the plane, and the same frames through the reference."""
        slot = 1 + self.rng.randrange(PORTS)
        kinds = [frame(self.rng) for _ in range(1 + self.rng.randrange(12))]
        frames = [kinds[self.rng.randrange(len(kinds))] for _ in range(self.rng.randrange(40))]
        dropped = self.reference.engine.transmit(slot, frames, self.now)
        assert self.plane.transmit(slot, Burst.of(frames), self.now) == dropped

    def change(self) -> None:
        """Change something else."""
        slot, kind = 1 + self.rng.randrange(PORTS), self.rng.randrange(10)
        mac, vlan = STATIONS[self.rng.randrange(4)], (0, 10, 20)[self.rng.randrange(3)]
        up, ppm, seed = self.rng.randrange(2) == 1, self.rng.randrange(1_000_000), str(self.now)
        engines = self.both()
        if kind == 0:
            for engine in engines:
                engine.set_link(slot, up, self.now)
        elif kind == 1:
            self._toggle(slot)
        elif kind == 2:
            for engine in engines:
                engine.set_vlan(slot, vlan, self.now)
        elif kind == 3 and engines[0].tally(SWITCH, self.now).mac_entries < engines[0].switch_at(slot).fdb.limit:
            for engine in engines:
                engine.add_static(SWITCH, vlan, mac, slot, self.now)
        elif kind == 4:
            wanted = (None, slot)[self.rng.randrange(2)]
            counts = [engine.flush(SWITCH, (None, vlan)[up], wanted, self.now) for engine in engines]
            assert counts[0] == counts[1]
        elif kind == 5:
            assert len({engine.remove_mac(SWITCH, vlan, mac, self.now) for engine in engines}) == 1
        elif kind == 6:
            self.parted = True
            for engine in engines:
                engine.set_loss(slot, Loss(ppm, Rng(seed)) if up else None)
        elif kind > 7:
            self.parted = True
            policy = POLICIES[self.rng.randrange(len(POLICIES))]
            for engine in engines:
                engine.set_policy(slot, vlan, policy, self.now)
        else:
            ageing, limit = (1 + self.rng.randrange(3)) * NS, 1 + self.rng.randrange(12)
            tables = [engine.switch_at(slot).fdb for engine in engines]
            assert len({table.resize(ageing, limit, self.now) for table in tables}) == 1

    def _toggle(self, slot: int) -> None:
        for side in (self.reference, self.tested):
            sink = side.engine.sink_at(slot)
            if sink is not None:
                side.engine.detach(slot, sink, self.now)
            else:
                side.engine.attach(slot, side.sink(slot), self.now)

    def compare(self) -> None:
        """Take some frames out of every port, and compare all that can be seen."""
        assert self.tested.seen(self.now, parted=self.parted) == self.reference.seen(self.now, parted=self.parted)
        for slot in range(1, PORTS + 1):
            most = self.rng.randrange(SLOTS + 1)
            assert self.tested.drain(slot, most) == self.reference.drain(slot, most)


@pytest.mark.parametrize("part", range(8))
def test_the_plane_does_what_the_reference_does(part: int) -> None:
    """Frames, drops, learning, ageing, moves, limits, events and records are the same in thousands of bursts."""
    for seed in range(36):
        world = World(Rng(f"plane/{part}/{seed}"))
        for _ in range(12):
            world.now += (0, 0, 1, NS // 2, NS, 2 * NS - 1, 2 * NS)[world.rng.randrange(7)]
            world.burst()
            world.compare()
            if not world.rng.randrange(3):
                world.change()
