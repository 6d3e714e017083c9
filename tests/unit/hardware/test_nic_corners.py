"""A NIC where two of its duties meet: moderation by time and number, joining and change, long sends and others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.hardware.nic_world import RING, Sender, World, make, packet, receive_ring, received
from tests.unit.hardware.test_nic_receive import with_offloads

from lamina_hardware.domain.nic import transmit
from lamina_hardware.domain.nic.descriptors import TransmitContext
from lamina_hardware.domain.nic.nic import Nic
from lamina_hardware.domain.nic.ring import Ring
from lamina_hardware.domain.nic.segmentation import MOST_SEGMENTS
from lamina_hardware.domain.nic.settings import Drop

_US = 1_000


def test_the_interval_counts_from_the_last_interrupt() -> None:
    """After an interrupt that the number of frames made, the next by time comes an interval later, not before."""
    world = World()
    ring = receive_ring(world, size=64, moderation=100 * _US)
    nic = make(world, ring)
    ring.moderation.frames = 10
    nic.receive([packet()])
    for when, frames in ((10, 1), (20, 9), (30, 1)):
        world.run_until(when * _US)
        nic.receive([packet()] * frames)
    world.run_until(1_000 * _US)
    assert [when for when, _ in world.interrupts] == [0, 20 * _US, 120 * _US]
    assert len(received(world, ring, nic)) == 12


def segments(count: int) -> list[bytes]:
    """Returns segments of one flow that follow one another."""
    return [packet(b"%07d" % n, sequence=1000 + 7 * n) for n in range(count)]


def joining(world: World) -> tuple[Nic, Ring]:
    """Returns a NIC that holds segments back to join them."""
    ring = receive_ring(world, moderation=100 * _US)
    nic = make(world, ring)
    with_offloads(nic, receive_coalescing=True)
    return nic, ring


def test_frames_held_back_go_before_later_ones() -> None:
    """When joining is switched off, what is held back is delivered at once: a flow keeps its order."""
    world = World()
    nic, ring = joining(world)
    frames = segments(2)
    nic.receive(frames[:1])
    assert not received(world, ring, nic)
    with_offloads(nic)
    nic.receive(frames[1:])
    assert [data for _, data in received(world, ring, nic)] == frames


def test_a_link_that_goes_down_leaves_nothing_behind() -> None:
    """What came before the link went down is delivered then, and nothing afterwards."""
    world = World()
    nic, ring = joining(world)
    nic.receive(segments(3))
    nic.change(replace(nic.settings, admin_up=False))
    head = ring.head
    world.run_until(10_000 * _US)
    assert (head, ring.head, nic.counters.coalesced_frames) == (1, 1, 2)
    assert len(world.interrupts) == 1


@pytest.mark.parametrize("end", ["configure", "reset"])
def test_frames_that_are_held_when_a_ring_ends_are_counted(end: str) -> None:
    """Frames held back, or waiting for a page, are dropped with their ring, and no counter misses them."""
    world = World()
    nic, _ = joining(world)
    world.missing = {0x100}
    nic.receive([packet(ports=(7, 7), flags=0x12), packet(ports=(7, 7), flags=0x12), *segments(3)])
    if end == "configure":
        nic.configure([])
    else:
        nic.reset()
    world.bring()
    world.run_until(10_000 * _US)
    assert nic.counters.drops == {Drop.NOT_DRIVEN: 5}
    assert nic.counters.received_frames == 0


def test_the_frame_that_finds_the_tail_outside_is_counted() -> None:
    """A frame that meets a tail that no descriptor has is dropped like those after it."""
    world = World()
    ring = receive_ring(world, size=8)
    nic = make(world, ring)
    ring.tail, world.tails[0] = 0, 9
    nic.receive([packet(), packet()])
    assert ring.stop_reason == "TAIL_OUTSIDE_RING"
    assert nic.counters.drops == {Drop.NOT_DRIVEN: 2}


def sender(world: World, **offloads: bool) -> Sender:
    """Returns a driver that sends."""
    ring = Ring(1, RING, 512, 0, vector=1)
    nic = make(world, ring)
    with_offloads(nic, **offloads)
    return Sender(world, nic, ring)


def test_long_sends_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of a ring that is full of long sends ends when it has sent enough, and goes on later; nothing is lost."""
    monkeypatch.setattr(transmit, "MOST_FRAMES_AT_ONCE", 10)
    world = World()
    driver = sender(world)
    for n in range(35):
        driver.frame(packet(bytes([n]) * 50))
    world.tails[1] = driver.tail
    driver.nic.doorbell(1)
    assert len(world.sent) == 10
    world.run_until(world.now)
    assert [frame[54] for frame in world.sent] == list(range(35))


@pytest.mark.parametrize(("more", "reason"), [(0, ""), (1, "DESCRIPTOR_MALFORMED")])
def test_a_send_has_a_most_of_segments(more: int, reason: str) -> None:
    """A driver that asks for more segments of one byte than anybody needs is stopped, and the loop is not."""
    world = World()
    driver = sender(world, segmentation=True)
    size = MOST_SEGMENTS + more
    driver.context(TransmitContext(14, 20, 20, 1, 0, is_ipv4=True, l4_type=1))
    driver.frame(packet(bytes(size)), segment=True, payload_bytes=size)
    driver.go()
    assert driver.ring.stop_reason == reason
    assert len(world.sent) == (0 if more else MOST_SEGMENTS)
