"""Forwarded ports and virtual servers in the database of the definitions. They go with their network.

Translations themselves are not here: flows do not outlive the sockets that carry them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from lamina_vswitch.domain.definitions.switches import Origin
from lamina_vswitch.domain.nat.flows.forwards import ForwardDefinition
from lamina_vswitch.domain.nat.servers.book import ServerDelta
from lamina_vswitch.domain.nat.servers.definition import Backend, ServerDefinition
from lamina_vswitch.io.store.definitions import SqliteStore

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS port_forwards (
    network TEXT NOT NULL REFERENCES networks (network) ON DELETE CASCADE, port_forward TEXT NOT NULL,
    protocol INTEGER NOT NULL, outside_address INTEGER NOT NULL, outside_port INTEGER NOT NULL,
    inside_address INTEGER NOT NULL, inside_port INTEGER NOT NULL, allow_remote INTEGER NOT NULL,
    request_id TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (network, port_forward))""",
    """CREATE TABLE IF NOT EXISTS virtual_servers (
    network TEXT NOT NULL REFERENCES networks (network) ON DELETE CASCADE, address INTEGER NOT NULL,
    protocol INTEGER NOT NULL, port INTEGER NOT NULL, backends TEXT NOT NULL, affinity_seconds INTEGER NOT NULL,
    description TEXT NOT NULL, source TEXT NOT NULL, PRIMARY KEY (network, address, protocol, port))""",
    """CREATE TABLE IF NOT EXISTS virtual_server_revisions (
    network TEXT NOT NULL REFERENCES networks (network) ON DELETE CASCADE, source TEXT NOT NULL,
    revision INTEGER NOT NULL, PRIMARY KEY (network, source))""",
)


@dataclass(slots=True)
class RecordedTranslations:
    """What the database holds of one network."""

    forwards: list[tuple[ForwardDefinition, Origin]] = field(default_factory=list)
    servers: list[ServerDefinition] = field(default_factory=list)
    revisions: dict[str, int] = field(default_factory=dict)


class TranslationStore:
    """The tables of translations, beside those of networks."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def prepare(self) -> None:
        """Make the tables that are missing. The tables of networks are there."""
        with self._store.transaction() as db:
            for statement in _SCHEMA:
                db.execute(statement)

    def load(self) -> dict[str, RecordedTranslations]:
        """Return what is recorded, by network."""
        found: dict[str, RecordedTranslations] = {}
        with self._store.transaction() as db:
            for network, port_forward, protocol, outside, oport, inside, iport, remote, *origin in db.execute(
                "SELECT network, port_forward, protocol, outside_address, outside_port, inside_address, inside_port, "
                "allow_remote, request_id, content FROM port_forwards ORDER BY network, port_forward"
            ):
                forward = ForwardDefinition(
                    network, port_forward, protocol, (outside, oport), (inside, iport), bool(remote)
                )
                found.setdefault(network, RecordedTranslations()).forwards.append((forward, Origin(*origin)))
            for network, address, protocol, port, backends, *rest in db.execute(
                "SELECT network, address, protocol, port, backends, affinity_seconds, description, source "
                "FROM virtual_servers ORDER BY network, address, protocol, port"
            ):
                made = tuple(Backend(*each) for each in json.loads(backends))
                server = ServerDefinition(address, protocol, port, made, *rest)
                found.setdefault(network, RecordedTranslations()).servers.append(server)
            for network, source, revision in db.execute(
                "SELECT network, source, revision FROM virtual_server_revisions ORDER BY network, source"
            ):
                found.setdefault(network, RecordedTranslations()).revisions[source] = revision
        return found

    def add_forward(self, forward: ForwardDefinition, origin: Origin) -> None:
        """Record a forwarded port."""
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO port_forwards (network, port_forward, protocol, outside_address, outside_port, "
                "inside_address, inside_port, allow_remote, request_id, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(forward.network, forward.port_forward, forward.protocol, *forward.outside, *forward.inside),
                    *(forward.allow_remote, origin.request_id, origin.content),
                ),
            )

    def remove_forward(self, network: str, port_forward: str) -> None:
        """Forget a forwarded port."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM port_forwards WHERE network = ? AND port_forward = ?", (network, port_forward))

    def change_servers(self, network: str, delta: ServerDelta) -> None:
        """Record a change of virtual servers, all of it or none."""
        with self._store.transaction() as db:
            db.executemany(
                "DELETE FROM virtual_servers WHERE network = ? AND address = ? AND protocol = ? AND port = ?",
                [(network, *key) for key in delta.removed],
            )
            db.executemany(
                "INSERT OR REPLACE INTO virtual_servers (network, address, protocol, port, backends, affinity_seconds, "
                "description, source) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(network, *each.key, _backends(each), *_rest(each)) for each in delta.wanted],
            )
            db.execute(
                "INSERT OR REPLACE INTO virtual_server_revisions (network, source, revision) VALUES (?, ?, ?)",
                (network, delta.source, delta.revision),
            )


def _backends(server: ServerDefinition) -> str:
    return json.dumps([(each.address, each.port, each.weight) for each in server.backends])


def _rest(server: ServerDefinition) -> tuple[int, str, str]:
    return server.affinity_seconds, server.description, server.source
