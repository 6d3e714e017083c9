"""Replacement policies as a textbook writes them: lists, scans, no cleverness. Oracles for the real ones.

Each is called with every access of a trace and returns the page that it evicts for it, None when it evicts nothing.
"""

from __future__ import annotations

from typing import Protocol


class Naive(Protocol):
    """An oracle. `frames` pages fit."""

    def __init__(self, frames: int, trace: list[int]) -> None:
        """Begins empty; only OPT reads the trace."""

    def access(self, page: int) -> int | None:
        """Takes one access; returns the victim."""


class Fifo:
    """A list by arrival."""

    def __init__(self, frames: int, trace: list[int]) -> None:
        self.frames, self.queue = frames, list[int]()

    def access(self, page: int) -> int | None:
        """Pops the front when a newcomer does not fit."""
        if page in self.queue:
            return None
        victim = self.queue.pop(0) if len(self.queue) == self.frames else None
        self.queue.append(page)
        return victim


class Lru(Fifo):
    """A list by last access."""

    def access(self, page: int) -> int | None:
        """Moves a page that is there to the end."""
        if page in self.queue:
            self.queue.remove(page)
            self.queue.append(page)
            return None
        return super().access(page)


class ClockHand:
    """Frames on a circle, one R bit each, a hand that stops behind the frame that it filled."""

    def __init__(self, frames: int, trace: list[int]) -> None:
        self.frames, self.pages, self.bits, self.hand = frames, list[int](), list[int](), 0

    def access(self, page: int) -> int | None:
        """Turns the hand to a frame whose bit is 0, and fills it."""
        if page in self.pages:
            self.bits[self.pages.index(page)] = 1
            return None
        if len(self.pages) < self.frames:
            self.pages.append(page)
            self.bits.append(0)
            return None
        while self.bits[self.hand]:
            self.bits[self.hand] = 0
            self.hand = (self.hand + 1) % self.frames
        victim, self.pages[self.hand] = self.pages[self.hand], page
        self.hand = (self.hand + 1) % self.frames
        return victim


class SecondChance:
    """A queue of [page, R]; the front with R set goes to the end."""

    def __init__(self, frames: int, trace: list[int]) -> None:
        self.frames, self.queue = frames, list[list[int]]()

    def access(self, page: int) -> int | None:
        """Gives second chances until a page without R is at the front."""
        for one in self.queue:
            if one[0] == page:
                one[1] = 1
                return None
        victim = None
        if len(self.queue) == self.frames:
            while self.queue[0][1]:
                self.queue.append([self.queue.pop(0)[0], 0])
            victim = self.queue.pop(0)[0]
        self.queue.append([page, 0])
        return victim


class Lfu:
    """Pages with (count, when it was reached)."""

    def __init__(self, frames: int, trace: list[int]) -> None:
        self.frames, self.now, self.pages = frames, 0, dict[int, tuple[int, int]]()

    def access(self, page: int) -> int | None:
        """Takes the smallest count, and of these the one reached first."""
        self.now += 1
        victim = None
        if page not in self.pages and len(self.pages) == self.frames:
            victim = min(self.pages, key=self.pages.__getitem__)
            del self.pages[victim]
        self.pages[page] = (self.pages.get(page, (0, 0))[0] + 1, self.now)
        return victim


class TwoQ:
    """Johnson and Shasha's figure, with Kin a quarter and Kout half of the frames."""

    def __init__(self, frames: int, trace: list[int]) -> None:
        self.frames, self.kin, self.kout = frames, frames // 4, frames // 2
        self.a1in, self.a1out, self.am = list[int](), list[int](), list[int]()

    def access(self, page: int) -> int | None:
        """Looks into Am, A1in and A1out in this order."""
        if page in self.am:
            self.am.remove(page)
            self.am.append(page)
            return None
        if page in self.a1in:
            return None
        again = page in self.a1out
        if again:
            self.a1out.remove(page)
        victim = self.reclaim() if len(self.a1in) + len(self.am) == self.frames else None
        (self.am if again else self.a1in).append(page)
        return victim

    def reclaim(self) -> int:
        """Frees a frame."""
        if len(self.a1in) > self.kin:
            victim = self.a1in.pop(0)
            self.a1out.append(victim)
            del self.a1out[: max(0, len(self.a1out) - self.kout)]
            return victim
        return self.am.pop(0)


class Arc:
    """Megiddo and Modha's figure 4, lists with the LRU page first."""

    def __init__(self, frames: int, trace: list[int]) -> None:
        self.c, self.p = frames, 0.0
        self.t1, self.t2, self.b1, self.b2 = list[int](), list[int](), list[int](), list[int]()

    def access(self, page: int) -> int | None:
        """Goes through the four cases."""
        t1, t2, b1, b2 = self.t1, self.t2, self.b1, self.b2
        if page in t1 or page in t2:
            (t1 if page in t1 else t2).remove(page)
            t2.append(page)
            return None
        if page in b1:
            self.p = min(float(self.c), self.p + max(len(b2) / len(b1), 1.0))
            b1.remove(page)
            victim = self.replace(False)
            t2.append(page)
            return victim
        if page in b2:
            self.p = max(0.0, self.p - max(len(b1) / len(b2), 1.0))
            b2.remove(page)
            victim = self.replace(True)
            t2.append(page)
            return victim
        victim = None
        if len(t1) + len(b1) == self.c:
            if len(t1) < self.c:
                b1.pop(0)
                victim = self.replace(False)
            else:
                victim = t1.pop(0)
        elif len(t1) + len(t2) + len(b1) + len(b2) >= self.c:
            if len(t1) + len(t2) + len(b1) + len(b2) == 2 * self.c:
                b2.pop(0)
            victim = self.replace(False)
        t1.append(page)
        return victim

    def replace(self, in_b2: bool) -> int | None:
        """Moves a page to its ghost, if the frames are full."""
        if len(self.t1) + len(self.t2) < self.c:
            return None
        if (self.t1 and (len(self.t1) > self.p or (in_b2 and len(self.t1) == self.p))) or not self.t2:
            self.b1.append(self.t1.pop(0))
            return self.b1[-1]
        self.b2.append(self.t2.pop(0))
        return self.b2[-1]


class Sieve:
    """A list, the newest first, as the paper draws it; the hand is a page."""

    def __init__(self, frames: int, trace: list[int]) -> None:
        self.frames, self.queue, self.visited = frames, list[int](), set[int]()
        self.hand: int | None = None

    def access(self, page: int) -> int | None:
        """Sifts when a newcomer does not fit."""
        if page in self.queue:
            self.visited.add(page)
            return None
        victim = self.sift() if len(self.queue) == self.frames else None
        self.queue.insert(0, page)
        return victim

    def sift(self) -> int:
        """Moves the hand from the tail to the head until a page was not visited."""
        place = self.queue.index(self.hand) if self.hand is not None else len(self.queue) - 1
        while self.queue[place] in self.visited:
            self.visited.discard(self.queue[place])
            place = place - 1 if place else len(self.queue) - 1
        self.hand = self.queue[place - 1] if place else None
        return self.queue.pop(place)


class S3Fifo:
    """The paper's algorithm 1 with a small queue of a tenth, threshold 2, a ghost of nine tenths."""

    def __init__(self, frames: int, trace: list[int]) -> None:
        self.frames, self.room = frames, frames // 10
        self.small, self.main, self.ghost = list[int](), list[int](), list[int]()
        self.freq: dict[int, int] = {}
        self.full = False

    def access(self, page: int) -> int | None:
        """Counts a hit; a newcomer goes to main when the ghost knows it."""
        if page in self.small or page in self.main:
            self.freq[page] += 1
            return None
        known = page in self.ghost
        if known:
            self.ghost.remove(page)
        victim = None
        if len(self.small) + len(self.main) == self.frames:
            self.full = True
            while victim is None:
                victim = self.evict()
        self.freq[page] = 0
        to_main = known or (not self.full and len(self.small) >= self.room)
        (self.main if to_main else self.small).append(page)
        return victim

    def evict(self) -> int | None:
        """Evicts from one queue; None when pages only changed places."""
        if self.small and len(self.main) <= self.frames - self.room:
            while self.small:
                page = self.small.pop(0)
                if self.freq[page] < 2:
                    self.ghost.append(page)
                    del self.ghost[: max(0, len(self.ghost) - self.frames * 9 // 10)]
                    return page
                self.freq[page] = 0
                self.main.append(page)
            return None
        page = self.main.pop(0)
        if self.freq[page]:
            self.freq[page] = min(self.freq[page], 3) - 1
            self.main.append(page)
            return None
        return page


class Generations:
    """Pages with the number of their generation and an R bit, in one list by when they joined it."""

    def __init__(self, frames: int, trace: list[int]) -> None:
        self.frames, self.pages, self.youngest, self.oldest = frames, list[list[int]](), 0, 0

    def access(self, page: int) -> int | None:
        """Sets R, or makes room."""
        for one in self.pages:
            if one[0] == page:
                one[2] = 1
                return None
        victim = self.evict() if len(self.pages) == self.frames else None
        self.pages.append([page, self.youngest, 0])
        return victim

    def evict(self) -> int:
        """Ages until there are three generations, then takes from the oldest."""
        while True:
            while self.oldest < self.youngest and not [one for one in self.pages if one[1] == self.oldest]:
                self.oldest += 1
            if self.youngest - self.oldest < 2:
                self.youngest += 1
                by_age = sorted(range(len(self.pages)), key=lambda place: (self.pages[place][1], place))
                self.promote([self.pages[place] for place in by_age if self.pages[place][2]])
                continue
            first = next(one for one in self.pages if one[1] == self.oldest)
            if not first[2]:
                self.pages.remove(first)
                return first[0]
            self.promote([first])

    def promote(self, chosen: list[list[int]]) -> None:
        """Moves pages to the youngest generation."""
        for one in chosen:
            self.pages.remove(one)
            self.pages.append([one[0], self.youngest, 0])


class Opt:
    """Looks into the rest of the trace."""

    def __init__(self, frames: int, trace: list[int]) -> None:
        self.frames, self.rest, self.touched = frames, list(trace), list[int]()

    def access(self, page: int) -> int | None:
        """Takes the page whose next access is farthest; of those without one the first that was touched."""
        self.rest.pop(0)
        victim = None
        if page in self.touched:
            self.touched.remove(page)
        elif len(self.touched) == self.frames:
            ahead = [self.rest.index(one) if one in self.rest else len(self.rest) for one in self.touched]
            victim = self.touched.pop(ahead.index(max(ahead)))
        self.touched.append(page)
        return victim


NAIVE: dict[str, type[Naive]] = {
    "fifo": Fifo,
    "lru": Lru,
    "clock": ClockHand,
    "second-chance": SecondChance,
    "lfu": Lfu,
    "2q": TwoQ,
    "arc": Arc,
    "sieve": Sieve,
    "s3fifo": S3Fifo,
    "mglru": Generations,
    "opt": Opt,
}
