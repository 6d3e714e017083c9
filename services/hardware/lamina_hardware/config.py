"""Configuration of the hardware layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lamina_kit.checks import Checks

MAX_CORES = 256
MAX_MEMORY = 1 << 44


@dataclass(frozen=True)
class HardwareConfig:
    """The machine. Environment variables: LAMINA_HARDWARE_CORES and so on.

    `memory_bytes` is RAM, stored sparsely, a multiple of 2 MiB; `run_pages` limits the execution contexts;
    `core_path` is `walker`, `portable`, or `auto`: the walker when its self-test passes. `threads` false keeps all
    execution on the event loop and counts CPU time in instructions. Slices are in instructions of the walker core;
    those of the portable core are shorter. `dma_bytes` is the memory beyond RAM that only devices reach, stored
    sparsely, a multiple of 2 MiB; `dma_engines` and `nics` how many of those the machine has. `host_root` is where the
    engine `linux` finds the /proc and /sys that it shows, and `kvm` the name of the processor: those of this machine,
    or copies in a folder.
    """

    cores: int = 4
    memory_bytes: int = 8 << 30
    run_pages: int = 4096
    core_path: Literal["auto", "walker", "portable"] = "auto"
    threads: bool = True
    inline_instructions: int = 100_000
    slice_instructions: int = 5_000_000
    dma_bytes: int = 1 << 30
    dma_engines: int = 2
    nics: int = 2
    host_root: str = "/"

    def __post_init__(self) -> None:
        with Checks("CONFIG_OUT_OF_RANGE") as check:
            check.range("hardware.cores", self.cores, 1, MAX_CORES)
            check.range("hardware.memory_bytes", self.memory_bytes, 2 << 20, MAX_MEMORY)
            check.aligned("hardware.memory_bytes", self.memory_bytes, 2 << 20)
            check.range("hardware.run_pages", self.run_pages, 1, 1 << 20)
            check.range("hardware.dma_bytes", self.dma_bytes, 2 << 20, 1 << 40)
            check.aligned("hardware.dma_bytes", self.dma_bytes, 2 << 20)
            check.range("hardware.dma_engines", self.dma_engines, 0, 16)
            check.range("hardware.nics", self.nics, 0, 64)
            check.range("hardware.inline_instructions", self.inline_instructions, 8192, 1 << 30)
            check.range("hardware.slice_instructions", self.slice_instructions, 8192, 1 << 40)
