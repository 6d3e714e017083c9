"""The interface of an MMU engine.

Vocabulary
    space      what one process, or one VM's RAM, may address; made of mappings
    mapping    a range of a space with rights and what lies behind it (Linux: VMA); it alone says what is valid
    object     content that several spaces map
    frame      4096 bytes of RAM; slot: 4096 bytes of the swap area
    group      who is charged for frames and slots, and how many it may have
    hold       a holder's ordered stream of grants and revocations for one space (ADR 0002)

Calls that may have to wait are *steps* (`lamina_kit.effects.Step`): generators that yield `WaitFor`, `Shootdown` and
`Answer` (`domain/effects.py`) and are driven by the shell. All others are done when they return. An engine has one
writer: calls and the resumptions of steps never overlap. Between a step's yield and its resumption others may run.

Capabilities: `hold` (VM RAM held by others), `swap` (a swap area), `fork` (copy-on-write), `explain` (records the
inputs of each eviction). An engine without one refuses the calls that need it with Unimplemented `CAPABILITY_MISSING`.

Errors are those that the contract documents for each RPC. Names are last name parts (`s-1`); groups are named by
theirs, empty meaning the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.hold import Hold, PageBits
from lamina_mmu.domain.outcome import FaultResult, ReclaimResult
from lamina_mmu.domain.ports import Ports, Settings
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.spaces.space import Kind
from lamina_mmu.domain.views import (
    FrameView,
    MappingView,
    MemoryView,
    ObjectView,
    SpaceView,
    Translation,
)
from lamina_mmu.engines.groups import GroupEngine
from lamina_mmu.engines.ranges import RangeEngine
from lamina_mmu.engines.stores import StoreEngine

Key = Handle | str
"""A handle, or the last part of a name."""


class MmuEngine(RangeEngine, StoreEngine, GroupEngine, Protocol):
    """What the service calls; ranges of spaces are in `RangeEngine`, frames and swap in `StoreEngine`, groups apart."""

    name: ClassVar[str]
    capabilities: ClassVar[tuple[str, ...]]
    on_kernel: ClassVar[bool]
    """Whether it works on the kernel's memory: in real time, without the hardware layer and its RAM."""

    def __init__(self, ports: Ports, settings: Settings) -> None:
        """Starts with all RAM of `ports.ram` free but frame 0."""

    @classmethod
    def missing(cls) -> list[str]:
        """Returns why this engine cannot run here; empty when it can."""

    def close(self) -> None:
        """Lets go of RAM. No call follows."""

    # ── spaces ───────────────────────────────────────────────────────────────────────────────────────────────────

    def create_space(self, kind: Kind, group: str, label: str, session: Session, request: str) -> Step[SpaceView]:
        """Makes an empty space. Idempotent by a non-empty `request`, here and below."""

    def attach_process(self, pid: int, group: str, label: str, session: Session, request: str) -> Step[SpaceView]:
        """Makes a running process of the kernel a space; an empty `group` leaves it in its own."""

    def fork_space(self, handle: Handle, label: str, group: str, session: Session, request: str) -> Step[SpaceView]:
        """Copies a process space copy-on-write; an empty `group` means that of the original."""

    def delete_space(self, handle: Handle) -> Step[None]:
        """Takes everything back from a space, and frees it."""

    def space(self, key: Key) -> SpaceView:
        """Returns one space."""

    def spaces(self, after: int, count: int) -> list[SpaceView]:
        """Returns up to `count` spaces with numbers above `after`, by number."""

    def map_range(self, handle: Handle, spec: MapSpec, request: str = "") -> Step[int]:
        """Maps a range, once for each `request` that is not empty; returns its first address."""

    def mappings(self, key: Key, after: int, count: int) -> list[MappingView]:
        """Returns up to `count` mappings that start at or above `after`, by address."""

    def fault(self, handle: Handle, address: int, access: int, told: bool = True) -> Step[FaultResult]:
        """Resolves a fault, with its steps unless they are not to be `told`."""

    def read_space(self, handle: Handle, address: int, size: int) -> Step[bytes]:
        """Returns bytes of a space."""

    def write_space(self, handle: Handle, address: int, data: bytes, force: bool) -> Step[None]:
        """Stores bytes in a space."""

    def translate(self, key: Key, address: int) -> Translation:
        """Explains an address. No side effects."""

    def reclaim(self, handle: Handle | None, group: str, pages: int) -> Step[ReclaimResult]:
        """Pushes pages of a space, or of a group, out of RAM."""

    def reclaim_ahead(self) -> Step[None]:
        """Brings free frames back above the high watermark; run when `effects.PRESSURE` is woken."""

    # ── holds ────────────────────────────────────────────────────────────────────────────────────────────────────

    def open_hold(self, handle: Handle, eptp: int, owner: str) -> Hold:
        """Opens a hold; what it says to the holder is in its outbox, `effects.outbox_key` is woken for each message."""

    def want(self, hold: Hold, sequence: int, address: int, access: int) -> Step[None]:
        """Answers a want in the outbox."""

    def want_extent(self, hold: Hold, sequence: int, address: int, access: int, size: int, pinned: bool) -> Step[None]:
        """Answers a want of an extent of `size` bytes (2 MiB or 1 GiB) in the outbox: with it, or with the page."""

    def acknowledge(self, hold: Hold, number: int, bits: Sequence[PageBits]) -> None:
        """Takes the answer to a revocation or an age."""

    def end_hold(self, hold: Hold, error: LaminaError | None) -> Step[None]:
        """Ends a hold; all its grants are void."""

    # ── objects, frames ──────────────────────────────────────────────────────────────────────────────────────────

    def create_object(self, size: int, group: str, label: str, session: Session, request: str) -> Step[ObjectView]:
        """Makes an object of `size` zeros."""

    def write_object(self, handle: Handle, offset: int, data: bytes) -> Step[int]:
        """Stores bytes in an object; returns how many."""

    def delete_object(self, handle: Handle) -> None:
        """Deletes an object; mapped pages stay until they are unmapped."""

    def object(self, key: Key) -> ObjectView:
        """Returns one object."""

    def objects(self, after: int, count: int) -> list[ObjectView]:
        """Returns up to `count` objects with numbers above `after`, by number."""

    def memory(self) -> MemoryView:
        """Returns the state of the host's memory."""

    def frame(self, frame: int) -> FrameView:
        """Returns what a frame is used for."""

    def allocate_frames(
        self, count: int, owner: str, group: str, session: Session, request: str
    ) -> Step[tuple[int, ...]]:
        """Returns zeroed frames that are never moved or reclaimed."""

    def free_frames(self, frames: Sequence[int], owner: str) -> None:
        """Frees allocated frames, all or none."""

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def owned(self, owner: str) -> int:
        """Returns how many things belong to an owner."""

    def expire(self, owner: str, epoch: int) -> Step[None]:
        """Frees what sessions of `owner` up to `epoch` made."""
