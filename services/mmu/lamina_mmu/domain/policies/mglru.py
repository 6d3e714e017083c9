"""A multi-generation LRU, after Linux's. Pure.

    oldest generation ─▶ [A B] [C] [D E] ◀─ youngest       `generations` of them (default 3) when a page is evicted

    brought in   to the end of the youngest generation, R clear
    accessed     R set; the page moves only when it is looked at
    ageing       a new youngest generation begins, empty; every page with R joins it, in the order of the generations
                 and within each in its order, R cleared
    evict        first an empty oldest generation is dropped (again and again), and with fewer than `generations` there
                 is an ageing, until neither applies. Then the first page of the oldest: with R it joins the end of the
                 youngest, R cleared, and evict begins again; without, it goes

3 is Linux's steady state: the two youngest generations (MIN_NR_GENS) are not evicted from. Of Linux's it has
generations, ageing by a walk over reference bits and promotion at eviction, not the tiers of accesses by file
descriptors nor the feedback from refaults: an MMU sees mapped pages only.
Source: Linux Documentation/mm/multigen_lru.rst; mm/vmscan.c (should_run_aging, sort_folio).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import ClassVar

from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Parameter, Policy

Generation = OrderedDict[int, None]


class MultiGenerationLru(Policy):
    """Lets go the pages of the oldest generation. `home` is each page's generation, `generations` oldest first."""

    name: ClassVar[str] = "mglru"
    summary: ClassVar[str] = "Pages lie in generations; those accessed join the youngest, the oldest generation goes."
    source: ClassVar[str] = "Linux Documentation/mm/multigen_lru.rst"
    first_access_counts: ClassVar[bool] = True
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("generations", 3, 2, 64, "generations that there are when a page is evicted"),
    )

    def begin(self) -> None:
        """Starts with one generation."""
        self.generations: deque[Generation] = deque([OrderedDict()])
        self.home: dict[int, Generation] = {}
        self.referenced: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self.home)

    def __contains__(self, page: object) -> bool:
        return page in self.home

    def brought_in(self, page: int) -> None:
        """Puts the page into the youngest generation."""
        self._join(page, self.generations[-1])

    def accessed(self, page: int) -> None:
        """Sets R."""
        self.referenced[page] = None

    def left(self, page: int) -> None:
        """Forgets the page."""
        if page in self.home:
            del self.home.pop(page)[page]
            self.referenced.pop(page, None)

    def restored(self, page: int) -> None:
        """Puts the page back at the front of the oldest generation."""
        self._join(page, self.generations[0])
        self.generations[0].move_to_end(page, last=False)

    def _join(self, page: int, generation: Generation) -> None:
        generation[page] = None
        self.home[page] = generation

    def _promote(self, page: int) -> None:
        del self.referenced[page], self.home[page][page]
        self._join(page, self.generations[-1])

    def age_all(self) -> None:
        """Begins a new youngest generation, with every page that has R."""
        self.generations.append(OrderedDict())
        for generation in list(self.generations):
            for page in [page for page in generation if page in self.referenced]:
                self._promote(page)

    def _settle(self) -> None:
        """Drops empty generations at the old end, and ages, until there are enough and the oldest has a page."""
        while True:
            while len(self.generations) > 1 and not self.generations[0]:
                self.generations.popleft()
            if len(self.generations) >= self.values["generations"]:
                return
            self.age_all()

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Takes the first page of the oldest generation that was not accessed since it joined it."""
        if not self.home:
            return None
        promoted = 0
        while True:
            self._settle()
            oldest = self.generations[0]
            page = next((page for page in oldest if may_go(page)), 0)
            if not page:  # none of the oldest may go: the first that may, of the generations behind it
                page = next((page for page in self.order() if may_go(page)), 0)
                break
            if page not in self.referenced:
                break
            self._promote(page)
            promoted += 1
        if not page:
            return None
        self.left(page)
        age = len(self.generations)
        return Choice(page, f"not accessed in the oldest of {age} generations, {promoted} joined the youngest")

    def order(self) -> Iterator[int]:
        """Yields the pages of each generation from the oldest: those without R, then all others."""
        for generation in self.generations:
            yield from (page for page in generation if page not in self.referenced)
        for generation in self.generations:
            yield from (page for page in generation if page in self.referenced)

    def standing(self, page: int) -> str:
        """Returns the generation, counted from the oldest, and R."""
        number = next(index for index, one in enumerate(self.generations, 1) if one is self.home[page])
        return f"generation {number} of {len(self.generations)}, R {int(page in self.referenced)}"
