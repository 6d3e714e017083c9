"""What a pod needs next on its node: one piece of work at a time, decided from its spec and its record.

The decision is level-triggered: it looks at what should be and what is, never at what was done before, so it is the
same after a restart. Source: the kubelet's `computePodActions`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lamina_orchestrator.domain.kinds.plain_object import Object, is_deleting, metadata, spec_of
from lamina_orchestrator.domain.kinds.timestamps import SECOND
from lamina_orchestrator.domain.pods.backoff import INITIAL_NS
from lamina_orchestrator.domain.pods.containers import CREATED, EXITED, RUNNING, ContainerState
from lamina_orchestrator.domain.pods.record import ContainerRecord, PodRecord, Trouble
from lamina_orchestrator.domain.pods.status import FAILED, SUCCEEDED, init_progress, may_restart, phase_of


@dataclass(frozen=True, slots=True)
class RunSandbox:
    """Run the pod's sandbox; `replaces` is one that is not ready any more, to be removed first."""

    attempt: int
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Create and start a container; `discard` are older runs to be removed, so that one log is kept beside it."""

    container: dict[str, Any]
    attempt: int
    discard: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StopContainers:
    """Stop what runs, with that grace period in nanoseconds."""

    names: tuple[str, ...]
    grace_ns: int


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """Stop the sandbox of a pod that has ended; its containers stay for their logs."""

    name: str


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """Remove the sandbox of a deleted pod with all its containers."""

    name: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now; look again at `until_ns`, or only when something changes if it is 0."""

    until_ns: int = 0


@dataclass(frozen=True, slots=True)
class Gone:
    """Nothing of the pod is left on the node."""


Work = RunSandbox | StartContainer | StopContainers | StopSandbox | RemoveSandbox | Wait | Gone


def next_work(pod: Object | None, record: PodRecord, now_ns: int) -> Work:
    """What to do next for a pod; `pod` is None when the object is gone from the store."""
    if pod is None or is_deleting(pod):
        grace = int(metadata(pod).get("deletionGracePeriodSeconds", 0)) * SECOND if pod is not None else 0
        return _tear_down(record, grace, now_ns)
    if phase_of(pod) in (SUCCEEDED, FAILED):
        return _wind_up(record, now_ns)
    sandbox = record.sandbox
    if sandbox is None or not sandbox.ready:
        if record.trouble and record.trouble.retry_ns > now_ns:
            return Wait(record.trouble.retry_ns)
        return RunSandbox(record.sandbox_attempts, sandbox.name if sandbox else "")
    return _containers(spec_of(pod), record, now_ns)


def _tear_down(record: PodRecord, grace_ns: int, now_ns: int) -> Work:
    if record.trouble and record.trouble.retry_ns > now_ns:
        return Wait(record.trouble.retry_ns)
    running = record.running()
    if running:
        return StopContainers(tuple(run.name for run in running), grace_ns)
    return RemoveSandbox(record.sandbox.name) if record.sandbox else Gone()


def _wind_up(record: PodRecord, now_ns: int) -> Work:
    if record.trouble and record.trouble.retry_ns > now_ns:
        return Wait(record.trouble.retry_ns)
    if record.sandbox and record.sandbox.ready:
        return StopSandbox(record.sandbox.name)
    return Wait()


def _containers(spec: dict[str, Any], record: PodRecord, now_ns: int) -> Work:
    initialized, failed = init_progress(spec, record)
    if failed:
        return Wait()
    if not initialized:
        for container in spec["initContainers"]:
            run = record.container(container["name"]).current
            if run is None or run.state != EXITED or run.exit_code != 0:
                return _start(spec, container, record, now_ns, init=True)
    waits: list[int] = []
    for container in spec["containers"]:
        work = _start(spec, container, record, now_ns, init=False)
        if not isinstance(work, Wait):
            return work
        if work.until_ns:
            waits.append(work.until_ns)
    return Wait(min(waits, default=0))


def _start(spec: dict[str, Any], container: dict[str, Any], record: PodRecord, now_ns: int, *, init: bool) -> Work:
    known = record.container(container["name"])
    run = known.current
    if run is not None and run.state == RUNNING:
        return Wait()
    ready_ns = known.trouble.retry_ns if known.trouble else 0
    if run is not None and run.state == EXITED:
        if not may_restart(spec, run, init=init):
            return Wait()
        ready_ns = max(ready_ns, known.ready_at(run))
    if ready_ns > now_ns:
        return Wait(ready_ns)
    restarts = run is not None and run.state == EXITED
    return StartContainer(container, _attempt(run), (known.previous.name,) if known.previous and restarts else ())


def _attempt(run: ContainerState | None) -> int:
    if run is None:
        return 0
    return run.attempt if run.state == CREATED else run.attempt + 1


def begun(record: PodRecord, work: Work, now_ns: int) -> PodRecord:
    """The record when a piece of work is begun: a restart advances the container's back-off."""
    if isinstance(work, RunSandbox):
        return replace(record, sandbox_attempts=work.attempt + 1)
    if isinstance(work, StartContainer):
        known = record.container(work.container["name"])
        if known.current is not None and known.current.state == EXITED:
            advanced = replace(known, crash=known.crash.advanced(known.current.finished_ns))
            return record.with_container(work.container["name"], advanced)
    return record


def container_failed(record: PodRecord, name: str, reason: str, message: str, now_ns: int) -> PodRecord:
    """The record after a container could not be started: it is tried again after a growing pause."""
    known = record.container(name)
    advanced = known.start.advanced(now_ns)
    trouble = Trouble(reason, message, now_ns + max(advanced.delay_ns, INITIAL_NS))
    return record.with_container(name, replace(known, start=advanced, trouble=trouble))


def container_started(record: PodRecord, name: str) -> PodRecord:
    """The record after a container was started: nothing troubles its start any more."""
    known: ContainerRecord = record.container(name)
    return record.with_container(name, replace(known, trouble=None))


def sandbox_failed(record: PodRecord, reason: str, message: str, now_ns: int) -> PodRecord:
    """The record after work on the sandbox failed: it is tried again after a growing pause."""
    advanced = record.sandbox_backoff.advanced(now_ns)
    return replace(record, sandbox_backoff=advanced, trouble=Trouble(reason, message, now_ns + advanced.delay_ns))
