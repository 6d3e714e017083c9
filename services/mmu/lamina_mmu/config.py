"""Configuration of the MMU layer: section `[mmu]` of the file, `LAMINA_MMU_…` in the environment."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.checks import Checks


@dataclass(frozen=True)
class MmuConfig:
    """Sizes and policy of one host's memory.

    swap_bytes: size of the swap file, sparse, 0 (no swap) to 1 TiB; whole pages are used. policy: page replacement.
    memory_bytes: RAM to use of what the hardware has, 0 meaning all.
    """

    swap_bytes: int = 1 << 30
    policy: str = "lru"
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        with Checks("CONFIG_OUT_OF_RANGE") as check:
            check.range("mmu.swap_bytes", self.swap_bytes, 0, 1 << 40)
            check.range("mmu.memory_bytes", self.memory_bytes, 0, 1 << 44)
            check.one_of("mmu.policy", self.policy, ("lru",))
