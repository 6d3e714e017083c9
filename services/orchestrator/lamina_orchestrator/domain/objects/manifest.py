"""Manifests: YAML or JSON text as a list of objects, bounded before anything is believed."""

from __future__ import annotations

import json
from typing import Any

from lamina_orchestrator.domain.kinds.plain_object import Object
from lamina_orchestrator.domain.kinds.yaml_text import (
    MAX_DEPTH,
    MAX_DOCUMENTS,
    MAX_VALUES,
    Decimal,
    check_size,
    documents,
    malformed,
)


def parse_manifest(text: str) -> list[Object]:
    """The objects of a manifest, in its order; a `List` stands for its items.

    Numbers with a fraction are `Decimal` texts. Raises InvalidArgument `MANIFEST_MALFORMED` for text that is neither
    YAML nor JSON, that passes a bound, or that holds no object.
    """
    check_size(text)
    values = _values(text)
    found: list[Object] = []
    for position, value in enumerate(values):
        found.extend(_objects(value, f"document {position + 1}"))
        if len(found) > MAX_DOCUMENTS:
            raise malformed(f"it has more than {MAX_DOCUMENTS} objects")
    if not found:
        raise malformed("it holds no object")
    return found


def parse_json(text: str) -> Any:
    """The value of one JSON text, with the same bounds. Raises InvalidArgument `MANIFEST_MALFORMED`."""
    check_size(text)
    try:
        value = json.loads(
            text, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_unique, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise malformed(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise malformed(f"nested more than {MAX_DEPTH} levels deep") from error
    _check_bounds(value)
    return value


def _values(text: str) -> list[Any]:
    if text.lstrip()[:1] in ("{", "["):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return list(documents(text))  # a YAML flow collection; its reader reports what is wrong
        return [parse_json(text)]
    return list(documents(text))


def _objects(value: Any, where: str) -> list[Object]:
    if not isinstance(value, dict):
        raise malformed(f"{where} is not an object with apiVersion, kind and metadata")
    if value.get("kind") != "List":
        return [value]
    items = value.get("items")
    if not isinstance(items, list):
        raise malformed(f"{where} is a List whose items are not a list")
    return [part for number, item in enumerate(items) for part in _objects(item, f"{where}, items[{number}]")]


def _integer(text: str) -> int:
    if len(text) > 41:
        raise malformed(f"the number {text[:20]}… has too many digits")
    return int(text)


def _no_constant(text: str) -> Any:
    raise malformed(f"{text} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, part in pairs:
        if name in value:
            raise malformed(f'field "{name[:64]}" is given twice')
        value[name] = part
    return value


def _check_bounds(value: Any) -> None:
    total, level, depth = 1, [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH + 1:
            raise malformed(f"nested more than {MAX_DEPTH} levels deep")
        nested = [part for part in level if isinstance(part, dict | list)]
        level = [item for part in nested for item in (part.values() if isinstance(part, dict) else part)]
        total += len(level)
        if total > MAX_VALUES:
            raise malformed(f"it has more than {MAX_VALUES} values")
