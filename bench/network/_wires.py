"""Switches between two network namespaces, for benches: ours at devices of the kernel, a bridge, Open vSwitch.

Everything lies in a namespace of the bench's own, which goes with its process; it needs root. Each end is a namespace
of a process that sleeps. One frame crosses: end `a` → `a1` → switch → `b1` → end `b`.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

ADDRESSES = {"a": "10.77.0.1", "b": "10.77.0.2"}
STATIONS = {"a": "02:00:00:00:0a:01", "b": "02:00:00:00:0b:01"}
_CLONE_NEWNET = 0x40000000
_QDISC_BYPASS, _SOL_PACKET = 20, 263
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
KINDS = ("ours", "bridge", "ovs")
PLANE = "plane"
"""Ours without the bypass: each frame comes into the process."""
DEVICES = "linux"
"""Ours too, by its engine of that name: ports are devices of the kernel, and no frame leaves it."""


def enter_namespace() -> None:
    """Move this process, and what it starts, into a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network namespace cannot be had; it needs root")


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network namespace cannot be entered")


def run(*command: str) -> str:
    """Run a command to its end; return what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


class Ends:
    """Two namespaces, `a` and `b`."""

    def __init__(self) -> None:
        self._holders = {end: subprocess.Popen(["unshare", "-n", "sleep", "infinity"]) for end in ADDRESSES}
        own = os.readlink("/proc/self/ns/net")
        for holder in self._holders.values():
            while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
                time.sleep(0.01)

    def inside(self, end: str, *command: str) -> list[str]:
        """Return a command that runs at an end."""
        return ["nsenter", "-t", str(self._holders[end].pid), "-n", *command]

    def veths(self) -> None:
        """Make a pair of interfaces for each end: `a0` there and `a1` here, and so on."""
        for end in ADDRESSES:
            run("ip", "link", "add", f"{end}1", "type", "veth", "peer", "name", f"{end}0")
            run("ip", "link", "set", f"{end}1", "up")
            self.give(end, f"{end}0")

    def give(self, end: str, interface: str) -> None:
        """Move an interface to an end, where it has an address."""
        run("ip", "link", "set", interface, "netns", str(self._holders[end].pid))
        run(*self.inside(end, "ip", "link", "set", interface, "address", STATIONS[end]))
        run(*self.inside(end, "ip", "addr", "add", f"{ADDRESSES[end]}/24", "dev", interface))
        run(*self.inside(end, "ip", "link", "set", interface, "up"))
        for other in ADDRESSES:
            if other != end:
                neighbor = ("ip", "neigh", "replace", ADDRESSES[other], "lladdr", STATIONS[other], "dev", interface)
                run(*self.inside(end, *neighbor))

    def sender(self, end: str, interface: str) -> socket.socket:
        """Return a packet socket of this process on an interface of an end, which sends past its queue."""
        with open("/proc/thread-self/ns/net") as own, open(f"/proc/{self._holders[end].pid}/ns/net") as there:
            _enter(there.fileno())
            try:
                made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                made.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
                made.bind((interface, 0))
            finally:
                _enter(own.fileno())
        return made

    def received(self, end: str, interface: str) -> int:
        """Return how many frames came in at an interface of an end."""
        found = json.loads(run(*self.inside(end, "ip", "-j", "-s", "link", "show", interface)))
        return int(found[0]["stats64"]["rx"]["packets"])

    def close(self) -> None:
        """End both. A namespace goes some time after its last process, so that the interfaces here go first."""
        for end in ADDRESSES:
            subprocess.run(["ip", "link", "del", f"{end}1"], capture_output=True, timeout=20)
        for holder in self._holders.values():
            holder.kill()
            holder.wait()


@contextmanager
def joined(kind: str, folder: Path, *, taps: bool = False) -> Iterator[Ends]:
    """Have two ends that a switch joins. With `taps`, ours and Open vSwitch have TAP devices instead of veths.

    A side whose switch makes the devices gives them to the ends.
    """
    with ExitStack() as stack:
        ends = Ends()
        stack.callback(ends.close)
        names = {end: f"{end}0" if kind == DEVICES else f"{end}1" for end in ADDRESSES}
        is_made_by_switch = kind == DEVICES or (taps and kind != "bridge")
        if not is_made_by_switch:
            ends.veths()
        started = {"ours": _ours, PLANE: _plane, "bridge": _bridge, "ovs": _ovs, DEVICES: _devices}[kind]
        stack.enter_context(started(folder, list(names.values()), taps))
        if is_made_by_switch:
            time.sleep(0.2)  # Open vSwitch makes its devices
            for end, name in names.items():
                ends.give(end, name)
        time.sleep(0.5)  # carriers come up
        yield ends


@contextmanager
def _bridge(folder: Path, ports: list[str], taps: bool) -> Iterator[None]:
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "link", "set", "br0", "up")
    for port in ports:
        run("ip", "link", "set", port, "master", "br0")
    try:
        yield
    finally:
        run("ip", "link", "del", "br0")


@contextmanager
def _ovs(folder: Path, ports: list[str], taps: bool) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **{f"OVS_{name}DIR": str(folder) for name in ("RUN", "LOG", "DB", "SYSCONF")}}
    database = f"unix:{folder}/db.sock"

    def vsctl(*words: str) -> None:
        command = ["ovs-vsctl", f"--db={database}", "-t", "20", *words]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=30)

    (folder / "db").unlink(missing_ok=True)
    subprocess.run(["ovsdb-tool", "create", f"{folder}/db", _SCHEMA], env=environment, check=True, timeout=20)
    servers = [
        ["ovsdb-server", f"{folder}/db", f"--remote=punix:{folder}/db.sock", f"--unixctl={folder}/db.ctl"],
        ["ovs-vswitchd", database, "--disable-system", f"--unixctl={folder}/vs.ctl"],
    ]
    quiet: dict[str, Any] = {"env": environment, "stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    processes = [subprocess.Popen([*each, "-vconsole:off", "--no-chdir"], **quiet) for each in servers]
    try:
        vsctl("--retry", "init")
        if os.environ.get("LAMINA_BENCH_TSO") == "true":
            vsctl("set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
        words = ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail-mode=standalone"]
        for port in ports:
            words += ["--", "add-port", "br0", port]
            words += ["--", "set", "interface", port, "type=tap"] if taps else []
        vsctl(*words)
        yield
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(20)
        subprocess.run(["ip", "link", "del", "br0"], capture_output=True, timeout=20)  # the daemon leaves its own


def _ours(folder: Path, ports: list[str], taps: bool) -> AbstractContextManager[None]:
    return _process("taps" if taps else "packets", *ports)


def _plane(folder: Path, ports: list[str], taps: bool) -> AbstractContextManager[None]:
    return _process("plane", *ports)


def _devices(folder: Path, ports: list[str], taps: bool) -> AbstractContextManager[None]:
    return _process("devices", *ports)


@contextmanager
def _process(*words: str) -> Iterator[None]:
    command = [sys.executable, __file__, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as switch:
        assert switch.stdout is not None and switch.stdin is not None
        if switch.stdout.readline() != "ready\n":
            raise RuntimeError("our switch did not start")
        try:
            yield
        finally:
            switch.stdin.close()
            said = switch.stdout.read()
            if said:
                print(said, end="", file=sys.stderr)


async def _kernel_switch(ports: list[str]) -> None:
    """Be a switch of the kernel with a device for each port, until the standard input ends."""
    from lamina_vswitch.domain.backend.definition import Veth
    from lamina_vswitch.domain.definitions.switches import SwitchDefinition
    from lamina_vswitch.engines.linux.engine import LinuxEngine
    from lamina_vswitch.io.backends.veth import VethBackend

    engine = LinuxEngine(lambda notice: None)
    try:
        engine.add_switch("s", SwitchDefinition("s"))
        for slot, port in enumerate(ports, 1):
            engine.add_port("s", slot, port, 0, True)
            engine.attach(slot, VethBackend(engine, slot, Veth(port, up=True)), 0)
        print("ready", flush=True)
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(sys.stdin.fileno(), ended.set)
        outside = engine.descriptor()
        if outside is not None:
            loop.add_reader(outside, lambda: engine.listen_outside(time.monotonic_ns()))
        await ended.wait()
    finally:
        engine.close()


async def _switch(taps: bool, ports: list[str], *, bypassed: bool = True) -> None:
    """Be a switch between interfaces of this namespace until the standard input ends."""
    from lamina_kit.rng import Rng
    from lamina_vswitch.domain.backend.definition import Packet, Tap
    from lamina_vswitch.domain.definitions.switches import SwitchDefinition
    from lamina_vswitch.engines.model.engine import ModelEngine
    from lamina_vswitch.io.backends.bypass import Bypass
    from lamina_vswitch.io.backends.packet import PacketBackend
    from lamina_vswitch.io.backends.port_end import PortEnd
    from lamina_vswitch.io.backends.tap import TapBackend
    from lamina_vswitch.plane.switching import Plane

    engine = ModelEngine(lambda notice: None)
    engine.add_switch("s", SwitchDefinition("s"))
    bypass = Bypass(engine) if not taps and bypassed else None
    plane = Plane(engine, Rng("bench").randrange(1 << 64))
    for slot, port in enumerate(ports, 1):
        engine.add_port("s", slot, port, 0, True)
        end = PortEnd(engine, slot, lambda: 1500, time.monotonic_ns)
        backend: TapBackend | PacketBackend
        backend = TapBackend(end, Tap(port, up=True), 1024) if taps else PacketBackend(end, Packet(port), 1024, bypass)
        engine.attach(slot, backend, 0, backend.takes)
        backend.start()
        backend.quicken(plane)
    print("ready", flush=True)
    began = time.process_time()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    if os.environ.get("SHOW_COUNTERS"):
        for slot in range(1, len(ports) + 1):
            print(ports[slot - 1], engine.counters(slot))
        print(f"{time.process_time() - began:.2f} s of processor time")


if __name__ == "__main__":
    way, names = sys.argv[1], sys.argv[2:]
    asyncio.run(_kernel_switch(names) if way == "devices" else _switch(way == "taps", names, bypassed=way != "plane"))
