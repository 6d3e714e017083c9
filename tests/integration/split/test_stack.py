"""`lamina up --split`, `status`, `down` and `demo --target`, as people use them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.integration import manifests
from tests.ports import take

from lamina_cli.client import home
from lamina_cli.client.home import LAYERS
from lamina_cli.stack.embedded import Settings
from lamina_cli.stack.split import SplitStack
from lamina_kit.layer.owner_session import REVISION
from lamina_kit.rpc.channel import MAX_UNIX_PATH


class Lamina:
    """The command with a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str, expect: int | None = 0) -> str:
        """Runs one command, which has to end with the status `expect`. Returns what it printed, errors included."""
        done = subprocess.run(
            [sys.executable, "-m", "lamina_cli.main", *words],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "LAMINA_HOME": str(self.folder)},
        )
        assert expect is None or done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def status(self, *, expect: int | None = 0) -> dict[str, Any]:
        """Returns the status of each layer."""
        told: dict[str, Any] = json.loads(self.run("status", "-o", "json", expect=expect))
        return {row["layer"]: row for row in told["layers"]}

    def record(self) -> dict[str, Any]:
        """Returns what the supervisor has written down."""
        found: dict[str, Any] = json.loads((self.folder / "default" / "stack.json").read_text())
        return found

    def up(self) -> str:
        """Starts a split stack on free ports."""
        return self.run("up", "--split", "--memory", "256MiB", "--port", str(free_ports()))


def free_ports() -> int:
    """Returns the first of six ports in a row that nobody listens on."""
    return take(len(LAYERS))


def gone(record: dict[str, Any]) -> Callable[[], bool]:
    """Returns a condition: none of the processes of a record runs."""
    return lambda: all(
        home.start_ticks(process["pid"]) != process["start_ticks"] for process in record["processes"].values()
    )


@pytest.fixture
def lamina(short_dir: Path) -> Iterator[Lamina]:
    """The command with an empty home; a stack that the test left up is stopped."""
    command = Lamina(short_dir)
    yield command
    if (short_dir / "default" / "stack.json").exists():
        command.run("down", expect=None)


@pytest.mark.slow
async def test_six_processes_go_up_and_down(lamina: Lamina, eventually: Any) -> None:
    """Each layer is a process of its own that status shows; a killed one returns; down leaves nothing behind."""
    lamina.up()
    rows = lamina.status()
    assert list(rows) == list(LAYERS)
    pids = {layer: row["pid"] for layer, row in rows.items()}
    assert len(set(pids.values())) == len(LAYERS)
    assert {row["state"] for row in rows.values()} == {"serving"} and not any(row["restarts"] for row in rows.values())
    assert {(row["engine"], row["revision"]) for row in rows.values()} == {("model", REVISION)}
    assert all(0 <= row["uptime_s"] < 600 for row in rows.values())
    boot = rows["hardware"]["boot_id"]
    assert rows["hypervisor"]["boot_id"] == rows["mmu"]["boot_id"] and rows["mmu"]["boot_id"].startswith(f"{boot}.")
    os.kill(pids["vswitch"], signal.SIGKILL)
    await eventually(lambda: home_state(lamina, "vswitch") == ("serving", 1), "vswitch is back", within=60)
    await eventually(partial(all_serve, lamina), "those above reach it again", within=60)
    again = lamina.status()["vswitch"]
    assert (again["state"], again["restarts"]) == ("serving", 1) and again["pid"] != pids["vswitch"]
    record = lamina.record()
    lamina.run("down")
    assert gone(record)() and not (lamina.folder / "default" / "sockets").exists()
    assert not buses_of(record["pid"])


def buses_of(pid: int) -> list[Path]:
    """Returns the memory buses that the stack of a supervisor has left in shared memory."""
    return list(Path("/dev/shm").glob(f"lamina-{os.getuid()}-{pid}-*"))


def home_state(lamina: Lamina, layer: str) -> tuple[str, int]:
    """Returns state and restarts of a layer's process."""
    known = lamina.record()["processes"][layer]
    return known["state"], known["restarts"]


def are_degraded(lamina: Lamina, *layers: str) -> bool:
    """Says whether layers serve without one of those below."""
    rows = lamina.status(expect=1)
    return all(rows[layer]["state"] == "degraded" for layer in layers)


def all_serve(lamina: Lamina) -> bool:
    """Says whether every layer serves with all that it needs."""
    return {row["state"] for row in lamina.status(expect=None).values()} == {"serving"}


@pytest.mark.slow
async def test_status_says_who_is_missing(lamina: Lamina, eventually: Any) -> None:
    """While a layer is dead, status works, fails, and names it; a command for it says what to do."""
    lamina.up()
    record = lamina.record()
    os.kill(record["pid"], signal.SIGSTOP)  # nobody restarts what dies now
    os.kill(record["processes"]["mmu"]["pid"], signal.SIGKILL)
    above = ("hypervisor", "container-runtime")
    await eventually(partial(are_degraded, lamina, *above), "those above say that they lack one", within=60)
    rows = lamina.status(expect=1)
    assert rows["mmu"]["state"] == "missing" and rows["mmu"]["pid"] is None and rows["mmu"]["problem"]
    assert rows["orchestrator"]["state"] == rows["hardware"]["state"] == "serving"
    for layer in above:
        assert (rows[layer]["state"], rows[layer]["without"]) == ("degraded", ["mmu"])
        assert "mmu" in rows[layer]["problem"]
    assert (rows["vswitch"]["state"], rows["vswitch"]["without"]) == ("serving", [])
    told = lamina.run("mmu", "spaces", expect=1)
    assert "mmu layer" in told and "LAYER_MISSING" in told and "lamina status" in told
    lamina.run("hypervisor", "create", "web", "--memory", "32M")
    told = lamina.run("hypervisor", "start", "web", expect=1)
    assert "mmu" in told and "LAYER_MISSING" in told
    os.kill(record["pid"], signal.SIGCONT)
    await eventually(lambda: home_state(lamina, "mmu") == ("serving", 1), "the MMU is back", within=60)
    await eventually(partial(all_serve, lamina), "the layers above it have started anew", within=60)
    lamina.run("hypervisor", "start", "web")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_supervisor_leaves_no_process(lamina: Lamina) -> None:
    """Its six processes end with it, or with the machine; the next stack of the name goes on from what was recorded."""
    lamina.up()
    lamina.run("hypervisor", "create", "web", "--memory", "32M")
    lamina.run("hypervisor", "start", "web")
    for all_at_once in (False, True):
        record = lamina.record()
        os.kill(record["pid"], signal.SIGKILL)
        for process in record["processes"].values() if all_at_once else ():
            os.kill(process["pid"], signal.SIGKILL)
        assert "STACK_NOT_UP" in lamina.run("status", expect=1)
        lamina.up()  # waits for those that still stop
        assert gone(record)()
        assert all_serve(lamina)
        assert not buses_of(record["pid"])
        machine = json.loads(lamina.run("hypervisor", "list", "-o", "json"))[0]
        assert machine["state"] in ("STATE_STOPPED", "STATE_CRASHED"), machine
        lamina.run("hypervisor", "start", "web")


def test_a_port_in_use_is_told_at_once(lamina: Lamina) -> None:
    """The stack does not start, nothing is left of it, and the port is named."""
    first = free_ports()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 2))
        taken.listen()
        told = lamina.run("up", "--split", "--port", str(first), expect=1)
    assert "PORT_IN_USE" in told and str(first + 2) in told
    assert not (lamina.folder / "default" / "stack.json").exists()


@pytest.mark.slow
async def test_a_deep_folder_is_no_obstacle(tmp_path: Path) -> None:
    """Where the path of a socket would be too long, sockets lie in a short folder, which goes with the stack."""
    stack = SplitStack(Settings(overrides={"LAMINA_HARDWARE_MEMORY_BYTES": str(64 << 20)}), tmp_path / ("d" * 100))
    await stack.start()
    try:
        sockets = [Path(target.removeprefix("unix:")) for target in stack.targets.values()]
        assert all(path.is_socket() and len(os.fsencode(path)) <= MAX_UNIX_PATH for path in sockets)
    finally:
        await stack.stop()
    assert not sockets[0].parent.exists() and not stack.bus.exists()


@pytest.mark.slow
def test_the_story_holds_in_six_processes(lamina: Lamina) -> None:
    """The demo against a private split stack: every check holds."""
    assert " checks hold" in lamina.run("demo", "--target", "split")


@pytest.mark.slow
def test_the_story_can_be_told_again_on_a_stack_that_is_up(lamina: Lamina) -> None:
    """The demo takes away what it made, so that the next one finds the stack as it was; other pods are left alone."""
    lamina.run("up", "--split", "--port", str(free_ports()))
    for _ in range(2):
        assert " checks hold" in lamina.run("demo", "--target", "default")
    assert "no pods" in lamina.run("get", "pods")
    manifest = lamina.folder / "hello.yaml"
    manifest.write_text(manifests.hello())
    lamina.run("apply", "-f", str(manifest))  # of the same name as the story's own
    told = lamina.run("demo", "--target", "default", expect=1)
    assert "STACK_NOT_EMPTY" in told and "lamina delete deployment/hello" in told
    assert "hello" in lamina.run("get", "deployments")
    lamina.run("delete", "deploy/hello")
    lamina.run("vswitch", "create-switch", "own")
    while "no pods" not in lamina.run("get", "pods"):
        pass
    assert " checks hold" in lamina.run("demo", "--target", "default")
    lamina.run("image", "build", "guests/counter.c", "--name", "lamina.local/own:latest")
    lamina.run("apply", "-f", str(pod(lamina.folder)))
    told = lamina.run("demo", "--target", "default", expect=1)
    assert "STACK_NOT_EMPTY" in told and "own" in told
    assert "own" in lamina.run("get", "pods")


def pod(folder: Path) -> Path:
    """Writes a manifest of somebody else's pod."""
    path = folder / "pod.yaml"
    path.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: own}\n"
        "spec: {containers: [{name: own, image: 'lamina.local/own:latest'}]}\n"
    )
    return path
