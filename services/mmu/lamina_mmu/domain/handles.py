"""Slots and generations: what stands behind a handle. Pure.

A slot is reused, a generation is not, so a handle to something that is gone never reaches its successor. The names
that people use (`s-7`) count up and are never reused either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from lamina_kit.errors import FailedPrecondition, NotFound

E = TypeVar("E", bound="Entry")


class Handle(NamedTuple):
    """Identifies one object for as long as it lives: slot `id` from 1, `generation` from 1."""

    id: int
    generation: int


class Entry(Protocol):
    """What a `HandleTable` keeps."""

    id: int
    generation: int
    number: int
    closing: bool


class HandleTable(Generic[E]):
    """Objects of one kind. `noun` and `prefix` name them (`space`, `s` → `s-1`); `unknown`: the reason of NOT_FOUND."""

    def __init__(self, noun: str, prefix: str, unknown: str) -> None:
        self._noun, self._prefix, self._unknown = noun, prefix, unknown
        self._slots: dict[int, E] = {}
        self._numbers: dict[int, int] = {}
        self._generations: dict[int, int] = {}
        self._free: list[int] = []
        self._next = 1

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[E]:
        """Yields what is not closing, in the order of creation."""
        return iter([entry for number in self._numbers if not (entry := self._slots[self._numbers[number]]).closing])

    def everything(self) -> list[E]:
        """Returns all that has a slot, closing or not, in the order of creation."""
        return [self._slots[slot] for slot in self._numbers.values()]

    def find(self, slot: int) -> E | None:
        """Returns what is in a slot, closing or not; None for a free one."""
        return self._slots.get(slot)

    def add(self, entry: E) -> E:
        """Gives `entry` a slot, a generation and a number."""
        entry.id = self._free.pop() if self._free else len(self._generations) + 1
        entry.generation = self._generations.get(entry.id, 0) + 1
        self._generations[entry.id] = entry.generation
        entry.number = self._next
        self._next += 1
        self._slots[entry.id] = entry
        self._numbers[entry.number] = entry.id
        return entry

    def remove(self, entry: E) -> None:
        """Frees the slot."""
        del self._slots[entry.id]
        del self._numbers[entry.number]
        self._free.append(entry.id)

    def slot(self, slot: int) -> E:
        """Returns what is in a slot, closing or not; the slot is in use."""
        return self._slots[slot]

    def get(self, handle: Handle) -> E:
        """Returns the object of a handle; HANDLE_STALE when it is gone or going."""
        entry = self._slots.get(handle.id)
        if entry is None or entry.generation != handle.generation or entry.closing:
            raise FailedPrecondition(
                f"The handle {handle.id}/{handle.generation} is of no living {self._noun}.",
                reason="HANDLE_STALE",
                next_step=f"Look the {self._noun} up again by its name, or create a new one.",
            )
        return entry

    def named(self, name: str) -> E:
        """Returns the object with the last name part `name` (`s-1`)."""
        prefix, _, digits = name.partition("-")
        number = int(digits) if prefix == self._prefix and digits.isdecimal() and len(digits) < 19 else 0
        entry = self._slots.get(self._numbers.get(number, 0))
        if entry is None or entry.closing:
            raise NotFound(f"There is no {self._noun} {name}.", reason=self._unknown, next_step="List what there is.")
        return entry

    def after(self, number: int, count: int) -> list[E]:
        """Returns up to `count` objects behind creation number `number`, in the order of creation."""
        return [entry for entry in self if entry.number > number][:count]
