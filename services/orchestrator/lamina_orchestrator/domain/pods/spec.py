"""A pod's spec in the runtime's words: sandbox and container to create, environment with its references resolved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lamina_orchestrator.domain.kinds.plain_object import (
    Object,
    annotations_of,
    labels_of,
    name_of,
    namespace_of,
    spec_of,
    status_of,
    uid_of,
)
from lamina_orchestrator.domain.kinds.quantity import millis, units
from lamina_orchestrator.domain.pods.containers import (
    CONTAINER_NAME,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    RESTART_COUNT,
    ContainerSpec,
    Labels,
    Limits,
    SandboxSpec,
)
from lamina_orchestrator.domain.pods.spec_rules import keyed_field

_REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")


def _pairs(values: Mapping[str, str]) -> Labels:
    return tuple(sorted(values.items()))


def _identity(pod: Object) -> dict[str, str]:
    return {POD_NAME: name_of(pod), POD_NAMESPACE: namespace_of(pod), POD_UID: uid_of(pod)}


def sandbox_spec(pod: Object, attempt: int) -> SandboxSpec:
    """The sandbox of a pod. The host name is spec.hostname, or the pod's name cut to 63 characters."""
    hostname = spec_of(pod).get("hostname") or name_of(pod)[:63].rstrip("-.")
    labels = _pairs({**labels_of(pod), **_identity(pod)})
    return SandboxSpec(name_of(pod), namespace_of(pod), uid_of(pod), attempt, hostname, labels)


def container_spec(pod: Object, container: dict[str, Any], attempt: int, image: str) -> ContainerSpec:
    """A container of a pod as the runtime creates it; `image` is the runtime's name of the resolved image."""
    variables = environment(pod, container)
    labels = {**_identity(pod), CONTAINER_NAME: container["name"], RESTART_COUNT: str(attempt)}
    return ContainerSpec(
        name=container["name"],
        attempt=attempt,
        image=image,
        command=tuple(expand(word, variables) for word in container.get("command") or ()),
        args=tuple(expand(word, variables) for word in container.get("args") or ()),
        env=tuple(f"{name}={value}" for name, value in variables.items()),
        working_dir=container.get("workingDir", ""),
        limits=limits(container.get("resources") or {}),
        labels=_pairs(labels),
    )


def environment(pod: Object, container: dict[str, Any]) -> dict[str, str]:
    """The container's variables in the order of the spec; `$(NAME)` refers to those before it."""
    variables: dict[str, str] = {}
    for variable in container.get("env") or []:
        source = variable.get("valueFrom")
        if source:
            variables[variable["name"]] = field_value(pod, source["fieldRef"]["fieldPath"])
        else:
            variables[variable["name"]] = expand(variable.get("value", ""), variables)
    return variables


def expand(text: str, variables: Mapping[str, str]) -> str:
    """The text with `$(NAME)` replaced; unknown names stay as they are, `$$` is one dollar sign."""

    def replacement(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return variables.get(found[1], found[0])

    return _REFERENCE.sub(replacement, text)


def field_value(pod: Object, path: str) -> str:
    """The value of a downward API field; empty if the pod does not have it."""
    keyed = keyed_field(path)
    if keyed:
        values = labels_of(pod) if keyed[0] == "labels" else annotations_of(pod)
        return values.get(keyed[1], "")
    fields = {
        "metadata.name": name_of(pod),
        "metadata.namespace": namespace_of(pod),
        "metadata.uid": uid_of(pod),
        "spec.nodeName": spec_of(pod).get("nodeName", ""),
        "spec.serviceAccountName": spec_of(pod).get("serviceAccountName", "default"),
    }
    return str(fields.get(path) or status_of(pod).get(path.removeprefix("status."), ""))


def limits(resources: dict[str, Any]) -> Limits:
    """The limits of a container's `resources`; memory and CPU that are not named are not limited."""
    requests, most = resources.get("requests") or {}, resources.get("limits") or {}
    return Limits(
        cpu_request_millis=millis(requests.get("cpu", "0")),
        cpu_limit_millis=millis(most.get("cpu", "0")),
        memory_limit_bytes=units(most.get("memory", "0")),
    )


def requested(spec: dict[str, Any]) -> tuple[int, int]:
    """What a pod asks of its node: CPU in thousandths of a core and memory in bytes.

    Containers run together and add up; init containers run one by one before them, so the largest counts if larger.
    """
    cpu = memory = 0
    for container in spec["containers"]:
        asks = (container.get("resources") or {}).get("requests") or {}
        cpu += millis(asks.get("cpu", "0"))
        memory += units(asks.get("memory", "0"))
    for container in spec.get("initContainers") or []:
        asks = (container.get("resources") or {}).get("requests") or {}
        cpu = max(cpu, millis(asks.get("cpu", "0")))
        memory = max(memory, units(asks.get("memory", "0")))
    return cpu, memory
