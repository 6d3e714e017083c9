"""A NIC's way in: filters, spreading, rings, checksums, tags, joining, moderation."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.hardware.nic_world import MAC, World, make, packet, receive_ring, received

from lamina_hardware.domain.nic.descriptors import Status
from lamina_hardware.domain.nic.nic import Nic
from lamina_hardware.domain.nic.settings import BROADCAST, Drop, Offloads
from lamina_hardware.domain.nic.spreading import DEFAULT_KEY, HashType, Spreading, Toeplitz
from lamina_net.offload.headers import PSH, UDP, is_ipv4_sum_good, is_transport_sum_good, parse


def status(written: bytes) -> Status:
    """Returns the status word of a written descriptor."""
    return Status(int.from_bytes(written[8:12], "little"))


def with_offloads(nic: Nic, **on: bool) -> None:
    """Switches offloads on."""
    nic.change(replace(nic.settings, offloads=Offloads(**on)))


def test_a_frame_is_written_into_the_ring() -> None:
    """A frame's bytes lie in the buffer, its descriptor says done, and the queue's vector is raised once."""
    world = World()
    ring = receive_ring(world)
    nic = make(world, ring)
    frame = packet()
    nic.receive([frame])
    [(written, data)] = received(world, ring, nic)
    assert data == frame
    assert status(written) == Status.DONE | Status.END_OF_PACKET
    assert world.interrupts == [(0, 0)]
    assert world.heads == {0: 1}
    assert (nic.counters.received_frames, nic.counters.received_bytes) == (1, len(frame))


def test_a_long_frame_takes_several_descriptors() -> None:
    """A jumbo frame is spread over buffers; only the last descriptor says that the packet ends."""
    world = World()
    ring = receive_ring(world, buffer=1024)
    nic = make(world, ring)
    nic.change(replace(nic.settings, mtu=9000))
    frame = packet(bytes(range(256)) * 32)
    nic.receive([frame])
    found = received(world, ring, nic)
    assert b"".join(data for _, data in found) == frame
    assert [bool(status(written) & Status.END_OF_PACKET) for written, _ in found] == [False] * 8 + [True]


def test_a_full_ring_drops_and_loses_nothing_that_was_there() -> None:
    """With no descriptor left frames are counted as dropped, and those before stay as they were."""
    world = World()
    ring = receive_ring(world, size=8)
    nic = make(world, ring)
    frames = [packet(bytes([n]) * 10) for n in range(10)]
    nic.receive(frames)
    assert [data for _, data in received(world, ring, nic)] == frames[:7]
    assert nic.counters.drops == {Drop.NO_DESCRIPTOR: 3}
    assert nic.rings[0].empty == 3


def test_what_is_not_addressed_to_it_is_filtered() -> None:
    """Addresses, multicast, promiscuous mode and VLANs decide, and each refusal has its reason."""
    world = World()
    nic = make(world, receive_ring(world))
    other, multicast = bytes.fromhex("020000000099"), bytes.fromhex("01005e000001")

    def is_received(frame: bytes) -> bool:
        before = nic.counters.received_frames
        nic.receive([frame])
        return nic.counters.received_frames > before

    assert is_received(packet(target=BROADCAST))
    assert not is_received(packet(target=other))
    assert not is_received(packet(target=multicast))
    nic.change(replace(nic.settings, addresses=frozenset([other]), all_multicast=True))
    assert is_received(packet(target=other))
    assert is_received(packet(target=multicast))
    nic.change(replace(nic.settings, addresses=frozenset(), all_multicast=False, promiscuous=True))
    assert is_received(packet(target=other))
    nic.change(replace(nic.settings, vlans=frozenset([7])))
    assert is_received(packet(vlan=7))
    assert not is_received(packet(vlan=8))
    assert is_received(packet())
    assert not is_received(b"short")
    assert not is_received(packet(bytes(1500)))
    nic.carrier(False)
    assert not is_received(packet())
    assert nic.counters.drops == {Drop.FILTERED: 3, Drop.TOO_SHORT: 1, Drop.TOO_LONG: 1, Drop.LINK_DOWN: 1}


def test_checksums_are_checked_on_receive() -> None:
    """The descriptor tells which checksums were checked and which are wrong, for both versions of IP."""
    world = World()
    ring = receive_ring(world)
    nic = make(world, ring)
    with_offloads(nic, receive_checksum=True)
    bad_tcp, bad_ip = bytearray(packet()), bytearray(packet())
    bad_tcp[-1] ^= 1
    bad_ip[22] ^= 1
    nic.receive([packet(), bytes(bad_tcp), bytes(bad_ip), packet(version=6, protocol=UDP)])
    words = [status(written) & ~(Status.DONE | Status.END_OF_PACKET) for written, _ in received(world, ring, nic)]
    both = Status.IP_SUM_CHECKED | Status.L4_SUM_CHECKED
    assert words == [
        both,
        both | Status.L4_SUM_WRONG,
        both | Status.IP_SUM_WRONG,
        Status.L4_SUM_CHECKED | Status.UDP_SUM_CHECKED,
    ]


def test_a_tag_is_taken_off() -> None:
    """VLAN stripping puts the tag into the descriptor and the frame without it into the buffer."""
    world = World()
    ring = receive_ring(world)
    nic = make(world, ring)
    with_offloads(nic, vlan_strip=True)
    nic.receive([packet(vlan=0x6123)])
    [(written, data)] = received(world, ring, nic)
    assert status(written) & Status.VLAN_STRIPPED
    assert written[14:16] == (0x6123).to_bytes(2, "little")
    assert data == packet()


def test_the_published_hashes() -> None:
    """The Toeplitz hash gives the values of the published test suite."""
    toeplitz = Toeplitz(DEFAULT_KEY)
    addresses = bytes([66, 9, 149, 187, 161, 142, 100, 80])
    assert toeplitz.hash(addresses) == 0x323E8FC2
    assert toeplitz.hash(addresses + (2794).to_bytes(2, "big") + (1766).to_bytes(2, "big")) == 0x51CCC178


def test_flows_are_spread_over_queues() -> None:
    """Frames of one flow go to one queue, many flows to all, and the descriptor carries hash and type."""
    world = World()
    rings = [receive_ring(world, 2 * queue, size=64) for queue in range(4)]
    nic = make(world, *rings)
    nic.change(replace(nic.settings, spreading=Spreading(True, table=tuple(n % 4 for n in range(128)))))
    frames = [packet(ports=(port, 80)) for port in range(2000, 2040)]
    nic.receive(frames + frames)
    counts = [nic.rings[2 * queue].frames for queue in range(4)]
    assert sum(counts) == 80
    assert all(counts)
    assert all(count % 2 == 0 for count in counts)
    written, data = received(world, rings[1], nic)[0]
    queue, value, kind = nic.settings.spreading.place(data, parse(data))
    assert (queue, kind) == (1, HashType.IPV4_TCP)
    assert written[4:8] == value.to_bytes(4, "little")


def test_frames_of_a_flow_are_joined() -> None:
    """Segments that follow one another become one frame with right lengths and sums when moderation lets them go."""
    world = World()
    ring = receive_ring(world, buffer=16384, moderation=50_000)
    nic = make(world, ring)
    with_offloads(nic, receive_coalescing=True)
    nic.rings[0].moderation.last_ns = 0
    nic.receive([packet(bytes([n]) * 100, sequence=1000 + 100 * n) for n in range(5)])
    assert received(world, ring, nic) == []
    world.run_until(50_000)
    [(_, data)] = received(world, ring, nic)
    headers = parse(data)
    assert data[headers.payload : headers.end] == b"".join(bytes([n]) * 100 for n in range(5))
    assert is_ipv4_sum_good(data, headers)
    assert is_transport_sum_good(data, headers)
    assert nic.counters.coalesced_frames == 4
    assert world.interrupts == [(50_000, 0)]


def test_what_cannot_be_joined_keeps_its_order() -> None:
    """A gap, a push and a frame with another flag end what is held; no byte is lost or reordered."""
    world = World()
    ring = receive_ring(world, buffer=16384)
    nic = make(world, ring)
    with_offloads(nic, receive_coalescing=True)
    frames = [
        packet(b"a" * 10, sequence=100),
        packet(b"b" * 10, sequence=110, flags=0x10 | PSH),
        packet(b"c" * 10, sequence=120),
        packet(b"e" * 10, sequence=140),
        packet(b"", sequence=150, flags=0x11),
    ]
    nic.receive(frames)
    payloads = []
    for _, data in received(world, ring, nic):
        headers = parse(data)
        payloads.append(data[headers.payload : headers.end])
    assert payloads == [b"a" * 10 + b"b" * 10, b"c" * 10, b"e" * 10, b""]


def test_moderation_saves_interrupts() -> None:
    """Within the interval there is one interrupt, unless enough frames have come before its end."""
    world = World()
    ring = receive_ring(world, size=64, moderation=100_000)
    nic = make(world, ring)
    for _ in range(5):
        nic.receive([packet()])
        world.run_until(world.now + 10_000)
    assert world.interrupts == [(0, 0)]
    world.run_until(100_000)
    assert world.interrupts == [(0, 0), (100_000, 0)]
    assert nic.counters.moderated_interrupts == 3
    nic.rings[0].moderation.frames = 3
    nic.receive([packet()] * 3)
    assert world.interrupts[-1] == (100_000, 0)
    assert len(world.interrupts) == 3


def test_a_refused_buffer_stops_the_ring() -> None:
    """A buffer that DMA may not reach stops the queue with its reason; the frame is counted and nothing is written."""
    world = World()
    ring = receive_ring(world)
    nic = make(world, ring)
    world.memory[RING_0 : RING_0 + 8] = (1 << 40).to_bytes(8, "little")
    before = bytes(world.memory)
    nic.receive([packet(), packet()])
    assert bytes(world.memory) == before
    assert nic.rings[0].stop_reason == "RING_DMA_FAULT"
    assert nic.counters.drops == {Drop.DMA_FAULT: 2}
    assert [queue for queue, _ in world.stops] == [0]


def test_a_queue_that_nobody_made_drops() -> None:
    """A frame whose queue does not exist is counted as not driven, and so is one for a NIC without rings."""
    world = World()
    nic = make(world)
    nic.receive([packet(target=MAC)])
    assert nic.counters.drops == {Drop.NOT_DRIVEN: 1}


def test_receiving_waits_for_a_page() -> None:
    """A buffer whose page has to be brought in holds up its frame and those behind it, in order."""
    world = World()
    ring = receive_ring(world)
    nic = make(world, ring)
    world.missing = {0x100}
    frames = [packet(bytes([n]) * 9) for n in range(4)]
    nic.receive(frames[:2])
    nic.receive(frames[2:])
    assert received(world, ring, nic) == []
    world.bring()
    assert [data for _, data in received(world, ring, nic)] == frames
    assert world.interrupts == [(0, 0)]


RING_0 = 0x10000
