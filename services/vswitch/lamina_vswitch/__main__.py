"""Runs the vswitch layer as a process of its own: `python -m lamina_vswitch --help`."""

from __future__ import annotations

import sys

from lamina_kit.process.main import Role, main
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.server import build

if __name__ == "__main__":
    below = ("hardware",)
    sys.exit(main(Role("vswitch", build, VswitchConfig, calls=below, needs=below, alone=("linux",))))
