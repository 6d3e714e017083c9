"""Cross-field rules of pod specs."""

from __future__ import annotations

import re
from typing import Any

from lamina_kit.errors import Violation
from lamina_orchestrator.domain.kinds.quantity import parse_quantity
from lamina_orchestrator.domain.kinds.schema import forbidden, invalid, required, unsupported
from lamina_orchestrator.domain.objects.names import is_label
from lamina_orchestrator.domain.objects.selectors import is_label_key, is_label_value

RESOURCES = ("cpu", "memory")
FIELD_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.podIP",
)
_KEYED_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']{1,317})'\]")
_VARIABLE = re.compile(r"[^=\x00-\x1f\x7f]+")
_LABEL_RULE = "must be lower-case letters, digits and '-', at most 63, beginning and ending with a letter or digit"


def check_pod_spec(spec: dict[str, Any], path: str, found: list[Violation]) -> None:
    """Appends the violations of a pod spec whose shape is right and whose defaults are filled in."""
    if not spec["containers"]:
        found.append(required(f"{path}.containers"))
    names: set[str] = set()
    for part in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(part) or []):
            where = f"{path}.{part}[{number}]"
            _check_container(container, where, found)
            if part == "containers" and container["name"] in names:
                found.append(Violation(f"{where}.name", f'Duplicate value: "{container["name"]}"'))
            if part == "initContainers":
                names.add(container["name"])
    for key, value in (spec.get("nodeSelector") or {}).items():
        if not is_label_key(key) or not is_label_value(value):
            found.append(invalid(f"{path}.nodeSelector", f"{key}={value}", "must be a label key and value"))
    for number, toleration in enumerate(spec.get("tolerations") or []):
        _check_toleration(toleration, f"{path}.tolerations[{number}]", found)
    if "hostname" in spec and not is_label(spec["hostname"]):
        found.append(invalid(f"{path}.hostname", spec["hostname"], _LABEL_RULE))


def _check_container(container: dict[str, Any], path: str, found: list[Violation]) -> None:
    if not is_label(container["name"]):
        found.append(invalid(f"{path}.name", container["name"], _LABEL_RULE))
    if container["image"] != container["image"].strip():
        found.append(invalid(f"{path}.image", container["image"], "must not have leading or trailing whitespace"))
    for number, variable in enumerate(container.get("env") or []):
        _check_variable(variable, f"{path}.env[{number}]", found)
    ports: set[str] = set()
    for number, port in enumerate(container.get("ports") or []):
        name = port.get("name")
        if name is None:
            continue
        if not is_label(name):
            found.append(invalid(f"{path}.ports[{number}].name", name, _LABEL_RULE))
        if name in ports:
            found.append(Violation(f"{path}.ports[{number}].name", f'Duplicate value: "{name}"'))
        ports.add(name)
    _check_resources(container["resources"], f"{path}.resources", found)


def _check_variable(variable: dict[str, Any], path: str, found: list[Violation]) -> None:
    if not _VARIABLE.fullmatch(variable["name"]):
        found.append(invalid(f"{path}.name", variable["name"], "must be printable and hold no '='"))
    source = variable.get("valueFrom")
    if not source:
        return
    if variable.get("value"):
        found.append(invalid(f"{path}.valueFrom", source, "may not be specified when `value` is not empty"))
    field = source["fieldRef"]["fieldPath"]
    keyed = _KEYED_FIELD.fullmatch(field)
    if field not in FIELD_PATHS and not (keyed and is_label_key(keyed[2])):
        wanted = (*FIELD_PATHS, "metadata.labels['KEY']", "metadata.annotations['KEY']")
        found.append(unsupported(f"{path}.valueFrom.fieldRef.fieldPath", field, wanted))


def keyed_field(path: str) -> tuple[str, str] | None:
    """`metadata.labels['app']` as ("labels", "app"); None for another path."""
    found = _KEYED_FIELD.fullmatch(path)
    return (found[1], found[2]) if found else None


def _check_resources(resources: dict[str, Any], path: str, found: list[Violation]) -> None:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for part, amounts in (("requests", requests), ("limits", limits)):
        for name in amounts:
            if name not in RESOURCES:
                found.append(unsupported(f"{path}.{part}", name, RESOURCES))
    for name in RESOURCES:
        if name in requests and name in limits and parse_quantity(requests[name]) > parse_quantity(limits[name]):
            why = f"must be less than or equal to {name} limit of {limits[name]}"
            found.append(invalid(f"{path}.requests", requests[name], why))


def _check_toleration(toleration: dict[str, Any], path: str, found: list[Violation]) -> None:
    operator, key = toleration.get("operator", "Equal"), toleration.get("key", "")
    if key and not is_label_key(key):
        found.append(invalid(f"{path}.key", key, "must be a label key"))
    if not key and operator != "Exists":
        found.append(invalid(f"{path}.operator", operator, "must be Exists when `key` is empty"))
    if operator == "Exists" and toleration.get("value"):
        found.append(invalid(f"{path}.value", toleration["value"], "must be empty when `operator` is 'Exists'"))
    if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
        found.append(forbidden(f"{path}.tolerationSeconds", "may be given only when `effect` is 'NoExecute'"))
