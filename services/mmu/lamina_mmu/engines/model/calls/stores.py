"""The routes of the model engine to its three stores: frames in bulk, swap areas, the content of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lamina_kit.effects import Sleep, Step
from lamina_kit.errors import LaminaError
from lamina_kit.paging import PAGE_SHIFT, page_up
from lamina_mmu.domain.frames.buddy import HUGE_ORDER
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.supply import Supply
from lamina_mmu.domain.views import (
    FragmentationView,
    FrameView,
    ObjectView,
    SlotView,
    SwapAreaView,
    SwapCheck,
    SwapSettingsView,
)
from lamina_mmu.engines.model.calls import ownership
from lamina_mmu.engines.model.frames import compaction, extents, offlining
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.objects import content, suppliers
from lamina_mmu.engines.model.reclaim import writeback
from lamina_mmu.engines.model.swap_areas import areas as swap_areas
from lamina_mmu.engines.model.swap_areas import draining, settings
from lamina_mmu.engines.model.swap_areas.draining import Drain
from lamina_mmu.engines.model.views import resources

ZEROED_AT_ONCE = 256
"""Frames that are zeroed ahead of need before others get their turn."""


class Stores:
    """Implements `engines.stores.StoreEngine`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def frames(self, use: Use | None, group: str | None, after: int, count: int) -> list[FrameView]:
        """Returns frames by number."""
        payer = self.machine.groups.named(group) if group is not None else None
        return resources.show_frames(self.machine, use, payer, after, count)

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

    def zero_ahead(self) -> Step[None]:
        """Fills the stock of zeroed frames."""
        m = self.machine
        while m.frames.zeroed < m.zeroed and m.frames.free > m.high:
            for _ in range(min(ZEROED_AT_ONCE, m.zeroed - m.frames.zeroed)):
                frame = m.frames.unzeroed()
                if not frame:
                    return
                m.ram.zero(frame)
                m.frames.stock(frame)
            yield Sleep(0)

    def offline_frames(self, frames: Sequence[int], lost: bool) -> Step[list[int]]:
        """Takes frames out of use."""
        fates = yield from offlining.offline_frames(self.machine, frames, lost)
        return [int(fate) for fate in fates]

    # ── content of objects ───────────────────────────────────────────────────────────────────────────────────────

    def open_supply(self, owner: str) -> Supply:
        """Begins a supplier's stream."""
        return suppliers.open_supply(self.machine, owner)

    def supply_objects(
        self, supply: Supply, objects: Sequence[Handle], maps_memory: bool, keeps_writes: bool, readahead: int
    ) -> None:
        """Makes a stream the supplier of objects."""
        suppliers.add_objects(self.machine, supply, objects, maps_memory, keeps_writes, readahead)

    def filled(self, supply: Supply, sequence: int, data: bytes, pages: int, failure: str) -> None:
        """Takes the answer to a demand."""
        suppliers.filled(self.machine, supply, sequence, data, pages, failure)

    def kept(self, supply: Supply, sequence: int, failure: str) -> None:
        """Takes the answer to a keep."""
        writeback.kept(self.machine, supply, sequence, failure)

    def invalidate(self, supply: Supply, handle: Handle, offset: int, size: int) -> Step[None]:
        """Drops pages whose content changed behind the object."""
        first, end = offset >> PAGE_SHIFT, offset + size >> PAGE_SHIFT
        yield from content.invalidate(self.machine, supply, handle, first, end)

    def watch_supply(self, supply: Supply, sequence: int) -> Step[None]:
        """Ends a stream that leaves a question unanswered for 30 s."""
        yield from suppliers.watch(self.machine, supply, sequence)

    def end_supply(self, supply: Supply, error: LaminaError | None) -> None:
        """Ends a supplier's stream."""
        suppliers.end_supply(self.machine, supply, error)

    def content_end(self, handle: Handle, offset: int, size: int) -> int:
        """Returns where a range of an object ends."""
        return content.check_range(self.machine, handle, offset, size)

    def read_object(self, handle: Handle, offset: int, size: int) -> Step[list[tuple[int, bytes]]]:
        """Returns bytes of an object."""
        return (yield from content.read_object(self.machine, handle, offset, size))

    def resize_object(self, handle: Handle, size: int) -> Step[ObjectView]:
        """Changes the size of an object."""
        yield from content.resize_object(self.machine, handle, size)
        return resources.show_object(self.machine, self.machine.objects.get(handle))

    def sync_object(self, handle: Handle, offset: int, size: int, drop: bool) -> Step[tuple[int, int]]:
        """Has changes kept, and drops clean pages that nobody maps if asked to."""
        end = content.check_range(self.machine, handle, offset, size)
        pages = offset >> PAGE_SHIFT, page_up(end) >> PAGE_SHIFT
        return (yield from content.sync_object(self.machine, handle, *pages, drop))

    # ── swap ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def swap_areas(self) -> list[SwapAreaView]:
        """Returns the swap areas."""
        return [swap_areas.show_area(area) for area in self.machine.swap.areas]

    def swap_area(self, name: str) -> SwapAreaView:
        """Returns one swap area."""
        return swap_areas.show_area(swap_areas.area_named(self.machine, name))

    def create_swap_area(
        self, name: str, slots: int, priority: int, request: str, disk: str = ""
    ) -> Step[SwapAreaView]:
        """Makes a swap area."""
        m = self.machine

        def make() -> Step[str]:
            return (yield from swap_areas.create_area(m, name, slots, priority, disk)).name

        made = yield from ownership.once(m, request, ("swap area", name, slots, priority, disk), make)
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

    def check_swap(self, name: str, after: int) -> Step[SwapCheck]:
        """Compares slots with their checksums."""
        return (yield from swap_areas.check_slots(self.machine, name, after))

    def refuse_swap(self, refuse: bool, name: str = "") -> None:
        """Makes swap areas full, or not."""
        areas = [swap_areas.area_named(self.machine, name)] if name else self.machine.swap.areas
        for area in areas:
            area.refusing = refuse

    def swap_settings(self) -> SwapSettingsView:
        """Returns the settings in effect."""
        return settings.show_settings(self.machine)

    def update_swap_settings(self, changes: Mapping[str, int | str]) -> SwapSettingsView:
        """Changes settings."""
        settings.update_settings(self.machine, changes)
        return settings.show_settings(self.machine)
