"""Sandboxes of the model engine: a node in each of the two trees of groups, a limit on tasks, a host name."""

from __future__ import annotations

from dataclasses import replace

from lamina_container_runtime.domain.containers.sandbox import SandboxRecord, SandboxSpec, SandboxState
from lamina_container_runtime.domain.creation import Creations
from lamina_container_runtime.engines.interface import Ports
from lamina_container_runtime.engines.model.effects import CreateGroups, DeleteGroups, Wait
from lamina_container_runtime.engines.model.kernel.processes.pid_namespace import PidsLimit
from lamina_kit.effects import Step
from lamina_kit.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted


class Sandboxes:
    """The sandboxes by id."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._rng = ports.rng.child("sandboxes")
        self._records = {record.sandbox_id: record for record in ports.repository.sandboxes()}
        self._limits: dict[str, PidsLimit] = {}
        self.creations = Creations(Wait)

    def run(self, spec: SandboxSpec, request_id: str) -> Step[SandboxRecord]:
        """Creates a sandbox and makes it ready; a repeated request returns what it made."""
        while (known := self._made_by(request_id)) is not None:
            if known.sandbox_id not in self.creations:
                return self._same(known, spec)
            yield from self.creations.until_made(known.sandbox_id)
        if len(self._records) >= self._ports.max_sandboxes:
            raise ResourceExhausted(
                f"The host has {len(self._records)} sandboxes, as many as it may have.",
                reason="SANDBOX_LIMIT",
                next_step="Remove one, or raise max_sandboxes in the configuration.",
            )
        sandbox_id = self._fresh_id()
        now = self._ports.clock.wall_ns()
        record = SandboxRecord(sandbox_id, spec, SandboxState.NOT_READY, now, request_id=request_id)
        self._records[sandbox_id] = record
        with self.creations.of(sandbox_id):
            try:
                run_group, memory_group = yield CreateGroups(sandbox_id, "", "", spec.resources)
            except BaseException:
                del self._records[sandbox_id]
                raise
            record = replace(record, state=SandboxState.READY, run_group=run_group, memory_group=memory_group)
            self._put(record)
        self._ports.record(self._name(sandbox_id), "sandbox.ready", pod=spec.metadata.name)
        return record

    def _made_by(self, request_id: str) -> SandboxRecord | None:
        found = (record for record in self.all() if request_id and record.request_id == request_id)
        return next(found, None)

    def limit(self, record: SandboxRecord) -> PidsLimit:
        """Returns the counter of the sandbox's tasks."""
        return self._limits.setdefault(record.sandbox_id, PidsLimit(record.spec.pids_limit))

    def get(self, sandbox_id: str) -> SandboxRecord:
        """Returns a sandbox; `NotFound` `SANDBOX_UNKNOWN`."""
        record = self._records.get(sandbox_id)
        if record is None:
            raise NotFound(
                f"There is no sandbox {sandbox_id}.",
                reason="SANDBOX_UNKNOWN",
                next_step="List the sandboxes; it may have been removed.",
            )
        return record

    def ready(self, sandbox_id: str) -> SandboxRecord:
        """Returns a sandbox that is ready; `FailedPrecondition` `SANDBOX_NOT_READY`."""
        record = self.get(sandbox_id)
        if record.state is not SandboxState.READY:
            raise FailedPrecondition(
                f"The sandbox {sandbox_id} of {record.spec.metadata.name} is not ready.",
                reason="SANDBOX_NOT_READY",
                next_step="Run a new sandbox: one that was stopped, or outlived its runtime, is not used again.",
            )
        return record

    def find(self, sandbox_id: str) -> SandboxRecord | None:
        """Returns a sandbox, or None."""
        return self._records.get(sandbox_id)

    def all(self) -> list[SandboxRecord]:
        """Returns all sandboxes in the order of their ids."""
        return [self._records[key] for key in sorted(self._records)]

    def set_not_ready(self, record: SandboxRecord) -> SandboxRecord:
        """Notes that a sandbox is not used any more."""
        if record.state is SandboxState.NOT_READY:
            return record
        record = replace(record, state=SandboxState.NOT_READY)
        self._put(record)
        return record

    def remove(self, sandbox_id: str) -> Step[None]:
        """Forgets a sandbox that has no containers, and deletes its groups."""
        record = self._records.pop(sandbox_id, None)
        if record is None:
            return
        self._limits.pop(sandbox_id, None)
        self._ports.repository.delete_sandbox(sandbox_id)
        self._ports.record(self._name(sandbox_id), "sandbox.removed")
        yield DeleteGroups(record.run_group, record.memory_group)

    def _put(self, record: SandboxRecord) -> None:
        self._ports.repository.put_sandbox(record)
        self._records[record.sandbox_id] = record

    def _fresh_id(self) -> str:
        while True:
            found = self._rng.id("sb")
            if found not in self._records:
                return found

    def _name(self, sandbox_id: str) -> str:
        return f"hosts/{self._ports.host}/sandboxes/{sandbox_id}"

    @staticmethod
    def _same(record: SandboxRecord, spec: SandboxSpec) -> SandboxRecord:
        if record.spec != spec:
            raise request_id_reused(record.request_id, f"sandbox {record.sandbox_id}")
        return record


def request_id_reused(request_id: str, made: str) -> InvalidArgument:
    """Returns the error for a request id that came with another request before."""
    return InvalidArgument(
        f"The request id {request_id} came with another request before, which made the {made}.",
        reason="REQUEST_ID_REUSED",
        next_step="Use a fresh request id for a different request.",
    )
