"""Processes in the kernel: fork, wait, exec, groups, limits, time."""

from __future__ import annotations

import errno
import struct

import pytest
from tests.unit.container_runtime.elf_files import Part, program
from tests.unit.container_runtime.kernel_world import World

from lamina_container_runtime.domain.containers.container import Exit
from lamina_container_runtime.domain.wait import Woken
from lamina_container_runtime.engines.model.containers import exit_of
from lamina_container_runtime.engines.model.effects import Run
from lamina_container_runtime.engines.model.kernel.processes.container import Loss
from lamina_container_runtime.engines.model.kernel.processes.lifecycle import exit_thread
from lamina_container_runtime.engines.model.kernel.processes.process import ProcessState
from lamina_container_runtime.engines.model.kernel.processes.registers import EFER, USER_CS
from lamina_container_runtime.engines.model.syscalls.dispatch import dispatch
from lamina_container_runtime.engines.model.syscalls.numbers import UNKNOWN, name_of
from lamina_kit.effects import Sleep
from lamina_kit.errors import Unavailable

WNOHANG = 1


def fork(world: World) -> int:
    """Forks and returns the child's number."""
    pid = world.call("fork")
    assert pid > 1
    return int(pid)


def end(world: World, pid: int, status: int) -> None:
    """Lets a child end with an exit status."""
    child = world.container.pids.processes[pid]
    child.exit_group(status)
    world.drive(exit_thread(world.first_thread(pid)))


def test_a_fork_is_a_copy_that_returns_zero() -> None:
    """The child has the registers, the files and the memory of its parent, 0 in rax and its own tables."""
    world = World()
    world.thread.page.rbx = 77
    address = world.put(b"shared")
    pid = fork(world)
    child = world.container.pids.processes[pid]
    thread = world.first_thread(pid)
    assert (thread.page.rax, thread.page.rbx, thread.page.cr3) == (0, 77, child.memory.root)
    assert child.memory.root != world.process.memory.root
    assert child.fds.get(1) is world.process.fds.get(1)
    assert world.memory.read(child.memory.root, address, 6) == b"shared"
    assert len(world.spawned) == 1


def test_forks_are_bounded_and_numbers_return() -> None:
    """The limit of tasks is EAGAIN; a child that was waited for makes room."""
    world = World()
    pids = [fork(world) for _ in range(7)]
    assert world.call("fork") == -errno.EAGAIN
    end(world, pids[0], 0)
    assert world.call("fork") == -errno.EAGAIN
    assert world.call("wait4", pids[0], 0, 0, 0) == pids[0]
    assert fork(world) not in pids


def test_wait_gives_statuses_and_knows_no_strangers() -> None:
    """wait4 gives exit codes and signals, 0 with WNOHANG while nobody ended, and ECHILD without children."""
    world = World()
    assert world.call("wait4", -1, 0, 0, 0) == -errno.ECHILD
    first, second = fork(world), fork(world)
    status = world.put(bytes(4))
    assert world.call("wait4", -1, status, WNOHANG, 0) == 0
    end(world, second, 5 << 8)
    assert world.call("wait4", -1, status, 0, 0) == second
    assert world.get(status, 4) == struct.pack("<i", 5 << 8)
    end(world, first, 9)
    assert world.call("wait4", first, status, 0, 0) == first
    assert world.get(status, 4) == struct.pack("<i", 9)
    assert world.call("wait4", -1, 0, 0x40000000 | 16, 0) == -errno.EINVAL


def test_a_wait_is_woken_by_a_child() -> None:
    """A parent that waits goes on when a child ends."""
    world = World()
    pid = fork(world)
    world.on_wait = lambda waiter: end(world, pid, 0)
    assert world.call("wait4", -1, 0, 0, 0) == pid


def test_children_of_who_ignores_them_leave_no_zombies() -> None:
    """With SIGCHLD ignored a child is gone at once."""
    world = World()
    world.process.handlers.table[17] = type(world.process.handlers.get(17))(handler=1)
    pid = fork(world)
    end(world, pid, 0)
    assert pid not in world.container.pids.processes
    assert world.call("wait4", -1, 0, 0, 0) == -errno.ECHILD


def test_the_end_of_process_1_is_the_end_of_all() -> None:
    """When process 1 ends the others are killed, then the container has ended."""
    world = World()
    pid = fork(world)
    ended: list[int] = []

    def on_exit(status: int):  # type: ignore[no-untyped-def]
        ended.append(status)
        return
        yield

    world.container.on_exit = on_exit
    world.on_wait = lambda waiter: world.drive(exit_thread(world.first_thread(pid)))
    world.process.exit_group(3 << 8)
    world.drive(exit_thread(world.thread))
    assert ended == [3 << 8]
    assert world.container.pids.processes == {}
    assert world.container.pids.limit.tasks == 0


def test_exec_replaces_the_program_and_keeps_the_process() -> None:
    """Registers begin anew at the entry point, close-on-exec descriptors go, handlers become defaults."""
    world = World({"bin/prog": program(Part())})
    kept, closed = world.call("open", "/bin/prog", 0), world.call("open", "/bin/prog", 0o2000000)
    world.process.handlers.table[15] = type(world.process.handlers.get(15))(handler=0x5000)
    argv = world.put(struct.pack("<QQ", world.put("prog"), 0))
    before = world.process.memory.root
    assert world.call("execve", "/bin/prog", argv, 0) is None
    page = world.thread.page
    assert (page.rip, page.cpl, page.efer, page.segment("cs").selector) == (0x400100, 3, EFER, USER_CS)
    assert page.cr3 == world.process.memory.root != before
    assert kept in world.process.fds.slots
    assert closed not in world.process.fds.slots
    assert world.process.handlers.table == {}
    assert world.process.cmdline == ("prog",)


def test_exec_that_fails_changes_nothing() -> None:
    """Missing, unexecutable and malformed programs leave the old program as it was."""
    world = World({"text": b"hello", "bad": program(Part(), machine=3)})
    before = world.process.memory
    argv = world.put(bytes(8))
    assert world.call("execve", "/none", argv, 0) == -errno.ENOENT
    assert world.call("execve", "/etc", argv, 0) == -errno.EACCES
    assert world.call("execve", "/text", argv, 0) == -errno.ENOEXEC
    assert world.call("execve", "/bad", argv, 0) == -errno.ENOEXEC
    assert world.process.memory is before
    assert [event for _, event, _ in world.events] == ["exec.refused", "exec.refused"]


def test_scripts_run_their_interpreter() -> None:
    """A #! line names the program and one argument; scripts that name each other are ELOOP."""
    world = World({"bin/sh": program(Part()), "s": b"#!/bin/sh -x -y\n", "loop": b"#!/loop\n"})
    argv = world.put(struct.pack("<QQQ", world.put("s"), world.put("arg"), 0))
    assert world.call("execve", "/s", argv, 0) is None
    assert world.process.cmdline == ("/bin/sh", "-x -y", "/s", "arg")
    assert world.call("execve", "/loop", argv, 0) == -errno.ELOOP


def test_argument_lists_are_bounded() -> None:
    """More than 2 MiB of arguments is E2BIG."""
    world = World({"bin/prog": program(Part())})
    text = world.put("x" * 100_000)
    argv = world.put(struct.pack("<24Q", *[text] * 23, 0))
    assert world.call("execve", "/bin/prog", argv, 0) == -errno.E2BIG


def test_sessions_and_groups() -> None:
    """setsid makes a leader, setpgid moves children, kill reaches a group."""
    world = World()
    assert world.call("setsid") == -errno.EPERM
    pid = fork(world)
    child = world.container.pids.processes[pid]
    assert (child.group, world.call("setpgid", pid, pid), child.group) == (1, 0, pid)
    assert world.call("getpgid", pid) == pid
    assert world.call("setpgid", 99, 0) == -errno.ESRCH
    assert world.call("kill", -pid, 15) == 0
    assert 15 in child.pending.infos


def test_sleep_takes_its_time_and_tells_what_is_left() -> None:
    """nanosleep waits for its time; a signal ends it with what remains; nonsense is EINVAL."""
    world = World()
    assert world.call("nanosleep", struct.pack("<qq", 2, 5), 0) == 0
    assert world.waited == [2_000_000_005]
    left = world.put(bytes(16))

    def interrupt(waiter: object) -> None:
        world.clock.now += 500_000_000
        waiter.fire(Woken.SIGNAL)  # type: ignore[attr-defined]

    world.on_wait = interrupt
    assert world.call("nanosleep", struct.pack("<qq", 2, 0), left) == -errno.EINTR
    assert struct.unpack("<qq", world.get(left, 16)) == (1, 500_000_000)
    assert world.call("nanosleep", struct.pack("<qq", -1, 0), 0) == -errno.EINVAL


def test_alarms_send_a_signal_and_can_be_set_anew() -> None:
    """alarm gives the seconds left, replaces the old timer, and sends SIGALRM."""
    world = World()
    world.process.handlers.table[14] = type(world.process.handlers.get(14))(handler=0x5000)
    assert (world.call("alarm", 10), world.call("alarm", 3)) == (0, 10)
    first, second = world.spawned
    world.clock.now += 3 * 10**9
    for step in (first, second):
        effect = next(step)
        assert isinstance(effect, Sleep)
        for _ in step:
            raise AssertionError("a timer fires once")
    assert list(world.process.pending.infos) == [14]


def test_a_process_that_is_gone_keeps_no_memory() -> None:
    """Ending gives back descriptors and the address space."""
    world = World()
    pid = fork(world)
    child = world.container.pids.processes[pid]
    end(world, pid, 0)
    assert (child.state, child.memory.users, child.fds.slots) == (ProcessState.ZOMBIE, 0, {})


def test_futexes_check_their_word() -> None:
    """A wait for a word that has changed is EAGAIN, one that nobody wakes ETIMEDOUT; wake counts."""
    world = World()
    address = world.put(struct.pack("<II", 5, 0))
    assert world.call("futex", address, 128, 4, 0, 0, 0) == -errno.EAGAIN
    timeout = world.put(struct.pack("<qq", 0, 1000))
    assert world.call("futex", address, 128, 5, timeout, 0, 0) == -errno.ETIMEDOUT
    woken: list[int] = []
    world.on_wait = lambda waiter: woken.append(world.call("futex", address, 129, 1, 0, 0, 0))
    assert world.call("futex", address, 128, 5, 0, 0, 0) == 0
    assert woken == [1]
    assert world.call("futex", address, 129, 1, 0, 0, 0) == 0
    assert world.call("futex", address + 1, 129, 1, 0, 0, 0) == -errno.EINVAL


def test_a_thread_that_the_kernel_lost_ends_its_container() -> None:
    """After a defect in a thread's step the process is gone and the container is reported as lost."""
    world = World()
    ended: list[int] = []

    def on_exit(status: int):  # type: ignore[no-untyped-def]
        ended.append(status)
        return
        yield

    world.container.on_exit = on_exit
    spawn = world.thread.spawn()
    assert spawn.cleanup is not None
    world.drive(spawn.cleanup())
    assert (ended, world.container.lost, world.container.pids.processes) == ([9], Loss.KERNEL_DEFECT, {})


def test_a_lost_process_leaves_the_exit_of_the_first_one_alone() -> None:
    """A defect under another process, or a process 1 that ends already, leaves the exit as it was."""
    world = World()
    child = world.container.pids.processes[fork(world)]
    world.drive(world.loop.lose(world.first_thread(child.pid)))
    assert (child.state, child.exit_status, world.container.lost) == (ProcessState.ZOMBIE, 9, None)
    world.process.exit_group(3 << 8)
    world.drive(world.loop.lose(world.thread))
    assert (world.process.exit_status, world.container.lost) == (3 << 8, None)
    assert exit_of(world.container, 3 << 8) == Exit(3, "Error")


@pytest.mark.parametrize(
    ("loss", "reason"), [(Loss.LAYER_FAILED, "RUNTIME_RESTARTED"), (Loss.KERNEL_DEFECT, "KERNEL_DEFECT")]
)
def test_a_lost_container_says_what_was_at_fault(loss: Loss, reason: str) -> None:
    """A failure of a layer below and a defect of the kernel have reasons and messages of their own."""
    world = World()
    world.process.lose(loss)
    ended = exit_of(world.container, 9)
    assert (ended.code, ended.reason, ended.message) == (137, reason, loss.value)


def test_a_layer_that_fails_under_a_child_kills_only_that() -> None:
    """An error of a layer below in a thread's run ends its process; the container goes on."""
    world = World()
    child = world.container.pids.processes[fork(world)]
    step = world.loop.run(world.first_thread(child.pid))
    effect = next(step)
    while not isinstance(effect, Run):
        effect = step.send(world.perform(effect))
    effect = step.throw(Unavailable("gone", reason="HOST_GONE"))
    with pytest.raises(StopIteration):
        while True:
            effect = step.send(world.perform(effect))
    assert (child.exit_status, world.container.lost, world.process.group_exit) == (9, None, None)


def test_numbers_of_calls_do_not_pile_up() -> None:
    """Numbers that Linux does not have are counted under one key; calls that it has keep their names."""
    world = World()
    for number in (5000, 1 << 40, (1 << 64) - 1, 425, 39):
        world.thread.page.rax = number
        world.drive(dispatch(world.thread))
    assert world.process.syscall_counts == {UNKNOWN: 3, 425: 1, 39: 1}
    assert world.process.unsupported == {UNKNOWN: 3, 425: 1}
    assert name_of(UNKNOWN) == "syscall_unknown"
