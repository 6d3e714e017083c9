"""Starting a container's first process, and execve(2): a process gets another program."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from lamina_container_runtime.engines.model.effects import ContextRef, CreateContext, DeleteContext, DeleteSpace
from lamina_container_runtime.engines.model.kernel.abi import O_WRONLY, Errno
from lamina_container_runtime.engines.model.kernel.files.console import ConsoleFile
from lamina_container_runtime.engines.model.kernel.files.credentials import Credentials
from lamina_container_runtime.engines.model.kernel.files.devices import open_null
from lamina_container_runtime.engines.model.kernel.files.fd_table import FdTable
from lamina_container_runtime.engines.model.kernel.files.inode import DirectoryInode
from lamina_container_runtime.engines.model.kernel.files.resolve import View, resolve
from lamina_container_runtime.engines.model.kernel.processes import registers
from lamina_container_runtime.engines.model.kernel.processes.lifecycle import label_of, new_thread, release_memory
from lamina_container_runtime.engines.model.kernel.processes.loader import Executable, Loaded, find_executable, load
from lamina_container_runtime.engines.model.kernel.processes.process import Container, Process
from lamina_container_runtime.engines.model.kernel.processes.thread import Loop, Thread
from lamina_container_runtime.engines.model.kernel.waiting import wait
from lamina_kit.effects import Step
from lamina_kit.errors import InvalidArgument, LaminaError, NotFound, ResourceExhausted


@dataclass(frozen=True)
class Command:
    """What a container runs: command line, environment, working directory and rights."""

    argv: tuple[str, ...]
    environment: tuple[str, ...]
    cwd: str
    who: Credentials


def start(container: Container, command: Command, loop: Loop) -> Step[Process]:
    """Starts process 1 of a container and lets it run in the main loop.

    Errors: `NotFound` `PROGRAM_NOT_FOUND`; `InvalidArgument` `PROGRAM_NOT_EXECUTABLE` or an ELF_ reason; what the
    layers below raise. Nothing is left behind then.
    """
    kernel = container.kernel
    view = View(container.root, container.root, command.who)
    view.cwd = _working_directory(view, command.cwd)
    executable = _find(view, command)
    environment = [text.encode(errors="surrogateescape") for text in command.environment]
    pid = _first_pid(container)
    try:
        try:
            loaded = yield from load(kernel, container, executable, environment, command.who, label_of(container, pid))
        except Errno as error:
            raise _refused(command.argv[0], error) from error
        try:
            context: ContextRef = yield CreateContext(
                container.run_group, loaded.memory.domain, label_of(container, pid)
            )
        except BaseException:
            yield DeleteSpace(loaded.memory.space)
            raise
    except BaseException:
        container.pids.free(pid)
        raise
    process = Process(container, pid, None, loaded.memory, FdTable(), view)
    view.viewer = process
    _note_program(process, executable, environment)
    _open_standard(container, process)
    container.init = process
    container.pids.add(process)
    kernel.containers[container.container_id] = container
    thread = new_thread(process, pid, context, loop)
    registers.start(thread.page, loaded.memory.root, loaded.entry, loaded.stack)
    process.note("started", space=loaded.memory.space.name)
    yield thread.spawn()
    return process


def _working_directory(view: View, path: str) -> DirectoryInode:
    try:
        found = resolve(view, path or "/").inode
    except Errno:
        found = None
    if isinstance(found, DirectoryInode):
        return found
    raise InvalidArgument(
        f"The working directory {path} is no directory of the image.",
        reason="WORKING_DIR_UNKNOWN",
        next_step="Name a directory that the image has.",
    )


def _find(view: View, command: Command) -> Executable:
    """Returns the program of a command line, looked for in PATH as execvp(3) does when it has no slash."""
    name = command.argv[0]
    argv = [text.encode(errors="surrogateescape") for text in command.argv]
    path = next((value[5:] for value in command.environment if value.startswith("PATH=")), "")
    places = [name] if "/" in name else [f"{place or '.'}/{name}" for place in path.split(":")]
    refusal: Errno | None = None
    for place in places:
        try:
            return find_executable(view, place, argv)
        except Errno as error:
            if error.number not in (errno.ENOENT, errno.ENOTDIR):
                refusal = error
    if refusal is not None:
        raise _refused(name, refusal)
    raise NotFound(
        f"The program {name} is not in the image{'' if '/' in name else f' (PATH is {path})'}.",
        reason="PROGRAM_NOT_FOUND",
        next_step="Check the command, the image's entry point and PATH.",
    )


def _first_pid(container: Container) -> int:
    try:
        return container.pids.allocate()
    except Errno as error:
        raise ResourceExhausted(
            f"The sandbox of {container.container_id} has {container.pids.limit.tasks} tasks, as many as it may have.",
            reason="PIDS_LIMIT",
            next_step="Run the sandbox with a higher pids_limit, or stop what runs in it.",
        ) from error


def _refused(name: str, error: Errno) -> LaminaError:
    if error.number == errno.ENOMEM:
        return ResourceExhausted(
            f"There is not enough memory to load the program {name}.",
            reason="MEMORY_LIMIT",
            next_step="Raise the memory limit of the container or of its sandbox.",
        )
    return InvalidArgument(
        f"The program {name} cannot be executed: {error}.",
        reason="PROGRAM_NOT_EXECUTABLE",
        next_step="Check that it is a file with execute permission for the container's user.",
    )


def _open_standard(container: Container, process: Process) -> None:
    process.fds.put(0, open_null(container.root.fs))
    for fd, stream in ((1, "stdout"), (2, "stderr")):
        process.fds.put(fd, ConsoleFile(container.root.fs, container.console, stream, O_WRONLY))


def execve(thread: Thread, path: str, argv: Sequence[bytes], environment: Sequence[bytes]) -> Step[None]:
    """Replaces the program of a thread's process; returns with its registers at the new entry point.

    Up to the point where the new program is loaded every failure leaves the old one as it was: ENOENT, EACCES, ENOEXEC,
    ENOMEM, E2BIG and what resolving a path gives.
    """
    process = thread.process
    container = process.container
    try:
        executable = find_executable(process.view, path, argv or (b"",))
        loaded = yield from load(
            thread.kernel, container, executable, environment, process.view.who, label_of(container, process.pid)
        )
    except InvalidArgument as error:
        thread.kernel.record(
            thread.kernel.name_of(container.container_id), "exec.refused", path=path, reason=error.reason
        )
        raise Errno(errno.ENOEXEC) from error
    yield from _end_other_threads(thread)
    if thread.must_die:
        yield DeleteSpace(loaded.memory.space)
        return
    yield from _enter(thread, loaded)
    _note_program(process, executable, environment)
    process.note("executed", space=loaded.memory.space.name)
    process.fds = _private_fds(process)
    process.fds.close_on_exec()
    process.handlers = process.handlers.for_exec()
    process.exec_done = True
    thread.alternate_stack = (0, 0, 2)
    thread.clear_child_tid = 0
    thread.vfork_released.wake()


def _end_other_threads(thread: Thread) -> Step[None]:
    """Ends the other threads of a process; the one that remains takes the process's number."""
    process = thread.process
    while len(process.threads) > 1 and not thread.must_die:
        for tid in sorted(process.threads):
            if process.threads[tid] is not thread:
                process.threads[tid].die()
        yield from wait(thread, (process.threads_changed,), "exec", killable_only=True)
    if thread.tid != process.pid and not thread.must_die:
        process.container.pids.free(thread.tid)
        del process.threads[thread.tid]
        thread.tid = process.pid
        process.threads[thread.tid] = thread


def _enter(thread: Thread, loaded: Loaded) -> Step[None]:
    """Puts a process into its new address space. One that shared memory leaves the coherence domain of the others."""
    process = thread.process
    old = process.memory
    if old.users > 1 or old.shares_memory:
        context: ContextRef = yield CreateContext(
            process.container.run_group, loaded.memory.domain, label_of(process.container, process.pid)
        )
        previous, thread.context = thread.context, context
        yield DeleteContext(previous)
    else:
        loaded.memory.domain = old.domain
    process.memory = loaded.memory
    registers.start(thread.page, loaded.memory.root, loaded.entry, loaded.stack)
    yield from release_memory(old)


def _private_fds(process: Process) -> FdTable:
    if process.fds.users == 1:
        return process.fds
    process.fds.users -= 1
    return process.fds.copy()


def _note_program(process: Process, executable: Executable, environment: Sequence[bytes]) -> None:
    process.cmdline = tuple(word.decode(errors="surrogateescape") for word in executable.argv)
    process.environment = tuple(environment)
    process.run_from(executable.file)
    process.name = executable.name.rsplit("/", 1)[-1][:15]
