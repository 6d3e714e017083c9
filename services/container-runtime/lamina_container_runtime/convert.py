"""Between contract and domain: the only module that knows both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lamina.container_runtime.v1 import container_runtime_pb2 as pb

from lamina_container_runtime import unserved
from lamina_container_runtime.domain.containers.container import (
    ContainerEvent,
    ContainerRecord,
    ContainerSpec,
    ContainerState,
    EventType,
)
from lamina_container_runtime.domain.containers.log_line import LogLine
from lamina_container_runtime.domain.containers.process_info import ProcessInfo, ProcessInfoState
from lamina_container_runtime.domain.containers.resources import (
    DEFAULT_CPU_PERIOD_NS,
    DEFAULT_CPU_WEIGHT,
    DEFAULT_PIDS_LIMIT,
    MIN_MEMORY_LIMIT,
    Resources,
)
from lamina_container_runtime.domain.containers.sandbox import (
    Pairs,
    SandboxMetadata,
    SandboxRecord,
    SandboxSpec,
    SandboxState,
)
from lamina_container_runtime.domain.images.image import ImageRecord
from lamina_container_runtime.domain.names import IMAGE, Names
from lamina_kit.checks import Checks

_SANDBOX_STATES = {
    SandboxState.READY: pb.Sandbox.STATE_READY,
    SandboxState.NOT_READY: pb.Sandbox.STATE_NOT_READY,
}
_CONTAINER_STATES = {
    ContainerState.CREATED: pb.Container.STATE_CREATED,
    ContainerState.RUNNING: pb.Container.STATE_RUNNING,
    ContainerState.EXITED: pb.Container.STATE_EXITED,
}
_EVENTS = {
    EventType.CREATED: pb.ContainerEvent.TYPE_CREATED,
    EventType.STARTED: pb.ContainerEvent.TYPE_STARTED,
    EventType.STOPPED: pb.ContainerEvent.TYPE_STOPPED,
    EventType.DELETED: pb.ContainerEvent.TYPE_DELETED,
}
_PROCESS_STATES = {
    ProcessInfoState.RUNNING: pb.Process.STATE_RUNNING,
    ProcessInfoState.SLEEPING: pb.Process.STATE_SLEEPING,
    ProcessInfoState.STOPPED: pb.Process.STATE_STOPPED,
    ProcessInfoState.ZOMBIE: pb.Process.STATE_ZOMBIE,
}
_STREAMS = {"stdout": pb.LogEntry.STREAM_STDOUT, "stderr": pb.LogEntry.STREAM_STDERR}
_MAX_ARGUMENTS = 128 << 10
_MAX_LABELS = 1024


def image(record: ImageRecord, names: Names) -> pb.Image:
    """Returns an image as a message."""
    run = record.run
    return pb.Image(
        name=names.image(record.image_id),
        digest=f"sha256:{record.image_id}",
        references=record.references,
        size_bytes=record.size_bytes,
        layers=record.layers,
        config=pb.ImageConfig(
            entrypoint=run.entrypoint,
            cmd=run.cmd,
            env=run.env,
            working_dir=run.working_dir,
            user=run.user,
            labels=_labels(run.labels),
            stop_signal=run.stop_signal,
        ),
        import_wall_time_ns=record.import_time_ns,
        manifest_digest=record.manifest_digest,
    )


def sandbox(record: SandboxRecord, names: Names) -> pb.Sandbox:
    """Returns a sandbox as a message."""
    spec = record.spec
    return pb.Sandbox(
        name=names.sandbox(record.sandbox_id),
        metadata=pb.SandboxMetadata(
            name=spec.metadata.name,
            namespace=spec.metadata.namespace,
            uid=spec.metadata.uid,
            attempt=spec.metadata.attempt,
        ),
        hostname=record.hostname,
        labels=_labels(spec.labels),
        annotations=_labels(spec.annotations),
        pids_limit=spec.pids_limit,
        state=_SANDBOX_STATES[record.state],
        create_wall_time_ns=record.create_time_ns,
        run_group=record.run_group,
        memory_group=record.memory_group,
        resources=_resources_message(spec.resources),
    )


def sandbox_spec(message: pb.Sandbox) -> SandboxSpec:
    """Returns what a creator asks for; `InvalidArgument` names each wrong field."""
    unserved.refuse("sandbox", message, unserved.SANDBOX)
    metadata = message.metadata
    with Checks() as check:
        check.that(bool(metadata.name), "sandbox.metadata.name", "is empty")
        check.max_bytes("sandbox.metadata.name", metadata.name, 253)
        check.max_bytes("sandbox.metadata.namespace", metadata.namespace, 63)
        check.max_bytes("sandbox.metadata.uid", metadata.uid, 63)
        check.range("sandbox.metadata.attempt", metadata.attempt, 0, 2**31 - 1)
        check.max_bytes("sandbox.hostname", message.hostname, 64)
        check.range("sandbox.pids_limit", message.pids_limit, 0, 32768)
        labels = _pairs(check, "sandbox.labels", message.labels)
        annotations = _pairs(check, "sandbox.annotations", message.annotations)
        resources = _resources(check, "sandbox.resources", message.resources)
    return SandboxSpec(
        SandboxMetadata(metadata.name, metadata.namespace, metadata.uid, metadata.attempt),
        message.hostname,
        labels,
        annotations,
        message.pids_limit or DEFAULT_PIDS_LIMIT,
        resources,
    )


def container(record: ContainerRecord, names: Names) -> pb.Container:
    """Returns a container as a message."""
    spec, ended = record.spec, record.exit
    return pb.Container(
        name=names.container(record.container_id),
        sandbox=names.sandbox(spec.sandbox_id),
        metadata=pb.ContainerMetadata(name=spec.name, attempt=spec.attempt),
        image=spec.image,
        resolved_image=names.image(record.image_id),
        command=spec.command,
        args=spec.args,
        env=spec.env,
        working_dir=spec.working_dir,
        user=spec.user,
        labels=_labels(spec.labels),
        annotations=_labels(spec.annotations),
        resources=_resources_message(spec.resources),
        state=_CONTAINER_STATES[record.state],
        create_wall_time_ns=record.create_time_ns,
        start_wall_time_ns=record.start_time_ns,
        exit_wall_time_ns=record.exit_time_ns,
        exit_code=ended.code if ended else 0,
        reason=ended.reason if ended else "",
        message=ended.message if ended else "",
        run_group=record.run_group,
        memory_group=record.memory_group,
        revision=record.revision,
        pid=1 if record.state is ContainerState.RUNNING else 0,
        signaled=ended.signaled if ended else False,
        killable=spec.killable,
    )


def container_spec(message: pb.Container, names: Names) -> ContainerSpec:
    """Returns what a creator asks for; `InvalidArgument` names each wrong field."""
    unserved.refuse("container", message, unserved.CONTAINER)
    sandbox_id = names.sandbox_id(message.sandbox, "container.sandbox")
    words = [*message.command, *message.args, *message.env]
    with Checks() as check:
        check.that(bool(message.metadata.name), "container.metadata.name", "is empty")
        check.max_bytes("container.metadata.name", message.metadata.name, 63)
        check.range("container.metadata.attempt", message.metadata.attempt, 0, 2**31 - 1)
        check.that(bool(message.image), "container.image", "is empty")
        total = sum(len(word.encode()) + 1 for word in words)
        check.that(total <= _MAX_ARGUMENTS, "container.args", f"has {total} bytes with env, over {_MAX_ARGUMENTS}")
        check.that(all("\0" not in word for word in words), "container.args", "has a zero byte, or env has")
        check.that(all("=" in pair[1:] for pair in message.env), "container.env", "has an entry without KEY=")
        absolute = not message.working_dir or message.working_dir.startswith("/")
        check.that(absolute, "container.working_dir", "is not absolute")
        check.max_bytes("container.working_dir", message.working_dir, 4095)
        check.max_bytes("container.user", message.user, 255)
        labels = _pairs(check, "container.labels", message.labels)
        annotations = _pairs(check, "container.annotations", message.annotations)
        resources = _resources(check, "container.resources", message.resources)
    return ContainerSpec(
        sandbox_id=sandbox_id,
        name=message.metadata.name,
        image=names.image_id(message.image) if IMAGE.matches(message.image) else message.image,
        attempt=message.metadata.attempt,
        command=tuple(message.command),
        args=tuple(message.args),
        env=tuple(message.env),
        working_dir=message.working_dir,
        user=message.user,
        labels=labels,
        annotations=annotations,
        resources=resources,
        killable=message.killable,
    )


def event(change: ContainerEvent, names: Names) -> pb.ContainerEvent:
    """Returns a change as a message."""
    return pb.ContainerEvent(
        revision=change.revision,
        type=_EVENTS[change.type],
        container=container(change.container, names),
        wall_time_ns=change.time_ns,
    )


def log_entry(line: LogLine) -> pb.LogEntry:
    """Returns an entry of a log as a message: the newline that ends a full line is part of its data."""
    return pb.LogEntry(
        wall_time_ns=line.time_ns,
        stream=_STREAMS[line.stream],
        data=line.data if line.partial else line.data + b"\n",
        partial=line.partial,
    )


def stream_name(value: int) -> str:
    """Returns `stdout`, `stderr`, or nothing for both; `InvalidArgument` for a value that is not in the contract."""
    known = {pb.LogEntry.STREAM_UNSPECIFIED: "", **{number: name for name, number in _STREAMS.items()}}
    with Checks() as check:
        check.one_of("stream", value, tuple(known))
    return known[value]  # type: ignore[index]


def process(info: ProcessInfo, names: Names) -> pb.Process:
    """Returns a process as a message."""
    return pb.Process(
        pid=info.pid,
        ppid=info.ppid,
        state=_PROCESS_STATES[info.state],
        container=names.container(info.container_id),
        space=info.space,
        context=info.context,
        cmdline=[_printable(word) for word in info.cmdline],
        uid=info.uid,
        wait_channel=info.wait_channel,
        start_wall_time_ns=info.start_time_ns,
        syscalls=info.syscalls,
        faults=info.faults,
        instructions=info.instructions,
        run_time_ns=info.run_time_ns,
        syscall_counts=[
            pb.SyscallCount(syscall=name, count=count, unsupported=unsupported)
            for name, count, unsupported in info.syscall_counts
        ],
    )


def has_labels(own: Pairs, wanted: Iterable[pb.Label]) -> bool:
    """Returns whether labels have all that is wanted."""
    values = dict(own)
    return all(values.get(label.key) == label.value for label in wanted)


def has_sandbox_state(record: SandboxRecord, wanted: int) -> bool:
    """Returns whether a sandbox is in a state; unspecified matches all."""
    return wanted in (pb.Sandbox.STATE_UNSPECIFIED, _SANDBOX_STATES[record.state])


def has_container_state(record: ContainerRecord, wanted: int) -> bool:
    """Returns whether a container is in a state; unspecified matches all."""
    return wanted in (pb.Container.STATE_UNSPECIFIED, _CONTAINER_STATES[record.state])


def _labels(pairs: Pairs) -> list[pb.Label]:
    return [pb.Label(key=key, value=value) for key, value in pairs]


def _pairs(check: Checks, field: str, labels: Sequence[pb.Label]) -> Pairs:
    check.range(f"{field} count", len(labels), 0, _MAX_LABELS)
    keys = [label.key for label in labels]
    check.that(len(set(keys)) == len(keys), field, "has a key twice")
    for label in labels:
        check.that(0 < len(label.key) <= 317, f"{field}.key", f"has {len(label.key)} characters, not 1 to 317")
        check.max_bytes(f"{field}.value", label.value, 256 << 10)
    return tuple(sorted((label.key, label.value) for label in labels))


def _resources(check: Checks, field: str, message: pb.Resources) -> Resources:
    unserved.refuse(field, message, unserved.RESOURCES)
    weight = message.cpu_weight or DEFAULT_CPU_WEIGHT
    period = message.cpu_period_ns or DEFAULT_CPU_PERIOD_NS
    check.range(f"{field}.cpu_weight", weight, 1, 10_000)
    check.range(f"{field}.cpu_period_ns", period, 1_000_000, 1_000_000_000)
    check.range(f"{field}.cpu_quota_ns", message.cpu_quota_ns, 0, 10**12)
    if message.memory_limit_bytes:
        check.range(f"{field}.memory_limit_bytes", message.memory_limit_bytes, MIN_MEMORY_LIMIT, 1 << 50)
    check.range(f"{field}.swap_limit_bytes", message.swap_limit_bytes, -1, 1 << 50)
    return Resources(weight, message.cpu_quota_ns, period, message.memory_limit_bytes, message.swap_limit_bytes)


def _resources_message(resources: Resources) -> pb.Resources:
    return pb.Resources(
        cpu_weight=resources.cpu_weight,
        cpu_quota_ns=resources.cpu_quota_ns,
        cpu_period_ns=resources.cpu_period_ns,
        memory_limit_bytes=resources.memory_limit_bytes,
        swap_limit_bytes=resources.swap_limit_bytes,
    )


def _printable(text: str) -> str:
    """Returns text as a message can carry it: arguments need not be UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
