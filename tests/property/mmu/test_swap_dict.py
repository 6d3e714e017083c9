"""Swap against a dict of bytes: random reads and writes under tight limits, many thousand in a run."""

from __future__ import annotations

import pytest
from tests.property.mmu.world import PAGE, World

from lamina_mmu.domain.session import NOBODY
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.spaces.space import Kind

BASE = 0x1000_0000


@pytest.mark.parametrize(("seed", "pages", "room"), [(1, 40, 12), (2, 200, 60), (3, 9, 6)])
def test_bytes_come_back_from_swap(seed: int, pages: int, room: int) -> None:
    """12,000 reads and writes of 1 to 5000 bytes in a space that has room for a third of its pages in RAM."""
    world = World(seed, frames=512, slots=pages + 8)
    engine = world.engine
    world.run(engine.create_group("tight", "", {"max_bytes": (room + 4) * PAGE}, NOBODY, ""))
    space = world.run(engine.create_space(Kind.PROCESS, "tight", "", NOBODY, ""))
    world.run(engine.map_range(space.handle, MapSpec(BASE, pages * PAGE, 3, fixed=True)))
    model = bytearray(pages * PAGE)
    for number in range(12_000):
        size = world.rng.choice([1, 8, 8, 100, 5000])
        place = world.rng.randrange(len(model) - size)
        if world.rng.random() < 0.5:
            data = world.rng.randbytes(size)
            model[place : place + size] = data
            world.run(engine.write_space(space.handle, BASE + place, data, False))
        else:
            assert world.run(engine.read_space(space.handle, BASE + place, size)) == model[place : place + size]
        if number % 1000 == 0:
            world.check()
    assert world.run(engine.read_space(space.handle, BASE, len(model))) == model
    assert world.m.swap.written > 1000 and world.m.dropped > 100
    assert engine.space(space.handle).resident <= room
    world.check()


def test_a_vms_ram_comes_back_from_swap() -> None:
    """The same for a space whose entries are kept outside RAM, read and written by the MMU alone."""
    world = World(4, frames=64, slots=100)
    engine = world.engine
    world.run(engine.create_group("tight", "", {"max_bytes": 10 * PAGE}, NOBODY, ""))
    space = world.run(engine.create_space(Kind.GUEST_RAM, "tight", "", NOBODY, ""))
    world.run(engine.map_range(space.handle, MapSpec(0, 30 * PAGE, 3, fixed=True)))
    model = bytearray(30 * PAGE)
    for _ in range(5000):
        place = world.rng.randrange(len(model) - 16)
        data = world.rng.randbytes(16)
        model[place : place + 16] = data
        world.run(engine.write_space(space.handle, place, data, False))
    assert world.run(engine.read_space(space.handle, 0, len(model))) == model
    assert engine.space(space.handle).resident <= 10 and world.m.swap.written > 100
    world.check()
