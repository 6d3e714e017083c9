"""What files hold and what long calls hold up: space that comes back, turns for others, objects and who pays."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from tests.unit.container_runtime.kernel_world import World

from lamina_container_runtime.engines.model import effects
from lamina_container_runtime.engines.model.kernel.files.resolve import resolve
from lamina_container_runtime.engines.model.syscalls.dispatch import TABLE
from lamina_container_runtime.engines.model.syscalls.files.preemption import PIECE
from lamina_container_runtime.engines.model.syscalls.numbers import NUMBERS
from lamina_kit.effects import Sleep

O_RDWR, O_CREAT, O_PATH = 2, 0o100, 0o10000000
MAP_PRIVATE = 2


class FlatWorld(World):
    """A world whose memory is quick: reads are zeroes, writes vanish. `turns` counts how often others may run."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        super().__init__(files)
        self.turns = 0
        self.on_turn: Any = lambda: None
        self.objects: list[effects.CreateObject] = []

    def quick(self) -> FlatWorld:
        """Makes memory quick from here on, but for the pages that hold arguments."""
        memory = self.memory
        read, write = memory.read, memory.write
        memory.read = lambda root, va, n: read(root, va, n) if va < 1 << 24 else bytes(n)  # type: ignore[method-assign]
        memory.write = lambda root, va, data: write(root, va, data) if va < 1 << 24 else None  # type: ignore[method-assign]
        return self

    def perform(self, effect: Any) -> Any:
        """Performs one effect and notes turns and objects."""
        if isinstance(effect, Sleep):
            assert effect.ns == 0
            self.turns += 1
            self.on_turn()
        if isinstance(effect, effects.CreateObject):
            self.objects.append(effect)
        return super().perform(effect)


def make(world: World, path: str, data: bytes) -> int:
    """Makes a file and returns its open descriptor."""
    fd = world.call("open", path, O_RDWR | O_CREAT, 0o644)
    assert world.call("write", fd, data, len(data)) == len(data)
    return int(fd)


def used(world: World) -> int:
    """Returns what the files of the container's upper layer take."""
    return world.container.root.fs.used_bytes


def vectors(world: World, count: int, length: int) -> int:
    """Puts `count` vectors of `length` bytes into user memory and returns where they are."""
    return world.put(struct.pack("<QQ", 1 << 32, length) * count)


@pytest.mark.parametrize("flags", [0, O_PATH])
def test_content_stays_until_the_last_open_file_is_closed(flags: int) -> None:
    """Two open files of a deleted file: closing one leaves the other its content, closing both gives the space back."""
    world = World()
    before = used(world)
    first = make(world, "/f", b"abc")
    second = world.call("open", "/f", flags)
    assert world.call("unlink", "/f") == 0
    closed, kept = (second, first) if flags else (first, second)
    assert world.call("close", closed) == 0
    buffer = world.put(bytes(3))
    assert (world.call("pread64", kept, buffer, 3, 0), world.get(buffer, 3)) == (3, b"abc")
    assert (used(world) - before, world.call("close", kept), used(world) - before) == (3, 0, 0)


def test_deleting_gives_the_space_back() -> None:
    """unlink after close and rename over a file release the charge; a second name keeps it."""
    world = World()
    before = used(world)
    world.call("close", make(world, "/f", b"abc"))
    world.call("link", "/f", "/g")
    assert (world.call("unlink", "/f"), used(world) - before) == (0, 3)
    assert (world.call("unlink", "/g"), used(world) - before) == (0, 0)
    world.call("close", make(world, "/f", b"abc"))
    world.call("close", make(world, "/g", b"12"))
    assert (world.call("rename", "/g", "/f"), used(world) - before) == (0, 2)


def test_a_forked_descriptor_is_the_same_open_file() -> None:
    """The child's descriptor keeps a deleted file when the parent closes its own."""
    world = World()
    before = used(world)
    fd = make(world, "/f", b"abc")
    child = world.container.pids.processes[world.call("fork")]
    world.call("unlink", "/f")
    world.call("close", fd)
    assert used(world) - before == 3
    child.fds.close_all()
    assert used(world) == before


def test_a_running_program_keeps_its_file() -> None:
    """A deleted program file is there for /proc/PID/exe until the process ends."""
    world = World()
    world.call("close", make(world, "/f", b"abc"))
    inode = resolve(world.process.view, "/f").existing()
    world.process.run_from(inode)
    world.call("unlink", "/f")
    assert inode.size == 3
    world.process.run_from(None)
    assert inode.size == 0


def test_owners_are_unsigned() -> None:
    """Ids from 2^31 up are stored and reported as they are; -1 alone leaves an owner."""
    world = World({"f": b""})
    buffer = world.put(bytes(256))
    assert world.call("chown", "/f", 0xFFFF_FFFE, 1 << 31) == 0
    assert world.call("chown", "/f", 0xFFFF_FFFF, -1) == 0
    assert world.call("stat", "/f", buffer) == 0
    assert struct.unpack("<II", world.get(buffer + 28, 8)) == (0xFFFF_FFFE, 1 << 31)
    assert world.call("statx", -100, "/f", 0, 0x7FF, buffer) == 0
    assert struct.unpack("<II", world.get(buffer + 20, 8)) == (0xFFFF_FFFE, 1 << 31)


def test_large_vectors_let_others_run() -> None:
    """writev and readv give way after each MiB, however it is cut into vectors."""
    world = FlatWorld()
    null, zero = world.call("open", "/dev/null", O_RDWR), world.call("open", "/dev/zero", O_RDWR)
    for count, length in ((3, 8 * PIECE), (24, PIECE), (48, PIECE // 2)):
        table = vectors(world, count, length)
        world.quick()
        world.turns = 0
        assert world.call("writev", null, table, count) == 24 * PIECE
        assert world.turns >= 23
        world.turns = 0
        assert world.call("readv", zero, table, count) == 24 * PIECE
        assert world.turns >= 12


def test_many_small_vectors_let_others_run() -> None:
    """1024 vectors of a byte give way after each 64."""
    world = FlatWorld()
    null = world.call("open", "/dev/null", O_RDWR)
    table = vectors(world, 1024, 1)
    world.quick()
    assert (world.call("writev", null, table, 1024), world.turns) == (1024, 16)


def test_large_plain_calls_let_others_run() -> None:
    """read, write, pread64, pwrite64 and sendfile give way after each MiB."""
    world = FlatWorld()
    world.container.root.fs.limit_bytes = 64 * PIECE
    fd = world.call("open", "/f", O_RDWR | O_CREAT, 0o644)
    null = world.call("open", "/dev/null", O_RDWR)
    world.quick()
    size, far = 8 * PIECE, 1 << 32
    for name, arguments in (
        ("write", (fd, far, size)),
        ("pwrite64", (fd, far, size, 0)),
        ("pread64", (fd, far, size, 0)),
        ("lseek", (fd, 0, 0)),
        ("read", (fd, far, size)),
        ("lseek", (fd, 0, 0)),
        ("sendfile", (null, fd, 0, size)),
    ):
        world.turns = 0
        assert world.call(name, *arguments) == (0 if name == "lseek" else size)
        assert world.turns >= (0 if name == "lseek" else 7)


@pytest.mark.parametrize("name", ["write", "pwrite64", "writev"])
def test_what_changes_in_a_turn_is_seen(name: str) -> None:
    """A call whose descriptor is closed while others run ends with what it did; the file's space comes back."""
    world = FlatWorld()
    world.container.root.fs.limit_bytes = 64 * PIECE
    before = used(world)
    fd = world.call("open", "/f", O_RDWR | O_CREAT, 0o644)
    world.call("unlink", "/f")
    table = vectors(world, 2, 4 * PIECE)
    world.quick()
    world.on_turn = lambda: world.process.fds.close(fd)
    arguments = (table, 2) if name == "writev" else (1 << 32, 8 * PIECE, 0)
    assert world.call(name, fd, *arguments) == PIECE
    assert (world.turns, used(world)) == (1, before)
    assert world.call("write", fd, 1 << 32, 1) == -errno.EBADF


def test_a_write_that_waited_for_a_page_keeps_no_space_of_a_closed_file() -> None:
    """A file that is deleted and closed while a write waits for its page holds nothing afterwards."""
    world = FlatWorld()
    before = used(world)
    fd = world.call("open", "/f", O_RDWR | O_CREAT, 0o644)
    world.call("unlink", "/f")
    step = TABLE[NUMBERS["write"]].function(world.thread, fd, 0x8000, 5)
    assert not isinstance(step, int) and step is not None
    effect = next(step)
    assert isinstance(effect, effects.FaultIn)
    world.process.fds.close(fd)
    with pytest.raises(StopIteration) as end:
        step.send(world.perform(effect))
    assert (end.value.value, used(world)) == (5, before)


def test_objects_are_as_large_as_the_file_and_paid_by_its_writer() -> None:
    """1 GiB of a small file mapped makes a small object; a layer's file is nobody's, a written one the writer's."""
    world = FlatWorld({"lib": b"x" * 5000})
    lower, upper = world.call("open", "/lib", 0), make(world, "/own", b"y" * 4097)
    for fd in (lower, upper):
        assert world.call("mmap", 0, 1 << 30, 1, MAP_PRIVATE, fd, 0) > 0
    assert world.call("mmap", 0, 1 << 30, 1, MAP_PRIVATE, upper, 4096) > 0
    assert [(made.size, made.group) for made in world.objects] == [
        (8192, ""), (8192, "memory/c-1"), (4096, "memory/c-1"),
    ]  # fmt: skip
