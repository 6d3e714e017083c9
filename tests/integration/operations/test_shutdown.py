"""A real process that is told to stop while calls and streams run on it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc
from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from tests.ports import take

from lamina_kit.process.main import STOPPED
from lamina_kit.rpc.channel import connect
from lamina_kit.rpc.status import rpc_error

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Layer:
    """The process of the slow layer, and stubs for it."""

    def __init__(self, folder: Path, grace: str) -> None:
        self.address = f"unix:{folder}/slow.sock"
        words = ["--state-dir", f"{folder}/state", "--listen", self.address, "--grace", grace]
        program = str(Path(__file__).with_name("slow_layer.py"))
        self.process = subprocess.Popen([sys.executable, program, *words], stderr=subprocess.PIPE, text=True)
        self.channel = connect(self.address, default_timeout_s=None)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)
        self.hosts: Any = hardware_pb2_grpc.HostsStub(self.channel)
        self.layer: Any = layer_pb2_grpc.LayerStub(self.channel)

    async def serves(self) -> None:
        """Returns once it serves."""
        watch = self.health.Watch(health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True)
        while (await watch.read()).status != SERVING:
            pass
        watch.cancel()

    def call(self, name: str = "late") -> Any:
        """Begins a call that is answered, with the name, after `answer`."""
        return self.hosts.GetHost(hardware_pb2.GetHostRequest(name=name))

    async def runs(self) -> None:
        """Returns once a call that was begun runs there."""
        while (await self.call("running")).name == "0":
            pass

    def answer(self) -> None:
        """Has the calls that run answered."""
        self.process.send_signal(signal.SIGUSR1)

    async def session(self) -> Any:
        """Returns a stream that has no end of its own, once it stands."""
        stream = self.layer.OpenSession(layer_pb2.OpenSessionRequest(owner="test", epoch=1))
        assert (await stream.read()).HasField("opened")
        return stream

    def tell(self) -> None:
        """Tells it to stop."""
        self.process.send_signal(signal.SIGTERM)

    async def end(self) -> int:
        """Returns its exit status once it has ended."""
        return await asyncio.to_thread(self.process.wait, 60)


@pytest.fixture
def layers(short_dir: Path) -> Iterator[Any]:
    """Starts the slow layer with a grace; it ends with the test."""
    started: list[Layer] = []

    def start(grace: str) -> Layer:
        started.append(Layer(short_dir, grace))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        assert one.process.stderr is not None
        one.process.stderr.close()


async def told(read: Any) -> str:
    """Returns the reason with which a call was ended; who it is and what to do have to stand there."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read
    error = rpc_error(caught.value)
    assert error.code == "UNAVAILABLE" and error.next_step and "layer" in error.message, error
    return error.reason


async def test_calls_end_streams_are_told_and_the_process_ends_in_order(layers: Any) -> None:
    """A call that runs is answered, a stream hears why it ends, health says so first, and the status is 0."""
    slow = layers("3000")
    await slow.serves()
    watch = slow.health.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    stream, call = await slow.session(), slow.call()
    await slow.runs()
    slow.tell()
    assert (await watch.read()).status == NOT_SERVING
    assert await told(slow.call()) == "SHUTTING_DOWN"
    assert not call.done() and not stream.done()
    slow.answer()
    assert (await call).name == "late"
    assert await told(stream.read()) == "SHUTTING_DOWN"
    assert await slow.end() == STOPPED
    await slow.channel.close()


async def test_a_call_beyond_the_grace_is_cut(layers: Any) -> None:
    """It hears the same reason; the process does not wait longer, and its status is 0 all the same."""
    slow = layers("1")
    await slow.serves()
    call = slow.call()
    await slow.runs()
    slow.tell()
    assert await told(call) == "SHUTTING_DOWN"
    assert await slow.end() == STOPPED
    await slow.channel.close()


async def test_a_second_signal_hastens(layers: Any) -> None:
    """A long grace is over at once; the service is stopped in order nevertheless."""
    slow = layers("3000")
    await slow.serves()
    watch, call = slow.health.Watch(health_pb2.HealthCheckRequest()), slow.call()
    await watch.read()
    await slow.runs()
    slow.tell()
    assert (await watch.read()).status == NOT_SERVING
    assert not call.done()
    slow.tell()
    assert await told(call) == "SHUTTING_DOWN"
    assert await slow.end() == STOPPED
    assert "the service stops" in slow.process.stderr.read()
    await slow.channel.close()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A stack of `lamina up` in one process, as its record tells; it is gone after the test."""
    environ = {**os.environ, "LAMINA_HOME": str(tmp_path)}
    port = str(take(6))
    command = [sys.executable, "-m", "lamina_cli.main"]
    words = ["up", "--port", port, "--cores", "1", "--memory", "64MiB", "--grace", "3000"]
    subprocess.run([*command, *words], env=environ, check=True, capture_output=True, timeout=110)
    record: dict[str, Any] = json.loads((tmp_path / "default" / "stack.json").read_text())
    yield record
    subprocess.run([*command, "down"], env=environ, check=False, capture_output=True, timeout=60)


async def test_a_stack_tells_its_watchers(stack: dict[str, Any], eventually: Any) -> None:
    """A watch on an embedded stack ends with the reason, however long the grace of calls, and the process is gone."""
    channel = connect(stack["targets"]["orchestrator"], default_timeout_s=None)
    objects: Any = orchestrator_pb2_grpc.ObjectsStub(channel)
    watch = objects.WatchObjects(orchestrator_pb2.WatchObjectsRequest(kind="Node", send_initial_events=True))
    assert await watch.read() is not grpc.aio.EOF
    runtime = connect(stack["targets"]["hardware"], default_timeout_s=None)
    session = layer_pb2_grpc.LayerStub(runtime).OpenSession(layer_pb2.OpenSessionRequest(owner="test", epoch=1))
    await session.read()
    os.kill(stack["pid"], signal.SIGTERM)

    async def rest() -> None:
        while await watch.read() is not grpc.aio.EOF:
            pass

    assert await told(rest()) == "SHUTTING_DOWN"
    assert await told(session.read()) == "SHUTTING_DOWN"
    await channel.close()
    await runtime.close()
    await eventually(lambda: not Path(f"/proc/{stack['pid']}").exists() or zombie(stack["pid"]), "it has ended", 60)


def zombie(pid: int) -> bool:
    """Says whether a process has ended and nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
