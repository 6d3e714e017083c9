"""One service as a process of its own: what it refuses, what it waits for, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc
from tests.ports import take

from lamina_kit.bus.file import Identity
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.layer.service import serve
from lamina_kit.layer.state import LayerState
from lamina_kit.process.clock import JoinedClock
from lamina_kit.process.main import CANNOT_START, MISCONFIGURED, STOPPED
from lamina_kit.rng import Rng
from lamina_kit.rpc.channel import connect
from lamina_kit.rpc.status import rpc_error

SMALL = {"LAMINA_HARDWARE_MEMORY_BYTES": str(64 << 20), "LAMINA_HARDWARE_CORES": "1"}
SERVING = health_pb2.HealthCheckResponse.SERVING


class Processes:
    """Starts service processes in one folder; `folder/LAYER.sock` is where each listens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[str]] = []

    def socket(self, layer: str) -> str:
        """Returns the address of a layer."""
        return f"unix:{self.folder}/{layer}.sock"

    def start(self, layer: str, *words: str, state: str = "") -> subprocess.Popen[str]:
        """Starts a layer's process with its state in `folder/STATE`."""
        command = [sys.executable, "-m", f"lamina_{layer.replace('-', '_')}", "--state-dir", f"{self.folder}/"]
        command[-1] += state or layer
        command += ["--bus", f"{self.folder}/ram", "--listen", self.socket(state or layer), *words]
        made = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **SMALL})
        self._running.append(made)
        return made

    def serve(self, layer: str) -> subprocess.Popen[str]:
        """Starts a layer as `lamina serve LAYER` does with its two flags that nothing stands in for."""
        command = [sys.executable, "-m", "lamina_cli.main", "serve", layer, "--state-dir", f"{self.folder}/{layer}"]
        command += ["--listen", self.socket(layer)]
        made = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **SMALL})
        self._running.append(made)
        return made

    def refused(self, layer: str, *words: str, state: str = "") -> tuple[int, str]:
        """Runs a layer's process that has to end by itself. Returns its status and its last words."""
        process = self.start(layer, *words, state=state)
        _, said = process.communicate(timeout=60)
        assert "Traceback" not in said, said
        return process.returncode, said.splitlines()[-1]

    def start_under_parent(self) -> tuple[subprocess.Popen[str], int]:
        """Starts a shell that starts the hardware process. Returns the shell, and the pid of its child."""
        words = f"--state-dir {self.folder}/s --bus {self.folder}/ram --listen {self.socket('hardware')}"
        script = f"exec 2>/dev/null; {sys.executable} -m lamina_hardware {words} --parent $$ & echo $!; wait"
        shell = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ, **SMALL})
        self._running.append(shell)
        assert shell.stdout is not None
        return shell, int(shell.stdout.readline())

    def end(self) -> None:
        """Kills what runs."""
        for process in self._running:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def processes(short_dir: Path) -> Iterator[Processes]:
    """A folder for processes, which end with the test."""
    made = Processes(short_dir)
    yield made
    made.end()


async def serves(address: str, service: str = "") -> bool:
    """Says whether a layer's health, or that of one of its names, is SERVING."""
    channel = connect(address)
    try:
        checker: Any = health_pb2_grpc.HealthStub(channel)
        return bool((await checker.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)).status == SERVING)
    finally:
        await channel.close()


async def handshake(address: str) -> Any:
    """Returns a layer's introduction."""
    channel = connect(address)
    try:
        stub: Any = layer_pb2_grpc.LayerStub(channel)
        return await stub.Handshake(layer_pb2.HandshakeRequest(caller="test", revision="1.0"), timeout=30)
    finally:
        await channel.close()


async def test_a_process_serves_until_it_is_told_to_stop(processes: Processes, holds: Any) -> None:
    """It serves all of its addresses, and ends in order: status 0, no bus and no socket left."""
    port = take(1)
    process = processes.start("hardware", "--listen", f"127.0.0.1:{port}", "--host", "h7")
    for address in (processes.socket("hardware"), f"127.0.0.1:{port}"):
        await holds(lambda address=address: serves(address), bool, f"{address} serves")
        answer = await handshake(address)
        assert (answer.layer, answer.host, answer.engine, answer.clock) == ("hardware", "h7", "model", "real")
        assert answer.boot_id and answer.time_ns > 0
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == STOPPED
    assert not (processes.folder / "ram").exists() and not (processes.folder / "hardware.sock").exists()


async def test_hardware_alone_makes_its_bus_in_its_state_folder(processes: Processes, holds: Any) -> None:
    """Without `--bus` the layer that calls nobody serves all the same; its RAM goes with it, its state folder stays."""
    process = processes.serve("hardware")
    await holds(lambda: serves(processes.socket("hardware")), bool, "hardware serves")
    (bus,) = (processes.folder / "hardware").glob("*.ram")
    with MemoryBus.open(bus) as memory:
        assert memory.size == 64 << 20
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == STOPPED
    assert not bus.exists() and bus.parent.exists()


@pytest.mark.parametrize(
    ("layer", "below"),
    [
        ("mmu", ("hardware",)),
        ("vswitch", ("hardware",)),
        ("hypervisor", ("mmu", "vswitch", "hardware")),
        ("container-runtime", ("mmu", "vswitch", "hardware")),
        ("orchestrator", ("container-runtime", "hypervisor", "vswitch")),
    ],
)
def test_every_other_layer_alone_says_which_it_calls(processes: Processes, layer: str, below: tuple[str, ...]) -> None:
    """A layer that is started without those below it ends at once, and names the flag of each."""
    process = processes.serve(layer)
    _, said = process.communicate(timeout=60)
    assert process.returncode == MISCONFIGURED and "Traceback" not in said
    for name in below:
        assert f"upstream {name} is missing" in said


async def test_a_seeded_process_that_was_killed_has_another_boot(processes: Processes, holds: Any) -> None:
    """Layers above know by the boot id that the host lost power; the seed of the process must not hide it."""
    boots = []
    for _ in range(2):
        process = processes.start("hardware", "--seed", "7")
        await holds(lambda: serves(processes.socket("hardware")), bool, "the hardware serves")
        boots.append((await handshake(processes.socket("hardware"))).boot_id)
        process.kill()
        process.wait(timeout=30)
    assert all(boots) and len(set(boots)) == 2


async def test_two_services_on_one_state_directory(processes: Processes, holds: Any) -> None:
    """The second one is refused, and told which process works there."""
    first = processes.start("hardware")
    await holds(lambda: serves(processes.socket("hardware")), bool, "hardware serves")
    status, said = processes.refused("hardware", "--listen", f"unix:{processes.folder}/other.sock")
    assert status == CANNOT_START
    assert "STATE_DIR_IN_USE" in said and str(first.pid) in said


async def test_a_port_in_use(processes: Processes) -> None:
    """The message names the port, and what else to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = processes.refused("hardware", "--listen", f"127.0.0.1:{port}")
    assert status == CANNOT_START
    assert "PORT_IN_USE" in said and str(port) in said


async def test_a_socket_in_use(processes: Processes, holds: Any) -> None:
    """gRPC would take a UNIX socket over without a word; the second process is refused, and the first one stays."""
    processes.start("hardware")
    await holds(lambda: serves(processes.socket("hardware")), bool, "hardware serves")
    status, said = processes.refused("hardware", "--listen", processes.socket("hardware"), state="other")
    assert status == CANNOT_START
    assert "SOCKET_IN_USE" in said and f"{processes.folder}/hardware.sock" in said
    assert await serves(processes.socket("hardware"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--listen", "nowhere"), "ADDRESS_INVALID"),
        (("--listen", f"unix:/tmp/{'x' * 120}.sock"), "SOCKET_PATH_TOO_LONG"),
        (("--colour", "red"), "PROCESS_OPTIONS_INVALID"),
        (("--config", "/missing.toml"), "CONFIG_NOT_FOUND"),
        (("--engine", "steam"), "ENGINE_UNKNOWN"),
    ],
)
def test_wrong_words_are_refused_at_once(processes: Processes, words: tuple[str, ...], named: str) -> None:
    """Wrong flags and configuration end with status 2 and a line that says what is wrong."""
    status, said = processes.refused("hardware", *words)
    assert status == MISCONFIGURED and named in said


async def test_a_layer_waits_for_those_below(processes: Processes, holds: Any) -> None:
    """Until they are there its calls say who is missing; afterwards it tells the time of the stack."""
    processes.start("mmu", "--upstream", f"hardware={processes.socket('hardware')}")
    channel = connect(processes.socket("mmu"))
    frames: Any = mmu_pb2_grpc.FramesStub(channel)

    async def told() -> Any:
        try:
            return await frames.GetMemory(mmu_pb2.GetMemoryRequest())
        except grpc.aio.AioRpcError as error:
            return rpc_error(error)

    await holds(told, lambda seen: getattr(seen, "reason", "") == "LAYER_STARTING", "the MMU says that it waits")
    problem = await told()
    assert problem.metadata["missing"] == "hardware" and processes.socket("hardware") in problem.message
    assert not await serves(processes.socket("mmu"))
    assert not await serves(processes.socket("mmu"), "below/hardware")
    below = processes.start("hardware")
    await holds(lambda: serves(processes.socket("mmu")), bool, "the MMU serves")
    assert await serves(processes.socket("mmu"), "below/hardware")
    assert (await told()).total_frames == (64 << 20) >> 12
    lower, upper = await handshake(processes.socket("hardware")), await handshake(processes.socket("mmu"))
    assert upper.boot_id.startswith(f"{lower.boot_id}.")
    assert 0 <= upper.time_ns - lower.time_ns < 10**9
    below.kill()
    await holds(lambda: serves(processes.socket("mmu"), "below/hardware"), lambda seen: not seen, "it is degraded")
    assert await serves(processes.socket("mmu"))
    await channel.close()


async def test_patience_ends(processes: Processes) -> None:
    """With a limit the process gives up, and says for whom it waited."""
    status, said = processes.refused("mmu", "--patience", "1", "--upstream", f"hardware={processes.socket('hardware')}")
    assert status == CANNOT_START
    assert "UPSTREAM_MISSING" in said and processes.socket("hardware") in said


class Nothing:
    """A layer below without methods of its own."""

    layer = "hardware"
    service_names: tuple[str, ...] = ()

    def register(self, server: Any) -> None:
        """Adds nothing."""

    async def start(self) -> None:
        """Opens nothing."""

    async def stop(self) -> None:
        """Closes nothing."""


@pytest.mark.parametrize(
    ("changes", "reason", "named"),
    [
        ({"revision": "9.0"}, "REVISION_MISMATCH", "9.0"),
        ({"layer": "vswitch"}, "UPSTREAM_WRONG", "vswitch"),
        ({"host": "h9"}, "HOST_MISMATCH", "h9"),
        ({}, "BUS_MISSING", "boot-7"),
    ],
)
async def test_a_wrong_layer_below_is_refused(
    processes: Processes, eventually: Any, changes: dict[str, str], reason: str, named: str
) -> None:
    """Another revision, another layer, another host and a bus that is not here are each told clearly."""
    given = {"layer": "hardware", "host": "h1", **changes}
    state = LayerState(given["layer"], given["host"], JoinedClock(), Rng(1), boot_id="boot-7")
    state.revision = given.get("revision", state.revision)
    served = await serve(Nothing(), [processes.socket("hardware")], state)
    process = processes.start("mmu", "--upstream", f"hardware={processes.socket('hardware')}")
    await eventually(lambda: process.poll() is not None, "the process has ended", within=60)
    _, said = process.communicate()
    await served.stop()
    assert process.returncode == CANNOT_START
    assert reason in said.splitlines()[-1] and named in said.splitlines()[-1]


async def test_a_foreign_bus_is_refused(processes: Processes, eventually: Any) -> None:
    """RAM of another host at the place is named with path, host and boot."""
    MemoryBus.create(processes.folder / "ram", 2 << 20, identity=Identity("h2", "boot-1")).close()
    state = LayerState("hardware", "h1", JoinedClock(), Rng(1), boot_id="boot-7")
    served = await serve(Nothing(), [processes.socket("hardware")], state)
    process = processes.start("mmu", "--upstream", f"hardware={processes.socket('hardware')}")
    await eventually(lambda: process.poll() is not None, "the process has ended", within=60)
    _, said = process.communicate()
    await served.stop()
    last = said.splitlines()[-1]
    assert process.returncode == CANNOT_START
    assert all(word in last for word in ("BUS_FOREIGN", str(processes.folder / "ram"), "h2", "boot-1", "boot-7"))
    assert (processes.folder / "ram").exists()


async def test_a_process_ends_with_its_parent(processes: Processes, eventually: Any, holds: Any) -> None:
    """When the process that started it is killed, the kernel tells it to stop."""
    parent, child = processes.start_under_parent()
    await holds(lambda: serves(processes.socket("hardware")), bool, "hardware serves")
    parent.kill()
    parent.wait()
    await eventually(lambda: not Path(f"/proc/{child}").exists() or is_zombie(child), "the child has ended", within=30)
    assert not (processes.folder / "ram").exists()


def is_zombie(pid: int) -> bool:
    """Says whether a process has ended and only its entry is left."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
