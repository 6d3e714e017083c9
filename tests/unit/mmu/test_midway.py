"""Steps of the model engine that are held, cancelled or overtaken in the middle: nothing is lost, and books agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.property.mmu.world import PAGE, Task, World
from tests.unit.mmu.test_races import BASE, READ, WRITE, entry, finish, process, until_shootdown

from lamina_kit.errors import FailedPrecondition
from lamina_mmu.domain.frames.table import HUGE_FRAMES, Use
from lamina_mmu.domain.outcome import Outcome
from lamina_mmu.domain.session import NOBODY, Session
from lamina_mmu.domain.spaces.advice import Advice
from lamina_mmu.domain.spaces.settings import HugePages
from lamina_mmu.domain.spaces.space import Kind
from lamina_mmu.domain.views import SettingsChange
from lamina_mmu.engines.model.withdrawal.migration import move, spare_like

HUGE = HUGE_FRAMES * PAGE


def cancel(world: World, task: Task) -> None:
    """Ends a task as a caller that goes away does."""
    world.tasks.remove(task)
    task.step.close()


def frame_at(world: World, view: Any, address: int) -> int:
    """Returns the frame of a page in RAM."""
    found = entry(world, view, address)
    assert found & 1
    return found >> 12 & 0xFF_FFFF


def fill(world: World, view: Any, pages: int) -> None:
    """Writes each page's number into it."""
    for page in range(pages):
        world.run(world.engine.write_space(view.handle, BASE + page * PAGE, page.to_bytes(2, "little"), False))


def holds(world: World, view: Any, pages: int, base: int = BASE) -> None:
    """Checks that each page has its number in it."""
    found = [world.run(world.engine.read_space(view.handle, base + page * PAGE, 2)) for page in range(pages)]
    assert found == [page.to_bytes(2, "little") for page in range(pages)]


def huge(world: World, blocks: int = 1) -> Any:
    """Returns a process that has huge pages wherever it can, with so many mapped."""
    view = process(world, blocks * HUGE_FRAMES)
    change = SettingsChange(("huge_pages",), None, None, {"huge_pages": HugePages.ALWAYS})
    world.run(world.engine.update_space_settings(view.handle, change))
    return view


# ── moving ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def moving(world: World, view: Any) -> tuple[Task, int]:
    """Starts to move the second page of a space; returns that, and the frame from which it moves."""
    frame = frame_at(world, view, BASE + PAGE)
    task = world.start(move(world.m, [frame], lambda old: spare_like(world.m, old), "test"))
    until_shootdown(world, task)
    assert entry(world, view, BASE + PAGE) & 0xF == 8
    return task, frame


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("end", ["lands", "pinned", "cancelled"])
def test_a_page_that_moves_is_in_one_frame_at_the_end(shared: bool, end: str) -> None:
    """It lands in the new one, or stays when it is pinned in the middle or the mover goes; the other frame is free."""
    world = World(1, 64, 16)
    more: dict[str, Any] = {}
    if shared:
        sea = world.run(world.engine.create_object(4 * PAGE, "", "", NOBODY, ""))
        more = {"object": sea.handle, "shared": True}
    view = process(world, **more)
    fill(world, view, 4)
    task, frame = moving(world, view)
    free = world.m.frames.free
    if end == "pinned":
        world.ram.pin(frame)
    if end == "cancelled":
        cancel(world, task)
    else:
        finish(world, task)
    now = frame_at(world, view, BASE + PAGE)
    assert (now != frame) == (end == "lands") and world.m.frames.free == free + 1
    assert task.result == {"lands": 1, "pinned": 0, "cancelled": None}[end]
    holds(world, view, 4)
    if end == "pinned":
        world.ram.unpin(frame)
    world.check()


def test_a_moved_page_keeps_its_copy_in_swap() -> None:
    """A clean page that came back from swap moves with its slot: it is dropped without a write afterwards."""
    world = World(1, 64, 16)
    view = process(world)
    fill(world, view, 4)
    assert world.run(world.engine.reclaim(view.handle, "", 4)).pages == 4
    holds(world, view, 4)
    written = world.m.swap.written
    task, _ = moving(world, view)
    finish(world, task)
    assert world.run(world.engine.reclaim(view.handle, "", 4)).written == 0 and world.m.swap.written == written
    holds(world, view, 4)
    world.check()


# ── waiting for room ─────────────────────────────────────────────────────────────────────────────────────────────────


def full(world: World) -> Any:
    """Returns a process that has nearly all frames."""
    view = process(world, 64)
    page = 0
    while world.m.frames.free > 1:
        world.run(world.engine.write_space(view.handle, BASE + page * PAGE, b"x", False))
        page += 1
    return view


def waiting(world: World, step: Any) -> Task:
    """Starts a step that has to wait for others' pages to leave RAM."""
    task = world.start(step)
    until_shootdown(world, task)
    return task


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_group_stays_while_frames_for_it_are_waited_for(is_cancelled: bool) -> None:
    """It cannot be deleted until the call has ended, however it ends; then it can, and what was taken is back."""
    world = World(1, 32, 64)
    full(world)
    world.run(world.engine.create_group("late", "", {}, NOBODY, ""))
    task = waiting(world, world.engine.allocate_frames(4, "me", "late", NOBODY, ""))
    with pytest.raises(FailedPrecondition) as refused:
        world.engine.delete_group("late")
    assert refused.value.reason == "GROUP_IN_USE"
    if is_cancelled:
        cancel(world, task)
    else:
        finish(world, task)
        assert len(task.result) == 4 and list(task.result) == sorted(task.result)
        world.engine.free_frames(task.result, "me")
    world.engine.delete_group("late")
    world.settle()
    world.check()


def test_frames_are_all_there_or_none() -> None:
    """More than there can ever be are refused, and those that were taken on the way are free again."""
    world = World(1, 32, 0)
    before = world.m.frames.free
    with pytest.raises(Exception) as refused:
        world.run(world.engine.allocate_frames(before + 1, "me", "", NOBODY, ""))
    assert getattr(refused.value, "reason", "") == "NO_FREE_FRAME" and world.m.frames.free == before
    frames = world.run(world.engine.allocate_frames(2, "me", "", NOBODY, ""))
    for wrong in ((frames[0], frames[0]), (frames[0], 3)):
        with pytest.raises(FailedPrecondition):
            world.engine.free_frames(wrong, "me")
    with pytest.raises(FailedPrecondition):
        world.engine.free_frames(frames, "you")
    assert world.m.frames.free == before - 2
    world.engine.free_frames(frames, "me")
    world.check()


def test_a_large_population_is_looked_at_in_windows() -> None:
    """Of many pages eight times as many as are to go are looked at, and at least 64; of few all."""
    world = World(1, 1024, 1024)
    view = process(world, 600)
    fill(world, view, 600)
    task = world.run(world.engine.reclaim(view.handle, "", 600))
    assert task.pages == 600
    holds(world, view, 600)
    scanned = world.engine.group_statistics("").scanned
    assert world.run(world.engine.reclaim(None, "", 32)).pages == 32
    looked = world.engine.group_statistics("").scanned - scanned
    assert looked % 256 == 0 and looked
    few = process(world, 40)
    world.run(world.engine.reclaim(view.handle, "", 600))
    fill(world, few, 40)
    scanned = world.engine.group_statistics("").scanned
    world.run(world.engine.reclaim(None, "", 1))
    assert world.engine.group_statistics("").scanned - scanned == 40
    world.check()


# ── pins ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("end", ["read", "written", "expired"])
def test_a_pinned_page_counts_as_written_only_when_that_is_said(end: str) -> None:
    """A page that came back from swap, was pinned and is given up clean leaves RAM without a write again."""
    world = World(1, 64, 16)
    view = process(world, 1)
    fill(world, view, 1)
    world.run(world.engine.reclaim(view.handle, "", 1))
    pin = world.run(world.engine.pin_range(view.handle, BASE, 10, False, Session("me", 1), ""))
    frame = frame_at(world, view, BASE)
    assert world.ram.pins(frame) == 1 and [run.frame for run in pin.runs] == [frame]
    assert world.run(world.engine.reclaim(view.handle, "", 1)).pages == 0
    if end == "expired":
        assert world.engine.owned("me") == 1
        world.run(world.engine.expire("me", 0))
        assert world.ram.pins(frame) == 1, "an older session is not it"
        world.run(world.engine.expire("me", 1))
        assert world.engine.owned("me") == 0
    else:
        world.engine.unpin_ranges([pin.handle], end == "written")
    assert world.ram.pins(frame) == 0 and world.m.pinned_frames == 0
    gone = world.run(world.engine.reclaim(view.handle, "", 1))
    assert (gone.pages, gone.written) == (1, int(end == "written"))
    world.check()


def test_what_a_session_made_ends_with_it() -> None:
    """Spaces, objects, frames and groups of its epoch and before; those of a later one and of others stay."""
    world = World(1, 64, 16)
    engine = world.engine
    mine, later, other = Session("me", 2), Session("me", 3), Session("you", 1)
    for name, session in (("a", mine), ("b", later), ("c", other)):
        world.run(engine.create_group(name, "", {}, session, ""))
        world.run(engine.create_space(Kind.PROCESS, "", name, session, ""))
        world.run(engine.create_object(PAGE, "", name, session, ""))
        world.run(engine.allocate_frames(2, name, "", session, ""))
    assert (engine.owned("me"), engine.owned("you")) == (8, 4)
    world.run(engine.expire("me", 2))
    assert [one.label for one in engine.spaces(0, 9)] == ["b", "c"] == [one.label for one in engine.objects(0, 9)]
    assert [one.name for one in engine.groups(-1, 9)] == ["root", "b", "c"]
    assert world.m.frames.by_use[Use.ALLOCATED] == 4 and (engine.owned("me"), engine.owned("you")) == (4, 4)
    world.check()


# ── huge pages ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_shared_huge_page_goes_to_its_last_user_whole() -> None:
    """After the child ended the parent's write needs no copy, keeps the frames, and the page stays huge."""
    world = World(1, 4 * HUGE_FRAMES, 0)
    view = huge(world)
    world.run(world.engine.write_space(view.handle, BASE, b"mine", False))
    first = frame_at(world, view, BASE)
    child = world.run(world.engine.fork_space(view.handle, "", "", NOBODY, ""))
    assert world.m.frames.refs[first] == 2 and not entry(world, view, BASE) & 2
    assert world.run(world.engine.read_space(child.handle, BASE, 4)) == b"mine"
    world.run(world.engine.delete_space(child.handle))
    result = world.run(world.engine.fault(view.handle, BASE, WRITE))
    assert result.frame == first
    assert frame_at(world, view, BASE) == first and entry(world, view, BASE) & 2
    assert world.m.spaces.slot(view.handle.id).table.is_huge(BASE // PAGE)
    world.check()


def test_a_fork_of_huge_pages_that_nobody_may_write_shoots_nothing_down() -> None:
    """Only a right to write that goes is worth a shootdown; a second fork takes none away."""
    world = World(1, 4 * HUGE_FRAMES, 0)
    view = huge(world)
    world.run(world.engine.write_space(view.handle, BASE, b"x", False))
    assert world.m.spaces.slot(view.handle.id).table.is_huge(BASE // PAGE)
    before = world.shootdowns
    world.run(world.engine.fork_space(view.handle, "", "", NOBODY, ""))
    assert world.shootdowns == before + 1
    world.run(world.engine.fork_space(view.handle, "", "", NOBODY, ""))
    assert world.shootdowns == before + 1
    world.check()


def test_a_locked_huge_page_is_locked_in_all_its_frames() -> None:
    """None of its pages leaves RAM until it is unlocked."""
    world = World(1, 4 * HUGE_FRAMES, HUGE_FRAMES)
    view = huge(world)
    world.run(world.engine.lock_range(view.handle, BASE, BASE + HUGE, False))
    assert world.m.spaces.slot(view.handle.id).table.is_huge(BASE // PAGE)
    assert len(world.m.locked) == HUGE_FRAMES
    assert world.run(world.engine.reclaim(view.handle, "", 5)).pages == 0
    world.check()
    world.run(world.engine.unlock_range(view.handle, BASE, BASE + HUGE))
    assert not world.m.locked and world.run(world.engine.reclaim(view.handle, "", 5)).pages == 5
    world.check()


@pytest.mark.parametrize("end", ["made", "pinned", "cancelled"])
@pytest.mark.parametrize("is_locked", [False, True])
def test_a_collapse_is_whole_or_not_at_all(end: str, is_locked: bool) -> None:
    """Its pages are one huge page afterwards, or each is where it was; no frame is lost, and no lock."""
    world = World(1, 4 * HUGE_FRAMES, 8)
    view = process(world, HUGE_FRAMES)
    fill(world, view, HUGE_FRAMES)
    if is_locked:
        world.run(world.engine.lock_range(view.handle, BASE, BASE + HUGE, False))
    frame, free = frame_at(world, view, BASE + PAGE), world.m.frames.free
    task = world.start(world.engine.advise_range(view.handle, BASE, BASE + HUGE, Advice.COLLAPSE))
    until_shootdown(world, task)
    if end == "pinned":
        world.ram.pin(frame)
    if end == "cancelled":
        cancel(world, task)
    else:
        finish(world, task)
    assert world.m.spaces.slot(view.handle.id).table.is_huge(BASE // PAGE) == (end == "made")
    assert (frame_at(world, view, BASE + PAGE) == frame) == (end != "made")
    if end == "pinned":
        world.ram.unpin(frame)
    assert world.m.frames.free == free - (1 if end == "made" and free != world.m.frames.free else 0)
    assert len(world.m.locked) == (HUGE_FRAMES if is_locked else 0)
    holds(world, view, HUGE_FRAMES)
    world.check()


# ── what else happens meanwhile ──────────────────────────────────────────────────────────────────────────────────────


def overtaken(world: World, view: Any, meanwhile: Callable[[], Any]) -> Task:
    """Reclaims a page, and does something else before its victims have left."""
    task = world.start(world.engine.reclaim(view.handle, "", 4))
    until_shootdown(world, task)
    meanwhile()
    finish(world, task)
    return task


def test_a_space_that_is_deleted_takes_its_pages_from_a_reclaim() -> None:
    """Both end, and every frame is free again."""
    world = World(1, 64, 16)
    view = process(world)
    fill(world, view, 4)
    free = world.m.frames.free
    deleting: list[Task] = []
    overtaken(world, view, lambda: deleting.append(world.start(world.engine.delete_space(view.handle))))
    world.settle()
    assert world.m.frames.free > free and not list(world.m.spaces)
    world.check()


def test_an_object_that_is_deleted_in_the_middle_goes_at_the_end() -> None:
    """Its pages are pushed out for nobody, and neither a frame nor a slot stays with it."""
    world = World(1, 64, 16)
    sea = world.run(world.engine.create_object(4 * PAGE, "", "", NOBODY, ""))
    view = process(world, object=sea.handle, shared=True)
    fill(world, view, 4)
    world.run(world.engine.unmap_range(view.handle, BASE, BASE + 4 * PAGE))
    task = world.start(world.engine.reclaim(None, "", 4))
    world.engine.delete_object(sea.handle)
    while not task.finished:
        world.advance(task)
    assert not list(world.m.objects) and world.m.swap.free == 16 and world.m.frames.by_use[Use.OBJECT] == 0
    world.check()


def test_a_read_of_what_is_on_its_way_out_waits_and_finds_it() -> None:
    """A fault in the middle of an eviction ends after it, with the page back from swap."""
    world = World(1, 64, 16)
    view = process(world)
    fill(world, view, 4)
    reading: list[Task] = []
    task = world.start(world.engine.reclaim(view.handle, "", 4))
    until_shootdown(world, task)
    world.advance(task)
    until_shootdown(world, task)
    reading.append(world.start(world.engine.fault(view.handle, BASE, READ)))
    assert not reading[0].finished and reading[0].key is not None
    finish(world, task)
    world.settle()
    assert reading[0].result.outcome == Outcome.SWAPPED_IN and task.result.pages == 4
    holds(world, view, 4)
    world.check()
