"""Files: opening, reading, writing, names, rights, and the special ones."""

from __future__ import annotations

import errno
import struct

import pytest
from tests.unit.container_runtime.kernel_world import World

O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND = 1, 2, 0o100, 0o200, 0o1000, 0o2000
O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_CLOEXEC = 0o200000, 0o400000, 0o4000, 0o2000000
AT_FDCWD = -100


def text_of(world: World, path: str) -> bytes:
    """Returns what a file holds, read by system calls."""
    fd = world.call("open", path, 0)
    assert fd >= 0, errno.errorcode.get(-fd)
    buffer = world.put(bytes(8192))
    count = world.call("read", fd, buffer, 8192)
    world.call("close", fd)
    return world.get(buffer, count)


def write_file(world: World, path: str, data: bytes, flags: int = O_WRONLY | O_CREAT | O_TRUNC) -> int:
    """Writes a file by system calls; returns what write gave."""
    fd = world.call("open", path, flags, 0o644)
    assert fd >= 0, errno.errorcode.get(-fd)
    count = world.call("write", fd, data, len(data))
    world.call("close", fd)
    return int(count)


def test_layers_are_read_and_copied_up() -> None:
    """A file of a layer is read as it is; writing changes the container's own copy only."""
    world = World({"etc/motd": b"welcome"})
    assert text_of(world, "/etc/motd") == b"welcome"
    write_file(world, "/etc/motd", b"!", O_WRONLY | O_APPEND)
    assert text_of(world, "/etc/motd") == b"welcome!"
    assert World({"etc/motd": b"welcome"}).call("access", "/etc/motd", 0) == 0


def test_opening_follows_its_flags() -> None:
    """O_CREAT, O_EXCL, O_TRUNC, O_DIRECTORY, O_NOFOLLOW and writing to directories behave as in open(2)."""
    world = World({"a": b"x"})
    assert world.call("open", "/b", 0) == -errno.ENOENT
    assert world.call("open", "/a", O_CREAT | O_EXCL | O_WRONLY) == -errno.EEXIST
    assert world.call("open", "/a", O_DIRECTORY) == -errno.ENOTDIR
    assert world.call("open", "/etc", O_WRONLY) == -errno.EISDIR
    assert world.call("open", "/a/b", 0) == -errno.ENOTDIR
    assert world.call("open", "/new/", O_CREAT | O_WRONLY) == -errno.EISDIR
    assert world.call("symlink", "/a", "/link") == 0
    assert world.call("open", "/link", O_NOFOLLOW) == -errno.ELOOP
    assert write_file(world, "/a", b"new") == 3
    assert text_of(world, "/link") == b"new"


def test_links_that_go_round_are_refused() -> None:
    """Forty links are followed, a loop is ELOOP."""
    world = World()
    world.call("symlink", "b", "/a")
    world.call("symlink", "a", "/b")
    assert world.call("open", "/a", 0) == -errno.ELOOP


def test_nothing_leads_above_the_root() -> None:
    """.. of the root is the root, also through links and chroot."""
    world = World({"etc/motd": b"in"})
    assert text_of(world, "/../../etc/motd") == b"in"
    world.call("symlink", "../../../../etc/motd", "/link")
    assert text_of(world, "/link") == b"in"
    world.call("mkdir", "/jail", 0o755)
    assert world.call("chroot", "/jail") == 0
    assert world.call("chdir", "/") == 0
    assert world.call("open", "../etc/motd", 0) == -errno.ENOENT


def test_names_come_and_go() -> None:
    """mkdir, link, rename, unlink and rmdir change directories as Linux does."""
    world = World({"d/a": b"1", "d/b": b"2"})
    assert world.call("rmdir", "/d") == -errno.ENOTEMPTY
    assert world.call("unlink", "/d") == -errno.EISDIR
    assert world.call("mkdir", "/e", 0o755) == 0
    assert world.call("mkdir", "/e", 0o755) == -errno.EEXIST
    assert world.call("link", "/d/a", "/e/c") == 0
    assert world.call("rename", "/d/a", "/d/b") == 0
    assert (text_of(world, "/d/b"), text_of(world, "/e/c")) == (b"1", b"1")
    assert world.call("rename", "/d", "/e/d") == 0
    assert world.names("/e/d") == [".", "..", "b"]
    assert world.call("rename", "/e", "/e/d/x") == -errno.EINVAL
    assert world.call("rename", "/e/c", "/e/d") == -errno.EISDIR
    assert world.call("unlink", "/e/c") == 0
    assert world.call("unlink", "/e/d/b") == 0
    assert (world.call("rmdir", "/e/d"), world.call("rmdir", "/e")) == (0, 0)
    assert world.call("access", "/e", 0) == -errno.ENOENT


def test_a_file_without_names_lives_while_it_is_open() -> None:
    """Bytes can be read through a descriptor after the last name is gone."""
    world = World({"a": b"still"})
    fd = world.call("open", "/a", 0)
    world.call("unlink", "/a")
    buffer = world.put(bytes(16))
    assert world.call("read", fd, buffer, 16) == 5


def test_positions_belong_to_the_open_file() -> None:
    """Descriptors made by dup share a position, those of a second open do not; lseek and pread keep the rules."""
    world = World({"a": b"0123456789"})
    fd = world.call("open", "/a", 0)
    other, second = world.call("dup", fd), world.call("open", "/a", 0)
    buffer = world.put(bytes(16))
    assert world.call("read", fd, buffer, 4) == 4
    assert world.call("lseek", other, 0, 1) == 4
    assert world.call("lseek", second, 0, 1) == 0
    assert world.call("lseek", fd, -2, 2) == 8
    assert world.call("pread64", fd, buffer, 3, 1) == 3
    assert world.get(buffer, 3) == b"123"
    assert world.call("lseek", fd, 0, 1) == 8
    assert world.call("lseek", fd, -20, 1) == -errno.EINVAL


def test_writes_beyond_the_end_leave_zeroes() -> None:
    """A hole reads as zeroes, and ftruncate cuts and grows."""
    world = World()
    fd = world.call("open", "/f", O_RDWR | O_CREAT, 0o600)
    assert world.call("pwrite64", fd, b"x", 1, 5) == 1
    assert text_of(world, "/f") == b"\0\0\0\0\0x"
    world.call("ftruncate", fd, 2)
    world.call("ftruncate", fd, 4)
    assert text_of(world, "/f") == bytes(4)


def test_the_upper_layer_is_bounded() -> None:
    """What does not fit into the container's layer is ENOSPC, and removing files makes room."""
    world = World()
    assert write_file(world, "/big", bytes(900_000)) == 900_000
    fd = world.call("open", "/more", O_WRONLY | O_CREAT, 0o600)
    assert world.call("write", fd, bytes(300_000), 300_000) == -errno.ENOSPC
    assert world.call("truncate", "/big", 0) == 0
    assert world.call("write", fd, bytes(300_000), 300_000) == 300_000


def test_directories_are_listed_in_pieces() -> None:
    """getdents64 gives what fits and goes on; a buffer too small for one name is EINVAL."""
    world = World({f"d/{letter}": b"" for letter in "abcdef"})
    fd = world.call("open", "/d", O_DIRECTORY)
    buffer = world.put(bytes(256))
    counts = []
    while count := world.call("getdents64", fd, buffer, 64):
        counts.append(count)
    assert sum(counts) == 8 * 24
    assert max(counts) <= 64
    world.call("lseek", fd, 0, 0)
    assert world.call("getdents64", fd, buffer, 8) == -errno.EINVAL


@pytest.mark.parametrize(("mode", "uid", "wanted"), [(0o600, 7, -errno.EACCES), (0o604, 7, 3), (0o600, 0, 3)])
def test_permissions_are_checked(mode: int, uid: int, wanted: int) -> None:
    """Others are refused what the bits do not give; root is not."""
    world = World({"f": b"abc"}, uid=uid)
    world.container.root.entries()["f"].mode = 0o100000 | mode
    fd = world.call("open", "/f", 0)
    assert (fd if fd < 0 else 3) == wanted


def test_only_owners_change_modes() -> None:
    """chmod and chown of another's file are EPERM; a directory without write permission takes no names."""
    world = World({"f": b""}, uid=7)
    assert world.call("chmod", "/f", 0o777) == -errno.EPERM
    assert world.call("chown", "/f", 7, 7) == -errno.EPERM
    assert world.call("mkdir", "/x", 0o755) == -errno.EACCES


def test_stat_shows_what_a_file_is() -> None:
    """Type, mode, size and links are those of the file; lstat does not follow."""
    world = World({"f": b"12345"})
    buffer = world.put(bytes(144))
    assert world.call("stat", "/f", buffer) == 0
    _, _, links, mode = struct.unpack("<QQQI", world.get(buffer, 28))
    assert (links, mode, struct.unpack("<q", world.get(buffer + 48, 8))[0]) == (1, 0o100755, 5)
    world.call("symlink", "f", "/l")
    world.call("lstat", "/l", buffer)
    assert struct.unpack("<I", world.get(buffer + 24, 4))[0] == 0o120777
    assert world.call("readlink", "/l", buffer, 100) == 1


def test_devices_do_what_they_are_for() -> None:
    """null swallows, zero gives zeroes, full is full, urandom differs from read to read."""
    world = World()
    buffer = world.put(bytes(64))
    null, zero = world.call("open", "/dev/null", O_RDWR), world.call("open", "/dev/zero", O_RDWR)
    assert (world.call("read", null, buffer, 8), world.call("write", null, b"xyz", 3)) == (0, 3)
    assert world.call("read", zero, buffer, 8) == 8
    assert world.call("write", world.call("open", "/dev/full", O_WRONLY), b"x", 1) == -errno.ENOSPC
    random = world.call("open", "/dev/urandom", 0)
    world.call("read", random, buffer, 32)
    world.call("read", random, buffer + 32, 32)
    assert world.get(buffer, 32) != world.get(buffer + 32, 32)


def test_standard_output_is_a_pipe_to_the_log() -> None:
    """Writes reach the console; /dev/stdout is the same place; there is no terminal."""
    world = World()
    world.call("write", 1, b"one\n", 4)
    fd = world.call("open", "/dev/stdout", O_WRONLY)
    world.call("write", fd, b"two\n", 4)
    world.call("write", 2, b"err\n", 4)
    assert world.written == {"stdout": b"one\ntwo\n", "stderr": b"err\n"}
    assert world.call("ioctl", 1, 0x5413, world.put(bytes(8))) == -errno.ENOTTY
    assert world.call("lseek", 1, 0, 1) == -errno.ESPIPE


def test_proc_shows_the_process_and_the_host() -> None:
    """/proc/self, /proc/PID and system files have the texts that programs read."""
    world = World()
    world.process.cmdline = ("prog", "arg")
    world.process.name = "prog"
    assert text_of(world, "/proc/self/cmdline") == b"prog\0arg\0"
    assert text_of(world, "/proc/1/comm") == b"prog\n"
    assert b"Name:\tprog\n" in text_of(world, "/proc/self/status")
    assert text_of(world, "/proc/1/stat").startswith(b"1 (prog) R 0 1 1 ")
    assert text_of(world, "/proc/sys/kernel/hostname") == b"box\n"
    assert b"MemTotal" in text_of(world, "/proc/meminfo")
    assert world.call("open", "/proc/2/stat", 0) == -errno.ENOENT
    assert world.call("mkdir", "/proc/x", 0o755) == -errno.EROFS
    assert {"1", "self", "meminfo"} <= set(world.names("/proc"))


def test_working_directories_have_paths() -> None:
    """chdir and getcwd agree, through mounts; a removed directory has no path."""
    world = World({"a/b/c": b""})
    buffer = world.put(bytes(64))
    for path in ("/a/b", "/dev/shm", "/"):
        assert world.call("chdir", path) == 0
        assert world.call("getcwd", buffer, 64) == len(path) + 1
        assert world.get(buffer, len(path)) == path.encode()
    world.call("mkdir", "/gone", 0o755)
    world.call("chdir", "/gone")
    world.call("rmdir", "/gone")
    assert world.call("getcwd", buffer, 64) == -errno.ENOENT
    assert world.call("chdir", "/a/b/c") == -errno.ENOTDIR
    assert world.call("getcwd", buffer, 2) == -errno.ENOENT


def test_descriptors_are_bounded_and_closed() -> None:
    """Descriptors are the lowest free ones, at most the limit; bad ones are EBADF; close_range closes a range."""
    world = World({"f": b""})
    first = world.call("open", "/f", 0)
    assert (first, world.call("dup2", first, 9), world.call("dup3", first, first, 0)) == (3, 9, -errno.EINVAL)
    assert world.call("fcntl", first, 0, 5) == 5
    assert world.call("close_range", 3, 8, 0) == 0
    assert world.call("close", 3) == -errno.EBADF
    assert world.call("write", 77, b"x", 1) == -errno.EBADF
    world.process.fds.limit = 4
    assert (world.call("open", "/f", 0), world.call("open", "/f", 0)) == (3, -errno.EMFILE)
    assert world.call("read", 1, world.put(bytes(4)), 4) == -errno.EBADF


def test_bad_pointers_are_efault() -> None:
    """Addresses that are not mapped or not the user's give EFAULT and change nothing."""
    world = World({"f": b"abc"})
    fd = world.call("open", "/f", 0)
    for address in (0x7FFF_0000_0000, 1 << 47, 1 << 63):
        assert world.call("read", fd, address, 3) == -errno.EFAULT
        assert world.call("write", 1, address, 3) == -errno.EFAULT
        assert world.call("open", address, 0) == -errno.EFAULT
    assert world.written["stdout"] == b""


def test_long_paths_are_refused() -> None:
    """A path of 4096 bytes and a name of 256 are ENAMETOOLONG."""
    world = World()
    assert world.call("open", "/" + "a/" * 2047 + "b", 0) == -errno.ENAMETOOLONG
    assert world.call("open", "/" + "x" * 256, O_CREAT | O_WRONLY) == -errno.ENAMETOOLONG
    assert world.call("open", "", 0) == -errno.ENOENT
