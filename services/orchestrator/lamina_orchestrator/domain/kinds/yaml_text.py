"""Bounded YAML: documents of untrusted text as plain values.

The parser works on YAML's event stream with a stack of its own, so neither depth nor aliases can exhaust anything
before a bound is met. Scalars are read as Kubernetes' own YAML reader does (YAML 1.1 booleans, no time stamps, no
sexagesimal numbers); numbers with a fraction stay text (`Decimal`), because quantities have to be exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from lamina_kit.errors import InvalidArgument

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_VALUES = 100_000
MAX_DOCUMENTS = 1000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"}
_FALSE = {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"}
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9_]{0,40}|0[0-7_]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F_]{1,32}|0b[01_]{1,128})")
_DECIMAL = re.compile(r"[+-]?(?:\d{1,40}\.\d{0,40}|\.\d{1,40}|\d{1,40}(?=[eE]))(?:[eE][+-]?\d{1,4})?", re.ASCII)
_TAGS = {"tag:yaml.org,2002:str": str, "tag:yaml.org,2002:map": dict, "tag:yaml.org,2002:seq": list}


class Decimal(str):
    """The text of a number with a fraction or an exponent."""

    __slots__ = ()


def malformed(text: str) -> InvalidArgument:
    """The error for text that is no manifest."""
    return InvalidArgument(
        f"The manifest cannot be read: {text}.", reason="MANIFEST_MALFORMED", next_step="Correct the manifest."
    )


def check_size(text: str) -> None:
    """Refuses a text beyond 1 MiB, or one that is not Unicode."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise malformed(f"character {error.start} is a lone surrogate, which no UTF-8 text has") from error
    if size > MAX_BYTES:
        raise malformed(f"it has {size} bytes, more than {MAX_BYTES}")


@dataclass(slots=True)
class _Open:
    """A collection whose end has not been seen. `count` is how many values it holds, itself included."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    count: int = 1
    name: str | None = None
    merges: list[dict[str, Any]] = field(default_factory=list)


class _Document:
    """Builds one document from events."""

    def __init__(self) -> None:
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.total = 0
        self.root: Any = None
        self.empty = True

    def event(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
            if event.anchor:
                self.anchors[event.anchor] = (value, 1)
            self._add(value, 1, event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close(event)

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise malformed(f"{_at(event)}: nested more than {MAX_DEPTH} levels deep")
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag and _TAGS.get(event.tag) is not (dict if mapping else list):
            raise malformed(f"{_at(event)}: tag {event.tag[:64]} is not allowed")
        if mapping and self.stack and isinstance(self.stack[-1].value, dict) and self.stack[-1].name is None:
            raise malformed(f"{_at(event)}: a field name has to be a string")
        self.stack.append(_Open({} if mapping else [], event.anchor))

    def _close(self, event: yaml.Event) -> None:
        done = self.stack.pop()
        for merged in done.merges:
            assert isinstance(done.value, dict)
            done.value = {**merged, **done.value}
        if done.anchor:
            self.anchors[done.anchor] = (done.value, done.count)
        self._add(done.value, done.count, event, counted=True)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor is None or event.anchor not in self.anchors:
            raise malformed(f"{_at(event)}: alias *{str(event.anchor)[:64]} stands before its anchor ends, or has none")
        value, count = self.anchors[event.anchor]
        self._add(value, count, event)

    def _add(self, value: Any, count: int, event: yaml.Event, counted: bool = False) -> None:
        self.total += 1 if counted else count
        if self.total > MAX_VALUES:
            raise malformed(f"{_at(event)}: more than {MAX_VALUES} values after aliases are expanded")
        if not self.stack:
            self.root, self.empty = value, False
            return
        top = self.stack[-1]
        top.count += count
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.name is None:
            top.name = _field_name(value, top.value, event)
        else:
            self._put(top, value, event)

    def _put(self, top: _Open, value: Any, event: yaml.Event) -> None:
        assert isinstance(top.value, dict)
        name, top.name = top.name, None
        if name != "<<":
            top.value[str(name)] = value
            return
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise malformed(f"{_at(event)}: << merges mappings only")
            top.merges.append(part)


def _field_name(value: Any, into: dict[str, Any], event: yaml.Event) -> str:
    if not isinstance(value, str) or isinstance(value, Decimal):
        raise malformed(f"{_at(event)}: a field name has to be a string")
    if value in into:
        raise malformed(f'{_at(event)}: field "{value[:64]}" is given twice')
    return value


def _at(event: Any) -> str:
    mark = event.start_mark
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _scalar(event: yaml.ScalarEvent) -> Any:
    if event.tag and event.tag != "!" and _TAGS.get(event.tag) is not str:
        raise malformed(f"{_at(event)}: tag {event.tag[:64]} is not allowed")
    if event.tag or not event.implicit[0]:
        return event.value
    return plain(event.value)


def plain(text: str) -> Any:
    """The value of an unquoted scalar: None, a boolean, an integer, a `Decimal` or the text itself."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _DECIMAL.fullmatch(text):
        return Decimal(text)
    return text


def _integer(text: str) -> int:
    digits = text.lstrip("+-").replace("_", "")
    sign = -1 if text.startswith("-") else 1
    if digits[:2] in ("0x", "0b", "0o"):
        return sign * int(digits[2:] or "0", {"x": 16, "b": 2, "o": 8}[digits[1]])
    if len(digits) > 1 and digits[0] == "0":
        return sign * int(digits, 8)
    return sign * int(digits)


def documents(text: str) -> Iterator[Any]:
    """The values of the documents in a YAML text, empty documents left out.

    Raises InvalidArgument `MANIFEST_MALFORMED` with line and column. Values reached through aliases are shared.
    """
    check_size(text)
    current = _Document()
    seen = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                current = _Document()
                seen += 1
                if seen > MAX_DOCUMENTS:
                    raise malformed(f"{_at(event)}: more than {MAX_DOCUMENTS} documents")
            elif isinstance(event, yaml.DocumentEndEvent):
                if current.root is not None:
                    yield current.root
            else:
                current.event(event)
    except yaml.YAMLError as error:
        raise malformed(_problem(error)) from error


def _problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}" if mark else str(what)
