"""The node agents' part: brings the pods of every node that answers to what their objects say.

One worker a pod. A worker has at most one step under way; when it ends, `next_work` decides on the next from the pod
and from what the node reported. Workers of a silent node rest; when it answers again, they start from its inventory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from lamina_orchestrator.domain.kinds.kinds import POD
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    annotations_of,
    is_deleting,
    name_of,
    namespace_of,
    spec_of,
    status_of,
)
from lamina_orchestrator.domain.objects.actions import NORMAL, WARNING, Action, Again, Emit, Remove, SetStatus
from lamina_orchestrator.domain.objects.ownership import TRACEPARENT
from lamina_orchestrator.domain.pods.containers import EXITED, ContainerState, SandboxState
from lamina_orchestrator.domain.pods.record import PodRecord, observe, rebuild
from lamina_orchestrator.domain.pods.status import pod_status
from lamina_orchestrator.domain.pods.steps import (
    ContainerFailed,
    ContainerRuns,
    ContainersStopped,
    Outcome,
    SandboxRemoved,
    SandboxRuns,
    SandboxStopped,
    WorkFailed,
    step_of,
)
from lamina_orchestrator.domain.pods.work import (
    Gone,
    StartContainer,
    StopContainers,
    Wait,
    Work,
    begun,
    container_failed,
    container_started,
    next_work,
    sandbox_failed,
)
from lamina_orchestrator.engines.interface import RunStep

_COMPONENT = "kubelet"


@dataclass(slots=True)
class Worker:
    """A pod on its node. `steps` counts steps under way; `grace_ns` is that of the stop under way, -1 if there is none.

    `trace` is the trace of the request that wanted the pod.
    """

    key: Key
    node: str
    record: PodRecord
    steps: int = 0
    grace_ns: int = -1
    trace: str = ""


class PodWorkers:
    """All workers. `find(uid)` gives the pod's object, or None when it is gone from the store; `cause` tells why the
    pod is looked at now."""

    def __init__(self, find: Callable[[str], Object | None], cause: Callable[[Key], str]) -> None:
        self._find = find
        self._cause = cause
        self._workers: dict[str, Worker] = {}
        self._effects: list[RunStep] = []

    def worker(self, uid: str) -> Worker | None:
        """The worker of a pod, or None if no node has it."""
        return self._workers.get(uid)

    def inventory(
        self, node: str, sandboxes: Iterable[SandboxState], containers: Iterable[ContainerState], now_ns: int
    ) -> list[str]:
        """Takes in all that a node holds; returns the uids of the pods found, in order."""
        held: dict[str, tuple[list[SandboxState], list[ContainerState]]] = {}
        for sandbox in sandboxes:
            held.setdefault(sandbox.pod_uid, ([], []))[0].append(sandbox)
        for container in containers:
            held.setdefault(container.pod_uid, ([], []))[1].append(container)
        for uid, worker in self._workers.items():
            if worker.node == node:
                held.setdefault(uid, ([], []))
        for uid in sorted(held):
            before = self._workers.get(uid)
            record = rebuild(uid, now_ns, *held[uid], before.record if before else None)
            if before is not None:
                before.record = record
            else:
                self._workers[uid] = Worker(self._key_of(uid), node, record)
        return sorted(held)

    def _key_of(self, uid: str) -> Key:
        pod = self._find(uid)
        return POD.key(namespace_of(pod), name_of(pod)) if pod is not None else POD.key("", uid)

    def seen(self, node: str, state: ContainerState) -> bool:
        """Takes in a container's change; returns whether it belongs to a pod of ours on that node."""
        worker = self._workers.get(state.pod_uid)
        if worker is None or worker.node != node:
            return False
        worker.record = observe(worker.record, state)
        return True

    def done(self, uid: str, outcome: Outcome, now_ns: int) -> list[Action]:
        """Takes in how a step ended; returns the Events to record."""
        worker = self._workers.get(uid)
        if worker is None:
            return []
        worker.steps -= 1
        if not worker.steps:
            worker.grace_ns = -1
        worker.record = _after(worker.record, outcome, now_ns)
        pod = self._find(uid)
        return [] if pod is None else _events(pod, outcome)

    def sync(self, uid: str, now_ns: int) -> list[Action]:
        """Brings one pod on: begins its next step, and writes its status. Its node answers."""
        pod = self._find(uid)
        worker = self._workers.get(uid)
        if pod is not None and worker is None:
            worker = self._adopt(uid, pod, now_ns)
        if worker is None:
            return []
        if pod is not None:
            worker.trace = annotations_of(pod).get(TRACEPARENT, "")
        work = next_work(pod, worker.record, now_ns)
        actions: list[Action] = []
        if isinstance(work, Gone) and not worker.steps:
            del self._workers[uid]
            return [Remove(worker.key, uid, "its containers have stopped", 0)] if pod is not None else []
        if isinstance(work, Wait):
            actions += [Again(work.until_ns)] if work.until_ns else []
        elif not worker.steps or self._hurries(worker, work):
            actions += self._begin(worker, pod, work, now_ns)
        return [*self._status(pod, worker, now_ns), *actions]

    def _adopt(self, uid: str, pod: Object, now_ns: int) -> Worker:
        worker = Worker(self._key_of(uid), str(spec_of(pod)["nodeName"]), PodRecord(uid, now_ns))
        self._workers[uid] = worker
        return worker

    def _hurries(self, worker: Worker, work: Work) -> bool:
        """Whether a stop is wanted sooner than the one under way would kill."""
        return isinstance(work, StopContainers) and 0 <= work.grace_ns < worker.grace_ns

    def _begin(self, worker: Worker, pod: Object | None, work: Work, now_ns: int) -> list[Action]:
        sandbox = worker.record.sandbox
        step = step_of(worker.node, pod, work, sandbox.name if sandbox else "")
        worker.record = begun(worker.record, work, now_ns)
        worker.steps += 1
        actions: list[Action] = []
        if isinstance(work, StopContainers):
            worker.grace_ns = work.grace_ns
            if pod is not None:
                actions = [_killing(pod, run.container) for run in worker.record.running()]
        elif isinstance(work, StartContainer) and pod is not None and work.attempt:
            actions = self._restarting(pod, worker, work)
        name = f"pod.{type(work).__name__}"
        cause = self._cause(worker.key)
        self._effects.append(RunStep(worker.node, worker.key, worker.record.uid, name, step, worker.trace, cause))
        return actions

    def _restarting(self, pod: Object, worker: Worker, work: StartContainer) -> list[Action]:
        run = worker.record.container(work.container["name"]).current
        if run is None or run.state != EXITED or run.exit_code == 0:
            return []
        text = f"Container {run.container} ended with exit code {run.exit_code}, restart {work.attempt}"
        return [Emit(pod, WARNING, "BackOff", text, _COMPONENT)] if work.attempt > 1 else []

    def _status(self, pod: Object | None, worker: Worker, now_ns: int) -> list[Action]:
        if pod is None:
            return []
        status = pod_status(pod, worker.record, now_ns)
        return [SetStatus(POD, worker.key, status)] if status != status_of(pod) else []

    def on_node(self, node: str) -> list[str]:
        """Uids of the pods that workers have on a node, in order."""
        return sorted(uid for uid, worker in self._workers.items() if worker.node == node)

    def forget_node(self, node: str) -> None:
        """Drops the workers of a node that left the cluster."""
        for uid in self.on_node(node):
            del self._workers[uid]

    def take_effects(self) -> list[RunStep]:
        """The steps that were begun since the last call."""
        taken, self._effects = self._effects, []
        return taken


def _after(record: PodRecord, outcome: Outcome, now_ns: int) -> PodRecord:
    if isinstance(outcome, SandboxRuns):
        return replace(record, sandbox=outcome.sandbox, trouble=None)
    if isinstance(outcome, ContainerRuns):
        seen = replace(outcome.state, image_name=outcome.state.image_name or outcome.image.digest)
        return container_started(observe(record, seen), outcome.state.container)
    if isinstance(outcome, ContainerFailed):
        if outcome.sandbox_lost and record.sandbox is not None:
            record = replace(record, sandbox=replace(record.sandbox, ready=False))
        return container_failed(record, outcome.container, outcome.reason, outcome.message, now_ns)
    if isinstance(outcome, ContainersStopped):
        for state in outcome.states:
            record = observe(record, state)
        return _ended(record, now_ns)
    if isinstance(outcome, SandboxStopped) and record.sandbox is not None:
        return replace(record, sandbox=replace(record.sandbox, ready=False), trouble=None)
    if isinstance(outcome, SandboxRemoved):
        return replace(record, sandbox=None, trouble=None)
    if isinstance(outcome, WorkFailed):
        return sandbox_failed(record, outcome.reason, outcome.message, now_ns)
    return record


def _ended(record: PodRecord, now_ns: int) -> PodRecord:
    """After a stop, what still counts as running was gone from the runtime."""
    for run in record.running():
        record = observe(record, replace(run, state=EXITED, exit_code=137, reason="Error", finished_ns=now_ns))
    return record


def _killing(pod: Object, container: str) -> Action:
    return Emit(pod, NORMAL, "Killing", f"Stopping container {container}", _COMPONENT)


def _events(pod: Object, outcome: Outcome) -> list[Action]:
    if isinstance(outcome, ContainerRuns):
        name = outcome.state.container
        image = next((c["image"] for c in _all_containers(pod) if c["name"] == name), "")
        return [
            Emit(pod, NORMAL, "Pulled", f'Container image "{image}" is present on the node', _COMPONENT),
            Emit(pod, NORMAL, "Created", f"Created container: {name}", _COMPONENT),
            Emit(pod, NORMAL, "Started", f"Started container {name}", _COMPONENT),
        ]
    if isinstance(outcome, ContainerFailed) and not is_deleting(pod):
        return [Emit(pod, WARNING, "Failed", f"Error: {outcome.reason}: {outcome.message}", _COMPONENT)]
    if isinstance(outcome, WorkFailed):
        return [Emit(pod, WARNING, outcome.reason, outcome.message, _COMPONENT)]
    return []


def _all_containers(pod: Object) -> list[dict[str, str]]:
    return [*spec_of(pod)["containers"], *(spec_of(pod).get("initContainers") or [])]
