"""The part of an engine's interface that works on ranges and settings of spaces; `interface.py` has the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lamina_kit.effects import Step
from lamina_mmu.domain.fault_feed import FaultWatch
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.spaces.advice import Advice
from lamina_mmu.domain.spaces.remap_spec import Move
from lamina_mmu.domain.views import PinView, SettingsChange, SettingsView, SpaceStatistics


class RangeEngine(Protocol):
    """What the service calls on ranges. `start` and `end` are page aligned; `end` is behind the last byte."""

    def unmap_range(self, handle: Handle, start: int, end: int, request: str = "") -> Step[int]:
        """Unmaps a range; returns how many pages in RAM or swap are gone. Once for each `request`, here and below."""

    def protect_range(self, handle: Handle, start: int, end: int, rights: int, request: str = "") -> Step[None]:
        """Changes the rights of a range that is mapped as a whole."""

    def advise_range(self, handle: Handle, start: int, end: int, given: Advice) -> Step[int]:
        """Takes advice; returns how many pages were dropped, reclaimed or brought in at once."""

    def split_huge_pages(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Splits the huge pages that a range touches; returns how many."""

    def lock_range(self, handle: Handle, start: int, end: int, on_fault: bool) -> Step[int]:
        """Locks a range in RAM; returns the locked bytes of the space."""

    def unlock_range(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Unlocks a range; returns the locked bytes of the space."""

    def pin_range(
        self, handle: Handle, address: int, size: int, write: bool, session: Session, request: str
    ) -> Step[PinView]:
        """Keeps `size` bytes at `address`, neither aligned, in their frames."""

    def unpin_ranges(self, pins: Sequence[Handle], written: bool) -> None:
        """Ends pins, all or none; `written`: their pages are dirty."""

    def set_break(self, handle: Handle, start: int, end: int) -> Step[tuple[int, int]]:
        """Moves the end of the heap (0: leaves it); returns (start, end). `start` 0: as it was set."""

    def remap_range(self, handle: Handle, move: Move, request: str) -> Step[int]:
        """Resizes or moves a mapping; returns its first address."""

    def sync_range(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Has changes of shared mappings kept by their suppliers; returns how many pages."""

    def read_residency(self, key: Handle | str, start: int, end: int, clear: bool) -> Step[tuple[int, bytes]]:
        """Returns the address behind the next pages of a range, and a word for each of them, at most 65536."""

    def space_statistics(self, key: Handle | str) -> SpaceStatistics:
        """Returns what a space uses."""

    def space_settings(self, key: Handle | str) -> SettingsView:
        """Returns the settings of a space."""

    def update_space_settings(self, handle: Handle, change: SettingsChange) -> Step[SettingsView]:
        """Changes settings of a space, all or none."""

    def watch_faults(self, name: str, sample: int) -> FaultWatch:
        """Keeps one fault in `sample` of a space (empty: of all) in the watch's queue; `watch_key` is woken for it."""

    def end_watch(self, watch: FaultWatch) -> None:
        """Forgets a watch."""
