"""Which cores an engine has, and what it needs of the stack's clock."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from lamina_hardware.config import HardwareConfig
from lamina_hardware.engines.interface import CorePath
from lamina_hardware.engines.model.engine import ModelEngine
from lamina_hardware.io.cores.path import choose
from lamina_hardware.io.cores.time_slice import TimeSlice
from lamina_hardware.io.kvm import abi
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.errors import FailedPrecondition, Unimplemented

PORTABLE_SLOWDOWN = 20
"""How much shorter slices are on the portable core, so that they last about as long."""


def check_clock(engine: type[ModelEngine], name: str, mode: str) -> None:
    """Raises `FailedPrecondition` `ENGINE_NEEDS_REAL_TIME` for an engine of the real machine on another clock."""
    if engine.real_time_only and mode != "real":
        raise FailedPrecondition(
            f"The engine {name} of the hardware layer works on the real machine, whose time nobody moves; this stack's "
            f"clock is {mode}.",
            reason="ENGINE_NEEDS_REAL_TIME",
            next_step="Start the stack with the clock `real`, or with the engines `model`.",
        )


def count_cores(engine: type[ModelEngine], wanted: int) -> int:
    """Returns how many cores a machine has: as many as it is told, but none of KVM's where KVM is not."""
    return 0 if engine.cores_of == "kvm" and abi.missing() else wanted


def choose_cores(engine: ModelEngine, wanted: str, state_dir: Path, bus: MemoryBus) -> CorePath:
    """Returns the cores of an engine. Raises as `io.cores.path.choose` does."""
    if engine.core_count:
        return choose(wanted, state_dir, bus, cores_of=engine.cores_of)
    return CorePath("none", _why_none(), (), _refuse)


def time_slice_of(path: CorePath, config: HardwareConfig, mode: str) -> TimeSlice:
    """Returns how long grants of a core path last; `mode` is that of the stack's clock."""
    slowdown = PORTABLE_SLOWDOWN if path.name == "portable" else 1
    return TimeSlice(
        config.inline_instructions // slowdown,
        config.slice_instructions // slowdown,
        config.threads and mode == "real",
        exact="exact-budget" in path.capabilities,
    )


def check_cores(engine: ModelEngine) -> None:
    """Raises `Unimplemented` `CORES_ABSENT` for a machine that cannot run anything."""
    if not engine.core_count:
        _refuse()


def _why_none() -> str:
    return f"this engine has the cores that KVM gives: {' '.join(abi.missing()).removesuffix('.')}"


def _refuse() -> NoReturn:
    raise Unimplemented(
        f"This machine has no cores; {_why_none()}.",
        reason="CORES_ABSENT",
        next_step="Run contexts on a host with the engine `model`, or where /dev/kvm is.",
    )
