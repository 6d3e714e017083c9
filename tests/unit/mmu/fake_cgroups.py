"""A cgroup subtree in memory: what is written is read back, and a test says what the kernel counts."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from lamina_mmu.domain.kernel.cgroups import Cgroups
from lamina_mmu.domain.kernel.port import Kernel
from lamina_mmu.domain.ports import Ports
from lamina_mmu.engines.linux.cgroups import KernelGroups

FILES = {
    1: ("memory.limit_in_bytes", "memory.swappiness"),
    2: (
        "memory.max", "memory.swap.max", "memory.min", "memory.low", "memory.high", "memory.swap.high",
        "memory.oom.group", "memory.reclaim",
    ),
}  # fmt: skip


class FakeCgroups:
    """Implements `domain.cgroups.Cgroups`; `files` by path and name. `refuses` are errors of writes by file."""

    why = ""

    def __init__(self, version: int) -> None:
        self.version = version
        self.files: dict[str, dict[str, str]] = {"": {}}
        self.refuses: dict[str, int] = {}
        self.closing = 0
        self.watches: dict[str, Callable[[], None]] = {}
        self.on_put: Callable[[str, str, str], None] = lambda path, file, text: None

    def make(self, path: str) -> int:
        """Makes a group."""
        if path in self.files:
            return -errno.EEXIST
        self.files[path] = {"cgroup.procs": "", **dict.fromkeys(FILES[self.version], "")}
        return 0

    def remove(self, path: str) -> int:
        """Removes a group."""
        if any(other.startswith(f"{path}/") for other in self.files) or self.files[path].get("cgroup.procs"):
            return -errno.EBUSY
        del self.files[path]
        return 0

    def read(self, path: str, file: str) -> str | int:
        """Returns a file."""
        return self.files[path].get(file, -errno.ENOENT) if path in self.files else -errno.ENOENT

    def put(self, path: str, file: str, text: str) -> int:
        """Writes a file."""
        if file in self.refuses:
            return -self.refuses[file]
        if file not in self.files[path]:
            return -errno.ENOENT
        self.files[path][file] = text
        self.on_put(path, file, text)
        return 0

    def watch(self, path: str, changed: Callable[[], None]) -> int:
        """Notes who is to be told."""
        self.watches[path] = changed
        return 0

    def unwatch(self, path: str) -> None:
        """Forgets it."""
        self.watches.pop(path, None)

    def close(self) -> int:
        """Removes everything."""
        self.files.clear()
        return self.closing


class World:
    """Groups over such a subtree, and what they recorded and woke."""

    def __init__(self, version: int) -> None:
        self.cgroups = FakeCgroups(version)
        self.now = 0
        self.records: list[tuple[str, str]] = []
        nothing: Any = None
        kernel = Kernel(nothing, nothing, nothing, self.cgroups, nothing)
        assert isinstance(kernel.cgroups, FakeCgroups)
        port: Cgroups = self.cgroups
        self.groups = KernelGroups(
            Ports("h1", nothing, nothing, lambda: self.now, self._record, lambda key, told: None, kernel=kernel), port
        )

    def _record(self, object: str, event: str, **inputs: object) -> None:
        self.records.append((object, event))
