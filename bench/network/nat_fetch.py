"""A modelled guest fetches a file from a server on this machine through NAT: MB a second, and MB a CPU second.

    python bench/network/nat_fetch.py [--megabytes 50] [--rounds 3]

Guest, switch, router and gateway are this process; the server is another one. The guest takes long frames and leaves
sums to its device, or does neither. Beside it: the same fetch by the kernel's loopback, and, as root where it is
installed, through slirp4netns from a network namespace (its CPU time is that of slirp4netns). Interleaved, medians.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lamina.vswitch.v1 import backends_pb2, networks_pb2, networks_pb2_grpc, rings_pb2, rings_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc

from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_net.aio import NetShell
from lamina_net.ip.routes import Route
from lamina_net.offload.long_packets import LongFrame, long_frame
from lamina_net.packets.address import Subnet, parse_address
from lamina_net.stack import Stack, StackConfig
from lamina_net.tcp.config import TcpConfig
from lamina_net.tcp.interface import Endpoint, Refused
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.server import build

GUEST, ROUTER, ALIAS = (parse_address(text) or 0 for text in ("10.0.2.99", "10.0.2.1", "10.0.2.200"))
HEADER = struct.Struct("<BBHHHHHHHI")
NO_HEADER = bytes(HEADER.size)
SERVER = """
import socket, sys
made = socket.create_server(("127.0.0.1", 0))
print(made.getsockname()[1], flush=True)
block = bytes(range(256)) * 4096
while True:
    found, _ = made.accept()
    size = int(found.recv(100))
    while size > 0:
        found.sendall(block[:size])
        size -= len(block)
    found.close()
"""
CLIENT = """
import socket, sys, time
start = time.perf_counter()
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as made:
    made.sendall(sys.argv[3].encode())
    got = 0
    while data := made.recv(1 << 18):
        got += len(data)
assert got == int(sys.argv[3]), got
print(time.perf_counter() - start)
"""


class Guest:
    """A stack at a port of the switch."""

    def __init__(self, channel: Any, handle: Any, long: bool) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._long = long
        offloads = backends_pb2.Offloads(checksum=long, tcp4_segments=long)
        opening = rings_pb2.AttachDeviceOpen(handle=handle, offloads=offloads, queue_frames=8192)
        self._queue.put_nowait(rings_pb2.AttachDeviceRequest(open=opening))
        self.call: Any = rings_pb2_grpc.PortRingsStub(channel).AttachDevice(self._requests())
        stack = Stack(b"guest", StackConfig(tcp=TcpConfig(burst=65_160 if long else 0)))
        interface = stack.internet.add_interface("eth0", bytes.fromhex("020000000099"), 1500)
        interface.takes_long = long
        assert stack.internet.add_address("eth0", GUEST, 24)
        stack.internet.routes.add(Route(Subnet(0, 0), "eth0", via=ROUTER))
        self._frames: list[bytes] = []
        self.shell = NetShell(stack, RealClock(), self._transmit)

    async def _requests(self) -> AsyncIterator[Any]:
        while True:
            yield await self._queue.get()

    def _transmit(self, _: str, frame: bytes) -> None:
        self._frames.append(frame)
        if len(self._frames) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        columns: dict[str, Any] = {}
        if any(isinstance(frame, LongFrame) for frame in frames):
            columns["offload_headers"] = b"".join(map(header_of, frames))
        batch = rings_pb2.DeviceBatch(frames=list(map(bytes, frames)), **columns)
        self._queue.put_nowait(rings_pb2.AttachDeviceRequest(batch=batch))

    async def carry(self) -> None:
        """Take what the switch brings."""
        await self.call.read()
        while True:
            batch = (await self.call.read()).batch
            headers = batch.offload_headers
            frames = batch.frames
            if headers:
                size = HEADER.size
                loads = [HEADER.unpack_from(headers, number * size) for number in range(len(frames))]
                pairs = zip(frames, loads, strict=True)
                frames = [long_frame(frame, load[3]) if load[0] & 1 else frame for frame, load in pairs]
            self.shell.frames("eth0", frames)

    async def fetch(self, port: int, size: int) -> None:
        """Fetch so many bytes."""
        handle = self.shell.stack.sockets.open_tcp()
        assert not isinstance(handle, Refused)
        assert await self.shell.connect(handle, Endpoint(ALIAS, port)) is None
        await self.shell.send_all(handle, str(size).encode())
        got = 0
        while data := await self.shell.recv(handle, 1 << 20):
            assert not isinstance(data, Refused), data
            got += len(data)
        assert got == size, got
        self.shell.stack.sockets.close(handle, RealClock().now_ns())
        self.shell.carry()


def header_of(frame: bytes) -> bytes:
    """Return the offload header beside a frame."""
    if not isinstance(frame, LongFrame):
        return NO_HEADER
    return HEADER.pack(1, 1, frame.header_bytes, frame.segment_bytes, frame.tcp_at, 16, 0, 0, 0, 0)


async def guests(channel: Any) -> dict[str, Guest]:
    """Return guests of a NAT network."""
    switches, ports = rpc.SwitchesStub(channel), rpc.PortsStub(channel)
    switch = await switches.CreateSwitch(pb.CreateSwitchRequest(switch_id="s1"))
    settings = networks_pb2.NatSettings(allowed_destinations=["127.0.0.1/32"], host_alias_address="10.0.2.200")
    network = networks_pb2.Network(
        mode=networks_pb2.Network.MODE_NAT, switch=switch.name, subnet="10.0.2.0/24", nat=settings
    )
    request = networks_pb2.CreateNetworkRequest(network_id="lan", network=network)
    await networks_pb2_grpc.NetworksStub(channel).CreateNetwork(request)
    found: dict[str, Guest] = {}
    for name, long in (("guest, long frames", True), ("guest, plain", False)):
        made = await ports.CreatePort(pb.CreatePortRequest(parent=switch.name, port_id=f"p{len(found)}"))
        found[name] = Guest(channel, made.handle, long)
    return found


class Slirp:
    """A namespace behind slirp4netns."""

    def __init__(self) -> None:
        self.inside = subprocess.Popen(["unshare", "-n", "sleep", "3600"])
        time.sleep(0.3)
        command = ["slirp4netns", "--configure", "--mtu=1500", str(self.inside.pid), "tap0"]
        self.slirp = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)

    def fetch(self, port: int, size: int) -> tuple[float, float]:
        """Return the seconds, and those of slirp's processor."""
        before = cpu_of(self.slirp.pid)
        inner = [sys.executable, "-c", CLIENT, "10.0.2.2", str(port), str(size)]
        ran = subprocess.run(["nsenter", "-n", "-t", str(self.inside.pid), *inner], capture_output=True, check=True)
        return float(ran.stdout), cpu_of(self.slirp.pid) - before

    def close(self) -> None:
        """End both."""
        for each in (self.slirp, self.inside):
            each.kill()
            each.wait()


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process, the kernel's for it too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def direct(port: int, size: int) -> tuple[float, float]:
    """Fetch by the kernel alone; return the seconds, and those of the client's processor."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as made:
        made.sendall(str(size).encode())
        while made.recv(1 << 18):
            pass
    after = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def start_server() -> subprocess.Popen[bytes]:
    """Return the server, which says its port first."""
    return subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)


async def fetched(found: dict[str, Guest], port: int, size: int, slirp: Slirp | None) -> dict[str, tuple[float, float]]:
    """Fetch once in each way; return the seconds, and those of the processor."""
    row: dict[str, tuple[float, float]] = {}
    for name, guest in found.items():
        start, cpu = time.perf_counter(), time.process_time()
        await guest.fetch(port, size)
        row[name] = (time.perf_counter() - start, time.process_time() - cpu)
    row["direct"] = direct(port, size)
    if slirp is not None:
        row["slirp4netns"] = slirp.fetch(port, size)
    return row


async def measure(size: int, rounds: int) -> None:
    """Print a table."""
    rows: list[dict[str, tuple[float, float]]] = []
    server = start_server()
    slirp = None
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        slirp = Slirp() if os.geteuid() == 0 and shutil.which("slirp4netns") else None
        with tempfile.TemporaryDirectory() as folder:
            clock = RealClock()
            state = LayerState("vswitch", "h1", clock, Rng("bench"))
            service = build(Environment("h1", clock, Rng("bench"), Path(folder), state, {}), VswitchConfig())
            await service.start()
            try:
                found = await guests(local(service, state))
                async with asyncio.TaskGroup() as group:  # a guest whose carrying breaks ends the fetch that waits
                    carrying = [group.create_task(guest.carry()) for guest in found.values()]
                    rows += [await fetched(found, port, size, slirp) for _ in range(rounds)]
                    for task in carrying:
                        task.cancel()
            finally:
                await service.stop()
    finally:
        server.kill()
        server.wait()
        if slirp is not None:
            slirp.close()
    print(f"{'way':<20}{'MB/s':>10}{'MB a CPU second':>18}")
    for name in rows[0]:
        wall, cpu = (statistics.median(row[name][place] for row in rows) for place in (0, 1))
        print(f"{name:<20}{size / wall / 1e6:>10,.0f}{size / max(cpu, 1e-9) / 1e6:>18,.0f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--megabytes", type=int, default=50, help="to fetch (default 50)")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default 3)")
    options = parser.parse_args()
    asyncio.run(measure(options.megabytes * 1_000_000, options.rounds))


if __name__ == "__main__":
    main()
