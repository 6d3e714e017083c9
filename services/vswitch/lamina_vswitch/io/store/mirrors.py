"""Mirrors in the layer's database: in tables of their own, in the transactions of the definitions.

A mirror goes with its destination, a source with its port or port group; the database sees to both.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from lamina_vswitch.domain.capture.mirror import MirrorDefinition
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.definitions.switches import Origin
from lamina_vswitch.io.store.definitions import SqliteStore

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS mirrors (
    sequence INTEGER PRIMARY KEY, switch TEXT NOT NULL, mirror TEXT NOT NULL, direction INTEGER NOT NULL,
    destination TEXT NOT NULL, filter TEXT NOT NULL, snap_bytes INTEGER NOT NULL, drops INTEGER NOT NULL,
    request_id TEXT NOT NULL, content TEXT NOT NULL, UNIQUE (switch, mirror),
    FOREIGN KEY (switch, destination) REFERENCES ports (switch, port) ON DELETE CASCADE)""",
    """CREATE TABLE IF NOT EXISTS mirror_ports (
    sequence INTEGER PRIMARY KEY, switch TEXT NOT NULL, mirror TEXT NOT NULL, port TEXT NOT NULL,
    FOREIGN KEY (switch, mirror) REFERENCES mirrors (switch, mirror) ON DELETE CASCADE,
    FOREIGN KEY (switch, port) REFERENCES ports (switch, port) ON DELETE CASCADE)""",
    """CREATE TABLE IF NOT EXISTS mirror_groups (
    sequence INTEGER PRIMARY KEY, switch TEXT NOT NULL, mirror TEXT NOT NULL, port_group TEXT NOT NULL,
    FOREIGN KEY (switch, mirror) REFERENCES mirrors (switch, mirror) ON DELETE CASCADE,
    FOREIGN KEY (switch, port_group) REFERENCES port_groups (switch, port_group) ON DELETE CASCADE)""",
    """CREATE TABLE IF NOT EXISTS mirror_vlans (
    sequence INTEGER PRIMARY KEY, switch TEXT NOT NULL, mirror TEXT NOT NULL, vlan INTEGER NOT NULL,
    FOREIGN KEY (switch, mirror) REFERENCES mirrors (switch, mirror) ON DELETE CASCADE)""",
)
_SOURCES = (("mirror_ports", "port"), ("mirror_groups", "port_group"), ("mirror_vlans", "vlan"))


class MirrorStore:
    """Keeps mirrors through `kill -9`. Every method is one transaction; errors as of the store that it stands on."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def open(self) -> None:
        """Make the tables where they are missing."""
        with self._store.transaction() as db:
            for statement in _SCHEMA:
                db.execute(statement)

    def load(self) -> list[tuple[MirrorDefinition, Origin]]:
        """Return the mirrors in the order in which they were made."""
        with self._store.transaction() as db:
            rows = db.execute(
                "SELECT switch, mirror, direction, destination, filter, snap_bytes, drops, request_id, content "
                "FROM mirrors ORDER BY sequence"
            ).fetchall()
            return [(_definition(db, row), Origin(*row[7:])) for row in rows]

    def add(self, mirror: MirrorDefinition, origin: Origin) -> None:
        """Record a mirror."""
        key = (mirror.switch, mirror.mirror)
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO mirrors (switch, mirror, direction, destination, filter, snap_bytes, drops, request_id, "
                "content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(*key, int(mirror.direction or 0), mirror.destination, mirror.filter, mirror.snap_bytes),
                    *(mirror.drops, origin.request_id, origin.content),
                ),
            )
            for (table, column), values in zip(_SOURCES, (mirror.ports, mirror.groups, mirror.vlans), strict=True):
                statement = f"INSERT INTO {table} (switch, mirror, {column}) VALUES (?, ?, ?)"
                db.executemany(statement, [(*key, value) for value in values])

    def remove(self, mirror: MirrorDefinition) -> None:
        """Forget a mirror if it is there."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM mirrors WHERE switch = ? AND mirror = ?", (mirror.switch, mirror.mirror))


def _definition(db: sqlite3.Connection, row: tuple[Any, ...]) -> MirrorDefinition:
    switch, mirror, direction, destination, expression, snap_bytes, drops = row[:7]
    sources: list[tuple[Any, ...]] = []
    for table, column in _SOURCES:
        query = f"SELECT {column} FROM {table} WHERE switch = ? AND mirror = ? ORDER BY sequence"
        sources.append(tuple(value for (value,) in db.execute(query, (switch, mirror)).fetchall()))
    ports, groups, vlans = sources
    way = Direction(direction) if direction else None
    return MirrorDefinition(switch, mirror, ports, groups, vlans, way, destination, expression, snap_bytes, bool(drops))
