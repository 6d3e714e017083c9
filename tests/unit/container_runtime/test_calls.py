"""System calls in detail: what each returns, writes and changes, and what it refuses."""

from __future__ import annotations

import errno
import struct

import pytest
from tests.unit.container_runtime.kernel_world import World
from tests.unit.container_runtime.test_files import text_of

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
