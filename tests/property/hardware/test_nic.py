"""A NIC against random drivers, random wires and random flows."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.hardware.nic_world import MAC, World, make, packet, receive_ring, received

from lamina_hardware.domain.nic.descriptors import Malformed, TransmitContext, read_transmit
from lamina_hardware.domain.nic.moderation import Moderation
from lamina_hardware.domain.nic.nic import Nic
from lamina_hardware.domain.nic.ring import Ring
from lamina_hardware.domain.nic.settings import ALL_OFFLOADS, Settings
from lamina_hardware.domain.nic.spreading import DEFAULT_KEY, Spreading, Toeplitz
from lamina_net.offload.headers import PSH, parse

SMALL = 1 << 16
STOPS = {"", "RING_DMA_FAULT", "TAIL_OUTSIDE_RING", "DESCRIPTOR_MALFORMED"}

words = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.integers(0, SMALL),
    # data and context descriptors that are nearly right
    st.builds(
        lambda size, flags, payload: size | 3 << 20 | 1 << 29 | flags << 24 | payload << 46,
        st.integers(0, 2000),
        st.integers(0, 255),
        st.integers(0, 2000),
    ),
    st.builds(
        lambda l4, mss, kind: 2 << 20 | 1 << 29 | kind << 10 | l4 << 40 | mss << 48,
        st.integers(0, 40),
        st.integers(0, 2000),
        st.integers(0, 7),
    ),
    st.builds(
        lambda ip, mac, vlan: ip | mac << 9 | vlan << 16, st.integers(0, 60), st.integers(0, 20), st.integers(0, 9)
    ),
)
frames = st.one_of(
    st.binary(max_size=80),
    st.binary(min_size=14, max_size=1600),
    st.builds(
        lambda payload, version, vlan, cut: packet(payload, version=version, vlan=vlan)[:cut],
        st.binary(max_size=100),
        st.sampled_from([4, 6]),
        st.sampled_from([None, 5]),
        st.integers(20, 200),
    ),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("bell"), st.integers(-2, 5), st.integers(-3, 70)),
        st.tuples(st.just("frames"), st.lists(frames, max_size=5)),
        st.tuples(st.just("wait"), st.integers(0, 200_000)),
        st.tuples(st.just("write"), st.integers(0, 127), words),
        st.tuples(st.just("pages"), st.lists(st.integers(0, 15), max_size=3)),
        st.tuples(st.just("link"), st.booleans()),
        st.tuples(st.just("reset")),
    ),
    max_size=25,
)


@given(st.lists(words, max_size=128), steps, st.booleans(), st.integers(0, 60_000))
def test_whatever_a_driver_writes(
    ring_words: list[int], done: list[tuple[object, ...]], on: bool, moderation: int
) -> None:
    """Random rings, bells and frames: no crash, known stop reasons only, heads stay within rings."""
    world = World(SMALL)
    for number, word in enumerate(ring_words):
        world.memory[0x1000 + 8 * number : 0x1008 + 8 * number] = word.to_bytes(8, "little")
    nic = Nic(MAC, world)

    def configure() -> None:
        nic.configure(
            [
                Ring(0, 0x1000, 16, 1024, 0, Moderation(moderation, 3)),
                Ring(1, 0x1100, 16, 0, 1, Moderation(moderation)),
                Ring(2, SMALL - 64, 8, 1024, 2),
                Ring(3, 1 << 50, 8, 0, 3),
            ]
        )
        spreading = Spreading(on, table=tuple(n % 4 for n in range(128)))
        nic.change(
            Settings(MAC, promiscuous=True, offloads=ALL_OFFLOADS if on else nic.settings.offloads, spreading=spreading)
        )
        nic.carrier(True)

    configure()
    for step in done:
        match step:
            case ("bell", int(queue), int(tail)):
                world.tails[queue] = tail & 0xFFFFFFFF
                nic.doorbell(queue)
            case ("frames", list(arriving)):
                nic.receive(arriving)
            case ("wait", int(ns)):
                world.run_until(world.now + ns)
            case ("write", int(place), int(word)):
                world.memory[0x1000 + 8 * place : 0x1008 + 8 * place] = word.to_bytes(8, "little")
            case ("pages", list(pages)):
                world.missing = set(pages)
                world.bring()
            case ("link", bool(up)):
                nic.carrier(up)
            case _:
                nic.reset()
                configure()
    world.run_until(world.now + 1_000_000)
    assert len(world.memory) == SMALL
    for ring in nic.rings.values():
        assert ring.stop_reason in STOPS
        assert 0 <= ring.head < ring.size
    assert all(60 <= len(frame) <= 1518 for frame in world.sent)


@given(st.binary(min_size=16, max_size=16))
def test_any_transmit_descriptor(raw: bytes) -> None:
    """Any 16 bytes are a descriptor whose fields fit their ranges, or are refused as malformed."""
    try:
        read = read_transmit(raw)
    except Malformed:
        return
    if isinstance(read, TransmitContext):
        assert (read.mac_bytes < 128, read.ip_bytes < 512, read.l4_bytes < 256, read.mss < 65536) == (True,) * 4
    else:
        assert (read.size < 65536, read.payload_bytes < 1 << 18, read.address < 1 << 64) == (True,) * 3


@st.composite
def flows(draw: st.DrawFn) -> list[tuple[int, bytes, int]]:
    """Returns segments of three flows, mostly in order, as (flow, payload, flags)."""
    return draw(
        st.lists(
            st.tuples(
                st.integers(0, 2), st.binary(min_size=0, max_size=40), st.sampled_from([0x10, 0x10, 0x10 | PSH, 0x11])
            ),
            max_size=30,
        )
    )


@given(flows(), st.integers(1, 6), st.lists(st.integers(0, 29), max_size=3))
def test_joining_keeps_every_byte(segments: list[tuple[int, bytes, int]], batch: int, gaps: list[int]) -> None:
    """Whatever is joined, each flow's bytes arrive in order with the positions that they were sent at."""
    world = World()
    ring = receive_ring(world, size=64, buffer=16384)
    nic = make(world, ring)
    nic.change(replace(nic.settings, offloads=ALL_OFFLOADS))
    at, sent, arriving = [1000, 2000, 3000], [], []
    for number, (flow, payload, flags) in enumerate(segments):
        at[flow] += 7 if number in gaps else 0
        sent += [(flow, at[flow] + place, byte) for place, byte in enumerate(payload)]
        arriving.append(packet(payload, sequence=at[flow], flags=flags, ports=(flow, 80)))
        at[flow] += len(payload)
    for begin in range(0, len(arriving), batch):
        nic.receive(arriving[begin : begin + batch])
    found = []
    for _, data in received(world, ring, nic):
        headers = parse(data)
        assert headers.protocol
        first = int.from_bytes(data[headers.l4 + 4 : headers.l4 + 8], "big")
        flow = int.from_bytes(data[headers.l4 : headers.l4 + 2], "big")
        found += [(flow, first + place, byte) for place, byte in enumerate(data[headers.payload : headers.end])]
    for flow in range(3):
        assert [entry for entry in found if entry[0] == flow] == [entry for entry in sent if entry[0] == flow]
    assert nic.counters.received_frames + nic.counters.coalesced_frames == len(arriving)


@given(st.binary(max_size=36))
def test_the_hash_bit_by_bit(data: bytes) -> None:
    """The table-driven Toeplitz hash is the textbook's: for each set bit, the key's window at that bit."""
    key, expected = int.from_bytes(DEFAULT_KEY, "big"), 0
    for place in range(8 * len(data)):
        if data[place // 8] >> (7 - place % 8) & 1:
            expected ^= key >> (320 - 32 - place) & 0xFFFFFFFF
    assert Toeplitz(DEFAULT_KEY).hash(data) == expected
