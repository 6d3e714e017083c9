"""Time: reading clocks and sleeping. CLOCK_REALTIME is wall time, the others count from the stack's start."""

from __future__ import annotations

import errno
import struct

from lamina_container_runtime.engines.model.kernel.abi import Errno, Interrupted, pack_timespec, signed, unpack_timespec
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.kernel.waiting import wait
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.effects import Step

CALLS = Calls()
_REALTIME, _MONOTONIC, _PROCESS_CPU, _THREAD_CPU = 0, 1, 2, 3
_WALL_CLOCKS = (_REALTIME, 5, 8, 11)
_MONOTONIC_CLOCKS = (_MONOTONIC, 4, 6, 7, 9)
_TIMER_ABSTIME = 1


def _now(thread: Thread, clock: int) -> int:
    number = signed(clock, 32)
    if number in _WALL_CLOCKS:
        return thread.kernel.clock.wall_ns()
    if number in _MONOTONIC_CLOCKS:
        return thread.kernel.clock.now_ns()
    if number in (_PROCESS_CPU, _THREAD_CPU):
        return thread.process.run_time_ns
    raise Errno(errno.EINVAL)


@CALLS.add("clock_gettime")
def clock_gettime(thread: Thread, clock: int, address: int) -> Step[int]:
    """clock_gettime(2)."""
    yield from user.write(thread, address, pack_timespec(_now(thread, clock)))
    return 0


@CALLS.add("clock_getres")
def clock_getres(thread: Thread, clock: int, address: int) -> Step[int]:
    """clock_getres(2): 1 ns."""
    _now(thread, clock)
    if address:
        yield from user.write(thread, address, pack_timespec(1))
    return 0


@CALLS.add("gettimeofday")
def gettimeofday(thread: Thread, address: int, zone: int) -> Step[int]:
    """gettimeofday(2), in UTC."""
    now = thread.kernel.clock.wall_ns()
    if address:
        yield from user.write(thread, address, struct.pack("<qq", now // 10**9, now % 10**9 // 1000))
    if zone:
        yield from user.write(thread, zone, bytes(8))
    return 0


@CALLS.add("time")
def time(thread: Thread, address: int) -> Step[int]:
    """time(2)."""
    seconds = thread.kernel.clock.wall_ns() // 10**9
    if address:
        yield from user.write(thread, address, struct.pack("<q", seconds))
    return seconds


@CALLS.add("clock_nanosleep")
def clock_nanosleep(thread: Thread, clock: int, flags: int, request: int, remain: int) -> Step[int]:
    """clock_nanosleep(2). A stop and continuation does not begin the sleep anew."""
    ns = unpack_timespec((yield from user.read(thread, request, 16)))
    absolute = bool(flags & _TIMER_ABSTIME)
    now = thread.kernel.clock.now_ns()
    deadline = thread.restart_deadline
    if deadline is None:
        deadline = now + (ns - _now(thread, clock) if absolute else ns)
    try:
        yield from wait(thread, (), "nanosleep", max(0, deadline - now), restartable=False)
    except Interrupted:
        thread.restart_deadline = deadline
        left = max(0, deadline - thread.kernel.clock.now_ns())
        if remain and not absolute and not thread.must_die:
            yield from user.write(thread, remain, pack_timespec(left))
        raise
    thread.restart_deadline = None
    return 0


@CALLS.add("nanosleep")
def nanosleep(thread: Thread, request: int, remain: int) -> Step[int]:
    """nanosleep(2)."""
    return (yield from clock_nanosleep(thread, _MONOTONIC, 0, request, remain))


@CALLS.add("sched_yield")
def sched_yield(thread: Thread) -> int:
    """sched_yield(2): every call gives the core up."""
    return 0
