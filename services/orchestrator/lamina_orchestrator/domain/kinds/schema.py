"""Shapes of objects: a small type language, and the strict check of a value against it.

The check refuses unknown fields (naming the nearest known one), wrong types and, so that nothing is silently ignored,
fields that Kubernetes knows and this orchestrator does not act on. A field whose only served value is Kubernetes'
default is declared as `Only`. What comes back is the value with absent (null) fields dropped and quantities canonical.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lamina_kit.errors import InvalidArgument, Violation
from lamina_orchestrator.domain.kinds.quantity import canonical_quantity
from lamina_orchestrator.domain.kinds.timestamps import parse_time
from lamina_orchestrator.domain.kinds.yaml_text import Decimal

MAX_SHOWN = 80


class Type(Protocol):
    """A type of the language."""

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        """Appends the violations of a value that is not null, and returns the value normalised."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string, of at most `limit` characters, one of `choices` if there are any."""

    limit: int = 1 << 18
    choices: tuple[str, ...] = ()

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        if not isinstance(value, str) or isinstance(value, Decimal):
            found.append(wrong_type(path, value, "string"))
        elif len(value) > self.limit:
            found.append(Violation(path, f"Too long: may not be more than {self.limit} characters"))
        elif self.choices and value not in self.choices:
            found.append(unsupported(path, value, self.choices))
        return value


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer between `low` and `high`, inclusive."""

    low: int = -(2**31)
    high: int = 2**31 - 1

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            found.append(wrong_type(path, value, "integer"))
        elif value < self.low:
            found.append(invalid(path, value, f"must be greater than or equal to {self.low}"))
        elif value > self.high:
            found.append(invalid(path, value, f"must be less than or equal to {self.high}"))
        return value


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false."""

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        if not isinstance(value, bool):
            found.append(wrong_type(path, value, "boolean"))
        return value


@dataclass(frozen=True, slots=True)
class Amount:
    """A quantity that is not negative, given as a string or a number; comes back in canonical form."""

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | str):
            found.append(wrong_type(path, value, "quantity"))
            return value
        try:
            text = canonical_quantity(str(value))
        except ValueError as error:
            found.append(invalid(path, value, str(error)))
            return value
        if text.startswith("-"):
            found.append(invalid(path, value, "must be greater than or equal to 0"))
        return text


@dataclass(frozen=True, slots=True)
class IntegerOrPercent:
    """A non-negative integer, or a percentage such as `25%`."""

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < 2**31:
                found.append(invalid(path, value, "must be greater than or equal to 0 and fit in 32 bits"))
        elif not isinstance(value, str) or isinstance(value, Decimal):
            found.append(wrong_type(path, value, "integer or percentage"))
        elif not (value.endswith("%") and value[:-1].isascii() and value[:-1].isdigit() and len(value) <= 8):
            found.append(invalid(path, value, "must be an integer or a percentage, for example 25%"))
        return value


@dataclass(frozen=True, slots=True)
class Moment:
    """An RFC 3339 time stamp."""

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        try:
            parse_time(value if isinstance(value, str) else "")
        except ValueError:
            found.append(invalid(path, value, "must be a time such as 2026-01-02T03:04:05Z"))
        return value


@dataclass(frozen=True, slots=True)
class Only:
    """A known field of which one value, Kubernetes' default, is served."""

    value: Any

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        if value != self.value or isinstance(value, bool) != isinstance(self.value, bool):
            found.append(unsupported(path, value, (self.value,)))
        return value


@dataclass(frozen=True, slots=True)
class Opaque:
    """Any JSON without fractions, which integers and quantities never need."""

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        if isinstance(value, Decimal | float):
            found.append(invalid(path, value, "numbers with a fraction are not stored; write a quantity as a string"))
        elif isinstance(value, dict):
            for name, part in value.items():
                self.check(part, f"{path}.{name[:MAX_SHOWN]}", found)
        elif isinstance(value, list):
            for number, part in enumerate(value):
                self.check(part, f"{path}[{number}]", found)
        return value


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with free keys and values of one type."""

    item: Type

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        if not isinstance(value, dict):
            found.append(wrong_type(path, value, "map"))
            return value
        given = {name: part for name, part in value.items() if part is not None}
        return {name: self.item.check(part, f"{path}[{name[:MAX_SHOWN]}]", found) for name, part in given.items()}


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one type. With `key`, no two items have the same value in that field."""

    item: Type
    key: str = ""
    limit: int = 1000

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        if not isinstance(value, list):
            found.append(wrong_type(path, value, "list"))
            return value
        if len(value) > self.limit:
            found.append(Violation(path, f"Too many: {len(value)}: must have at most {self.limit} items"))
            return value
        checked = []
        for number, part in enumerate(value):
            if part is None:
                found.append(required(f"{path}[{number}]"))
            else:
                checked.append(self.item.check(part, f"{path}[{number}]", found))
        self._check_unique(checked, path, found)
        return checked

    def _check_unique(self, items: list[Any], path: str, found: list[Violation]) -> None:
        seen: set[Any] = set()
        for number, item in enumerate(items):
            key = item.get(self.key) if self.key and isinstance(item, dict) else None
            if not isinstance(key, str | int):
                continue
            if key in seen:
                found.append(Violation(f"{path}[{number}].{self.key}", f"Duplicate value: {shown(key)}"))
            seen.add(key)


@dataclass(frozen=True, slots=True)
class Struct:
    """An object with known fields. `unserved` are Kubernetes fields that are refused because nothing acts on them."""

    fields: Mapping[str, Type]
    required: tuple[str, ...] = ()
    unserved: tuple[str, ...] = ()

    def check(self, value: Any, path: str, found: list[Violation]) -> Any:
        if not isinstance(value, dict):
            found.append(wrong_type(path, value, "object"))
            return value
        checked: dict[str, Any] = {}
        for name, part in value.items():
            below = f"{path}.{name}" if path else name
            kind = self.fields.get(name)
            if kind is None:
                found.append(self._refused(name, below))
            elif part is not None:
                checked[name] = kind.check(part, below, found)
        for name in self.required:
            if checked.get(name) in (None, ""):
                found.append(required(f"{path}.{name}" if path else name))
        return checked

    def _refused(self, name: str, path: str) -> Violation:
        if name in self.unserved:
            return Violation(path, "Forbidden: a Kubernetes field that this orchestrator does not act on; remove it")
        near = difflib.get_close_matches(name[:64], self.fields, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        return Violation(path[: 4 * MAX_SHOWN], f"unknown field{hint}")


def shown(value: Any) -> str:
    """A value in an error message, quoted as Kubernetes does and cut to 80 characters."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | Decimal):
        return str(value)[:MAX_SHOWN]
    if isinstance(value, str):
        return f'"{value[:MAX_SHOWN]}{"…" if len(value) > MAX_SHOWN else ""}"'
    return "a list" if isinstance(value, list) else "a map"


def invalid(path: str, value: Any, why: str) -> Violation:
    """`spec.replicas: Invalid value: -1: must be …`."""
    return Violation(path, f"Invalid value: {shown(value)}: {why}")


def wrong_type(path: str, value: Any, wanted: str) -> Violation:
    """A value of another type than the field has."""
    return invalid(path, value, f"must be of type {wanted}")


def unsupported(path: str, value: Any, choices: Iterable[Any]) -> Violation:
    """A value outside a closed list."""
    listed = ", ".join(shown(choice) for choice in choices)
    return Violation(path, f"Unsupported value: {shown(value)}: supported values: {listed}")


def required(path: str) -> Violation:
    """A field that has to be given."""
    return Violation(path, "Required value")


def forbidden(path: str, why: str) -> Violation:
    """A field that may not be given, or not be changed."""
    return Violation(path, f"Forbidden: {why}")


def refuse(what: str, found: list[Violation]) -> None:
    """Raises InvalidArgument `OBJECT_INVALID` if there are violations; `what` names the object."""
    if not found:
        return
    listed = ", ".join(f"{violation.field}: {violation.description}" for violation in found[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    raise InvalidArgument(
        f"{what} is invalid: {listed}{more}.",
        reason="OBJECT_INVALID",
        next_step="Correct the named fields.",
        violations=found[:100],
    )
