"""Enum values as people read them: `STATE_RUNNING` of `Core.State` is `running`."""

from __future__ import annotations

from typing import Any


def word(enum: Any, value: int) -> str:
    """Returns the name of an enum value without its type's prefix, lower-case with hyphens; the number if unknown."""
    descriptor = enum.DESCRIPTOR
    known = descriptor.values_by_number.get(value)
    if known is None:
        return str(value)
    prefix = "".join("_" + c if c.isupper() else c.upper() for c in descriptor.name).lstrip("_") + "_"
    return str(known.name).removeprefix(prefix).lower().replace("_", "-")


def last(name: str) -> str:
    """Returns the last part of a resource name."""
    return name.rpartition("/")[2]
