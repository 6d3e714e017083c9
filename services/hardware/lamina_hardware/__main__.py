"""Runs the hardware layer as a process of its own: `python -m lamina_hardware --help`."""

from __future__ import annotations

import sys

from lamina_hardware.config import HardwareConfig
from lamina_hardware.server import build
from lamina_kit.process.main import Role, main

if __name__ == "__main__":
    sys.exit(main(Role("hardware", build, HardwareConfig, makes_bus=True)))
