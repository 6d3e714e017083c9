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
    of what the hardware has, 0 meaning all. swap_readahead: pages read around a slot that is needed, a power of 2, 1 to
    64. zeroed_frames: frames kept zeroed ahead of need, 0 to 16,777,216; at most an eighth of RAM.
    """

    swap_bytes: int = 1 << 30
    policy: str = "lru"
    memory_bytes: int = 0
    swap_readahead: int = 8
    zeroed_frames: int = 0

    def __post_init__(self) -> None:
        with Checks("CONFIG_OUT_OF_RANGE") as check:
            check.range("mmu.swap_bytes", self.swap_bytes, 0, 1 << 40)
            check.range("mmu.memory_bytes", self.memory_bytes, 0, 1 << 44)
            check.that(self.swap_readahead in (1, 2, 4, 8, 16, 32, 64), "mmu.swap_readahead", "is no power of 2 to 64")
            check.range("mmu.zeroed_frames", self.zeroed_frames, 0, 1 << 24)
            check.that(bool(POLICY.fullmatch(self.policy)), "mmu.policy", "is neither a name nor package.module:Class")
