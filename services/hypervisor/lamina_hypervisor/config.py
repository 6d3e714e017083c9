"""Configuration of the hypervisor layer: section `[hypervisor]`, `LAMINA_HYPERVISOR_…` in the environment."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.checks import Checks


@dataclass(frozen=True)
class HypervisorConfig:
    """Settings of one host.

    engine: the engine's name. kept_slices: time slices that `ListSlices` can show, 1 to 1,000,000.
    """

    engine: str = "model"
    kept_slices: int = 4096

    def __post_init__(self) -> None:
        with Checks("CONFIG_OUT_OF_RANGE") as check:
            check.range("hypervisor.kept_slices", self.kept_slices, 1, 1_000_000)
