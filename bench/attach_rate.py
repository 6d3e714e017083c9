"""Frames a second between two devices at a switch, by every way to attach, in one interleaved run.

    python bench/attach_rate.py [--seconds 1]

A sender puts batches of 1024 frames of 64 bytes into one port, a receiver takes them at another, one process for all.
`Attach` is plain; `AttachDevice` has four queues, or 60 KB of TCP in each frame, which pass uncut or are cut at the
way out. The machine is shared: medians, and ratios rather than figures.
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
from lamina_kit.layer import LayerState
from lamina_kit.rng import Rng
from lamina_kit.service import Environment, connect, local, serve
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.server import build

BATCH, ROUNDS = 1024, 5
A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
TCP4 = struct.pack("<BBHHHHHHHI", 1, 1, 54, 1446, 34, 16, 0, 0, 0, 0)
ALL = backends_pb2.Offloads(checksum=True, tcp4_segments=True)


def long_frame() -> bytes:
    """Return 60,000 bytes of TCP over IPv4."""
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 60_040, 1, 0, 64, 6, 0, 1, 2)
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 0x50, 0x10, 64, 0, 0)
    return B + A + b"\x08\x00" + ip + tcp + bytes(60_000)


class Way:
    """A sender and a receiver. `batch` is what the sender sends, `frames` how many of them the receiver gets of it."""

    def __init__(self, calls: Any, first: Any, batch: Any, second: Any, frames: int) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._first, self._batch, self.frames = first, batch, frames
        self.sender = calls[0](self._requests())
        self.receiver = calls[1](self._hold(second))
        self._open = asyncio.Event()

    async def _requests(self) -> AsyncIterator[Any]:
        yield self._first
        while (item := await self._queue.get()) is not None:
            yield item

    async def _hold(self, opening: Any) -> AsyncIterator[Any]:
        yield opening
        await self._open.wait()

    async def begin(self) -> None:
        """Wait until both are attached."""
        await self.sender.read()
        await self.receiver.read()

    async def rate(self, seconds: float) -> float:
        """Return frames a second that reach the receiver, four batches on the way at any time."""
        got = 0
        start, end = time.perf_counter(), time.perf_counter() + seconds
        for _ in range(4):
            self._queue.put_nowait(self._batch)
        sent = 4 * self.frames
        while True:
            answer = await self.receiver.read()
            batch = answer.batch if hasattr(answer, "batch") else answer.frames
            got += int(len(batch.frames) + batch.dropped_frames)
            while got + 3 * self.frames >= sent and time.perf_counter() < end:
                self._queue.put_nowait(self._batch)
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
            found[name] = Way((plain, plain), first, message, other, frames)
            continue
        second = rings_pb2.AttachDeviceRequest(open=rings_pb2.AttachDeviceOpen(handle=handles[1], **options))
        sent = rings_pb2.AttachDeviceRequest(batch=batch)
        found[name] = Way((open_device, open_device), opening, sent, second, frames)
    for way in found.values():
        await way.begin()
    return found


async def measure(seconds: float) -> None:
    """Print a table of frames a second."""
    rows: dict[str, dict[str, list[float]]] = {}
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
            await service.stop()
            if served is not None:
                await served.stop(0)
    print(f"{'way':<14}" + "".join(f"{wire:>20}" for wire in ("in process", "UNIX socket")))
    for name, found_rates in rows.items():
        shown = [f"{statistics.median(rates) / 1000:>12,.0f} kpps   " for rates in found_rates.values()]
        print(f"{name:<14}" + "".join(shown))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure (default 1)")
    asyncio.run(measure(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
