"""System calls of a process about itself, its children and its time."""

from __future__ import annotations

import errno
import struct

from tests.unit.container_runtime.kernel_world import World
from tests.unit.container_runtime.test_calls import WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WUNTRACED
from tests.unit.container_runtime.test_processes import end, fork

from lamina_container_runtime.engines.model.kernel.processes.lifecycle import exit_thread

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

    def waits(clock: int, flags: int, ns: int) -> int | None:
        request = world.put(struct.pack("<qq", ns // 10**9, ns % 10**9))
        assert world.call("clock_nanosleep", clock, flags, request, 0) == 0
        return world.waited[-1]

    assert waits(1, 0, 5 * 10**8) == 5 * 10**8
    assert waits(1, 1, 3 * 10**9) == 2 * 10**9
    assert waits(1, 1, 10**8) == 0
    assert waits(0, 1, world.clock.wall_ns() + 7) == 7
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
