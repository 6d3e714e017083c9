"""Single races of ADR 0002, each held open at its worst moment."""

from __future__ import annotations

from typing import Any

from tests.property.mmu.world import PAGE, Holder, Task, World

from lamina_mmu.domain.outcome import Outcome
from lamina_mmu.domain.session import NOBODY
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.spaces.space import Kind

BASE = 0x40_0000
READ, WRITE = 1, 2


def process(world: World, pages: int = 4, **mapping: Any) -> Any:
    """Returns a process with a mapping at BASE."""
    view = world.run(world.engine.create_space(Kind.PROCESS, "", "", NOBODY, ""))
    world.run(world.engine.map_range(view.handle, MapSpec(BASE, pages * PAGE, 3, fixed=True, **mapping)))
    return view


def guest(world: World, pages: int = 4, **mapping: Any) -> tuple[Any, Holder]:
    """Returns a VM's RAM and its holder, whose root the MMU can void."""
    view = world.run(world.engine.create_space(Kind.GUEST_RAM, "", "", NOBODY, ""))
    world.run(world.engine.map_range(view.handle, MapSpec(0, pages * PAGE, 3, fixed=True, **mapping)))
    eptp = world.run(world.engine.allocate_frames(1, "ept", "", NOBODY, ""))[0] * PAGE
    return view, Holder(world, world.engine.open_hold(view.handle, eptp, "vm"))


def entry(world: World, view: Any, address: int) -> int:
    """Returns an entry."""
    return int(world.m.spaces.slot(view.handle.id).table.load(address // PAGE))


def until_shootdown(world: World, task: Task) -> None:
    """Lets a task run until it waits for a shootdown that is not yet performed."""
    while task.shootdown is None:
        world.advance(task)


def finish(world: World, task: Task) -> None:
    """Lets one task run to its end."""
    while not task.finished:
        world.advance(task)
    assert task.error is None, task.error


def test_a_pin_between_choice_and_eviction_keeps_the_page() -> None:
    """A frame that is pinned while its translations are shot down is put back with its entry, A and D and all."""
    world = World(1, 64, 16)
    view = process(world)
    world.run(world.engine.write_space(view.handle, BASE, b"kept", False))
    before = entry(world, view, BASE)
    task = world.start(world.engine.reclaim(view.handle, "", 1))
    until_shootdown(world, task)
    world.advance(task)  # the sample is shot down; now the victim's own shootdown is asked for
    until_shootdown(world, task)
    assert entry(world, view, BASE) & 0xF == 8
    frame = before >> 12 & 0xFF_FFFF
    world.ram.pinned[frame] = 1
    finish(world, task)
    assert task.result.pages == 0
    assert entry(world, view, BASE) | 0x20 == before | 0x20
    assert world.run(world.engine.read_space(view.handle, BASE, 4)) == b"kept"
    del world.ram.pinned[frame]
    assert world.run(world.engine.reclaim(view.handle, "", 1)).pages == 1
    world.check()


def test_a_page_on_its_way_out_of_one_space_is_not_handed_over_in_another() -> None:
    """While an unmapped shared page is still in some core's TLB, the other space's write copies it."""
    world = World(1, 64, 16)
    parent = process(world)
    world.run(world.engine.write_space(parent.handle, BASE, b"shared", False))
    child = world.run(world.engine.fork_space(parent.handle, "", "", NOBODY, ""))
    shared = entry(world, child, BASE) >> 12 & 0xFF_FFFF
    unmapping = world.start(world.engine.unmap_range(parent.handle, BASE, BASE + PAGE))
    until_shootdown(world, unmapping)
    result = world.run_apart(world.engine.fault(child.handle, BASE, WRITE), unmapping)
    assert result.outcome == Outcome.COPIED and result.frame != shared
    finish(world, unmapping)
    assert world.m.frames.use[shared] == 0
    world.check()


def test_a_copied_page_leaves_no_old_translation() -> None:
    """When a write has got its copy, no core of the space still reads the page that it was copied from."""
    world = World(1, 64, 16)
    parent = process(world)
    world.run(world.engine.write_space(parent.handle, BASE, b"old", False))
    child = world.run(world.engine.fork_space(parent.handle, "", "", NOBODY, ""))
    for _ in range(8):  # both cores
        assert world.translate(child.root_address, BASE, False) is not None
    frame = world.run(world.engine.fault(child.handle, BASE, WRITE)).frame
    assert {world.translate(child.root_address, BASE, False) for _ in range(8)} == {frame * PAGE}


def test_sampled_pages_are_shot_down_so_that_the_next_access_shows() -> None:
    """After A was cleared no core has the translation: its next access sets A again."""
    world = World(1, 64, 16)
    view = process(world)
    for index in range(3):
        address = BASE + index * PAGE
        world.run(world.engine.fault(view.handle, address, WRITE))
        for _ in range(8):  # both cores
            assert world.translate(view.root_address, address, True) is not None
    world.run(world.engine.reclaim(view.handle, "", 1))
    assert entry(world, view, BASE) & 1 == 0
    for index in (1, 2):
        assert entry(world, view, BASE + index * PAGE) & 0x20 == 0
        assert world.translate(view.root_address, BASE + index * PAGE, False) is not None
        assert entry(world, view, BASE + index * PAGE) & 0x20


def test_a_holder_that_is_ending_still_writes_until_its_root_is_shot_down() -> None:
    """An eviction that meets the end of a hold waits for it, and counts the page as written."""
    world = World(1, 64, 16)
    view, holder = guest(world)
    world.run(world.engine.want(holder.hold, 1, 0, WRITE))
    while holder.step():
        continue
    ending = world.start(world.engine.end_hold(holder.hold, None))
    until_shootdown(world, ending)
    evicting = world.start(world.engine.reclaim(view.handle, "", 1))
    assert not evicting.finished and evicting.key == ("ended", holder.hold.id)
    pa = holder.access(8, True)
    assert pa is not None
    world.store64(pa, 0x1234)
    finish(world, ending)
    finish(world, evicting)
    assert (evicting.result.pages, evicting.result.written) == (1, 1)
    assert world.run(world.engine.read_space(view.handle, 8, 2)) == b"\x34\x12"
    world.check()


def test_a_hold_that_ends_while_a_root_is_shot_down_leaves_its_page_dirty() -> None:
    """A shared object's page, mapped by a process and held by a VM, is written though the VM's bits are lost."""
    world = World(1, 64, 16)
    sea = world.run(world.engine.create_object(PAGE, "", "", NOBODY, ""))
    view = process(world, 1, object=sea.handle, shared=True)
    ram, holder = guest(world, 1, object=sea.handle, shared=True)
    world.run(world.engine.fault(view.handle, BASE, READ))
    assert world.translate(view.root_address, BASE, False) is not None
    world.run(world.engine.want(holder.hold, 1, 0, WRITE))
    while holder.step():
        continue
    evicting = world.start(world.engine.reclaim(view.handle, "", 1))
    world.run_holder(evicting, holder)
    pa = holder.access(0, True)
    assert pa is not None
    world.store64(pa, 77)
    ending = world.start(world.engine.end_hold(holder.hold, None))
    finish(world, ending)
    finish(world, evicting)
    assert evicting.result.written == 1
    assert world.run(world.engine.read_space(ram.handle, 0, 1)) == b"M"
    world.check()
