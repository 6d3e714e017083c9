"""Round trips through a switch, one at a time: p50 and p99 of ours, Open vSwitch and a Linux bridge, in one run.

    python bench/network/switch_latency.py [--pings 2000] [--rounds 3]

`ping` from one namespace to the other, as fast as answers come, so that a kernel answers and the switch is crossed
twice. *veth*: the switch is at veths. *tap*: ours and Open vSwitch have TAP devices. *attach*: a frame between two
`Attach` streams over a UNIX socket and back, all in one process. Sides take turns. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc

from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, connect, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.server import build

sys.path.insert(0, str(Path(__file__).parent))

import _wires  # type: ignore[import-not-found]  # it lies beside this script

_TIME = re.compile(r"time=([0-9.]+) ms")
WAYS = (("ours", False), ("bridge", False), ("ovs", False), ("ours", True), ("ovs", True))


def trips(kind: str, taps: bool, folder: Path, count: int) -> list[float]:
    """Return the times of round trips in microseconds, sorted."""
    with _wires.joined(kind, folder, taps=taps) as ends:
        said = _wires.run(*ends.inside("a", "ping", "-i", "0", "-c", str(count), "-W", "5", _wires.ADDRESSES["b"]))
        found = sorted(1000 * float(each) for each in _TIME.findall(said))
        if len(found) < count * 0.99:
            raise RuntimeError(f"{count - len(found)} of {count} pings got no answer")
        return found


def percentiles(times: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile of sorted times."""
    return times[len(times) // 2], times[len(times) * 99 // 100]


async def attach_trips(folder: Path, count: int) -> list[float]:
    """Return the times of round trips between two streams in microseconds, sorted."""
    clock = RealClock()
    state = LayerState("vswitch", "h1", clock, Rng("bench"))
    service = build(Environment("h1", clock, Rng("bench"), folder, state, {}), VswitchConfig())
    await service.start()
    served = await serve(service, [f"unix:{folder}/vswitch.sock"], state)
    channel = connect(served.addresses[0])
    switch = await rpc.SwitchesStub(channel).CreateSwitch(pb.CreateSwitchRequest(switch_id="s"))
    ports = rpc.PortsStub(channel)
    queues: list[asyncio.Queue[Any]] = []
    streams = []
    for port in "ab":
        made = await ports.CreatePort(pb.CreatePortRequest(parent=switch.name, port_id=port))
        queues.append(asyncio.Queue())
        queues[-1].put_nowait(pb.AttachRequest(open=pb.AttachOpen(handle=made.handle)))
        streams.append(ports.Attach(_taken(queues[-1])))
        await streams[-1].read()
    there, back = (
        bytes.fromhex(each) + b"\x88\xb6" + bytes(50)
        for each in ("02000000000b02000000000a", "02000000000a02000000000b")
    )
    found = []
    for _ in range(count):
        began = time.perf_counter()
        queues[0].put_nowait(pb.AttachRequest(frames=pb.FrameBatch(frames=[there])))
        await streams[1].read()
        queues[1].put_nowait(pb.AttachRequest(frames=pb.FrameBatch(frames=[back])))
        await streams[0].read()
        found.append(1e6 * (time.perf_counter() - began))
    for queue in queues:
        queue.put_nowait(None)
    await channel.close()
    await service.stop()
    await served.stop(0)
    return sorted(found)


async def _taken(queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while (item := await queue.get()) is not None:
        yield item


def main() -> int:
    """Run all sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pings", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    _wires.enter_namespace()
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            for kind, taps in WAYS:
                times = trips(kind, taps, Path(folder) / f"{kind}{taps:d}{number}", args.pings)
                found.setdefault((kind, "tap" if taps else "veth"), []).append(percentiles(times))
            own = Path(folder) / f"attach{number}"
            own.mkdir()
            found.setdefault(("ours", "attach"), []).append(percentiles(asyncio.run(attach_trips(own, args.pings))))
    print(f"{'side':<10}{'at':<8}{'p50 µs':>10}{'p99 µs':>10}")
    for (kind, way), pairs in found.items():
        middle, tail = (statistics.median(each) for each in zip(*pairs, strict=True))
        print(f"{kind:<10}{way:<8}{middle:>10.0f}{tail:>10.0f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
