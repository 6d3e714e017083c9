"""The routes of the model engine to its three stores: frames in bulk, swap areas, the content of objects."""

from __future__ import annotations

from collections.abc import Sequence

from lamina_kit.effects import Step
from lamina_mmu.domain.buddy import HUGE_ORDER
from lamina_mmu.domain.frames import Use
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.views import FragmentationView, FrameView, SlotView, SwapAreaView, SwapCheck
from lamina_mmu.engines.model import compaction, draining, extents, ownership, show, swap_areas
from lamina_mmu.engines.model.draining import Drain
from lamina_mmu.engines.model.machine import Machine


class Stores:
    """Implements `engines.stores.StoreEngine`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def frames(self, use: Use | None, group: str | None, after: int, count: int) -> list[FrameView]:
        """Returns frames by number."""
        payer = self.machine.groups.named(group) if group is not None else None
        return show.show_frames(self.machine, use, payer, after, count)

    def fragmentation(self) -> FragmentationView:
        """Returns how free memory is cut up."""
        return compaction.fragmentation(self.machine)

    def compact_frames(self, huge_blocks: int) -> Step[tuple[int, int]]:
        """Moves pages until enough aligned 2 MiB blocks are free."""
        m = self.machine
        moved = yield from compaction.compact(m, HUGE_ORDER, huge_blocks, "asked for")
        m.frames.drain()
        return moved, m.frames.buddy.of_order(HUGE_ORDER)

    def allocate_extents(
        self, count: int, order: int, owner: str, group: str, session: Session, request: str
    ) -> Step[tuple[int, ...]]:
        """Returns the first frames of zeroed extents."""
        m, payer = self.machine, self.machine.groups.named(group)

        def make() -> Step[tuple[int, ...]]:
            return (yield from extents.allocate_extents(m, count, order, owner, payer, session))

        return (yield from ownership.once(m, request, ("extents", count, order, owner, group), make))

    def free_extents(self, firsts: Sequence[int], owner: str) -> None:
        """Frees extents."""
        extents.free_extents(self.machine, firsts, owner)

    # ── swap ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def swap_areas(self) -> list[SwapAreaView]:
        """Returns the swap areas."""
        return [swap_areas.show_area(area) for area in self.machine.swap.areas]

    def swap_area(self, name: str) -> SwapAreaView:
        """Returns one swap area."""
        return swap_areas.show_area(swap_areas.area_named(self.machine, name))

    def create_swap_area(self, name: str, slots: int, priority: int, request: str) -> Step[SwapAreaView]:
        """Makes a swap area."""
        m = self.machine

        def make() -> Step[str]:
            yield from ()
            return swap_areas.create_area(m, name, slots, priority).name

        made = yield from ownership.once(m, request, ("swap area", name, slots, priority), make)
        return self.swap_area(made)

    def begin_drain(self, name: str) -> Drain:
        """Begins to take a swap area out of use."""
        return draining.begin(self.machine, name)

    def drain(self, drain: Drain) -> Step[None]:
        """Empties some slots."""
        yield from draining.step(self.machine, drain)

    def end_drain(self, drain: Drain) -> None:
        """Ends a drain, done or not."""
        draining.end(self.machine, drain)

    def swap_slots(self, name: str, after: int, count: int) -> list[SlotView]:
        """Returns slots in use by number."""
        return swap_areas.list_slots(self.machine, swap_areas.area_named(self.machine, name), after, count)

    def check_swap(self, name: str, after: int) -> SwapCheck:
        """Compares slots with their checksums."""
        return swap_areas.check_slots(self.machine, name, after)

    def refuse_swap(self, refuse: bool, name: str = "") -> None:
        """Makes swap areas full, or not."""
        areas = [swap_areas.area_named(self.machine, name)] if name else self.machine.swap.areas
        for area in areas:
            area.refusing = refuse
