"""Typed configuration: a dataclass a section, filled from defaults, a TOML file and the environment, in this order.

    @dataclass(frozen=True)
    class MmuConfig:
        frames_reserved: int = 64
        swap_path: Path | None = None
        policy: Literal["lru", "clock"] = "lru"

    load("mmu", MmuConfig, Path("lamina.toml"), os.environ)       # [mmu] in the file, LAMINA_MMU_FRAMES_RESERVED=128

Fields are `int`, `float`, `bool`, `str`, `Path`, `Literal[…]` of texts, `tuple[str, ...]`, or one of these `| None`. A
wrong key or value names the key, where it stands, and what is right.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from lamina_kit.checks import shown
from lamina_kit.errors import InvalidArgument, NotFound, PermissionDenied

T = TypeVar("T")
PREFIX = "LAMINA_"
SHARED = ("operations",)
"""Sections that every process reads beside those of the layers."""
_MAX_FILE = 1 << 20
_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def load(section: str, kind: type[T], file: Path | None, environ: Mapping[str, str]) -> T:
    """Returns the configuration of one section as the dataclass `kind`.

    Raises `NotFound` `CONFIG_NOT_FOUND`, `PermissionDenied` `CONFIG_UNREADABLE`, or `InvalidArgument`
    `CONFIG_MALFORMED` (not TOML), `CONFIG_UNKNOWN_KEY` or `CONFIG_WRONG_TYPE`.
    """
    hints = typing.get_type_hints(kind)
    names = [entry.name for entry in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    table = read_file(file).get(section, {}) if file is not None else {}
    if not isinstance(table, dict):
        raise _wrong(section, str(file), table, "a table")
    for key, value in table.items():
        _check_known(key, names, f"[{section}] of {file}", f"{section}.")
        values[key] = _convert(hints[key], value, f"{section}.{key}", str(file))
    prefix = f"{PREFIX}{section.upper().replace('-', '_')}_"
    for variable in sorted(environ):
        if variable.startswith(prefix):
            key = variable.removeprefix(prefix).lower()
            _check_known(key, names, "the environment", prefix, upper=True)
            values[key] = _convert(hints[key], _Text(environ[variable]), variable, "the environment")
    return kind(**values)


def read_file(file: Path) -> dict[str, Any]:
    """Returns a TOML file as tables; at most 1 MiB."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_FILE + 1)
    except FileNotFoundError:
        raise NotFound(
            f"There is no configuration file {file}.", reason="CONFIG_NOT_FOUND", next_step="Check the path."
        ) from None
    except OSError as error:
        raise PermissionDenied(
            f"The configuration file {file} cannot be read: {error.strerror or error}.",
            reason="CONFIG_UNREADABLE",
            next_step="Give a file that the user that Lamina runs as may read.",
        ) from error
    if len(raw) > _MAX_FILE:
        raise InvalidArgument(f"{file} has more than {_MAX_FILE} bytes.", reason="CONFIG_MALFORMED")
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(
            f"{file} is not TOML: {error}.", reason="CONFIG_MALFORMED", next_step="Mend that place in the file."
        ) from error


def check_sections(file: Path, known: Iterable[str]) -> None:
    """Raises `InvalidArgument` `CONFIG_UNKNOWN_KEY` when a file has a section that nobody reads."""
    names = [*known, *SHARED]
    for section in read_file(file):
        _check_known(section, names, str(file), "")


def from_text(kind: type[Any], key: str, text: str, variable: str) -> Any:
    """Returns the value of a field of `kind` that a variable of another name than the usual one gives as text.

    Raises `InvalidArgument` `CONFIG_WRONG_TYPE`.
    """
    return _convert(typing.get_type_hints(kind)[key], _Text(text), variable, "the environment")


class _Text(str):
    """A value from the environment, where everything is text."""

    __slots__ = ()


def _check_known(key: str, names: list[str], where: str, prefix: str, upper: bool = False) -> None:
    if key in names:
        return
    near = difflib.get_close_matches(key, names, n=1)
    show = str.upper if upper else str
    hint = f"Did you mean {prefix}{show(near[0])}?" if near else f"Known are: {', '.join(names)}."
    full = f"{prefix}{show(key)}"
    raise InvalidArgument(
        f"The key {shown(full)} in {where} is unknown.", reason="CONFIG_UNKNOWN_KEY", next_step=hint, key=full[:200]
    )


def _wrong(key: str, where: str, value: object, wanted: str) -> InvalidArgument:
    return InvalidArgument(
        f"{key} in {where} is {shown(value)}, not {wanted}.",
        reason="CONFIG_WRONG_TYPE",
        next_step=f"Give {wanted}.",
        key=key,
    )


def _convert(hint: Any, value: Any, key: str, where: str) -> Any:
    """Returns `value` as the type that a field has."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if isinstance(value, _Text) and not value:
            return None
        kinds = [argument for argument in arguments if argument is not type(None)]
        return _convert(kinds[0], value, key, where)
    if origin is Literal:
        if value in arguments:
            return str(value)
        raise _wrong(key, where, value, " or ".join(map(str, arguments)))
    if origin is tuple:
        return _list(value, key, where)
    if hint is bool:
        return _boolean(value, key, where)
    if hint in (int, float):
        return _number(hint, value, key, where)
    if not isinstance(value, str) or "\0" in value:
        raise _wrong(key, where, value, "a text")
    return Path(value) if hint is Path else str(value)


def _list(value: Any, key: str, where: str) -> tuple[str, ...]:
    if isinstance(value, _Text):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise _wrong(key, where, value, "a list of texts")


def _boolean(value: Any, key: str, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, _Text) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise _wrong(key, where, value, "true or false")


def _number(hint: Any, value: Any, key: str, where: str) -> int | float:
    wanted = "a whole number" if hint is int else "a number"
    if isinstance(value, _Text) and len(value) <= 40:
        try:
            return int(value, 0) if hint is int else float(value)
        except ValueError:
            raise _wrong(key, where, str(value), wanted) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or (hint is int and not isinstance(value, int)):
        raise _wrong(key, where, value, wanted)
    return int(value) if hint is int else float(value)
