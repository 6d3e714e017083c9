"""Defaults of fields that a manifest leaves out.

Source: Kubernetes API reference 1.32 (the `SetDefaults_…` functions of core/v1 and apps/v1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import Kind
from lamina_orchestrator.domain.kinds.plain_object import Object, labels_of, metadata, with_metadata

POD_TEMPLATE_HASH = "pod-template-hash"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"


def with_defaults(kind: Kind, obj: Object) -> Object:
    """The object with defaults filled in; what it says already is kept."""
    fill = _FILLERS.get(kind)
    return fill(obj) if fill else obj


def _namespace(obj: Object) -> Object:
    labels = {**labels_of(obj), "kubernetes.io/metadata.name": str(metadata(obj).get("name", ""))}
    spec = {"finalizers": ["kubernetes"], **(obj.get("spec") or {})}
    return with_metadata({**obj, "spec": spec}, labels=labels)


def _node(obj: Object) -> Object:
    return {**obj, "spec": obj.get("spec") or {}}


def _pod(obj: Object) -> Object:
    return {**obj, "spec": pod_spec(obj["spec"])}


def _template(template: dict[str, Any]) -> dict[str, Any]:
    given = template.get("metadata") or {}
    return {**template, "metadata": given, "spec": pod_spec(template["spec"])}


def pod_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """A pod spec with defaults filled in."""
    filled = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        **spec,
        "containers": [_container(container) for container in spec["containers"]],
    }
    if spec.get("initContainers"):
        filled["initContainers"] = [_container(container) for container in spec["initContainers"]]
    return filled


def _container(container: dict[str, Any]) -> dict[str, Any]:
    filled = {
        "imagePullPolicy": _pull_policy(container["image"]),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "resources": {},
        **container,
    }
    if "ports" in filled:
        filled["ports"] = [{"protocol": "TCP", **port} for port in filled["ports"]]
    if "env" in filled:
        filled["env"] = [_variable(variable) for variable in filled["env"]]
    resources = filled["resources"]
    if resources.get("limits"):
        filled["resources"] = {**resources, "requests": {**resources["limits"], **(resources.get("requests") or {})}}
    return filled


def _variable(variable: dict[str, Any]) -> dict[str, Any]:
    source = variable.get("valueFrom")
    if not source:
        return variable
    return {**variable, "valueFrom": {**source, "fieldRef": {"apiVersion": "v1", **source["fieldRef"]}}}


def _pull_policy(image: str) -> str:
    last = image.rpartition("/")[2]
    if "@" in last:
        return "IfNotPresent"
    tag = last.partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _replica_set(obj: Object) -> Object:
    spec = obj["spec"]
    return {**obj, "spec": {"replicas": 1, **spec, "template": _template(spec["template"])}}


def _deployment(obj: Object) -> Object:
    spec = obj["spec"]
    strategy = {"type": "RollingUpdate", **(spec.get("strategy") or {})}
    if strategy["type"] == "RollingUpdate":
        rolling = {"maxSurge": "25%", "maxUnavailable": "25%", **(strategy.get("rollingUpdate") or {})}
        strategy["rollingUpdate"] = rolling
    filled = {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, **spec}
    return {**obj, "spec": {**filled, "strategy": strategy, "template": _template(spec["template"])}}


def with_tolerations(pod: Object, seconds: int) -> Object:
    """The pod with the tolerations that every pod gets: it stays on a lost node for that many seconds.

    A pod that tolerates these taints in its own way keeps its own. Source: the DefaultTolerationSeconds admission.
    """
    given = pod["spec"].get("tolerations") or []
    added = list(given)
    for key in (NOT_READY, UNREACHABLE):
        if not any(t.get("key") in (key, None, "") and t.get("effect") in ("NoExecute", None, "") for t in given):
            added.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds})
    return {**pod, "spec": {**pod["spec"], "tolerations": added}}


_FILLERS: dict[Kind, Callable[[Object], Object]] = {
    kinds.NAMESPACE: _namespace,
    kinds.NODE: _node,
    kinds.POD: _pod,
    kinds.REPLICA_SET: _replica_set,
    kinds.DEPLOYMENT: _deployment,
}
