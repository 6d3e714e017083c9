"""Pipes and waiting for several things."""

from __future__ import annotations

import errno
import struct

import pytest
from tests.unit.container_runtime.kernel_world import World

from lamina_container_runtime.domain.wait import Waiter, Woken
from lamina_container_runtime.engines.model.kernel.files.pipe import CAPACITY

O_NONBLOCK = 0o4000
POLLIN, POLLOUT, POLLERR, POLLHUP, POLLNVAL = 1, 4, 8, 16, 32


def pipe(world: World, flags: int = 0) -> tuple[int, int]:
    """Makes a pipe and returns its descriptors."""
    address = world.put(bytes(8))
    assert world.call("pipe2", address, flags) == 0
    read, write = struct.unpack("<ii", world.get(address, 8))
    return read, write


def test_bytes_come_out_in_order() -> None:
    """A read gives what is there, at most what it asks for."""
    world = World()
    read, write = pipe(world)
    assert world.call("write", write, b"hello", 5) == 5
    buffer = world.put(bytes(8))
    assert world.call("read", read, buffer, 3) == 3
    assert world.call("read", read, buffer + 3, 8) == 2
    assert world.get(buffer, 5) == b"hello"


def test_a_reader_waits_for_a_writer() -> None:
    """A read of an empty pipe waits and goes on when bytes come."""
    world = World()
    read, write = pipe(world)

    def feed(waiter: object) -> None:
        world.call("write", write, b"late", 4)

    world.on_wait = feed
    buffer = world.put(bytes(8))
    assert world.call("read", read, buffer, 8) == 4
    assert world.waited == [None]


def test_a_writer_waits_for_room() -> None:
    """A write of more than fits waits, and small writes are not mixed."""
    world = World()
    read, write = pipe(world)
    world.call("write", write, bytes(CAPACITY - 10), CAPACITY - 10)
    buffer = world.put(bytes(CAPACITY))

    def drain(waiter: object) -> None:
        world.call("read", read, buffer, CAPACITY)

    world.on_wait = drain
    assert world.call("write", write, b"x" * 100, 100) == 100
    assert world.call("read", read, buffer, 200) == 100


def test_ends_tell_each_other_that_they_are_gone() -> None:
    """No writer is the end of the file, no reader is EPIPE and SIGPIPE."""
    world = World()
    read, write = pipe(world)
    world.call("close", write)
    assert world.call("read", read, world.put(bytes(4)), 4) == 0
    other_read, other_write = pipe(world)
    world.call("close", other_read)
    world.process.handlers.table[13] = type(world.process.handlers.get(13))(handler=0x4000)
    assert world.call("write", other_write, b"x", 1) == -errno.EPIPE
    assert 13 in world.process.pending.infos


def test_nonblocking_ends_do_not_wait() -> None:
    """O_NONBLOCK gives EAGAIN, or what fits."""
    world = World()
    read, write = pipe(world, O_NONBLOCK)
    assert world.call("read", read, world.put(bytes(4)), 4) == -errno.EAGAIN
    assert world.call("write", write, bytes(CAPACITY + 5), CAPACITY + 5) == CAPACITY
    assert world.call("write", write, b"x", 1) == -errno.EAGAIN


def test_a_signal_interrupts_a_wait() -> None:
    """A wait that a signal ends is EINTR."""
    world = World()
    read, _ = pipe(world)
    world.on_wait = lambda waiter: waiter.fire(Woken.SIGNAL)
    assert world.call("read", read, world.put(bytes(4)), 4) == -errno.EINTR


def poll(world: World, *wanted: tuple[int, int], timeout: int = 0) -> tuple[int, list[int]]:
    """Polls descriptors; returns the result and what is ready for each."""
    address = world.put(b"".join(struct.pack("<ihh", fd, events, 0) for fd, events in wanted))
    result = world.call("poll", address, len(wanted), timeout)
    found = [struct.unpack_from("<ihh", world.get(address, 8 * len(wanted)), 8 * n)[2] for n in range(len(wanted))]
    return result, found


def test_poll_says_what_is_ready() -> None:
    """Data, room, hang-up and bad descriptors are told apart."""
    world = World()
    read, write = pipe(world)
    assert poll(world, (read, POLLIN), (write, POLLOUT)) == (1, [0, POLLOUT])
    world.call("write", write, b"x", 1)
    assert poll(world, (read, POLLIN)) == (1, [POLLIN])
    world.call("close", write)
    assert poll(world, (read, POLLIN), (99, POLLIN), (-1, POLLIN)) == (2, [POLLIN | POLLHUP, POLLNVAL, 0])


def test_poll_waits_until_something_is_ready() -> None:
    """Without anything ready it waits, at most its time."""
    world = World()
    read, write = pipe(world)

    def later(waiter: object) -> None:
        world.call("write", write, b"x", 1)

    world.on_wait = later
    assert poll(world, (read, POLLIN), timeout=-1) == (1, [POLLIN])

    def pass_time(waiter: Waiter) -> None:
        world.clock.now += 5_000_000
        waiter.fire(Woken.TIMEOUT)

    world.on_wait = pass_time
    world.call("read", read, world.put(bytes(4)), 4)
    assert poll(world, (read, POLLIN), timeout=5) == (0, [0])
    assert world.waited == [None, 5_000_000]


@pytest.mark.parametrize("name", ["select", "pselect6"])
def test_select_gives_sets(name: str) -> None:
    """select clears what is not ready and counts what is."""
    world = World()
    read, write = pipe(world)
    world.call("write", write, b"x", 1)
    sets = world.put(struct.pack("<Q", 1 << read | 1 << 0) + struct.pack("<Q", 1 << write))
    assert world.call(name, write + 1, sets, sets + 8, 0, 0, 0) == 3
    assert struct.unpack("<QQ", world.get(sets, 16)) == (1 << read | 1, 1 << write)
    assert world.call(name, 2000, 0, 0, 0, 0, 0) == -errno.EINVAL
