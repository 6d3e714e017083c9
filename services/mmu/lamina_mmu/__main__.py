"""Runs the mmu layer as a process of its own: `python -m lamina_mmu --help`."""

from __future__ import annotations

import sys

from lamina_kit.process.main import Role, main
from lamina_mmu.config import MmuConfig
from lamina_mmu.server import build

if __name__ == "__main__":
    below = ("hardware",)
    sys.exit(main(Role("mmu", build, MmuConfig, calls=below, needs=below, maps_bus=True, alone=("linux",))))
