"""Layers in containers, one by one with testcontainers or all with compose, and contract suites run against them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from lamina_cli.client.home import PORTS
from lamina_kit.process.probe import probe

ROOT = Path(__file__).parents[2]
LAYERS = tuple(PORTS)
BUS = "h1.ram"
PATIENCE_S = 60


class Layers:
    """Single layers in containers that share a network and a folder for the memory bus."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.addresses: dict[str, str] = {}
        self._containers: list[DockerContainer] = []

    def __enter__(self) -> Layers:
        self._network = Network().create()
        return self

    def __exit__(self, *failure: object) -> None:
        for container in reversed(self._containers):
            container.stop()
        self._network.remove()

    @property
    def bus(self) -> Path:
        """Returns the memory bus as this side sees it."""
        return self.folder / BUS

    def start(self, layer: str, *below: str, healthy: bool = True, **variables: str) -> DockerContainer:
        """Starts a layer over others by name, and returns once it serves, or answers that it does not yet."""
        container = DockerContainer(f"lamina/{layer}").with_network(self._network).with_network_aliases(layer)
        container.with_exposed_ports(PORTS[layer]).with_volume_mapping(str(self.folder), "/bus", "rw")
        container.with_envs(LAMINA_BUS=f"/bus/{BUS}", **variables)
        for name in below:
            container.with_env(f"LAMINA_UPSTREAM_{name.upper().replace('-', '_')}", f"{name}:{PORTS[name]}")
        container.start()
        self._containers.append(container)
        address = f"127.0.0.1:{container.get_exposed_port(PORTS[layer])}"
        self.addresses[layer] = address
        if healthy:
            self.wait_until_healthy(layer)
        else:
            assert probe(address, timeout_s=PATIENCE_S) == "NOT_SERVING", str(container.get_logs())
        return container

    def wait_until_healthy(self, layer: str) -> None:
        """Returns once a layer serves; fails when it does not within a minute."""
        end = time.monotonic() + PATIENCE_S
        while (found := probe(self.addresses[layer], timeout_s=5)) != "SERVING":
            assert time.monotonic() < end, f"{layer} is {found}"
            threading.Event().wait(0.2)  # a container on its way up has nothing to wait for but its answer


@dataclass(frozen=True)
class Stack:
    """A running compose project, and the address of each layer on this machine."""

    compose: Any
    addresses: Mapping[str, str]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a `docker compose` command on this project."""
        return subprocess.run(["docker", "compose", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


def run_suite(addresses: Mapping[str, str], bus: Path, *paths: str) -> int:
    """Runs contract suites against services that are up; returns how many tests passed, and fails when one did not."""
    targets = " ".join(f"{layer}={address}" for layer, address in addresses.items())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths],
        cwd=ROOT,
        env=os.environ | {"LAMINA_TEST_TARGETS": targets, "LAMINA_TEST_BUS": str(bus)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) passed", done.stdout)
    assert found is not None and "skipped" not in done.stdout, done.stdout[-2000:]
    return int(found[1])
