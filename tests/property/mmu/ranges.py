"""What programs of the world do to ranges of their memory beside mapping them: advice, locks, pins, heaps, moves."""

from __future__ import annotations

from typing import Any

from tests.property.mmu.world import PAGE, Task, World

from lamina_kit.errors import LaminaError
from lamina_mmu.domain.session import NOBODY
from lamina_mmu.domain.spaces.advice import Advice
from lamina_mmu.domain.spaces.remap_spec import Move

RW = 3
HARMLESS = (
    Advice.NORMAL, Advice.SEQUENTIAL, Advice.RANDOM, Advice.WILL_NEED, Advice.COLD, Advice.PAGE_OUT, Advice.HUGE_PAGE,
    Advice.NO_HUGE_PAGE, Advice.POPULATE_READ, Advice.POPULATE_WRITE,
)  # fmt: skip
"""Advice that changes no byte."""
EXPECTED = (
    "RANGE_NOT_MAPPED", "RANGE_LOCKED", "NO_FREE_FRAME", "GROUP_LIMIT", "LOCK_LIMIT", "PIN_LIMIT", "BAD_ADDRESS",
    "ADVICE_NOT_POSSIBLE", "RANGE_IN_USE", "HANDLE_STALE",
)  # fmt: skip
"""What such operations may be refused with, among mappings that change."""


class Ranges:
    """Operations on the pages from `base`, `count` of them, of one program at a time.

    A program has `handle`, `words` (address → value), `pages` (address → rights) and `quiet`.
    """

    def __init__(self, world: World, base: int, count: int) -> None:
        self.world, self.base, self.count = world, base, count
        self.pins: list[Any] = []
        self.done: dict[str, int] = {}

    def act(self, program: Any) -> None:
        """Does one of them, while others go on; the program stands still."""
        rng = self.world.rng
        first = rng.randrange(self.count)
        pages = rng.randint(1, min(6, self.count - first))
        start, end = self.base + first * PAGE, self.base + (first + pages) * PAGE
        choice = rng.choice(["advise", "advise", "drop", "free", "lock", "unlock", "pin", "unpin", "move", "huge"])
        getattr(self, choice)(program, start, end)

    def begin(self, program: Any, name: str, step: Any, after: Any = lambda result: None) -> None:
        """Starts a step; only expected refusals are taken, and `after` learns how it ended otherwise."""
        program.quiet += 1

        def done(task: Task) -> None:
            program.quiet -= 1
            if task.error is None:
                self.done[name] = self.done.get(name, 0) + 1
                after(task.result)
            else:
                assert task.error.reason in EXPECTED, task.error

        self.world.start(step, done)

    def advise(self, program: Any, start: int, end: int) -> None:
        """Gives advice that changes no byte."""
        advice = self.world.rng.choice(HARMLESS)
        step = self.world.engine.advise_range(program.handle, start, end, advice)
        self.begin(program, advice.name, step)

    def drop(self, program: Any, start: int, end: int) -> None:
        """Drops pages: they read as zero, unless the call is refused for a lock before it did anything."""
        covered = all(address in program.pages for address in range(start, end, PAGE))
        if covered:
            step = self.world.engine.advise_range(program.handle, start, end, Advice.DONT_NEED)
            self.begin(program, "DONT_NEED", step, lambda _: self.forget(program, start, end))

    def free(self, program: Any, start: int, end: int) -> None:
        """Lets pages be dropped, then writes them: from then on they hold what was written, and zeros or old bytes."""
        covered = all(program.pages.get(address) == RW for address in range(start, end, PAGE))

        def rewrite(_: Any) -> None:
            self.forget(program, start, end)
            for address in range(start, end, PAGE):
                self.write(program, address)

        if covered:
            step = self.world.engine.advise_range(program.handle, start, end, Advice.FREE)
            self.begin(program, "FREE", step, rewrite)

    def write(self, program: Any, address: int) -> None:
        """Writes a whole page; without memory for it the page is unmapped, so that nobody counts on it."""
        value = self.world.rng.getrandbits(64)
        data = value.to_bytes(8, "little") * (PAGE // 8)
        program.quiet += 1

        def done(task: Task) -> None:
            program.quiet -= 1
            if task.error is None:
                program.words.update({address + place: value for place in (0, 8, 4088)})
                return
            assert task.error.reason in ("NO_FREE_FRAME", "HANDLE_STALE"), task.error
            program.pages.pop(address, None)
            program.quiet += 1
            self.world.start(self.world.engine.unmap_range(program.handle, address, address + PAGE), unmapped)

        def unmapped(task: Task) -> None:
            assert task.error is None or task.error.reason == "HANDLE_STALE", task.error
            program.quiet -= 1

        self.world.start(self.world.engine.write_space(program.handle, address, data, True), done)

    def forget(self, program: Any, start: int, end: int) -> None:
        """Takes the words of a range from the oracle: they are zero."""
        for address in range(start, end, 8):
            program.words.pop(address, None)

    def lock(self, program: Any, start: int, end: int) -> None:
        """Locks a range."""
        on_fault = self.world.rng.random() < 0.5
        self.begin(program, "lock", self.world.engine.lock_range(program.handle, start, end, on_fault))

    def unlock(self, program: Any, start: int, end: int) -> None:
        """Unlocks more than a range, so that locks do not pile up."""
        del start
        self.begin(program, "unlock", self.world.engine.unlock_range(program.handle, self.base, end))

    def pin(self, program: Any, start: int, end: int) -> None:
        """Pins a range for DMA, which writes what is there already into its frames, at once and at the end."""
        write = all(program.pages.get(address, 0) & 2 for address in range(start, end, PAGE))
        if len(self.pins) < 4:
            step = self.world.engine.pin_range(program.handle, start, end - start, write, NOBODY, "")
            self.begin(program, "pin", step, lambda view: self.pins.append((program, view, write)))

    def unpin(self, program: Any, start: int, end: int) -> None:
        """Ends the oldest pin."""
        del program, start, end
        if self.pins:
            _, view, write = self.pins.pop(0)
            self.world.engine.unpin_ranges([view.handle], write)

    def move(self, program: Any, start: int, end: int) -> None:
        """Moves pages of one kind away and back again; the words stay where the program had them."""
        far = 0x7000_0000 + start
        engine = self.world.engine
        rights = {program.pages.get(address) for address in range(start, end, PAGE)}
        if len(rights) != 1 or None in rights:
            return

        def away_and_back() -> Any:
            yield from engine.remap_range(program.handle, Move(start, end - start, end - start, True, far), "")
            yield from engine.remap_range(program.handle, Move(far, end - start, end - start, True, start), "")

        self.begin(program, "move", self.retried(program, away_and_back, far, start, end))

    def retried(self, program: Any, both: Any, far: int, start: int, end: int) -> Any:
        """Moves; when memory runs out on the way back the pages are given up."""
        try:
            yield from both()
        except LaminaError as error:
            assert error.reason in EXPECTED, error
            if error.reason == "NO_FREE_FRAME":
                yield from self.world.engine.unmap_range(program.handle, far, far + end - start)
                yield from self.world.engine.unmap_range(program.handle, start, end)
                for address in range(start, end, PAGE):
                    program.pages.pop(address, None)
                self.forget(program, start, end)
            elif error.reason != "RANGE_NOT_MAPPED":
                raise

    def huge(self, program: Any, start: int, end: int) -> None:
        """Makes huge pages of all that can be, or splits them."""
        engine = self.world.engine
        if self.world.rng.random() < 0.5:
            whole = engine.advise_range(program.handle, self.base, self.base + self.count * PAGE, Advice.COLLAPSE)
            self.begin(program, "COLLAPSE", whole)
        else:
            self.begin(program, "split", engine.split_huge_pages(program.handle, start, end))

    def finish(self) -> None:
        """Ends all pins."""
        for _, view, write in self.pins:
            self.world.engine.unpin_ranges([view.handle], write)
        self.pins.clear()
