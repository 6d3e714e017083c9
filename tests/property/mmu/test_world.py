"""Everything at once, in random order: spaces, forks, objects, swap, holders, against dicts of words."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from tests.property.mmu.ranges import Ranges
from tests.property.mmu.world import PAGE, Holder, Task, World

from lamina_kit.errors import LaminaError
from lamina_mmu.domain.effects import Shootdown
from lamina_mmu.domain.outcome import Outcome
from lamina_mmu.domain.session import NOBODY
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.spaces.settings import HugePages
from lamina_mmu.domain.spaces.space import Kind
from lamina_mmu.domain.views import SettingsChange
from lamina_mmu.engines.model.frames.compaction import compact
from lamina_mmu.engines.model.withdrawal.migration import move, spare_like

BASE = 0x40_0000
PAGES = 24
RW = 3


@dataclass
class Program:
    """A process and what its memory must hold: address of a word → value, and mapped pages → rights.

    While `quiet` is not 0 an operation changes its mappings, and it makes no access.
    """

    handle: Any
    root: int
    words: dict[int, int] = field(default_factory=dict)
    pages: dict[int, int] = field(default_factory=dict)
    quiet: int = 0

    def may(self, address: int, write: bool) -> bool:
        """Returns whether an access is allowed."""
        rights = self.pages.get(address // PAGE * PAGE, 0)
        return bool(rights & 2 if write else rights)


class Play(World):
    """A world in which random programs and one VM run."""

    def __init__(
        self,
        seed: int,
        frames: int = 96,
        slots: int = 160,
        group_pages: int = 40,
        pages: int = PAGES,
        huge: bool = False,
    ) -> None:
        super().__init__(seed, frames, slots)
        self.pages, self.huge = pages, huge
        self.programs: list[Program] = []
        self.run(self.engine.create_group("small", "", {"max_bytes": group_pages * PAGE}, NOBODY, ""))
        self.sea = self.run(self.engine.create_object(8 * PAGE, "", "sea", NOBODY, ""))
        self.sea_words: dict[int, int] = {}
        guest = self.run(self.engine.create_space(Kind.GUEST_RAM, "small", "vm", NOBODY, ""))
        self.run(self.engine.map_range(guest.handle, MapSpec(0, 16 * PAGE, 7, fixed=True)))
        self.guest = guest.handle
        self.guest_words: dict[int, int] = {}
        self.holder = self.hold()
        self.oom = self.done = self.moved = 0
        self.pinned: list[int] = []
        self.ranges = Ranges(self, BASE, pages)

    def hold(self) -> Holder:
        """Opens a hold, with a root that the MMU can empty."""
        self.eptp = self.run(self.engine.allocate_frames(1, "vm", "", NOBODY, ""))[0] * PAGE
        return Holder(self, self.engine.open_hold(self.guest, self.eptp, "vm"))

    def shoot(self, effect: Shootdown) -> None:
        """Drops translations, of the guest too."""
        if effect.eptp:
            assert effect.eptp == self.eptp
            self.holder.table.clear()
        super().shoot(effect)

    def serve_holders(self) -> bool:
        """Lets the one holder answer; one that is silent runs out of time. One that was fenced begins anew."""
        if self.holder.step():
            return True
        waiting = [task for task in self.tasks if isinstance(task.key, tuple) and task.key[0] == "answer"]
        if waiting and self.holder.silent:
            self.wake(self.rng.choice(waiting).key, None)
            return True
        return False

    def change_holder(self) -> None:
        """Makes the holder silent, ends its hold, or, when it was fenced or ended, begins a new one."""
        if self.m.spaces.slot(self.guest.id).holder == 0:
            self.engine.free_frames([self.eptp // PAGE], "vm")
            self.holder = self.hold()
        elif self.rng.random() < 0.5:
            self.holder.silent = True
        else:
            self.start(self.engine.end_hold(self.holder.hold, None))

    def count_moved(self, task: Task) -> None:
        """Counts the pages that a move moved."""
        self.moved += task.result or 0

    def pin(self) -> None:
        """Pins a page for a device, or lets the pinned one go."""
        if self.pinned:
            self.ram.unpin(self.pinned.pop())
            return
        frame = self.rng.randrange(1, self.ram.frames)
        if self.m.frames.use[frame] in (1, 2):
            self.ram.pin(frame)
            self.pinned.append(frame)

    # ── what may happen ──────────────────────────────────────────────────────────────────────────────────────────

    def act(self) -> None:
        """Does one thing, chosen by the seed, then lets others go on."""
        choice = self.rng.random()
        free = [program for program in self.programs if not program.quiet]
        if choice < 0.01 and len(self.programs) < 6:
            self.spawn()
        elif choice < 0.02 and free and len(self.programs) < 6:
            self.fork(self.rng.choice(free))
        elif choice < 0.025 and len(free) > 1:
            self.exit(self.rng.choice(free))
        elif choice < 0.06 and free:
            self.remap(self.rng.choice(free))
        elif choice < 0.08 and free:
            self.ranges.act(self.rng.choice(free))
        elif choice < 0.09:
            self.start(self.engine.reclaim(None, self.rng.choice(["", "small"]), self.rng.randint(1, 6)))
        elif choice < 0.1:
            self.pin()
        elif choice < 0.105:
            self.start(compact(self.m, self.rng.choice([2, 3, 4]), self.rng.randint(1, 24), "the test"))
        elif choice < 0.11:
            frames = self.rng.sample(range(1, self.ram.frames), 12)
            self.start(move(self.m, frames, partial(spare_like, self.m), "the test"), self.count_moved)
        elif choice < 0.12:
            self.change_holder()
        elif choice < 0.28:
            self.guest_touch()
        elif free:
            for _ in range(3):
                self.touch(self.rng.choice(free))
        for _ in range(self.rng.randint(0, 14)):
            if self.rng.random() < 0.5:
                self.serve_holders()
            else:
                self.turn()
        self.done += 1

    def spawn(self) -> None:
        """Begins a program with one private and one shared mapping."""
        try:
            view = self.run(self.engine.create_space(Kind.PROCESS, self.rng.choice(["", "small"]), "", NOBODY, ""))
        except LaminaError:
            self.oom += 1
            return
        program = Program(view.handle, view.root_address)
        if self.huge:
            change = SettingsChange(("huge_pages",), fields={"huge_pages": HugePages.ALWAYS})
            self.run(self.engine.update_space_settings(view.handle, change))
        spec = MapSpec(BASE, self.pages * PAGE, RW, fixed=True)
        self.run(self.engine.map_range(view.handle, spec))
        program.pages = {BASE + index * PAGE: RW for index in range(self.pages)}
        sea = MapSpec(BASE * 4, 8 * PAGE, RW, fixed=True, object=self.sea.handle, shared=True)
        self.run(self.engine.map_range(view.handle, sea))
        self.programs.append(program)

    def fork(self, program: Program) -> None:
        """Forks a program while others go on; the parent stands still."""
        program.quiet += 1

        def done(task: Task) -> None:
            program.quiet -= 1
            if task.error is None:
                view = task.result
                child = Program(view.handle, view.root_address, dict(program.words), dict(program.pages))
                self.programs.append(child)

        self.start(self.engine.fork_space(program.handle, "", "", NOBODY, ""), done)

    def exit(self, program: Program) -> None:
        """Ends a program while others go on."""
        program.quiet += 1
        self.programs.remove(program)
        self.start(self.engine.delete_space(program.handle))

    def remap(self, program: Program) -> None:
        """Unmaps, maps or protects a few pages while others go on; the program stands still."""
        program.quiet += 1
        first = self.rng.randrange(self.pages)
        count = self.rng.randint(1, min(4, self.pages - first))
        start, end = BASE + first * PAGE, BASE + (first + count) * PAGE
        covered = [address for address in range(start, end, PAGE) if address in program.pages]
        kind = self.rng.choice(["unmap", "map", "protect"])
        if kind == "protect" and len(covered) == count:
            rights = self.rng.choice([1, 3, 0])
            program.pages.update(dict.fromkeys(covered, rights))
            step: Any = self.engine.protect_range(program.handle, start, end, rights)
        else:
            spec = MapSpec(start, end - start, RW, fixed=True, replace=True)
            step = self.engine.map_range(program.handle, spec)
            if kind == "unmap":
                step = self.engine.unmap_range(program.handle, start, end)
            for address in range(start, end, PAGE):
                program.pages.pop(address, None)
                for place in range(address, address + PAGE, 8):
                    program.words.pop(place, None)
                if kind != "unmap":
                    program.pages[address] = RW

        def done(task: Task) -> None:
            assert task.error is None, task.error
            program.quiet -= 1

        self.start(step, done)

    def touch(self, program: Program) -> None:
        """Reads or writes one word through a core, or begins the fault that it needs."""
        write = self.rng.random() < 0.6
        in_sea = self.rng.random() < 0.2
        if in_sea:
            place = self.rng.randrange(8) * PAGE + self.rng.choice([0, 8, 4088])
            address, words, key = BASE * 4 + place, self.sea_words, place
        else:
            address = BASE + self.rng.randrange(self.pages) * PAGE + self.rng.choice([0, 8, 4088])
            words, key = program.words, address
        pa = self.translate(program.root, address, write)
        if pa is None:
            self.begin_fault(program, address, write, in_sea)
            return
        assert in_sea or program.may(address, write), "a core got what is not mapped"
        self.check_word(pa, words, key, write)

    def check_word(self, pa: int, words: dict[int, int], key: int, write: bool) -> None:
        """Compares a word with its oracle, or stores one in both."""
        if write:
            words[key] = self.rng.getrandbits(64)
            self.store64(pa, words[key])
        else:
            assert self.load(pa) == words.get(key, 0), f"word at {key:#x} in frame {pa // PAGE}"

    def begin_fault(self, program: Program, address: int, write: bool, in_sea: bool) -> None:
        """Begins a fault; it is refused for memory, or when the program may not."""

        def done(task: Task) -> None:
            if task.error is not None:
                assert task.error.reason == "HANDLE_STALE" and program not in self.programs, task.error
            elif task.result.outcome == Outcome.OUT_OF_MEMORY:
                self.oom += 1
            elif program.quiet == 0:
                refused = task.result.outcome == Outcome.SEGMENTATION_FAULT
                assert refused != (in_sea or program.may(address, write)), (hex(address), write, task.result)

        self.start(self.engine.fault(program.handle, address, 2 if write else 1), done)

    def guest_touch(self) -> None:
        """Reads or writes one word through the holder's table, or wants its page."""
        address = self.rng.randrange(16) * PAGE + self.rng.choice([0, 8, 4088])
        write = self.rng.random() < 0.6
        pa = self.holder.access(address, write)
        if pa is None and self.holder.hold.closing:
            return
        if pa is None:
            self.start(self.engine.want(self.holder.hold, 1, address, 2 if write else 1))
            return
        self.check_word(pa, self.guest_words, address, write)

    # ── at the end ───────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self) -> None:
        """Lets everything end, compares all memory with the oracles, checks the books, ends all, and checks again."""
        self.settle()
        for frame in self.pinned:
            self.ram.unpin(frame)
        self.ranges.finish()
        self.m.settle()
        self.check()
        for program in self.programs:
            for address, value in program.words.items():
                if program.may(address, False):
                    self.compare(program.handle, address, value)
        for address, value in self.guest_words.items():
            self.compare(self.guest, address, value)
        self.check()
        for program in self.programs:
            self.run(self.engine.delete_space(program.handle))
        self.run(self.engine.delete_space(self.guest))
        self.engine.free_frames([self.eptp // PAGE], "vm")
        self.engine.delete_object(self.sea.handle)
        self.check()
        assert self.m.frames.free == self.m.frames.count - 1
        assert self.m.swap.free == self.m.swap.count

    def compare(self, handle: Any, address: int, value: int) -> None:
        """Compares one word through ReadSpace, unless memory does not suffice for it."""
        try:
            data = self.run(self.engine.read_space(handle, address, 8))
        except LaminaError as error:
            assert error.reason == "NO_FREE_FRAME"
            return
        assert int.from_bytes(data, "little") == value, hex(address)


@pytest.mark.parametrize("seed", range(8))
def test_memory_is_what_was_written(seed: int) -> None:
    """Programs, forks, a shared object and a VM see their own words whatever is evicted, revoked and interleaved."""
    play = Play(seed)
    for _ in range(2000):
        play.act()
    play.finish()
    assert play.m.swap.written > 20, "the run was meant to swap"
    assert play.moved > 5, "the run was meant to move pages"
    assert play.oom < play.done // 4


@pytest.mark.parametrize("seed", range(100, 104))
def test_memory_is_what_was_written_when_swap_runs_out(seed: int) -> None:
    """With little swap faults may end out of memory, but no word is ever wrong and no count is off."""
    play = Play(seed, frames=64, slots=12, group_pages=30)
    for _ in range(2000):
        play.act()
    play.finish()


@pytest.mark.parametrize("seed", range(200, 203))
def test_memory_is_what_was_written_in_huge_pages(seed: int) -> None:
    """Huge pages that are shared by forks, split by whatever changes a page, swapped and moved lose no word."""
    play = Play(seed, frames=4096, slots=4096, group_pages=1800, pages=1024, huge=True)
    seen = 0
    for _ in range(1500):
        play.act()
        seen = max(seen, sum(space.huge_pages for space in play.m.spaces))
    assert seen > 1, "the run was meant to have huge pages"
    play.finish()


def test_the_same_seed_gives_the_same_events() -> None:
    """Two runs with one seed record the same events in the same order."""
    logs = []
    for _ in range(2):
        play = Play(7)
        for _ in range(400):
            play.act()
        play.finish()
        logs.append(play.events)
    assert logs[0] == logs[1]
