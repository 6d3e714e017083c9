"""Pod status as Kubernetes shows it: phase, conditions, container statuses.

Source: Kubernetes documentation, "Pod Lifecycle"; the kubelet's `getPhase` and `generateAPIPodStatus`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamina_orchestrator.domain.kinds.plain_object import Object, is_deleting, name_of, namespace_of, spec_of, status_of
from lamina_orchestrator.domain.kinds.quantity import parse_quantity
from lamina_orchestrator.domain.kinds.timestamps import SECOND, parse_time, rfc3339
from lamina_orchestrator.domain.pods.containers import CREATED, EXITED, RUNNING, ContainerState
from lamina_orchestrator.domain.pods.record import ContainerRecord, PodRecord

PENDING, RUNNING_PHASE, SUCCEEDED, FAILED = "Pending", "Running", "Succeeded", "Failed"
TERMINAL = (SUCCEEDED, FAILED)


def phase_of(pod: Object) -> str:
    """status.phase."""
    return str(status_of(pod).get("phase", PENDING))


def is_active(pod: Object) -> bool:
    """Whether the pod counts as a replica: it has not ended and is not being deleted."""
    return phase_of(pod) not in TERMINAL and not is_deleting(pod)


def condition(obj: Object, kind: str) -> dict[str, Any] | None:
    """The condition of that type in an object's status, or None."""
    return next((found for found in status_of(obj).get("conditions") or [] if found["type"] == kind), None)


def is_ready(pod: Object) -> bool:
    """Whether the pod's Ready condition is True."""
    found = condition(pod, "Ready")
    return found is not None and found["status"] == "True"


def ready_since(pod: Object) -> int:
    """When the pod became ready, in Unix nanoseconds; 0 if it is not."""
    found = condition(pod, "Ready")
    return parse_time(found["lastTransitionTime"]) if found and found["status"] == "True" else 0


def available_at(pod: Object, min_ready_seconds: int) -> int | None:
    """When a ready pod counts as available; None if it is not ready."""
    return ready_since(pod) + min_ready_seconds * SECOND if is_ready(pod) else None


def with_condition(
    conditions: list[dict[str, Any]], kind: str, status: str, now_ns: int, reason: str = "", message: str = ""
) -> list[dict[str, Any]]:
    """The conditions with one set; its transition time moves only when its status changes."""
    before = next((found for found in conditions if found["type"] == kind), None)
    moved = before is None or before["status"] != status
    made = {
        "type": kind,
        "status": status,
        "lastTransitionTime": rfc3339(now_ns) if before is None or moved else before["lastTransitionTime"],
    }
    made.update({name: text for name, text in (("reason", reason), ("message", message)) if text})
    if before is None:
        return [*conditions, made]
    return [made if found is before else found for found in conditions]


def initial_status(pod: Object) -> dict[str, Any]:
    """The status of a pod that was just created."""
    return {"phase": PENDING, "qosClass": qos_class(spec_of(pod))}


def qos_class(spec: dict[str, Any]) -> str:
    """Guaranteed (every container's requests equal its limits), BestEffort (none has any) or Burstable."""
    all_containers = [*spec["containers"], *(spec.get("initContainers") or [])]
    guaranteed, best_effort = True, True
    for container in all_containers:
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        amounts = [parse_quantity(text) for text in (*requests.values(), *limits.values())]
        best_effort = best_effort and not any(amounts)
        for name in ("cpu", "memory"):
            asked, most = (parse_quantity(part.get(name, "0")) for part in (requests, limits))
            guaranteed = guaranteed and asked == most > 0
    return "BestEffort" if best_effort else "Guaranteed" if guaranteed else "Burstable"


def may_restart(spec: dict[str, Any], run: ContainerState, *, init: bool = False) -> bool:
    """Whether a container that ended runs again under the pod's restart policy; init containers end with success."""
    policy = spec.get("restartPolicy", "Always")
    failed = run.exit_code != 0
    return failed and policy != "Never" if init else policy == "Always" or (policy == "OnFailure" and failed)


def pod_status(pod: Object, record: PodRecord, now_ns: int) -> dict[str, Any]:
    """The status of a bound pod from what is known of it on its node."""
    spec, before = spec_of(pod), status_of(pod)
    initialized, init_failed = init_progress(spec, record)
    phase = phase_of(pod)
    if phase not in TERMINAL:
        phase = FAILED if init_failed else _phase(spec, record, initialized)
    started = before.get("startTime") or rfc3339(record.seen_ns)
    status: dict[str, Any] = {**before, "phase": phase, "startTime": started}
    shown = _shower(pod, record, now_ns, initialized)
    if spec.get("initContainers"):
        status["initContainerStatuses"] = [shown(container, True) for container in spec["initContainers"]]
    status["containerStatuses"] = [shown(container, False) for container in spec["containers"]]
    ready = all(container["ready"] for container in status["containerStatuses"]) and phase == RUNNING_PHASE
    status["conditions"] = _conditions(status, before.get("conditions") or [], initialized, ready, now_ns)
    return status


def init_progress(spec: dict[str, Any], record: PodRecord) -> tuple[bool, bool]:
    """Whether all init containers have succeeded, and whether one failed for good."""
    for container in spec.get("initContainers") or []:
        run = record.container(container["name"]).current
        if run is None or run.state != EXITED:
            return False, False
        if run.exit_code != 0:
            return False, not may_restart(spec, run, init=True)
    return True, False


def _phase(spec: dict[str, Any], record: PodRecord, initialized: bool) -> str:
    runs = [record.container(container["name"]).current for container in spec["containers"]]
    if not initialized or any(run is None or (run.state == CREATED and run.attempt == 0) for run in runs):
        return PENDING
    ended = [run for run in runs if run is not None and run.state == EXITED and not may_restart(spec, run)]
    if len(ended) < len(runs):
        return RUNNING_PHASE
    return SUCCEEDED if all(run.exit_code == 0 for run in ended) else FAILED


def _shower(
    pod: Object, record: PodRecord, now_ns: int, initialized: bool
) -> Callable[[dict[str, Any], bool], dict[str, Any]]:
    def show(container: dict[str, Any], init: bool) -> dict[str, Any]:
        known = record.container(container["name"])
        run = known.current
        waits = "ContainerCreating" if initialized or init else "PodInitializing"
        state, last = _state(pod, container["name"], known, record, now_ns, init, waits)
        shown: dict[str, Any] = {
            "name": container["name"],
            "image": container["image"],
            "imageID": run.image_name if run else "",
            "restartCount": known.restarts,
            "ready": _is_ready(run, init),
            "started": run is not None and run.state == RUNNING,
            "state": state,
            "lastState": last,
        }
        if run is not None:
            shown["containerID"] = f"lamina://{run.name}"
        return shown

    return show


def _is_ready(run: ContainerState | None, init: bool) -> bool:
    if run is None:
        return False
    return run.state == EXITED and run.exit_code == 0 if init else run.state == RUNNING


def _state(
    pod: Object, name: str, known: ContainerRecord, record: PodRecord, now_ns: int, init: bool, waits: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    run = known.current
    last = {"terminated": terminated(known.previous)} if known.previous else {}
    if run is not None and run.state == RUNNING:
        return {"running": {"startedAt": rfc3339(run.started_ns)}}, last
    if run is not None and run.state == EXITED and not known.trouble:
        ends = is_deleting(pod) or phase_of(pod) in TERMINAL or not may_restart(spec_of(pod), run, init=init)
        ready_ns = known.ready_at(run)
        if ends or ready_ns <= now_ns:
            return {"terminated": terminated(run)}, last
        delay = known.crash.delay_ns // SECOND
        where = f"{name_of(pod)}_{namespace_of(pod)}"
        text = f"back-off {delay}s restarting failed container={name} pod={where}"
        return {"waiting": {"reason": "CrashLoopBackOff", "message": text}}, {"terminated": terminated(run)}
    trouble = known.trouble or record.trouble
    if run is not None and run.state == EXITED:
        last = {"terminated": terminated(run)}
    if trouble is None:
        return {"waiting": {"reason": waits}}, last
    return {"waiting": {"reason": trouble.reason, "message": trouble.message}}, last


def terminated(run: ContainerState) -> dict[str, Any]:
    """The `terminated` state of a run that ended."""
    reason = run.reason or ("Completed" if run.exit_code == 0 else "Error")
    shown: dict[str, Any] = {"containerID": f"lamina://{run.name}", "exitCode": run.exit_code, "reason": reason}
    if run.message:
        shown["message"] = run.message[:4096]
    shown["startedAt"] = rfc3339(run.started_ns or run.created_ns)
    shown["finishedAt"] = rfc3339(run.finished_ns)
    return shown


def _conditions(
    status: dict[str, Any], before: list[dict[str, Any]], initialized: bool, ready: bool, now_ns: int
) -> list[dict[str, Any]]:
    done = status["phase"] == SUCCEEDED
    unready = [container["name"] for container in status["containerStatuses"] if not container["ready"]]
    why = "PodCompleted" if done else "ContainersNotReady"
    text = "" if done or ready else f"containers with unready status: [{' '.join(unready)}]"
    reason = "" if ready else why
    start, init_text = "ContainersNotInitialized", "init containers have not all succeeded"
    if initialized:
        start = init_text = ""
    made = with_condition(before, "PodScheduled", "True", now_ns)
    made = with_condition(made, "Initialized", "True" if initialized else "False", now_ns, start, init_text)
    made = with_condition(made, "ContainersReady", "True" if ready else "False", now_ns, reason, text)
    return with_condition(made, "Ready", "True" if ready else "False", now_ns, reason, text)
