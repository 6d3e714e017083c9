"""Random rings, descriptors and tables: an engine never raises, and reaches what its domain maps and nothing else."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.hardware.io_world import PAGE, World

from lamina_hardware.domain.devices.dma_buffers import DmaBuffers
from lamina_kit.errors import LaminaError, ResourceExhausted

FRAMES = 256


def hostile(chance: random.Random, world: World, pages: dict[int, int]) -> None:
    """Does one thing that a driver may do: descriptors, ring, doorbell, reset, each sane or not."""
    ports, queue = world.ports["e0"], chance.randrange(4)
    iovas = list(pages)
    for at in chance.sample(range(16), 4):
        source, target = (chance.choice(iovas) * PAGE + chance.randrange(PAGE) for _ in range(2))
        size = chance.choice((1, 8, 100, 500, PAGE, 70_000, chance.getrandbits(32)))
        control = chance.choice((0, 1, 1, 1, 1 << 24, 1 << 24 | 1, chance.getrandbits(32)))
        ring_page = pages[iovas[queue % 2]]
        world.memory.write(ring_page * PAGE + 32 * at, struct.pack("<IIQQ", control, size, source, target))
    if chance.random() < 0.2:
        address = chance.choice((chance.getrandbits(48) & ~31, chance.getrandbits(64)))
        ports.rings[queue] = (address, chance.choice((0, 2, 64, 3, chance.getrandbits(32))))
    else:
        ports.rings[queue] = (iovas[queue % 2] * PAGE, 16)
    wild = chance.random() < 0.1
    try:
        world.ring("e0", queue, chance.getrandbits(32) if wild else chance.randrange(16))
    except LaminaError as error:
        assert error.reason == "TAIL_OUTSIDE_RING"
    world.timers.advance(chance.randrange(100_000))
    if chance.random() < 0.3:
        world.devices.get("e0").model.reset()
        world.ports["e0"].tails.clear()


def run(seed: int) -> int:
    """Drives an engine at random; checks what it reached; returns how many descriptors were done."""
    chance = random.Random(seed)
    world = World(frames=FRAMES)
    pages = dict(zip(chance.sample(range(64), 12), chance.sample(range(100, FRAMES), 12), strict=True))
    mappings = ((iova * PAGE, frame * PAGE, PAGE) for iova, frame in pages.items())
    domain = world.domain(*mappings, device="e0")
    assert domain.tables is not None
    own = {frame >> 12 for frame in domain.tables.frames}
    before = bytes(world.memory.ram)
    for _ in range(40):
        hostile(chance, world, pages)
    after = bytes(world.memory.ram)
    changed = {at >> 12 for at in range(0, len(after), 8) if before[at : at + 8] != after[at : at + 8]}
    assert changed - own <= set(pages.values())
    for frame in changed & own:
        for at in range(frame * PAGE, (frame + 1) * PAGE, 8):
            difference = int.from_bytes(before[at : at + 8], "little") ^ int.from_bytes(after[at : at + 8], "little")
            assert difference & ~0x300 == 0
    assert not any(world.memory.dma)
    return len(world.ports["e0"].interrupts)


def test_random_rings() -> None:
    """Frames that are mapped are the only ones that change, but for A and D in the domain's tables; much is done."""
    done = [run(seed) for seed in range(25)]
    assert sum(done) > 100, done
    assert min(done) < max(done)


STEPS = st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.integers(0, 100)), max_size=60)


@given(STEPS)
def test_buffers_never_overlap(steps: list[tuple[int, bool, int]]) -> None:
    """Buffers lie apart, within the memory, at the lowest place that fits; `holds` agrees with a map of pages."""
    base, pages = 1 << 45, 40
    buffers = DmaBuffers(base, pages * PAGE)
    owners: dict[int, str] = {}
    for count, is_free, number in steps:
        listed = buffers.entries()
        if is_free and listed:
            gone = listed[number % len(listed)]
            buffers.free(gone)
            for page in range(gone.address, gone.end, PAGE):
                del owners[page]
            continue
        free = [
            at for at in range(pages - count + 1) if all(base + (at + n) * PAGE not in owners for n in range(count))
        ]
        owner = f"o{number % 2}"
        if not free:
            with pytest.raises(ResourceExhausted):
                buffers.allocate(count * PAGE, owner, "")
            continue
        made = buffers.allocate(count * PAGE, owner, "")
        assert made.address == base + free[0] * PAGE
        owners.update(dict.fromkeys(range(made.address, made.end, PAGE), owner))
    for at in range(pages):
        for size in (1, PAGE, PAGE + 1, 3 * PAGE):
            touched = [base + page * PAGE for page in range(at, at + -(-size // PAGE))]
            for owner in ("o0", "o1"):
                expected = all(owners.get(page) == owner for page in touched)
                assert buffers.holds(owner, base + at * PAGE, size) == expected
