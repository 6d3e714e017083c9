"""System calls about signals, timers, readiness, limits and the system: what each answers and refuses."""

from __future__ import annotations

import errno
import struct

import pytest
from tests.unit.container_runtime.kernel_world import World
from tests.unit.container_runtime.test_calls import become
from tests.unit.container_runtime.test_processes import end, fork

from lamina_container_runtime.domain.wait import Waiter, WaitQueue, Woken
from lamina_container_runtime.engines.model.kernel.processes.loader import STACK_BYTES
from lamina_kit.bus.run_page import DIRTY_SEGMENTS

INFINITY = 2**64 - 1
POLLIN, POLLOUT, POLLHUP, POLLNVAL = 1, 4, 16, 32


def pipe(world: World) -> tuple[int, int]:
    """Makes a pipe; returns its ends."""
    ends = world.put(bytes(8))
    assert world.call("pipe", ends) == 0
    reader, writer = struct.unpack("<ii", world.get(ends, 8))
    return reader, writer


# ── signals ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_handlers_are_kept_and_shown() -> None:
    """A new disposition gives the old one; KILL and STOP cannot be masked; an ignored signal that waits is dropped."""
    world = World()
    old = world.put(bytes(32))
    kill_and_more = 1 << 8 | 1 << 18 | 1 << 1
    assert world.call("rt_sigaction", 10, struct.pack("<4Q", 0x1234, 4, 0x5678, kill_and_more), old, 8) == 0
    assert world.get(old, 32) == bytes(32)
    assert world.call("rt_sigaction", 10, 0, old, 8) == 0
    assert struct.unpack("<4Q", world.get(old, 32)) == (0x1234, 4, 0x5678, 1 << 1)
    for signal in (0, 65, -1):
        assert world.call("rt_sigaction", signal, 0, old, 8) == -errno.EINVAL
    assert world.call("rt_sigaction", 64, 0, old, 8) == 0
    assert world.call("rt_sigaction", 10, 0, old, 4) == -errno.EINVAL
    assert world.call("rt_sigaction", 9, 0, old, 8) == 0
    world.call("rt_sigprocmask", 0, struct.pack("<Q", 1 << 9), 0, 8)
    world.call("kill", 1, 10)
    assert 10 in world.process.pending.infos
    world.call("rt_sigaction", 10, struct.pack("<4Q", 1, 0, 0, 0), 0, 8)
    assert 10 not in world.process.pending.infos


def test_masks_are_added_taken_and_set() -> None:
    """Each way of changing the mask does what it says, KILL and STOP stay deliverable, and the old mask is shown."""
    world = World()
    old = world.put(bytes(8))

    def change(how: int, mask: int) -> int:
        assert world.call("rt_sigprocmask", how, struct.pack("<Q", mask), old, 8) == 0
        return int(struct.unpack("<Q", world.get(old, 8))[0])

    assert change(0, 0b0110) == 0
    assert change(0, 0b1000) == 0b0110
    assert change(1, 0b0010) == 0b1110
    assert change(2, INFINITY) == 0b1100
    assert change(2, 0) == INFINITY & ~(1 << 8 | 1 << 18)
    assert world.call("rt_sigprocmask", 3, struct.pack("<Q", 0), 0, 8) == -errno.EINVAL
    assert world.call("rt_sigprocmask", 0, 0, 0, 4) == -errno.EINVAL
    assert world.call("rt_sigprocmask", 99, 0, old, 8) == 0


def test_waiting_signals_are_shown_and_taken() -> None:
    """Blocked signals wait: they are shown, and sigtimedwait takes one with its sender, or waits for its time."""
    world = World()
    both = struct.pack("<Q", 1 << 9 | 1 << 11)
    world.call("rt_sigprocmask", 0, both, 0, 8)
    world.call("rt_sigaction", 10, struct.pack("<4Q", 0x1234, 0, 0, 0), 0, 8)
    world.call("kill", 1, 10)
    answer, info = world.put(bytes(8)), world.put(bytes(128))
    assert world.call("rt_sigpending", answer) == 0
    assert struct.unpack("<Q", world.get(answer, 8)) == (1 << 9,)
    assert world.call("rt_sigtimedwait", both, info, 0, 8) == 10
    assert struct.unpack("<i", world.get(info, 4)) == (10,)
    assert struct.unpack("<i", world.get(info + 16, 4)) == (1,)
    assert world.call("rt_sigtimedwait", both, info, struct.pack("<qq", 1, 5), 8) == -errno.EAGAIN
    assert world.waited[-1] == 10**9 + 5
    assert world.thread.blocked == 1 << 9 | 1 << 11
    assert world.call("rt_sigtimedwait", both, info, 0, 4) == -errno.EINVAL


def test_who_may_be_signalled() -> None:
    """Signals reach one, a group, or all but the first and the sender; another user's processes are refused."""
    world = World()
    first, second = fork(world), fork(world)
    one, two = (world.container.pids.processes[pid] for pid in (first, second))
    for process in (one, two):
        process.threads[process.pid].blocked = INFINITY
    world.call("setpgid", second, second)
    assert world.call("kill", -second, 10) == 0
    assert (10 in one.pending.infos, 10 in two.pending.infos) == (False, True)
    assert world.call("kill", first, 0) == 0
    assert one.pending.infos == {}
    assert world.call("kill", -1, 12) == 0
    assert 12 in one.pending.infos and 12 in two.pending.infos
    assert 12 not in world.process.pending.infos
    assert world.call("kill", 99, 10) == world.call("kill", -99, 10) == -errno.ESRCH
    assert world.call("tgkill", 1, 99, 10) == world.call("tkill", 99, 10) == -errno.ESRCH
    assert world.call("tkill", first, 14) == 0
    assert 14 in world.first_thread(first).pending.infos
    become(world, 7)
    assert world.call("kill", first, 0) == world.call("tgkill", first, first, 0) == -errno.EPERM
    assert world.call("kill", -1, 0) == -errno.EPERM


def test_alternate_stacks() -> None:
    """A stack of its own for handlers has a least size, can be switched off, and not while it is in use."""
    world = World()
    old = world.put(bytes(24))
    given = struct.pack("<QiiQ", 0x50000, 0, 0, 2048)
    assert world.call("sigaltstack", given, 0) == 0
    assert world.call("sigaltstack", 0, old) == 0
    assert struct.unpack("<QiiQ", world.get(old, 24)) == (0x50000, 0, 0, 2048)
    assert world.call("sigaltstack", struct.pack("<QiiQ", 0x50000, 0, 0, 2047), 0) == -errno.ENOMEM
    assert world.call("sigaltstack", struct.pack("<QiiQ", 0x50000, 4, 0, 4096), 0) == -errno.EINVAL
    world.thread.page.rsp = 0x50001
    assert world.call("sigaltstack", given, 0) == -errno.EPERM
    world.thread.page.rsp = 0x50801
    assert world.call("sigaltstack", struct.pack("<QiiQ", 0, 2, 0, 0), 0) == 0
    world.call("sigaltstack", 0, old)
    assert struct.unpack("<QiiQ", world.get(old, 24)) == (0, 2, 0, 0)


def test_timers_tell_what_is_left() -> None:
    """Timers show their interval and what is left, and refuse what is no time; alarm rounds up."""
    world = World()
    shown = world.put(bytes(32))
    assert world.call("setitimer", 0, struct.pack("<4q", 1, 5, 2, 7), 0) == 0
    world.clock.now += 10**9
    assert world.call("getitimer", 0, shown) == 0
    assert struct.unpack("<4q", world.get(shown, 32)) == (1, 5, 1, 7)
    assert world.call("setitimer", 0, struct.pack("<4q", 0, 0, 0, 0), shown) == 0
    assert struct.unpack("<4q", world.get(shown, 32)) == (1, 5, 1, 7)
    assert world.call("alarm", 3) == 0
    world.clock.now += 10**9 // 2
    assert world.call("alarm", 0) == 3
    assert world.call("alarm", 0) == 0
    for bad in ((0, 0, -1, 0), (0, -1, 0, 0), (0, 0, 0, 10**6), (0, 10**6, 0, 0)):
        assert world.call("setitimer", 0, struct.pack("<4q", *bad), 0) == -errno.EINVAL
    assert world.call("setitimer", 1, 0, 0) == world.call("getitimer", 2, shown) == -errno.EINVAL


# ── readiness ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_poll_answers_for_each_descriptor() -> None:
    """Ready ends, closed ends and descriptors that are none are told; negative ones are passed over."""
    world = World()
    reader, writer = pipe(world)
    asked = ((reader, POLLIN), (writer, POLLOUT), (-1, POLLIN), (99, POLLIN))

    def poll(timeout: int) -> tuple[int, list[int]]:
        entries = world.put(b"".join(struct.pack("<ihh", fd, events, -1) for fd, events in asked))
        count = int(world.call("poll", entries, len(asked), timeout))
        return count, [struct.unpack_from("<ihH", world.get(entries, 32), 8 * n)[2] for n in range(4)]

    assert poll(0) == (2, [0, POLLOUT, 0, POLLNVAL])
    world.call("write", writer, b"x", 1)
    assert poll(-1) == (3, [POLLIN, POLLOUT, 0, POLLNVAL])
    world.call("close", writer)
    assert poll(0)[1][0] == POLLIN | POLLHUP
    alone = world.put(struct.pack("<ihh", world.call("dup", reader), 0, 0))
    world.call("read", reader, world.put(bytes(4)), 4)
    assert world.call("poll", alone, 1, 0) == 1
    assert world.call("poll", alone, world.process.fds.limit + 1, 0) == -errno.EINVAL


def test_waits_for_readiness_take_their_time() -> None:
    """A poll that finds nothing waits so many milliseconds, for ever when negative, and not at all for 0."""
    world = World()
    reader, writer = pipe(world)
    entry = world.put(struct.pack("<ihh", reader, POLLIN, 0))

    def later(waiter: Waiter) -> None:
        world.clock.now += 10**9
        waiter.fire(Woken.TIMEOUT)

    world.on_wait = later
    assert world.call("poll", entry, 1, 0) == 0
    assert world.waited == []
    assert world.call("poll", entry, 1, 250) == 0
    assert world.waited == [250_000_000]
    assert world.call("ppoll", entry, 1, struct.pack("<qq", 0, 7), 0, 8) == 0
    assert world.waited[-1] == 7
    assert world.call("select", 0, 0, 0, 0, struct.pack("<qq", 0, 3)) == 0
    assert world.waited[-1] == 3000
    mask = struct.pack("<Q", 1 << 9)
    assert world.call("ppoll", entry, 1, struct.pack("<qq", 0, 7), mask, 4) == -errno.EINVAL

    def written(waiter: Waiter) -> None:
        world.call("write", writer, b"x", 1)
        waiter.fire(Woken.EVENT)

    world.on_wait = written
    assert world.call("ppoll", entry, 1, 0, mask, 8) == 1
    assert (world.thread.blocked, world.thread.saved_blocked) == (0, None)


def test_select_checks_its_sets() -> None:
    """select counts bits over all sets, looks below its count alone, and refuses what is no descriptor."""
    world = World()
    reader, writer = pipe(world)
    bits = struct.pack("<Q", 1 << reader | 1 << writer)
    read, write = world.put(bits), world.put(bits)
    world.call("write", writer, b"x", 1)
    assert world.call("select", writer + 1, read, write, 0, struct.pack("<qq", 0, 0)) == 2
    assert struct.unpack("<Q", world.get(read, 8)) == (1 << reader,)
    assert struct.unpack("<Q", world.get(write, 8)) == (1 << writer,)
    read = world.put(struct.pack("<Q", 1 << reader | 1 << 50))
    assert world.call("select", reader + 1, read, 0, 0, 0) == 1
    assert world.call("select", 51, world.put(struct.pack("<Q", 1 << 50)), 0, 0, 0) == -errno.EBADF
    for count in (-1, 1025):
        assert world.call("select", count, 0, 0, 0, 0) == -errno.EINVAL
    for bad in ((-1, 0), (0, -1)):
        assert world.call("select", 0, 0, 0, 0, struct.pack("<qq", *bad)) == -errno.EINVAL


def test_a_queue_wakes_in_order_and_once() -> None:
    """The first that wait are woken first, as many as asked; who was woken is not woken again."""
    queue, told = WaitQueue(), list[int]()
    waiters = [Waiter() for _ in range(3)]
    for number, waiter in enumerate(waiters):
        waiter.on_fire = lambda number=number: told.append(number)
        queue.add(waiter)
    assert (queue.pending, queue.wake(1), queue.pending, told) == (3, 1, 2, [0])
    waiters[1].fire(Woken.SIGNAL)
    waiters[1].fire(Woken.EVENT)
    assert (waiters[1].reason, queue.wake(), told) == (Woken.SIGNAL, 1, [0, 1, 2])
    queue.remove(waiters[0])
    queue.remove(waiters[0])
    assert (queue.wake(), queue.pending) == (0, 0)


# ── the system ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_system_names_itself() -> None:
    """uname gives the sandbox's host name, sysinfo the container's memory and tasks, and the cores are all there."""
    world = World()
    buffer = world.put(bytes(400))
    assert world.call("uname", buffer) == 0
    fields = [world.get(buffer + 65 * number, 65).split(b"\0")[0] for number in range(6)]
    assert (fields[0], fields[1], fields[4]) == (b"Linux", b"box", b"x86_64")
    fork(world)
    world.clock.now = 7 * 10**9
    world.container.memory_limit = 64 << 20
    assert world.call("sysinfo", buffer) == 0
    raw = world.get(buffer, 112)
    assert (raw[:8], struct.unpack_from("<QQ", raw, 32)) == (struct.pack("<q", 7), (64 << 20, 64 << 20))
    assert struct.unpack_from("<H", raw, 80) == (2,)
    world.kernel.cores = 3
    assert world.call("sched_getaffinity", 0, 8, buffer) == 8
    assert world.get(buffer, 8) == struct.pack("<Q", 0b111)
    assert world.call("sched_getaffinity", 0, 4, buffer) == -errno.EINVAL
    assert world.call("sched_getaffinity", 0, 12, buffer) == -errno.EINVAL
    cpu = world.put(b"\xff" * 8)
    assert world.call("getcpu", cpu, 0) == 0
    assert world.get(cpu, 8) == b"\0\0\0\0\xff\xff\xff\xff"
    assert (world.call("set_robust_list", 0, 24), world.call("set_robust_list", 0, 8)) == (0, -errno.EINVAL)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("rseq", errno.ENOSYS), ("clone3", errno.ENOSYS), ("socket", errno.EAFNOSUPPORT), ("mount", errno.EPERM),
     ("sethostname", errno.EPERM), ("setns", errno.EPERM)],
)  # fmt: skip
def test_what_a_container_has_not(name: str, wanted: int) -> None:
    """What is not there, and what would need a capability, is refused in the way that programs expect."""
    assert World().call(name) == -wanted


def test_random_bytes_are_bounded() -> None:
    """At most a mebibyte comes at once, into memory that is the user's, and no two answers are alike."""
    world = World()
    buffer = world.put(bytes(64))
    assert (world.call("getrandom", buffer, 32, 0), world.call("getrandom", buffer + 32, 32, 7)) == (32, 32)
    assert world.get(buffer, 32) != world.get(buffer + 32, 32)
    assert world.call("getrandom", buffer, 8, 8) == -errno.EINVAL
    assert world.call("getrandom", 1 << 63, 8, 0) == -errno.EFAULT


def test_thread_bases_are_set_and_read() -> None:
    """FS and GS have a base each, which the core is told; addresses that are not the user's are refused."""
    world = World()
    answer = world.put(bytes(8))
    world.thread.page.dirty = 0
    assert world.call("arch_prctl", 0x1002, 0x5000) == world.call("arch_prctl", 0x1001, 0x6000) == 0
    assert (world.thread.page.fs_base, world.thread.page.gs_base) == (0x5000, 0x6000)
    assert world.thread.page.dirty & DIRTY_SEGMENTS
    for code, wanted in ((0x1003, 0x5000), (0x1004, 0x6000)):
        assert world.call("arch_prctl", code, answer) == 0
        assert struct.unpack("<Q", world.get(answer, 8)) == (wanted,)
    assert world.call("arch_prctl", 0x1002, 1 << 63) == -errno.EPERM
    assert world.call("arch_prctl", 0x1005, 0) == -errno.EINVAL


def test_names_of_threads_are_cut() -> None:
    """A name has at most fifteen bytes; what else prctl can do is fixed."""
    world = World()
    assert world.call("prctl", 15, "a-very-long-name-indeed") == 0
    answer = world.put(b"\xff" * 16)
    assert world.call("prctl", 16, answer) == 0
    assert world.get(answer, 16) == b"a-very-long-nam\0"
    assert [world.call("prctl", option, 0) for option in (4, 38, 1, 39, 99)] == [0, 0, 0, 1, -errno.EINVAL]


def test_limits_are_shown_and_changed() -> None:
    """Each limit has its value; that of descriptors can be changed, by root beyond the hard one."""
    world = World()
    answer = world.put(bytes(16))
    descriptors = world.process.fds.limit
    for resource, wanted in {
        3: (STACK_BYTES, INFINITY), 4: (0, 0), 6: (8, 8), 7: (descriptors, 1 << 20), 0: (INFINITY, INFINITY),
    }.items():  # fmt: skip
        assert world.call("getrlimit", resource, answer) == 0
        assert struct.unpack("<QQ", world.get(answer, 16)) == wanted
    assert world.call("getrlimit", 16, answer) == -errno.EINVAL
    assert world.call("setrlimit", 7, struct.pack("<QQ", 5, 10)) == 0
    assert world.process.fds.limit == 5
    assert world.call("prlimit64", 1, 7, struct.pack("<QQ", 1 << 30, 1 << 30), answer) == 0
    assert (world.process.fds.limit, struct.unpack("<QQ", world.get(answer, 16))[0]) == (1 << 20, 5)
    assert world.call("setrlimit", 7, struct.pack("<QQ", 11, 10)) == -errno.EINVAL
    assert world.call("prlimit64", 99, 7, 0, answer) == -errno.ESRCH
    become(world, 7)
    assert world.call("prlimit64", 99, 7, 0, answer) == -errno.EPERM
    assert world.call("setrlimit", 7, struct.pack("<QQ", 5, (1 << 20) + 1)) == -errno.EPERM
    assert world.call("setrlimit", 7, struct.pack("<QQ", 5, 1 << 20)) == 0


def test_futexes_refuse_what_is_none() -> None:
    """A futex is four aligned bytes; a wait for another value, a requeue from another, and no bits are refused."""
    world = World()
    word = world.put(struct.pack("<I", 5))
    assert world.call("futex", word + 1, 0, 5, 0, 0, 0) == -errno.EINVAL
    assert world.call("futex", word, 9, 5, 0, 0, 0) == -errno.EINVAL
    assert world.call("futex", word, 0, 6, 0, 0, 0) == -errno.EAGAIN
    assert world.call("futex", word, 4, 1, 1, word + 16, 6) == -errno.EAGAIN
    assert world.call("futex", word, 4, 1, 1, word + 16, 5) == 0
    assert world.call("futex", word, 1, -1, 0, 0, 0) == 0
    assert world.call("futex", word, 99, 0, 0, 0, 0) == -errno.ENOSYS
    assert world.call("futex", word, 0 | 0x80, 5, struct.pack("<qq", 0, 9), 0, 0) == -errno.ETIMEDOUT
    assert world.waited[-1] == 9
    world.clock.now = 100
    until = struct.pack("<qq", 0, 130)
    assert world.call("futex", word, 9, 5, until, 0, 1) == -errno.ETIMEDOUT
    assert world.waited[-1] == 30
    wall = world.clock.wall_ns() + 11
    until = struct.pack("<qq", wall // 10**9, wall % 10**9)
    assert world.call("futex", word, 9 | 0x100, 5, until, 0, 1) == -errno.ETIMEDOUT
    assert world.waited[-1] == 11


def test_ended_children_are_not_signalled_again() -> None:
    """A zombie can be named by kill and gets nothing."""
    world = World()
    pid = fork(world)
    child = world.container.pids.processes[pid]
    end(world, pid, 0)
    assert world.call("kill", pid, 10) == 0
    assert 10 not in child.pending.infos
