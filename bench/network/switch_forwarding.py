"""Frames a second through the model engine's switch, against a naive dict switch, in one interleaved run.

    python bench/network/switch_forwarding.py [--seconds 0.3]

The baseline is what one writes first: a dict from address to port, one frame at a time, no VLANs, no bounds, no ageing,
no counters, no reasons. Both put the same bytes objects into the same lists. The machine is shared, so only the ratios
count; absolute figures are medians. The last table puts frames through `Attach` as clients do.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, connect, local, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.server import build

SWITCH = "hosts/h1/switches/s1"
PORTS = 16
ROUNDS = 7
Batch = tuple[int, list[bytes]]


class Sink:
    """Takes everything and keeps the last batch."""

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take a batch."""
        self.frames = frames
        return len(frames)

    def link_changed(self, up: bool) -> None:
        """Links stay as they are here."""

    def removed(self) -> None:
        """Ports stay here."""


class NaiveSwitch:
    """A dict from address to port."""

    def __init__(self) -> None:
        self.table: dict[bytes, int] = {}
        self.sinks = {slot: Sink() for slot in range(1, PORTS + 1)}

    def transmit(self, port: int, frames: list[bytes]) -> None:
        """Learn and forward a batch, one frame at a time."""
        out: dict[int, list[bytes]] = {slot: [] for slot in self.sinks}
        for frame in frames:
            dst = frame[:6]
            self.table[frame[6:12]] = port
            target = self.table.get(dst)
            if dst[0] & 1 or target is None:
                for slot in out:
                    if slot != port:
                        out[slot].append(frame)
            elif target != port:
                out[target].append(frame)
        for slot, delivered in out.items():
            if delivered:
                self.sinks[slot].deliver(delivered)


def mac(number: int) -> bytes:
    """Return the address of station `number`."""
    return b"\x02\x00" + number.to_bytes(4, "big")


def traffic(stations: int, batch: int, length: int, total: int) -> list[Batch]:
    """Return batches of frames between random stations; station n is behind port n % 16 + 1."""
    rng = Rng(f"traffic/{stations}/{batch}")
    batches = []
    for _ in range(max(1, total // batch)):
        port = rng.randrange(PORTS)
        sources = [port + PORTS * rng.randrange(max(1, stations // PORTS)) for _ in range(batch)]
        frames = [
            (mac(rng.randrange(max(PORTS, stations))) + mac(source) + b"\x08\x00").ljust(length, b"\0")
            for source in sources
        ]
        batches.append((port + 1, frames))
    return batches


def flows(batch: int, length: int, total: int) -> list[Batch]:
    """Return batches that carry one conversation each, as bulk transfers do."""
    frames = {port: (mac((port + 1) % PORTS) + mac(port) + b"\x08\x00").ljust(length, b"\0") for port in range(PORTS)}
    return [(turn % PORTS + 1, [frames[turn % PORTS]] * batch) for turn in range(max(1, total // batch))]


def model(stations: int, vlan: int = 0) -> ModelEngine:
    """Return an engine whose table knows all stations."""
    engine = ModelEngine(lambda notice: None)
    engine.add_switch(SWITCH, SwitchDefinition("s1", mac_limit=1 << 20))
    for slot in range(1, PORTS + 1):
        engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", vlan, True)
        engine.attach(slot, Sink(), 0)
    broadcast = [b"\xff" * 6 + mac(number) + bytes(48) for number in range(max(PORTS, stations))]
    for number, frame in enumerate(broadcast):
        engine.transmit(number % PORTS + 1, [frame], 0)
    return engine


def rate(work: Callable[[int, list[bytes]], Any], batches: list[Batch], seconds: float) -> float:
    """Return frames a second."""
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for port, frames in batches:
            work(port, frames)
            done += len(frames)
    return done / (time.perf_counter() - start)


def compare(label: str, batches: list[Batch], stations: int, seconds: float) -> None:
    """Print one line: medians of both, and the median of the ratios of neighbouring runs."""
    engine, naive = model(stations), NaiveSwitch()
    for number in range(max(PORTS, stations)):
        naive.table[mac(number)] = number % PORTS + 1
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(rate(lambda port, frames: engine.transmit(port, frames, 1), batches, seconds / ROUNDS))
        theirs.append(rate(naive.transmit, batches, seconds / ROUNDS))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    both = (statistics.median(ours) / 1e3, statistics.median(theirs) / 1e3)
    print(f"{label:<44} {both[0]:>9.0f} {both[1]:>9.0f} {ratio:>7.2f}×")


async def attach_rate(channel: Any, batch: int, seconds: float) -> float:
    """Return frames a second from one client's stream through the switch into another's."""
    from lamina.vswitch.v1 import vswitch_pb2 as pb
    from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc

    stub = rpc.PortsStub(channel)
    ports = [
        await stub.CreatePort(pb.CreatePortRequest(parent=SWITCH, port_id=f"b{batch}-{side}")) for side in ("a", "b")
    ]
    calls: list[Any] = [stub.Attach() for _ in ports]
    for call, port in zip(calls, ports, strict=True):
        opened = pb.AttachOpen(handle=port.handle, queue_frames=1 << 16)
        await call.write(pb.AttachRequest(open=opened))
        await call.read()
    message = pb.AttachRequest(frames=pb.FrameBatch(frames=[(mac(2) + mac(1) + b"\x08\x00").ljust(64, b"\0")] * batch))
    received, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        await calls[0].write(message)
        wanted = received + batch
        while received < wanted:
            received += len((await calls[1].read()).frames.frames)
    elapsed = time.perf_counter() - start
    for call in calls:
        call.cancel()
    return received / elapsed


async def attach(seconds: float) -> None:
    """Print frames a second through `Attach`, over both wires."""
    from lamina.vswitch.v1 import vswitch_pb2 as pb
    from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc

    with tempfile.TemporaryDirectory() as folder:
        clock, rng = RealClock(), Rng("bench")
        state = LayerState("vswitch", "h1", clock, rng)
        service = build(Environment("h1", clock, rng, Path(folder), state), VswitchConfig())
        await service.start()
        served = await serve(service, ["127.0.0.1:0"], state)
        wires = {"in process": local(service, state), "socket": connect(served.addresses[0])}
        for wire, channel in wires.items():
            await rpc.SwitchesStub(channel).CreateSwitch(pb.CreateSwitchRequest(switch_id="s1", request_id="bench"))
            for batch in (1, 64, 1024):
                found = await attach_rate(channel, batch, seconds)
                name = f"p-{wire}".replace(" ", "-")
                for side in ("a", "b"):
                    port = f"{SWITCH}/ports/b{batch}-{side}"
                    await rpc.PortsStub(channel).DeletePort(pb.DeletePortRequest(name=port))
                print(f"{name[2:]:<11} batches of {batch:<5} one at a time {found / 1e3:>18.0f}")
            await channel.close()
        await served.stop(0)
        await service.stop()


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.7, help="time for each line and side (default 0.7)")
    seconds = parser.parse_args().seconds
    print(f"{'switching, 64-byte frames, 16 ports':<44} {'kpps':>9} {'dict':>9} {'ratio':>8}")
    for batch in (1, 32, 256):
        compare(f"one conversation a batch, batches of {batch}", flows(batch, 64, 4096), PORTS, seconds)
    for stations in (10, 1_000, 100_000):
        compare(f"{stations} stations at random, batches of 256", traffic(stations, 256, 64, 16384), stations, seconds)
    compare("1,000 stations, 1514 bytes, batches of 256", traffic(1000, 256, 1514, 16384), 1000, seconds)
    print(f"\n{'Attach, 64-byte frames, client to client':<44} {'kpps':>9}")
    asyncio.run(attach(seconds))


if __name__ == "__main__":
    main()
