"""A supplier's stream: who has the bytes behind objects, what it is asked for, what it still owes. Pure.

    MMU  ── position 1 opened · 2 demand 1 (object, offset, pages, frames) · 3 keep 2 (…) ──▶  supplier
    MMU  ◀── filled 1 · kept 2 · invalidated ──────────────────────────────────────────────  supplier

A page that is demanded has a frame in transit: whoever needs it waits for that frame, and nothing else does. An answer
is due within 30 s.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_mmu.domain.handles import Handle

MOST_PAGES = 256
"""Most pages of one demand, or of one request to keep (1 MiB)."""
USUAL_READAHEAD = 32


class NoContent(Exception):
    """There is a mapping and no content: SIGBUS. `reason` is UPPER_SNAKE."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Refused:
    """What those are told who waited for a page that did not come."""

    reason: str


SUPPLIED = "supplied"
"""What those are told who waited for a page that came."""


@dataclass(frozen=True, slots=True)
class Opened:
    """So many objects are supplied by the stream now."""

    objects: int


@dataclass(frozen=True, slots=True)
class Demand:
    """Asks for content: `frames`, one a page, are filled by a supplier that maps memory."""

    sequence: int
    object: Handle
    first: int
    pages: int
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """Asks that content be kept: it lies in `frames`, or in `data` for a supplier that does not map memory."""

    sequence: int
    object: Handle
    first: int
    pages: int
    frames: tuple[int, ...]
    data: bytes


Message: TypeAlias = Opened | Demand | Keep


@dataclass(slots=True)
class Question:
    """What a supplier was asked. `stale`: the content changed since. `kept` is how a keep was answered, "" for well."""

    message: Demand | Keep
    frames: tuple[int, ...]
    stale: bool = False
    kept: str | None = None


@dataclass(slots=True)
class Supply:
    """One supplier's stream. `ended`: why it ends; `asked` has what is unanswered, by sequence."""

    owner: str
    id: int = 0
    maps_memory: bool = False
    closing: bool = False
    ended: LaminaError | None = None
    objects: dict[int, Handle] = field(default_factory=dict)
    outbox: deque[tuple[int, Message]] = field(default_factory=deque)
    asked: dict[int, Question] = field(default_factory=dict)
    _position: int = 0
    _sequence: int = 0

    def next_sequence(self) -> int:
        """Returns the number of the next question."""
        self._sequence += 1
        return self._sequence

    def post(self, message: Message) -> None:
        """Appends a message to the outbox, at the next position of the stream."""
        self._position += 1
        self.outbox.append((self._position, message))

    def answered(self, sequence: int, kind: type[Demand] | type[Keep]) -> Question:
        """Takes back and returns a question; QUESTION_UNKNOWN when it was not asked or is answered."""
        question = self.asked.get(sequence)
        if question is None or not isinstance(question.message, kind):
            raise FailedPrecondition(
                f"Supply {self.id} has no open {kind.__name__.lower()} {sequence}.",
                reason="QUESTION_UNKNOWN",
                next_step="Answer each demand and each keep once, with its own sequence.",
            )
        return self.asked.pop(sequence)
