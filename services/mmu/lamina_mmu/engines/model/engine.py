"""The model engine: all of memory management, in Python, over page tables in RAM. Pure.

This file only routes; the work is in the packages beside it. From the bottom up: `machine` (state and single changes),
`withdrawal`, `swap`, `reclaim`, then `objects`, `groups` and `frames`, `faults`, `ranges`, `spaces`, and `calls`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError, Unimplemented
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.hold import Hold, PageBits
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.outcome import FaultResult, ReclaimResult, Trail
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
from lamina_mmu.engines.interface import Key
from lamina_mmu.engines.model.calls import ownership
from lamina_mmu.engines.model.calls.groups import GroupCalls
from lamina_mmu.engines.model.calls.ranges import RangeCalls
from lamina_mmu.engines.model.calls.stores import Stores
from lamina_mmu.engines.model.faults import access
from lamina_mmu.engines.model.faults.fault import fault
from lamina_mmu.engines.model.frames import allocation
from lamina_mmu.engines.model.groups import limits
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.objects import objects
from lamina_mmu.engines.model.ranges import mapping
from lamina_mmu.engines.model.spaces import fork, grants, lifecycle
from lamina_mmu.engines.model.views import resources
from lamina_mmu.engines.model.views import translation as translating
from lamina_mmu.engines.model.withdrawal import holders


class ModelEngine(RangeCalls, Stores, GroupCalls):
    """Implements `engines.interface.MmuEngine`."""

    name: ClassVar[str] = "model"
    capabilities: ClassVar[tuple[str, ...]] = ("explain", "fork", "hold", "swap")
    on_kernel: ClassVar[bool] = False

    def __init__(self, ports: Ports, settings: Settings) -> None:
        super().__init__(Machine(ports, settings))
        self._now_ns = ports.now_ns

    @classmethod
    def missing(cls) -> list[str]:
        """Returns nothing: it runs wherever Python does."""
        return []

    def close(self) -> None:
        """Lets go of the views into RAM."""
        for space in self.machine.spaces:
            space.table.close()

    # ── spaces ───────────────────────────────────────────────────────────────────────────────────────────────────

    def create_space(self, kind: Kind, group: str, label: str, session: Session, request: str) -> Step[SpaceView]:
        """Makes an empty space."""
        m, payer = self.machine, self.machine.groups.named(group)

        def make() -> Step[Handle]:
            return (yield from lifecycle.create_space(m, kind, payer, label, session)).handle

        handle = yield from ownership.once(m, request, ("space", kind, group, label), make)
        return self.space(handle)

    def attach_process(self, pid: int, group: str, label: str, session: Session, request: str) -> Step[SpaceView]:
        """Refuses: this engine has no processes."""
        yield from ()
        raise Unimplemented(
            f"The engine model cannot make process {pid} a space: its spaces are its own.",
            reason="PROCESS_NOT_SUPPORTED",
            next_step="Use the engine linux, whose spaces are processes of the kernel.",
            capability="process",
        )

    def fork_space(self, handle: Handle, label: str, group: str, session: Session, request: str) -> Step[SpaceView]:
        """Copies a process space copy-on-write."""
        m, payer = self.machine, self.machine.groups.named(group) if group else None

        def make() -> Step[Handle]:
            return (yield from fork.fork_space(m, handle, label, payer, session)).handle

        child = yield from ownership.once(m, request, ("fork", handle, group, label), make)
        return self.space(child)

    def delete_space(self, handle: Handle) -> Step[None]:
        """Takes everything back from a space, and frees it."""
        yield from lifecycle.delete_space(self.machine, self.machine.spaces.get(handle))

    def space(self, key: Key) -> SpaceView:
        """Returns one space."""
        return resources.show_space(self.machine, self._space(key))

    def spaces(self, after: int, count: int) -> list[SpaceView]:
        """Returns spaces by number."""
        return [resources.show_space(self.machine, space) for space in self.machine.spaces.after(after, count)]

    def map_range(self, handle: Handle, spec: MapSpec, request: str = "") -> Step[int]:
        """Maps a range."""
        m = self.machine

        def make() -> Step[int]:
            return (yield from mapping.map_range(m, handle, spec))

        return (yield from ownership.once(m, request, ("map", handle, spec), make))

    def mappings(self, key: Key, after: int, count: int) -> list[MappingView]:
        """Returns mappings by address."""
        space = self._space(key)
        chosen = [vma for vma in space.vmas if vma.start >= after][:count]
        return [translating.mapping_view(self.machine, space, vma) for vma in chosen]

    def fault(self, handle: Handle, address: int, access: int, told: bool = True) -> Step[FaultResult]:
        """Resolves a fault."""
        return fault(self.machine, handle, address, access, Trail(self._now_ns) if told else None)

    def read_space(self, handle: Handle, address: int, size: int) -> Step[bytes]:
        """Returns bytes of a space."""
        return (yield from access.read_space(self.machine, handle, address, size))

    def write_space(self, handle: Handle, address: int, data: bytes, force: bool) -> Step[None]:
        """Stores bytes in a space."""
        yield from access.write_space(self.machine, handle, address, data, force)

    def translate(self, key: Key, address: int) -> Translation:
        """Explains an address."""
        return translating.translate(self.machine, self._space(key), address)

    def reclaim(self, handle: Handle | None, group: str, pages: int) -> Step[ReclaimResult]:
        """Pushes pages out of RAM."""
        m = self.machine
        space = m.spaces.get(handle) if handle is not None else None
        return (yield from limits.reclaim_on_demand(m, space, m.groups.named(group), pages))

    def reclaim_ahead(self) -> Step[None]:
        """Brings free frames back above the high watermark."""
        yield from limits.reclaim_ahead(self.machine)

    # ── holds ────────────────────────────────────────────────────────────────────────────────────────────────────

    def open_hold(self, handle: Handle, eptp: int, owner: str) -> Hold:
        """Opens a hold."""
        return grants.open_hold(self.machine, handle, eptp, owner)

    def want(self, hold: Hold, sequence: int, address: int, access: int) -> Step[None]:
        """Answers a want in the outbox."""
        yield from grants.want(self.machine, hold, sequence, address, access)

    def want_extent(self, hold: Hold, sequence: int, address: int, access: int, size: int, pinned: bool) -> Step[None]:
        """Answers a want of an extent in the outbox."""
        yield from grants.want_extent(self.machine, hold, sequence, address, access, size, pinned)

    def acknowledge(self, hold: Hold, number: int, bits: Sequence[PageBits]) -> None:
        """Takes the answer to a revocation or an age."""
        holders.acknowledge(self.machine, hold, number, bits)

    def end_hold(self, hold: Hold, error: LaminaError | None) -> Step[None]:
        """Ends a hold."""
        yield from holders.end_hold(self.machine, hold, error)

    # ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────

    def create_object(self, size: int, group: str, label: str, session: Session, request: str) -> Step[ObjectView]:
        """Makes an object of zeros."""
        m, payer = self.machine, self.machine.groups.named(group)

        def make() -> Step[Handle]:
            yield from ()
            return objects.create_object(m, size, payer, label, session).handle

        handle = yield from ownership.once(m, request, ("object", size, group, label), make)
        return self.object(handle)

    def write_object(self, handle: Handle, offset: int, data: bytes) -> Step[int]:
        """Stores bytes in an object."""
        return (yield from objects.write_object(self.machine, handle, offset, data))

    def delete_object(self, handle: Handle) -> None:
        """Deletes an object."""
        objects.delete_object(self.machine, self.machine.objects.get(handle))

    def object(self, key: Key) -> ObjectView:
        """Returns one object."""
        return resources.show_object(self.machine, self._object(key))

    def objects(self, after: int, count: int) -> list[ObjectView]:
        """Returns objects by number."""
        return [resources.show_object(self.machine, entity) for entity in self.machine.objects.after(after, count)]

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def memory(self) -> MemoryView:
        """Returns the state of the host's memory."""
        return resources.show_memory(self.machine)

    def frame(self, frame: int) -> FrameView:
        """Returns what a frame is used for."""
        return resources.show_frame(self.machine, frame)

    def allocate_frames(
        self, count: int, owner: str, group: str, session: Session, request: str
    ) -> Step[tuple[int, ...]]:
        """Returns zeroed frames that are never moved or reclaimed."""
        m, payer = self.machine, self.machine.groups.named(group)

        def make() -> Step[tuple[int, ...]]:
            return (yield from allocation.allocate_frames(m, count, owner, payer, session))

        return (yield from ownership.once(m, request, ("frames", count, owner, group), make))

    def free_frames(self, frames: Sequence[int], owner: str) -> None:
        """Frees allocated frames."""
        allocation.free_frames(self.machine, frames, owner)

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def owned(self, owner: str) -> int:
        """Returns how many things belong to an owner."""
        return ownership.owned(self.machine, owner)

    def expire(self, owner: str, epoch: int) -> Step[None]:
        """Frees what sessions of an owner made."""
        yield from ownership.expire(self.machine, owner, epoch)

    def _object(self, key: Key) -> MemoryObject:
        objects = self.machine.objects
        return objects.named(key) if isinstance(key, str) else objects.get(key)
