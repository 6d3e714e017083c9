"""Frames that the kernel hands on between packet backends: the same comes of them, and nobody sees a difference."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.linux.hardware.network import needs_network
from tests.linux.vswitch.bypassed import BROADCAST, SLOTS, A, B, World, acquainted, frame, needs_bypass

from lamina_kit.rng import Rng
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.port.loss import Loss
from lamina_vswitch.ebpf import bypass as code

SIZES = (60, 200, 1014, 1015, 1200)


@pytest.fixture(params=["python", "plane"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Return a switch with a bypass, by Python and by the plane."""
    needs_network()
    needs_bypass()
    made = World(bypassed=True, plane=request.param == "plane")
    for slot in SLOTS:
        await made.ready(f"s{slot}")
        await made.ready(f"e{slot}")
    yield made
    made.close()


class Silent:
    """Hears of every frame, and does nothing."""

    def wants(self, port: Any) -> bool:
        """Want all."""
        return True

    def missed(self, *heard: Any) -> None:
        """Do nothing."""

    passed = dropped = missed


def random_frames(rng: random.Random, slot: int) -> list[bytes]:
    """Return a few frames from a port: mostly between stations that are known, some that are out of the ordinary."""
    stations = {each: [bytes((2, 0, 0, 0, each, n)) for n in range(3)] for each in SLOTS}
    source = rng.choice(stations[slot])
    target = rng.choice(stations[rng.choice(SLOTS)])
    kind = rng.randrange(20)
    if kind == 0:
        target = BROADCAST
    elif kind == 1:
        target = bytes((2, 0, 0, 9, 9, rng.randrange(4)))
    elif kind == 2:
        source = rng.choice(stations[rng.choice(SLOTS)])
    elif kind == 3:
        source = bytes((3, 0, 0, 0, 0, 1))
    elif kind == 4:
        return [target + source + bytes.fromhex("8100") + bytes((0, rng.choice((0, 5)))) + bytes(60)]
    size = rng.choice(SIZES)
    return [frame(target, source, str(number), size) for number in range(rng.randrange(1, 5))]


async def played(seed: int, *, bypassed: bool) -> tuple[Any, int]:
    """Return all that is to be seen of a switch after random traffic, and how many frames came into the process."""
    rng = random.Random(seed)
    world = World(bypassed=bypassed, plane=True)
    try:
        for name in (f"{end}{slot}" for slot in SLOTS for end in "se"):
            await world.ready(name)
        for _ in range(120):
            slot = rng.choice(SLOTS)
            await world.send(slot, *random_frames(rng, slot))
        now_ns = time.monotonic_ns()
        entries = [(each.vlan, each.mac, each.slot) for each in world.engine.mac_entries("s", now_ns)]
        tally = world.engine.tally("s", now_ns)
        counters = [world.engine.counters(slot) for slot in SLOTS]
        seen = (
            entries,
            (tally.mac_moves, tally.mac_entries),
            [(c.received_frames, c.received_bytes, c.sent_frames, c.sent_bytes) for c in counters],
            [(c.flooded_frames, c.drops_by_reason()) for c in counters],
            world.engine.vlan_counters("s")[0][1].received_bytes,
            [sorted(await world.arrived(slot)) for slot in SLOTS],
        )
        return seen, sum(world.handed(slot) for slot in SLOTS) if bypassed else world.sent
    finally:
        world.close()


@pytest.mark.parametrize("seed", [1])
async def test_the_same_traffic_leaves_the_same_behind(seed: int) -> None:
    """Counters, table, drops, and what arrives where are those of a switch without a bypass."""
    needs_network()
    needs_bypass()
    fast, handed = await played(seed, bypassed=True)
    slow, sent = await played(seed, bypassed=False)
    assert fast == slow
    assert handed < 0.85 * sent


async def test_known_frames_do_not_come_into_the_process(world: World) -> None:
    """They arrive once, in order, are counted at both ports, and refresh the table."""
    await acquainted(world)
    before, handed = world.engine.counters(2).sent_frames, world.handed(1)
    sent = [frame(B, A, str(number)) for number in range(50)]
    began = time.monotonic_ns()
    await world.send(1, *sent)
    assert await world.arrived(2) == sent
    assert await world.arrived(3) == []
    assert (world.handed(1), world.engine.counters(2).sent_frames) == (handed, before + 50)
    entry = world.engine.mac_entry("s", 0, A, time.monotonic_ns())
    assert entry is not None
    assert entry.age_ns <= time.monotonic_ns() - began + 10**6  # clocks are read one after the other


async def test_a_flow_that_is_too_fast_keeps_its_order_and_every_frame_is_accounted_for(world: World) -> None:
    """Thousands of frames while nobody switches fill the ring: what is not lost arrives in order, the rest counts."""
    await world.send(2, frame(A, B))
    sent = [frame(B, A, f"{number:08}") for number in range(6000)]
    for first in range(0, len(sent), 2000):
        world.put(1, sent[first : first + 2000])
        await world.until(lambda: world.received() == world.sent)
    await world.until(lambda: not world.junction(1).drains)
    arrived = await world.arrived(2)
    lost = dict(world.engine.counters(1).drops_by_reason()).get(DropReason.QUEUE_FULL, 0)
    assert arrived == sorted(arrived)
    assert len(arrived) + lost == len(sent)
    assert len(set(arrived)) == len(arrived)


async def test_a_change_ends_it_before_it_takes_effect(world: World) -> None:
    """A link that is taken away, an observer, a policy, an edited table: the next frame comes the ordinary way."""
    engine = world.engine
    changes = (
        lambda: setattr(engine, "observer", Silent()),
        lambda: engine.set_loss(2, Loss(0, Rng("loss"))),
        lambda: engine.set_link(2, False, time.monotonic_ns()),
        lambda: engine.set_policy(1, 0, PolicyInForce(isolated=True), time.monotonic_ns()),
        lambda: engine.flush("s", None, None, time.monotonic_ns()),
        lambda: engine.remove_mac("s", 0, B, time.monotonic_ns()),
        lambda: engine.add_static("s", 0, B, 3, time.monotonic_ns()),
    )
    for change in changes:
        engine.observer = None
        engine.set_loss(2, None)
        engine.set_link(2, True, time.monotonic_ns())
        engine.set_policy(1, 0, PolicyInForce(), time.monotonic_ns())
        await acquainted(world)
        handed = world.handed(1)
        change()
        await world.send(1, frame(B, A))
        assert world.handed(1) == handed + 1


async def test_a_station_that_moved_is_followed(world: World) -> None:
    """After its first frame at another port the kernel knows it there, and nothing goes to where it was."""
    await acquainted(world)
    await world.send(3, frame(A, B))
    await world.send(1, frame(B, A, "to its new place"))
    assert await world.arrived(2) == []
    assert await world.arrived(3) == [frame(B, A, "to its new place")]


async def test_an_interface_that_goes_down_or_joins_a_bridge_is_left_alone(world: World) -> None:
    """The kernel hands nothing on to it or from it then, and does so again afterwards."""
    for change, back in (("down", "up"), ("master br9", "nomaster")):
        await acquainted(world)
        if "master" in change:
            world.network.run("ip link add br9 type bridge")
        world.network.run(f"ip link set s2 {change}")
        await world.until(lambda: not world.junction(2)._member.device.free)
        handed = world.handed(1)
        await world.send(1, frame(B, A))
        assert world.handed(1) == handed + 1
        world.network.run(f"ip link set s2 {back}")
        await world.until(lambda: world.junction(2)._member.device.free)
        await world.ready("e2")


async def test_a_frame_of_each_second_is_recorded(world: World) -> None:
    """The rule chain of one that the kernel handed on stands in the records as of any other."""
    await acquainted(world)
    port = world.engine.switch_at(1).ports[1]
    before = len(world.engine.records("s"))
    port.record_due_ns = 0
    world.engine.switch_at(1).changed()
    port.record_due_ns = time.monotonic_ns() + 10**12  # not by those that come the ordinary way
    await world.send(2, frame(A, B))
    await world.send(1, frame(B, A))
    port.record_due_ns = 0
    world.junction(1)._bypass.set_word(world.junction(1)._member, code.SAMPLE_DUE, 0)
    await world.send(1, frame(B, A, "kept", 300))
    newest = world.engine.records("s")[0]
    assert len(world.engine.records("s")) == before + 1
    assert (newest.length, newest.head[:18]) == (300, frame(B, A, "kept")[:18])


async def test_an_unplugged_port_takes_its_programs_along(world: World) -> None:
    """Frames at its interface stay there, and it can be plugged in again."""
    await acquainted(world)
    backend = world.backends.pop(2)
    backend.close()
    world.engine.detach(2, backend, time.monotonic_ns())
    world.ends[2].send(frame(A, B))
    assert await world.arrived(1) == []
    world.plug(2, plane=False)
    await acquainted(world)
