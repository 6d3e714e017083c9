"""A stack goes up, serves, and goes down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lamina_cli.client import home
from lamina_cli.guests.assets import asset

SERVICES = {
    "hardware": "lamina.hardware.v1.Cpu",
    "mmu": "lamina.mmu.v1.Spaces",
    "hypervisor": "lamina.hypervisor.v1.VirtualMachines",
    "vswitch": "lamina.vswitch.v1.Switches",
    "container-runtime": "lamina.container_runtime.v1.Containers",
    "orchestrator": "lamina.orchestrator.v1.Objects",
}


def test_every_layer_is_healthy(up: Any) -> None:
    """`status` shows six layers that serve, each with the model engine."""
    status = up.json("status")
    assert [row["state"] for row in status["layers"]] == ["serving"] * 6
    assert {row["engine"] for row in status["layers"]} == {"model"}
    assert [row["host"] for row in status["layers"]] == ["h1"] * 5 + [None]  # a program reads null, not a dash


@pytest.mark.parametrize("layer", SERVICES)
def test_grpcurl_lists_and_describes_each_layer(up: Any, layer: str) -> None:
    """grpcurl, without any file of ours, lists a layer's services and describes one."""
    grpcurl = shutil.which("grpcurl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if grpcurl is None:
        pytest.skip("grpcurl is not installed")
    address = {row["layer"]: row["address"] for row in up.json("status")["layers"]}[layer]
    listed = subprocess.run([grpcurl, "-plaintext", address, "list"], capture_output=True, text=True, check=True)
    services = listed.stdout.split()
    assert {SERVICES[layer], "lamina.common.v1.Layer", "grpc.health.v1.Health"} <= set(services)
    described = subprocess.run(
        [grpcurl, "-plaintext", address, "describe", SERVICES[layer]], capture_output=True, text=True, check=True
    )
    assert "rpc" in described.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("hardware", "host"),
        ("hardware", "cores"),
        ("hardware", "contexts"),
        ("hardware", "groups"),
        ("hardware", "time"),
        ("hardware", "devices"),
        ("hardware", "domains"),
        ("hardware", "dma-faults"),
        ("hardware", "disks"),
        ("hardware", "io-groups"),
        ("hardware", "nics"),
        ("hardware", "queues", "nic0"),
        ("hardware", "wires"),
        ("hardware", "topology"),
        ("hardware", "counters"),
        ("mmu", "memory"),
        ("mmu", "spaces"),
        ("mmu", "usage"),
        ("mmu", "objects"),
        ("mmu", "frames"),
        ("mmu", "fragmentation"),
        ("mmu", "swap"),
        ("mmu", "groups"),
        ("hypervisor", "list"),
        ("vswitch", "switches"),
        ("runtime", "containers"),
        ("runtime", "sandboxes"),
        ("runtime", "ps"),
        ("image", "list"),
        ("get", "nodes"),
        ("get", "pods"),
        ("orchestrator", "nodes"),
        ("trace",),
    ],
)
def test_every_list_has_a_table_and_json(up: Any, words: tuple[str, ...]) -> None:
    """Each list command prints a table, and valid JSON with `-o json`."""
    assert up.run(*words).stdout.strip()
    json.loads(up.run(*words, "-o", "json").stdout)


def test_a_second_stack_of_the_name_is_refused(up: Any) -> None:
    """`up` while the stack is up says which process it is and how to go on."""
    done = up.run("up", expect=1)
    assert "STACK_IS_UP" in done.stderr
    assert "lamina down" in done.stderr


def test_a_port_in_use_is_named(lamina: Any, ports: int) -> None:
    """`up` on a port that somebody has ends with the port's number, and leaves no process."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", ports + 2))
        holder.listen()
        done = lamina.run("up", "--port", str(ports), expect=1)
    assert "PORT_IN_USE" in done.stderr
    assert str(ports + 2) in done.stderr
    assert "STACK_NOT_UP" in lamina.run("status", expect=1).stderr


def test_a_wrong_key_in_the_configuration_is_named(lamina: Any, ports: int, tmp_path: Path) -> None:
    """An unknown key in the file is named with the table that it stands in."""
    config = tmp_path / "lamina.toml"
    config.write_text("[hardware]\ncoers = 2\n")
    done = lamina.run("up", "--port", str(ports), "--config", str(config), expect=1)
    assert "CONFIG_UNKNOWN_KEY" in done.stderr
    assert "coers" in done.stderr
    assert "cores" in done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--engines", "magic"), "ENGINE_SET_UNSUPPORTED"),
        (("--engines", "linux"), "ENGINE_UNKNOWN" if os.geteuid() == 0 else "ENGINE_CANNOT_RUN"),
        (("--port", "65533"), "PORT_INVALID"),
        (("--cores", "-1"), "CONFIG"),
        (("--memory", "9999TiB"), "CONFIG"),
        (("--stack", "../elsewhere"), "STACK_NAME_INVALID"),
    ],
)
def test_a_stack_that_cannot_be_is_refused(lamina: Any, words: tuple[str, ...], reason: str) -> None:
    """Unknown engine sets, engines that are not installed, impossible ports and sizes end with a reason."""
    done = lamina.run("up", *words, expect=1)
    assert reason in done.stderr
    assert done.stderr.count("error:") == 1


def test_down_without_a_stack_says_so(lamina: Any) -> None:
    """`down` without a stack is an error that names `up`."""
    assert "lamina up" in lamina.run("down", expect=1).stderr


def test_a_stack_that_was_killed_comes_back(lamina: Any, ports: int) -> None:
    """After `kill -9` the stack counts as down, and the next `up` finds its images, objects and pods again."""
    up = ("up", "--port", str(ports))
    lamina.run(*up)
    lamina.run("image", "build", str(asset("guests/hello.c")))
    lamina.run("apply", "-f", str(asset("examples/hello.yaml")))
    killed = lamina.json("status")["pid"]
    os.kill(killed, signal.SIGKILL)
    while home.start_ticks(killed) >= 0:
        os.sched_yield()
    assert "STACK_NOT_UP" in lamina.run("status", expect=1).stderr
    lamina.run(*up)
    assert len(lamina.json("image", "list")) == 1
    for _ in range(100):
        running = lamina.json("runtime", "ps")
        if len(running) == 3:
            break
    assert [process["cmdline"] for process in running] == [["/hello"]] * 3
    assert not list(home.SHARED_MEMORY.glob(f"lamina-{os.getuid()}-{killed}-*"))
