"""What the shape of an object does not say: names, cross-field rules, what may change.

Violations read as Kubernetes' own: a field path and `Invalid value: …`, `Required value`, `Forbidden: …`.
"""

from __future__ import annotations

from typing import Any

from lamina_kit.errors import Violation
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import Kind
from lamina_orchestrator.domain.kinds.plain_object import Object, labels_of, metadata, spec_of
from lamina_orchestrator.domain.kinds.schema import forbidden, invalid, required, unsupported
from lamina_orchestrator.domain.objects.names import is_label, is_subdomain
from lamina_orchestrator.domain.objects.selectors import is_label_key, is_label_value, label_selector
from lamina_orchestrator.domain.pods.spec_rules import check_pod_spec

MAX_ANNOTATIONS = 256 * 1024
_LABEL_RULE = "must be lower-case letters, digits and '-', at most 63, beginning and ending with a letter or digit"
_NAME_RULE = (
    "must be lower-case letters, digits, '-' and '.', at most 253, each part starting and ending with a letter or digit"
)


def check_create(kind: Kind, obj: Object) -> list[Violation]:
    """Violations of a new object whose shape is right and whose defaults are filled in."""
    found: list[Violation] = []
    _check_metadata(kind, obj, found)
    if kind == kinds.POD:
        check_pod_spec(obj["spec"], "spec", found)
    elif kind in (kinds.REPLICA_SET, kinds.DEPLOYMENT):
        _check_workload(obj["spec"], found)
    if kind == kinds.DEPLOYMENT:
        _check_rollout(obj["spec"], found)
    if kind == kinds.NODE:
        _check_taints(spec_of(obj).get("taints") or [], found)
    return found


def check_update(kind: Kind, old: Object, new: Object) -> list[Violation]:
    """Violations of a changed object: those of a new one, and changes of what may not change."""
    found = check_create(kind, new)
    if kind in (kinds.REPLICA_SET, kinds.DEPLOYMENT) and old["spec"]["selector"] != new["spec"]["selector"]:
        found.append(invalid("spec.selector", new["spec"]["selector"], "field is immutable"))
    if kind == kinds.POD:
        _check_pod_update(spec_of(old), spec_of(new), found)
    return found


def _check_pod_update(old: dict[str, Any], new: dict[str, Any], found: list[Violation]) -> None:
    before, after = old.get("tolerations") or [], new.get("tolerations") or []
    if {**old, "tolerations": []} != {**new, "tolerations": []}:
        found.append(forbidden("spec", "a pod's spec may not change but for added tolerations; replace the pod"))
    elif not all(toleration in after for toleration in before):
        found.append(forbidden("spec.tolerations", "existing tolerations may not be changed or removed"))


def _check_metadata(kind: Kind, obj: Object, found: list[Violation]) -> None:
    fields = metadata(obj)
    name, base = fields.get("name", ""), fields.get("generateName", "")
    rule, is_valid = (_LABEL_RULE, is_label) if kind == kinds.NAMESPACE else (_NAME_RULE, is_subdomain)
    if not name and not base:
        found.append(Violation("metadata.name", "Required value: name or generateName is required"))
    elif name and not is_valid(name):
        found.append(invalid("metadata.name", name, rule))
    if base and not is_valid(base.rstrip("-.") or "-"):
        found.append(invalid("metadata.generateName", base, rule))
    namespace = fields.get("namespace", "")
    if kind.namespaced and not is_label(namespace):
        found.append(invalid("metadata.namespace", namespace, _LABEL_RULE))
    if not kind.namespaced and namespace:
        found.append(forbidden("metadata.namespace", f"{kind.name} objects have no namespace"))
    check_labels(labels_of(obj), "metadata.labels", found)
    _check_annotations(fields.get("annotations") or {}, found)
    for number, finalizer in enumerate(fields.get("finalizers") or []):
        if not is_label_key(finalizer):
            found.append(invalid(f"metadata.finalizers[{number}]", finalizer, "must be a qualified name"))
    owners = [owner for owner in fields.get("ownerReferences") or [] if owner.get("controller")]
    if len(owners) > 1:
        found.append(invalid("metadata.ownerReferences", owners, "only one reference can have controller set to true"))


def check_labels(labels: dict[str, str], path: str, found: list[Violation]) -> None:
    """Refuses label keys and values outside their alphabet."""
    for key, value in labels.items():
        if not is_label_key(key):
            found.append(invalid(path, key, "label keys are names of up to 63 characters, with an optional DNS prefix"))
        if not is_label_value(value):
            found.append(invalid(f"{path}[{key[:80]}]", value, "must be up to 63 letters, digits, '-', '_' and '.'"))


def _check_annotations(annotations: dict[str, str], found: list[Violation]) -> None:
    for key in annotations:
        if not is_label_key(key):
            found.append(invalid("metadata.annotations", key, "annotation keys are written as label keys are"))
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS:
        found.append(Violation("metadata.annotations", f"Too long: may not be more than {MAX_ANNOTATIONS} bytes"))


def _check_workload(spec: dict[str, Any], found: list[Violation]) -> None:
    selector, template = spec["selector"], spec["template"]
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        found.append(required("spec.selector"))
    check_labels(selector.get("matchLabels") or {}, "spec.selector.matchLabels", found)
    for number, part in enumerate(selector.get("matchExpressions") or []):
        path = f"spec.selector.matchExpressions[{number}]"
        if not is_label_key(part["key"]):
            found.append(invalid(f"{path}.key", part["key"], "must be a label key"))
        needs = part["operator"] in ("In", "NotIn")
        if needs and not part.get("values"):
            found.append(required(f"{path}.values"))
        if not needs and part.get("values"):
            found.append(forbidden(f"{path}.values", f"may not be given when operator is {part['operator']}"))
    labels = template["metadata"].get("labels") or {}
    check_labels(labels, "spec.template.metadata.labels", found)
    if not label_selector(selector).matches(labels):
        found.append(invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    policy = template["spec"]["restartPolicy"]
    if policy != "Always":
        found.append(unsupported("spec.template.spec.restartPolicy", policy, ("Always",)))
    check_pod_spec(template["spec"], "spec.template.spec", found)


def _check_rollout(spec: dict[str, Any], found: list[Violation]) -> None:
    strategy = spec["strategy"]
    rolling = strategy.get("rollingUpdate")
    if strategy["type"] == "Recreate" and rolling:
        why = "may not be given when strategy `type` is 'Recreate'"
        found.append(forbidden("spec.strategy.rollingUpdate", why))
    elif rolling:
        path = "spec.strategy.rollingUpdate.maxUnavailable"
        if _is_zero(rolling["maxSurge"]) and _is_zero(rolling["maxUnavailable"]):
            found.append(invalid(path, rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0"))
        text = str(rolling["maxUnavailable"])
        if text.endswith("%") and int(text[:-1]) > 100:
            found.append(invalid(path, text, "must not be greater than 100%"))
    if spec["progressDeadlineSeconds"] <= spec.get("minReadySeconds", 0):
        why = "must be greater than minReadySeconds"
        found.append(invalid("spec.progressDeadlineSeconds", spec["progressDeadlineSeconds"], why))


def _is_zero(value: int | str) -> bool:
    return int(str(value).rstrip("%")) == 0


def _check_taints(taints: list[dict[str, Any]], found: list[Violation]) -> None:
    seen: set[tuple[str, str]] = set()
    for number, taint in enumerate(taints):
        path = f"spec.taints[{number}]"
        if not is_label_key(taint["key"]):
            found.append(invalid(f"{path}.key", taint["key"], "must be a label key"))
        if not is_label_value(taint.get("value", "")):
            found.append(invalid(f"{path}.value", taint["value"], "must be a label value"))
        if (taint["key"], taint["effect"]) in seen:
            found.append(Violation(path, "Duplicate value: taints must be unique by key and effect"))
        seen.add((taint["key"], taint["effect"]))
