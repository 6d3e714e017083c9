"""The port of page replacement: which page leaves RAM when room is needed. Pure.

A policy orders the pages of one memory group. It is told what happens to them, and picks one to go, with the reason:

    brought_in ──▶ accessed · written … ──▶ evict (it goes) · left (it went by itself: unmapped, freed)

The same object serves a replay, which tells it every access, and the MMU, which knows accesses as the hardware shows
them: an A bit that was set some time since it was last cleared. So in the MMU `accessed` means "at least once since the
last look", pages seen by one look come in the order in which the policy would let them go, and the first look at a page
that was brought in is passed over by all policies but those with `first_access_counts`: the bit is that of the fault's
own access. What that does to each policy:

    fifo                     nothing: it knows no accesses
    lru, mglru               recency is that of looks, not of accesses: exact between pages of different looks
    clock, second-chance,    their reference bit *is* the A bit, so they are what the hardware can do exactly
    sieve
    lfu, s3fifo              count looks that found the page accessed, at most one a look
    2q, arc                  a page counts as used again when a later look than the first finds it accessed

A policy of one's own is a subclass with `name`, `summary` and `order`: the page that goes is the first of `order` that
may go. It is named by an import path (`package.module:Class`) or by an entry point of the group `lamina.policies`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lamina_kit.errors import InvalidArgument

MayGo = Callable[[int], bool]
"""Tells whether a page may leave RAM now. In a replay every page may."""

EVERY: MayGo = lambda page: True  # noqa: E731 - a constant, used as a default


@dataclass(frozen=True, slots=True)
class Parameter:
    """A whole number that can be chosen for a policy, with its default and its bounds."""

    name: str
    default: int
    low: int
    high: int
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A page that goes, and why, in words."""

    page: int
    reason: str


class Policy:
    """Orders the pages of one memory group. Pages are numbers above 0.

    Class attributes
        name, summary, source   `[a-z0-9][a-z0-9-]*`; a sentence; where it is described
        parameters              what can be chosen
        offline                 needs the future (`opt`): replays only
        remembers               knows pages that left: a page keeps its number while it exists. Otherwise a number is
                                that of the frame, and means another page after `left`
        first_access_counts     is told of the first look at a page, too (see the top of this file)
        samples                 wants `accessed` at all
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    offline: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    first_access_counts: ClassVar[bool] = False
    samples: ClassVar[bool] = True

    def __init__(self, capacity: int, values: Mapping[str, int] | None = None) -> None:
        """Begins with no page. `capacity` is the number of frames that there are for them, at least 1."""
        self.capacity = capacity
        self.group = 0
        self.values = {one.name: one.default for one in self.parameters} | dict(values or {})
        self.pages: OrderedDict[int, None] = OrderedDict()
        self.begin()

    def begin(self) -> None:
        """Makes what a subclass keeps beside `pages`."""

    def resize(self, capacity: int) -> None:
        """Takes a new number of frames."""
        self.capacity = capacity

    def __len__(self) -> int:
        """Returns how many pages in RAM it knows."""
        return len(self.pages)

    def __contains__(self, page: object) -> bool:
        """Returns whether it knows a page as being in RAM."""
        return page in self.pages

    def brought_in(self, page: int) -> None:
        """Takes up a page that it does not know as being in RAM."""
        self.pages[page] = None

    def accessed(self, page: int) -> None:
        """Notes that a page in RAM was accessed."""

    def written(self, page: int) -> None:
        """Notes that a page in RAM was written."""

    def left(self, page: int) -> None:
        """Forgets a page that was given up: unmapped or freed, not evicted."""
        self.pages.pop(page, None)

    def restored(self, page: int) -> None:
        """Takes a page back whose eviction did not happen: in general as if it was brought in."""
        self.brought_in(page)

    def order(self) -> Iterable[int]:
        """Returns the pages in RAM, the first to go first, as things stand. Changes nothing.

        The policy must not be changed while the order is read.
        """
        return self.pages

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Picks the page that goes and counts it as gone; None when no page may go.

        `incoming` is the page that room is made for, 0 when that is not known; policies that remember look it up.
        """
        for page in self.order():
            if may_go(page):
                self.left(page)
                return Choice(page, f"the first in its order of {len(self) + 1} pages")
        return None

    def standing(self, page: int) -> str:
        """Returns what it knows of a page in RAM, in words."""
        return ""


def first_of(pages: Iterable[int], may_go: MayGo) -> int:
    """Returns the first page that may go; 0 when none may."""
    for page in pages:
        if may_go(page):
            return page
    return 0


def checked(policy: type[Policy], values: Mapping[str, str], field: str = "policy_parameters") -> dict[str, int]:
    """Returns the values of a policy's parameters from their text form; POLICY_PARAMETER_INVALID for a bad one."""
    known = {one.name: one for one in policy.parameters}
    found: dict[str, int] = {}
    for name, text in values.items():
        one = known.get(name)
        value = int(text) if one is not None and text.isascii() and text.isdigit() and len(text) <= 18 else -1
        if one is None or not one.low <= value <= one.high:
            has = ", ".join(f"{each.name} ({each.low} to {each.high})" for each in policy.parameters) or "none"
            raise InvalidArgument(
                f"{field}: the policy {policy.name} has no parameter {name[:64]!r} with a value of {text[:64]!r}.",
                reason="POLICY_PARAMETER_INVALID",
                next_step=f"Its parameters are: {has}.",
            )
        found[name] = value
    return found
