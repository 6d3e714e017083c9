"""The cores that snippets run on: every engine of the hardware layer, and each path of the modelled one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.contract.hardware.conftest import Bench

from lamina_hardware.config import HardwareConfig
from lamina_hardware.io.emulator.portable_core import PortableCore
from lamina_hardware.io.emulator.walker_core import UnicornCore
from lamina_hardware.io.kvm.core import KvmCore
from lamina_hardware.server import build
from lamina_kit.clock import RealClock
from lamina_kit.engines import engines_of
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng


@dataclass(frozen=True, slots=True)
class Core:
    """An engine, a core path (`auto` for engines that have one kind of core), and the budget of a run (0: none)."""

    engine: str
    path: Literal["auto", "walker", "portable"]
    budget: int

    def __str__(self) -> str:
        return self.path if self.engine == "model" else self.engine

    def missing(self) -> list[str]:
        """Returns why the engine cannot run here."""
        reasons: list[str] = engines_of("hardware")[self.engine].missing()
        return reasons

    def require(self) -> None:
        """Skips a test when the engine cannot run here."""
        if missing := self.missing():
            pytest.skip("; ".join(missing))


RAM = 256 << 20
ROOM = RAM - (4 << 20)
"""From here on no frame is given away: a snippet that needs a large piece takes it."""
BUDGET = 1_000_000
REFERENCE = Core("model", "walker", BUDGET)
KVM = Core("kvm", "auto", 0)
CORES = (REFERENCE, Core("model", "portable", BUDGET), KVM)

KVM_IGNORED = ("ept ", "stack ", "way ", " address", " instruction_length", " io_count", " qualification")
"""Facts that the engine `kvm` cannot tell, or tells otherwise: docs/divergences.md."""


def emulates() -> bool:
    """Returns whether KVM has no virtualization of the processor here, so that it emulates ring 0."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return " vmx" not in flags and " svm" not in flags


def capabilities(core: Core) -> tuple[str, ...]:
    """Returns what a core can do beside what all do."""
    if core == KVM:
        return KvmCore.capabilities
    return UnicornCore.capabilities if core.path == "walker" else PortableCore.capabilities


class Machines:
    """The machines of one test session of a module: each core has one, started when something runs on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[Core, tuple[Any, Bench]] = {}

    async def bench(self, core: Core) -> Bench:
        """Returns the machine of a core."""
        if core not in self._running:
            folder = self._folder / str(core)
            folder.mkdir()
            clock, rng = RealClock(), Rng(7)
            layer = LayerState("hardware", "h1", clock, rng, engine=core.engine)
            environment = Environment("h1", clock, rng, folder, layer, bus_path=folder / "ram")
            config = HardwareConfig(memory_bytes=RAM, run_pages=64, core_path=core.path, cores=1)
            service = build(environment, config)
            await service.start()
            self._running[core] = service, Bench(environment, local(service, layer))
        return self._running[core][1]

    async def stop(self) -> None:
        """Stops all."""
        for service, _ in self._running.values():
            await service.stop()
