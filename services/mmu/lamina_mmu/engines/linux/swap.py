"""Swap of the `linux` engine: the calls on areas and settings. What is done with them is in `swap_areas.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from lamina_kit.effects import Step
from lamina_mmu.domain.views import SlotView, SwapAreaView, SwapCheck, SwapSettingsView
from lamina_mmu.engines.linux.refusals import refuse as refusal
from lamina_mmu.engines.linux.state import State
from lamina_mmu.engines.linux.swap_areas import KernelAreas, KernelDrain
from lamina_mmu.engines.stores import Drain


class SwapCalls:
    """Implements the part of `engines.stores.StoreEngine` about swap."""

    state: State
    kernel_areas: KernelAreas

    def swap_areas(self) -> list[SwapAreaView]:
        """Returns the swap areas by priority, the highest first, then by name."""
        return self.kernel_areas.listed()

    def swap_area(self, name: str) -> SwapAreaView:
        """Returns one swap area."""
        return self.kernel_areas.view(name)

    def create_swap_area(
        self, name: str, slots: int, priority: int, request: str, disk: str = ""
    ) -> Step[SwapAreaView]:
        """Makes a swap area and takes it into use; disks of the machine that is modelled are none of the kernel's."""
        if disk:
            raise refusal("swap", "keep a swap area on a disk of the hardware layer", "Leave swap_area.disk empty.")

        def make() -> Step[str]:
            yield from ()
            return self.kernel_areas.create(name, slots, priority)

        meaning = ("swap area", name, slots, priority)
        return self.swap_area((yield from self.state.once(request, meaning, make)))

    def begin_drain(self, name: str) -> Drain:
        """Begins to take an area out of use."""
        return self.kernel_areas.begin_drain(name)

    def drain(self, drain: Drain) -> Step[None]:
        """Waits for the kernel to bring some pages of the area elsewhere."""
        return self.kernel_areas.drain(cast(KernelDrain, drain))

    def end_drain(self, drain: Drain) -> None:
        """Ends a drain; an area that is not empty is used again."""
        self.kernel_areas.end_drain(cast(KernelDrain, drain))

    def swap_slots(self, name: str, after: int, count: int) -> list[SlotView]:
        """Refuses: the kernel tells nobody what is in a slot."""
        self.kernel_areas.view(name)
        raise refusal("slots", "list the slots of a swap area of the kernel")

    def check_swap(self, name: str, after: int) -> Step[SwapCheck]:
        """Refuses: the kernel keeps no checksums."""
        yield from ()
        self.kernel_areas.view(name)
        raise refusal("slots", "check the slots of a swap area of the kernel")

    def refuse_swap(self, refuse: bool, name: str = "") -> None:
        """Refuses: the kernel has no such fault to inject."""
        raise refusal("slots", "let a swap area of the kernel be full")

    def swap_settings(self) -> SwapSettingsView:
        """Returns the host's settings of swapping and reclaim."""
        return self.kernel_areas.settings()

    def update_swap_settings(self, changes: Mapping[str, int | str]) -> SwapSettingsView:
        """Changes swappiness and readahead of the host."""
        self.kernel_areas.update(changes)
        return self.kernel_areas.settings()
