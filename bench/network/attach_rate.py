"""Frames a second between two devices at a switch, by every way to attach, in one interleaved run.

    python bench/network/attach_rate.py [--seconds 1]

A sender puts batches of 1024 frames of 64 bytes into one port, a receiver takes them at another, one process for all.
`Attach` is plain; `AttachDevice` has four queues, or 60 KB of TCP in each frame, which pass uncut or are cut at the
way out. The last table is `Attach` over the socket by the size of batches, one way and both ways at a time, which
counts what arrives at either end; beside it, by the processor's time of all in the process, clients too. The machine is
shared: medians, and ratios rather than figures.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import struct
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lamina.vswitch.v1 import backends_pb2, rings_pb2, rings_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc

from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, connect, local, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.server import build

BATCH, ROUNDS = 1024, 5
BATCHES = (32, 64, 128, 256, 512, 1024)
A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
TCP4 = struct.pack("<BBHHHHHHHI", 1, 1, 54, 1446, 34, 16, 0, 0, 0, 0)
ALL = backends_pb2.Offloads(checksum=True, tcp4_segments=True)


def long_frame() -> bytes:
    """Return 60,000 bytes of TCP over IPv4."""
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 60_040, 1, 0, 64, 6, 0, 1, 2)
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 0x50, 0x10, 64, 0, 0)
    return B + A + b"\x08\x00" + ip + tcp + bytes(60_000)


class Way:
    """A sender and a receiver; the receiver can send as well.

    `openings` are their first messages, `batches` what each of them sends, `frames` how many the other one gets of it.
    """

    def __init__(self, call: Any, openings: Any, batches: Any, frames: int) -> None:
        self._queues: list[asyncio.Queue[Any]] = [asyncio.Queue(), asyncio.Queue()]
        self._batches, self.frames = batches, frames
        self._ends = [call(self._requests(first, queue)) for first, queue in zip(openings, self._queues, strict=True)]

    async def _requests(self, first: Any, queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
        yield first
        while (item := await queue.get()) is not None:
            yield item

    async def begin(self) -> None:
        """Wait until both are attached."""
        for end in self._ends:
            await end.read()

    async def both(self, seconds: float) -> float:
        """Return frames a second that reach either end while both send."""
        return sum(await asyncio.gather(self.rate(seconds), self.rate(seconds, 1)))

    async def rate(self, seconds: float, sender: int = 0) -> float:
        """Return frames a second that reach the other end, four batches on the way at any time."""
        got, queue, batch_sent = 0, self._queues[sender], self._batches[sender]
        start, end = time.perf_counter(), time.perf_counter() + seconds
        for _ in range(4):
            queue.put_nowait(batch_sent)
        sent = 4 * self.frames
        while True:
            answer = await self._ends[1 - sender].read()
            batch = answer.batch if hasattr(answer, "batch") else answer.frames
            got += int(len(batch.frames) + batch.dropped_frames)
            while got + 3 * self.frames >= sent and time.perf_counter() < end:
                queue.put_nowait(batch_sent)
                sent += self.frames
            if got >= sent:
                return got / (time.perf_counter() - start)


async def ways(channel: Any) -> dict[str, Way]:
    """Return every way that goes over this channel."""
    switches, ports = rpc.SwitchesStub(channel), rpc.PortsStub(channel)
    rings = rings_pb2_grpc.PortRingsStub(channel)
    plain, open_device = ports.Attach, rings.AttachDevice
    short = [B + A + b"\x88\xb6" + bytes(50)] * BATCH
    tcp = long_frame()
    found: dict[str, Way] = {}
    for number, name in enumerate(("Attach", "AttachDevice", "4 queues", "60 KB uncut", "60 KB cut")):
        switch = await switches.CreateSwitch(pb.CreateSwitchRequest(switch_id=f"s{number}"))
        requests = [pb.CreatePortRequest(parent=switch.name, port_id=port) for port in "ab"]
        handles = [(await ports.CreatePort(request)).handle for request in requests]
        device = rings_pb2.AttachDeviceOpen(handle=handles[0])
        opening = rings_pb2.AttachDeviceRequest(open=device)
        batch = rings_pb2.DeviceBatch(frames=short)
        frames = BATCH
        options: dict[str, Any] = {"queue_frames": 65536}
        if name == "4 queues":
            options["queues"] = 4
        if name.startswith("60"):
            batch, frames = rings_pb2.DeviceBatch(frames=[tcp] * 16, offload_headers=TCP4 * 16), 16
            if name == "60 KB uncut":
                options["offloads"] = ALL
            else:
                frames = 16 * 42
        if name == "Attach":
            first = pb.AttachRequest(open=pb.AttachOpen(handle=handles[0]))
            other = pb.AttachRequest(open=pb.AttachOpen(handle=handles[1], queue_frames=65536))
            message = pb.AttachRequest(frames=pb.FrameBatch(frames=short))
            found[name] = Way(plain, (first, other), (message, message), frames)
            continue
        second = rings_pb2.AttachDeviceRequest(open=rings_pb2.AttachDeviceOpen(handle=handles[1], **options))
        sent = rings_pb2.AttachDeviceRequest(batch=batch)
        found[name] = Way(open_device, (opening, second), (sent, sent), frames)
    for way in found.values():
        await way.begin()
    return found


async def by_size(channel: Any) -> dict[int, Way]:
    """Return one `Attach` for each size of batches, which can send both ways."""
    found: dict[int, Way] = {}
    ports = rpc.PortsStub(channel)
    for size in BATCHES:
        switch = await rpc.SwitchesStub(channel).CreateSwitch(pb.CreateSwitchRequest(switch_id=f"b{size}"))
        requests = [pb.CreatePortRequest(parent=switch.name, port_id=port) for port in "ab"]
        opens = [
            pb.AttachOpen(handle=(await ports.CreatePort(request)).handle, queue_frames=65536) for request in requests
        ]
        batches = [
            pb.AttachRequest(frames=pb.FrameBatch(frames=[head + b"\x88\xb6" + bytes(50)] * size))
            for head in (B + A, A + B)
        ]
        found[size] = Way(ports.Attach, [pb.AttachRequest(open=each) for each in opens], batches, size)
        await found[size].begin()
    return found


async def measure(seconds: float) -> None:
    """Print a table of frames a second."""
    rows: dict[str, dict[str, list[float]]] = {}
    sizes: dict[int, list[list[float]]] = {size: [[] for _ in range(4)] for size in BATCHES}
    with tempfile.TemporaryDirectory() as folder:
        clock = RealClock()
        for wire in ("in process", "UNIX socket"):
            state = LayerState("vswitch", "h1", clock, Rng("bench"))
            environment = Environment("h1", clock, Rng("bench"), Path(folder) / wire[:2], state, {})
            service = build(environment, VswitchConfig())
            await service.start()
            served = await serve(service, [f"unix:{folder}/{wire[:2]}.sock"], state) if wire != "in process" else None
            channel = connect(served.addresses[0]) if served else local(service, state)
            found = await ways(channel)
            for _ in range(ROUNDS):
                for name, way in found.items():
                    rows.setdefault(name, {}).setdefault(wire, []).append(await way.rate(seconds))
            if served is not None:
                sized = await by_size(channel)
                for _ in range(ROUNDS):
                    for size, way in sized.items():
                        for kind, run in enumerate((way.rate, way.both)):
                            began, spent = time.perf_counter(), time.process_time()
                            found_rate = await run(seconds)
                            share = (time.process_time() - spent) / (time.perf_counter() - began)
                            sizes[size][2 * kind].append(found_rate)
                            sizes[size][2 * kind + 1].append(found_rate / share)
            await service.stop()
            if served is not None:
                await served.stop(0)
    print(f"{'way':<14}" + "".join(f"{wire:>20}" for wire in ("in process", "UNIX socket")))
    for name, found_rates in rows.items():
        shown = [f"{statistics.median(rates) / 1000:>12,.0f} kpps   " for rates in found_rates.values()]
        print(f"{name:<14}" + "".join(shown))
    print(f"\n{'batches of':<14}{'one way':>20}{'by processor':>20}{'both ways':>20}{'by processor':>20}")
    for size, columns in sizes.items():
        print(f"{size:<14}" + "".join(f"{statistics.median(r) / 1000:>12,.0f} kpps   " for r in columns))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure (default 1)")
    asyncio.run(measure(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
