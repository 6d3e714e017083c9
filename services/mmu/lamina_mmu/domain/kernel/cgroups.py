"""The port to the kernel's memory groups (cgroups), and the form of what their files say. Pure.

A host has the memory controller in a hierarchy of version 1, in the one of version 2, or, where both are mounted, in
either. Source: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst; proc(5), /proc/PID/mountinfo.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lamina_kit.telemetry.pressure import Reading

UNLIMITED = 1 << 62
"""Version 1 says "no limit" by the highest number of whole pages, 2^63 - 4096; everything from here on is none."""


class Cgroups(Protocol):
    """One subtree of the hierarchy with the memory controller, which belongs to this service alone.

    Paths are relative to its top, which is empty. What is refused comes back as a negative error number.
    """

    version: int
    """1 or 2; 0 when groups cannot be had here: `why` says so."""
    why: str

    def make(self, path: str) -> int:
        """Makes a group."""

    def remove(self, path: str) -> int:
        """Removes a group without groups and processes in it."""

    def read(self, path: str, file: str) -> str | int:
        """Returns the content of a group's file."""

    def put(self, path: str, file: str, text: str) -> int:
        """Writes a group's file."""

    def watch(self, path: str, changed: Callable[[], None]) -> int:
        """Calls `changed` whenever the kernel tells something of a group: out of memory, or (version 2) any event."""

    def unwatch(self, path: str) -> None:
        """Ends that. Idempotent."""

    def close(self) -> int:
        """Removes the whole subtree; processes that are left in it go where the subtree lies. Idempotent."""


@dataclass(frozen=True)
class Hierarchy:
    """Where the memory controller is: the version, and the mount point."""

    version: int
    mount: str


def hierarchies(mountinfo: str) -> list[Hierarchy]:
    """Returns the mounted hierarchies that may have the memory controller, those of version 1 first.

    Version 1 names its controllers in the options of the mount; what one of version 2 has, its `cgroup.controllers`
    says. Lines that are malformed are passed over.
    """
    first, second = [], []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        mount = unescaped(fields[4])
        if kind[0] == "cgroup" and "memory" in kind[2].split(","):
            first.append(Hierarchy(1, mount))
        elif kind[0] == "cgroup2":
            second.append(Hierarchy(2, mount))
    return [*first, *second]


def unescaped(text: str) -> str:
    """Returns a path of mountinfo or swaps, where blanks and the like are written as octal numbers (`\\040`)."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda found: chr(int(found[1], 8)), text)


def flat(text: str) -> dict[str, int]:
    """Returns the numbers of a flat keyed file (`memory.stat`, `memory.events` …) by their names."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.strip().rpartition(" ")
        if name and value.isdecimal():
            found[name] = int(value)
    return found


def number(text: str) -> int | None:
    """Returns the number of a file with one value; None for `max`, and for what version 1 says instead."""
    value = text.strip()
    if not value.isdecimal() or int(value) >= UNLIMITED:
        return None
    return int(value)


def pressure(text: str) -> Reading:
    """Returns what a pressure file says: times in nanoseconds, shares in millionths.

    `some avg10=0.12 avg60=0.00 avg300=0.00 total=1234` and the like for `full`; the total is in microseconds.
    """
    lines: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        kind, *pairs = line.split() or [""]
        lines[kind] = {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
    some, full = lines.get("some", {}), lines.get("full", {})
    return Reading(_nanoseconds(some), _nanoseconds(full), _shares(some), _shares(full))


def _nanoseconds(values: dict[str, str]) -> int:
    total = values.get("total", "0")
    return int(total) * 1000 if total.isdecimal() else 0


def _shares(values: dict[str, str]) -> tuple[int, ...]:
    shares = []
    for window in ("avg10", "avg60", "avg300"):
        whole, _, hundredths = values.get(window, "0.00").partition(".")
        is_number = whole.isdecimal() and hundredths.isdecimal()
        shares.append((int(whole) * 100 + int(hundredths.ljust(2, "0")[:2])) * 100 if is_number else 0)
    return tuple(shares)


def processes(text: str) -> Sequence[int]:
    """Returns the process ids of a `cgroup.procs`."""
    return [int(word) for word in text.split() if word.isdecimal()]
