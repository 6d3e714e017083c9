"""A disk: time, shares, limits, cache, and what breaks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.hardware.disk_world import SECTOR, World

from lamina_hardware.domain.disk.disk import DiskState
from lamina_hardware.domain.disk.groups import IoLimit
from lamina_hardware.domain.disk.queue import Speed
from lamina_hardware.domain.disk.transfer import Operation, Result
from lamina_kit.errors import AlreadyExists, FailedPrecondition, NotFound

_MS = 1_000_000
_S = 1_000_000_000


def test_latency_overlaps_and_bytes_do_not() -> None:
    """Four sectors at 4 MB/s take 1.024 ms each, one after the other, and all the same latency on top."""
    world = World(Speed(latency_ns=_MS, rate=4_000_000, depth=8))
    for _ in range(4):
        world.ask(Operation.READ)
    world.clock.run()
    assert [transfer.done_ns for transfer in world.ended] == [_MS + 1_024_000 * n for n in (1, 2, 3, 4)]
    assert world.queue.counters.busy_ns == _MS + 4_096_000
    assert world.queue.is_idle


def test_the_queue_has_places() -> None:
    """With two places and 1 ms, six transfers take 3 ms, and those that waited say for how long."""
    world = World(Speed(latency_ns=_MS, depth=2))
    for _ in range(6):
        world.ask(Operation.READ)
    world.clock.run()
    assert [transfer.done_ns for transfer in world.ended] == [_MS, _MS, 2 * _MS, 2 * _MS, 3 * _MS, 3 * _MS]
    assert [transfer.begun_ns for transfer in world.ended] == [0, 0, _MS, _MS, 2 * _MS, 2 * _MS]
    counters = world.queue.counters
    assert (counters.reads, counters.read_bytes, counters.peak_queue) == (6, 6 * SECTOR, 6)
    assert counters.wait_ns == 6 * _MS


def test_weights_share_a_disk() -> None:
    """Groups of weight 300 and 100 that always want the disk get three quarters and one quarter of it."""
    world = World(Speed(rate=4_096_000, depth=1))
    world.groups.create("a", "", 300, (), "")
    world.groups.create("b", "", 100, (), "")
    for _ in range(400):
        world.ask(Operation.READ, group="b")
        world.ask(Operation.READ, group="a")
    world.clock.run(until=400 * _MS)
    done = [transfer.group for transfer in world.ended]
    assert len(done) == 400
    assert abs(done.count("a") - 300) <= 2


def test_shares_hold_down_the_tree() -> None:
    """A parent's share is divided among its children and what lies directly in it."""
    world = World(Speed(rate=4_096_000, depth=1))
    world.groups.create("p", "", 100, (), "")
    world.groups.create("q", "", 100, (), "")
    world.groups.create("p1", "p", 100, (), "")
    for _ in range(400):
        for group in ("p", "p1", "q"):
            world.ask(Operation.WRITE, group=group)
    world.clock.run(until=400 * _MS)
    done = [transfer.group for transfer in world.ended]
    assert abs(done.count("q") - 200) <= 2
    assert abs(done.count("p") - 100) <= 2
    assert world.groups.get("p").on("d").counters.writes == done.count("p") + done.count("p1")


def test_who_rested_saves_nothing_up() -> None:
    """A group that comes late shares from then on; it is not given what it did not want."""
    world = World(Speed(rate=4_096_000, depth=1))
    world.groups.create("early", "", 100, (), "")
    world.groups.create("late", "", 100, (), "")
    for _ in range(300):
        world.ask(Operation.READ, group="early")
    world.clock.run(until=100 * _MS)
    for _ in range(300):
        world.ask(Operation.READ, group="late")
    world.ended.clear()
    world.clock.run(until=200 * _MS)
    assert abs([transfer.group for transfer in world.ended].count("late") - 50) <= 2


def test_limits_space_transfers() -> None:
    """Ten reads a second begin 100 ms apart; a write of the group goes past the reads that wait."""
    world = World()
    world.groups.create("g", "", 100, (IoLimit("", reads=10), IoLimit("other", reads=1)), "")
    for _ in range(3):
        world.ask(Operation.READ, group="g")
    world.ask(Operation.WRITE, offset=SECTOR, group="g")
    world.clock.run()
    reads = [transfer.begun_ns for transfer in world.ended if transfer.operation == Operation.READ]
    assert reads == [0, 100 * _MS, 200 * _MS]
    assert [transfer.begun_ns for transfer in world.ended if transfer.operation == Operation.WRITE] == [0]
    assert world.groups.get("g").on("d").throttled_ns == 300 * _MS
    read = world.groups.get("g").pressure.read(10 * _S)
    assert read.some_ns == 200 * _MS


def test_a_limit_of_the_parent_holds() -> None:
    """Children share what their parent may have."""
    world = World()
    world.groups.create("p", "", 100, (IoLimit("d", write_bytes=SECTOR * 10),), "")
    world.groups.create("x", "p", 100, (), "")
    world.groups.create("y", "p", 100, (), "")
    for _ in range(10):
        world.ask(Operation.WRITE, group="x")
        world.ask(Operation.WRITE, group="y")
    world.clock.run(until=_S - 1)
    done = [transfer.group for transfer in world.ended]
    assert (done.count("x"), done.count("y")) == (5, 5)


def test_a_lifted_limit_lets_go() -> None:
    """When a limit is taken away, what it held up begins at the next look."""
    world = World()
    group = world.groups.create("g", "", 100, (IoLimit(reads=1),), "")
    world.ask(Operation.READ, group="g")
    world.ask(Operation.READ, group="g")
    world.clock.run(until=_MS)
    assert len(world.ended) == 1
    group.limits = ()
    world.queue.pump()
    world.clock.run(until=2 * _MS)
    assert len(world.ended) == 2


def test_flush_makes_safe() -> None:
    """With a write cache the medium has nothing until the flush, and reads see what was written all the same."""
    world = World(write_cache=True)
    world.ask(Operation.WRITE, fill=7)
    world.clock.run()
    assert world.memory.bytes[:SECTOR] == bytes(SECTOR)
    assert world.disk.read(0, SECTOR) == b"\7" * SECTOR
    assert world.disk.unsafe_bytes == SECTOR
    world.ask(Operation.FLUSH, size=0)
    world.clock.run()
    assert world.memory.safe[:SECTOR] == b"\7" * SECTOR
    assert world.disk.unsafe_bytes == 0


def test_fua_goes_past_the_cache() -> None:
    """A write with forced unit access is safe when it ends, and what the cache held of its sectors is old."""
    world = World(write_cache=True)
    world.disk.write(0, b"\1" * SECTOR * 2, fua=False)
    world.disk.write(SECTOR, b"\2" * SECTOR, fua=True)
    assert world.memory.safe[: 2 * SECTOR] == bytes(SECTOR) + b"\2" * SECTOR
    assert world.disk.read(0, 2 * SECTOR) == b"\1" * SECTOR + b"\2" * SECTOR


def test_a_torn_write() -> None:
    """Two sectors of four reach the disk, the power goes, and of the cache there is what chance left."""
    world = World(write_cache=True)
    world.disk.write(8 * SECTOR, b"\5" * SECTOR * 2, fua=False)
    world.draws = [True, False]
    world.disk.broken.tear_after = 2
    torn, waiting = world.ask(Operation.WRITE, size=4 * SECTOR, fill=9), world.ask(Operation.READ)
    world.clock.run()
    assert (torn.result, torn.failed_offset) == (Result.DISK_FAILED, 2 * SECTOR)
    assert waiting.result == Result.DISK_FAILED
    assert world.memory.safe[: 4 * SECTOR] == b"\t" * 2 * SECTOR + bytes(2 * SECTOR)
    assert world.memory.safe[8 * SECTOR : 10 * SECTOR] == b"\5" * SECTOR + bytes(SECTOR)
    assert (world.torn, world.disk.state) == ([1], DiskState.FAILED)
    world.disk.broken.powerless = False
    assert world.disk.read(0, SECTOR) == b"\t" * SECTOR


@pytest.mark.parametrize(
    ("broken", "operation", "result", "place"),
    [
        ({"failed": True}, Operation.READ, Result.DISK_FAILED, 0),
        ({"failed": True}, Operation.FLUSH, Result.DISK_FAILED, 0),
        ({"read_only": True}, Operation.WRITE, Result.READ_ONLY, 0),
        ({"read_only": True}, Operation.READ, Result.DONE, 0),
        ({"full": True}, Operation.WRITE_ZEROES, Result.SPACE_EXHAUSTED, 0),
        ({"bad": (SECTOR, 2 * SECTOR)}, Operation.READ, Result.MEDIUM_ERROR, SECTOR),
        ({"bad": (2 * SECTOR, 3 * SECTOR)}, Operation.DISCARD, Result.DONE, 0),
    ],
)
def test_what_breaks(broken: dict[str, object], operation: Operation, result: Result, place: int) -> None:
    """Each kind of failure ends the transfers that it is about, and names the first byte that failed."""
    world = World()
    for name, value in broken.items():
        setattr(world.disk.broken, name, value)
    asked = world.ask(operation, size=0 if operation == Operation.FLUSH else 2 * SECTOR)
    world.clock.run()
    assert (asked.result, asked.failed_offset) == (result, place)
    assert world.queue.counters.failures == (result != Result.DONE)


def test_beyond_the_end() -> None:
    """A transfer that ends beyond the disk fails whole, and a larger disk takes it."""
    world = World(size=1 << 20)
    first = world.ask(Operation.WRITE, offset=(1 << 20) - SECTOR, size=2 * SECTOR)
    world.clock.run()
    assert (first.result, first.failed_offset) == (Result.BEYOND_END, 1 << 20)
    assert bytes(world.memory.bytes) == bytes(1 << 20)
    world.disk.change(replace(world.disk.geometry, size=2 << 20))
    second = world.ask(Operation.READ, offset=(1 << 20) - SECTOR, size=2 * SECTOR)
    world.clock.run()
    assert second.result == Result.DONE


def test_a_disk_that_goes_ends_everything() -> None:
    """What is under way and what waits ends with the failure, without its work being done, and books are even."""
    world = World(Speed(latency_ns=_MS, depth=1))
    world.groups.create("g", "", 100, (), "")
    asked = [world.ask(Operation.WRITE, group="g", fill=3) for _ in range(3)]
    world.queue.fail_all(Result.DISK_FAILED)
    world.clock.run()
    assert [transfer.result for transfer in asked] == [Result.DISK_FAILED] * 3
    assert world.queue.is_idle
    assert not any(world.memory.bytes)
    again = world.ask(Operation.WRITE, group="g")
    world.clock.run()
    assert again.result == Result.DONE
    world.groups.delete("g")


def test_groups_have_rules() -> None:
    """Unknown, doubled and used groups are refused with their reasons; the root stays."""
    world = World(Speed(latency_ns=_MS))
    world.groups.create("g", "", 0, (), "me")
    with pytest.raises(AlreadyExists, match="exists"):
        world.groups.create("g", "", 0, (), "")
    with pytest.raises(NotFound):
        world.groups.create("x", "nowhere", 0, (), "")
    world.ask(Operation.READ, group="g")
    for name in ("g", ""):
        with pytest.raises(FailedPrecondition):
            world.groups.delete(name)
    world.clock.run()
    world.groups.delete("g")
    assert world.groups.entries() == []
