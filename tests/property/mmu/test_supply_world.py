"""An object with a supplier that fails, is slow, dies and comes back, against a dict of words, in random order."""

from __future__ import annotations

from typing import Any

import pytest
from tests.property.mmu.world import PAGE, Task, World

from lamina_kit.errors import LaminaError
from lamina_mmu.domain.outcome import Outcome
from lamina_mmu.domain.session import NOBODY
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.spaces.space import Kind
from lamina_mmu.domain.supply import Demand, Keep, Supply

AT, PAGES = 0x40_0000, 24


class Play(World):
    """Two programs that share an object, and the file of its supplier. `words`: offset → what was written there."""

    def __init__(self, seed: int, maps_memory: bool) -> None:
        super().__init__(seed, frames=256, slots=64)
        self.maps_memory = maps_memory
        self.run(self.engine.create_group("tight", "", {"max_bytes": 24 * PAGE}, NOBODY, ""))
        self.made = self.run(self.engine.create_object(PAGES * PAGE, "tight", "", NOBODY, ""))
        self.file = bytearray(PAGES * PAGE)
        self.words: dict[int, int] = {}
        self.programs = []
        for _ in range(2):
            view = self.run(self.engine.create_space(Kind.PROCESS, "tight", "", NOBODY, ""))
            spec = MapSpec(AT, PAGES * PAGE, 3, fixed=True, object=self.made.handle, shared=True)
            self.run(self.engine.map_range(view.handle, spec))
            self.programs.append(view)
        self.supply = self.reopen()
        self.kept = self.bus_errors = self.demanded = 0

    def reopen(self) -> Supply:
        """Becomes the supplier."""
        supply = self.engine.open_supply("file")
        self.engine.supply_objects(supply, [self.made.handle], self.maps_memory, True, self.rng.choice([1, 4]))
        return supply

    def serve_holders(self) -> bool:
        """Answers one question, if there is one; returns whether there was."""
        if not self.supply.outbox:
            return False
        _, message = self.supply.outbox.popleft()
        place = message.first * PAGE if isinstance(message, Demand | Keep) else 0
        if isinstance(message, Demand):
            self.demanded += 1
            pages = self.rng.randint(1, message.pages)
            if self.rng.random() < 0.05:
                self.engine.filled(self.supply, message.sequence, b"", 0, "READ_FAILED")
            else:
                data = bytes(self.file[place : place + pages * PAGE])
                for index, frame in enumerate(message.frames[:pages]):
                    self.ram.write(frame * PAGE, data[index * PAGE : (index + 1) * PAGE])
                self.engine.filled(self.supply, message.sequence, b"" if message.frames else data, pages, "")
        elif isinstance(message, Keep):
            failure = "WRITE_FAILED" if self.rng.random() < 0.1 else ""
            if not failure:
                data = message.data or b"".join(self.ram.read(frame * PAGE, PAGE) for frame in message.frames)
                self.file[place : place + len(data)] = data
                self.kept += message.pages
            self.engine.kept(self.supply, message.sequence, failure)
        return True

    def act(self) -> None:
        """Does one thing, then lets others go on."""
        choice = self.rng.random()
        if choice < 0.02:
            self.start(self.engine.reclaim(None, "tight", self.rng.randint(1, 8)))
        elif choice < 0.03:
            self.start(self.engine.sync_object(self.made.handle, 0, 0, self.rng.random() < 0.5))
        elif choice < 0.035:
            self.engine.end_supply(self.supply, None)
            self.supply = self.reopen()
        else:
            self.touch(self.rng.choice(self.programs))
        for _ in range(self.rng.randint(0, 6)):
            if self.rng.random() < 0.4:
                self.serve_holders()
            else:
                self.turn()

    def touch(self, program: Any) -> None:
        """Reads or writes one word through a core, or begins the fault that it needs."""
        place, write = self.rng.randrange(PAGES) * PAGE + self.rng.choice([0, 8, 4088]), self.rng.random() < 0.5
        pa = self.translate(program.root_address, AT + place, write)
        if pa is None:
            self.start(self.engine.fault(program.handle, AT + place, 2 if write else 1), self.faulted)
        elif write:
            self.words[place] = self.rng.getrandbits(64)
            self.store64(pa, self.words[place])
        else:
            assert self.load(pa) == self.words.get(place, 0), hex(place)

    def faulted(self, task: Task) -> None:
        """Counts refusals; there are no others than those of the supplier, and of memory."""
        assert task.error is None, task.error
        if task.result.outcome == Outcome.BUS_ERROR:
            assert task.result.refusal_reason in ("READ_FAILED", "SUPPLIER_GONE")
            self.bus_errors += 1
        assert task.result.outcome != Outcome.SEGMENTATION_FAULT

    def finish(self) -> None:
        """Lets everything end, has all changes kept, and compares the file and memory with the words."""
        self.settle()
        self.check()
        for _ in range(100):
            try:
                self.run(self.engine.sync_object(self.made.handle, 0, 0, True))
                break
            except LaminaError as error:
                assert error.reason in ("WRITE_BACK_FAILED", "SUPPLY_FAILED"), error
        self.settle()
        for place, value in self.words.items():
            assert int.from_bytes(self.file[place : place + 8], "little") == value, hex(place)
        self.check()
        self.engine.end_supply(self.supply, None)
        for program in self.programs:
            self.run(self.engine.delete_space(program.handle))
        self.engine.delete_object(self.made.handle)
        self.check()
        assert self.m.frames.free == self.m.frames.count - 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("maps_memory", [False, True], ids=["bytes", "frames"])
def test_no_word_of_a_file_is_lost(seed: int, maps_memory: bool) -> None:
    """Whatever is evicted, demanded, kept, refused or cut off: what was written is read, and in the file at the end."""
    play = Play(seed, maps_memory)
    for _ in range(3000):
        play.act()
    play.finish()
    assert play.demanded > 50 and play.kept > 50 and play.bus_errors, (play.demanded, play.kept, play.bus_errors)
