"""Objects for unit tests, as the admission would have stored them."""

from __future__ import annotations

from typing import Any

from lamina_orchestrator.domain.admission.chain import Admission, shaped
from lamina_orchestrator.domain.controllers.nodes import new_node
from lamina_orchestrator.domain.kinds.kinds import DEPLOYMENT, NODE, POD, REPLICA_SET, Kind
from lamina_orchestrator.domain.kinds.plain_object import Object
from lamina_orchestrator.domain.kinds.timestamps import SECOND, rfc3339
from lamina_orchestrator.domain.objects.ownership import controller_reference

START = 1_767_225_600 * SECOND
_drawn = 0


def entropy(count: int) -> bytes:
    """Bytes that never repeat."""
    global _drawn
    _drawn += 1
    return _drawn.to_bytes(4, "big").rjust(count, b"\0")[-count:]


ADMISSION = Admission(entropy, 300)


def made(kind: Kind, now_ns: int = START, **parts: Any) -> Object:
    """An object through shape and admission."""
    value = {"apiVersion": kind.api_version, "kind": kind.name, **parts}
    return ADMISSION.create(kind, shaped(kind, value, "default"), now_ns)


def pod(name: str = "p", now_ns: int = START, owner: Object | None = None, **spec: Any) -> Object:
    """A pod of one container; `owner` is a ReplicaSet."""
    container = {"name": "main", "image": "x:1", **spec.pop("container", {})}
    metadata: dict[str, Any] = {"name": name, "labels": spec.pop("labels", {"app": "a"})}
    if owner is not None:
        metadata["ownerReferences"] = [controller_reference(REPLICA_SET, owner)]
    return made(POD, now_ns, metadata=metadata, spec={"containers": [container], **spec})


def running(obj: Object, node: str = "h1", since_ns: int = START, *, ready: bool = True, restarts: int = 0) -> Object:
    """The pod bound and running."""
    state = "True" if ready else "False"
    conditions = [{"type": "Ready", "status": state, "lastTransitionTime": rfc3339(since_ns)}]
    statuses = [{"name": "main", "restartCount": restarts}]
    status = {"phase": "Running", "conditions": conditions, "containerStatuses": statuses}
    return {**obj, "spec": {**obj["spec"], "nodeName": node}, "status": status}


def template(image: str = "x:1") -> dict[str, Any]:
    """A pod template."""
    return {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "main", "image": image}]}}


def replica_set(name: str = "rs", replicas: int = 1, **spec: Any) -> Object:
    """A ReplicaSet."""
    wanted = {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template(), **spec}
    return made(REPLICA_SET, metadata={"name": name}, spec=wanted)


def deployment(replicas: int = 3, image: str = "x:1", **spec: Any) -> Object:
    """A Deployment."""
    wanted = {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template(image), **spec}
    return made(DEPLOYMENT, metadata={"name": "d"}, spec=wanted)


def node(name: str = "h1", cpu: int = 4000, memory: int = 8 << 30, pods: int = 110, **spec: Any) -> Object:
    """A node."""
    labels = spec.pop("labels", {})
    wanted = new_node(name, "a", cpu, memory, pods, labels)
    stored = ADMISSION.create(NODE, shaped(NODE, {**wanted, "spec": spec}, ""), START)
    return {**stored, "status": wanted["status"]}


def ready_node(**fields: Any) -> Object:
    """A node whose Ready condition is True."""
    obj = node(**fields)
    condition = {"type": "Ready", "status": "True", "reason": "RuntimeReady", "lastTransitionTime": rfc3339(START)}
    return {**obj, "status": {**obj["status"], "conditions": [condition]}}
