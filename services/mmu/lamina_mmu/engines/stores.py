"""The part of an engine's interface that is about its three stores: frames in bulk, swap areas, content of objects.

The vocabulary is that of `interface.py`.

    extent     2^order contiguous, aligned frames
    area       where slots lie: a file, or a disk; a drain takes one out of use
    supplier   who has the bytes behind objects, and is asked for them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError
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


class Drain(Protocol):
    """How far an area is drained: pages that came back to RAM, that went to other areas, slots still in use."""

    returned: int
    moved: int
    done: bool

    @property
    def remaining(self) -> int:
        """Returns how many slots are still in use."""


class StoreEngine(Protocol):
    """What the services `Frames`, `Objects` and `Swap` call."""

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def frames(self, use: Use | None, group: str | None, after: int, count: int) -> list[FrameView]:
        """Returns up to `count` frames with numbers above `after`, by number, each with its newest mapping alone.

        Only those of one use (None: all but free ones) and of one group (None: all).
        """

    def fragmentation(self) -> FragmentationView:
        """Returns how free memory is cut up."""

    def compact_frames(self, huge_blocks: int) -> Step[tuple[int, int]]:
        """Moves pages until so many aligned 2 MiB blocks are free, as far as it goes; returns (moved, free blocks)."""

    def allocate_extents(
        self, count: int, order: int, owner: str, group: str, session: Session, request: str
    ) -> Step[tuple[int, ...]]:
        """Returns the first frames of zeroed extents of 2^order frames that are never moved or reclaimed."""

    def free_extents(self, firsts: Sequence[int], owner: str) -> None:
        """Frees extents by their first frames, all or none."""

    def zero_ahead(self) -> Step[None]:
        """Fills the stock of zeroed frames; run at the start, and when `effects.ZEROED` is woken."""

    def offline_frames(self, frames: Sequence[int], lost: bool) -> Step[list[int]]:
        """Takes frames out of use whose memory fails; returns what became of each, as the contract numbers it."""

    # ── content of objects ───────────────────────────────────────────────────────────────────────────────────────

    def open_supply(self, owner: str) -> Supply:
        """Begins a supplier's stream; what it says is in its outbox, `effects.supply_outbox_key` is woken for each."""

    def supply_objects(
        self, supply: Supply, objects: Sequence[Handle], maps_memory: bool, keeps_writes: bool, readahead: int
    ) -> None:
        """Makes a stream the supplier of objects, all or none."""

    def filled(self, supply: Supply, sequence: int, data: bytes, pages: int, failure: str) -> None:
        """Takes the answer to a demand: `pages` pages, or why the first is not there."""

    def kept(self, supply: Supply, sequence: int, failure: str) -> None:
        """Takes the answer to a keep."""

    def invalidate(self, supply: Supply, handle: Handle, offset: int, size: int) -> Step[None]:
        """Drops pages whose content changed behind the object, unless they are dirty or pinned."""

    def watch_supply(self, supply: Supply, sequence: int) -> Step[None]:
        """Waits for the answer to a question; without one in 30 s the stream ends."""

    def end_supply(self, supply: Supply, error: LaminaError | None) -> None:
        """Ends a supplier's stream: its objects have no supplier. Idempotent."""

    def content_end(self, handle: Handle, offset: int, size: int) -> int:
        """Returns where a range of an object ends (size 0: its end); BEYOND_OBJECT when it is not within."""

    def read_object(self, handle: Handle, offset: int, size: int) -> Step[list[tuple[int, bytes]]]:
        """Returns (offset, bytes) of what was written within a range; pages are brought in."""

    def resize_object(self, handle: Handle, size: int) -> Step[ObjectView]:
        """Changes the size of an object; pages beyond it are dropped, wherever they are mapped."""

    def sync_object(self, handle: Handle, offset: int, size: int, drop: bool) -> Step[tuple[int, int]]:
        """Has changes kept, then drops clean pages that nobody maps if asked to; returns (kept, dropped) pages."""

    # ── swap ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def swap_areas(self) -> list[SwapAreaView]:
        """Returns the swap areas by priority, the highest first, then by name."""

    def swap_area(self, name: str) -> SwapAreaView:
        """Returns one swap area."""

    def create_swap_area(
        self, name: str, slots: int, priority: int, request: str, disk: str = ""
    ) -> Step[SwapAreaView]:
        """Makes a swap area, on a disk of the machine if one is named, and takes it into use."""

    def begin_drain(self, name: str) -> Drain:
        """Begins to take an area out of use; `end_drain` follows, whatever comes between."""

    def drain(self, drain: Drain) -> Step[None]:
        """Brings some pages of the area elsewhere; when none is left the area is gone and `done` is set."""

    def end_drain(self, drain: Drain) -> None:
        """Ends a drain; an area that is not empty is used again."""

    def swap_slots(self, name: str, after: int, count: int) -> list[SlotView]:
        """Returns up to `count` slots in use of an area with numbers above `after`, by number."""

    def check_swap(self, name: str, after: int) -> Step[SwapCheck]:
        """Reads the next slots in use behind `after` and compares them with their checksums."""

    def refuse_swap(self, refuse: bool, name: str = "") -> None:
        """Lets an area (all areas) be full, whatever is in it, or ends that; what is in its slots stays."""

    def swap_settings(self) -> SwapSettingsView:
        """Returns the settings of swapping and reclaim that are in effect."""

    def update_swap_settings(self, changes: Mapping[str, int | str]) -> SwapSettingsView:
        """Changes settings by their names in `SwapSettingsView`, all or none; a watermark of 0 means the usual one."""
