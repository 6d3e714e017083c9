"""Waiting for several descriptors: poll, ppoll, select, pselect6."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

from lamina_container_runtime.domain.wait import WaitQueue
from lamina_container_runtime.engines.model.kernel.abi import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLNVAL,
    POLLOUT,
    POLLPRI,
    POLLRDNORM,
    POLLWRNORM,
    Errno,
    signed,
    unpack_timespec,
)
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.kernel.signals import UNBLOCKABLE
from lamina_container_runtime.engines.model.kernel.waiting import wait
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.effects import Step

CALLS = Calls()
_ALWAYS = POLLERR | POLLHUP | POLLNVAL
_READ_SET = POLLIN | POLLRDNORM | POLLHUP | POLLERR
_WRITE_SET = POLLOUT | POLLWRNORM | POLLERR
_MAX_SELECT = 1024


def _ready(thread: Thread, wanted: list[tuple[int, int]]) -> list[int]:
    """Returns what holds now for each (descriptor, events)."""
    found = []
    for fd, events in wanted:
        slot = thread.process.fds.slots.get(fd)
        if fd < 0:
            found.append(0)
        elif slot is None:
            found.append(POLLNVAL)
        else:
            found.append(slot.file.poll() & (events | _ALWAYS))
    return found


def _wait_ready(
    thread: Thread, wanted: list[tuple[int, int]], timeout_ns: int | None, enough: Callable[[list[int]], bool]
) -> Step[list[int]]:
    clock = thread.kernel.clock
    deadline = None if timeout_ns is None else clock.now_ns() + timeout_ns
    while True:
        ready = _ready(thread, wanted)
        left = None if deadline is None else max(0, deadline - clock.now_ns())
        if enough(ready) or left == 0:
            return ready
        queues: list[WaitQueue] = []
        for fd, _ in wanted:
            if fd in thread.process.fds.slots:
                queues.extend(thread.process.fds.get(fd).queues())
        yield from wait(thread, queues, "poll", left, restartable=False)


def _poll(thread: Thread, address: int, count: int, timeout_ns: int | None) -> Step[int]:
    if count > thread.process.fds.limit:
        raise Errno(errno.EINVAL)
    data = yield from user.read(thread, address, 8 * count)
    entries = [struct.unpack_from("<ihh", data, 8 * number) for number in range(count)]
    wanted = [(fd, events & 0xFFFF) for fd, events, _ in entries]
    ready = yield from _wait_ready(thread, wanted, timeout_ns, any)
    out = b"".join(struct.pack("<iHH", fd, events, found) for (fd, events), found in zip(wanted, ready, strict=True))
    yield from user.write(thread, address, out)
    return sum(1 for found in ready if found)


@CALLS.add("poll")
def poll(thread: Thread, address: int, count: int, timeout: int) -> Step[int]:
    """poll(2)."""
    ms = signed(timeout, 32)
    return (yield from _poll(thread, address, count, None if ms < 0 else ms * 1_000_000))


@CALLS.add("ppoll")
def ppoll(thread: Thread, address: int, count: int, timeout: int, mask: int, size: int) -> Step[int]:
    """ppoll(2)."""
    timeout_ns = unpack_timespec((yield from user.read(thread, timeout, 16))) if timeout else None
    yield from _mask_for_wait(thread, mask, size)
    result = yield from _poll(thread, address, count, timeout_ns)
    _unmask(thread)
    return result


def _mask_for_wait(thread: Thread, mask: int, size: int) -> Step[None]:
    if not mask:
        return
    if size != 8:
        raise Errno(errno.EINVAL)
    (blocked,) = yield from user.words(thread, mask, 1)
    thread.saved_blocked, thread.blocked = thread.blocked, blocked & ~UNBLOCKABLE


def _unmask(thread: Thread) -> None:
    if thread.saved_blocked is not None:
        thread.blocked, thread.saved_blocked = thread.saved_blocked, None


def _select(thread: Thread, count: int, sets: tuple[int, int, int], timeout_ns: int | None) -> Step[int]:
    count = signed(count, 32)
    if not 0 <= count <= _MAX_SELECT:
        raise Errno(errno.EINVAL)
    size = (count + 63) // 64 * 8
    events = (POLLIN, POLLOUT, POLLPRI)
    masks = []
    for address in sets:
        data = (yield from user.read(thread, address, size)) if address else bytes(size)
        masks.append(int.from_bytes(data, "little") & (1 << count) - 1)
    wanted = []
    for fd in range(count):
        bits = sum(event for event, mask in zip(events, masks, strict=True) if mask >> fd & 1)
        if bits:
            thread.process.fds.get(fd)
            wanted.append((fd, bits | (POLLRDNORM if bits & POLLIN else 0) | (POLLWRNORM if bits & POLLOUT else 0)))
    ready = yield from _wait_ready(thread, wanted, timeout_ns, lambda found: any(_sets_of(found, wanted, masks)))
    results = _sets_of(ready, wanted, masks)
    for address, result in zip(sets, results, strict=True):
        if address:
            yield from user.write(thread, address, result.to_bytes(size, "little"))
    return sum(result.bit_count() for result in results)


def _sets_of(ready: list[int], wanted: list[tuple[int, int]], masks: list[int]) -> list[int]:
    """Returns the three sets of select(2) that say what is ready."""
    results = [0, 0, 0]
    for (fd, _), found in zip(wanted, ready, strict=True):
        for number, bits in enumerate((_READ_SET, _WRITE_SET, POLLPRI)):
            if found & bits and masks[number] >> fd & 1:
                results[number] |= 1 << fd
    return results


@CALLS.add("select")
def select(thread: Thread, count: int, read: int, write: int, other: int, timeout: int) -> Step[int]:
    """select(2)."""
    timeout_ns = None
    if timeout:
        seconds, microseconds = struct.unpack("<qq", (yield from user.read(thread, timeout, 16)))
        if seconds < 0 or microseconds < 0:
            raise Errno(errno.EINVAL)
        timeout_ns = seconds * 10**9 + microseconds * 1000
    return (yield from _select(thread, count, (read, write, other), timeout_ns))


@CALLS.add("pselect6")
def pselect6(thread: Thread, count: int, read: int, write: int, other: int, timeout: int, mask: int) -> Step[int]:
    """pselect6(2)."""
    timeout_ns = unpack_timespec((yield from user.read(thread, timeout, 16))) if timeout else None
    if mask:
        address, size = yield from user.words(thread, mask, 2)
        yield from _mask_for_wait(thread, address, size)
    result = yield from _select(thread, count, (read, write, other), timeout_ns)
    _unmask(thread)
    return result
