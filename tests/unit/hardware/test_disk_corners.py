"""A disk where things change under transfers: limits, failures, faults beside each other, and groups that are many."""

from __future__ import annotations

import pytest
from tests.unit.hardware.disk_world import SECTOR, World

from lamina_hardware.domain.disk.groups import MAX_DEPTH, MAX_GROUPS, IoLimit
from lamina_hardware.domain.disk.queue import Speed
from lamina_hardware.domain.disk.transfer import Operation, Result
from lamina_kit.errors import ResourceExhausted

_MS = 1_000_000
_S = 1_000_000_000


@pytest.mark.parametrize(
    ("limit", "begins"),
    [
        (IoLimit(read_bytes=SECTOR), [0, 500 * _MS + _MS]),  # half of the debt is left, and is paid at the new rate
        (IoLimit(reads=1000), [0, 500 * _MS]),
        (None, [0, 500 * _MS]),
    ],
)
def test_a_limit_that_is_lifted_holds_nobody_up(limit: IoLimit | None, begins: list[int]) -> None:
    """After a change of limits a group owes what it took, at the rate of the new limit, and not the time of the old."""
    world = World()
    group = world.groups.create("g", "", 0, (IoLimit(read_bytes=SECTOR),), "")
    asked = [world.ask(Operation.READ, group="g") for _ in range(2)]
    world.clock.run(500 * _MS)
    new = () if limit is None else (limit,)
    if limit is not None and limit.read_bytes:
        new = (IoLimit(read_bytes=500 * SECTOR),)
    world.groups.change_limits(group, new, world.clock.now)
    world.queue.pump()
    world.clock.run()
    assert [transfer.begun_ns for transfer in asked] == begins


def test_the_same_limits_again_forgive_nothing() -> None:
    """A change of limits to what they are leaves the debt as it is."""
    world = World()
    limits = (IoLimit(reads=1),)
    group = world.groups.create("g", "", 0, limits, "")
    asked = [world.ask(Operation.READ, group="g") for _ in range(2)]
    world.groups.change_limits(group, limits, world.clock.now)
    world.queue.pump()
    world.clock.run()
    assert [transfer.begun_ns for transfer in asked] == [0, _S]


def test_nobody_waits_for_bytes_of_transfers_that_are_over() -> None:
    """Transfers that a failure ended leave the medium free, and say what of them failed."""
    world = World(Speed(rate=1_000_000, depth=32))
    ended = [world.ask(Operation.READ, offset=n * SECTOR) for n in range(40)]
    world.queue.fail_all(Result.DISK_FAILED)
    assert [transfer.failed_offset for transfer in ended] == [n * SECTOR for n in range(40)]
    again = world.ask(Operation.READ)
    world.clock.run()
    assert again.done_ns == 4_096_000


def test_groups_are_bounded_in_number_and_depth() -> None:
    """The deepest group that is allowed works; a deeper one, and one too many, are refused."""
    world = World()
    parent = ""
    for n in range(MAX_DEPTH):
        parent = world.groups.create(f"g{n}", parent, 0, (), "").name
    asked = world.ask(Operation.READ, group=parent)
    world.clock.run()
    assert asked.result == Result.DONE
    with pytest.raises(ResourceExhausted) as deep:
        world.groups.create("deep", parent, 0, (), "")
    for n in range(MAX_GROUPS - MAX_DEPTH):
        world.groups.create(f"wide{n}", "", 0, (), "")
    with pytest.raises(ResourceExhausted) as many:
        world.groups.create("many", "", 0, (), "")
    assert deep.value.reason == many.value.reason == "TOO_MANY_IO_GROUPS"
