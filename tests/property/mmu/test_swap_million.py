"""Swap against a plain dict: a million random operations, every byte accounted for.

Spaces that share pages by fork, one object, areas that come and go, a limit that swaps nearly all the time. The dict
knows, for each space and page, the word that was written last; a checksum of its words is compared with one over what
is read back at the end, and every read on the way with its word.
"""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from tests.property.mmu.books import check_books
from tests.property.mmu.world import PAGE, BytesRam, DictSwap

from lamina_kit.errors import LaminaError
from lamina_mmu.domain.effects import Shootdown
from lamina_mmu.domain.ports import Ports, Settings
from lamina_mmu.domain.session import NOBODY
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.spaces.space import Kind
from lamina_mmu.engines.model.engine import ModelEngine

BASE, PAGES, SEA = 0x1000_0000, 128, 32


class Media:
    """Swap areas in dicts."""

    def open(self, name: str, slots: int, disk: Any = None, /) -> DictSwap:
        """Returns an empty store."""
        return DictSwap(slots)

    def remove(self, name: str) -> None:
        """Has nothing to remove."""


def run(step: Any) -> Any:
    """Runs a step that nothing else interleaves with: shootdowns have no core to reach."""
    value: Any = None
    try:
        while True:
            effect = step.send(value)
            assert isinstance(effect, Shootdown) or type(effect).__name__ == "Sleep", effect
            value = None
    except StopIteration as end:
        return end.value


class Play:
    """One machine, its spaces, and the dict: (space, page) → word; pages of the object under space 0."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        ports = Ports(
            "h1", BytesRam(512), DictSwap(600), lambda: 0, lambda *a, **k: None, lambda *a: None, media=Media()
        )
        self.engine = ModelEngine(ports, Settings())
        run(self.engine.create_group("tight", "", {"max_bytes": 150 * PAGE}, NOBODY, ""))
        self.sea = run(self.engine.create_object(SEA * PAGE, "tight", "sea", NOBODY, ""))
        self.words: dict[tuple[int, int], int] = {}
        self.spaces: dict[int, Any] = {}
        self.areas: list[str] = []
        self.made = self.refused = 0
        self.add(run(self.engine.create_space(Kind.PROCESS, "tight", "", NOBODY, "")))
        self.map(self.spaces[1])

    def add(self, view: Any) -> int:
        """Takes up a space."""
        self.made += 1
        self.spaces[self.made] = view.handle
        return self.made

    def map(self, handle: Any) -> None:
        """Maps private memory and the shared object."""
        run(self.engine.map_range(handle, MapSpec(BASE, PAGES * PAGE, 3, fixed=True)))
        sea = MapSpec(BASE * 2, SEA * PAGE, 3, fixed=True, object=self.sea.handle, shared=True)
        run(self.engine.map_range(handle, sea))

    def place(self) -> tuple[Any, int, tuple[int, int]]:
        """Returns a space, an address and the key of a page there."""
        number = self.rng.choice(list(self.spaces))
        if self.rng.random() < 0.1:
            page = self.rng.randrange(SEA)
            return self.spaces[number], BASE * 2 + page * PAGE + 8 * (page % 500), (0, page)
        page = min(int(self.rng.expovariate(1 / 16)), PAGES - 1)
        return self.spaces[number], BASE + page * PAGE + 8 * (page % 500), (number, page)

    def act(self) -> None:
        """Does one thing."""
        choice = self.rng.random()
        if choice < 0.5:
            handle, address, key = self.place()
            word = self.rng.getrandbits(64)
            run(self.engine.write_space(handle, address, word.to_bytes(8, "little"), False))
            self.words[key] = word
        elif choice < 0.9985:
            handle, address, key = self.place()
            data = run(self.engine.read_space(handle, address, 8))
            assert int.from_bytes(data, "little") == self.words.get(key, 0), (key, hex(address))
        elif choice < 0.999:
            self.unmap()
        elif choice < 0.9993:
            self.fork_or_exit()
        elif choice < 0.9996:
            run(self.engine.reclaim(None, "tight", self.rng.randint(1, 64)))
        else:
            self.change_areas()

    def unmap(self) -> None:
        """Gives some pages up, and maps zeros there."""
        number = self.rng.choice(list(self.spaces))
        first = self.rng.randrange(PAGES)
        count = self.rng.randint(1, PAGES - first)
        spec = MapSpec(BASE + first * PAGE, count * PAGE, 3, fixed=True, replace=True)
        run(self.engine.map_range(self.spaces[number], spec))
        for page in range(first, first + count):
            self.words.pop((number, page), None)

    def fork_or_exit(self) -> None:
        """Copies a space, or ends one."""
        number = self.rng.choice(list(self.spaces))
        if len(self.spaces) < 3:
            child = self.add(run(self.engine.fork_space(self.spaces[number], "", "", NOBODY, "")))
            mine = [(page, word) for (space, page), word in self.words.items() if space == number]
            self.words.update({(child, page): word for page, word in mine})
        else:
            run(self.engine.delete_space(self.spaces.pop(number)))
            self.words = {key: word for key, word in self.words.items() if key[0] != number}

    def change_areas(self) -> None:
        """Makes an area, or takes one out of use; the first one, too, when another is there."""
        if len(self.areas) < 2:
            name = f"a{self.rng.getrandbits(32)}"
            run(self.engine.create_swap_area(name, self.rng.choice([40, 300]), self.rng.randint(0, 3), ""))
            self.areas.append(name)
            return
        name = self.areas.pop(0)
        drain = self.engine.begin_drain(name)
        try:
            while not drain.done:
                run(self.engine.drain(drain))
        except LaminaError as error:
            assert error.reason == "NO_FREE_FRAME"
            self.refused += 1
            self.areas.append(name)
        finally:
            self.engine.end_drain(drain)

    def checksum(self) -> tuple[int, int]:
        """Returns the checksum of all words as the dict has them, and as memory has them."""
        ours = theirs = 0
        for number, handle in self.spaces.items():
            for key, base, pages in ((number, BASE, PAGES), (0, BASE * 2, SEA)):
                for page in range(pages):
                    ours = zlib.crc32(self.words.get((key, page), 0).to_bytes(8, "little"), ours)
                    address = base + page * PAGE + 8 * (page % 500)
                    theirs = zlib.crc32(run(self.engine.read_space(handle, address, 8)), theirs)
        return ours, theirs


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("seed", "operations"), [(1, 50_000), pytest.param(2, 1_000_000, marks=pytest.mark.slow)], ids=["short", "million"]
)
def test_no_byte_is_lost(seed: int, operations: int) -> None:
    """After so many operations every word is what the dict says, and no count is off."""
    play = Play(seed)
    for number in range(operations):
        play.act()
        if number % 20_000 == 0:
            check_books(play.engine.machine)
    ours, theirs = play.checksum()
    assert ours == theirs
    check_books(play.engine.machine)
    swap = play.engine.machine.swap
    assert swap.written > operations // 50 and swap.read_back > operations // 50, (swap.written, swap.read_back)
    assert play.made > 2 and play.refused < play.made + 10
