"""The store on disk: one SQLite file in WAL mode, one row a revision.

A commit is one transaction, so a process killed at any instruction leaves whole commits. `synchronous=NORMAL` keeps
what was committed across the death of the process, not of the machine; that is what the layer promises (README).
Source: sqlite.org/wal.html, sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lamina_kit.errors import DataLoss, FailedPrecondition, LaminaError, ResourceExhausted
from lamina_orchestrator.engines.interface import Change, Record, Write
from lamina_orchestrator.io.store.errors import check_readable, conflict

FORMAT = 1
PRAGMAS = (
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA wal_autocheckpoint=4000",
)
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS revision ("
    " revision INTEGER PRIMARY KEY, path TEXT NOT NULL, previous INTEGER NOT NULL, created INTEGER NOT NULL,"
    " deleted INTEGER NOT NULL, value TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS revision_path ON revision(path, revision)",
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)
INSERT = "INSERT INTO revision(revision, path, previous, created, deleted, value) VALUES (?, ?, ?, ?, ?, ?)"
_LIST = (
    "SELECT path, revision, created, value FROM ("
    " SELECT path, MAX(revision) AS revision, created, deleted, value FROM revision"
    " WHERE path >= ? AND path < ? AND path > ? AND revision <= ? GROUP BY path"
    ") WHERE NOT deleted ORDER BY path LIMIT ?"
)
_CHANGES = (
    "SELECT now.revision, now.path, now.value, COALESCE(before.value, ''), now.deleted FROM revision AS now"
    " LEFT JOIN revision AS before ON before.revision = now.previous"
    " WHERE now.revision > ? ORDER BY now.revision LIMIT ?"
)
_LAST = "\U0010ffff"


class SqliteStore:
    """A store in one file; see `interface.Store`. To be used in the thread that made it.

    Raises FailedPrecondition `STORE_IN_USE` when another process has it open, `STORE_FORMAT` when a newer version of
    Lamina wrote it, and DataLoss `STORE_CORRUPT` when the file is not a store.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = True
        self._base = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        try:
            with self._translated():
                self._prepare()
        except LaminaError:
            self._base.close()
            raise

    def _prepare(self) -> None:
        for pragma in PRAGMAS:
            self._base.execute(pragma)
        version = self._base.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            raise FailedPrecondition(
                f"The store {self._path} has format {version}; this version reads format {FORMAT}.",
                reason="STORE_FORMAT",
                next_step="Use the version of Lamina that wrote it, or another state directory.",
            )
        with self._transaction():
            for statement in SCHEMA:
                self._base.execute(statement)
            self._base.execute(f"PRAGMA user_version={FORMAT}")
        row = self._base.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()
        self._compacted = int(row[0]) if row else 0
        newest = self._base.execute("SELECT COALESCE(MAX(revision), 0) FROM revision").fetchone()[0]
        self._revision = max(int(newest), self._compacted)
        rows = self._base.execute(
            "SELECT path, revision, created FROM (SELECT path, MAX(revision) AS revision, created, deleted"
            " FROM revision GROUP BY path) WHERE NOT deleted ORDER BY path"
        )
        self._live: dict[str, tuple[int, int]] = {path: (revision, created) for path, revision, created in rows}

    @property
    def revision(self) -> int:
        """The newest revision."""
        return self._revision

    @property
    def compacted(self) -> int:
        """The newest revision whose history is gone."""
        return self._compacted

    def commit(self, writes: Sequence[Write]) -> int:
        """Writes all or nothing; raises ResourceExhausted `STORE_FULL` when the disk has no room."""
        rows, revision = [], self._revision
        live = self._live
        for write in writes:
            have = live.get(write.path, (0, 0))
            if have[0] != write.expected:
                raise conflict(write.path, write.expected, have[0])
            revision += 1
            rows.append((revision, write.path, have[0], have[1] or revision, write.deleted, write.value))
        with self._translated():
            self._insert(rows)
        self._revision = revision
        for number, path, _, created, deleted, _ in rows:
            if deleted:
                live.pop(path, None)
            else:
                live[path] = (number, created)
        return revision

    def _insert(self, rows: list[tuple[int, str, int, int, bool, str]]) -> None:
        if len(rows) == 1:
            self._base.execute(INSERT, rows[0])
            return
        with self._transaction():
            self._base.executemany(INSERT, rows)

    def get(self, path: str) -> Record | None:
        """The newest version at a path."""
        known = self._live.get(path)
        if known is None:
            return None
        with self._translated():
            row = self._base.execute("SELECT value FROM revision WHERE revision = ?", (known[0],)).fetchone()
        return Record(path, known[0], known[1], row[0])

    def list(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> list[Record]:
        """Versions of all paths with a prefix."""
        check_readable(revision, self._revision, self._compacted, at=True)
        bounds = (prefix, prefix + _LAST, after, revision or self._revision, limit or -1)
        with self._translated():
            return [Record(*row) for row in self._base.execute(_LIST, bounds)]

    def changes(self, after: int, limit: int) -> Sequence[Change]:
        """Changes behind a revision."""
        check_readable(after, self._revision, self._compacted, at=False)
        with self._translated():
            rows = self._base.execute(_CHANGES, (after, limit)).fetchall()
        return [Change(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows]

    def compact(self, revision: int) -> None:
        """Forgets what was replaced or deleted at or before a revision."""
        target = min(revision, self._revision)
        if target <= self._compacted:
            return
        with self._translated(), self._transaction():
            self._base.execute(
                "DELETE FROM revision WHERE revision IN (SELECT previous FROM revision WHERE revision <= ?)"
                " OR (deleted AND revision <= ?)",
                (target, target),
            )
            self._base.execute("INSERT OR REPLACE INTO meta(name, value) VALUES ('compacted', ?)", (target,))
        self._compacted = target

    def close(self) -> None:
        """Closes the file. Idempotent."""
        if self._open:
            self._open = False
            self._base.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._base.execute("COMMIT")
        except sqlite3.Error:
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> LaminaError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return FailedPrecondition(
                f"The store {self._path} is in use by another process.",
                reason="STORE_IN_USE",
                next_step="Stop the other orchestrator, or choose another state directory.",
            )
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            return ResourceExhausted(
                f"The store {self._path} cannot be written: {error}.",
                reason="STORE_FULL",
                next_step="Make room on the disk of the state directory.",
            )
        return DataLoss(
            f"The store {self._path} cannot be used: {error}.",
            reason="STORE_CORRUPT",
            next_step="Restore the state directory from a copy, or start with an empty one.",
        )
