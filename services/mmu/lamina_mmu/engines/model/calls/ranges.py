"""The part of the model engine that works on ranges and settings of spaces: routes to the modules beside it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from lamina_kit.effects import Step
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE
from lamina_mmu.domain.fault_feed import FaultWatch
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.spaces.advice import Advice
from lamina_mmu.domain.spaces.pin import Pin
from lamina_mmu.domain.spaces.remap_spec import Move
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.views import PinView, SettingsChange, SettingsView, SpaceStatistics
from lamina_mmu.engines.model.calls import ownership
from lamina_mmu.engines.model.faults import huge
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.ranges import advice, heap, locking, mapping, pinning, remap, syncing
from lamina_mmu.engines.model.spaces import settings
from lamina_mmu.engines.model.views import residency, statistics


class RangeCalls:
    """Implements `engines.ranges.RangeEngine`."""

    machine: Machine

    def unmap_range(self, handle: Handle, start: int, end: int, request: str = "") -> Step[int]:
        """Unmaps a range."""
        m = self.machine

        def work() -> Step[int]:
            return (yield from mapping.unmap_range(m, handle, start, end))

        return (yield from ownership.once(m, request, ("unmap", handle, start, end), work))

    def protect_range(self, handle: Handle, start: int, end: int, rights: int, request: str = "") -> Step[None]:
        """Changes the rights of a range."""
        m = self.machine

        def work() -> Step[bool]:
            yield from mapping.protect_range(m, handle, start, end, rights)
            return True

        yield from ownership.once(m, request, ("protect", handle, start, end, rights), work)

    def advise_range(self, handle: Handle, start: int, end: int, given: Advice) -> Step[int]:
        """Takes advice."""
        return (yield from advice.advise(self.machine, handle, start, end, given))

    def split_huge_pages(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Splits huge pages."""
        return (yield from huge.split_range(self.machine, handle, start, end))

    def lock_range(self, handle: Handle, start: int, end: int, on_fault: bool) -> Step[int]:
        """Locks a range."""
        return (yield from locking.lock_range(self.machine, handle, start, end, on_fault))

    def unlock_range(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Unlocks a range."""
        return (yield from locking.unlock_range(self.machine, handle, start, end))

    def pin_range(
        self, handle: Handle, address: int, size: int, write: bool, session: Session, request: str
    ) -> Step[PinView]:
        """Pins a range."""
        m = self.machine

        def work() -> Step[PinView]:
            pin: Pin = yield from pinning.pin_range(m, handle, address, size, write, session)
            return PinView(pin.handle, pin.runs)

        return (yield from ownership.once(m, request, ("pin", handle, address, size, write), work))

    def unpin_ranges(self, pins: Sequence[Handle], written: bool) -> None:
        """Ends pins."""
        pinning.unpin_ranges(self.machine, pins, written)

    def set_break(self, handle: Handle, start: int, end: int) -> Step[tuple[int, int]]:
        """Moves the end of the heap."""
        return (yield from heap.set_break(self.machine, handle, start, end))

    def remap_range(self, handle: Handle, move: Move, request: str) -> Step[int]:
        """Resizes or moves a mapping."""
        m = self.machine

        def work() -> Step[int]:
            return (yield from remap.remap_range(m, handle, move))

        return (yield from ownership.once(m, request, ("remap", handle, move), work))

    def sync_range(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Has changes kept."""
        return (yield from syncing.sync_range(self.machine, handle, start, end))

    def read_residency(self, key: Handle | str, start: int, end: int, clear: bool) -> Step[tuple[int, bytes]]:
        """Returns where the next pages of a range are: the address behind them, and their words."""
        first = start >> PAGE_SHIFT
        last = min(end >> PAGE_SHIFT, first + residency.PIECE)
        words = yield from residency.read_piece(self.machine, self._space(key), first, last, clear)
        return last * PAGE_SIZE, words

    def space_statistics(self, key: Handle | str) -> SpaceStatistics:
        """Returns what a space uses."""
        return statistics.statistics(self.machine, self._space(key))

    def space_settings(self, key: Handle | str) -> SettingsView:
        """Returns the settings of a space."""
        return settings.show_settings(self.machine, self._space(key))

    def update_space_settings(self, handle: Handle, change: SettingsChange) -> Step[SettingsView]:
        """Changes settings of a space."""
        yield from ()
        return settings.update_settings(self.machine, self.machine.spaces.get(handle), change)

    def watch_faults(self, name: str, sample: int) -> FaultWatch:
        """Begins to keep faults for a reader."""
        number = self.machine.spaces.named(name).number if name else 0
        return self.machine.feed.open(number, sample)

    def end_watch(self, watch: FaultWatch) -> None:
        """Ends that."""
        self.machine.feed.close(watch)

    def _space(self, key: Handle | str) -> Space:
        spaces = self.machine.spaces
        return spaces.named(key) if isinstance(key, str) else spaces.get(key)
