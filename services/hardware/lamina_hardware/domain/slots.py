"""Objects by handle: slots are reused, generations are not. Pure."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

from lamina_hardware.domain.contexts.context import Handle
from lamina_kit.errors import FailedPrecondition

T = TypeVar("T")


class Slots(Generic[T]):
    """A table of objects of one kind; `noun` names it in errors (`DMA domain`)."""

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._slots: list[T | None] = []
        self._generations: list[int] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._slots) - len(self._free)

    def claim(self) -> Handle:
        """Returns the handle of the lowest free slot, for an object that `put` gives it."""
        if self._free:
            slot = heapq.heappop(self._free)
        else:
            self._slots.append(None)
            self._generations.append(0)
            slot = len(self._slots)
        self._generations[slot - 1] += 1
        return Handle(slot, self._generations[slot - 1])

    def put(self, handle: Handle, found: T) -> None:
        """Fills a slot that was claimed."""
        self._slots[handle.id - 1] = found

    def get(self, handle: Handle) -> T:
        """Returns the object of a handle. Raises `FailedPrecondition` `HANDLE_STALE`."""
        if 0 < handle.id <= len(self._slots) and self._generations[handle.id - 1] == handle.generation:
            found = self._slots[handle.id - 1]
            if found is not None:
                return found
        raise FailedPrecondition(
            f"No {self._noun} has the handle {handle.id}.{handle.generation}.",
            reason="HANDLE_STALE",
            next_step="It was removed, or the host rebooted; make a new one.",
            handle=f"{handle.id}.{handle.generation}",
        )

    def remove(self, handle: Handle) -> None:
        """Frees a slot."""
        self._slots[handle.id - 1] = None
        heapq.heappush(self._free, handle.id)

    def entries(self) -> list[T]:
        """Returns all objects in the order of their slots."""
        return [found for found in self._slots if found is not None]
