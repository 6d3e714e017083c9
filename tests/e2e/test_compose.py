"""`docker compose up --wait`: six containers, one image layer, ports on loopback, and the whole stack behind them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.layers import LAYERS, ROOT, Stack, run_suite

Grpcurl = Callable[..., subprocess.CompletedProcess[str]]

CALLS = {
    "hardware": ("lamina.hardware.v1.Hosts/GetHost", '"core_count"'),
    "mmu": ("lamina.mmu.v1.Frames/GetMemory", '"total_frames"'),
    "hypervisor": ("lamina.hypervisor.v1.VirtualMachines/ListVirtualMachines", "{"),
    "vswitch": ("lamina.vswitch.v1.Switches/ListSwitches", "{"),
    "container-runtime": ("lamina.container_runtime.v1.Images/ListImages", "{"),
    "orchestrator": ("lamina.orchestrator.v1.Objects/ListObjects", '"Node"'),
}

KILL = """
import os, signal
for process in filter(str.isdigit, os.listdir("/proc")):
    if int(process) not in (1, os.getpid()):
        os.kill(int(process), signal.SIGKILL)
"""
"""Kills all processes of a container but its init, which then ends as the service did."""


def inspect(*names: str) -> list[dict[str, object]]:
    """Returns what Docker knows about images or containers."""
    done = subprocess.run(["docker", "inspect", *names], check=True, capture_output=True, text=True)
    return list(json.loads(done.stdout))


def test_the_six_share_every_layer_of_one_image(images: None) -> None:
    """The images of the six services consist of the same layers."""
    layers = [image["RootFS"]["Layers"] for image in inspect(*(f"lamina/{layer}" for layer in LAYERS))]  # type: ignore[index]
    assert len(layers[0]) > 1
    assert all(found == layers[0] for found in layers)


def test_everything_is_healthy_and_published_on_loopback_alone(compose: Stack) -> None:
    """Each container is healthy, runs as a user that is not root, and is reached from this machine alone."""
    names = compose.run("ps", "--quiet").stdout.split()
    assert len(names) == len(LAYERS)
    for container in inspect(*names):
        assert container["State"]["Health"]["Status"] == "healthy"  # type: ignore[index]
        assert container["Config"]["User"] == "lamina"  # type: ignore[index]
        bindings = [one for found in container["HostConfig"]["PortBindings"].values() for one in found]  # type: ignore[index]
        assert [one["HostIp"] for one in bindings] == ["127.0.0.1"]


@pytest.mark.parametrize("layer", LAYERS)
def test_grpcurl_lists_and_calls_each_layer(compose: Stack, grpcurl: Grpcurl, layer: str) -> None:
    """Reflection tells grpcurl what a layer offers, and a call is answered."""
    method, expected = CALLS[layer]
    listed = grpcurl(compose.addresses[layer], "list")
    assert method.partition("/")[0] in listed.stdout.split()
    request = '{"kind": "Node"}' if layer == "orchestrator" else "{}"
    answered = grpcurl("-d", request, compose.addresses[layer], method)
    assert answered.returncode == 0, answered.stderr
    assert expected in answered.stdout


@pytest.mark.timeout(300)
def test_the_story_is_told_against_compose(compose: Stack) -> None:
    """`lamina demo --target compose` holds in every chapter."""
    told = subprocess.run(
        [Path(sys.executable).with_name("lamina"), "demo", "--target", "compose"],
        cwd=ROOT, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-2000:]
    held = re.search(r"^(\d+) of (\d+) checks hold", told.stdout, re.MULTILINE)
    assert held and held[1] == held[2]


@pytest.mark.timeout(300)
def test_the_contract_suites_pass_from_outside(compose: Stack, tmp_path: Path) -> None:
    """Hypervisor and container runtime in their containers pass the suites that their engines pass in process."""
    paths = ("tests/contract/hypervisor", "tests/contract/container_runtime")
    assert run_suite(compose.addresses, tmp_path / "none", *paths) > 80


@pytest.mark.timeout(300)
def test_a_killed_container_comes_back(compose: Stack, grpcurl: Grpcurl) -> None:
    """A service that dies is started again by Docker, and the layers above find it again."""
    compose.run("exec", "-T", "mmu", "python", "-c", KILL)
    assert compose.run("up", "--wait").returncode == 0
    boot = json.loads(
        grpcurl(
            "-d", '{"caller": "test", "revision": "1.0"}', compose.addresses["mmu"], "lamina.common.v1.Layer/Handshake"
        ).stdout
    )["boot_id"]
    assert boot
    assert run_suite(compose.addresses, Path("/"), "tests/contract/hypervisor") > 10
