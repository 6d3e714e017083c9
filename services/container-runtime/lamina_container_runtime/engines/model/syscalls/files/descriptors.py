"""Descriptors: close, dup, fcntl, ioctl, pipes."""

from __future__ import annotations

import errno
import struct

from lamina_container_runtime.engines.model.kernel.abi import O_APPEND, O_CLOEXEC, O_NONBLOCK, Errno, signed
from lamina_container_runtime.engines.model.kernel.files.fifo import make_pipe
from lamina_container_runtime.engines.model.kernel.files.open_file import RegularFile
from lamina_container_runtime.engines.model.kernel.files.pipe import CAPACITY, PipeReader, PipeWriter
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.effects import Step

CALLS = Calls()
_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL = range(5)
_F_DUPFD_CLOEXEC, _F_GETPIPE_SZ = 1030, 1032
_SETTABLE = O_APPEND | O_NONBLOCK
_FIONREAD, _FIONBIO, _FIOCLEX, _FIONCLEX = 0x541B, 0x5421, 0x5451, 0x5450
_CLOSE_RANGE_CLOEXEC = 4


@CALLS.add("close")
def close(thread: Thread, fd: int) -> int:
    """close(2)."""
    thread.process.fds.close(fd)
    return 0


@CALLS.add("close_range")
def close_range(thread: Thread, first: int, last: int, flags: int) -> int:
    """close_range(2)."""
    first, last = first & 0xFFFFFFFF, last & 0xFFFFFFFF
    if first > last or flags & ~6:
        raise Errno(errno.EINVAL)
    fds = thread.process.fds
    for fd in [fd for fd in fds if first <= fd <= last]:
        if flags & _CLOSE_RANGE_CLOEXEC:
            fds.slot(fd).close_on_exec = True
        else:
            fds.close(fd)
    return 0


@CALLS.add("dup")
def dup(thread: Thread, fd: int) -> int:
    """dup(2)."""
    return thread.process.fds.add(thread.process.fds.get(fd))


@CALLS.add("dup2")
def dup2(thread: Thread, old: int, new: int) -> int:
    """dup2(2)."""
    file = thread.process.fds.get(old)
    if signed(old, 32) != signed(new, 32):
        thread.process.fds.put(signed(new, 32), file)
    return signed(new, 32)


@CALLS.add("dup3")
def dup3(thread: Thread, old: int, new: int, flags: int) -> int:
    """dup3(2)."""
    file = thread.process.fds.get(old)
    if signed(old, 32) == signed(new, 32) or flags & ~O_CLOEXEC:
        raise Errno(errno.EINVAL)
    thread.process.fds.put(signed(new, 32), file, close_on_exec=bool(flags & O_CLOEXEC))
    return signed(new, 32)


@CALLS.add("fcntl")
def fcntl(thread: Thread, fd: int, command: int, argument: int) -> Step[int]:
    """fcntl(2), without record locks (EINVAL)."""
    fds = thread.process.fds
    slot = fds.slot(fd)
    if command in (_F_DUPFD, _F_DUPFD_CLOEXEC):
        lowest = signed(argument, 32)
        if not 0 <= lowest < fds.limit:
            raise Errno(errno.EINVAL)
        return fds.add(slot.file, close_on_exec=command == _F_DUPFD_CLOEXEC, lowest=lowest)
    if command == _F_GETFD:
        return int(slot.close_on_exec)
    if command == _F_SETFD:
        slot.close_on_exec = bool(argument & 1)
        return 0
    if command == _F_GETFL:
        return slot.file.flags
    if command == _F_SETFL:
        slot.file.flags = slot.file.flags & ~_SETTABLE | argument & _SETTABLE
        return 0
    if command == _F_GETPIPE_SZ and isinstance(slot.file, (PipeReader, PipeWriter)):
        return CAPACITY
    raise Errno(errno.EINVAL)
    yield


@CALLS.add("ioctl")
def ioctl(thread: Thread, fd: int, request: int, argument: int) -> Step[int]:
    """ioctl(2): what concerns every file; terminals are asked for in vain (ENOTTY), as there are none."""
    slot = thread.process.fds.slot(fd)
    if request == _FIONBIO:
        (value,) = struct.unpack("<i", (yield from user.read(thread, argument, 4)))
        slot.file.flags = slot.file.flags | O_NONBLOCK if value else slot.file.flags & ~O_NONBLOCK
        return 0
    if request in (_FIOCLEX, _FIONCLEX):
        slot.close_on_exec = request == _FIOCLEX
        return 0
    if request == _FIONREAD:
        if isinstance(slot.file, PipeReader):
            ready = len(slot.file.pipe.buffer)
        elif isinstance(slot.file, RegularFile):
            ready = max(0, slot.file.file.size - slot.file.position)
        else:
            raise Errno(errno.ENOTTY)
        yield from user.write(thread, argument, struct.pack("<i", ready))
        return 0
    raise Errno(errno.ENOTTY)


@CALLS.add("pipe2")
def pipe2(thread: Thread, address: int, flags: int) -> Step[int]:
    """pipe2(2)."""
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise Errno(errno.EINVAL)
    fds = thread.process.fds
    reader, writer = make_pipe(thread.process.container.root.fs, flags & O_NONBLOCK)
    close_on_exec = bool(flags & O_CLOEXEC)
    try:
        first = fds.add(reader, close_on_exec=close_on_exec)
    except Errno:
        writer.acquire().release()
        raise
    try:
        second = fds.add(writer, close_on_exec=close_on_exec)
    except Errno:
        fds.close(first)
        raise
    try:
        yield from user.write(thread, address, struct.pack("<ii", first, second))
    except Errno:
        fds.close(first)
        fds.close(second)
        raise
    return 0


@CALLS.add("pipe")
def pipe(thread: Thread, address: int) -> Step[int]:
    """pipe(2)."""
    return (yield from pipe2(thread, address, 0))
