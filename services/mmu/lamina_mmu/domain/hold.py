"""A hold: one holder's ordered stream of grants and revocations for one space (ADR 0002). Pure.

    MMU  ── position 1 opened · 2 grant p · 3 revocation r of p · 4 age a · 5 grant q ──▶  holder
    MMU  ◀── want p · acknowledge r (A, D of p) · ages a ─────────────────────────────  holder

What the MMU says goes into the outbox in the very step that changes its own entries, so the order on the stream is the
order of the facts: a grant before a revocation of its page is void, one behind it holds. The MMU waits for an answer
for 1 s, then the holder is fenced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_kit.paging import PAGE_SIZE
from lamina_mmu.domain.outcome import Outcome

EXTENT_BYTES = (2 << 20, 1 << 30)
"""Bytes that an extent may have: what one entry of the second and the third level of EPT maps."""
BATCH = 4096
"""Most addresses of one revocation or request for accessed bits."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream is open."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A page for the holder's table; `sequence` is that of the want."""

    sequence: int
    address: int
    frame: int
    writable: bool
    executable: bool
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Refusal:
    """A want that cannot be met."""

    sequence: int
    address: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Revocation:
    """Pages that the holder must clear and acknowledge; with `write_only` only their right to write."""

    revocation: int
    addresses: tuple[int, ...]
    write_only: bool


@dataclass(frozen=True, slots=True)
class GrantExtent:
    """An extent for one entry of the holder's table: `size` bytes from `frame` on; `sequence` is that of the want."""

    sequence: int
    address: int
    frame: int
    size: int
    writable: bool
    executable: bool
    pinned: bool


@dataclass(frozen=True, slots=True)
class ExtentRevocation:
    """Extents, by their first addresses, that the holder must clear, or `split` into pages that it keeps."""

    revocation: int
    addresses: tuple[int, ...]
    split: bool


@dataclass(frozen=True, slots=True)
class Age:
    """Pages whose accessed bits are asked for, to be cleared with the answer."""

    sequence: int
    addresses: tuple[int, ...]


Message: TypeAlias = Opened | Grant | Refusal | Revocation | Age | GrantExtent | ExtentRevocation


class HeldExtent(NamedTuple):
    """An extent that a holder has by one entry: `pages` pages from `address` and `frame` on."""

    address: int
    frame: int
    pages: int
    pinned: bool

    @property
    def size(self) -> int:
        """Returns its bytes."""
        return self.pages * PAGE_SIZE


class PageBits(NamedTuple):
    """What a holder's table said about one page."""

    address: int
    accessed: bool
    dirty: bool


@dataclass(slots=True)
class Question:
    """Pages that a holder was asked about, address → frame, and, once it is `done`, which of them were accessed.

    An extent is asked about by its first address; `sizes` has how many pages it is.
    """

    pages: dict[int, int]
    sizes: dict[int, int] = field(default_factory=dict)
    accessed: set[int] = field(default_factory=set)
    done: bool = False

    def frames(self, address: int) -> range:
        """Returns the frames of a page or an extent that was asked about."""
        first = self.pages[address]
        return range(first, first + self.sizes.get(address, 1))


@dataclass(slots=True)
class Hold:
    """One holder's stream for the space in slot `space` of generation `generation`.

    `eptp` is the root of the holder's second stage, 0 when it was not given. `asked` has each question
    (revocations and ages alike) without an answer, by number. `extents` are those that the holder has, by address.
    `ended`: why the stream ends; a closing hold gives no grants.
    """

    space: int
    generation: int
    eptp: int
    owner: str
    id: int = 0
    closing: bool = False
    ended: LaminaError | None = None
    outbox: deque[tuple[int, Message]] = field(default_factory=deque)
    asked: dict[int, Question] = field(default_factory=dict)
    extents: dict[int, HeldExtent] = field(default_factory=dict)
    wants: int = 0
    _position: int = 0
    _question: int = 0

    def post(self, message: Message) -> int:
        """Appends a message to the outbox; returns its position on the stream, from 1 without gaps."""
        self._position += 1
        self.outbox.append((self._position, message))
        return self._position

    def ask(self, pages: Iterable[tuple[int, int]], sizes: Mapping[int, int] | None = None) -> int:
        """Registers a question about (address, frame) pairs, some of them extents; returns its number."""
        self._question += 1
        found = dict(pages)
        mine = {address: sizes[address] for address in found if address in sizes} if sizes else {}
        self.asked[self._question] = Question(found, mine)
        return self._question

    def extent_of(self, address: int) -> HeldExtent | None:
        """Returns the extent that an address lies in; None when its page is not held as part of one."""
        if self.extents:
            for size in EXTENT_BYTES:
                found = self.extents.get(address & -size)
                if found is not None and found.size == size:
                    return found
        return None

    def answered(self, number: int) -> Question:
        """Takes back and returns a question; QUESTION_UNKNOWN when it was not asked or is answered."""
        question = self.asked.pop(number, None)
        if question is None:
            raise FailedPrecondition(
                f"Hold {self.id} has no open revocation or age {number}.",
                reason="QUESTION_UNKNOWN",
                next_step="Answer each revocation and each age once, with its own number.",
            )
        question.done = True
        return question
