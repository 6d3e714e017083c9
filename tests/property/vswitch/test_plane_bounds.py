"""Nobody's numbers lead the plane out of its memory: offsets, lengths, indices and heads come from strangers."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.frame_sinks import Keeper

from lamina_kit.errors import InvalidArgument
from lamina_kit.rng import Rng
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.port import ring_layout as layout
from lamina_vswitch.domain.port.ring_layout import Geometry, read_head
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.compiled import burst as compiled
from lamina_vswitch.plane.memory_ring import MemoryRing, RingSink
from lamina_vswitch.plane.switching import Plane

SWITCH = "hosts/h1/switches/s1"
NUMBER = st.one_of(st.integers(-3, 70), st.integers(-(2**63), 2**63 - 1))
INDEX = st.one_of(st.integers(0, 70), st.integers(2**32 - 70, 2**32 - 1), st.integers(0, 2**32 - 1))
FRAME = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x08\x00" + bytes(46)
SIZES = Geometry(1, 64, 2048)


@given(st.lists(st.tuples(NUMBER, NUMBER), max_size=6))
def test_a_burst_lies_in_its_memory(places: list[tuple[int, int]]) -> None:
    """Offsets and lengths are taken when every frame lies inside, and never otherwise."""
    data = np.arange(64, dtype=np.uint8)
    where, sizes = (np.array([pair[side] for pair in places], np.int64) for side in (0, 1))
    burst = Burst.at(data, where, sizes)
    inside = all(offset >= 0 and size >= 0 and offset + size <= 64 for offset, size in places)
    assert (burst is not None) == inside
    if burst is not None:
        assert burst.frames() == [bytes(range(offset, offset + size)) for offset, size in places]


def test_arrays_of_another_form_are_no_burst() -> None:
    """Lists of different lengths, tables and words are refused."""
    data: Any = np.zeros(64, np.uint8)
    assert Burst.at(data, [0], [1, 2]) is None
    assert Burst.at(data, [[0]], [[1]]) is None
    assert Burst.at(data.view(np.uint32), [0], [1]) is None
    assert Burst.at(data[::2], [0], [1]) is None


@given(INDEX, INDEX, st.integers(0, 2**32 - 1))
def test_a_device_cannot_lead_the_switch_out_of_a_ring(producer: int, consumer: int, length: int) -> None:
    """Indices further apart than the ring, and lengths beyond the slot, are corruption; everything else is frames."""
    ring = MemoryRing.alone(SIZES.slots, SIZES.slot_bytes)
    words = ring._data
    words[layout.PRODUCER : 4] = np.frombuffer(struct.pack("<I", producer), np.uint8)
    words[layout.CONSUMER : layout.CONSUMER + 4] = np.frombuffer(struct.pack("<I", consumer), np.uint8)
    first = layout.FIRST_SLOT + consumer % SIZES.slots * SIZES.slot_bytes
    words[first : first + 4] = np.frombuffer(struct.pack("<I", length), np.uint8)
    waiting = (producer - consumer) % 2**32
    frames = ring.pop()
    if waiting > SIZES.slots or (waiting and length > SIZES.frame_bytes):
        assert frames is None
    else:
        assert frames == ([bytes(length)] + [b""] * (waiting - 1) if waiting else [])
        assert ring.waiting() == 0


@given(INDEX, INDEX)
def test_a_device_cannot_make_the_switch_write_elsewhere(producer: int, consumer: int) -> None:
    """Whatever a receiver's indices are, frames go into free slots, or are counted as not fitting."""
    engine = ModelEngine(lambda notice: None)
    engine.add_switch(SWITCH, SwitchDefinition("s1"))
    guarded: Any = np.zeros(SIZES.ring_bytes + 2 * layout.PAGE, np.uint8)
    ring = MemoryRing(guarded, layout.PAGE, SIZES)
    broken: list[bool] = []
    for slot, sink in (
        (1, RingSink(MemoryRing.alone(64, 2048))),
        (2, RingSink(ring, corrupt=lambda: broken.append(True))),
    ):
        engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", 0, True)
        engine.attach(slot, sink, 0)
    head = guarded[layout.PAGE :]
    head[: layout.PRODUCER + 4] = np.frombuffer(struct.pack("<I", producer), np.uint8)
    head[layout.CONSUMER : layout.CONSUMER + 4] = np.frombuffer(struct.pack("<I", consumer), np.uint8)
    Plane(engine, 3).transmit(1, Burst.of([FRAME] * 70), 0)
    used = (producer - consumer) % 2**32
    room = 64 - used if used <= 64 else 0
    counters = engine.counters(2)
    assert counters.sent_frames == room
    assert counters.drops_by_reason() == ((DropReason.QUEUE_FULL, 70 - room),)
    assert bool(broken) == (used > 64)
    assert not guarded[: layout.PAGE].any() and not guarded[-layout.PAGE :].any()
    assert ring.waiting() == (64 if used <= 64 else None)


@given(st.binary(max_size=40), st.integers(0, 31))
def test_any_head_of_a_file_is_read(head: bytes, flip: int) -> None:
    """A file is known by its head, byte for byte, and nothing else is."""
    assert read_head(head) is None
    broken = bytearray(SIZES.head())
    broken[flip] ^= 0x80
    assert read_head(bytes(broken)) is None
    assert read_head(SIZES.head()) == SIZES


@pytest.mark.parametrize(
    "sizes",
    [(0, 64, 2048), (17, 64, 2048), (1, 63, 2048), (1, 96, 2048), (1, 1 << 17, 2048), (1, 64, 2000), (1, 64, 2049)],
)
def test_sizes_out_of_range_do_not_fit(sizes: tuple[int, int, int]) -> None:
    """The ranges of the contract hold."""
    assert not Geometry(*sizes).fits
    assert read_head(Geometry(*sizes).head()) is None


def test_a_ring_lies_in_its_memory() -> None:
    """A ring that would reach beyond its memory, or lies in memory that cannot be written, is refused."""
    for memory, offset in (
        (bytearray(SIZES.ring_bytes), 1),
        (bytearray(SIZES.ring_bytes), -1),
        (bytes(SIZES.ring_bytes), 0),
    ):
        with pytest.raises(InvalidArgument) as refused:
            MemoryRing(memory, offset, SIZES)
        assert refused.value.reason == "RING_OUTSIDE_MEMORY"


def test_frames_of_all_lengths_go_through_a_ring_byte_for_byte() -> None:
    """Nothing is cut, nothing is copied beyond the end, and slots are used again and again."""
    rng = Rng("lengths")
    ring = MemoryRing.alone(SIZES.slots, SIZES.slot_bytes)
    for _ in range(40):
        frames = [bytes(rng.randrange(256) for _ in range(rng.randrange(200))) for _ in range(rng.randrange(64))]
        assert ring.push(Burst.of(frames)) == len(frames)
        assert ring.pop() == frames


def test_a_frame_longer_than_a_slot_does_not_fit() -> None:
    """It ends the batch, as a full ring does."""
    ring = MemoryRing.alone(SIZES.slots, SIZES.slot_bytes)
    assert ring.push(Burst.of([FRAME, bytes(SIZES.frame_bytes + 1), FRAME])) == 1
    assert ring.pop() == [FRAME]


def test_what_is_delivered_is_what_was_decided_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that rewrites a frame between the decision and the delivery changes neither addresses nor tag."""
    engine = ModelEngine(lambda notice: None)
    engine.add_switch(SWITCH, SwitchDefinition("s1"))
    data: Any = np.frombuffer(bytearray(FRAME), np.uint8)
    sink = Keeper()
    for slot, attached in ((1, RingSink(MemoryRing.alone(64, 2048))), (2, sink)):
        engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", 0, True)
        engine.attach(slot, attached, 0)
    burst = Burst.at(data, [0], [len(FRAME)])
    assert burst is not None
    run = compiled.run

    def run_then_lie(job: int) -> Any:
        ended = run(job)
        data[:16] = np.frombuffer(b"\x02\0\0\0\0\x09" * 2 + b"\x81\x00\x00\x14", np.uint8)
        return ended

    plane = Plane(engine, 3)
    plane.transmit(1, burst, 0)
    monkeypatch.setattr(compiled, "run", run_then_lie)
    plane.transmit(1, burst, 0)
    assert [frame[:14] for frame in sink.frames] == [FRAME[:14]] * 2
