"""Reading and writing: read, write, their vector and positional forms, lseek, sendfile, getdents64, truncate."""

from __future__ import annotations

import errno
import struct

from lamina_container_runtime.engines.model.kernel.abi import (
    DT_OF,
    MAX_RW,
    MAY_WRITE,
    TASK_SIZE,
    Errno,
    Interrupted,
    signed,
)
from lamina_container_runtime.engines.model.kernel.files import credentials
from lamina_container_runtime.engines.model.kernel.files.inode import DirectoryInode, FileInode
from lamina_container_runtime.engines.model.kernel.files.open_file import Directory, OpenFile
from lamina_container_runtime.engines.model.kernel.files.resolve import parent_of, resolve
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.syscalls.files import paths
from lamina_container_runtime.engines.model.syscalls.files.preemption import PIECE, Turn
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.effects import Step

CALLS = Calls()
_MAX_VECTORS = 1024


def _reader(thread: Thread, fd: int) -> OpenFile:
    file = thread.process.fds.get(fd)
    if not file.readable:
        raise Errno(errno.EBADF)
    return file


def _writer(thread: Thread, fd: int) -> OpenFile:
    file = thread.process.fds.get(fd)
    if not file.writable:
        raise Errno(errno.EBADF)
    return file


def _check_buffer(address: int, count: int) -> int:
    """Returns how many bytes a call may move; EFAULT for a buffer outside user addresses."""
    count = min(count, MAX_RW)
    if address + count > TASK_SIZE:
        raise Errno(errno.EFAULT)
    return count


@CALLS.add("read")
def read(thread: Thread, fd: int, buffer: int, count: int) -> Step[int]:
    """read(2). Pieces of at most 1 MiB; a pipe or device gives one piece."""
    file = _reader(thread, fd)
    return (yield from _read(thread, file, buffer, count, Turn(thread, (fd, file))))


def _read(thread: Thread, file: OpenFile, buffer: int, count: int, turn: Turn) -> Step[int]:
    count = _check_buffer(buffer, count)
    done = 0
    while True:
        data = yield from file.read(thread, min(count - done, PIECE))
        yield from user.write(thread, buffer + done, data)
        done += len(data)
        if done >= count or len(data) < PIECE or (yield from turn.over(len(data))):
            return done


@CALLS.add("write")
def write(thread: Thread, fd: int, buffer: int, count: int) -> Step[int]:
    """write(2)."""
    file = _writer(thread, fd)
    return (yield from _write(thread, file, buffer, count, Turn(thread, (fd, file))))


def _write(thread: Thread, file: OpenFile, buffer: int, count: int, turn: Turn) -> Step[int]:
    count = _check_buffer(buffer, count)
    done = 0
    while True:
        piece = min(count - done, PIECE)
        try:
            data = yield from user.read(thread, buffer + done, piece)
            taken = yield from file.write(thread, data)
        except Errno:
            if done:
                return done
            raise
        done += taken
        if done >= count or taken < piece or (yield from turn.over(taken)):
            return done


def _vectors(thread: Thread, address: int, count: int) -> Step[list[tuple[int, int]]]:
    count = signed(count, 32)
    if not 0 <= count <= _MAX_VECTORS:
        raise Errno(errno.EINVAL)
    data = yield from user.read(thread, address, 16 * count)
    vectors = [struct.unpack_from("<QQ", data, 16 * number) for number in range(count)]
    if sum(length for _, length in vectors) > MAX_RW:
        raise Errno(errno.EINVAL)
    return [(base, length) for base, length in vectors]


@CALLS.add("readv")
def readv(thread: Thread, fd: int, address: int, count: int) -> Step[int]:
    """readv(2)."""
    vectors = yield from _vectors(thread, address, count)
    file = _reader(thread, fd)
    turn = Turn(thread, (fd, file))
    done = 0
    for base, length in vectors:
        if length:
            got = yield from _read(thread, file, base, length, turn)
            done += got
            if got < length or (yield from turn.over(min(got, PIECE), 1)):
                break
    return done


@CALLS.add("writev")
def writev(thread: Thread, fd: int, address: int, count: int) -> Step[int]:
    """writev(2). The pieces are put together first, so that they reach a pipe as one write."""
    _writer(thread, fd)
    vectors = yield from _vectors(thread, address, count)
    if sum(length for _, length in vectors) <= PIECE:
        data = yield from _gather(thread, vectors)
        return (yield from _writer(thread, fd).write(thread, data))
    file = _writer(thread, fd)
    turn = Turn(thread, (fd, file))
    done = 0
    for base, length in vectors:
        if length:
            taken = yield from _write(thread, file, base, length, turn)
            done += taken
            if taken < length or (yield from turn.over(min(taken, PIECE), 1)):
                break
    return done


def _gather(thread: Thread, vectors: list[tuple[int, int]]) -> Step[bytes]:
    """Returns the bytes of all vectors; EINTR when the thread dies meanwhile."""
    turn = Turn(thread)
    parts = []
    for base, length in vectors:
        if length:
            parts.append((yield from user.read(thread, base, length)))
            if (yield from turn.over(0, 1)):
                raise Interrupted
    return b"".join(parts)


@CALLS.add("pread64")
def pread64(thread: Thread, fd: int, buffer: int, count: int, offset: int) -> Step[int]:
    """pread(2)."""
    file = _reader(thread, fd)
    if signed(offset) < 0:
        raise Errno(errno.EINVAL)
    count = _check_buffer(buffer, count)
    turn = Turn(thread, (fd, file))
    done = 0
    while done < count:
        data = file.read_at(offset + done, min(count - done, PIECE))
        if not data:
            break
        yield from user.write(thread, buffer + done, data)
        done += len(data)
        if (yield from turn.over(len(data))):
            break
    return done


@CALLS.add("pwrite64")
def pwrite64(thread: Thread, fd: int, buffer: int, count: int, offset: int) -> Step[int]:
    """pwrite(2)."""
    file = _writer(thread, fd)
    if signed(offset) < 0:
        raise Errno(errno.EINVAL)
    count = _check_buffer(buffer, count)
    turn = Turn(thread, (fd, file))
    done = 0
    while done < count:
        data = yield from user.read(thread, buffer + done, min(count - done, PIECE))
        taken = file.write_at(offset + done, data)
        done += taken
        if (yield from turn.over(taken)):
            break
    return done


@CALLS.add("lseek")
def lseek(thread: Thread, fd: int, offset: int, whence: int) -> int:
    """lseek(2)."""
    return thread.process.fds.get(fd).seek(signed(offset), signed(whence, 32))


@CALLS.add("sendfile")
def sendfile(thread: Thread, out: int, source: int, offset_address: int, count: int) -> Step[int]:
    """sendfile(2), from a file with positions to anything that can be written."""
    reader, writer = _reader(thread, source), _writer(thread, out)
    position = reader.position
    if offset_address:
        (position,) = struct.unpack("<q", (yield from user.read(thread, offset_address, 8)))
        if position < 0:
            raise Errno(errno.EINVAL)
    try:
        reader.read_at(position, 0)
    except Errno as error:
        raise Errno(errno.EINVAL) from error
    turn = Turn(thread, (source, reader), (out, writer))
    done = 0
    while done < min(count, MAX_RW):
        data = reader.read_at(position + done, min(count - done, 65536))
        if not data:
            break
        taken = yield from writer.write(thread, data)
        done += taken
        if taken < len(data) or (yield from turn.over(taken)):
            break
    if offset_address:
        yield from user.write(thread, offset_address, struct.pack("<q", position + done))
    else:
        reader.seek(position + done, 0)
    return done


@CALLS.add("getdents64")
def getdents64(thread: Thread, fd: int, buffer: int, count: int) -> Step[int]:
    """getdents64(2)."""
    file = thread.process.fds.get(fd)
    if not isinstance(file, Directory):
        raise Errno(errno.ENOTDIR)
    if file.directory.removed:
        raise Errno(errno.ENOENT)
    names = file.names(thread.process, parent_of(file.directory, thread.process.view.root))
    out = bytearray()
    position = file.position
    while position < len(names):
        name, ino, kind = names[position]
        raw = name.encode(errors="surrogateescape") + b"\0"
        length = (19 + len(raw) + 7) & ~7
        if len(out) + length > count:
            break
        position += 1
        out += struct.pack("<QqHB", ino, position, length, DT_OF[kind]) + raw.ljust(length - 19, b"\0")
    if not out and position < len(names):
        raise Errno(errno.EINVAL)
    yield from user.write(thread, buffer, bytes(out))
    file.position = position
    return len(out)


@CALLS.add("ftruncate")
def ftruncate(thread: Thread, fd: int, size: int) -> int:
    """ftruncate(2)."""
    file = thread.process.fds.get(fd)
    if signed(size) < 0:
        raise Errno(errno.EINVAL)
    file.truncate(size)
    return 0


@CALLS.add("truncate")
def truncate(thread: Thread, path_address: int, size: int) -> Step[int]:
    """truncate(2)."""
    path = yield from paths.path_at(thread, path_address)
    inode = resolve(thread.process.view, path).existing()
    if signed(size) < 0:
        raise Errno(errno.EINVAL)
    if isinstance(inode, DirectoryInode):
        raise Errno(errno.EISDIR)
    if not isinstance(inode, FileInode):
        raise Errno(errno.EINVAL)
    paths.check_writable(thread, inode)
    credentials.check(inode, thread.process.view.who, MAY_WRITE)
    inode.truncate(size)
    return 0


@CALLS.add("fsync", "fdatasync", "syncfs")
def fsync(thread: Thread, fd: int) -> int:
    """fsync(2): files are in memory; there is nothing to wait for."""
    thread.process.fds.get(fd)
    return 0


@CALLS.add("sync")
def sync(thread: Thread) -> int:
    """sync(2)."""
    return 0


@CALLS.add("fadvise64")
def fadvise64(thread: Thread, fd: int) -> int:
    """posix_fadvise(2): advice changes nothing."""
    thread.process.fds.get(fd)
    return 0
