"""Execution contexts and the table that hands out their handles. Pure.

A context lives in a slot; slots are reused, generations are not, so a handle to a context that is gone is refused even
when its slot serves another. Slot n owns run page n - 1 of the memory bus.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from lamina_hardware.domain.apic.pending import Pending
from lamina_hardware.domain.contexts.counts import Counts
from lamina_hardware.domain.contexts.exit_controls import ALL_EXCEPTIONS, ExitControls
from lamina_kit.errors import FailedPrecondition, ResourceExhausted

__all__ = ["ALL_EXCEPTIONS", "Context", "ContextState", "ContextTable", "Given", "Handle"]


@dataclass(frozen=True, slots=True)
class Handle:
    """Slot, from 1, and which of the contexts that had it, from 1."""

    id: int
    generation: int


class Named(Protocol):
    """What has the two numbers of a handle, as messages have them."""

    @property
    def id(self) -> int:
        """Slot, from 1."""

    @property
    def generation(self) -> int:
        """Which of the contexts that had the slot."""


class ContextState(enum.Enum):
    """IDLE: nobody asked it to run. READY: it waits for a core. RUNNING: a core has it. HALTED: it sleeps."""

    IDLE = "idle"
    READY = "ready"
    RUNNING = "running"
    HALTED = "halted"


class Observer(Protocol):
    """What sees each access of a context. `address` is where a core finds it; `slice_instructions` bounds a slice."""

    address: int
    slice_instructions: int

    def begin(self, instructions: int) -> None:
        """Prepares for a slice; `instructions` is what the context had retired before the run."""
        ...

    def settle(self) -> None:
        """Takes what the slice did."""
        ...


class Given(Protocol):
    """Exit controls that a context was given, with what changes of them. For cores that read no compiled table."""

    controls: ExitControls
    watched: bool

    @property
    def shadows(self) -> tuple[tuple[int, int], ...]:
        """The shadow registers with the values that they have now."""
        ...

    def set_shadow(self, number: int, value: int) -> bool:
        """Gives a shadow register a value; returns whether there is one of that number."""
        ...


@dataclass(slots=True, eq=False)
class Context:
    """One hardware thread's state, but for its registers, which are in its run page.

    `key` identifies it for the life of the host and never comes again. `domain` is the coherence domain's key.
    `controls` are those that it was given, None while it has what its creation implies; `control_table` is where cores
    find them, `given` the same as an object. `owner` is the session that made it, empty for none. `kicked` makes its
    next run end at once. `hlt`: HLT exits. `exited` is why and when its last run ended, until the next begins. `work`
    is the engine's own, made of the rest: None after a change of what is in it.
    """

    handle: Handle
    key: int
    group: str
    domain: str
    eptp: int
    exceptions: int
    cpuid: bool
    syscall: bool
    label: str
    owner: str
    state: ContextState = ContextState.IDLE
    kicked: bool = False
    hlt: bool = True
    pending: Pending = field(default_factory=Pending)
    last_core: int = -1
    exited: tuple[int, int] | None = None
    observer: Observer | None = None
    counts: Counts = field(default_factory=Counts)
    controls: ExitControls | None = None
    control_table: int = 0
    given: Given | None = None
    work: Any = None

    @property
    def run_page(self) -> int:
        """Index of the run page on the memory bus."""
        return self.handle.id - 1


class ContextTable:
    """All contexts of a host, by handle."""

    def __init__(self, capacity: int) -> None:
        self._slots: list[Context | None] = []
        self._generations: list[int] = []
        self._free: list[int] = []
        self._capacity = capacity
        self._next_key = 1

    def __len__(self) -> int:
        return len(self._slots) - len(self._free)

    def create(self, make: Callable[[Handle, int], Context]) -> Context:
        """Puts a context into the lowest free slot; `make` gets its handle and key.

        Raises `ResourceExhausted` `RUN_PAGES_EXHAUSTED` when every run page of the bus is in use.
        """
        if self._free:
            slot = min(self._free)
            self._free.remove(slot)
        elif len(self._slots) < self._capacity:
            self._slots.append(None)
            self._generations.append(0)
            slot = len(self._slots)
        else:
            raise ResourceExhausted(
                f"All {self._capacity} run pages of this host are in use.",
                reason="RUN_PAGES_EXHAUSTED",
                next_step="Delete contexts that are no longer needed, or start the host with more run pages.",
            )
        self._generations[slot - 1] += 1
        context = make(Handle(slot, self._generations[slot - 1]), self._next_key)
        self._next_key += 1
        self._slots[slot - 1] = context
        return context

    def get(self, handle: Named) -> Context:
        """Returns the context of a handle. Raises `FailedPrecondition` `HANDLE_STALE`."""
        if 0 < handle.id <= len(self._slots):
            context = self._slots[handle.id - 1]
            if context is not None and context.handle.generation == handle.generation:
                return context
        raise FailedPrecondition(
            f"No context has the handle {handle.id}.{handle.generation}.",
            reason="HANDLE_STALE",
            next_step="It was deleted, or the host rebooted; make a new context.",
            handle=f"{handle.id}.{handle.generation}",
        )

    def remove(self, context: Context) -> None:
        """Frees the slot of a context."""
        self._slots[context.handle.id - 1] = None
        self._free.append(context.handle.id)

    def entries(self) -> list[Context]:
        """Returns all contexts in the order of their slots."""
        return [context for context in self._slots if context is not None]
