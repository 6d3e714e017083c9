"""Runs the hypervisor layer as a process of its own: `python -m lamina_hypervisor --help`."""

from __future__ import annotations

import sys

from lamina_hypervisor.config import HypervisorConfig
from lamina_hypervisor.server import build
from lamina_kit.process.main import Role, main

CALLS = ("mmu", "vswitch", "hardware")
NEEDS = ("mmu", "hardware")

if __name__ == "__main__":
    sys.exit(main(Role("hypervisor", build, HypervisorConfig, CALLS, NEEDS, maps_bus=True)))
