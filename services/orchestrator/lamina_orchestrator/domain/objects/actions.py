"""What a controller wants done. Controllers return actions; one writer carries them out in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina_orchestrator.domain.kinds.kinds import Kind
from lamina_orchestrator.domain.kinds.plain_object import Key, Object

NORMAL, WARNING = "Normal", "Warning"


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object that the controller made from checked parts; it may name a generateName."""

    kind: Kind
    obj: Object


@dataclass(frozen=True, slots=True)
class Replace:
    """Store another version of an object; `obj` was built from the version that the controller saw."""

    kind: Kind
    obj: Object


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Store another status."""

    kind: Kind
    key: Key
    status: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete an object gracefully, as its owner would; `grace_seconds` None means the object's own period.

    `foreground` lets it wait for what it owns.
    """

    key: Key
    uid: str
    why: str
    grace_seconds: int | None = None
    foreground: bool = False


@dataclass(frozen=True, slots=True)
class Emit:
    """Record an Event object about an object: reason and message as kubectl shows them."""

    about: Object
    kind: str
    reason: str
    message: str
    component: str


@dataclass(frozen=True, slots=True)
class Decide:
    """Record a decision for `Explain`: what was decided about an object, by which rule, from which inputs."""

    key: Key
    event: str
    rule: str
    cause: str = ""
    inputs: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Again:
    """Reconcile the same object again at that time, in Unix nanoseconds."""

    at_ns: int


Action = Create | Replace | SetStatus | Remove | Emit | Decide | Again
