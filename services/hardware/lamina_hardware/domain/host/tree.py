"""A machine's /proc and /sys as a tree of small texts, and the values that they hold. Pure.

What is read is not trusted: it may be another kernel's, a container's with parts masked, or a folder that somebody
made. A value that is not there or makes no sense is "not known", never an error.

Source: Documentation/ABI/stable/sysfs-devices-system-cpu and Documentation/admin-guide/cputopology.rst of Linux 6.18
(lists of CPUs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

MOST_NUMBERED = 4096
"""Most CPUs, blocks of a list, and so on that are looked at: the contract shows no more threads."""

_MOST_DIGITS = 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Tree(Protocol):
    """Files below one root. Paths are relative to it: `proc/cpuinfo`."""

    def text(self, path: str) -> str:
        """Returns what a file says, without the white space around it; empty when it cannot be read."""
        ...

    def names(self, path: str) -> Sequence[str]:
        """Returns the names in a folder in alphabetical order; none when there is no such folder."""
        ...

    def target(self, path: str) -> str:
        """Returns the last part of what a symbolic link points to; empty when it is none."""
        ...

    def usable(self, path: str) -> bool:
        """Returns whether this process may read and write a file."""
        ...

    def exists(self, path: str) -> bool:
        """Returns whether there is a file or folder."""
        ...


def number(text: str, base: int = 10) -> int | None:
    """Returns a number of at most 20 digits that is not negative (`0x` may precede one of base 16), or None."""
    digits = text.removeprefix("0x") if base == 16 else text
    if not digits or len(digits) > _MOST_DIGITS or not digits.isascii() or not digits.isalnum():
        return None
    try:
        return int(digits, base)
    except ValueError:
        return None


def size(text: str) -> int | None:
    """Returns bytes of a size as sysfs writes it (`32K`, `307200K`, `1M`), or None."""
    unit = text[-1:].upper() if text[-1:].isalpha() else ""
    found = number(text[: len(text) - len(unit)])
    return None if found is None or unit not in _UNITS else found * _UNITS[unit]


def numbers(text: str, limit: int = MOST_NUMBERED) -> list[int]:
    """Returns the numbers below `limit` of a list such as `0-3,8,10-14:2/4`, ascending, each once.

    `a-b:u/g` means the first `u` of every `g` from `a` to `b`. Parts that make no sense are passed over.
    """
    found: dict[int, None] = {}
    for part in text.split(",")[:limit]:
        bounds, _, pattern = part.strip().partition(":")
        first_text, dash, last_text = bounds.partition("-")
        first = number(first_text)
        last = number(last_text) if dash else first
        used_text, slash, group_text = pattern.partition("/")
        used, group = (number(used_text), number(group_text)) if slash else (1, 1)
        if first is None or last is None or not used or not group:
            continue
        for value in range(first, min(last, limit - 1) + 1):
            if (value - first) % group < used:
                found[value] = None
    return sorted(found)


def fields(text: str) -> dict[str, str]:
    """Returns `name : value` lines as a mapping; of a name that comes twice, the first."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def numbered(names: Sequence[str], prefix: str, limit: int = MOST_NUMBERED) -> list[int]:
    """Returns the numbers of the names `prefix`N, ascending, at most `limit` of them."""
    found = [number(name.removeprefix(prefix)) for name in names if name.startswith(prefix)]
    return sorted(dict.fromkeys(value for value in found if value is not None))[:limit]
