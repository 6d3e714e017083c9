"""How commands print: tables for people, JSON for programs, errors with the next step."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from lamina_kit.errors import LaminaError


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, out: TextIO | None = None) -> None:
    """Prints rows below their headers in columns as wide as their widest cell, two blanks apart."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(header), *(len(row[i]) for row in cells), 0) for i, header in enumerate(headers)]
    stream = out if out is not None else sys.stdout
    for row in ([*headers], *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=stream)


def as_json(value: Any, *, out: TextIO | None = None) -> None:
    """Prints a value as indented JSON with sorted keys; protobuf messages print with all their fields."""
    print(json.dumps(plain(value), indent=2, sort_keys=True), file=out if out is not None else sys.stdout)


def plain(value: Any) -> Any:
    """Returns a value as JSON has it: messages as their fields, bytes as hexadecimal digits."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str | bytes | int | float | bool) or value is None:
        return value.hex() if isinstance(value, bytes) else value
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return _message(value)


def _message(value: Message) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    plain: dict[str, Any] = MessageToDict(
        value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return plain


def show(messages: Iterable[Message], headers: Sequence[str], row: Any, *, form: str, one: bool = False) -> None:
    """Prints messages as a table (`row` makes the cells of one message) or, for `form` "json", as they are."""
    listed = list(messages)
    if form == "json":
        as_json(listed[0] if one else listed)
    else:
        table(headers, (row(message) for message in listed))


def error(problem: LaminaError, *, out: TextIO | None = None) -> None:
    """Prints an error: what, which fields unless that is said already, and what to do next."""
    stream = out if out is not None else sys.stderr
    print(f"error: {problem.message} ({problem.code} {problem.reason})", file=stream)
    for violation in problem.violations:
        if f"{violation.field} {violation.description}" in problem.message:
            continue
        print(f"  {violation.field}: {violation.description}", file=stream)
    if problem.next_step:
        print(f"next: {problem.next_step}", file=stream)


UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def size(count: int) -> str:
    """Returns a number of bytes for people, for example `8 GiB` or `1.5 MiB`."""
    for unit, factor in UNITS:
        if count >= factor:
            whole, rest = divmod(count * 10 // factor, 10)
            return f"{whole}.{rest} {unit}" if rest else f"{whole} {unit}"
    return f"{count} B"


def duration(ns: int) -> str:
    """Returns nanoseconds for people, for example `1.5 ms`."""
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if ns >= factor:
            return f"{ns / factor:.1f} {unit}"
    return f"{ns} ns"


def span(ns: int) -> str:
    """Returns nanoseconds exactly, for example `1d2h`, `1h30m0.000000012s` or `0s`; `parse.duration` reads it."""
    text, rest = "", ns
    for unit, factor in (("d", 86_400 * 10**9), ("h", 3600 * 10**9), ("m", 60 * 10**9)):
        count, rest = divmod(rest, factor)
        text += f"{count}{unit}" if count else ""
    seconds, fraction = divmod(rest, 10**9)
    if rest or not text:
        text += f"{seconds}.{fraction:09d}".rstrip("0").rstrip(".") + "s" if fraction else f"{seconds}s"
    return text
