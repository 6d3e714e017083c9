"""Signals: handlers, masks, sending, waiting."""

from __future__ import annotations

import errno
import struct

from lamina_container_runtime.engines.model.kernel.abi import (
    SIGKILL,
    SIGSTOP,
    Errno,
    signed,
    unpack_timespec,
)
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.alarm import arm, time_left
from lamina_container_runtime.engines.model.kernel.processes.process import Process, ProcessState
from lamina_container_runtime.engines.model.kernel.processes.signal_frame import sigreturn
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.kernel.signals import SI_TKILL, UNBLOCKABLE, Disposition, SignalInfo
from lamina_container_runtime.engines.model.kernel.waiting import wait
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.effects import Step

CALLS = Calls()
_SIG_BLOCK, _SIG_UNBLOCK, _SIG_SETMASK = range(3)
_MIN_STACK = 2048


def _check_signal(signal: int, lowest: int = 1) -> int:
    number = signed(signal, 32)
    if not lowest <= number <= 64:
        raise Errno(errno.EINVAL)
    return number


@CALLS.add("rt_sigaction")
def rt_sigaction(thread: Thread, signal: int, new: int, old: int, size: int) -> Step[int]:
    """rt_sigaction(2)."""
    number = _check_signal(signal)
    if size != 8 or (new and number in (SIGKILL, SIGSTOP)):
        raise Errno(errno.EINVAL)
    handlers = thread.process.handlers
    before = handlers.get(number)
    if new:
        handler, flags, restorer, mask = yield from user.words(thread, new, 4)
        handlers.table[number] = Disposition(handler, flags, restorer, mask & ~UNBLOCKABLE)
        if handlers.ignores(number):
            thread.process.pending.discard((number,))
            thread.pending.discard((number,))
    if old:
        data = struct.pack("<4Q", before.handler, before.flags, before.restorer, before.mask)
        yield from user.write(thread, old, data)
    return 0


@CALLS.add("rt_sigprocmask")
def rt_sigprocmask(thread: Thread, how: int, new: int, old: int, size: int) -> Step[int]:
    """rt_sigprocmask(2)."""
    if size != 8:
        raise Errno(errno.EINVAL)
    before = thread.blocked
    if new:
        (mask,) = yield from user.words(thread, new, 1)
        choices = {_SIG_BLOCK: before | mask, _SIG_UNBLOCK: before & ~mask, _SIG_SETMASK: mask}
        if signed(how, 32) not in choices:
            raise Errno(errno.EINVAL)
        thread.blocked = choices[signed(how, 32)] & ~UNBLOCKABLE
    if old:
        yield from user.write(thread, old, struct.pack("<Q", before))
    return 0


@CALLS.add("rt_sigpending")
def rt_sigpending(thread: Thread, address: int) -> Step[int]:
    """rt_sigpending(2)."""
    mask = (thread.pending.mask | thread.process.pending.mask) & thread.blocked
    yield from user.write(thread, address, struct.pack("<Q", mask))
    return 0


@CALLS.add("rt_sigreturn")
def rt_sigreturn(thread: Thread) -> Step[None]:
    """rt_sigreturn(2)."""
    yield from sigreturn(thread)


@CALLS.add("rt_sigsuspend")
def rt_sigsuspend(thread: Thread, address: int, size: int) -> Step[int]:
    """rt_sigsuspend(2)."""
    if size != 8:
        raise Errno(errno.EINVAL)
    (mask,) = yield from user.words(thread, address, 1)
    thread.saved_blocked, thread.blocked = thread.blocked, mask & ~UNBLOCKABLE
    while True:
        yield from wait(thread, (), "sigsuspend", restartable=False)


@CALLS.add("pause")
def pause(thread: Thread) -> Step[int]:
    """pause(2)."""
    while True:
        yield from wait(thread, (), "pause", restartable=False)


@CALLS.add("rt_sigtimedwait")
def rt_sigtimedwait(thread: Thread, address: int, info: int, timeout: int, size: int) -> Step[int]:
    """rt_sigtimedwait(2)."""
    if size != 8:
        raise Errno(errno.EINVAL)
    (wanted,) = yield from user.words(thread, address, 1)
    timeout_ns = unpack_timespec((yield from user.read(thread, timeout, 16))) if timeout else None
    blocked = thread.blocked
    while True:
        found = thread.pending.take(~wanted) or thread.process.pending.take(~wanted)
        if found is not None:
            if info:
                yield from user.write(thread, info, found.pack())
            return found.signal
        thread.blocked = blocked & ~wanted
        try:
            if not (yield from wait(thread, (), "sigwait", timeout_ns, restartable=False)):
                raise Errno(errno.EAGAIN)
        except Errno as error:
            pending = thread.pending.mask | thread.process.pending.mask
            if error.number != errno.EINTR or thread.must_die or not pending & wanted:
                raise
        finally:
            thread.blocked = blocked


@CALLS.add("sigaltstack")
def sigaltstack(thread: Thread, new: int, old: int) -> Step[int]:
    """sigaltstack(2)."""
    base, size, flags = thread.alternate_stack
    if new:
        address, raw_flags, length = yield from user.words(thread, new, 3)
        mode = raw_flags & 0xFFFFFFFF
        if mode & ~0x80000003:
            raise Errno(errno.EINVAL)
        if not mode & 2 and length < _MIN_STACK:
            raise Errno(errno.ENOMEM)
        if base <= thread.page.rsp - 1 < base + size:
            raise Errno(errno.EPERM)
        thread.alternate_stack = (0, 0, 2) if mode & 2 else (address, length, 0)
    if old:
        yield from user.write(thread, old, struct.pack("<QiiQ", base, flags, 0, size))
    return 0


@CALLS.add("kill")
def kill(thread: Thread, pid: int, signal: int) -> int:
    """kill(2): a process, a group (negative or 0), or all but process 1 (-1)."""
    number = _check_signal(signal, 0)
    target = signed(pid, 32)
    processes = thread.process.container.pids.ordered()
    if target > 0:
        chosen = [process for process in processes if process.pid == target]
    elif target == -1:
        chosen = [process for process in processes if process.pid != 1 and process is not thread.process]
    else:
        group = thread.process.group if target == 0 else -target
        chosen = [process for process in processes if process.group == group]
    if not chosen:
        raise Errno(errno.ESRCH)
    allowed = [process for process in chosen if _may_signal(thread, process)]
    if not allowed:
        raise Errno(errno.EPERM)
    for process in allowed:
        if number and process.state is ProcessState.ALIVE:
            process.send_signal(number, SignalInfo(number, 0, thread.process.pid, thread.process.uid))
    return 0


def _may_signal(thread: Thread, process: Process) -> bool:
    who = thread.process.view.who
    return who.is_root or who.uid == process.uid


@CALLS.add("tgkill")
def tgkill(thread: Thread, group: int, tid: int, signal: int) -> int:
    """tgkill(2)."""
    number = _check_signal(signal, 0)
    process = thread.process.container.pids.processes.get(signed(group, 32))
    target = process.threads.get(signed(tid, 32)) if process else None
    if process is None or target is None:
        raise Errno(errno.ESRCH)
    if not _may_signal(thread, process):
        raise Errno(errno.EPERM)
    if number:
        process.send_to_thread(target, SignalInfo(number, SI_TKILL, thread.process.pid, thread.process.uid))
    return 0


@CALLS.add("tkill")
def tkill(thread: Thread, tid: int, signal: int) -> int:
    """tkill(2)."""
    for process in thread.process.container.pids.ordered():
        if signed(tid, 32) in process.threads:
            return tgkill(thread, process.pid, tid, signal)
    raise Errno(errno.ESRCH)


@CALLS.add("alarm")
def alarm(thread: Thread, seconds: int) -> Step[int]:
    """alarm(2)."""
    left = time_left(thread.process)
    yield from arm(thread.process, (seconds & 0xFFFFFFFF) * 10**9, 0)
    return -(-left // 10**9)


@CALLS.add("setitimer")
def setitimer(thread: Thread, which: int, new: int, old: int) -> Step[int]:
    """setitimer(2), for ITIMER_REAL."""
    if which != 0:
        raise Errno(errno.EINVAL)
    process = thread.process
    if old:
        yield from user.write(thread, old, _timer(process.alarm_interval, time_left(process)))
    if new:
        interval_s, interval_us, value_s, value_us = struct.unpack("<4q", (yield from user.read(thread, new, 32)))
        if min(interval_s, interval_us, value_s, value_us) < 0 or max(interval_us, value_us) >= 10**6:
            raise Errno(errno.EINVAL)
        yield from arm(process, value_s * 10**9 + value_us * 1000, interval_s * 10**9 + interval_us * 1000)
    return 0


@CALLS.add("getitimer")
def getitimer(thread: Thread, which: int, address: int) -> Step[int]:
    """getitimer(2), for ITIMER_REAL."""
    if which != 0:
        raise Errno(errno.EINVAL)
    process = thread.process
    yield from user.write(thread, address, _timer(process.alarm_interval, time_left(process)))
    return 0


def _timer(interval: int, left: int) -> bytes:
    return struct.pack("<4q", interval // 10**9, interval % 10**9 // 1000, left // 10**9, left % 10**9 // 1000)
