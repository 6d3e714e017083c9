"""Handles, request ids, the hold's stream, configuration, the swap file, and starts that must fail."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ManualClock
from tests.contract.mmu.stack import Stack
from tests.property.mmu.world import PAGE, BytesRam, DictSwap, World

from lamina_kit.config import load
from lamina_kit.effects import WaitFor
from lamina_kit.errors import DataLoss, FailedPrecondition, InvalidArgument, LaminaError, NotFound, ResourceExhausted
from lamina_kit.layer.service import Environment
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_mmu.config import MmuConfig
from lamina_mmu.domain.groups.group import GroupTree
from lamina_mmu.domain.handles import Handle, HandleTable
from lamina_mmu.domain.hold import Age, Hold, Opened, Revocation
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.ports import Ports, Settings
from lamina_mmu.domain.requests import MOST, RequestLog
from lamina_mmu.domain.spaces.vma import Vma
from lamina_mmu.domain.spaces.vmas import MAX_MAPPINGS, VmaList
from lamina_mmu.engines.model.calls.ownership import once
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.withdrawal.users import MOST_RANGES, ranges_of
from lamina_mmu.io.swap.files import SwapFile
from lamina_mmu.server import build


def test_slots_are_reused_and_generations_are_not() -> None:
    """A handle of something that is gone never reaches its successor; names count up."""
    table: HandleTable[MemoryObject] = HandleTable("object", "o", "OBJECT_UNKNOWN")
    first = table.add(MemoryObject(1, 0, "a"))
    old = first.handle
    table.remove(first)
    second = table.add(MemoryObject(1, 0, "b"))
    assert second.handle == Handle(old.id, old.generation + 1)
    with pytest.raises(FailedPrecondition):
        table.get(old)
    assert table.get(second.handle) is table.named("o-2") is second
    for name in ("o-1", "s-2", "o-", "o--2", "o-2x", "o-²", "o-" + "9" * 30):
        with pytest.raises(NotFound):
            table.named(name)


def test_what_is_closing_is_not_found() -> None:
    """From the first moment of its end an object is neither listed nor found."""
    table: HandleTable[MemoryObject] = HandleTable("object", "o", "OBJECT_UNKNOWN")
    one = table.add(MemoryObject(1, 0, "a"))
    one.closing = True
    assert list(table) == [] and table.slot(one.id) is one
    with pytest.raises(FailedPrecondition):
        table.get(one.handle)


def test_request_ids_are_forgotten_oldest_first() -> None:
    """The log is bounded."""
    log = RequestLog()
    for number in range(MOST + 1):
        log.begin(str(number), "x")
        log.end(str(number), number + 1)
    assert log.find("0", "x") is None and log.find("1", "x") == 2
    with pytest.raises(InvalidArgument):
        log.find("1", "y")


def test_a_failed_first_call_may_be_repeated() -> None:
    """What raised is not remembered, and whoever waited for it tries itself."""
    world = World(1, 8, 0)
    attempts: list[int] = []

    def make() -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            yield WaitFor("go")
            raise ResourceExhausted("no", reason="NO_FREE_FRAME")
        return 7

    first = world.start(once(world.m, "r", "m", make))
    second = world.start(once(world.m, "r", "m", make))
    world.wake("go")
    world.settle()
    assert first.error is not None and second.result == 7 and len(attempts) == 2


def test_positions_on_a_stream_have_no_gaps_and_questions_are_answered_once() -> None:
    """Messages are numbered from 1; an answer to what was not asked, or a second one, is refused."""
    hold = Hold(1, 1, 0, "vm")
    number = hold.ask([(0x1000, 5)])
    positions = [hold.post(one) for one in (Opened(), Revocation(number, (0x1000,), False), Age(2, ()))]
    assert positions == [1, 2, 3] and [position for position, _ in hold.outbox] == positions
    assert hold.answered(number).pages == {0x1000: 5}
    for wrong in (number, 2, -1):
        with pytest.raises(FailedPrecondition) as refused:
            hold.answered(wrong)
        assert refused.value.reason == "QUESTION_UNKNOWN"


def test_ranges_of_a_shootdown_are_merged_and_bounded() -> None:
    """Neighbours become one range; more than a shootdown may name become all addresses."""
    assert ranges_of([1, 2, 3, 7]) == ((PAGE, 3 * PAGE), (7 * PAGE, PAGE))
    assert ranges_of(range(0, 2 * MOST_RANGES, 2)) != ()
    assert ranges_of(range(0, 2 * MOST_RANGES + 2, 2)) == ()


def test_a_space_has_at_most_65530_mappings() -> None:
    """One more is refused, a split too, and nothing changes."""
    vmas = VmaList()
    for index in range(MAX_MAPPINGS):
        vmas.insert(Vma(index * 4 * PAGE, (index * 4 + 3) * PAGE, 1))
    for refused in (
        lambda: vmas.insert(Vma(1 << 40, (1 << 40) + PAGE, 1)),
        lambda: vmas.remove(PAGE, 2 * PAGE),
        lambda: vmas.protect(PAGE, 2 * PAGE, 3),
    ):
        with pytest.raises(ResourceExhausted) as error:
            refused()
        assert error.value.reason == "TOO_MANY_MAPPINGS"
    assert len(vmas) == MAX_MAPPINGS and vmas.covers(0, 3 * PAGE) == 3 * PAGE


def test_configuration_is_bounded() -> None:
    """Defaults are 1 GiB of sparse swap and LRU; wrong values name their key."""
    assert load("mmu", MmuConfig, None, {}) == MmuConfig(1 << 30, "lru", 0)
    assert load("mmu", MmuConfig, None, {"LAMINA_MMU_SWAP_BYTES": "0"}).swap_bytes == 0
    for wrong in ({"swap_bytes": -1}, {"policy": "No Name"}, {"memory_bytes": 1 << 50}):
        with pytest.raises(InvalidArgument, match=rf"mmu\.{next(iter(wrong))}"):
            MmuConfig(**wrong)


def test_an_unknown_policy_is_refused_by_the_engine() -> None:
    """The known policies are named."""
    ports = Ports("h1", BytesRam(8), DictSwap(0), lambda: 0, lambda *_, **__: None, lambda *_: None)
    with pytest.raises(NotFound, match="lru"):
        Machine(ports, Settings(policy="optimal"))


def test_fewer_frames_than_ram_can_be_used() -> None:
    """`frames` limits what is given out."""
    ports = Ports("h1", BytesRam(8), DictSwap(0), lambda: 0, lambda *_, **__: None, lambda *_: None)
    assert Machine(ports, Settings(frames=5)).frames.free == 4
    assert Machine(ports, Settings(frames=500)).frames.free == 7


def test_a_group_tree_knows_its_subtrees_in_order() -> None:
    """A subtree lists the group first, then what lies below, in the order of creation."""
    tree = GroupTree()
    top = tree.create("top", tree.root, None, None)
    for name in "cab":
        tree.create(name, top, None, None)
    assert [group.name for group in top.subtree()] == ["top", "c", "a", "b"]


def test_a_swap_file_is_emptied_when_it_is_opened(tmp_path: Path) -> None:
    """What an earlier start left there is gone."""
    first = SwapFile(tmp_path / "swap", 4)
    first.write(2, b"x" * PAGE)
    assert first.read(2) == b"x" * PAGE
    first.close()
    first.close()
    second = SwapFile(tmp_path / "swap", 4)
    assert second.read(2) == bytes(PAGE)
    second.close()


@pytest.mark.parametrize(
    ("number", "kind", "reason"),
    [(errno.ENOSPC, ResourceExhausted, "SWAP_DEVICE_FULL"), (errno.EIO, DataLoss, "SWAP_IO_FAILED")],
)
def test_errors_of_the_disk_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[LaminaError], reason: str
) -> None:
    """A full disk and a broken one are different errors."""
    file = SwapFile(tmp_path / "swap", 4)

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", fail)
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(kind) as failed:
        file.write(1, b"x" * PAGE)
    assert failed.value.reason == reason
    if kind is DataLoss:
        with pytest.raises(kind):
            file.read(1)
    file.close()


async def test_a_full_disk_loses_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a swap write fails the page stays in RAM with its bytes, and no slot is lost."""
    async with Stack(tmp_path) as stack:
        space = await stack.space()
        await stack.map(space, 0x40_0000, 4)
        await stack.write(space, 0x40_0000, b"x" * 4 * PAGE)
        free = stack.machine.swap.free

        def fail(*_: object) -> int:
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(os, "pwrite", fail)
        world_step = stack.service.host.engine.reclaim(Handle(space.handle.id, space.handle.generation), "", 4)
        with pytest.raises(ResourceExhausted, match="no room"):
            await stack.service.host.drive(world_step)
        monkeypatch.undo()
        assert await stack.read(space, 0x40_0000, 4 * PAGE) == b"x" * 4 * PAGE
        assert not [frame for frame in range(4096) if stack.machine.frames.flags[frame] & 2]
        request = stack.service.host.engine.delete_space(Handle(space.handle.id, space.handle.generation))
        await stack.service.host.drive(request)
        assert stack.machine.swap.free == free


async def test_an_mmu_needs_hardware(tmp_path: Path, manual_clock: ManualClock) -> None:
    """Without a channel to the hardware the start is refused, and stopping then is harmless."""
    layer = LayerState("mmu", "h1", manual_clock, Rng(1))
    service = build(Environment("h1", manual_clock, Rng(1), tmp_path, layer), MmuConfig())
    with pytest.raises(FailedPrecondition) as refused:
        await service.start()
    assert refused.value.reason == "HARDWARE_REQUIRED"
    await service.stop()
    await service.stop()


async def test_the_service_starts_and_stops_twice_over(tmp_path: Path) -> None:
    """After a stop another MMU can take the same RAM and state directory."""
    for _ in range(2):
        async with Stack(tmp_path) as stack:
            space = await stack.space()
            await stack.map(space, 0x40_0000, 1)
            assert await stack.read(space, 0x40_0000, 1) == b"\0"
            await stack.write(space, 0x40_0000, b"x")
