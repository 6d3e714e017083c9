"""What the kernel offers to no process: how the `linux` engine refuses it.

Each refusal names the capability, so that a program can ask `Layer.GetInfo` beforehand:

    capability       calls
    hold             `Hold`, spaces of kind GUEST_RAM: frames of the kernel are nobody else's to map
    supply           `Objects.Supply`: contents of objects are memory files, which nobody is asked for
    frames           `AllocateFrames`, `AllocateExtents`, `OfflineFrames`: frames are the kernel's own
    pin              `PinRange`: the kernel pins for its drivers alone
    policy           replacement policies by name, plugged ones, and reasons of single evictions
    group            memory groups where the kernel lets nobody make cgroups; settings that their version has not
    pressure         pressure of groups, without version 2 of cgroups
    swap             swap areas, without the right to take some into use; settings that the kernel chooses itself
    slots            single slots of swap areas: what is in them, whether it is intact
    fault-around, stack-guard     settings of the whole kernel, not of one space
    mapping          changes of the mappings of a process that is not this service's own
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError, Unimplemented
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.hold import Hold, PageBits
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.supply import Supply
from lamina_mmu.domain.views import PinView


def refuse(capability: str, what: str, next_step: str = "") -> Unimplemented:
    """Returns the refusal of something that this engine has no capability for."""
    return Unimplemented(
        f"The engine linux cannot {what}.",
        reason="CAPABILITY_MISSING",
        next_step=next_step or "Use the engine model for it.",
        capability=capability,
    )


class Refused:
    """Calls that no part of the engine can serve."""

    # ── holds ────────────────────────────────────────────────────────────────────────────────────────────────────

    def open_hold(self, handle: Handle, eptp: int, owner: str) -> Hold:
        """Refuses."""
        raise refuse("hold", "lend frames to holders")

    def want(self, hold: Hold, sequence: int, address: int, access: int) -> Step[None]:
        """Refuses."""
        yield from ()
        raise refuse("hold", "lend frames to holders")

    def want_extent(self, hold: Hold, sequence: int, address: int, access: int, size: int, pinned: bool) -> Step[None]:
        """Refuses."""
        yield from ()
        raise refuse("hold", "lend frames to holders")

    def acknowledge(self, hold: Hold, number: int, bits: Sequence[PageBits]) -> None:
        """Refuses."""
        raise refuse("hold", "lend frames to holders")

    def end_hold(self, hold: Hold, error: LaminaError | None) -> Step[None]:
        """Refuses."""
        yield from ()
        raise refuse("hold", "lend frames to holders")

    # ── suppliers ────────────────────────────────────────────────────────────────────────────────────────────────

    def open_supply(self, owner: str) -> Supply:
        """Refuses."""
        _no_supply()

    def supply_objects(
        self, supply: Supply, objects: Sequence[Handle], maps_memory: bool, keeps_writes: bool, readahead: int
    ) -> None:
        """Refuses."""
        _no_supply()

    def filled(self, supply: Supply, sequence: int, data: bytes, pages: int, failure: str) -> None:
        """Refuses."""
        _no_supply()

    def kept(self, supply: Supply, sequence: int, failure: str) -> None:
        """Refuses."""
        _no_supply()

    def invalidate(self, supply: Supply, handle: Handle, offset: int, size: int) -> Step[None]:
        """Refuses."""
        yield from ()
        _no_supply()

    def watch_supply(self, supply: Supply, sequence: int) -> Step[None]:
        """Refuses."""
        yield from ()
        _no_supply()

    def end_supply(self, supply: Supply, error: LaminaError | None) -> None:
        """Refuses."""
        _no_supply()

    # ── frames, pins ─────────────────────────────────────────────────────────────────────────────────────────────

    def allocate_frames(
        self, count: int, owner: str, group: str, session: Session, request: str
    ) -> Step[tuple[int, ...]]:
        """Refuses."""
        yield from ()
        _no_frames()

    def free_frames(self, frames: Sequence[int], owner: str) -> None:
        """Refuses."""
        _no_frames()

    def allocate_extents(
        self, count: int, order: int, owner: str, group: str, session: Session, request: str
    ) -> Step[tuple[int, ...]]:
        """Refuses."""
        yield from ()
        _no_frames()

    def free_extents(self, firsts: Sequence[int], owner: str) -> None:
        """Refuses."""
        _no_frames()

    def offline_frames(self, frames: Sequence[int], lost: bool) -> Step[list[int]]:
        """Refuses."""
        yield from ()
        raise refuse("frames", "take frames of the machine out of use", "Offline a memory block under /sys instead.")

    def zero_ahead(self) -> Step[None]:
        """Does nothing: the kernel zeroes frames as they are taken."""
        yield from ()

    def pin_range(
        self, handle: Handle, address: int, size: int, write: bool, session: Session, request: str
    ) -> Step[PinView]:
        """Refuses."""
        yield from ()
        _no_pin()

    def unpin_ranges(self, pins: Sequence[Handle], written: bool) -> None:
        """Refuses."""
        _no_pin()


def _no_supply() -> NoReturn:
    raise refuse("supply", "have contents of objects supplied by others")


def _no_frames() -> NoReturn:
    raise refuse("frames", "give out frames of the machine")


def _no_pin() -> NoReturn:
    raise refuse("pin", "pin pages in their frames", "Lock the range: it stays in RAM, though it may be moved.")
