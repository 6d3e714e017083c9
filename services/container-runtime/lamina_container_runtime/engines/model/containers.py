"""Containers of the model engine: from an image to processes in the kernel, and to an exit code."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lamina_container_runtime.domain.containers import container as states
from lamina_container_runtime.domain.containers import user_spec
from lamina_container_runtime.domain.containers.container import (
    ContainerRecord,
    ContainerSpec,
    ContainerState,
    EventType,
    Exit,
)
from lamina_container_runtime.domain.containers.sandbox import SandboxRecord
from lamina_container_runtime.domain.containers.user_spec import UserIds
from lamina_container_runtime.domain.creation import Creations
from lamina_container_runtime.domain.images.image import command_of, environment_of
from lamina_container_runtime.domain.wait import Waiter, WaitQueue, Woken
from lamina_container_runtime.engines.interface import Logs, Ports
from lamina_container_runtime.engines.model.changes import Changes
from lamina_container_runtime.engines.model.effects import CreateGroups, DeleteGroups, Wait
from lamina_container_runtime.engines.model.kernel import rootfs
from lamina_container_runtime.engines.model.kernel.abi import SIGKILL, SIGTERM, Errno, signal_name, signal_number
from lamina_container_runtime.engines.model.kernel.files.credentials import Credentials
from lamina_container_runtime.engines.model.kernel.files.inode import DirectoryInode, FileInode
from lamina_container_runtime.engines.model.kernel.files.resolve import View, resolve
from lamina_container_runtime.engines.model.kernel.kernel import Kernel
from lamina_container_runtime.engines.model.kernel.processes import execution
from lamina_container_runtime.engines.model.kernel.processes.container import Loss
from lamina_container_runtime.engines.model.kernel.processes.execution import Command
from lamina_container_runtime.engines.model.kernel.processes.pid_namespace import PidNamespace
from lamina_container_runtime.engines.model.kernel.processes.process import Container, Process
from lamina_container_runtime.engines.model.kernel.processes.thread import Loop
from lamina_container_runtime.engines.model.sandboxes import Sandboxes, request_id_reused
from lamina_kit.effects import Step
from lamina_kit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    LaminaError,
    NotFound,
)

MAX_ACCOUNT_FILE = 1 << 20


@dataclass
class Live:
    """What a container has beside its record while this runtime runs: its file tree and who waits for it."""

    root: DirectoryInode
    command: Command
    ended: WaitQueue = field(default_factory=WaitQueue)
    kernel: Container | None = None
    starting: bool = False


class ContainerConsole:
    """Puts what a container writes into its log."""

    def __init__(self, logs: Logs, container_id: str) -> None:
        self._logs = logs
        self._container_id = container_id

    def write(self, stream: str, data: bytes) -> None:
        """Takes bytes of `stdout` or `stderr`."""
        self._logs.write(self._container_id, stream, data)


class Containers:
    """The containers by id."""

    def __init__(self, ports: Ports, kernel: Kernel, loop: Loop, sandboxes: Sandboxes) -> None:
        self._ports = ports
        self._kernel = kernel
        self._loop = loop
        self._sandboxes = sandboxes
        self._rng = ports.rng.child("containers")
        self._records = {record.container_id: record for record in ports.repository.containers()}
        self._live: dict[str, Live] = {}
        self._creations = Creations(Wait)
        repository = ports.repository
        self.changes = Changes(repository.events(), repository.revision(), repository.put_container)

    def create(self, spec: ContainerSpec, request_id: str) -> Step[ContainerRecord]:
        """Creates a container; a repeated request returns what it made."""
        while (known := self._made_by(request_id)) is not None:
            if known.spec != spec:
                raise request_id_reused(request_id, f"container {known.container_id}")
            if known.container_id not in self._creations:
                return known
            yield from self._creations.until_made(known.container_id)
        sandbox = self._sandboxes.ready(spec.sandbox_id)
        self._check_free(spec)
        image = self._ports.images.resolve(spec.image)
        layers = self._ports.images.layers(image)
        clock = self._ports.clock
        root = rootfs.make_root(layers, self._ports.images, clock.wall_ns, self._ports.upper_limit_bytes)
        argv = command_of(image.run, spec.command, spec.args)
        if not argv:
            raise InvalidArgument(
                f"Neither the container {spec.name} nor its image {spec.image} names a program to run.",
                reason="COMMAND_MISSING",
                next_step="Give a command.",
            )
        ids = self._user_of(root, spec.user or image.run.user)
        environment = environment_of(image.run, spec.env, sandbox.hostname, ids.home)
        cwd = spec.working_dir or image.run.working_dir or "/"
        command = Command(argv, environment, cwd, Credentials(ids.uid, ids.gid, ids.groups))
        container_id = self._fresh_id()
        record = ContainerRecord(
            container_id, spec, image.image_id, ContainerState.CREATED, clock.wall_ns(), request_id=request_id
        )
        self._records[container_id] = record
        with self._creations.of(container_id):
            try:
                run_group, memory_group = yield CreateGroups(
                    container_id, sandbox.run_group, sandbox.memory_group, spec.resources
                )
            except BaseException:
                del self._records[container_id]
                raise
            self._live[container_id] = Live(root, command)
            self._ports.logs.open(container_id)
            return self._note(EventType.CREATED, replace(record, run_group=run_group, memory_group=memory_group))

    def _made_by(self, request_id: str) -> ContainerRecord | None:
        found = (record for record in self.all() if request_id and record.request_id == request_id)
        return next(found, None)

    def start(self, container_id: str) -> Step[ContainerRecord]:
        """Starts a created container. One whose program cannot be loaded has exited, with 127 or 126."""
        yield from self._creations.until_made(container_id)
        record = self.get(container_id)
        states.check_transition(record, ContainerState.RUNNING)
        sandbox = self._sandboxes.ready(record.spec.sandbox_id)
        live = self._live[container_id]
        if live.starting:
            raise FailedPrecondition(
                f"The container {container_id} is being started.",
                reason="CONTAINER_NOT_CREATED",
                next_step="Wait for the other call.",
            )
        live.starting = True
        container = self._kernel_container(record, sandbox, live)
        try:
            with self._kernel.span("container.exec", program=live.command.argv[0]):
                yield from execution.start(container, live.command, self._loop)
        except LaminaError as error:
            code = 127 if error.reason == "PROGRAM_NOT_FOUND" else 126
            self.finish(record, Exit(code, states.START_ERROR, error.message))
            raise
        live.kernel = container
        now = self._ports.clock.wall_ns()
        started = replace(self.get(container_id), state=ContainerState.RUNNING, start_time_ns=now)
        return self._note(EventType.STARTED, started)

    def stop(self, container_id: str, grace_ns: int) -> Step[ContainerRecord]:
        """Stops a container and returns it once it has exited."""
        yield from self._creations.until_made(container_id)
        record = self.get(container_id)
        live = self._live.get(container_id)
        if record.state is ContainerState.CREATED and not (live and live.starting):
            return self.finish(record, Exit(0, states.COMPLETED, "stopped before it was started"))
        if record.state is ContainerState.EXITED or live is None:
            return record
        if live.kernel is not None and live.kernel.init is not None and grace_ns > 0:
            image = self._ports.images.resolve(record.image_id)
            live.kernel.init.send_signal(signal_number(image.run.stop_signal) or SIGTERM, outside=True)
            if (yield from self._await_end(container_id, grace_ns)):
                return self.get(container_id)
        while not self._is_over(container_id):
            if live.kernel is not None and live.kernel.init is not None:
                live.kernel.init.send_signal(SIGKILL, outside=True)
            yield from self._await_end(container_id, 100_000_000)
        return self.get(container_id)

    def kill(self, container_id: str, signal: int, pid: int) -> None:
        """Sends a signal from outside the container's PID namespace."""
        record = self.get(container_id)
        live = self._live.get(container_id)
        if record.state is not ContainerState.RUNNING or live is None or live.kernel is None:
            raise FailedPrecondition(
                f"The container {container_id} is {record.state.value}, not running.",
                reason="CONTAINER_NOT_RUNNING",
                next_step="Nothing is left to be sent a signal.",
            )
        process = live.kernel.pids.processes.get(pid) if pid else live.kernel.init
        if process is None:
            raise NotFound(
                f"The container {container_id} has no process {pid}.",
                reason="PROCESS_UNKNOWN",
                next_step="List its processes.",
            )
        process.send_signal(signal, outside=True)
        self._ports.record(self._kernel.name_of(container_id), "container.signaled", signal=signal, pid=process.pid)

    def remove(self, container_id: str) -> Step[None]:
        """Removes a container, killing it first; one that is gone is passed over."""
        yield from self._creations.until_made(container_id)
        if container_id not in self._records:
            return
        yield from self.stop(container_id, 0)
        record = self._records.pop(container_id, None)
        if record is None:
            return
        self._live.pop(container_id, None)
        self._ports.logs.delete(container_id)
        self.changes.add(EventType.DELETED, record, self._ports.clock.wall_ns())
        self._ports.record(self._kernel.name_of(container_id), "container.removed")
        yield DeleteGroups(record.run_group, record.memory_group)

    def wait(self, container_id: str) -> Step[ContainerRecord]:
        """Returns a container once it has exited; `NotFound` when it is removed meanwhile."""
        while self.get(container_id).state is not ContainerState.EXITED:
            yield from self._await_end(container_id, None)
        return self.get(container_id)

    def finish(self, record: ContainerRecord, ended: Exit) -> ContainerRecord:
        """Notes that a container has exited and wakes who waits for it."""
        live = self._live.get(record.container_id)
        if record.state is ContainerState.CREATED:
            record = self._records.get(record.container_id, record)
        now = self._ports.clock.wall_ns()
        self._ports.logs.close(record.container_id)
        exited = replace(record, state=ContainerState.EXITED, exit_time_ns=now, exit=ended)
        noted = self._note(EventType.STOPPED, exited)
        if live is not None:
            live.starting = False
            live.ended.wake()
        return noted

    def get(self, container_id: str) -> ContainerRecord:
        """Returns a container; `NotFound` `CONTAINER_UNKNOWN`."""
        record = self._records.get(container_id)
        if record is None:
            raise NotFound(
                f"There is no container {container_id}.",
                reason="CONTAINER_UNKNOWN",
                next_step="List the containers; it may have been removed.",
            )
        return record

    def all(self) -> list[ContainerRecord]:
        """Returns all containers in the order of their ids."""
        return [self._records[key] for key in sorted(self._records)]

    def in_sandbox(self, sandbox_id: str) -> list[ContainerRecord]:
        """Returns the containers of a sandbox in the order of their ids."""
        return [record for record in self.all() if record.spec.sandbox_id == sandbox_id]

    def _kernel_container(self, record: ContainerRecord, sandbox: SandboxRecord, live: Live) -> Container:
        container = Container(
            kernel=self._kernel,
            container_id=record.container_id,
            hostname=sandbox.hostname,
            pids=PidNamespace[Process](self._sandboxes.limit(sandbox)),
            root=live.root,
            console=ContainerConsole(self._ports.logs, record.container_id),
            memory_group=record.memory_group,
            run_group=record.run_group,
            memory_limit=record.spec.resources.memory_limit_bytes,
            killable=record.spec.killable,
        )
        container.on_exit = lambda status: self._exited(container, status)
        rootfs.furnish(container)
        return container

    def _exited(self, container: Container, status: int) -> Step[None]:
        """Is run by the kernel when the last process of a container is gone."""
        record = self._records.get(container.container_id)
        if record is not None:
            self.finish(record, exit_of(container, status))
        return
        yield

    def _note(self, kind: EventType, record: ContainerRecord) -> ContainerRecord:
        noted = self.changes.add(kind, record, self._ports.clock.wall_ns())
        self._records[record.container_id] = noted
        details = {"exit_code": noted.exit.code, "reason": noted.exit.reason} if noted.exit else {}
        self._ports.record(self._kernel.name_of(record.container_id), f"container.{kind.value}", **details)
        return noted

    def _await_end(self, container_id: str, timeout_ns: int | None) -> Step[bool]:
        """Waits until a container may have ended; returns whether it has."""
        live = self._live.get(container_id)
        if live is not None and not self._is_over(container_id):
            waiter = Waiter()
            live.ended.add(waiter)
            try:
                yield Wait(waiter, timeout_ns)
            finally:
                live.ended.remove(waiter)
            if waiter.reason is Woken.TIMEOUT:
                return False
        return self._is_over(container_id)

    def _is_over(self, container_id: str) -> bool:
        record = self._records.get(container_id)
        return record is None or record.state is ContainerState.EXITED

    def _check_free(self, spec: ContainerSpec) -> None:
        for other in self.in_sandbox(spec.sandbox_id):
            if (other.spec.name, other.spec.attempt) == (spec.name, spec.attempt):
                raise AlreadyExists(
                    f"The sandbox {spec.sandbox_id} has the container {spec.name}, attempt {spec.attempt}.",
                    reason="CONTAINER_EXISTS",
                    next_step="Choose another name or attempt, or remove the other container.",
                )

    def _user_of(self, root: DirectoryInode, spec: str) -> UserIds:
        return user_spec.resolve(spec, _text_of(root, "/etc/passwd"), _text_of(root, "/etc/group"))

    def running(self, container_id: str) -> Container | None:
        """Returns what the kernel has of a container that was started; None when it has nothing."""
        live = self._live.get(container_id)
        return live.kernel if live is not None else None

    def _fresh_id(self) -> str:
        while True:
            found = self._rng.id("c")
            if found not in self._records:
                return found


def exit_of(container: Container, status: int) -> Exit:
    """Returns how a container ended, from the exit status of its first process."""
    signal = status & 0x7F
    code = 128 + signal if signal else status >> 8
    if container.lost is not None:
        reason = states.KERNEL_DEFECT if container.lost is Loss.KERNEL_DEFECT else states.RUNTIME_RESTARTED
        return Exit(137, reason, container.lost.value, signaled=bool(signal))
    if container.oom_killed and signal == SIGKILL:
        return Exit(code, states.OOM_KILLED, "out of memory: the limit of its memory group was reached", signaled=True)
    if signal:
        return Exit(code, states.ERROR, f"killed by {signal_name(signal)}", signaled=True)
    return Exit(code, states.COMPLETED if code == 0 else states.ERROR)


def _text_of(root: DirectoryInode, path: str) -> str:
    """Returns a file of an image as text; empty when there is none."""
    try:
        inode = resolve(View(root, root, Credentials()), path).inode
    except Errno:
        return ""
    return inode.read(0, MAX_ACCOUNT_FILE).decode(errors="replace") if isinstance(inode, FileInode) else ""
