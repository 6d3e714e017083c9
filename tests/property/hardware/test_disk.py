"""A disk with its cache against a plain array, and its queue against the rules of queues."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.hardware.disk_world import SECTOR, World

from lamina_hardware.domain.disk.groups import IoLimit
from lamina_hardware.domain.disk.queue import Speed
from lamina_hardware.domain.disk.transfer import Operation, Result

SECTORS = 32
SIZE = SECTORS * SECTOR

ranges = st.tuples(st.integers(0, SECTORS - 1), st.integers(1, 6)).map(
    lambda place: (place[0] * SECTOR, min(place[1], SECTORS - place[0]) * SECTOR)
)
actions = st.one_of(
    st.tuples(st.just("write"), ranges, st.integers(1, 255), st.booleans()),
    st.tuples(st.just("zero"), ranges, st.just(0), st.booleans()),
    st.tuples(st.just("flush"), ranges, st.just(0), st.just(True)),
    st.tuples(st.just("power"), ranges, st.integers(0, 3), st.booleans()),
)


@given(st.lists(actions, max_size=40), st.booleans(), st.randoms(use_true_random=False))
def test_content_against_an_array(
    done: list[tuple[str, tuple[int, int], int, bool]], cached: bool, chance: object
) -> None:
    """Reads give the latest writes; after a loss of power each sector is one written since it was last safe."""
    world = World(write_cache=cached, size=SIZE)
    survivors = iter(lambda: chance.random() < 0.5, None)  # type: ignore[attr-defined]
    world.disk._survives = lambda: next(survivors)
    now = [0] * SECTORS
    possible: list[set[int]] = [{0} for _ in range(SECTORS)]
    for action, (offset, size), fill, fua in done:
        touched = range(offset // SECTOR, (offset + size) // SECTOR)
        if action == "write":
            world.disk.write(offset, bytes([fill]) * size, fua)
        elif action == "zero":
            world.disk.zero(offset, size, fua)
        elif action == "flush":
            world.disk.flush()
            possible = [{value} for value in now]
        else:
            _lose_power(world, offset, size, fill)
            for number in touched:
                possible[number].add(255 if number - offset // SECTOR < fill else now[number])
            now = [world.memory.bytes[number * SECTOR] for number in range(SECTORS)]
            assert all(value in possible[number] for number, value in enumerate(now))
            possible = [{value} for value in now]
        if action in ("write", "zero"):
            for number in touched:
                now[number] = fill
                possible[number] = {fill} if fua or not cached or action == "zero" else possible[number] | {fill}
        assert world.disk.read(0, SIZE) == b"".join(bytes([value]) * SECTOR for value in now)


def _lose_power(world: World, offset: int, size: int, whole: int) -> None:
    """Tears a write of 255s after `whole` sectors, and gives the disk its power back."""
    world.disk.broken.tear_after = whole
    torn = world.ask(Operation.WRITE, offset, size, fill=255)
    world.clock.run()
    assert torn.result == Result.DISK_FAILED
    world.disk.broken.powerless = False


asks = st.lists(
    st.tuples(st.integers(0, 3_000_000), st.sampled_from(list(Operation)), st.integers(0, 8), st.integers(0, 3)),
    max_size=40,
)


@given(
    asks, st.integers(1, 4), st.sampled_from([0, 1_000_000, 50_000_000]), st.integers(0, 2_000_000), st.integers(0, 5)
)
def test_every_transfer_ends_once(
    wanted: list[tuple[int, Operation, int, int]], depth: int, rate: int, latency: int, limit: int
) -> None:
    """Each transfer ends once, in its time, at most `depth` run together, and queues keep their order."""
    world = World(Speed(latency, rate, depth), size=SIZE)
    world.groups.create("a", "", 200, (IoLimit(reads=limit * 100, write_bytes=limit * 100_000),), "")
    world.groups.create("b", "a", 100, (), "")
    world.groups.create("c", "", 50, (IoLimit("d", writes=limit * 1000),), "")
    asked = []
    for gap, operation, sectors, group in wanted:
        world.clock.run(until=world.clock.now + gap)
        size = 0 if operation == Operation.FLUSH else max(1, sectors) * SECTOR
        asked.append(world.ask(operation, 0, size, ["", "a", "b", "c"][group]))
    world.clock.run()
    assert sorted(map(id, world.ended)) == sorted(map(id, asked))
    moments = sorted({transfer.begun_ns for transfer in asked})
    for moment in moments:
        assert sum(transfer.begun_ns <= moment < transfer.done_ns for transfer in asked) <= depth
    for transfer in asked:
        medium = -(-transfer.moved_bytes * 10**9 // rate) if rate else 0
        assert transfer.asked_ns <= transfer.begun_ns
        assert transfer.done_ns >= transfer.begun_ns + medium + latency
    for queue in {(transfer.group, transfer.operation == Operation.READ) for transfer in asked}:
        mine = [transfer for transfer in asked if (transfer.group, transfer.operation == Operation.READ) == queue]
        begun = [transfer.begun_ns for transfer in mine]
        assert begun == sorted(begun)
    assert world.queue.is_idle
    assert all(group.waiting == group.going == 0 for group in world.groups.entries())
