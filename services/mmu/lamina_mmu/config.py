"""Configuration of the MMU layer: section `[mmu]` of the file, `LAMINA_MMU_…` in the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lamina_kit.checks import Checks

POLICY = re.compile(r"[a-z0-9][a-z0-9-]{0,30}|[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class MmuConfig:
    """Sizes and policy of one host's memory.

    swap_bytes: size of the swap file, sparse, 0 (no swap) to 1 TiB; whole pages are used. policy: page replacement, a
    name of Lamina's own or of an installed policy, or an import path, `package.module:Class`. memory_bytes: RAM to use
    of what the hardware has, 0 meaning all.
    """

    swap_bytes: int = 1 << 30
    policy: str = "lru"
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        with Checks("CONFIG_OUT_OF_RANGE") as check:
            check.range("mmu.swap_bytes", self.swap_bytes, 0, 1 << 40)
            check.range("mmu.memory_bytes", self.memory_bytes, 0, 1 << 44)
            check.that(bool(POLICY.fullmatch(self.policy)), "mmu.policy", "is neither a name nor package.module:Class")
