"""Swap areas of the `linux` engine: refused for now."""

from __future__ import annotations

from lamina_kit.effects import Step
from lamina_mmu.domain.views import SlotView, SwapAreaView, SwapCheck
from lamina_mmu.engines.linux.refusing import refuse
from lamina_mmu.engines.linux.state import State
from lamina_mmu.engines.stores import Drain

NO_SWAP = refuse("swap", "keep swap areas")


class SwapCalls:
    """Implements the part of `engines.stores.StoreEngine` about swap areas."""

    state: State

    def swap_areas(self) -> list[SwapAreaView]:
        """Refuses."""
        raise NO_SWAP

    def swap_area(self, name: str) -> SwapAreaView:
        """Refuses."""
        raise NO_SWAP

    def create_swap_area(self, name: str, slots: int, priority: int, request: str) -> Step[SwapAreaView]:
        """Refuses."""
        yield from ()
        raise refuse("swap", "keep swap areas")

    def begin_drain(self, name: str) -> Drain:
        """Refuses."""
        raise NO_SWAP

    def drain(self, drain: Drain) -> Step[None]:
        """Refuses."""
        yield from ()
        raise refuse("swap", "keep swap areas")

    def end_drain(self, drain: Drain) -> None:
        """Refuses."""
        raise NO_SWAP

    def swap_slots(self, name: str, after: int, count: int) -> list[SlotView]:
        """Refuses."""
        raise NO_SWAP

    def check_swap(self, name: str, after: int) -> SwapCheck:
        """Refuses."""
        raise NO_SWAP

    def refuse_swap(self, refuse: bool, name: str = "") -> None:
        """Refuses."""
        raise NO_SWAP
