"""Processes: fork and clone, exec, exit, waiting, groups and sessions."""

from __future__ import annotations

import errno
import struct

from lamina_container_runtime.engines.model.kernel.abi import CLONE_VFORK, CLONE_VM, SIGCHLD, Errno, signed
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.execution import execve as replace_program
from lamina_container_runtime.engines.model.kernel.processes.lifecycle import clone as make_task
from lamina_container_runtime.engines.model.kernel.processes.lifecycle import reap
from lamina_container_runtime.engines.model.kernel.processes.loader import MAX_ARGUMENTS
from lamina_container_runtime.engines.model.kernel.processes.process import Process, ProcessState
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.kernel.signals import (
    CLD_CONTINUED,
    CLD_EXITED,
    CLD_KILLED,
    CLD_STOPPED,
    SignalInfo,
)
from lamina_container_runtime.engines.model.kernel.waiting import wait
from lamina_container_runtime.engines.model.syscalls.files import paths
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.effects import Step

CALLS = Calls()
_WNOHANG, _WUNTRACED, _WEXITED, _WCONTINUED, _WNOWAIT = 1, 2, 4, 8, 0x01000000
_NAMESPACES = 0x02000000 | 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_P_ALL, _P_PID, _P_PGID = range(3)


@CALLS.add("fork")
def fork(thread: Thread) -> Step[int]:
    """fork(2)."""
    return (yield from make_task(thread, SIGCHLD, 0, 0, 0, 0))


@CALLS.add("vfork")
def vfork(thread: Thread) -> Step[int]:
    """vfork(2)."""
    return (yield from make_task(thread, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0))


@CALLS.add("clone")
def clone(thread: Thread, flags: int, stack: int, parent_tid: int, child_tid: int, tls: int) -> Step[int]:
    """clone(2), without new namespaces (EPERM, as without CAP_SYS_ADMIN)."""
    if flags & _NAMESPACES:
        raise Errno(errno.EPERM)
    return (yield from make_task(thread, flags, stack, parent_tid, child_tid, tls))


@CALLS.add("execve")
def execve(thread: Thread, path_address: int, argv: int, environment: int) -> Step[int | None]:
    """execve(2)."""
    path = yield from paths.path_at(thread, path_address)
    words, left = yield from user.vector(thread, argv, MAX_ARGUMENTS)
    values, _ = yield from user.vector(thread, environment, left)
    yield from replace_program(thread, path, words, values)
    return None


@CALLS.add("exit")
def exit_(thread: Thread, code: int) -> int:
    """_exit(2) of one thread: the last one ends the process with its code."""
    if len(thread.process.threads) == 1 and thread.process.group_exit is None:
        thread.process.group_exit = (code & 0xFF) << 8
    thread.must_die = True
    return 0


@CALLS.add("exit_group")
def exit_group(thread: Thread, code: int) -> int:
    """exit_group(2)."""
    thread.process.exit_group((code & 0xFF) << 8)
    return 0


def _matches(child: Process, pid: int, own_group: int) -> bool:
    if pid > 0:
        return child.pid == pid
    return pid == -1 or child.group == (own_group if pid == 0 else -pid)


def _await_child(thread: Thread, pid: int, options: int) -> Step[tuple[Process, str] | None]:
    """Returns a child that has something to tell, and what: `ended`, `stopped` or `continued`; None with WNOHANG."""
    process = thread.process
    while True:
        children = [process.children[number] for number in sorted(process.children)]
        mine = [child for child in children if _matches(child, pid, process.group)]
        if not mine:
            raise Errno(errno.ECHILD)
        for child in mine:
            if child.state is ProcessState.ZOMBIE and options & _WEXITED:
                return child, "ended"
            if child.report and options & (_WUNTRACED if child.report == "stopped" else _WCONTINUED):
                return child, child.report
        if options & _WNOHANG:
            return None
        yield from wait(thread, (process.changed,), "wait")


def _status(child: Process, what: str) -> int:
    if what == "ended":
        return child.exit_status
    return child.stop_signal << 8 | 0x7F if what == "stopped" else 0xFFFF


def _told(child: Process, what: str) -> None:
    if what == "ended":
        reap(child)
    else:
        child.report = ""


@CALLS.add("wait4")
def wait4(thread: Thread, pid: int, status_address: int, options: int, usage: int) -> Step[int]:
    """wait4(2)."""
    if options & ~(_WNOHANG | _WUNTRACED | _WCONTINUED | 0xE0000000):
        raise Errno(errno.EINVAL)
    found = yield from _await_child(thread, signed(pid, 32), options | _WEXITED)
    if found is None:
        return 0
    child, what = found
    if status_address:
        yield from user.write(thread, status_address, struct.pack("<i", _status(child, what)))
    if usage:
        yield from user.write(thread, usage, _usage(child))
    _told(child, what)
    return child.pid


@CALLS.add("waitid")
def waitid(thread: Thread, kind: int, number: int, info: int, options: int, usage: int) -> Step[int]:
    """waitid(2)."""
    wanted = options & (_WEXITED | _WUNTRACED | _WCONTINUED)
    if not wanted or kind not in (_P_ALL, _P_PID, _P_PGID):
        raise Errno(errno.EINVAL)
    pid = {_P_ALL: -1, _P_PID: signed(number, 32), _P_PGID: -signed(number, 32)}[kind]
    found = yield from _await_child(thread, pid, options)
    if found is None:
        if info:
            yield from user.write(thread, info, bytes(128))
        return 0
    child, what = found
    status = child.exit_status
    code, value = {
        "ended": (CLD_KILLED, status) if status & 0x7F else (CLD_EXITED, status >> 8),
        "stopped": (CLD_STOPPED, child.stop_signal),
        "continued": (CLD_CONTINUED, 18),
    }[what]
    if info:
        yield from user.write(thread, info, SignalInfo(SIGCHLD, code, child.pid, child.uid, value).pack())
    if usage:
        yield from user.write(thread, usage, _usage(child))
    if not options & _WNOWAIT:
        _told(child, what)
    return 0


def _usage(process: Process) -> bytes:
    """Returns a struct rusage with the CPU time, as user time, and the page faults."""
    microseconds = process.run_time_ns // 1000
    used = (microseconds // 10**6, microseconds % 10**6, 0, 0, 0, 0, 0, 0, process.minor_faults, process.major_faults)
    return struct.pack("<18q", *used, *(0,) * 8)


@CALLS.add("getrusage")
def getrusage(thread: Thread, who: int, address: int) -> Step[int]:
    """getrusage(2) of the process itself; children count for nothing."""
    if signed(who, 32) not in (0, -1, 1):
        raise Errno(errno.EINVAL)
    yield from user.write(thread, address, _usage(thread.process) if signed(who, 32) != -1 else bytes(144))
    return 0


@CALLS.add("times")
def times(thread: Thread, address: int) -> Step[int]:
    """times(2): clock ticks of 10 ms."""
    if address:
        ticks = thread.process.run_time_ns // 10_000_000
        yield from user.write(thread, address, struct.pack("<4q", ticks, 0, 0, 0))
    return thread.kernel.clock.now_ns() // 10_000_000


def _other(thread: Thread, pid: int) -> Process:
    number = signed(pid, 32)
    if number == 0:
        return thread.process
    process = thread.process.container.pids.processes.get(number)
    if process is None:
        raise Errno(errno.ESRCH)
    return process


@CALLS.add("getpgid")
def getpgid(thread: Thread, pid: int) -> int:
    """getpgid(2)."""
    return _other(thread, pid).group


@CALLS.add("getpgrp")
def getpgrp(thread: Thread) -> int:
    """getpgrp(2)."""
    return thread.process.group


@CALLS.add("setpgid")
def setpgid(thread: Thread, pid: int, group: int) -> int:
    """setpgid(2), for the process itself and its children before they exec."""
    process = _other(thread, pid)
    number = signed(group, 32) or process.pid
    if number < 0:
        raise Errno(errno.EINVAL)
    if process is not thread.process:
        if process.parent is not thread.process:
            raise Errno(errno.ESRCH)
        if process.exec_done:
            raise Errno(errno.EACCES)
    if process.session == process.pid or process.session != thread.process.session:
        raise Errno(errno.EPERM)
    members = thread.process.container.pids.ordered()
    if number != process.pid and not any(
        other.group == number and other.session == process.session for other in members
    ):
        raise Errno(errno.EPERM)
    process.group = number
    return 0


@CALLS.add("getsid")
def getsid(thread: Thread, pid: int) -> int:
    """getsid(2)."""
    return _other(thread, pid).session


@CALLS.add("setsid")
def setsid(thread: Thread) -> int:
    """setsid(2)."""
    process = thread.process
    if any(other.group == process.pid for other in process.container.pids.ordered()):
        raise Errno(errno.EPERM)
    process.session = process.group = process.pid
    return process.pid
