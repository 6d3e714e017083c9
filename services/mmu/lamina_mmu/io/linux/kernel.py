"""The kernel as the `linux` engine reaches it (`domain/kernel/port.py`)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import cast

from lamina_mmu.domain.frames.ram import Ram
from lamina_mmu.domain.kernel.port import Kernel
from lamina_mmu.domain.swap.areas import SwapStore
from lamina_mmu.io.linux.cgroups import open_cgroups
from lamina_mmu.io.linux.contents import MemoryFiles
from lamina_mmu.io.linux.memory import ProcMemory
from lamina_mmu.io.linux.processes import KernelProcesses
from lamina_mmu.io.linux.swap import SwapFolder


class _Nothing:
    """RAM, or a swap area, of nothing: the machine's own is used."""

    frames = slots = 0


NO_RAM = cast(Ram, _Nothing())
NO_SWAP = cast(SwapStore, _Nothing())


SWAP_FOLDER = "swap-areas"


def open_kernel(host: str, folder: Path, wake: Callable[[Hashable, object], object]) -> Kernel:
    """Returns the way to the kernel, with groups of the host's own, and swap areas below `folder`.

    `wake` is told when an agent has replied, or an area is out of use.
    """
    swap = SwapFolder(folder / SWAP_FOLDER, wake)
    return Kernel(KernelProcesses(wake), MemoryFiles(), ProcMemory(), open_cgroups(host), swap)
