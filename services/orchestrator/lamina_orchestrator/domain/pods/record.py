"""What the orchestrator knows of a pod on its node: the sandbox, each container's newest two runs, back-offs.

Records are values: `observe` and the other functions return a new one. They are rebuilt from what the runtime lists
whenever a node connects, so nothing of them is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lamina_orchestrator.domain.pods.backoff import NONE, Backoff, after_tries
from lamina_orchestrator.domain.pods.containers import (
    CREATED,
    EXITED,
    HOST_LOST,
    REMOVED,
    RUNNING,
    ContainerState,
    SandboxState,
)

_RANK = {CREATED: 0, RUNNING: 1, EXITED: 2, REMOVED: 3}
LOST_EXIT_CODE = 137
LOST_REASON = "ContainerStatusUnknown"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something does not start: a Kubernetes reason such as `ImagePullBackOff`, and when it is tried again."""

    reason: str
    message: str
    retry_ns: int


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """Runs of one container: `current` is the newest, `previous` the one before, whose log is kept."""

    current: ContainerState | None = None
    previous: ContainerState | None = None
    crash: Backoff = NONE
    start: Backoff = NONE
    trouble: Trouble | None = None

    @property
    def restarts(self) -> int:
        """How often the container was started again."""
        return self.current.attempt if self.current else 0

    def ready_at(self, run: ContainerState) -> int:
        """When a container that has ended may be started again.

        A run that its host or runtime took down does not wait: the program did nothing wrong. Several in a row do.
        """
        if run.reason == HOST_LOST and (self.previous is None or self.previous.reason != HOST_LOST):
            return run.finished_ns
        return self.crash.ready_at(run.finished_ns)


@dataclass(frozen=True, slots=True)
class PodRecord:
    """A pod on its node. `seen_ns` is when the node took it up; `trouble` keeps work on the sandbox waiting."""

    uid: str
    seen_ns: int
    sandbox: SandboxState | None = None
    sandbox_attempts: int = 0
    containers: Mapping[str, ContainerRecord] = field(default_factory=dict)
    sandbox_backoff: Backoff = NONE
    trouble: Trouble | None = None

    def container(self, name: str) -> ContainerRecord:
        """The record of one container, an empty one if it never ran."""
        return self.containers.get(name) or ContainerRecord()

    def with_container(self, name: str, record: ContainerRecord) -> PodRecord:
        """A copy with one container's record replaced."""
        return replace(self, containers={**self.containers, name: record})

    def running(self) -> tuple[ContainerState, ...]:
        """Runs that have not ended, in the order in which their containers were first seen."""
        runs = (record.current for record in self.containers.values())
        return tuple(run for run in runs if run is not None and run.state in (CREATED, RUNNING))


def observe(record: PodRecord, seen: ContainerState) -> PodRecord:
    """The record after the runtime reported a container; older news than what is known changes nothing."""
    known = record.container(seen.container)
    current = known.current
    if seen.state == REMOVED:
        return _removed(record, known, seen)
    if current is None or seen.attempt > current.attempt:
        newer = replace(known, current=seen, previous=current or known.previous, trouble=None)
        return record.with_container(seen.container, newer)
    if seen.attempt == current.attempt and _RANK[seen.state] >= _RANK[current.state]:
        trouble = known.trouble if seen.state == CREATED else None
        return record.with_container(seen.container, replace(known, current=seen, trouble=trouble))
    return record


def _removed(record: PodRecord, known: ContainerRecord, seen: ContainerState) -> PodRecord:
    current = known.current
    if current is not None and current.name == seen.name and current.state != EXITED:
        lost = replace(current, state=EXITED, exit_code=LOST_EXIT_CODE, reason=LOST_REASON)
        return record.with_container(seen.container, replace(known, current=lost))
    if known.previous is not None and known.previous.name == seen.name:
        return record.with_container(seen.container, replace(known, previous=None))
    return record


def rebuild(
    uid: str,
    now_ns: int,
    sandboxes: Iterable[SandboxState],
    containers: Iterable[ContainerState],
    before: PodRecord | None = None,
) -> PodRecord:
    """The record of a pod from what its node lists; `before` is what was known, if anything.

    A container that ran and is not listed any more counts as lost: exit code 137, `ContainerStatusUnknown`.
    """
    newest = max(sandboxes, key=lambda sandbox: sandbox.attempt, default=None)
    record = PodRecord(uid, before.seen_ns if before else now_ns, newest, newest.attempt + 1 if newest else 0)
    if before:
        record = replace(record, sandbox_attempts=max(record.sandbox_attempts, before.sandbox_attempts))
    for state in sorted(containers, key=lambda state: (state.container, state.attempt)):
        record = observe(record, state)
    for name, known in record.containers.items():
        if known.current and known.current.attempt:
            ended = known.previous.finished_ns if known.previous else known.current.created_ns
            record = record.with_container(name, replace(known, crash=after_tries(known.current.attempt, ended)))
    return _with_lost(record, before, now_ns) if before else record


def _with_lost(record: PodRecord, before: PodRecord, now_ns: int) -> PodRecord:
    for name, known in before.containers.items():
        if name not in record.containers and known.current is not None:
            run = known.current
            if run.state != EXITED:
                run = replace(run, state=EXITED, exit_code=LOST_EXIT_CODE, reason=LOST_REASON, finished_ns=now_ns)
            record = record.with_container(name, replace(known, current=run))
    return record
