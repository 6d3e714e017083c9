"""Label and field selectors: parsing and matching.

Source: Kubernetes documentation, "Labels and Selectors" and "Field Selectors".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamina_kit.errors import InvalidArgument
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import Kind
from lamina_orchestrator.domain.kinds.plain_object import Object

QUALIFIED = re.compile(r"(?:(?P<prefix>[a-z0-9.-]{1,253})/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SET = re.compile(r"(\S+)\s+(in|notin)\s*\(([^()]*)\)")
_EQUAL = re.compile(r"([^\s=!]+)\s*(==|=|!=)\s*([^\s=!]*)")
MAX_SELECTOR = 4096


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label: `operator` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy the condition; a label that is absent satisfies NotIn."""
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        return (labels.get(self.key) in self.values) == (self.operator == "In")


@dataclass(frozen=True, slots=True)
class Selector:
    """Conditions that all have to hold; none select everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy all conditions."""
        return all(requirement.matches(labels) for requirement in self.requirements)


def label_selector(spec: Mapping[str, Any]) -> Selector:
    """The selector of a workload's `spec.selector`, which has been checked."""
    wanted = [Requirement(key, "In", (value,)) for key, value in sorted((spec.get("matchLabels") or {}).items())]
    for part in spec.get("matchExpressions") or []:
        wanted.append(Requirement(part["key"], part["operator"], tuple(part.get("values") or ())))
    return Selector(tuple(wanted))


def parse_label_selector(text: str) -> Selector:
    """The selector of `app=hello,tier!=db,env in (a,b),!old`.

    Raises InvalidArgument `SELECTOR_MALFORMED`.
    """
    return Selector(tuple(_requirement(part, text) for part in _split(text)))


def _split(text: str) -> list[str]:
    if len(text) > MAX_SELECTOR:
        raise _malformed(text, f"it has more than {MAX_SELECTOR} characters")
    parts = re.split(r",(?![^(]*\))", text)
    return [part.strip() for part in parts] if text.strip() else []


def _requirement(part: str, whole: str) -> Requirement:
    found = _SET.fullmatch(part)
    if found:
        values = tuple(value.strip() for value in found[3].split(","))
        return _checked(Requirement(found[1], "In" if found[2] == "in" else "NotIn", values), whole)
    found = _EQUAL.fullmatch(part)
    if found:
        return _checked(Requirement(found[1], "NotIn" if found[2] == "!=" else "In", (found[3],)), whole)
    if part.startswith("!"):
        return _checked(Requirement(part[1:].strip(), "DoesNotExist"), whole)
    return _checked(Requirement(part, "Exists"), whole)


def _checked(requirement: Requirement, whole: str) -> Requirement:
    if not is_label_key(requirement.key):
        raise _malformed(whole, f'"{requirement.key[:80]}" is not a label key')
    for value in requirement.values:
        if VALUE.fullmatch(value) is None:
            raise _malformed(whole, f'"{value[:80]}" is not a label value')
    return requirement


def is_label_key(text: str) -> bool:
    """Whether the text is a label key: a name of up to 63 characters, perhaps behind a DNS prefix and a slash."""
    return QUALIFIED.fullmatch(text) is not None


def is_label_value(text: str) -> bool:
    """Whether the text is a label value: empty, or up to 63 letters, digits, `-`, `_` and `.`."""
    return VALUE.fullmatch(text) is not None


def _malformed(text: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f'The selector "{text[:100]}" cannot be read: {why}.',
        reason="SELECTOR_MALFORMED",
        next_step="Write it as kubectl does, for example app=hello,tier!=db.",
    )


_EVERY_KIND = ("metadata.name", "metadata.namespace")
_INVOLVED = ("apiVersion", "kind", "name", "namespace", "resourceVersion", "uid", "fieldPath")
_FIELDS: dict[Kind, tuple[str, ...]] = {
    kinds.POD: ("spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP", "spec.schedulerName"),
    kinds.NODE: ("spec.unschedulable",),
    kinds.NAMESPACE: ("status.phase",),
    kinds.REPLICA_SET: ("status.replicas",),
    kinds.EVENT: (*(f"involvedObject.{name}" for name in _INVOLVED), "reason", "type", "source", "reportingComponent"),
}


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Conditions on fields: (path, whether equal, value)."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    def matches(self, obj: Object) -> bool:
        """Whether the object satisfies all conditions; a field that is absent reads as an empty string."""
        return all((field_text(obj, path) == value) == equal for path, equal, value in self.terms)


def parse_field_selector(text: str, kind: Kind) -> FieldSelector:
    """The field selector of `status.phase=Running,spec.nodeName!=h1` for a kind.

    Raises InvalidArgument `SELECTOR_MALFORMED`, naming the fields of the kind for an unknown one.
    """
    terms = []
    known = (*_EVERY_KIND, *_FIELDS.get(kind, ()))
    for part in _split(text):
        found = _EQUAL.fullmatch(part)
        if found is None:
            raise _malformed(text, f'"{part[:80]}" is not FIELD=VALUE or FIELD!=VALUE')
        if found[1] not in known:
            raise _malformed(text, f"{kind.name} has no field {found[1][:80]}; its fields are {', '.join(known)}")
        terms.append((found[1], found[2] != "!=", found[3]))
    return FieldSelector(tuple(terms))


def field_text(obj: Object, path: str) -> str:
    """The text of a field as selectors compare it."""
    value: Any = obj
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if path == "source" and isinstance(value, dict):
        value = value.get("component")
    if path == "spec.unschedulable":
        return "true" if value else "false"
    return "" if value is None else str(value)
