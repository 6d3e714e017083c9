"""The `linux` engine: spaces are processes of the kernel, objects its memory files, frames those of the machine.

This file only routes. What the kernel is asked is in `domain/kernel/port.py`, how it is asked in `io/linux`; what its
answers mean is decided in the modules beside this one (docs/adr/0030-spaces-are-processes.md).
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import ClassVar

from lamina_mmu.domain.ports import Ports, Settings
from lamina_mmu.engines.linux.advice import AdviceCalls
from lamina_mmu.engines.linux.cgroups import KernelGroups
from lamina_mmu.engines.linux.frames import FrameCalls
from lamina_mmu.engines.linux.objects import ObjectCalls
from lamina_mmu.engines.linux.pages import PageCalls
from lamina_mmu.engines.linux.refusals import Refused
from lamina_mmu.engines.linux.settings import SettingCalls
from lamina_mmu.engines.linux.spaces import SpaceCalls
from lamina_mmu.engines.linux.state import State
from lamina_mmu.engines.linux.swap import SwapCalls
from lamina_mmu.engines.linux.swap_areas import KernelAreas


class LinuxEngine(SpaceCalls, SettingCalls, PageCalls, AdviceCalls, ObjectCalls, FrameCalls, SwapCalls, Refused):
    """Implements `engines.interface.MmuEngine`."""

    name: ClassVar[str] = "linux"
    capabilities: ClassVar[tuple[str, ...]] = ("fork", "process", "group", "swap")
    on_kernel: ClassVar[bool] = True

    def __init__(self, ports: Ports, settings: Settings) -> None:
        self.state = State(ports)
        self.kernel_groups = KernelGroups(ports, self.state.kernel.cgroups)
        self.state.on_ended = lambda space: self.leave_group(space.number, space.group)
        self.kernel_areas = KernelAreas(ports, self.state.kernel.memory, self.state.kernel.swap)

    @classmethod
    def missing(cls) -> list[str]:
        """Returns why it cannot run here: it needs Linux on x86-64, with the page map in /proc."""
        if sys.platform != "linux" or platform.machine() != "x86_64":
            return [f"it needs Linux on x86-64, and this is {sys.platform} on {platform.machine()}"]
        if not Path("/proc/self/pagemap").exists():
            return ["the kernel has no /proc/self/pagemap (CONFIG_PROC_PAGE_MONITOR)"]
        return []

    def close(self) -> None:
        """Ends all agents, lets go of all memory files, and removes its cgroups and its swap areas."""
        for entity in self.state.objects:
            self.state.drop_object(entity)
        self.state.kernel.processes.close()
        self.kernel_groups.close()
        self.state.kernel.swap.close()
