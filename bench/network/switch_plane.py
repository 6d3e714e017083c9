"""Frames a second through the compiled plane, against the Python reference and against bare copies, in one run.

    python bench/network/switch_plane.py [--rounds 7] [--plot FILE.svg]

Sixteen ports of one VLAN in a port group, each with a ring in the contract's layout. A burst is 2048 frames between
random stations: parsed, learned from, looked up, counted and copied into the rings of their receivers, who empty them
outside the measured time. *copy* is the bound: the same frames put into as many such rings by the same compiled copy,
one ring after another, with nothing decided. Times are the processor's, sides take turns, and figures are medians; the
machine is shared, so only ratios within a round mean much. The aim is 20 million frames of 64 bytes a second.

The shape of the rings counts: 256 slots of 2112 bytes stay in a core's cache. With slots of 2048 bytes, or any multiple
of 128, all frames begin in a few of its sets and drive each other out; with 1024 slots they do not fit. A table tells
what that costs. Then some of the ports are trunks, whose frames of 64 bytes have four more for a tag, which is put on,
taken off or passed. The last one has many sizes of the MAC table by turns: how flat the price of a frame is, and
whether that is the table's doing or that of traffic and rings, which bare copies have too.
"""

from __future__ import annotations

import argparse
import itertools
import mmap
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from lamina_cli.output.drawing import chart, svg
from lamina_kit.rng import Rng
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.port.ring_layout import Geometry
from lamina_vswitch.engines.interface import FrameSink
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.plane.bursts import Burst
from lamina_vswitch.plane.memory_ring import MemoryRing, RingSink
from lamina_vswitch.plane.switching import Plane

SWITCH = "hosts/h1/switches/s1"
PORTS, VLAN = 16, 10
BURSTS, BURST, FEW = 32, 2048, 4
AIM = 20.0
SIZES, TABLES = (64, 512, 1518), (10, 1_000, 100_000)
FINE = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
SHAPES = (Geometry(1, 256, 2112), Geometry(1, 256, 2048), Geometry(1, 1024, 2112), Geometry(1, 1024, 2048))
TRUNKS = (0, 1, 8, PORTS)
"""How many of the ports are trunks: 1 shows what access ports pay beside one, 16 what goes from trunk to trunk."""
Traffic = list[tuple[int, list[bytes]]]
Frames = TypeVar("Frames", list[bytes], Burst, list[Burst])


class Memory:
    """Memory for many rings, in huge pages where the kernel gives them."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, size + (4 << 20), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._used = 0

    def ring(self, geometry: Geometry) -> MemoryRing:
        """Return another ring."""
        at, self._used = self._used, self._used + geometry.ring_bytes
        return MemoryRing(self._map, at, geometry)


class Sink:
    """Takes everything, for the reference."""

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take a batch."""
        return len(frames)

    def link_changed(self, up: bool) -> None:
        """No link changes."""

    def removed(self) -> None:
        """No port is removed."""


class Bench:
    """All three sides, made once: the rings, and room for the copies of the bound."""

    def __init__(self, shape: Geometry = SHAPES[0]) -> None:
        self._memory = Memory(PORTS * shape.ring_bytes)
        self._rings = [self._memory.ring(shape) for _ in range(PORTS)]

    def measure(self, size: int, stations: int, rounds: int) -> tuple[float, float, float]:
        """Return millions of frames a second: of the plane, of the reference, of bare copies."""
        traffic = frames_between(max(stations, PORTS), size)
        bursts = [(port, Burst.of(frames)) for port, frames in traffic]
        parts = [(port, [Burst.of(frames[at::PORTS]) for at in range(PORTS)]) for port, frames in traffic]
        plane = self.plane(stations)
        reference = model([Sink() for _ in range(PORTS)])
        introduce(lambda port, frames: reference.transmit(port, frames, 0), stations)
        rates: list[list[float]] = [[], [], []]
        times = itertools.count(1_000, 1_000)  # a burst's time is written into the entries of all its sources
        for _ in range(rounds):
            rates[0].append(rate(lambda port, burst: plane.transmit(port, burst, next(times)), bursts, self.receive))
            rates[1].append(
                rate(lambda port, frames: reference.transmit(port, frames, next(times)), traffic[:FEW], nothing)
            )
            rates[2].append(rate(lambda _, burst: self.copy(burst), parts, self.receive))
        found = [statistics.median(one) for one in rates]
        return found[0], found[1], found[2]

    def measure_trunks(self, stations: int, rounds: int) -> list[float]:
        """Return millions of frames a second with as many trunks as TRUNKS says; their frames have tags."""
        traffic = frames_between(max(stations, PORTS), SIZES[0])
        loads = [[(port, Burst.of(tagged(port, frames, trunks))) for port, frames in traffic] for trunks in TRUNKS]
        rates: list[list[float]] = [[] for _ in TRUNKS]
        for _ in range(rounds):
            for trunks, load, found in zip(TRUNKS, loads, rates, strict=True):
                found.append(rate(partial(send, self.plane(stations, trunks)), load, self.receive))
        return [statistics.median(found) for found in rates]

    def plane(self, stations: int, trunks: int = 0) -> Plane:
        """Return a plane whose table knows the stations, and whose receivers are empty. The first ports are trunks."""
        engine = model([RingSink(ring) for ring in self._rings])
        for slot in range(1, trunks + 1):
            engine.set_policy(slot, 0, PolicyInForce(trunk=Trunk()), 0)
        plane = Plane(engine, Rng("bench").randrange(1 << 64))
        introduce(lambda port, frames: send(plane, port, Burst.of(tagged(port, frames, trunks))), stations)
        self._empty()
        return plane

    def copy(self, parts: list[Burst]) -> None:
        """Copy frames into the rings, one ring after another."""
        for ring, part in zip(self._rings, parts, strict=True):
            ring.push(part)

    def receive(self) -> None:
        """Take a burst out of the rings, whole: frames that do not fit are soon switched."""
        arrived = self._empty()
        if arrived != BURST:
            raise SystemExit(f"{arrived} of {BURST} frames arrived")

    def _empty(self) -> int:
        arrived = 0
        for ring in self._rings:
            waiting = ring.waiting() or 0
            ring.give_back(waiting)
            arrived += waiting
        return arrived


def send(plane: Plane, port: int, burst: Burst) -> None:
    """Switch a burst."""
    plane.transmit(port, burst, 1)


def tagged(port: int, frames: list[bytes], trunks: int) -> list[bytes]:
    """Return frames as they come in at a port, with tags if it is one of the first, which are trunks."""
    tag = b"\x81\x00" + VLAN.to_bytes(2, "big")
    return [frame[:12] + tag + frame[12:] for frame in frames] if port <= trunks else frames


def mac(number: int) -> bytes:
    """Return the address of station `number`, which is behind port number % 16 + 1."""
    return b"\x02\x00" + number.to_bytes(4, "big")


def frames_between(stations: int, size: int) -> Traffic:
    """Return bursts of frames between random stations behind different ports."""
    rng = np.random.default_rng(stations)
    per_port = max(1, stations // PORTS)
    traffic = []
    for _ in range(BURSTS):
        port = int(rng.integers(PORTS))
        sources = (port + PORTS * rng.integers(per_port, size=BURST)).tolist()
        others = (
            (port + 1 + rng.integers(PORTS - 1, size=BURST)) % PORTS + PORTS * rng.integers(per_port, size=BURST)
        ).tolist()
        rest = b"\x08\x00" + bytes(size - 14)
        traffic.append((port + 1, [mac(dst) + mac(src) + rest for dst, src in zip(others, sources, strict=True)]))
    return traffic


def model(sinks: Sequence[FrameSink]) -> ModelEngine:
    """Return an engine with a sink at each of its ports."""
    engine = ModelEngine(lambda notice: None)
    engine.add_switch(SWITCH, SwitchDefinition("s1", mtu_bytes=1504, mac_limit=1 << 20))
    for slot, sink in enumerate(sinks, 1):
        engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", VLAN, True)
        engine.attach(slot, sink, 0)
    return engine


def introduce(transmit: Callable[[int, list[bytes]], object], stations: int) -> None:
    """Let every station be learned."""
    for first in range(0, max(stations, PORTS), PORTS * BURST):
        for port in range(PORTS):
            numbers = range(first + port, min(first + PORTS * BURST, max(stations, PORTS)), PORTS)
            transmit(port + 1, [mac(number) + mac(number) + b"\x08\x00" + bytes(46) for number in numbers])


def nothing() -> None:
    """Does nothing: the reference's receivers keep nothing."""


def rate(
    work: Callable[[int, Frames], object], traffic: Sequence[tuple[int, Frames]], after: Callable[[], None]
) -> float:
    """Return millions of frames a second of processor time, in bursts of BURST; `after` is the receivers' time."""
    spent = frames = 0.0
    for port, burst in traffic:
        began = time.process_time()
        work(port, burst)
        spent += time.process_time() - began
        frames += BURST
        after()
    return frames / spent / 1e6


def prices(counts: Sequence[int], rounds: int) -> list[tuple[float, float, float]]:
    """Return, for each size of the table, ns a frame in the plane and in bare copies, and the ratio to 1,000 addresses.

    All sizes take turns, so that what else the machine does meets each of them; a ratio is one of the same round.
    """
    sides = []
    for count in counts:
        bench, traffic = Bench(), frames_between(max(count, PORTS), 64)
        parts = [(port, [Burst.of(frames[at::PORTS]) for at in range(PORTS)]) for port, frames in traffic]
        sides.append((bench, bench.plane(count), [(port, Burst.of(frames)) for port, frames in traffic], parts))
    spent: list[list[tuple[float, float]]] = [[] for _ in sides]
    for turn in range(rounds):
        for (bench, plane, bursts, parts), found in zip(sides, spent, strict=True):
            switch = partial(_switch, plane, 1_000 * (turn + 1))
            copy = partial(_copy, bench)
            found.append((1e3 / rate(switch, bursts, bench.receive), 1e3 / rate(copy, parts, bench.receive)))
    usual = spent[counts.index(1_000)]
    return [
        (
            statistics.median(plane for plane, _ in found),
            statistics.median(copy for _, copy in found),
            statistics.median(plane / other for (plane, _), (other, _) in zip(found, usual, strict=True)),
        )
        for found in spent
    ]


def _switch(plane: Plane, now_ns: int, port: int, burst: Burst) -> None:
    plane.transmit(port, burst, now_ns)


def _copy(bench: Bench, _port: int, parts: list[Burst]) -> None:
    bench.copy(parts)


def main() -> int:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--plot", type=Path, help="draw the price of a frame over the size of the table, as SVG")
    args = parser.parse_args()
    bench = Bench()
    print(f"{'bytes':>6}{'stations':>10}{'plane M/s':>12}{'reference':>11}{'copy':>8}{'of copy':>9}{'× reference':>13}")
    reached = []
    for size in SIZES:
        for stations in TABLES:
            plane, reference, copy = bench.measure(size, stations, args.rounds)
            shares = f"{plane / copy:>9.2f}{plane / reference:>13.1f}"
            print(f"{size:>6}{stations:>10,}{plane:>12.1f}{reference:>11.2f}{copy:>8.1f}{shares}", flush=True)
            if size == SIZES[0]:
                reached.append(f"{'met' if plane >= AIM else 'missed'} with {stations:,} stations")
    print(f"aim, {AIM:.0f} million frames of 64 bytes a second: {', '.join(reached)}")
    print(f"\n{'ring':>16}" + "".join(f"{stations:>10,}" for stations in TABLES) + "   stations, 64 bytes, plane M/s")
    for shape in SHAPES:
        of_shape = Bench(shape)
        found = [of_shape.measure(SIZES[0], stations, args.rounds)[0] for stations in TABLES]
        print(f"{shape.slots:>7,} × {shape.slot_bytes:>6}" + "".join(f"{plane:>10.1f}" for plane in found), flush=True)
    print(f"\n{'trunks':>16}" + "".join(f"{stations:>10,}" for stations in TABLES) + "   stations, plane M/s")
    of_trunks = [bench.measure_trunks(stations, args.rounds) for stations in TABLES]
    for number, trunks in enumerate(TRUNKS):
        print(f"{trunks:>10} of {PORTS}" + "".join(f"{found[number]:>10.1f}" for found in of_trunks), flush=True)
    told = prices(FINE, args.rounds)
    print(f"\n{'addresses':>10}{'plane ns':>10}{'copy ns':>9}{'× 1,000':>9}   64 bytes, all sizes by turns")
    for count, (plane, copy, ratio) in zip(FINE, told, strict=True):
        print(f"{count:>10,}{plane:>10.1f}{copy:>9.1f}{ratio:>9.2f}")
    if args.plot is not None:
        series = [
            chart.Series(name, tuple((float(count), one[side]) for count, one in zip(FINE, told, strict=True)))
            for side, name in enumerate(("plane", "copy"))
        ]
        args.plot.write_text(svg.draw(chart.lines("Price of a frame of 64 bytes", "addresses", "ns", series)))
        print(f"written: {args.plot}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
