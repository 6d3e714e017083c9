"""Swap on disks against a dict of bytes: transfers that end late and out of order, fail, and whose callers go away."""

from __future__ import annotations

from typing import Any

import pytest
from tests.property.mmu.world import PAGE, Task, World

from lamina_kit.errors import DataLoss, LaminaError
from lamina_mmu.domain.effects import swap_area_key
from lamina_mmu.domain.session import NOBODY
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.spaces.space import Kind
from lamina_mmu.domain.swap.transfers import SwapTransfer

BASE = 0x1000_0000


class LateDisk:
    """A disk whose transfers end when the world says so. Bytes move at the end, in whatever order that comes."""

    def __init__(self, world: World, slots: int) -> None:
        self.world, self.slots, self.disk = world, slots, "d"
        self.pages: dict[int, bytes] = {}
        self.under_way: list[SwapTransfer] = []
        self.failing = False
        self.ended = self.failed = self.longest = 0

    def begin(self, transfer: SwapTransfer, /) -> None:
        """Begins a transfer."""
        self.under_way.append(transfer)
        self.longest = max(self.longest, transfer.count)

    def end_one(self) -> bool:
        """Ends one of those under way; returns whether there was one."""
        if not self.under_way:
            return False
        transfer = self.under_way.pop(self.world.rng.randrange(len(self.under_way)))
        ram, bad = self.world.ram, self.failing and self.world.rng.random() < 0.7
        for place in range(transfer.first, transfer.first + transfer.count):
            if bad and self.world.rng.random() < 0.5:
                transfer.errors[place] = DataLoss("The disk fails.", reason="SWAP_IO_FAILED", next_step="Wait.")
                self.failed += 1
                continue
            if not transfer.frames:
                transfer.data += self.pages[place]
                continue
            frame = transfer.frames[place - transfer.first]
            if transfer.write:
                self.pages[place] = ram.read(frame * PAGE, PAGE)
            else:
                ram.write(frame * PAGE, self.pages[place])
        self.ended += 1
        transfer.finished(transfer)
        return True


class DiskWorld(World):
    """Four spaces in a group that holds a third of their pages; swap is on two disks and, in part, in a file."""

    def __init__(self, seed: int, file_slots: int) -> None:
        super().__init__(seed, frames=512, slots=file_slots)
        self.pages = 40
        self.disks = [LateDisk(self, 120) for _ in range(2)]
        for number, disk in enumerate(self.disks):
            disk.disk = f"d{number}"
            self.m.swap.add(disk, f"disk{number}", 5)
        self.run(self.engine.create_group("tight", "", {"max_bytes": 66 * PAGE}, NOBODY, ""))
        self.spaces: list[Any] = []
        self.model: list[bytearray] = []
        self.busy: dict[int, Task] = {}
        for _ in range(4):
            space = self.run(self.engine.create_space(Kind.PROCESS, "tight", "", NOBODY, ""))
            self.run(self.engine.map_range(space.handle, MapSpec(BASE, self.pages * PAGE, 3, fixed=True)))
            self.spaces.append(space.handle)
            self.model.append(bytearray(self.pages * PAGE))
        self.lost = self.gone = 0

    def serve_holders(self) -> bool:
        """Ends transfers when nothing else can go on."""
        return self.disks[0].end_one() or self.disks[1].end_one()

    def act(self) -> None:
        """Begins a read or a write, lets something go on, or makes a caller go away."""
        roll = self.rng.random()
        number = self.rng.randrange(4)
        if roll < 0.4 and number not in self.busy:
            self.begin(number)
        elif roll < 0.75:
            self.turn()
        elif roll < 0.97:
            self.disks[self.rng.randrange(2)].end_one()
        elif roll < 0.985 and self.busy:
            self.give_up(self.rng.choice(sorted(self.busy)))
        else:
            for disk in self.disks:
                disk.failing = self.rng.random() < 0.3

    def begin(self, number: int) -> None:
        """Begins to read or to write bytes of a space."""
        size = self.rng.choice([8, 100, 5000])
        place = self.rng.randrange(len(self.model[number]) - size)
        write = self.rng.random() < 0.5
        data = self.rng.randbytes(size)
        handle, model = self.spaces[number], self.model[number]

        def done(task: Task) -> None:
            self.busy.pop(number, None)
            if task.error is not None:
                assert task.error.reason in ("SWAP_IO_FAILED", "NO_FREE_FRAME"), task.error
                self.lost += 1
                if write:  # what was written before the error stays
                    self.resync(number, place, size)
            elif write:
                model[place : place + size] = data
            else:
                assert task.result == model[place : place + size], f"space {number} at {place:#x}"

        step = self.engine.write_space(handle, BASE + place, data, False) if write else None
        task = self.start(step or self.engine.read_space(handle, BASE + place, size), done)
        if not task.finished:
            task.write = (place, size) if write else None  # type: ignore[attr-defined]
            self.busy[number] = task

    def resync(self, number: int, place: int, size: int) -> None:
        """Takes what is there now as what a write left that did not come to its end: old and new bytes only."""
        self.model[number][place : place + size] = self.calm(self.engine.read_space, number, place, size)

    def calm(self, call: Any, number: int, place: int, size: int) -> bytes:
        """Reads with disks that work, again until it can be."""
        was = [disk.failing for disk in self.disks]
        for disk in self.disks:
            disk.failing = False
        while True:
            try:
                found: bytes = self.run(call(self.spaces[number], BASE + place, size))
                break
            except LaminaError as error:
                assert error.reason == "SWAP_IO_FAILED", error  # of a read that failed before
        for disk, failing in zip(self.disks, was, strict=True):
            disk.failing = failing
        return found

    def give_up(self, number: int) -> None:
        """Ends a call in its middle, as when its caller goes away."""
        task = self.busy.pop(number)
        self.tasks.remove(task)
        task.step.close()
        self.gone += 1
        write = task.write  # type: ignore[attr-defined]
        if write is not None:
            self.resync(number, *write)

    def finish(self) -> None:
        """Lets everything end, compares all bytes, checks the books, and takes the disks out of use."""
        for disk in self.disks:
            disk.failing = False
        self.settle()
        while self.serve_holders():
            pass
        self.check()
        for number, model in enumerate(self.model):
            assert self.calm(self.engine.read_space, number, 0, len(model)) == model
        for number in range(2):
            checked = self.run(self.engine.check_swap(f"disk{number}", -1))
            assert not checked.corrupt
            drain = self.engine.begin_drain(f"disk{number}")
            while not drain.done:
                self.run(self.engine.drain(drain))
            self.engine.end_drain(drain)


@pytest.mark.parametrize(("seed", "file_slots"), [(1, 60), (2, 60), (3, 0), (4, 0)])
def test_bytes_come_back_from_disks(seed: int, file_slots: int) -> None:
    """Whatever ends late, fails or is given up, every byte is what was written last."""
    world = DiskWorld(seed, file_slots)
    world.run(world.engine.update_group("tight", {"max_bytes": 66 * PAGE}))
    for _ in range(6000):
        world.act()
    world.run(world.engine.update_group("tight", {"max_bytes": None}))
    world.finish()
    assert world.gone > 5 and sum(disk.failed for disk in world.disks) > 5
    assert min(disk.ended for disk in world.disks) > 100 and max(disk.longest for disk in world.disks) > 4
    assert world.m.swap.written > 200 and world.m.swap.read_back > 200
    assert not any(area.disk for area in world.m.swap.areas)


def test_a_slot_is_not_given_away_while_a_write_to_it_is_under_way() -> None:
    """A caller that goes away leaves its write behind: the slot is in use until the disk is done with it."""
    world = DiskWorld(9, 0)
    (space, disk) = world.spaces[0], world.disks[0]
    world.run(world.engine.write_space(space, BASE, b"x" * 4 * PAGE, False))
    task = world.start(world.engine.reclaim(space, "", 2))
    while not any(disk.under_way for disk in world.disks):
        world.advance(task)
    world.tasks.remove(task)
    task.step.close()
    used = [area.used for area in world.m.swap.areas]
    world.run(world.engine.delete_space(space))
    assert sum(area.used for area in world.m.swap.areas) == sum(used) > 0
    while any(disk.under_way for disk in world.disks):
        world.serve_holders()
    assert sum(area.used for area in world.m.swap.areas) == 0
    assert swap_area_key(0) != swap_area_key(1) and disk.ended <= 2
    world.spaces.pop(0)
    world.check()
