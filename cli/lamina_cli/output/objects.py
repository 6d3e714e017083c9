"""Kubernetes objects as people name and see them: `deploy/hello`, and the columns of a kind's table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lamina_kit.errors import InvalidArgument, Violation

Row = Callable[[dict[str, Any]], tuple[object, ...]]


@dataclass(frozen=True)
class Kind:
    """How one kind is asked for and shown."""

    kind: str
    words: tuple[str, ...]
    namespaced: bool
    headers: tuple[str, ...]
    row: Row


def _condition(value: dict[str, Any], kind: str) -> str:
    conditions = value.get("status", {}).get("conditions", [])
    return next((item["status"] for item in conditions if item["type"] == kind), "Unknown")


def _pod(value: dict[str, Any]) -> tuple[object, ...]:
    status = value.get("status", {})
    statuses = status.get("containerStatuses", [])
    ready = sum(1 for item in statuses if item.get("ready"))
    restarts = sum(item.get("restartCount", 0) for item in statuses)
    total = len(value["spec"]["containers"])
    return (f"{ready}/{total}", pod_state(value), restarts, value["spec"].get("nodeName", "-"))


def pod_state(value: dict[str, Any]) -> str:
    """Returns a pod's state as kubectl shows it: the reason of a container that waits or ended, else the phase."""
    if value["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = value.get("status", {})
    for item in status.get("containerStatuses", []):
        state = item.get("state", {})
        for phase in ("waiting", "terminated"):
            if state.get(phase, {}).get("reason"):
                return str(state[phase]["reason"])
    return str(status.get("reason") or status.get("phase", "Unknown"))


def _deployment(value: dict[str, Any]) -> tuple[object, ...]:
    status = value.get("status", {})
    return (
        f"{status.get('readyReplicas', 0)}/{value['spec'].get('replicas', 1)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
    )


def _replica_set(value: dict[str, Any]) -> tuple[object, ...]:
    status = value.get("status", {})
    return (value["spec"].get("replicas", 1), status.get("replicas", 0), status.get("readyReplicas", 0))


def _node(value: dict[str, Any]) -> tuple[object, ...]:
    state = "Ready" if _condition(value, "Ready") == "True" else "NotReady"
    cordoned = ",SchedulingDisabled" if value["spec"].get("unschedulable") else ""
    capacity = value.get("status", {}).get("capacity", {})
    return (state + cordoned, capacity.get("cpu", "-"), capacity.get("memory", "-"), capacity.get("pods", "-"))


def _event(value: dict[str, Any]) -> tuple[object, ...]:
    about = value.get("involvedObject", {})
    return (
        value.get("type", ""),
        value.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        value.get("count", 1),
        value.get("message", ""),
    )


KINDS = (
    Kind("Pod", ("pod", "pods", "po"), True, ("READY", "STATUS", "RESTARTS", "NODE"), _pod),
    Kind(
        "Deployment",
        ("deployment", "deployments", "deploy"),
        True,
        ("READY", "UP-TO-DATE", "AVAILABLE"),
        _deployment,
    ),
    Kind("ReplicaSet", ("replicaset", "replicasets", "rs"), True, ("DESIRED", "CURRENT", "READY"), _replica_set),
    Kind("Node", ("node", "nodes", "no"), False, ("STATUS", "CPU", "MEMORY", "PODS"), _node),
    Kind(
        "Namespace",
        ("namespace", "namespaces", "ns"),
        False,
        ("STATUS",),
        lambda value: (value.get("status", {}).get("phase", "Active"),),
    ),
    Kind("Event", ("event", "events", "ev"), True, ("TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"), _event),
    Kind(
        "Lease",
        ("lease", "leases"),
        True,
        ("HOLDER",),
        lambda value: (value.get("spec", {}).get("holderIdentity", "-"),),
    ),
)


def kind_of(word: str) -> Kind:
    """Returns the kind that a word means, for example `deploy`.

    Raises:
        InvalidArgument: `KIND_UNKNOWN`, with the nearest words.
    """
    by_word = {known: kind for kind in KINDS for known in kind.words}
    found = by_word.get(word.lower())
    if found is None:
        near = get_close_matches(word.lower(), by_word, n=1)
        raise InvalidArgument(
            f"there is no kind {word!r}",
            reason="KIND_UNKNOWN",
            violations=[Violation("kind", f"must be one of {', '.join(kind.words[0] for kind in KINDS)}")],
            next_step=f"did you mean {near[0]!r}?" if near else "",
        )
    return found


def split_target(words: list[str]) -> tuple[Kind, list[str]]:
    """Returns the kind and names of `deploy hello web` or of `deploy/hello`."""
    if len(words) == 1 and "/" in words[0]:
        kind, _, name = words[0].partition("/")
        return kind_of(kind), [name]
    return kind_of(words[0]), words[1:]


def body(item: Any) -> dict[str, Any]:
    """Returns the Kubernetes form of an object message."""
    value: dict[str, Any] = json.loads(item.json)
    return value


def age(value: dict[str, Any], now: float) -> str:
    """Returns how long ago an object was created, as kubectl writes it: `5s`, `3m`, `2h`, `7d`."""
    from datetime import datetime

    stamp = value["metadata"].get("creationTimestamp")
    if not stamp:
        return "<unknown>"
    seconds = max(0, int(now - datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()))
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= factor * 2:
            return f"{seconds // factor}{unit}"
    return f"{seconds}s"


def required(kind: Kind, names: list[str]) -> list[str]:
    """Returns the names, of which there has to be one at least.

    Raises:
        InvalidArgument: `NAME_REQUIRED`.
    """
    if not names:
        raise InvalidArgument(
            f"which {kind.words[0]}?",
            reason="NAME_REQUIRED",
            violations=[Violation("name", "must be given")],
            next_step=f"list them with `lamina get {kind.words[0]}` and add a name",
        )
    return names


def resource_name(text: str, namespace: str) -> str:
    """Returns the resource name that `deploy/hello` means to the orchestrator; other names stay as they are."""
    word, slash, name = text.partition("/")
    kind = next((kind for kind in KINDS if word.lower() in kind.words), None)
    if kind is None or not slash or "/" in name:
        return text
    plural = kind.words[1]
    return f"namespaces/{namespace}/{plural}/{name}" if kind.namespaced else f"{plural}/{name}"
