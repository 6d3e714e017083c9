"""The runtime's database: sandboxes, containers, their events, images, and the number of its start.

SQLite in WAL mode: what a call has stored survives `kill -9` at any instruction. Records are JSON (`codec.py`). Used on
the thread that opened it alone, which SQLite checks: a transaction of another thread would mix with ours.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lamina_container_runtime.domain.containers.container import ContainerEvent, ContainerRecord, EventType
from lamina_container_runtime.domain.containers.sandbox import SandboxRecord
from lamina_container_runtime.domain.images.image import ImageRecord
from lamina_container_runtime.io.records import codec
from lamina_kit.errors import DataLoss

EVENTS_KEPT = 10_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sandboxes (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS containers (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (revision INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
"""


class Database:
    """One open database. `Repository` of `engines/interface.py`, and the images."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise DataLoss(
                f"The database {path.name} of the container runtime cannot be read: {error}.",
                reason="DATABASE_CORRUPT",
                next_step="Restore it, or remove the runtime's state directory to start empty.",
            ) from error

    def close(self) -> None:
        """Closes the database. Idempotent."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def next_epoch(self) -> int:
        """Counts this start of the runtime and returns its number, from 1."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO meta VALUES ('epoch', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1")
            (epoch,) = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        return int(epoch)

    def put_epoch(self, epoch: int) -> None:
        """Notes the newest number that this runtime used towards the layers below."""
        with self._transaction() as connection:
            connection.execute("UPDATE meta SET value = max(value, ?) WHERE key = 'epoch'", (epoch,))

    def put_sandbox(self, record: SandboxRecord) -> None:
        """Stores a sandbox."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO sandboxes VALUES (?, ?)", (record.sandbox_id, codec.dumps(record))
            )

    def delete_sandbox(self, sandbox_id: str) -> None:
        """Forgets a sandbox."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM sandboxes WHERE id = ?", (sandbox_id,))

    def sandboxes(self) -> Sequence[SandboxRecord]:
        """Returns all sandboxes in the order of their ids."""
        rows = self._connection.execute("SELECT body FROM sandboxes ORDER BY id")
        return [codec.loads(SandboxRecord, body) for (body,) in rows]

    def put_container(self, event: ContainerEvent) -> None:
        """Stores a container as an event left it, with the event; a DELETED one is forgotten."""
        record = event.container
        with self._transaction() as connection:
            if event.type is EventType.DELETED:
                connection.execute("DELETE FROM containers WHERE id = ?", (record.container_id,))
            else:
                connection.execute(
                    "INSERT OR REPLACE INTO containers VALUES (?, ?)", (record.container_id, codec.dumps(record))
                )
            connection.execute("INSERT INTO events VALUES (?, ?)", (event.revision, codec.dumps(event)))
            connection.execute("DELETE FROM events WHERE revision <= ?", (event.revision - EVENTS_KEPT,))

    def containers(self) -> Sequence[ContainerRecord]:
        """Returns all containers in the order of their ids."""
        rows = self._connection.execute("SELECT body FROM containers ORDER BY id")
        return [codec.loads(ContainerRecord, body) for (body,) in rows]

    def events(self) -> Sequence[ContainerEvent]:
        """Returns the events kept, oldest first."""
        rows = self._connection.execute("SELECT body FROM events ORDER BY revision")
        return [codec.loads(ContainerEvent, body) for (body,) in rows]

    def revision(self) -> int:
        """Returns the revision of the newest event ever; 0 when there was none."""
        (newest,) = self._connection.execute("SELECT coalesce(max(revision), 0) FROM events").fetchone()
        return int(newest)

    def put_image(self, record: ImageRecord) -> None:
        """Stores an image."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO images VALUES (?, ?)", (record.image_id, codec.dumps(record)))

    def delete_image(self, image_id: str) -> None:
        """Forgets an image."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM images WHERE id = ?", (image_id,))

    def images(self) -> Sequence[ImageRecord]:
        """Returns all images in the order of their ids."""
        rows = self._connection.execute("SELECT body FROM images ORDER BY id")
        return [codec.loads(ImageRecord, body) for (body,) in rows]
