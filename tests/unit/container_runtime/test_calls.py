"""System calls in detail: what each returns, writes and changes, and what it refuses."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from tests.unit.container_runtime.kernel_world import World
from tests.unit.container_runtime.test_files import text_of, write_file
from tests.unit.container_runtime.test_processes import end, fork

from lamina_container_runtime.engines.model.kernel.processes.lifecycle import exit_thread
from lamina_container_runtime.engines.model.syscalls.files import read_write

O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND = 1, 2, 0o100, 0o200, 0o1000, 0o2000
O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_CLOEXEC, O_PATH = 0o200000, 0o400000, 0o4000, 0o2000000, 0o10000000
AT_FDCWD, AT_EMPTY_PATH, AT_NOFOLLOW, AT_REMOVEDIR, AT_FOLLOW = -100, 0x1000, 0x100, 0x200, 0x400
WNOHANG, WUNTRACED, WEXITED, WCONTINUED, WNOWAIT = 1, 2, 4, 8, 0x01000000
S_IFIFO, S_IFREG, S_IFCHR = 0o010000, 0o100000, 0o020000
PAGE = 4096


def stat_of(world: World, path: str, name: str = "stat") -> dict[str, int]:
    """Returns what stat(2) says of a file."""
    buffer = world.put(bytes(144))
    assert world.call(name, path, buffer) == 0
    device, ino, links, mode, uid, gid = struct.unpack("<QQQIII", world.get(buffer, 36))
    (size,) = struct.unpack("<q", world.get(buffer + 48, 8))
    times = struct.unpack("<6q", world.get(buffer + 72, 48))
    names = ("device", "ino", "links", "mode", "uid", "gid", "size", "atime", "mtime", "ctime")
    stamps = [seconds * 10**9 + ns for seconds, ns in zip(times[::2], times[1::2], strict=True)]
    return dict(zip(names, (device, ino, links, mode, uid, gid, size, *stamps), strict=True))


def become(world: World, uid: int, gid: int | None = None) -> None:
    """Makes the process somebody else."""
    if gid is not None:
        assert world.call("setgid", gid) == 0
    assert world.call("setuid", uid) == 0


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_creat_makes_an_empty_file_to_write() -> None:
    """creat opens for writing, empties what is there, and makes what is not, with the mode less the umask."""
    world = World({"a": b"old"})
    world.call("umask", 0o027)
    fd = world.call("creat", "/a", 0o600)
    assert stat_of(world, "/a")["size"] == 0
    assert world.call("write", fd, b"new", 3) == 3
    assert world.call("read", fd, world.put(bytes(4)), 4) == -errno.EBADF
    world.call("creat", "/b", 0o777)
    assert stat_of(world, "/b")["mode"] == S_IFREG | 0o750


def test_a_file_opened_to_read_cannot_be_written() -> None:
    """Each access mode allows what it says, and a new file may be written whatever its mode."""
    world = World({"a": b"abc"})
    world.call("umask", 0)
    world.call("mkdir", "/tmp", 0o1777)
    world.call("chdir", "/tmp")
    become(world, 7)
    fd = world.call("open", "/a", 0)
    assert world.call("write", fd, b"x", 1) == -errno.EBADF
    assert world.call("pwrite64", fd, b"x", 1, 0) == -errno.EBADF
    made = world.call("open", "own", O_RDWR | O_CREAT, 0o400)
    assert made >= 0
    assert world.call("write", made, b"x", 1) == 1
    assert world.call("open", "own", O_WRONLY) == -errno.EACCES
    assert world.call("open", "own", O_TRUNC) == -errno.EACCES
    assert world.call("open", "own", 0) >= 0


def test_o_trunc_without_writing_empties_nothing() -> None:
    """A file that is opened to read keeps its bytes."""
    world = World({"a": b"abc"})
    world.call("open", "/a", O_TRUNC)
    assert text_of(world, "/a") == b"abc"


def test_paths_can_be_held_without_being_opened() -> None:
    """O_PATH names a file and neither reads nor writes it; from a directory paths go on."""
    world = World({"d/a": b"abc"}, uid=7)
    world.container.root.entries()["d"].entries()["a"].mode = S_IFREG  # type: ignore[attr-defined]
    fd = world.call("open", "/d/a", O_PATH)
    assert fd >= 0
    assert world.call("read", fd, world.put(bytes(4)), 4) == -errno.EBADF
    folder = world.call("open", "/d", O_PATH)
    buffer = world.put(bytes(144))
    assert world.call("newfstatat", folder, "a", buffer, 0) == 0
    assert world.call("open", "/d/b", O_PATH) == -errno.ENOENT
    assert world.call("openat", fd, "x", 0) == -errno.ENOTDIR
    assert world.call("openat", 99, "x", 0) == -errno.EBADF


def test_close_on_exec_is_remembered_by_the_descriptor() -> None:
    """O_CLOEXEC, F_SETFD, dup3 and the ioctls set it; dup and F_DUPFD do not take it over."""
    world = World({"a": b""})
    fd = world.call("open", "/a", O_CLOEXEC)
    assert world.call("fcntl", fd, 1, 0) == 1
    assert world.call("fcntl", world.call("dup", fd), 1, 0) == 0
    assert world.call("fcntl", world.call("fcntl", fd, 0, 10), 1, 0) == 0
    assert world.call("fcntl", world.call("fcntl", fd, 1030, 20), 1, 0) == 1
    assert world.call("dup3", fd, 30, O_CLOEXEC) == 30
    assert world.call("fcntl", 30, 1, 0) == 1
    assert world.call("dup3", fd, 31, 0) == 31
    assert world.call("fcntl", 31, 1, 0) == 0
    assert world.call("fcntl", fd, 2, 0) == 0
    assert world.call("fcntl", fd, 1, 0) == 0
    for request, wanted in ((0x5451, 1), (0x5450, 0)):
        assert world.call("ioctl", fd, request, 0) == 0
        assert world.call("fcntl", fd, 1, 0) == wanted
    assert world.call("close_range", 30, 31, 4) == 0
    assert (world.call("fcntl", 31, 1, 0), world.call("close_range", 5, 4, 0)) == (1, -errno.EINVAL)
    assert world.call("close_range", 3, 3, 8) == -errno.EINVAL
    assert world.call("dup3", fd, 40, 1) == -errno.EINVAL
    assert world.call("dup2", fd, fd) == fd
    assert world.call("dup2", 99, 5) == -errno.EBADF


def test_flags_of_open_files_are_shared_and_partly_set() -> None:
    """F_SETFL changes O_APPEND and O_NONBLOCK alone; how a file was opened and how it was made is not kept."""
    world = World({"a": b"abc"})
    fd = world.call("open", "/a", O_RDWR | O_CREAT | O_TRUNC | O_NONBLOCK)
    assert world.call("fcntl", fd, 3, 0) & 0o7777 == O_RDWR | O_NONBLOCK
    assert world.call("fcntl", fd, 4, O_APPEND | O_WRONLY) == 0
    assert world.call("fcntl", world.call("dup", fd), 3, 0) & 0o7777 == O_RDWR | O_APPEND
    one, zero = world.put(struct.pack("<i", 1)), world.put(struct.pack("<i", 0))
    world.call("ioctl", fd, 0x5421, one)
    assert world.call("fcntl", fd, 3, 0) & O_NONBLOCK
    world.call("ioctl", fd, 0x5421, zero)
    assert not world.call("fcntl", fd, 3, 0) & O_NONBLOCK
    assert world.call("fcntl", fd, 0, -1) == -errno.EINVAL
    assert world.call("fcntl", fd, 0, world.process.fds.limit) == -errno.EINVAL
    assert world.call("fcntl", fd, 99, 0) == -errno.EINVAL
    assert world.call("fcntl", 99, 1, 0) == -errno.EBADF


def test_how_much_can_be_read_at_once() -> None:
    """FIONREAD counts what is left of a file and what is in a pipe; a pipe says how large it is."""
    world = World({"a": b"abcdef"})
    answer = world.put(bytes(8))

    def ready(fd: int) -> int:
        assert world.call("ioctl", fd, 0x541B, answer) == 0
        return int(struct.unpack("<i", world.get(answer, 4))[0])

    fd = world.call("open", "/a", 0)
    world.call("lseek", fd, 2, 0)
    assert ready(fd) == 4
    world.call("lseek", fd, 20, 0)
    assert ready(fd) == 0
    ends = world.put(bytes(8))
    assert world.call("pipe", ends) == 0
    reader, writer = struct.unpack("<ii", world.get(ends, 8))
    world.call("write", writer, b"xyz", 3)
    assert ready(reader) == 3
    assert world.call("ioctl", writer, 0x541B, answer) == -errno.ENOTTY
    assert world.call("fcntl", reader, 1032, 0) == world.call("fcntl", writer, 1032, 0) == 65536
    assert world.call("fcntl", fd, 1032, 0) == -errno.EINVAL
    assert world.call("pipe2", ends, O_CLOEXEC | O_NONBLOCK) == 0
    assert world.call("pipe2", ends, O_APPEND) == -errno.EINVAL


def test_a_pipe_that_cannot_be_told_is_none() -> None:
    """When a pipe's numbers cannot be given, or only one fits, no descriptor is left."""
    world = World()
    assert world.call("pipe", 0x7FFF_0000_0000) == -errno.EFAULT
    assert list(world.process.fds) == [0, 1, 2]
    world.process.fds.limit = 4
    assert world.call("pipe", world.put(bytes(8))) == -errno.EMFILE
    assert list(world.process.fds) == [0, 1, 2]


def test_nodes_are_files_and_pipes_with_names() -> None:
    """mknod makes files and FIFOs, devices are refused, and a name that is taken or no file's is, too."""
    world = World({"d/a": b""})
    world.call("umask", 0o022)
    assert world.call("mknod", "/f", 0o666, 0) == 0
    assert stat_of(world, "/f")["mode"] == S_IFREG | 0o644
    assert world.call("mknod", "/p", S_IFIFO | 0o600, 0) == 0
    assert stat_of(world, "/p")["mode"] == S_IFIFO | 0o600
    assert world.call("mknod", "/c", S_IFCHR | 0o600, 0) == -errno.EPERM
    assert world.call("mknod", "/f", 0o666, 0) == -errno.EEXIST
    assert world.call("mknod", "/x/", 0o666, 0) == -errno.ENOENT
    assert world.call("mkdir", "/y/", 0o7777) == 0
    assert stat_of(world, "/y")["mode"] & 0o7777 == 0o1755
    folder = world.call("open", "/d", O_DIRECTORY)
    assert world.call("mkdirat", folder, "e", 0o700) == 0
    assert world.call("mkdirat", folder, "a", 0o700) == -errno.EEXIST
    assert world.names("/d") == [".", "..", "a", "e"]


# ── reading and writing ──────────────────────────────────────────────────────────────────────────────────────────────


def test_bytes_land_where_they_belong_across_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read or write of more than one piece moves every byte to its place, in order, by any of the calls."""
    monkeypatch.setattr(read_write, "PIECE", PAGE)
    data = b"".join(struct.pack("<I", number) for number in range(3000))
    size = len(data)
    world = World({"a": data})
    fd = world.call("open", "/a", 0)
    buffer = world.put(bytes(size + 16))
    assert world.call("read", fd, buffer, size + 16) == size
    assert world.get(buffer, size) == data
    for name, arguments in (("write", ()), ("pwrite64", (0,))):
        out = world.call("open", f"/{name}", O_RDWR | O_CREAT, 0o600)
        assert world.call(name, out, buffer, size, *arguments) == size
        back = world.put(bytes(size))
        assert world.call("pread64", out, back, size, 0) == size
        assert world.get(back, size) == data


def test_positions_of_reads_and_writes() -> None:
    """A short read says so, positional calls leave the position, and appending ignores it."""
    world = World({"a": b"0123456789"})
    fd = world.call("open", "/a", O_RDWR)
    buffer = world.put(bytes(16))
    assert [world.call("read", fd, buffer, 6), world.call("read", fd, buffer, 6)] == [6, 4]
    assert world.get(buffer, 4) == b"6789"
    assert world.call("read", fd, buffer, 6) == 0
    assert world.call("pread64", fd, buffer, 4, 8) == 2
    assert world.call("pread64", fd, buffer, 4, -1) == -errno.EINVAL
    assert world.call("pwrite64", fd, b"x", 1, -1) == -errno.EINVAL
    assert world.call("pwrite64", fd, b"AB", 2, 3) == 2
    assert world.call("lseek", fd, 0, 1) == 10
    assert text_of(world, "/a") == b"012AB56789"
    assert world.call("lseek", fd, 2, 9) == -errno.EINVAL
    assert world.call("lseek", fd, -3, 2) == 7
    assert world.call("write", fd, b"ZZZZ", 4) == 4
    assert text_of(world, "/a") == b"012AB56ZZZZ"
    appending = world.call("open", "/a", O_WRONLY | O_APPEND)
    world.call("lseek", appending, 0, 0)
    world.call("write", appending, b"!", 1)
    assert text_of(world, "/a").endswith(b"ZZZZ!")
    assert world.call("lseek", appending, 0, 1) == 12


def test_a_buffer_that_ends_early_ends_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before a bad page counts; when nothing was, the call fails."""
    monkeypatch.setattr(read_write, "PIECE", PAGE)
    world = World()
    fd = world.call("open", "/f", O_RDWR | O_CREAT, 0o600)
    assert world.call("write", fd, (16 << 20) - PAGE, 2 * PAGE) == PAGE
    assert stat_of(world, "/f")["size"] == PAGE
    assert world.call("write", fd, 16 << 20, 10) == -errno.EFAULT


def vectors(world: World, *parts: tuple[int, int]) -> int:
    """Puts a vector of (address, length) into memory."""
    return world.put(b"".join(struct.pack("<QQ", *part) for part in parts))


def test_vectors_are_filled_and_gathered_in_order() -> None:
    """readv fills one part after the other and stops where the file does; writev writes all as one."""
    world = World({"a": b"abcdefgh"})
    fd = world.call("open", "/a", 0)
    first, second, third = (world.put(bytes(16)) for _ in range(3))
    parts = vectors(world, (first, 3), (second, 0), (third, 16))
    assert world.call("readv", fd, parts, 3) == 8
    assert (world.get(first, 4), world.get(third, 6)) == (b"abc\0", b"defgh\0")
    out = world.call("open", "/b", O_RDWR | O_CREAT, 0o600)
    assert world.call("writev", out, vectors(world, (first, 3), (0, 0), (third, 5)), 3) == 8
    assert text_of(world, "/b") == b"abcdefgh"
    for count in (-1, 1025):
        assert world.call("readv", fd, parts, count) == -errno.EINVAL
        assert world.call("writev", out, parts, count) == -errno.EINVAL
    assert world.call("readv", fd, parts, 0) == world.call("writev", out, parts, 0) == 0
    assert world.call("writev", fd, parts, 3) == -errno.EBADF
    huge = vectors(world, (first, 0x7FFF_F000), (second, 1))
    assert world.call("readv", fd, huge, 2) == -errno.EINVAL


def test_sendfile_copies_from_a_position() -> None:
    """sendfile moves the position, or the given offset instead, and copies from files alone."""
    world = World({"a": b"0123456789"})
    source = world.call("open", "/a", 0)
    out = world.call("open", "/b", O_RDWR | O_CREAT, 0o600)
    offset = world.put(struct.pack("<q", 6))
    assert world.call("sendfile", out, source, offset, 3) == 3
    assert struct.unpack("<q", world.get(offset, 8)) == (9,)
    assert world.call("lseek", source, 0, 1) == 0
    assert world.call("sendfile", out, source, 0, 100) == 10
    assert world.call("lseek", source, 0, 1) == 10
    assert world.call("sendfile", out, source, 0, 5) == 0
    assert text_of(world, "/b") == b"6780123456789"
    assert world.call("sendfile", out, source, world.put(struct.pack("<q", -1)), 3) == -errno.EINVAL
    ends = world.put(bytes(8))
    world.call("pipe", ends)
    reader, _ = struct.unpack("<ii", world.get(ends, 8))
    assert world.call("sendfile", out, reader, 0, 3) == -errno.EINVAL
    assert world.call("sendfile", source, source, 0, 3) == -errno.EBADF


def test_truncate_checks_what_it_cuts() -> None:
    """Only files that one may write are cut, to sizes that are not negative."""
    world = World({"a": b"abcdef", "d/x": b""}, uid=7)
    assert world.call("truncate", "/a", 2) == -errno.EACCES
    world.container.root.entries()["a"].mode = S_IFREG | 0o606
    assert world.call("truncate", "/a", -1) == -errno.EINVAL
    assert world.call("truncate", "/d", 0) == -errno.EISDIR
    assert world.call("truncate", "/dev/null", 0) == -errno.EINVAL
    assert world.call("truncate", "/a", 2) == 0
    assert text_of(world, "/a") == b"ab"
    fd = world.call("open", "/a", O_RDWR)
    assert world.call("ftruncate", fd, -1) == -errno.EINVAL
    assert world.call("ftruncate", fd, 3) == 0
    assert text_of(world, "/a") == b"ab\0"
    for name in ("fsync", "fdatasync", "fadvise64"):
        assert (world.call(name, fd), world.call(name, 99)) == (0, -errno.EBADF)
    assert world.call("sync") == 0


def test_directories_of_descriptors() -> None:
    """Only a directory that still has its name is listed."""
    world = World({"d/a": b""})
    assert world.call("getdents64", world.call("open", "/d/a", 0), world.put(bytes(64)), 64) == -errno.ENOTDIR
    world.call("mkdir", "/gone", 0o755)
    fd = world.call("open", "/gone", O_DIRECTORY)
    world.call("rmdir", "/gone")
    assert world.call("getdents64", fd, world.put(bytes(64)), 64) == -errno.ENOENT


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


# ── who a process is ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_ids_are_given_up_for_good() -> None:
    """Root becomes anybody by each call; afterwards only what one is can be asked for."""
    world = World()
    first, second, third = (world.put(bytes(4)) for _ in range(3))
    assert world.call("setresgid", -1, 8, -1) == 0
    assert world.call("setresuid", 7, -1, -1) == 0
    assert (world.call("getuid"), world.call("geteuid"), world.call("getgid"), world.call("getegid")) == (7, 7, 8, 8)
    for name, wanted in (("getresuid", 7), ("getresgid", 8)):
        assert world.call(name, first, second, third) == 0
        assert [struct.unpack("<I", world.get(at, 4))[0] for at in (first, second, third)] == [wanted] * 3
    assert world.call("setuid", 0) == world.call("setgid", 0) == world.call("setreuid", 0, 0) == -errno.EPERM
    assert world.call("setuid", 7) == world.call("setgid", 8) == world.call("setreuid", -1, -1) == 0


def test_numbers_of_the_first_process() -> None:
    """The first process is 1, its parent is outside, and its thread has its number."""
    world = World()
    assert [world.call(name) for name in ("getpid", "gettid", "getppid")] == [1, 1, 0]
    assert world.call("set_tid_address", 0x1234) == 1
    assert world.thread.clear_child_tid == 0x1234


# ── children ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def info_of(world: World, address: int) -> tuple[int, int, int, int, int]:
    """Returns signal, code, pid, uid and status of a siginfo."""
    signal, _, code = struct.unpack("<iii", world.get(address, 12))
    pid, uid, status = struct.unpack("<iIi", world.get(address + 16, 12))
    return signal, code, pid, uid, status


def test_a_child_can_be_looked_at_before_it_is_taken() -> None:
    """waitid with WNOWAIT leaves the child to be waited for; without, it is gone afterwards."""
    world = World()
    pid = fork(world)
    end(world, pid, 5 << 8)
    info = world.put(bytes(128))
    for options in (WEXITED | WNOWAIT, WEXITED | WNOWAIT, WEXITED):
        assert world.call("waitid", 0, 0, info, options, 0) == 0
        assert info_of(world, info) == (17, 1, pid, 0, 5)
    assert world.call("waitid", 0, 0, info, WEXITED, 0) == -errno.ECHILD
    killed = fork(world)
    end(world, killed, 9)
    usage = world.put(b"\xff" * 144)
    assert world.call("waitid", 1, killed, info, WEXITED, usage) == 0
    assert info_of(world, info) == (17, 2, killed, 0, 9)
    assert world.get(usage, 144) == bytes(144)


def test_who_is_waited_for() -> None:
    """A wait is for one child, any, those of a group or of one's own group, and for what the options name."""
    world = World()
    first, second = fork(world), fork(world)
    assert world.call("setpgid", second, second) == 0
    end(world, second, 0)
    info = world.put(b"\xff" * 128)
    assert world.call("wait4", first, 0, WNOHANG, 0) == 0
    assert world.call("wait4", 0, 0, WNOHANG, 0) == 0
    assert world.call("wait4", 99, 0, WNOHANG, 0) == -errno.ECHILD
    assert world.call("wait4", -99, 0, WNOHANG, 0) == -errno.ECHILD
    assert world.call("waitid", 1, first, info, WEXITED | WNOHANG, 0) == 0
    assert world.get(info, 128) == bytes(128)
    assert world.call("waitid", 2, second, info, WEXITED | WNOWAIT, 0) == 0
    assert world.call("waitid", 2, second, info, WUNTRACED | WNOHANG, 0) == 0
    assert world.call("waitid", 3, second, info, WEXITED, 0) == -errno.EINVAL
    assert world.call("waitid", 0, 0, info, WNOHANG, 0) == -errno.EINVAL
    assert world.call("wait4", -second, 0, 0, 0) == second
    end(world, first, 0)
    assert world.call("wait4", 0, 0, 0, 0) == first


def test_stops_are_told_once_to_those_who_ask() -> None:
    """A child that stopped, and one that goes on, are told with WUNTRACED and WCONTINUED, each once."""
    world = World()
    pid = fork(world)
    child = world.container.pids.processes[pid]
    child.report, child.stop_signal = "stopped", 19
    status, info = world.put(bytes(4)), world.put(bytes(128))
    assert world.call("wait4", -1, status, WNOHANG, 0) == 0
    assert world.call("wait4", -1, status, WNOHANG | WCONTINUED, 0) == 0
    assert world.call("waitid", 0, 0, info, WUNTRACED | WNOWAIT, 0) == 0
    assert info_of(world, info) == (17, 5, pid, 0, 19)
    assert world.call("wait4", -1, status, WUNTRACED, 0) == pid
    assert struct.unpack("<i", world.get(status, 4)) == (19 << 8 | 0x7F,)
    assert world.call("wait4", -1, status, WNOHANG | WUNTRACED, 0) == 0
    child.report = "continued"
    assert world.call("wait4", -1, status, WNOHANG | WUNTRACED, 0) == 0
    assert world.call("waitid", 0, 0, info, WCONTINUED | WNOWAIT, 0) == 0
    assert info_of(world, info) == (17, 6, pid, 0, 18)
    assert world.call("wait4", -1, status, WCONTINUED, 0) == pid
    assert struct.unpack("<i", world.get(status, 4)) == (0xFFFF,)


def test_groups_are_changed_within_a_session() -> None:
    """A child moves to groups of its session until it has executed a program; leaders and strangers do not."""
    world = World()
    first, second = fork(world), fork(world)
    child, other = (world.container.pids.processes[pid] for pid in (first, second))
    assert (world.call("getpgrp"), world.call("getpgid", 0), world.call("getsid", 0)) == (1, 1, 1)
    assert world.call("setpgid", first, 0) == 0
    assert child.group == first
    assert world.call("setpgid", second, first) == 0
    assert (other.group, world.call("getpgid", second)) == (first, first)
    assert world.call("setpgid", second, 77) == -errno.EPERM
    assert world.call("setpgid", second, -3) == -errno.EINVAL
    assert world.call("setpgid", 0, 0) == -errno.EPERM
    child.exec_done = True
    assert world.call("setpgid", first, 1) == -errno.EACCES
    assert world.call("setpgid", 1, 0, thread=world.first_thread(second)) == -errno.ESRCH
    assert world.call("setsid", thread=world.first_thread(first)) == -errno.EPERM
    assert world.call("setsid", thread=world.first_thread(second)) == second
    assert (other.session, other.group, world.call("getsid", second)) == (second, second, second)
    assert world.call("setpgid", second, second) == -errno.EPERM
    assert world.call("getsid", 99) == world.call("getpgid", 99) == -errno.ESRCH


def test_clone_makes_no_namespaces() -> None:
    """Each kind of namespace is refused, as without CAP_SYS_ADMIN; without them a clone is a fork."""
    world = World()
    for flag in (0x02000000, 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert world.call("clone", flag | 17, 0, 0, 0, 0) == -errno.EPERM
    pid = world.call("clone", 17, 0, 0, 0, 0)
    assert world.call("getppid", thread=world.first_thread(pid)) == 1


def test_the_last_thread_ends_the_process_with_its_code() -> None:
    """exit leaves the low byte of its code as the status of a process that has no other thread."""
    world = World()
    pid = fork(world)
    thread = world.first_thread(pid)
    assert world.call("exit", 0x1_07, thread=thread) == 0
    assert thread.must_die
    world.drive(exit_thread(thread))
    status = world.put(bytes(4))
    assert world.call("wait4", pid, status, 0, 0) == pid
    assert struct.unpack("<i", world.get(status, 4)) == (7 << 8,)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_clocks_count_what_they_say() -> None:
    """Wall clocks, monotonic clocks and the process's time are told apart; unknown ones are refused."""
    world = World()
    world.clock.now = 5 * 10**9 + 7
    world.process.run_time_ns = 3 * 10**9 + 1
    buffer = world.put(bytes(16))
    wall, steady = world.clock.wall_ns(), world.clock.now
    used = 3 * 10**9 + 1
    shown = {0: wall, 5: wall, 11: wall, 1: steady, 4: steady, 7: steady, 2: used, 3: used}
    for clock, wanted in shown.items():
        assert world.call("clock_gettime", clock, buffer) == 0
        seconds, ns = struct.unpack("<qq", world.get(buffer, 16))
        assert seconds * 10**9 + ns == wanted
    assert world.call("clock_gettime", 99, buffer) == -errno.EINVAL
    assert world.call("clock_getres", 1, buffer) == 0
    assert struct.unpack("<qq", world.get(buffer, 16)) == (0, 1)
    assert (world.call("clock_getres", 1, 0), world.call("clock_getres", 99, 0)) == (0, -errno.EINVAL)
    zone = world.put(b"\xff" * 8)
    assert world.call("gettimeofday", buffer, zone) == 0
    assert struct.unpack("<qq", world.get(buffer, 16)) == (wall // 10**9, wall % 10**9 // 1000)
    assert world.get(zone, 8) == bytes(8)
    assert world.call("gettimeofday", 0, 0) == 0
    assert world.call("time", buffer) == wall // 10**9 == struct.unpack("<q", world.get(buffer, 8))[0]
    assert world.call("times", buffer) == 500
    assert struct.unpack("<4q", world.get(buffer, 32)) == (300, 0, 0, 0)
    assert world.call("sched_yield") == 0


def test_sleeps_until_a_time_and_for_a_time() -> None:
    """An absolute sleep waits what is left until its time, by either clock, and not at all when it is over."""
    world = World()
    world.clock.now = 10**9

    def sleep(clock: int, flags: int, ns: int) -> int | None:
        request = world.put(struct.pack("<qq", ns // 10**9, ns % 10**9))
        assert world.call("clock_nanosleep", clock, flags, request, 0) == 0
        return world.waited[-1]

    assert sleep(1, 0, 5 * 10**8) == 5 * 10**8
    assert sleep(1, 1, 3 * 10**9) == 2 * 10**9
    assert sleep(1, 1, 10**8) == 0
    assert sleep(0, 1, world.clock.wall_ns() + 7) == 7
    assert world.call("nanosleep", world.put(struct.pack("<qq", 0, 10**9)), 0) == -errno.EINVAL


def test_usage_is_the_process_s_own() -> None:
    """getrusage shows time and faults of the process, and nothing of its children."""
    world = World()
    world.process.run_time_ns = 2 * 10**9 + 3_000_500
    world.process.minor_faults, world.process.major_faults = 4, 5
    buffer = world.put(bytes(144))
    assert world.call("getrusage", 0, buffer) == 0
    usage = struct.unpack("<18q", world.get(buffer, 144))
    assert (usage[:4], usage[8:10]) == ((2, 3000, 0, 0), (4, 5))
    assert world.call("getrusage", -1, buffer) == 0
    assert not any(world.get(buffer, 144))
    assert world.call("getrusage", 2, buffer) == -errno.EINVAL


def test_a_signal_to_one_thread_kills_all_when_it_kills() -> None:
    """SIGKILL for one thread ends its process; another signal waits at that thread."""
    world = World()
    pid = fork(world)
    assert world.call("tgkill", pid, pid, 9) == 0
    child = world.container.pids.processes[pid]
    assert child.group_exit == 9
    other = fork(world)
    assert world.call("tgkill", other, other, 15) == 0
    assert world.container.pids.processes[other].group_exit is None
    assert 15 in world.first_thread(other).pending.infos
