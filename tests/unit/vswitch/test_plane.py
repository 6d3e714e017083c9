"""The compiled plane: what it leaves to the engine, what it tells devices, and when it is loaded."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
import weakref
from collections.abc import Sequence
from typing import Any

from tests.frame_sinks import Keeper

from lamina_kit.rng import Rng
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.metadata import LadenFrame
from lamina_vswitch.domain.offload.features import ALL
from lamina_vswitch.domain.port import ring_layout as layout
from lamina_vswitch.domain.port.receive_filter import ReceiveFilter
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.domain.switch.topology import Port
from lamina_vswitch.engines.interface import FrameSink
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.flat_fdb import FlatFdb
from lamina_vswitch.plane.memory_ring import MemoryRing, RingSink
from lamina_vswitch.plane.switching import Plane

SWITCH = "hosts/h1/switches/s1"
A, B = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")
ALL_STATIONS = b"\xff" * 6
REST = b"\x08\x00" + bytes(46)


class Bench:
    """A switch with a ring at port 1, a ring at port 2, and a list at each further port."""

    def __init__(self, ports: int = 3, mac_limit: int = 8192, **ring: Any) -> None:
        self.notices: list[Notice] = []
        self.engine = ModelEngine(self.notices.append)
        self.engine.add_switch(SWITCH, SwitchDefinition("s1", mac_limit=mac_limit))
        self.rings = [MemoryRing.alone(64, 2048) for _ in range(2)]
        self.lists = [Keeper() for _ in range(ports - 2)]
        sinks: list[FrameSink] = [RingSink(self.rings[0]), RingSink(self.rings[1], **ring), *self.lists]
        for slot, sink in enumerate(sinks, 1):
            self.engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", 0, True)
            self.engine.attach(slot, sink, 0, ALL if slot == 3 else None)
        self.plane = Plane(self.engine, 7)

    def send(self, slot: int, *frames: bytes, now: int = 0) -> int:
        """Send a burst."""
        return self.plane.transmit(slot, Burst.of(frames), now)


def test_nothing_loads_compiled_code_before_the_first_burst() -> None:
    """A service starts without numba, which takes longer to load than all else."""
    script = "import sys, lamina_vswitch.server; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_switch_keeps_what_it_knew_when_the_plane_comes() -> None:
    """Addresses that Python learned are known in the first burst, and afterwards both see one table."""
    bench = Bench()
    bench.engine.transmit(3, [ALL_STATIONS + A + REST], 5)
    bench.rings[1].pop()
    assert not isinstance(bench.engine.switch_at(1).fdb, FlatFdb)
    bench.send(1, A + B + REST, now=6)
    assert bench.lists[0].frames == [A + B + REST]
    assert bench.rings[1].pop() == []
    assert isinstance(bench.engine.switch_at(1).fdb, FlatFdb)
    assert [(entry.mac, entry.slot, entry.age_ns) for entry in bench.engine.mac_entries(SWITCH, 8)] == [
        (A, 3, 3),
        (B, 1, 2),
    ]


def test_an_address_lives_to_the_nanosecond() -> None:
    """A known destination is flooded to from the end of its age on, and a source is news again from there."""
    bench, age = Bench(), 300 * 10**9
    bench.send(2, ALL_STATIONS + B + REST)
    bench.send(1, B + A + REST, now=age - 1)
    assert bench.lists[0].frames == [ALL_STATIONS + B + REST]
    bench.send(1, B + A + REST, now=age)
    assert bench.lists[0].frames[1:] == [B + A + REST]
    bench.send(2, ALL_STATIONS + B + REST, now=2 * age - 1)
    bench.notices.clear()
    bench.send(1, B + A + REST, now=2 * age - 1)
    assert bench.notices == []
    bench.send(2, ALL_STATIONS + B + REST, now=3 * age - 2)
    bench.send(1, B + A + REST, now=3 * age - 1)
    assert [(one.event, one.object) for one in bench.notices] == [("mac.learned", f"{SWITCH}/ports/p1")]


def test_a_flood_of_addresses_is_learned_in_one_burst() -> None:
    """Thousands of new sources in a burst are the same to the plane and to the reference, and so is the full table."""
    plane, reference = Bench(5, mac_limit=6_000), Bench(5, mac_limit=6_000)
    frames = [ALL_STATIONS + b"\x02\x00" + number.to_bytes(4, "big") + REST for number in range(8_000)]
    assert plane.send(3, *frames) == 0 == reference.engine.transmit(3, frames, 0)
    assert plane.engine.tally(SWITCH, 1) == reference.engine.tally(SWITCH, 1)
    assert plane.engine.tally(SWITCH, 1).mac_refusals == 2_000
    assert plane.engine.mac_entries(SWITCH, 1) == reference.engine.mac_entries(SWITCH, 1)
    assert plane.lists[1].frames == reference.lists[1].frames == frames
    assert [plane.engine.counters(slot) for slot in range(1, 6)] == [
        reference.engine.counters(slot) for slot in range(1, 6)
    ]


def test_a_device_that_sleeps_is_woken_once() -> None:
    """need_wakeup is asked after the frames are there, and cleared; without it nobody is called."""
    woken: list[int] = []
    bench = Bench(wake=lambda: woken.append(1))
    bench.send(1, ALL_STATIONS + A + REST)
    assert woken == []
    ctypes.c_uint32.from_address(bench.rings[1].address + layout.NEED_WAKEUP).value = 1
    bench.send(1, ALL_STATIONS + A + REST)
    bench.send(1, ALL_STATIONS + A + REST)
    assert woken == [1]


def test_a_full_ring_is_counted_where_both_sides_see_it() -> None:
    """What does not fit is in the port's counters and in the ring's own."""
    bench = Bench()
    bench.send(1, *[ALL_STATIONS + A + REST] * 70)
    assert bench.engine.counters(2).drops_by_reason() == ((DropReason.QUEUE_FULL, 6),)
    assert ctypes.c_uint64.from_address(bench.rings[1].address + layout.DROPPED).value == 6


def _slot(frame: bytes, offload: bytes, record: bytes) -> bytes:
    return struct.pack("<I12x20s28x32s32x", len(frame), offload, record) + frame


def _written(bench: Bench, slots: Sequence[bytes]) -> Burst:
    """Write slots into the ring of port 1 as a device would, and take them out."""
    ring = bench.rings[0]
    for number, slot in enumerate(slots):
        ctypes.memmove(ring.address + layout.FIRST_SLOT + number * 2048, slot, len(slot))
    ctypes.c_uint32.from_address(ring.address + layout.PRODUCER).value = len(slots)
    burst = ring.peek(64)
    assert burst is not None
    return burst


def test_what_a_slot_says_beside_the_frame_is_obeyed() -> None:
    """Frames that carry something go by the reference, in their place; a bad header drops its frame."""
    bench = Bench()
    plain, traced, bad = (ALL_STATIONS + A + b"\x08\x00" + bytes([fill]) * 46 for fill in (1, 2, 3))
    record = bytes(range(32))
    burst = _written(bench, [_slot(plain, b"", b""), _slot(traced, b"", record), _slot(bad, b"\x01" * 20, b"")] * 2)
    assert bench.plane.transmit(1, burst, 0) == 2
    assert bench.lists[0].frames == [plain, traced] * 2
    carried = [frame.record for frame in bench.lists[0].frames if isinstance(frame, LadenFrame)]
    assert carried == [record, record]
    assert bench.engine.counters(1).drops_by_reason() == ((DropReason.OFFLOAD_INVALID, 2),)
    assert bench.rings[1].pop() == [plain, traced] * 2


def test_old_trace_records_do_not_stick_to_new_frames() -> None:
    """In a ring where records may stand, the plane clears them."""
    bench = Bench()
    ring = bench.rings[1]
    ring.records = True
    ctypes.memset(ring.address + layout.FIRST_SLOT, 0xFF, 64 * 2048)
    bench.send(1, ALL_STATIONS + A + REST)
    burst = ring.peek(1)
    assert burst is not None
    assert type(burst.frame(0)) is bytes
    assert burst.frames() == [ALL_STATIONS + A + REST]


class Watcher:
    """Hears of frames."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, Direction, int]] = []

    def wants(self, port: Port) -> bool:
        """Wants everything."""
        return True

    def missed(self, port: Port, direction: Direction, count: int, now_ns: int) -> None:
        """Hears nothing: that is told where frames come from the kernel alone."""

    def passed(self, port: Port, direction: Direction, frames: Sequence[bytes], now_ns: int) -> None:
        """Note who it was."""
        self.heard.append((port.slot, direction, len(frames)))

    def dropped(
        self, port: Port, direction: Direction, reason: DropReason, frames: Sequence[bytes], now_ns: int
    ) -> None:
        """Nothing is dropped here."""


def test_whoever_watches_sees_every_frame() -> None:
    """With an observer everything goes by the reference; without, by the plane again."""
    bench, watcher = Bench(), Watcher()
    bench.send(1, ALL_STATIONS + A + REST)
    bench.engine.observer = watcher
    bench.send(1, *[ALL_STATIONS + A + REST] * 4)
    bench.engine.observer = None
    bench.send(1, ALL_STATIONS + A + REST)
    assert sorted((slot, count) for slot, _, count in watcher.heard) == [(1, 4), (2, 4), (3, 4)]
    assert bench.engine.counters(2).sent_frames == 6


def test_holds_and_filters_of_receivers_are_obeyed() -> None:
    """A held port keeps its frames, a device gets only the groups that it wants, and order is kept."""
    bench = Bench()
    group = bytes.fromhex("01005e000001")
    bench.send(1, group + A + REST)
    bench.engine.listen(2, ReceiveFilter(B))
    bench.send(1, group + A + REST, ALL_STATIONS + A + REST)
    assert bench.rings[1].pop() == [group + A + REST, ALL_STATIONS + A + REST]
    bench.engine.quiesce(2, 8, 0)
    bench.send(1, ALL_STATIONS + A + REST)
    hold = bench.engine.hold(2)
    assert bench.rings[1].pop() == []
    assert hold is not None and hold.take() == [ALL_STATIONS + A + REST]


def test_counters_of_a_port_do_not_pass_to_the_next_one_in_its_slot() -> None:
    """A new port begins at nothing, also where the plane had counted."""
    bench = Bench()
    bench.send(1, ALL_STATIONS + A + REST)
    bench.engine.remove_port(2, 0)
    bench.engine.add_port(SWITCH, 2, f"{SWITCH}/ports/new", 0, True)
    bench.engine.attach(2, RingSink(bench.rings[1]), 0)
    assert bench.engine.counters(2).sent_frames == 0
    bench.send(1, ALL_STATIONS + A + REST)
    assert bench.engine.counters(2).sent_frames == 1
    assert bench.engine.counters(2).sent_bytes == len(ALL_STATIONS + A + REST)


def test_switches_share_rows_and_nothing_else() -> None:
    """Two switches of a host, ports far apart: each forwards among its own."""
    bench = Bench()
    other = "hosts/h1/switches/s2"
    bench.engine.add_switch(other, SwitchDefinition("s2"))
    sinks = {slot: Keeper() for slot in (200, 4000)}
    for slot, sink in sinks.items():
        bench.engine.add_port(other, slot, f"{other}/ports/p{slot}", 0, True)
        bench.engine.attach(slot, sink, 0)
    rng, sent = Rng("switches"), {1: 0, 200: 0}
    for _ in range(50):
        slot = (1, 200)[rng.randrange(2)]
        bench.send(slot, ALL_STATIONS + A + REST)
        sent[slot] += 1
    assert len(sinks[4000].frames) == sent[200] and len(bench.lists[0].frames) == sent[1]
    assert bench.engine.mac_entries(other, 0)[0].slot == 200


def test_a_switch_that_is_gone_is_not_kept() -> None:
    """Its table of addresses goes with it, though the plane has switched for it."""
    bench = Bench()
    bench.send(1, ALL_STATIONS + A + REST)
    switch = weakref.ref(bench.engine.switch_at(1))
    for slot in (1, 2, 3):
        bench.engine.remove_port(slot, 0)
    bench.engine.remove_switch(SWITCH)
    assert switch() is None
