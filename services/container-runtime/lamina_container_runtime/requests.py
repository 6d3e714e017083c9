"""Requests that need more than one line to be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import IO

from lamina.container_runtime.v1 import container_runtime_pb2 as pb

from lamina_container_runtime import convert
from lamina_container_runtime.domain.containers.container import ContainerRecord
from lamina_container_runtime.domain.containers.sandbox import SandboxRecord
from lamina_container_runtime.domain.names import Names
from lamina_container_runtime.engines.interface import Engine
from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument, ResourceExhausted

MAX_ARCHIVE = 16 << 30
MAX_CHUNK = 1 << 20


async def receive_archive(requests: AsyncIterator[pb.ImportImageRequest], file: IO[bytes]) -> tuple[str, int]:
    """Writes an archive that arrives in chunks to `file`; returns the reference asked for and the bytes read."""
    reference: str | None = None
    size = 0
    async for request in requests:
        kind = request.WhichOneof("request")
        with Checks() as check:
            first = reference is None
            check.that(kind == ("start" if first else "chunk"), "request", "is out of order: start first, then chunks")
            check.max_bytes("chunk", request.chunk, MAX_CHUNK)
            check.max_bytes("start.reference", request.start.reference, 255)
        if kind == "start":
            reference = request.start.reference
            continue
        size += len(request.chunk)
        if size > MAX_ARCHIVE:
            raise InvalidArgument(
                f"The archive has more than {MAX_ARCHIVE} bytes.",
                reason="ARCHIVE_LIMIT",
                next_step="Export fewer images at a time.",
            )
        _append(file, request.chunk)
    if reference is None:
        raise InvalidArgument("The import is empty.", reason="REQUEST_INVALID", next_step="Send start, then chunks.")
    file.seek(0)
    return reference, size


def _append(file: IO[bytes], chunk: bytes) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise ResourceExhausted(
            f"The archive cannot be stored: {error.strerror}.",
            reason="STORE_FULL",
            next_step="Free space below the runtime's state directory.",
        ) from error


def image_key(name: str, reference: str, names: Names) -> str:
    """Returns what an image is asked for by: the id in its name, or the reference; exactly one is given."""
    with Checks() as check:
        check.that(bool(name) != bool(reference), "name", "and reference are both given, or neither is")
    return names.image_id(name) if name else reference


def process_owner(request: pb.ListProcessesRequest, names: Names, engine: Engine) -> Sequence[str]:
    """Returns the ids of the containers whose processes are asked for."""
    with Checks() as check:
        check.that(bool(request.container) != bool(request.sandbox), "container", "and sandbox: exactly one is given")
    if request.container:
        return [engine.container(names.container_id(request.container, "container")).container_id]
    sandbox_id = engine.sandbox(names.sandbox_id(request.sandbox, "sandbox")).sandbox_id
    return [item.container_id for item in engine.containers() if item.spec.sandbox_id == sandbox_id]


def matching_sandboxes(request: pb.ListSandboxesRequest, engine: Engine) -> list[SandboxRecord]:
    """Returns the sandboxes with the labels and the state that are asked for, in the order of their ids."""
    return [
        item
        for item in engine.sandboxes()
        if convert.has_labels(item.spec.labels, request.labels) and convert.has_sandbox_state(item, request.state)
    ]


def matching_containers(request: pb.ListContainersRequest, names: Names, engine: Engine) -> list[ContainerRecord]:
    """Returns the containers of the sandbox, with the labels and the state that are asked for, in the order of ids."""
    sandbox_id = names.sandbox_id(request.sandbox, "sandbox") if request.sandbox else ""
    return [
        item
        for item in engine.containers()
        if (not sandbox_id or item.spec.sandbox_id == sandbox_id)
        and convert.has_labels(item.spec.labels, request.labels)
        and convert.has_container_state(item, request.state)
    ]


@dataclass(frozen=True)
class LogRequest:
    """What of a log is wanted: `tail` lines from the end (None: all), one stream or both (empty)."""

    container_id: str
    tail: int | None
    stream: str


def log_request(request: pb.ReadLogsRequest, names: Names) -> LogRequest:
    """Returns what is asked for; `InvalidArgument` for negative numbers."""
    with Checks() as check:
        check.range("tail_lines", request.tail_lines, 0, 2**40)
        check.range("since_wall_time_ns", request.since_wall_time_ns, 0, 2**63 - 1)
    return LogRequest(
        names.container_id(request.name),
        request.tail_lines if request.HasField("tail_lines") else None,
        convert.stream_name(request.stream),
    )
