"""A NIC's way out: gathering, checksums, tags, segmentation, and drivers that lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.unit.hardware.nic_world import MAC, PEER, RING, Sender, World, make, packet, receive_ring

from lamina_hardware.domain.nic.descriptors import TransmitContext
from lamina_hardware.domain.nic.ring import Ring
from lamina_hardware.domain.nic.settings import ALL_OFFLOADS
from lamina_net.offload.headers import (
    CWR,
    FIN,
    PSH,
    TCP,
    UDP,
    is_ipv4_sum_good,
    is_transport_sum_good,
    parse,
    pseudo_sum,
)

CONTEXT = TransmitContext(mac_bytes=14, ip_bytes=20, l4_bytes=20, mss=1000, vlan=0x0064, is_ipv4=True, l4_type=1)


def sender(size: int = 64) -> tuple[World, Sender]:
    """Returns a world and a driver of transmit queue 0, with all offloads on."""
    world = World()
    ring = Ring(1, RING, size, 0, vector=1)
    nic = make(world, ring)
    nic.change(replace(nic.settings, offloads=ALL_OFFLOADS))
    return world, Sender(world, nic, ring)


def unfinished(frame: bytes) -> bytes:
    """Returns a frame as a driver leaves it to the NIC: the seed of the pseudo header in the checksum field."""
    changed, headers = bytearray(frame), parse(frame)
    if headers.version == 4:
        changed[24:26] = b"\0\0"
    at = headers.l4 + (16 if headers.protocol == TCP else 6)
    changed[at : at + 2] = pseudo_sum(frame, headers, headers.end - headers.l4).to_bytes(2, "big")
    return bytes(changed)


def test_a_frame_leaves_as_it_is() -> None:
    """A frame in three buffers leaves whole, its last descriptor says done, and the vector is raised."""
    world, driver = sender()
    frame = packet(bytes(200))
    driver.frame(frame, pieces=3)
    driver.go()
    assert world.sent == [frame]
    assert [world.memory[RING + 16 * n + 12] & 1 for n in range(3)] == [0, 0, 1]
    assert world.interrupts == [(0, 1)]
    assert world.heads == {1: 3}


def test_a_short_frame_is_padded() -> None:
    """Ethernet's least length is kept, as a NIC does it."""
    world, driver = sender()
    driver.frame(MAC + PEER + b"\x08\x06" + bytes(28))
    driver.go()
    assert [len(frame) for frame in world.sent] == [60]


def test_the_ring_wraps() -> None:
    """Many more frames than descriptors pass, in order, as the driver refills the ring."""
    world, driver = sender(size=8)
    frames = [packet(n.to_bytes(4, "big") * 20) for n in range(50)]
    for frame in frames:
        driver.frame(frame, pieces=2)
        driver.go()
    assert world.sent == frames
    assert driver.nic.rings[1].head == driver.tail


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_checksums_are_filled_in(version: int, protocol: int) -> None:
    """What the driver seeds, the NIC completes: the frame is the one with right checksums."""
    world, driver = sender()
    whole = packet(b"odd bytes", protocol, version)
    ip = 20 if version == 4 else 40
    driver.context(replace(CONTEXT, ip_bytes=ip, is_ipv4=version == 4, l4_type=1 if protocol == TCP else 0))
    driver.frame(unfinished(whole), ip_sum=version == 4, l4_sum=True)
    driver.go()
    assert world.sent == [whole.ljust(60, b"\0")]


def test_a_tag_is_put_in() -> None:
    """VLAN insertion takes the tag from the context."""
    world, driver = sender()
    driver.context(CONTEXT)
    driver.frame(packet(), insert_vlan=True)
    driver.go()
    assert world.sent == [packet(vlan=0x64).ljust(60, b"\0")]


@pytest.mark.parametrize("version", [4, 6])
def test_a_segment_is_cut(version: int) -> None:
    """TSO makes frames of at most the MSS that carry all bytes in order, each right in every field."""
    world, driver = sender()
    payload = bytes(n % 251 for n in range(65_000 - 60))
    whole = packet(payload, version=version, flags=0x10 | FIN | PSH | CWR, sequence=(1 << 32) - 5000)
    ip = 20 if version == 4 else 40
    driver.context(replace(CONTEXT, ip_bytes=ip, is_ipv4=version == 4, mss=1400))
    driver.frame(unfinished(whole), pieces=9, segment=True, ip_sum=True, l4_sum=True, payload_bytes=len(payload))
    driver.go()
    found, expected = b"", (1 << 32) - 5000
    for number, frame in enumerate(world.sent):
        headers = parse(frame)
        flags = frame[headers.l4 + 13]
        is_last = number == len(world.sent) - 1
        assert int.from_bytes(frame[headers.l4 + 4 : headers.l4 + 8], "big") == expected & 0xFFFFFFFF
        assert flags == 0x10 | (CWR if number == 0 else 0) | (FIN | PSH if is_last else 0)
        assert is_transport_sum_good(frame, headers)
        if version == 4:
            assert is_ipv4_sum_good(frame, headers)
            assert int.from_bytes(frame[18:20], "big") == 7 + number
        part = frame[headers.payload : headers.end]
        assert len(part) == 1400 or is_last
        found += part
        expected += len(part)
    assert found == payload
    assert driver.nic.counters.segmented_sends == 1
    assert driver.nic.counters.sent_frames == -(-len(payload) // 1400)


def test_nothing_leaves_while_the_link_is_down() -> None:
    """Frames wait in the ring for the link, and leave when it comes up."""
    world, driver = sender()
    driver.nic.carrier(False)
    driver.frame(packet(bytes(100)))
    driver.go()
    assert world.sent == []
    driver.nic.carrier(True)
    assert world.sent == [packet(bytes(100))]


def test_a_long_queue_goes_in_steps() -> None:
    """More descriptors than one step takes all leave, each step in a turn of its own."""
    world, driver = sender(size=1024)
    for n in range(600):
        driver.frame(packet(n.to_bytes(4, "big") * 10))
    world.tails[1] = driver.tail
    driver.nic.doorbell(1)
    assert len(world.sent) == 256
    world.run_until(0)
    assert len(world.sent) == 600


def _headers_beyond(driver: Sender) -> None:
    driver.context(replace(CONTEXT, ip_bytes=400))
    driver.frame(packet(), l4_sum=True)


def _segments_of_nothing(driver: Sender) -> None:
    driver.context(replace(CONTEXT, mss=0))
    driver.frame(packet(), segment=True, payload_bytes=7)


def _segments_too_long(driver: Sender) -> None:
    driver.context(replace(CONTEXT, mss=4000))
    driver.frame(packet(bytes(8000)), pieces=4, segment=True, payload_bytes=8000)


def _payload_that_is_not_there(driver: Sender) -> None:
    driver.context(CONTEXT)
    driver.frame(packet(), segment=True, payload_bytes=5000)


def _context_within_a_frame(driver: Sender) -> None:
    driver.frame(packet(bytes(100)), pieces=2)
    driver.context(CONTEXT)
    memory = driver.world.memory
    memory[RING + 16 : RING + 32] = memory[RING + 32 : RING + 48]


LIES: dict[str, Callable[[Sender], None]] = {
    "a frame without a header": lambda driver: driver.frame(b"12345"),
    "a frame beyond the MTU": lambda driver: driver.frame(packet(bytes(1600))),
    "an offload without a context": lambda driver: driver.frame(packet(), l4_sum=True),
    "headers beyond the frame": _headers_beyond,
    "segments of no bytes": _segments_of_nothing,
    "segments that do not fit the MTU": _segments_too_long,
    "a payload that is not there": _payload_that_is_not_there,
    "a context within a frame": _context_within_a_frame,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_driver_stops_its_queue(lie: str) -> None:
    """What makes no sense stops the queue as malformed, sends nothing, and a new configuration starts it again."""
    world, driver = sender()
    LIES[lie](driver)
    driver.go()
    assert world.sent == []
    assert driver.nic.rings[1].stop_reason == "DESCRIPTOR_MALFORMED"
    fresh = Ring(1, RING, 64, 0, vector=1)
    driver.nic.configure([fresh])
    again = Sender(world, driver.nic, fresh)
    again.frame(packet(bytes(100)))
    again.go()
    assert len(world.sent) == 1


def test_a_tail_outside_the_ring_stops_it() -> None:
    """A tail that no descriptor has is refused, on both kinds of queue."""
    world = World()
    nic = make(world, receive_ring(world), Ring(1, RING, 16, 0, vector=1))
    world.tails |= {0: 16, 1: 1 << 31}
    for queue in (0, 1, 9):
        nic.doorbell(queue)
    assert [nic.rings[n].stop_reason for n in (0, 1)] == ["TAIL_OUTSIDE_RING"] * 2


def test_sending_waits_for_a_page() -> None:
    """A buffer whose page has to be brought in holds up its frame and those behind it, and nothing is lost."""
    world, driver = sender()
    frames = [packet(bytes([n]) * 3000) for n in range(3)]
    driver.nic.change(replace(driver.nic.settings, mtu=9000))
    for frame in frames:
        driver.frame(frame, pieces=2)
    world.missing = {0x101}
    driver.go()
    driver.go()
    assert world.sent == frames[:1]
    assert len(world.asked) == 1
    world.bring()
    world.run_until(0)
    assert world.sent == frames


def test_a_report_that_waits_sends_nothing_twice() -> None:
    """When the page of the ring itself has to be brought in, each frame leaves once."""
    world, driver = sender(size=512)
    for n in range(300):
        driver.frame(packet(bytes([n % 256]) * 50))
    world.missing = {RING // 4096 + 1}
    driver.go()
    world.bring()
    world.run_until(0)
    assert [frame[54] for frame in world.sent] == [n % 256 for n in range(300)]
