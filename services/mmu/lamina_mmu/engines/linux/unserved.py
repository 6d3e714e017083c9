"""Calls that are still to be served."""

from __future__ import annotations

from lamina_kit.effects import Step
from lamina_mmu.domain.advice import Advice
from lamina_mmu.domain.fault_feed import FaultWatch
from lamina_mmu.domain.frames import Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.map_spec import MapSpec
from lamina_mmu.domain.move import Move
from lamina_mmu.domain.outcome import FaultResult, ReclaimResult
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.space import Kind
from lamina_mmu.domain.views import (
    FragmentationView,
    FrameView,
    MappingView,
    MemoryView,
    ObjectView,
    SettingsChange,
    SettingsView,
    SpaceStatistics,
    SpaceView,
    Translation,
)
from lamina_mmu.engines.interface import Key
from lamina_mmu.engines.linux.refusing import refuse


class Unserved:
    """All of it."""

    def create_space(self, kind: Kind, group: str, label: str, session: Session, request: str) -> Step[SpaceView]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def attach_process(self, pid: int, group: str, label: str, session: Session, request: str) -> Step[SpaceView]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def fork_space(self, handle: Handle, label: str, group: str, session: Session, request: str) -> Step[SpaceView]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def delete_space(self, handle: Handle) -> Step[None]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def space(self, key: Key) -> SpaceView:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def spaces(self, after: int, count: int) -> list[SpaceView]:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def map_range(self, handle: Handle, spec: MapSpec, request: str = "") -> Step[int]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def mappings(self, key: Key, after: int, count: int) -> list[MappingView]:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def fault(self, handle: Handle, address: int, access: int) -> Step[FaultResult]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def read_space(self, handle: Handle, address: int, size: int) -> Step[bytes]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def write_space(self, handle: Handle, address: int, data: bytes, force: bool) -> Step[None]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def translate(self, key: Key, address: int) -> Translation:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def reclaim(self, handle: Handle | None, group: str, pages: int) -> Step[ReclaimResult]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def reclaim_ahead(self) -> Step[None]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def create_object(self, size: int, group: str, label: str, session: Session, request: str) -> Step[ObjectView]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def write_object(self, handle: Handle, offset: int, data: bytes) -> Step[int]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def delete_object(self, handle: Handle) -> None:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def object(self, key: Key) -> ObjectView:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def objects(self, after: int, count: int) -> list[ObjectView]:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def memory(self) -> MemoryView:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def frame(self, frame: int) -> FrameView:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def owned(self, owner: str) -> int:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def expire(self, owner: str, epoch: int) -> Step[None]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def unmap_range(self, handle: Handle, start: int, end: int, request: str = "") -> Step[int]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def protect_range(self, handle: Handle, start: int, end: int, rights: int, request: str = "") -> Step[None]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def advise_range(self, handle: Handle, start: int, end: int, given: Advice) -> Step[int]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def split_huge_pages(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def lock_range(self, handle: Handle, start: int, end: int, on_fault: bool) -> Step[int]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def unlock_range(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def set_break(self, handle: Handle, start: int, end: int) -> Step[tuple[int, int]]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def remap_range(self, handle: Handle, move: Move, request: str) -> Step[int]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def sync_range(self, handle: Handle, start: int, end: int) -> Step[int]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def read_residency(self, key: Handle | str, start: int, end: int, clear: bool) -> Step[tuple[int, bytes]]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def space_statistics(self, key: Handle | str) -> SpaceStatistics:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def space_settings(self, key: Handle | str) -> SettingsView:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def update_space_settings(self, handle: Handle, change: SettingsChange) -> SettingsView:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def watch_faults(self, name: str, sample: int) -> FaultWatch:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def end_watch(self, watch: FaultWatch) -> None:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def frames(self, use: Use | None, group: str | None, after: int, count: int) -> list[FrameView]:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def fragmentation(self) -> FragmentationView:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def compact_frames(self, huge_blocks: int) -> Step[tuple[int, int]]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def content_end(self, handle: Handle, offset: int, size: int) -> int:
        """Refuses."""
        raise refuse("space", "serve this yet")

    def read_object(self, handle: Handle, offset: int, size: int) -> Step[list[tuple[int, bytes]]]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def resize_object(self, handle: Handle, size: int) -> Step[ObjectView]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")

    def sync_object(self, handle: Handle, offset: int, size: int, drop: bool) -> Step[tuple[int, int]]:
        """Refuses."""
        yield from ()
        raise refuse("space", "serve this yet")
