"""The definitions of the switch layer in an SQLite database.

Write-ahead log with `synchronous=NORMAL`: a committed definition survives `kill -9` of the service at any instruction.
Learned addresses and counters are not here; a switch that starts again learns again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamina_kit.errors import DataLoss, Unavailable
from lamina_vswitch.domain.definitions.switches import (
    Origin,
    PortDefinition,
    PortGroupDefinition,
    StaticEntry,
    SwitchDefinition,
)
from lamina_vswitch.engines.interface import Recorded

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE epochs (epoch INTEGER PRIMARY KEY);
CREATE TABLE switches (
    sequence INTEGER PRIMARY KEY, switch TEXT UNIQUE NOT NULL, mtu_bytes INTEGER NOT NULL,
    ageing_seconds INTEGER NOT NULL, mac_limit INTEGER NOT NULL, request_id TEXT NOT NULL, content TEXT NOT NULL);
CREATE TABLE port_groups (
    sequence INTEGER PRIMARY KEY, switch TEXT NOT NULL REFERENCES switches (switch) ON DELETE CASCADE,
    port_group TEXT NOT NULL, vlan INTEGER NOT NULL, request_id TEXT NOT NULL, content TEXT NOT NULL,
    UNIQUE (switch, port_group));
CREATE TABLE slots (slot INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE TABLE ports (
    sequence INTEGER PRIMARY KEY, switch TEXT NOT NULL, port TEXT NOT NULL, port_group TEXT,
    link_up INTEGER NOT NULL, owner TEXT NOT NULL, slot INTEGER UNIQUE NOT NULL REFERENCES slots (slot),
    request_id TEXT NOT NULL, content TEXT NOT NULL, UNIQUE (switch, port),
    FOREIGN KEY (switch) REFERENCES switches (switch) ON DELETE CASCADE,
    FOREIGN KEY (switch, port_group) REFERENCES port_groups (switch, port_group));
CREATE TABLE static_entries (
    switch TEXT NOT NULL, vlan INTEGER NOT NULL, mac BLOB NOT NULL, port TEXT NOT NULL,
    PRIMARY KEY (switch, vlan, mac),
    FOREIGN KEY (switch, port) REFERENCES ports (switch, port) ON DELETE CASCADE);
"""


class SqliteStore:
    """A `DefinitionStore` in one file; used from one thread, between `open` and `close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise _unavailable(self._path, "it is not open")
        return self._connection

    def open(self) -> None:
        """Open the database, or make it. Raises DataLoss `STORE_CORRUPT` and Unavailable `STORE_UNAVAILABLE`."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._path, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise _unavailable(self._path, error) from error
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        with _errors(self._path):
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=2000"):
                self._db.execute(f"PRAGMA {pragma}")
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if version == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
            elif version != SCHEMA_VERSION:
                raise DataLoss(
                    f"{self._path} has schema {version}; this version reads schema {SCHEMA_VERSION}.",
                    reason="STORE_CORRUPT",
                    next_step="Start the version that wrote it, or move the file away to start empty.",
                    path=self._path,
                )

    def close(self) -> None:
        """Close the database. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def load(self) -> Recorded:
        """Return everything, each list in the order in which it was made."""
        with self.transaction():
            switches = self._db.execute(
                "SELECT switch, mtu_bytes, ageing_seconds, mac_limit, request_id, content FROM switches "
                "ORDER BY sequence"
            ).fetchall()
            groups = self._db.execute(
                "SELECT switch, port_group, vlan, request_id, content FROM port_groups ORDER BY sequence"
            ).fetchall()
            ports = self._db.execute(
                "SELECT switch, port, port_group, link_up, owner, slot, generation, request_id, content "
                "FROM ports JOIN slots USING (slot) ORDER BY sequence"
            ).fetchall()
            entries = self._db.execute(
                "SELECT switch, vlan, mac, port FROM static_entries ORDER BY switch, vlan, mac"
            ).fetchall()
        return Recorded(
            [(SwitchDefinition(*row[:4]), Origin(*row[4:])) for row in switches],
            [(PortGroupDefinition(*row[:3]), Origin(*row[3:])) for row in groups],
            [_port(row) for row in ports],
            [StaticEntry(*row) for row in entries],
        )

    def next_epoch(self) -> int:
        """Count this start of the service and return the number, from 1."""
        with self.transaction():
            row = self._db.execute("INSERT INTO epochs DEFAULT VALUES RETURNING epoch").fetchone()
            self._db.execute("DELETE FROM epochs WHERE epoch < ?", row)
        return int(row[0])

    def save_epoch(self, epoch: int) -> None:
        """Record that a number is in use towards the hardware; the next start counts from there."""
        with self.transaction():
            self._db.execute("INSERT OR IGNORE INTO epochs (epoch) VALUES (?)", (epoch,))
            self._db.execute("DELETE FROM epochs WHERE epoch < ?", (epoch,))

    def add_switch(self, switch: SwitchDefinition, origin: Origin) -> None:
        """Record a switch."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO switches (switch, mtu_bytes, ageing_seconds, mac_limit, request_id, content) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (switch.switch, switch.mtu_bytes, switch.ageing_seconds, switch.mac_limit, *_columns(origin)),
            )

    def remove_switch(self, switch: str) -> None:
        """Forget a switch with everything in it."""
        with self.transaction():
            self._db.execute("DELETE FROM ports WHERE switch = ?", (switch,))
            self._db.execute("DELETE FROM switches WHERE switch = ?", (switch,))

    def add_port_group(self, group: PortGroupDefinition, origin: Origin) -> None:
        """Record a port group."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO port_groups (switch, port_group, vlan, request_id, content) VALUES (?, ?, ?, ?, ?)",
                (group.switch, group.port_group, group.vlan, *_columns(origin)),
            )

    def remove_port_group(self, group: PortGroupDefinition) -> None:
        """Forget a port group."""
        with self.transaction():
            self._db.execute(
                "DELETE FROM port_groups WHERE switch = ? AND port_group = ?", (group.switch, group.port_group)
            )

    def claim_slot(self) -> tuple[int, int]:
        """Return the lowest free slot and its next generation, both from 1."""
        with self.transaction():
            row = self._db.execute(
                "SELECT slot, generation + 1 FROM slots WHERE slot NOT IN (SELECT slot FROM ports) "
                "ORDER BY slot LIMIT 1"
            ).fetchone()
            if row is None:
                row = (self._db.execute("SELECT COALESCE(MAX(slot), 0) + 1 FROM slots").fetchone()[0], 1)
        return int(row[0]), int(row[1])

    def add_port(self, port: PortDefinition, origin: Origin) -> None:
        """Record a port and take its slot."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO slots (slot, generation) VALUES (?, ?) "
                "ON CONFLICT (slot) DO UPDATE SET generation = excluded.generation",
                (port.slot, port.generation),
            )
            self._db.execute(
                "INSERT INTO ports (switch, port, port_group, link_up, owner, slot, request_id, content) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(port.switch, port.port, port.port_group or None, port.link_up, port.owner, port.slot),
                    *_columns(origin),
                ),
            )

    def update_port(self, port: PortDefinition) -> None:
        """Record a port's new group and link."""
        with self.transaction():
            self._db.execute(
                "UPDATE ports SET port_group = ?, link_up = ? WHERE switch = ? AND port = ?",
                (port.port_group or None, port.link_up, port.switch, port.port),
            )

    def remove_port(self, port: PortDefinition) -> None:
        """Forget a port and the static entries that name it; its slot becomes free."""
        with self.transaction():
            self._db.execute("DELETE FROM ports WHERE switch = ? AND port = ?", (port.switch, port.port))

    def put_static_entry(self, entry: StaticEntry) -> None:
        """Record a static entry."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO static_entries (switch, vlan, mac, port) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (switch, vlan, mac) DO UPDATE SET port = excluded.port",
                (entry.switch, entry.vlan, entry.mac, entry.port),
            )

    def remove_static_entry(self, switch: str, vlan: int, mac: bytes) -> None:
        """Forget a static entry if there is one."""
        with self.transaction():
            self._db.execute(
                "DELETE FROM static_entries WHERE switch = ? AND vlan = ? AND mac = ?", (switch, vlan, mac)
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block, which may use the connection that it is given, as one transaction. Not to be nested.

        Raises Unavailable `STORE_UNAVAILABLE` and DataLoss `STORE_CORRUPT`. Stores of further tables stand on it.
        """
        with _errors(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn the database's errors into ours; a broken constraint is a defect of the caller and stays what it is."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        raise _unavailable(path, error) from error
    except sqlite3.DatabaseError as error:
        raise DataLoss(
            f"The database {path} is broken: {error}.",
            reason="STORE_CORRUPT",
            next_step="Restore it from a copy, or move it away to start without switches.",
            path=path,
        ) from error


def _unavailable(path: Path, error: Exception | str) -> Unavailable:
    return Unavailable(
        f"The database {path} cannot be used: {error}.",
        reason="STORE_UNAVAILABLE",
        next_step="Check that its folder exists, is writable and has room.",
        path=path,
    )


def _port(row: tuple[Any, ...]) -> tuple[PortDefinition, Origin]:
    switch, port, group, link_up, owner, slot, generation, request_id, content = row
    definition = PortDefinition(switch, port, group or "", bool(link_up), owner, slot, generation)
    return definition, Origin(request_id, content)


def _columns(origin: Origin) -> tuple[str, str]:
    return origin.request_id, origin.content
