"""System calls that make, move, remove and describe names and files."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from tests.unit.container_runtime.kernel_world import World
from tests.unit.container_runtime.test_calls import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_FOLLOW,
    AT_NOFOLLOW,
    AT_REMOVEDIR,
    O_DIRECTORY,
    O_PATH,
    S_IFREG,
    become,
    stat_of,
)
from tests.unit.container_runtime.test_files import text_of, write_file

# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_links_count() -> None:
    """A second name is the same file, and each removal counts one down; directories have no second name."""
    world = World({"a": b"abc", "d/x": b""})
    assert stat_of(world, "/a")["links"] == 1
    assert world.call("link", "/a", "/b") == 0
    assert (stat_of(world, "/a")["links"], stat_of(world, "/b")["ino"]) == (2, stat_of(world, "/a")["ino"])
    assert world.call("unlink", "/a") == 0
    assert stat_of(world, "/b")["links"] == 1
    assert world.call("link", "/d", "/e") == -errno.EPERM
    assert world.call("link", "/b", "/d/x") == -errno.EEXIST
    assert world.call("link", "/b", "/n/") == -errno.ENOENT
    assert world.call("link", "/b", "/dev/shm/b") == -errno.EXDEV
    world.call("symlink", "/b", "/s")
    assert world.call("linkat", AT_FDCWD, "/s", AT_FDCWD, "/t", 0) == 0
    assert stat_of(world, "/t", "lstat")["mode"] & 0o170000 == 0o120000
    assert world.call("linkat", AT_FDCWD, "/s", AT_FDCWD, "/u", AT_FOLLOW) == 0
    assert stat_of(world, "/u", "lstat")["ino"] == stat_of(world, "/b")["ino"]
    assert world.call("symlink", "", "/v") == -errno.ENOENT
    assert world.call("symlink", "x", "/b") == -errno.EEXIST
    assert world.call("readlink", "/b", world.put(bytes(8)), 8) == -errno.EINVAL
    assert world.call("readlink", "/s", world.put(bytes(8)), 0) == -errno.EINVAL
    buffer = world.put(bytes(8))
    assert world.call("readlink", "/s", buffer, 1) == 1
    assert world.get(buffer, 2) == b"/\0"


def test_removing_names_by_directory() -> None:
    """unlinkat removes relative names, directories when it is told to, and never what is in use as a place."""
    world = World({"d/a": b"", "d/e/x": b""})
    folder = world.call("open", "/d", O_DIRECTORY)
    assert world.call("unlinkat", folder, "e", 0) == -errno.EISDIR
    assert world.call("unlinkat", folder, "a", AT_REMOVEDIR) == -errno.ENOTDIR
    assert world.call("unlinkat", folder, "e", AT_REMOVEDIR) == -errno.ENOTEMPTY
    assert world.call("unlinkat", folder, "a", 0) == 0
    assert world.call("rmdir", "/d/.") == -errno.EINVAL
    assert world.call("rmdir", "/d/..") == -errno.ENOTEMPTY
    assert world.call("rmdir", "/proc") == -errno.EBUSY
    assert world.call("unlink", "/") == -errno.EISDIR
    assert world.names("/d") == [".", "..", "e"]


def test_renames_replace_what_fits() -> None:
    """Files replace files, directories empty directories; NOREPLACE replaces nothing; mount points stay."""
    world = World({"a": b"1", "b": b"2", "d/x": b"", "e/y": b""})
    world.call("mkdir", "/empty", 0o755)
    assert world.call("renameat2", AT_FDCWD, "/a", AT_FDCWD, "/b", 1) == -errno.EEXIST
    assert world.call("renameat2", AT_FDCWD, "/a", AT_FDCWD, "/b", 2) == -errno.EINVAL
    assert world.call("renameat2", AT_FDCWD, "/a", AT_FDCWD, "/c", 1) == 0
    assert world.call("rename", "/a", "/b") == -errno.ENOENT
    assert world.call("rename", "/d", "/e") == -errno.ENOTEMPTY
    assert world.call("rename", "/d", "/b") == -errno.ENOTDIR
    assert world.call("rename", "/c", "/n/") == -errno.ENOTDIR
    assert world.call("rename", "/d", "/empty") == 0
    assert world.names("/empty") == [".", "..", "x"]
    assert world.call("rename", "/proc", "/other") == -errno.EBUSY
    assert world.call("rename", "/empty", "/proc") in (-errno.EBUSY, -errno.EXDEV, -errno.EROFS)
    assert world.call("rename", "/b", "/dev/shm/b") == -errno.EXDEV
    assert world.call("rename", "/", "/x") == -errno.EBUSY
    world.call("link", "/b", "/same")
    assert world.call("rename", "/b", "/same") == 0
    assert (text_of(world, "/b"), text_of(world, "/same")) == (b"2", b"2")


def test_a_sticky_directory_protects_its_names() -> None:
    """In a directory such as /tmp nobody removes or renames what is another's."""
    world = World()
    world.call("umask", 0)
    world.call("mkdir", "/tmp", 0o1777)
    write_file(world, "/tmp/f", b"x")
    become(world, 7)
    assert world.call("unlink", "/tmp/f") == -errno.EPERM
    assert world.call("rename", "/tmp/f", "/tmp/g") == -errno.EPERM
    write_file(world, "/tmp/own", b"x")
    assert world.call("unlink", "/tmp/own") == 0


def test_working_directories_need_the_right_to_enter() -> None:
    """chdir and fchdir enter directories that may be searched, and nothing else; chroot is root's."""
    world = World({"d/a": b"", "open/b": b""}, uid=7)
    world.container.root.entries()["d"].mode = 0o040700
    closed, file = world.call("open", "/d", O_PATH), world.call("open", "/open/b", 0)
    assert world.call("chdir", "/d") == -errno.EACCES
    assert world.call("fchdir", closed) == -errno.EACCES
    assert world.call("fchdir", file) == -errno.ENOTDIR
    assert world.call("fchdir", 99) == -errno.EBADF
    assert world.call("fchdir", world.call("open", "/open", 0)) == 0
    buffer = world.put(bytes(16))
    assert world.call("getcwd", buffer, 6) == 6
    assert world.get(buffer, 6) == b"/open\0"
    assert world.call("getcwd", buffer, 5) == -errno.ERANGE
    assert world.call("access", "b", 4) == 0
    assert world.call("chroot", "/open") == -errno.EPERM
    assert world.call("chroot", "/open/b") == -errno.ENOTDIR


# ── what files are ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_statx_shows_the_same_as_stat() -> None:
    """Links, owner, mode, number, size, blocks, times and devices stand where statx has them."""
    world = World({"f": b"x" * 1025})
    world.clock.now = 5
    world.call("chown", "/f", 3, 4)
    buffer = world.put(bytes(256))
    assert world.call("statx", AT_FDCWD, "/f", 0, 0x7FF, buffer) == 0
    raw, known = world.get(buffer, 256), stat_of(world, "/f")
    mask, block, _, links, uid, gid, mode, _, ino, size, blocks, _ = struct.unpack_from("<IIQIIIHHQQQQ", raw)
    assert (mask, block, links, uid, gid, mode) == (0x7FF, 4096, 1, 3, 4, known["mode"])
    assert (ino, size, blocks) == (known["ino"], 1025, 3)
    for offset, name in ((64, "atime"), (96, "ctime"), (112, "mtime")):
        seconds, ns = struct.unpack_from("<qI", raw, offset)
        assert seconds * 10**9 + ns == known[name]
    assert known["ctime"] == world.clock.wall_ns()
    assert world.call("statx", AT_FDCWD, "/dev/null", 0, 0x7FF, buffer) == 0
    assert struct.unpack("<II", world.get(buffer + 128, 8)) == (1, 3)
    world.call("symlink", "f", "/l")
    world.call("statx", AT_FDCWD, "/l", AT_NOFOLLOW, 0x7FF, buffer)
    assert struct.unpack("<H", world.get(buffer + 28, 2))[0] & 0o170000 == 0o120000


def test_descriptors_stand_for_files_with_an_empty_path() -> None:
    """fstat, and a path that is empty with AT_EMPTY_PATH, look at the descriptor's file; without, nothing is named."""
    world = World({"f": b"abc"})
    fd = world.call("open", "/f", 0)
    buffer = world.put(bytes(144))
    assert world.call("fstat", fd, buffer) == 0
    assert struct.unpack("<q", world.get(buffer + 48, 8)) == (3,)
    assert world.call("newfstatat", fd, "", buffer, AT_EMPTY_PATH) == 0
    assert world.call("newfstatat", fd, "", buffer, 0) == -errno.ENOENT
    assert world.call("openat", 99, "", 0) == -errno.ENOENT
    assert world.call("fstat", 99, buffer) == -errno.EBADF


@pytest.mark.parametrize(
    ("mode", "asked", "wanted"),
    [
        (0o604, 0, 0), (0o604, 4, 0), (0o604, 2, -errno.EACCES), (0o604, 1, -errno.EACCES), (0o606, 6, 0),
        (0o607, 7, 0), (0o600, 4, -errno.EACCES), (0o640, 4, -errno.EACCES), (0o604, 8, -errno.EINVAL),
    ],
)  # fmt: skip
def test_access_asks_for_each_right(mode: int, asked: int, wanted: int) -> None:
    """Reading, writing and executing are asked for one by one; no right asked means that the file is there."""
    world = World({"f": b""}, uid=7)
    world.container.root.entries()["f"].mode = S_IFREG | mode
    assert world.call("access", "/f", asked) == wanted
    assert world.call("faccessat", AT_FDCWD, "/f", asked) == wanted


def test_root_needs_an_execute_bit_to_execute() -> None:
    """Root reads and writes whatever the bits are, and executes what anybody may."""
    world = World({"f": b""})
    node = world.container.root.entries()["f"]
    node.mode = S_IFREG
    assert world.call("access", "/f", 6) == 0
    assert world.call("access", "/f", 1) == -errno.EACCES
    node.mode = S_IFREG | 0o001
    assert world.call("access", "/f", 7) == 0


def test_groups_open_what_the_group_may() -> None:
    """The group's bits count for members, by the process's group or one of its further ones."""
    world = World({"f": b""})
    node = world.container.root.entries()["f"]
    node.mode, node.gid = S_IFREG | 0o040, 50
    assert world.call("setgroups", 2, struct.pack("<II", 40, 50)) == 0
    buffer = world.put(bytes(16))
    assert world.call("getgroups", 0, 0) == 2
    assert world.call("getgroups", 1, buffer) == -errno.EINVAL
    assert world.call("getgroups", -1, buffer) == -errno.EINVAL
    assert world.call("getgroups", 2, buffer) == 2
    assert struct.unpack("<II", world.get(buffer, 8)) == (40, 50)
    assert world.call("setgroups", 65537, buffer) == -errno.EINVAL
    become(world, 7)
    assert world.call("access", "/f", 4) == 0
    assert world.call("access", "/f", 2) == -errno.EACCES
    assert world.call("setgroups", 0, 0) == -errno.EPERM


def test_modes_and_owners_are_changed_by_descriptor_and_name() -> None:
    """chmod and chown reach the file by each way; -1 leaves an id; a change moves the change time alone."""
    world = World({"f": b"abc"})
    before = stat_of(world, "/f")
    world.clock.now = 10**9
    fd = world.call("open", "/f", 0)
    assert world.call("fchmod", fd, 0o4711) == 0
    assert stat_of(world, "/f")["mode"] == S_IFREG | 0o4711
    assert world.call("fchmodat", AT_FDCWD, "/f", 0o600) == 0
    assert world.call("chown", "/f", 5, -1) == 0
    assert world.call("fchown", fd, -1, 6) == 0
    after = stat_of(world, "/f")
    assert (after["mode"], after["uid"], after["gid"]) == (S_IFREG | 0o600, 5, 6)
    assert (after["mtime"], after["ctime"]) == (before["mtime"], world.clock.wall_ns())
    world.call("symlink", "f", "/l")
    assert world.call("lchown", "/l", 9, 9) == 0
    assert (stat_of(world, "/l", "lstat")["uid"], stat_of(world, "/f")["uid"]) == (9, 5)
    assert world.call("chmod", "/proc/meminfo", 0o777) == -errno.EROFS


def test_an_owner_gives_its_files_to_its_groups_alone() -> None:
    """Without being root an owner may change the group to one of its own, and gives files to nobody."""
    world = World({"f": b""})
    world.call("setgroups", 1, struct.pack("<I", 50))
    world.call("chown", "/f", 7, 8)
    become(world, 7, 8)
    assert world.call("chown", "/f", 7, 50) == 0
    assert world.call("chown", "/f", -1, 8) == 0
    assert world.call("chown", "/f", -1, 99) == -errno.EPERM
    assert world.call("chown", "/f", 9, -1) == -errno.EPERM
    assert world.call("chmod", "/f", 0o640) == 0


def test_times_are_set_now_given_or_left() -> None:
    """utimensat sets both times, each to now, to a given one or not at all; who may not write may not either."""
    world = World({"f": b""})
    world.clock.now = 7
    now, omit = (0, (1 << 30) - 1), (0, (1 << 30) - 2)

    def stamp(*pairs: tuple[int, int], flags: int = 0, path: str = "/f") -> Any:
        times = world.put(b"".join(struct.pack("<qq", *pair) for pair in pairs)) if pairs else 0
        return world.call("utimensat", AT_FDCWD, path, times, flags)

    assert stamp((1, 2), (3, 4)) == 0
    known = stat_of(world, "/f")
    assert (known["atime"], known["mtime"]) == (10**9 + 2, 3 * 10**9 + 4)
    assert stamp(omit, now) == 0
    known = stat_of(world, "/f")
    assert (known["atime"], known["mtime"]) == (10**9 + 2, world.clock.wall_ns())
    assert stamp((1, 10**9), now) == -errno.EINVAL
    assert stamp((1, -1), now) == -errno.EINVAL
    fd = world.call("open", "/f", 0)
    assert world.call("utimensat", fd, 0, 0, 0) == 0
    assert stat_of(world, "/f")["atime"] == world.clock.wall_ns()
    become(world, 7, 8)
    assert stamp((1, 2), (3, 4)) == -errno.EPERM
    assert stamp() == -errno.EACCES
    world.container.root.entries()["f"].mode = S_IFREG | 0o606
    assert stamp() == 0


def test_file_systems_say_how_large_they_are() -> None:
    """statfs names the kind, the size in blocks and what is free, which is never negative."""
    world = World({"f": b""})
    buffer = world.put(bytes(120))
    fs = world.container.root.fs
    write_file(world, "/g", bytes(8192))
    assert world.call("statfs", "/f", buffer) == 0
    kind, block, total, free, available = struct.unpack("<5Q", world.get(buffer, 40))
    assert (kind, block, total) == (0x794C7630, 4096, fs.limit_bytes // 4096)
    assert free == available == (fs.limit_bytes - fs.used_bytes) // 4096 < total
    fs.limit_bytes = 4096
    assert world.call("fstatfs", world.call("open", "/f", 0), buffer) == 0
    assert struct.unpack("<Q", world.get(buffer + 24, 8)) == (0,)
    for path, magic in (("/proc", 0x9FA0), ("/dev/shm", 0x01021994)):
        world.call("statfs", path, buffer)
        assert struct.unpack("<Q", world.get(buffer, 8)) == (magic,)
    assert world.call("getxattr", "/f", "user.x", 0, 0) == -errno.EOPNOTSUPP
    assert (world.call("umask", 0o7777), world.call("umask", 0)) == (0o022, 0o777)
