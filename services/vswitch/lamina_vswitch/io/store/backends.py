"""Backends in the layer's database, in a table of their own. A backend goes with its port."""

from __future__ import annotations

from lamina_kit.errors import DataLoss
from lamina_vswitch.domain.backend.definition import BackendDefinition, from_text, to_text
from lamina_vswitch.domain.definitions.switches import Origin
from lamina_vswitch.io.store.definitions import SqliteStore

_SCHEMA = """CREATE TABLE IF NOT EXISTS backends (
    sequence INTEGER PRIMARY KEY, switch TEXT NOT NULL, port TEXT NOT NULL, kind TEXT NOT NULL,
    queue_frames INTEGER NOT NULL, ended INTEGER NOT NULL, request_id TEXT NOT NULL, content TEXT NOT NULL,
    UNIQUE (switch, port), FOREIGN KEY (switch, port) REFERENCES ports (switch, port) ON DELETE CASCADE)"""


class BackendStore:
    """Keeps backends through `kill -9`. Every method is one transaction; errors as of the store that it stands on."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def open(self) -> None:
        """Make the table where it is missing."""
        with self._store.transaction() as db:
            db.execute(_SCHEMA)

    def load(self) -> list[tuple[BackendDefinition, Origin, bool]]:
        """Return the backends in the order in which they were made, and whether their files were played to the end."""
        with self._store.transaction() as db:
            rows = db.execute(
                "SELECT switch, port, kind, queue_frames, ended, request_id, content FROM backends ORDER BY sequence"
            ).fetchall()
        try:
            return [
                (BackendDefinition(row[0], row[1], from_text(row[2]), row[3]), Origin(*row[5:]), bool(row[4]))
                for row in rows
            ]
        except (ValueError, LookupError, TypeError) as error:
            raise DataLoss(
                f"The database has a backend that cannot be read: {error}.",
                reason="STORE_CORRUPT",
                next_step="Restore it from a copy, or move it away to start without switches.",
            ) from error

    def add(self, backend: BackendDefinition, origin: Origin) -> None:
        """Record a backend."""
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO backends (switch, port, kind, queue_frames, ended, request_id, content) "
                "VALUES (?, ?, ?, ?, 0, ?, ?)",
                (
                    *(backend.switch, backend.port, to_text(backend.kind), backend.queue_frames),
                    *(origin.request_id, origin.content),
                ),
            )

    def set_ended(self, switch: str, port: str) -> None:
        """Record that a file was played to its end."""
        with self._store.transaction() as db:
            db.execute("UPDATE backends SET ended = 1 WHERE switch = ? AND port = ?", (switch, port))

    def remove(self, switch: str, port: str) -> None:
        """Forget a backend."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM backends WHERE switch = ? AND port = ?", (switch, port))
