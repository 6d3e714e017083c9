"""VM definitions that survive: one SQLite database, one row a VM.

A row is written before the caller is answered. What has power lives in the layers below and is lost with this service:
the state recorded here says what to report after a restart. The records belong to the newest start of the service: an
older one, which loses its machines only because of it, must not write that down as if they had ended by themselves.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from lamina_hypervisor.domain.vcpus.registers import Registers
from lamina_hypervisor.domain.vm import Definition, State, Verdict, Vm
from lamina_kit.errors import DataLoss, Unavailable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS slots (slot INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS vms (
    name TEXT PRIMARY KEY,
    slot INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    definition TEXT NOT NULL,
    create_time_ns INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    registers TEXT NOT NULL,
    start_time_ns INTEGER NOT NULL
);
"""
_COLUMNS = (
    "name, slot, generation, definition, create_time_ns, request_id, state, reason, detail, registers, start_time_ns"
)


class Store:
    """The database of one host's VMs. Not to be shared between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._guarded():
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._start = self._meta("start")

    def close(self) -> None:
        """Closes the database. Idempotent."""
        self._db.close()

    def next_epoch(self) -> int:
        """Counts this start of the service and returns the number, from 1."""
        epoch = self.epoch() + 1
        self.save_epoch(epoch)
        with self._guarded():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('start', ?)", (epoch,))
        self._start = epoch
        return epoch

    def epoch(self) -> int:
        """Returns the highest epoch that was used; 0 before the first start."""
        return self._meta("epoch")

    def save_epoch(self, epoch: int) -> None:
        """Records that an epoch is in use; a lower one than recorded changes nothing."""
        statement = "INSERT INTO meta VALUES ('epoch', ?) ON CONFLICT (key) DO UPDATE SET value = max(value, ?)"
        with self._guarded():
            self._db.execute(statement, (epoch, epoch))

    def save(self, vm: Vm) -> bool:
        """Writes a VM as it is; returns whether it did: not once a newer start of the service has begun."""
        registers = json.dumps(asdict(vm.verdict.registers)) if vm.verdict.registers else ""
        row = (
            vm.name, vm.slot, vm.generation, json.dumps(asdict(vm.definition)), vm.create_time_ns, vm.request_id,
            vm.state.value, vm.verdict.reason, vm.verdict.detail, registers, vm.start_time_ns,
        )  # fmt: skip
        with self._guarded(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if self._meta("start") != self._start:
                return False
            self._db.execute(f"INSERT OR REPLACE INTO vms ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)
            self._db.execute("INSERT OR REPLACE INTO slots VALUES (?, ?)", (vm.slot, vm.generation))
            return True

    def delete(self, vm: Vm) -> bool:
        """Forgets a VM; its slot's generation stays. Returns as `save` does."""
        with self._guarded(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if self._meta("start") != self._start:
                return False
            self._db.execute("DELETE FROM vms WHERE name = ?", (vm.name,))
            return True

    def generations(self) -> list[tuple[int, int]]:
        """Returns (slot, latest generation) of every slot that was ever used."""
        rows = self._db.execute("SELECT slot, generation FROM slots ORDER BY slot").fetchall()
        return [(int(slot), int(generation)) for slot, generation in rows]

    def load(self) -> list[Vm]:
        """Returns all VMs by name. A row that cannot be read is `DataLoss` `VM_RECORD_CORRUPT`."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM vms ORDER BY name").fetchall()
        return [self._vm(row) for row in rows]

    def _meta(self, key: str) -> int:
        """Returns a number that is kept under a key; 0 when there is none."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row else 0

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns what SQLite raises into the errors of this layer."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Unavailable(
                f"The database {self._path.name} of the VMs cannot be used: {error}.",
                reason="STORE_UNAVAILABLE",
                next_step="Make its folder writable and make room, then try again.",
            ) from error
        except sqlite3.DatabaseError as error:
            raise DataLoss(
                f"The database {self._path.name} of the VMs is broken: {error}.",
                reason="STORE_CORRUPT",
                next_step="Restore it from a copy, or remove it and define the VMs again.",
            ) from error

    def _vm(self, row: tuple[str, int, int, str, int, str, str, str, str, str, int]) -> Vm:
        name, slot, generation, definition, created, request_id, state, reason, detail, registers, started = row
        try:
            verdict = Verdict(reason, detail, state == State.CRASHED.value, _registers(registers))
            return Vm(
                name, slot, generation, _definition(definition), created, request_id, State(state), verdict, started
            )
        except (ValueError, TypeError, KeyError) as error:
            raise DataLoss(
                f"The record of {name} in {self._path.name} cannot be read: {error}.",
                reason="VM_RECORD_CORRUPT",
                next_step="Restore the database from a copy, or remove it and define the VMs again.",
            ) from error


def _definition(text: str) -> Definition:
    fields = json.loads(text)
    fields["serial_ports"] = tuple(fields["serial_ports"])
    return Definition(**fields)


def _registers(text: str) -> Registers | None:
    if not text:
        return None
    fields = json.loads(text)
    fields["general"] = tuple(fields["general"])
    return Registers(**fields)
