"""Networks with their leases, reservations and names, in the database of the definitions.

A network goes with its switch, and everything of a network with it. When a port goes, its allocated leases go and those
of DHCP belong to no port any more, in the same transaction. The end of a lease is kept as wall time: the stack's own
time starts at 0 when the stack does, and a promise to a device does not end with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from lamina_net.packets.address import Subnet
from lamina_vswitch.domain.definitions.switches import Origin
from lamina_vswitch.domain.network.definition import (
    DhcpSettings,
    DnsSettings,
    Mode,
    NatSettings,
    NetworkDefinition,
    Outside,
    Reservation,
    RouteDefinition,
)
from lamina_vswitch.domain.network.dhcp.lease import FOREVER, Lease, LeaseOrigin
from lamina_vswitch.domain.network.dns.message import Type
from lamina_vswitch.domain.network.dns.zone import Change, RecordSet
from lamina_vswitch.io.store.definitions import SqliteStore

_OF_SWITCH = "(SELECT network FROM networks WHERE switch = OLD.switch)"
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS networks (
    sequence INTEGER PRIMARY KEY, network TEXT UNIQUE NOT NULL,
    switch TEXT NOT NULL REFERENCES switches (switch) ON DELETE CASCADE, vlan INTEGER NOT NULL,
    settings TEXT NOT NULL, request_id TEXT NOT NULL, content TEXT NOT NULL, UNIQUE (switch, vlan))""",
    """CREATE TABLE IF NOT EXISTS leases (
    network TEXT NOT NULL REFERENCES networks (network) ON DELETE CASCADE, address INTEGER NOT NULL,
    mac BLOB NOT NULL, port TEXT NOT NULL, host_name TEXT NOT NULL, origin INTEGER NOT NULL,
    end_wall_ns INTEGER NOT NULL, PRIMARY KEY (network, address))""",
    """CREATE TABLE IF NOT EXISTS reservations (
    network TEXT NOT NULL REFERENCES networks (network) ON DELETE CASCADE, mac BLOB NOT NULL,
    address INTEGER NOT NULL, host_name TEXT NOT NULL, PRIMARY KEY (network, mac), UNIQUE (network, address))""",
    """CREATE TABLE IF NOT EXISTS dns_records (
    network TEXT NOT NULL REFERENCES networks (network) ON DELETE CASCADE, name TEXT NOT NULL, type INTEGER NOT NULL,
    answers TEXT NOT NULL, ttl INTEGER NOT NULL, source TEXT NOT NULL, PRIMARY KEY (network, name, type))""",
    """CREATE TABLE IF NOT EXISTS dns_revisions (
    network TEXT NOT NULL REFERENCES networks (network) ON DELETE CASCADE, source TEXT NOT NULL,
    revision INTEGER NOT NULL, PRIMARY KEY (network, source))""",
    f"""CREATE TRIGGER IF NOT EXISTS leases_of_a_gone_port AFTER DELETE ON ports BEGIN
    DELETE FROM leases WHERE port = OLD.port AND origin = {LeaseOrigin.ALLOCATED:d} AND network IN {_OF_SWITCH};
    UPDATE leases SET port = '' WHERE port = OLD.port AND network IN {_OF_SWITCH}; END""",
)


@dataclass(slots=True)
class RecordedNetwork:
    """Everything that the database holds of one network."""

    definition: NetworkDefinition
    origin: Origin
    leases: list[Lease] = field(default_factory=list)
    reservations: list[Reservation] = field(default_factory=list)
    records: list[RecordSet] = field(default_factory=list)
    revisions: list[tuple[str, int]] = field(default_factory=list)


class NetworkStore:
    """The tables of networks. `wall_offset_ns` tells what has to be added to the stack's time to get wall time."""

    def __init__(self, store: SqliteStore, wall_offset_ns: Callable[[], int]) -> None:
        self._store = store
        self._wall_offset_ns = wall_offset_ns

    def prepare(self) -> None:
        """Make the tables that are missing. The store is open."""
        with self._store.transaction() as db:
            for statement in _SCHEMA:
                db.execute(statement)

    def load(self) -> list[RecordedNetwork]:
        """Return all networks, in the order in which they were made."""
        with self._store.transaction() as db:
            rows = db.execute(
                "SELECT network, switch, vlan, settings, request_id, content FROM networks ORDER BY sequence"
            ).fetchall()
            found = {row[0]: RecordedNetwork(_definition(*row[:4]), Origin(*row[4:])) for row in rows}
            offset = self._wall_offset_ns()
            for row in db.execute(
                "SELECT network, address, mac, port, host_name, origin, end_wall_ns FROM leases "
                "ORDER BY network, end_wall_ns, address"
            ):
                found[row[0]].leases.append(_lease(row[1:], offset))
            for row in db.execute(
                "SELECT network, mac, address, host_name FROM reservations ORDER BY network, address"
            ):
                found[row[0]].reservations.append(Reservation(*row[1:]))
            for row in db.execute(
                "SELECT network, name, type, answers, ttl, source FROM dns_records ORDER BY network, name, type"
            ):
                answers = tuple(json.loads(row[3]))
                found[row[0]].records.append(RecordSet(row[1], Type(row[2]), answers, row[4], row[5]))
            for row in db.execute("SELECT network, source, revision FROM dns_revisions ORDER BY network, source"):
                found[row[0]].revisions.append((row[1], row[2]))
        return list(found.values())

    def add(self, network: NetworkDefinition, origin: Origin) -> None:
        """Record a network."""
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO networks (network, switch, vlan, settings, request_id, content) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    *(network.network, network.switch, network.vlan, _settings(network)),
                    *(origin.request_id, origin.content),
                ),
            )

    def update(self, network: NetworkDefinition) -> None:
        """Record a network's new settings."""
        with self._store.transaction() as db:
            db.execute("UPDATE networks SET settings = ? WHERE network = ?", (_settings(network), network.network))

    def remove(self, network: str) -> None:
        """Forget a network with everything of it."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM networks WHERE network = ?", (network,))

    def add_reservation(self, network: str, reservation: Reservation) -> None:
        """Record a reservation."""
        with self._store.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO reservations (network, mac, address, host_name) VALUES (?, ?, ?, ?)",
                (network, reservation.mac, reservation.address, reservation.host_name),
            )

    def remove_reservation(self, network: str, mac: bytes) -> None:
        """Forget a reservation."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM reservations WHERE network = ? AND mac = ?", (network, mac))

    def change_records(self, network: str, source: str, change: Change) -> None:
        """Record a change of names, all of it or none."""
        with self._store.transaction() as db:
            db.executemany(
                "DELETE FROM dns_records WHERE network = ? AND name = ? AND type = ?",
                [(network, *key) for key in change.removed],
            )
            db.executemany(
                "INSERT OR REPLACE INTO dns_records (network, name, type, answers, ttl, source) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (network, each.name, int(each.type), json.dumps(each.answers), each.ttl, each.source)
                    for each in change.written
                ],
            )
            db.execute(
                "INSERT OR REPLACE INTO dns_revisions (network, source, revision) VALUES (?, ?, ?)",
                (network, source, change.revision),
            )

    def leases_of(self, network: str) -> StoredLeases:
        """Return what keeps the leases of one network."""
        return StoredLeases(self._store, network, self._wall_offset_ns)


class StoredLeases:
    """The leases of one network: a `LeaseKeeper`."""

    def __init__(self, store: SqliteStore, network: str, wall_offset_ns: Callable[[], int]) -> None:
        self._store = store
        self._network = network
        self._wall_offset_ns = wall_offset_ns

    def put(self, lease: Lease, instead_of: int | None = None) -> None:
        """Record a lease."""
        end = lease.end_ns + self._wall_offset_ns() if lease.end_ns != FOREVER else FOREVER
        with self._store.transaction() as db:
            if instead_of is not None:
                db.execute("DELETE FROM leases WHERE network = ? AND address = ?", (self._network, instead_of))
            db.execute(
                "INSERT OR REPLACE INTO leases (network, address, mac, port, host_name, origin, end_wall_ns) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(self._network, lease.address, lease.mac, lease.port, lease.host_name, int(lease.origin)),
                    end,
                ),
            )

    def remove(self, address: int) -> None:
        """Forget a lease."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM leases WHERE network = ? AND address = ?", (self._network, address))


def _lease(row: tuple[Any, ...], offset: int) -> Lease:
    address, mac, port, host_name, origin, end = row
    # a time that fell before this start is over; 0 would mean that it never ends
    end_ns = max(end - offset, 1) if end != FOREVER else FOREVER
    return Lease(address, mac, port, host_name, LeaseOrigin(origin), end_ns)


def _settings(network: NetworkDefinition) -> str:
    content = asdict(network)
    for key in ("network", "switch", "vlan"):
        del content[key]
    content["mac"] = network.mac.hex()
    return json.dumps(content)


def _definition(network: str, switch: str, vlan: int, settings: str) -> NetworkDefinition:
    content = json.loads(settings)
    dhcp, dns, nat = content["dhcp"], content["dns"], content["nat"]
    routes = [(Subnet(*each["destination"]), each["via"], each["network"]) for each in content["routes"]]
    return NetworkDefinition(
        network,
        Mode(content["mode"]),
        switch,
        vlan,
        Subnet(*content["subnet"]) if content["subnet"] else None,
        content["gateway"],
        content["host"],
        DhcpSettings(**(dhcp | {"dns": tuple(dhcp["dns"])})) if dhcp else None,
        _dns(dns) if dns else None,
        _nat(nat),
        tuple(RouteDefinition(*each) for each in routes),
        bytes.fromhex(content["mac"]),
        content["port"],
    )


def _dns(content: dict[str, Any]) -> DnsSettings:
    upstreams = tuple((address, port) for address, port in content["upstreams"])
    return DnsSettings(tuple(content["domains"]), upstreams, content["ttl_seconds"])


def _nat(content: dict[str, Any]) -> NatSettings:
    allowed = tuple(Subnet(*each) for each in content["allowed_destinations"])
    return NatSettings(**(content | {"outside": Outside(content["outside"]), "allowed_destinations": allowed}))
