"""How processes begin and end: start, clone, exec, exit, and waiting for children.

start ─▶ alive ─clone─▶ child        exec replaces the program, not the process
           │
           └─ exit, signal ─▶ zombie ─wait by the parent─▶ gone      (orphans are adopted by process 1)
"""

from __future__ import annotations

import errno
import struct
from contextlib import suppress

from lamina_container_runtime.domain.wait import Waiter
from lamina_container_runtime.engines.model.effects import (
    ContextRef,
    CreateContext,
    DeleteContext,
    DeleteSpace,
    ForkSpace,
    SpaceRef,
    Wait,
)
from lamina_container_runtime.engines.model.kernel.abi import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_FILES,
    CLONE_PARENT_SETTID,
    CLONE_SETTLS,
    CLONE_SIGHAND,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    SIGCHLD,
    SIGKILL,
    Errno,
    Interrupted,
)
from lamina_container_runtime.engines.model.kernel.files.resolve import View
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.memory.address_space import AddressSpace
from lamina_container_runtime.engines.model.kernel.processes import registers
from lamina_container_runtime.engines.model.kernel.processes.process import Container, Process, ProcessState
from lamina_container_runtime.engines.model.kernel.processes.thread import Loop, Thread
from lamina_container_runtime.engines.model.kernel.signals import (
    CLD_EXITED,
    CLD_KILLED,
    SA_NOCLDWAIT,
    SIG_IGN,
    SignalInfo,
)
from lamina_container_runtime.engines.model.kernel.waiting import wait
from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError


def label_of(container: Container, pid: int) -> str:
    """Returns the label of a process's space and context, for people."""
    return f"{container.hostname} {container.container_id} pid {pid}"[:127]


def new_thread(process: Process, tid: int, context: ContextRef, loop: Loop) -> Thread:
    """Enters a thread into its process."""
    thread = Thread(process, tid, context, loop)
    process.threads[tid] = thread
    return thread


def clone(parent: Thread, flags: int, stack: int, parent_tid: int, child_tid: int, tls: int) -> Step[int]:
    """Makes a thread or a process and lets it run; returns its number. EAGAIN, ENOMEM, EINVAL."""
    if (flags & CLONE_THREAD and not flags & CLONE_SIGHAND) or (flags & CLONE_SIGHAND and not flags & CLONE_VM):
        raise Errno(errno.EINVAL)
    namespace = parent.process.container.pids
    tid = namespace.allocate()
    try:
        process = parent.process if flags & CLONE_THREAD else (yield from _fork_process(parent, flags, tid))
        try:
            thread = yield from _clone_thread(parent, process, tid)
        except BaseException:
            if process is not parent.process:
                yield from _discard(process)
            raise
    except BaseException:
        namespace.free(tid)
        raise
    if stack:
        thread.page.rsp = stack
    if flags & CLONE_SETTLS:
        thread.page.fs_base = tls
    thread.clear_child_tid = child_tid if flags & CLONE_CHILD_CLEARTID else 0
    yield from _store_tid(parent, parent_tid if flags & CLONE_PARENT_SETTID else 0, tid)
    yield from _store_tid(thread, child_tid if flags & CLONE_CHILD_SETTID else 0, tid)
    released = thread.vfork_released
    if process is not parent.process:
        process.note("forked", parent=parent.process.pid, space=process.memory.space.name)
    yield thread.spawn()
    if flags & CLONE_VFORK and thread.process.state is ProcessState.ALIVE and not thread.process.exec_done:
        try:
            yield from wait(parent, (released,), "vfork", killable_only=True)
        except Interrupted:
            return tid
    return tid


def _store_tid(thread: Thread, address: int, tid: int) -> Step[None]:
    """Stores a thread's number in user memory. What hinders it changes nothing else: Linux ignores a bad address too,
    and a thread ends also when the MMU is gone."""
    if address:
        with suppress(Errno, LaminaError):
            yield from user.write(thread, address, struct.pack("<i", tid))


def _fork_process(parent: Thread, flags: int, pid: int) -> Step[Process]:
    process = parent.process
    container = process.container
    if flags & CLONE_VM:
        memory = process.memory
        memory.users += 1
    else:
        space: SpaceRef = yield ForkSpace(process.memory.space, label_of(container, pid))
        memory = process.memory.copy(space, container.next_domain())
    if flags & CLONE_FILES:
        fds = process.fds
        fds.users += 1
    else:
        fds = process.fds.copy()
    view = View(process.view.root, process.view.cwd, process.view.who)
    child = Process(container, pid, process, memory, fds, view)
    view.viewer = child
    child.handlers = process.handlers if flags & CLONE_SIGHAND else process.handlers.copy()
    child.cmdline, child.name, child.environment = process.cmdline, process.name, process.environment
    child.run_from(process.executable_inode)
    return child


def _clone_thread(parent: Thread, process: Process, tid: int) -> Step[Thread]:
    container = process.container
    context: ContextRef = yield CreateContext(
        container.run_group, process.memory.domain, label_of(container, process.pid)
    )
    if parent.must_die or container.pids.dying:
        yield DeleteContext(context)
        raise Errno(errno.EAGAIN)
    registers.copy(parent.page, context.page)
    context.page.rax = 0
    context.page.cr3 = process.memory.root
    thread = new_thread(process, tid, context, parent.loop)
    thread.blocked = parent.blocked
    if process is not parent.process:
        thread.alternate_stack = parent.alternate_stack
        process.parent = parent.process
        parent.process.children[process.pid] = process
        container.pids.add(process)
    return thread


def _discard(process: Process) -> Step[None]:
    """Takes back a process that got no thread."""
    release_fds(process)
    process.run_from(None)
    yield from release_memory(process.memory)


def release_fds(process: Process) -> None:
    """Gives the descriptors up; the last user closes them."""
    process.fds.users -= 1
    if process.fds.users == 0:
        process.fds.close_all()


def release_memory(memory: AddressSpace) -> Step[None]:
    """Gives an address space up; the last user deletes it."""
    memory.users -= 1
    if memory.users == 0:
        yield DeleteSpace(memory.space)


def exit_thread(thread: Thread) -> Step[None]:
    """Ends a thread, and with the last one its process."""
    process = thread.process
    if thread.clear_child_tid and (process.memory.users > 1 or len(process.threads) > 1):
        yield from _store_tid(thread, thread.clear_child_tid, 0)
        thread.kernel.futexes.wake(process.memory.space.name, thread.clear_child_tid, 1)
    yield DeleteContext(thread.context)
    del process.threads[thread.tid]
    process.threads_changed.wake()
    if thread.tid != process.pid:
        process.container.pids.free(thread.tid)
    if not process.threads:
        yield from _exit_process(process, thread)
    thread.vfork_released.wake()


def _exit_process(process: Process, last: Thread) -> Step[None]:
    status = process.group_exit if process.group_exit is not None else 0
    process.note("exited", code=status >> 8, signal=status & 0x7F, instructions=process.instructions)
    release_fds(process)
    process.run_from(None)
    yield from release_memory(process.memory)
    last.vfork_released.wake()
    namespace = process.container.pids
    if process.is_init:
        yield from _end_namespace(process)
    init = process.container.init
    for pid in sorted(process.children):
        _adopt(process.children[pid], None if process.is_init else init)
    process.children = {}
    process.exit_status = status
    process.state = ProcessState.ZOMBIE
    process.ended.wake()
    if process.is_init:
        reap(process)
        yield from _container_ended(process, status)
        return
    if namespace.dying or process.parent is None or _parent_ignores(process.parent):
        reap(process)
        if process.parent is not None:
            process.parent.changed.wake()
        return
    code, value = (CLD_KILLED, status) if status & 0x7F else (CLD_EXITED, status >> 8)
    process.parent.send_signal(SIGCHLD, SignalInfo(SIGCHLD, code, process.pid, process.uid, value))
    process.parent.changed.wake()


def _parent_ignores(parent: Process) -> bool:
    disposition = parent.handlers.get(SIGCHLD)
    return disposition.handler == SIG_IGN or bool(disposition.flags & SA_NOCLDWAIT)


def _adopt(child: Process, init: Process | None) -> None:
    child.parent = init
    if init is None:
        if child.state is ProcessState.ZOMBIE:
            reap(child)
        return
    init.children[child.pid] = child
    if child.state is ProcessState.ZOMBIE:
        init.send_signal(SIGCHLD, SignalInfo(SIGCHLD, CLD_EXITED, child.pid, child.uid, child.exit_status >> 8))
        init.changed.wake()


def _end_namespace(init: Process) -> Step[None]:
    """Kills all that is left in the namespace of a process 1 and waits until it is gone."""
    namespace = init.container.pids
    namespace.dying = True
    for process in namespace.ordered():
        if process is init:
            continue
        if process.state is ProcessState.ZOMBIE:
            reap(process)
        else:
            process.exit_group(SIGKILL)
    while len(namespace.processes) > 1:
        waiter = Waiter()
        namespace.emptied.add(waiter)
        yield Wait(waiter, None)
        namespace.emptied.remove(waiter)


def _container_ended(init: Process, status: int) -> Step[None]:
    container = init.container
    yield from container.kernel.objects.forget_container(container)
    container.kernel.containers.pop(container.container_id, None)
    if container.on_exit is not None:
        yield from container.on_exit(status)


def reap(process: Process) -> None:
    """Removes a process that has ended and was waited for."""
    process.state = ProcessState.GONE
    namespace = process.container.pids
    namespace.free(process.pid)
    namespace.remove(process)
    if process.parent is not None:
        process.parent.children.pop(process.pid, None)
