"""Signals: sending, blocking, default actions, handlers and the way back."""

from __future__ import annotations

import errno
import struct

import pytest
from tests.unit.container_runtime.kernel_world import World

from lamina_container_runtime.engines.model.kernel.processes.signal_frame import before_user
from lamina_container_runtime.engines.model.kernel.signals import Disposition, SignalInfo
from lamina_kit.bus.run_page import DIRTY_ALL

HANDLER, RESTORER = 0x5000, 0x6000
SA_RESTART, SA_NODEFER, SA_RESETHAND, SA_ONSTACK = 0x10000000, 0x40000000, 0x80000000, 0x08000000


def handle(world: World, signal: int, flags: int = 0, mask: int = 0) -> None:
    """Installs a handler."""
    world.process.handlers.table[signal] = Disposition(HANDLER, flags, RESTORER, mask)


def exit_of(world: World) -> int | None:
    """Returns the status with which the process is to end."""
    return world.process.group_exit


def child_of(world: World) -> World:
    """Makes the world's process an ordinary one: not process 1."""
    world.container.init = None
    return world


def test_a_handler_gets_a_frame_and_sigreturn_undoes_it() -> None:
    """Registers, mask and floating point state are back after the handler."""
    world = World()
    page = world.thread.page
    for number in range(16):
        page.gpr[number] = number * 0x1111
    page.rsp, page.rip, page.rflags = 0x20000, 0x401000, 0x246
    page.fxsave[:] = bytes(range(256)) * 2
    page.fxsave[24:28] = (0x1F80).to_bytes(4, "little")
    before = (list(page.gpr), page.rip, page.rflags, bytes(page.fxsave))
    world.thread.blocked = 1 << 20
    handle(world, 10, mask=1 << 11)
    world.process.send_signal(10, SignalInfo(10, 0, pid=7))
    assert world.drive(before_user(world.thread))
    assert (page.rip, page.rdi, page.rsp % 16) == (HANDLER, 10, 8)
    assert struct.unpack("<Q", world.get(page.rsp, 8))[0] == RESTORER
    assert struct.unpack("<iii", world.get(page.rsi, 12))[0] == 10
    assert world.thread.blocked == 1 << 20 | 1 << 11 | 1 << 9
    page.fxsave[:] = bytes(512)
    page.rsp += 8
    assert world.call("rt_sigreturn") is None
    assert (list(page.gpr), page.rip, page.rflags, bytes(page.fxsave)) == before
    assert world.thread.blocked == 1 << 20
    assert page.dirty & ~DIRTY_ALL == 0


def test_process_1_gets_only_what_it_handles() -> None:
    """Signals without a handler do not reach process 1, not even SIGKILL from inside; from outside SIGKILL does."""
    world = World()
    for signal in (15, 9, 2):
        world.process.send_signal(signal)
    assert (world.process.group_exit, world.process.pending.infos) == (None, {})
    world.process.send_signal(15, outside=True)
    assert world.process.group_exit is None
    world.process.send_signal(9, outside=True)
    assert world.thread.must_die
    assert exit_of(world) == 9


def test_default_actions_terminate_or_do_nothing() -> None:
    """SIGTERM ends an ordinary process, SIGCHLD and SIGWINCH are nothing to it."""
    world = child_of(World())
    world.process.send_signal(17)
    world.process.send_signal(28)
    assert world.drive(before_user(world.thread))
    world.process.send_signal(15)
    assert not world.drive(before_user(world.thread))
    assert world.process.group_exit == 15


def test_blocked_signals_wait() -> None:
    """A blocked signal is pending until it is unblocked; SIGKILL cannot be blocked."""
    world = child_of(World())
    world.call("rt_sigprocmask", 0, struct.pack("<Q", 1 << 14 | 1 << 8), 0, 8)
    assert world.thread.blocked == 1 << 14
    world.process.send_signal(15)
    assert world.drive(before_user(world.thread))
    pending = world.put(bytes(8))
    world.call("rt_sigpending", pending)
    assert struct.unpack("<Q", world.get(pending, 8))[0] == 1 << 14
    world.call("rt_sigprocmask", 2, struct.pack("<Q", 0), 0, 8)
    assert not world.drive(before_user(world.thread))


def test_an_interrupted_call_is_restarted_or_not() -> None:
    """Without a handler it starts again; with one only with SA_RESTART, and only if it may."""
    world = World()
    page = world.thread.page

    def prepare(restartable: bool) -> None:
        page.rip, page.rax, page.rsp = 0x401002, -errno.EINTR & 2**64 - 1, 0x20000
        world.thread.interrupted = (0, restartable)

    prepare(True)
    world.drive(before_user(world.thread))
    assert (page.rip, page.rax) == (0x401000, 0)
    for flags, restartable, rip in ((0, True, 0x401002), (SA_RESTART, True, 0x401000), (SA_RESTART, False, 0x401002)):
        handle(world, 10, flags)
        prepare(restartable)
        world.process.send_signal(10)
        world.thread.blocked = 0
        world.drive(before_user(world.thread))
        saved_rip = struct.unpack("<Q", world.get(page.rdx + 40 + 16 * 8, 8))[0]
        assert saved_rip == rip


def test_flags_of_handlers_count() -> None:
    """SA_NODEFER leaves the signal unblocked, SA_RESETHAND removes the handler, SA_ONSTACK uses the other stack."""
    world = World()
    world.thread.page.rsp = 0x20000
    world.call("sigaltstack", struct.pack("<QiiQ", 0x30000, 0, 0, 0x4000), 0)
    handle(world, 10, SA_NODEFER | SA_RESETHAND | SA_ONSTACK)
    world.process.send_signal(10)
    world.drive(before_user(world.thread))
    assert world.thread.blocked == 0
    assert world.process.handlers.get(10).handler == 0
    assert 0x30000 < world.thread.page.rsp < 0x34000


def test_a_frame_that_does_not_fit_kills() -> None:
    """A stack pointer into nothing ends the process with SIGSEGV."""
    world = World()
    world.thread.page.rsp = 0x7FFF_0000_0000
    handle(world, 10)
    world.process.send_signal(10)
    assert not world.drive(before_user(world.thread))
    assert world.process.group_exit == 11


def test_a_forged_frame_gives_no_privileges() -> None:
    """sigreturn takes user flags and user addresses only."""
    world = World()
    page = world.thread.page
    frame = bytearray(304)
    struct.pack_into("<Q", frame, 40 + 17 * 8, 0xFFFF_FFFF)
    struct.pack_into("<Q", frame, 40 + 16 * 8, 0x401000)
    page.rsp = world.put(bytes(frame))
    world.call("rt_sigreturn")
    assert page.rflags & 0x3000 == 0
    assert page.rflags & 0x200
    struct.pack_into("<Q", frame, 40 + 16 * 8, 1 << 63)
    page.rsp = world.put(bytes(frame))
    world.call("rt_sigreturn")
    assert world.process.group_exit == 11


def test_a_fault_that_is_blocked_or_ignored_kills() -> None:
    """A program cannot go on behind its own fault by ignoring it, not even process 1."""
    for blocked, handler in ((1 << 10, HANDLER), (0, 1), (0, 0)):
        world = World()
        world.thread.blocked = blocked
        world.process.handlers.table[11] = Disposition(handler)
        world.process.force_signal(world.thread, SignalInfo(11, 1))
        assert world.process.group_exit == 11


def test_stop_and_continue() -> None:
    """SIGSTOP holds a process until SIGCONT, which its parent learns of."""
    world = child_of(World())
    world.process.send_signal(19)

    def go_on(waiter: object) -> None:
        assert world.process.stopped
        world.process.send_signal(18)

    world.on_wait = go_on
    assert world.drive(before_user(world.thread))
    assert not world.process.stopped
    assert world.process.report == "continued"


@pytest.mark.parametrize(
    ("pid", "signal", "wanted"), [(1, 0, 0), (99, 15, -errno.ESRCH), (1, 65, -errno.EINVAL), (-99, 15, -errno.ESRCH)]
)
def test_kill_checks_its_arguments(pid: int, signal: int, wanted: int) -> None:
    """Signal 0 asks only; unknown processes and numbers are refused."""
    assert World().call("kill", pid, signal) == wanted


def test_uncatchable_signals_take_no_handler() -> None:
    """rt_sigaction refuses SIGKILL and SIGSTOP."""
    world = World()
    action = struct.pack("<4Q", HANDLER, 0, RESTORER, 0)
    assert world.call("rt_sigaction", 9, action, 0, 8) == -errno.EINVAL
    assert world.call("rt_sigaction", 19, action, 0, 8) == -errno.EINVAL
    assert world.call("rt_sigaction", 15, action, 0, 8) == 0
    old = world.put(bytes(32))
    assert world.call("rt_sigaction", 15, 0, old, 8) == 0
    assert world.get(old, 8) == struct.pack("<Q", HANDLER)
