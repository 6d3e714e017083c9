"""The store in memory: for tests and for clusters that need not outlive their process. Same behaviour as on disk."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

from lamina_orchestrator.engines.interface import Change, Record, Write
from lamina_orchestrator.io.store.errors import check_readable, conflict


@dataclass(frozen=True, slots=True)
class _Version:
    revision: int
    created: int
    deleted: bool
    value: str


class MemoryStore:
    """A store without a file; see `interface.Store`."""

    def __init__(self) -> None:
        self._revision = 0
        self._compacted = 0
        self._versions: dict[str, list[_Version]] = {}
        self._paths: list[str] = []
        self._log: list[tuple[int, str]] = []

    @property
    def revision(self) -> int:
        """The newest revision."""
        return self._revision

    @property
    def compacted(self) -> int:
        """The newest revision whose history is gone."""
        return self._compacted

    def commit(self, writes: Sequence[Write]) -> int:
        """Writes all or nothing."""
        for write in writes:
            newest = self._newest(write.path)
            have = newest.revision if newest else 0
            if have != write.expected:
                raise conflict(write.path, write.expected, have)
        for write in writes:
            self._revision += 1
            newest = self._newest(write.path)
            created = newest.created if newest else self._revision
            if write.path not in self._versions:
                self._versions[write.path] = []
                insort(self._paths, write.path)
            self._versions[write.path].append(_Version(self._revision, created, write.deleted, write.value))
            self._log.append((self._revision, write.path))
        return self._revision

    def _newest(self, path: str) -> _Version | None:
        versions = self._versions.get(path)
        return versions[-1] if versions and not versions[-1].deleted else None

    def get(self, path: str) -> Record | None:
        """The newest version at a path."""
        newest = self._newest(path)
        return Record(path, newest.revision, newest.created, newest.value) if newest else None

    def list(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> list[Record]:
        """Versions of all paths with a prefix."""
        check_readable(revision, self._revision, self._compacted, at=True)
        found: list[Record] = []
        start = bisect_right(self._paths, after) if after >= prefix else bisect_left(self._paths, prefix)
        for path in self._paths[start:]:
            if not path.startswith(prefix) or (limit and len(found) == limit):
                break
            version = self._at(path, revision or self._revision)
            if version is not None and not version.deleted:
                found.append(Record(path, version.revision, version.created, version.value))
        return found

    def _at(self, path: str, revision: int) -> _Version | None:
        versions = self._versions[path]
        at = bisect_right(versions, revision, key=lambda version: version.revision)
        return versions[at - 1] if at else None

    def changes(self, after: int, limit: int) -> Sequence[Change]:
        """Changes behind a revision."""
        check_readable(after, self._revision, self._compacted, at=False)
        start = bisect_right(self._log, after, key=lambda entry: entry[0])
        return [self._change(revision, path) for revision, path in self._log[start : start + limit]]

    def _change(self, revision: int, path: str) -> Change:
        version, before = self._at(path, revision), self._at(path, revision - 1)
        assert version is not None
        previous = before.value if before is not None and not before.deleted else ""
        return Change(revision, path, version.value, previous, version.deleted)

    def compact(self, revision: int) -> None:
        """Forgets what was replaced or deleted at or before a revision."""
        target = min(revision, self._revision)
        if target <= self._compacted:
            return
        self._compacted = target
        self._log = self._log[bisect_right(self._log, target, key=lambda entry: entry[0]) :]
        for path in list(self._paths):
            versions = self._versions[path]
            at = bisect_right(versions, target, key=lambda version: version.revision)
            keep = at - 1 if at and not versions[at - 1].deleted else at
            self._versions[path] = versions[keep:]
            if not self._versions[path]:
                del self._versions[path]
                self._paths.remove(path)

    def close(self) -> None:
        """Does nothing: there is no file."""
