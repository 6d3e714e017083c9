"""Runs the container-runtime layer as a process of its own: `python -m lamina_container_runtime --help`."""

from __future__ import annotations

import sys

from lamina_container_runtime.config import ContainerRuntimeConfig
from lamina_container_runtime.server import build
from lamina_kit.process.main import Role, main

CALLS = ("mmu", "vswitch", "hardware")
NEEDS = ("mmu", "hardware")

if __name__ == "__main__":
    sys.exit(main(Role("container-runtime", build, ContainerRuntimeConfig, CALLS, NEEDS, maps_bus=True)))
