"""Which core engine this machine runs: the walker core when its self-test passes, else the portable one."""

from __future__ import annotations

from pathlib import Path

from lamina_kit.membus import MemoryBus

from lamina_hardware.engines.interface import CorePath


def choose(wanted: str, state_dir: Path, bus: MemoryBus) -> CorePath:
    """Returns the core path for a configuration of `auto`, `walker` or `portable`."""
    from lamina_hardware.io.portable_core import PortableCore
    from lamina_hardware.io.unicorn_core import UnicornCore

    if wanted == "portable":
        return CorePath("portable", "configured", PortableCore.capabilities, lambda: PortableCore(bus))
    return CorePath("walker", "configured", UnicornCore.capabilities, lambda: UnicornCore(bus))
