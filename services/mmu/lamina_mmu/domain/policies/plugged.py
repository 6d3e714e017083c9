"""A policy that runs in another program: news to it, questions, answers. Pure.

    MMU ── news (brought in, accessed, left …), question(count) ──▶ program
        ◀─────────────── victims with reasons ─────────────────────

What is to be said lies in an outbox, in order; the shell sends it. The MMU keeps the order in which the pages came in:
for pages that the program did not name although one must go, and for the time after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from lamina_kit.errors import LaminaError
from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Policy

ANSWER_NS = 100_000_000
"""How long an answer may take (100 ms)."""
MOST_NEWS = 65_536
"""Most news of one message."""
MOST_BEHIND = 1 << 20
"""Most news that wait to be sent: a program that does not read them is silent."""
BROUGHT_IN, ACCESSED, LEFT, DELETED, WRITTEN = range(1, 6)
"""Kinds of news, as the contract's `PlugNews` numbers them."""


@dataclass(slots=True)
class News:
    """What happened to pages of one group, in order, from `time_ns` on. `limit` in frames, 0 for none."""

    group: int
    limit: int
    time_ns: int
    pages: list[int] = field(default_factory=list)
    kinds: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Question:
    """Asks for `count` pages of a group to go; `incoming` is the page that room is made for, 0 ahead of need."""

    sequence: int
    group: int
    count: int
    incoming: int


class Plug:
    """One plugged-in program, on a host with `frames` frames. `closed` says why it is plugged in no longer.

    `wake` is called when there is something to say again.
    """

    def __init__(self, id: int, frames: int, now_ns: Callable[[], int], wake: Callable[[], object]) -> None:
        self.id, self.frames, self._wake = id, frames, wake
        self.outbox: deque[News | Question] = deque()
        self.asked: dict[int, PluggedPolicy] = {}
        self.closed: LaminaError | None = None
        self.is_open = True
        self.behind = 0
        self._now_ns = now_ns
        self._sequence = 0

    def tell(self, policy: PluggedPolicy, page: int, kind: int) -> None:
        """Puts news into the outbox."""
        last = self.outbox[-1] if self.outbox else None
        fits = isinstance(last, News) and last.group == policy.group and len(last.pages) < MOST_NEWS
        if not isinstance(last, News) or not fits or last.limit != policy.limit:
            last = News(policy.group, policy.limit, self._now_ns())
            self.outbox.append(last)
            if len(self.outbox) == 1:
                self._wake()
        last.pages.append(page)
        last.kinds.append(kind)
        self.behind += 1

    def ask(self, policy: PluggedPolicy, count: int, incoming: int) -> int:
        """Puts a question into the outbox; returns its sequence."""
        self._sequence += 1
        self.asked[self._sequence] = policy
        self.outbox.append(Question(self._sequence, policy.group, count, incoming))
        return self._sequence

    def take(self) -> News | Question:
        """Takes the first of the outbox."""
        first = self.outbox.popleft()
        if isinstance(first, News):
            self.behind -= len(first.pages)
        return first


class PluggedPolicy(Policy):
    """The policy of one group as its program tells it. A subclass is made for each plug."""

    plug: ClassVar[Plug]
    remembers: ClassVar[bool] = True

    def begin(self) -> None:
        """Starts without an answer."""
        self.answers: deque[Choice] = deque()
        self.gone: dict[int, None] = {}

    @property
    def limit(self) -> int:
        """Returns how many frames the group may have; 0 without a limit."""
        return self.capacity if self.capacity < self.plug.frames else 0

    def brought_in(self, page: int) -> None:
        """Tells it."""
        self.pages[page] = None
        self.plug.tell(self, page, BROUGHT_IN)

    def accessed(self, page: int) -> None:
        """Tells it."""
        self.plug.tell(self, page, ACCESSED)

    def written(self, page: int) -> None:
        """Tells it."""
        self.plug.tell(self, page, WRITTEN)

    def left(self, page: int) -> None:
        """Tells it."""
        self._go(page, DELETED)

    def restored(self, page: int) -> None:
        """Tells it, and puts the page first in the order of arrival."""
        self.brought_in(page)
        self.pages.move_to_end(page, last=False)

    def answer(self, victims: list[Choice]) -> int:
        """Takes an answer; returns the first page in it that the program was not told of, 0 without one.

        A page that left while the question was open is none.
        """
        known = next((one.page for one in victims if one.page not in self.pages and one.page not in self.gone), 0)
        if not known:
            self.answers = deque(victims)
        if self not in self.plug.asked.values():
            self.gone.clear()
        return known

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Takes the first page of the answer that may go; the first that came in when there is none such."""
        while self.answers:
            choice = self.answers.popleft()
            if choice.page in self.pages and may_go(choice.page):
                self._go(choice.page, LEFT)
                return choice
        for page in self.pages:
            if may_go(page):
                self._go(page, LEFT)
                return Choice(page, "the program named no page that may go: the first that was brought in")
        return None

    def order(self) -> Iterator[int]:
        """Yields the pages of the last answer, then the others by arrival."""
        named = dict.fromkeys(one.page for one in self.answers if one.page in self.pages)
        yield from named
        yield from (page for page in self.pages if page not in named)

    def standing(self, page: int) -> str:
        """Returns whether the program named the page."""
        return "named by the program" if any(one.page == page for one in self.answers) else "in the order of arrival"

    def _go(self, page: int, kind: int) -> None:
        if page in self.pages:
            del self.pages[page]
            if self in self.plug.asked.values():
                self.gone[page] = None
            self.plug.tell(self, page, kind)
