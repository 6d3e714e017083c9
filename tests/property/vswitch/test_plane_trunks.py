"""The compiled plane against the reference where tags and uplinks count: trunks, native VLANs, QinQ, teams.

As `test_plane.py`: the same bursts into two engines, and everything that can be seen is equal after each. Every port is
one that the plane knows, so that nearly all frames are decided there; the last assertion sees to that.
"""

from __future__ import annotations

import pytest
from tests.property.vswitch import test_plane as plane_test

from lamina_kit.rng import Rng
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.switch.topology import Switch
from lamina_vswitch.domain.uplink.teaming import Balancing, Team
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.switching import Plane

PORTS, NS = plane_test.PORTS, plane_test.NS
VLANS = (0, 10, 20, 30)
RANGES: tuple[tuple[tuple[int, int], ...], ...] = ((), ((10, 20),), ((20, 20), (30, 40)), ((1, 4094),))
TAGS = ("81000000", "8100f000", "8100e00a", "81000014", "8100001e", "81000fff", "88a8000a", "88a80000", "88a8001e")
"""Tags of the least and the highest priority alone, of VLANs 10, 20, 30 and 4095, a provider's of 10, none and 30."""


def packet(rng: Rng) -> bytes:
    """Return a packet behind its type: of IPv4 or IPv6, with ports, cut, a fragment, of another kind, or no packet."""
    ports = bytes((rng.randrange(3), 80, 0, rng.randrange(3)))
    transport = ports + (b"\0" * 8 + b"\x50" + b"\0" * 7 if rng.randrange(2) else b"\0\x08\0\0" + b"\0" * 12)
    protocol = (6, 17, 6, 17, 1)[rng.randrange(5)]
    ends = bytes((10, 0, 0, rng.randrange(4), 10, 0, 1, rng.randrange(4)))
    if rng.randrange(2):
        fragment = (0, 0, 0, 0x2000, 0x1001)[rng.randrange(5)].to_bytes(2, "big")
        size = 20 + len(transport) - rng.randrange(2) + (rng.randrange(9) == 0)
        head = b"\x45\0" + size.to_bytes(2, "big") + b"\0\0" + fragment + b"\x40" + bytes((protocol,)) + b"\0\0"
        whole = b"\x08\x00" + head + ends + transport
    else:
        size = len(transport) - 4 * rng.randrange(2) + (rng.randrange(9) == 0)
        head = b"\x60\0\0\0" + size.to_bytes(2, "big") + bytes((protocol, 64))
        whole = b"\x86\xdd" + head + (ends + bytes(8)) * 2 + transport
    return whole[: rng.randrange(len(whole) + 1)] if rng.randrange(6) == 0 else whole


def frame(rng: Rng) -> bytes:
    """Return a frame with up to three tags, now and then a bad one."""
    kind = rng.randrange(16)
    if kind == 0:
        return plane_test.frame(rng)
    few = plane_test.STATIONS[: 3 if kind < 8 else 8]
    others = few + plane_test.ODD if kind > 12 else few
    head = others[rng.randrange(len(others))] + (others if kind == 15 else few)[rng.randrange(len(few))]
    count = (0, 0, 1, 1, 1, 1, 2, 3)[rng.randrange(8)]
    tags = b"".join(bytes.fromhex(TAGS[rng.randrange(len(TAGS))]) for _ in range(count))
    size = plane_test.SIZES[rng.randrange(len(plane_test.SIZES))] + 4 * rng.randrange(3)
    rest = packet(rng) if kind % 2 else b"\x08\x06" + bytes(size)
    whole = head + tags + rest
    return whole[: 12 + rng.randrange(12)] if rng.randrange(24) == 0 else whole


class CountingPlane(Plane):
    """A plane that counts the frames which it left to the reference."""

    slow = 0

    def _slowly(self, switch: Switch, slot: int, frames: list[bytes], now_ns: int) -> int:
        self.slow += len(frames)
        return super()._slowly(switch, slot, frames, now_ns)


class World(plane_test.World):
    """Two engines with trunks and, in half of all worlds, uplinks."""

    plane: CountingPlane

    def __init__(self, rng: Rng) -> None:
        super().__init__(rng)
        self.parted = True
        self.frames = 0
        self.plane = CountingPlane(self.tested.engine, rng.randrange(1 << 64))
        self.uplinks: list[int] = []
        for slot in range(1, PORTS + 1):
            self.set_port(slot)
        if rng.randrange(2):
            self.uplinks = [slot for slot in range(1, PORTS + 1) if rng.randrange(2)]
            for slot in self.uplinks:
                for engine in self.both():
                    engine.set_uplink(slot, True, 0)
            self.set_teams()

    def set_port(self, slot: int) -> None:
        """Make a port an access port or a trunk."""
        vlan = VLANS[self.rng.randrange(len(VLANS))]
        trunk = Trunk(RANGES[self.rng.randrange(len(RANGES))], vlan, self.rng.randrange(2) == 1)
        policy = PolicyInForce(trunk=trunk if self.rng.randrange(3) else None)
        for engine in self.both():
            engine.set_policy(slot, vlan, policy, self.now)

    def set_teams(self) -> None:
        """Share the uplinks in some way: one team for all, or another one for some of the ports."""
        order = sorted(self.uplinks, key=lambda slot: self.rng.randrange(1 << 16))
        if not order:
            return
        teams = {}
        for key in ("", "other")[: 1 + self.rng.randrange(2)]:
            balancing = list(Balancing)[self.rng.randrange(len(Balancing))]
            active = 1 + self.rng.randrange(len(order))
            teams[key] = Team(balancing, tuple(order[:active]), tuple(order[active:]), self.rng.randrange(2) == 1)
        joined = [slot for slot in range(1, PORTS + 1) if self.rng.randrange(2)]
        for engine in self.both():
            engine.set_teams(plane_test.SWITCH, teams, self.now)
            for slot in range(1, PORTS + 1):
                engine.join_team(slot, "other" if slot in joined else "")

    def limit(self) -> int:
        """Return how many addresses the tables take."""
        return self.reference.engine.switch_at(1).fdb.limit

    def burst(self) -> None:
        """Send a burst through the plane, and the same frames through the reference."""
        slot = 1 + self.rng.randrange(PORTS)
        kinds = [frame(self.rng) for _ in range(1 + self.rng.randrange(12))]
        count = self.rng.randrange((40, 40, 40, 160)[self.rng.randrange(4)])
        frames = [kinds[self.rng.randrange(len(kinds))] for _ in range(count)]
        dropped = self.reference.engine.transmit(slot, frames, self.now)
        assert self.plane.transmit(slot, Burst.of(frames), self.now) == dropped
        self.frames += len(frames)

    def change(self) -> None:
        """Change a port, the teams, a link, or an address."""
        slot, kind = 1 + self.rng.randrange(PORTS), self.rng.randrange(5)
        up, mac = self.rng.randrange(2) == 1, plane_test.STATIONS[self.rng.randrange(4)]
        vlan, engines = VLANS[self.rng.randrange(len(VLANS))], self.both()
        if kind == 0:
            self.set_port(slot)
        elif kind == 1:
            self.set_teams()
        elif kind == 2 and engines[0].tally(plane_test.SWITCH, self.now).mac_entries < self.limit():
            for engine in engines:
                engine.add_static(plane_test.SWITCH, vlan, mac, slot, self.now)
        elif kind == 3:
            self._toggle(slot)
        else:
            for engine in engines:
                engine.set_link(slot, up, self.now)


@pytest.mark.parametrize("part", range(4))
def test_the_plane_does_what_the_reference_does_with_tags_and_teams(part: int) -> None:
    """Frames in their forms, VLAN counters, drops, learning, moves and events are the same, and the plane decided."""
    frames = slow = 0
    for seed in range(16):
        world = World(Rng(f"plane/trunks/{part}/{seed}"))
        for _ in range(12):
            world.now += (0, 0, 1, NS // 2, NS, 2 * NS - 1, 2 * NS)[world.rng.randrange(7)]
            world.burst()
            world.compare()
            if not world.rng.randrange(4):
                world.change()
        frames, slow = frames + world.frames, slow + world.plane.slow
    assert slow < frames / 2, (slow, frames)
