"""Which engines go with which clock."""

from __future__ import annotations

from lamina_kit.errors import FailedPrecondition
from lamina_vswitch.engines.interface import SwitchEngine


def check_clock(engine: type[SwitchEngine], mode: str) -> None:
    """Raise FailedPrecondition `ENGINE_NEEDS_REAL_TIME` for an engine of the kernel on another clock than its."""
    if mode == "virtual" and "given-time" not in engine.capabilities:
        raise FailedPrecondition(
            f"The engine {engine.name} of the vSwitch works on the kernel, which keeps no virtual clock.",
            reason="ENGINE_NEEDS_REAL_TIME",
            next_step="Start the stack with --clock real, or with the engine model.",
        )
