"""Uplinks and teaming policies in the layer's database: in tables of their own, in the transactions of the definitions.

An uplink goes with its port, a policy with its port group; the database sees to both.
"""

from __future__ import annotations

import json
from typing import Any

from lamina_kit.errors import DataLoss
from lamina_vswitch.domain.definitions.switches import Origin
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.uplink.definition import TeamingPolicy, UplinkDefinition
from lamina_vswitch.domain.uplink.teaming import Balancing
from lamina_vswitch.io.store.definitions import SqliteStore

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS uplinks (
    switch TEXT NOT NULL, uplink TEXT NOT NULL, trunk TEXT NOT NULL, nic TEXT NOT NULL,
    request_id TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (switch, uplink),
    FOREIGN KEY (switch, uplink) REFERENCES ports (switch, port) ON DELETE CASCADE)""",
    """CREATE TABLE IF NOT EXISTS teaming_policies (
    switch TEXT NOT NULL, port_group TEXT NOT NULL, policy TEXT NOT NULL, PRIMARY KEY (switch, port_group),
    FOREIGN KEY (switch, port_group) REFERENCES port_groups (switch, port_group) ON DELETE CASCADE)""",
)


class UplinkStore:
    """Keeps uplinks through `kill -9`. Every method is one transaction; errors as of the store that it stands on."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def open(self) -> None:
        """Make the tables where they are missing."""
        with self._store.transaction() as db:
            for statement in _SCHEMA:
                db.execute(statement)

    def load(self) -> tuple[list[tuple[UplinkDefinition, Origin]], dict[tuple[str, str], TeamingPolicy]]:
        """Return uplinks and policies. Raises DataLoss `STORE_CORRUPT` for a row that is neither."""
        with self._store.transaction() as db:
            uplinks = db.execute(
                "SELECT switch, uplink, trunk, nic, request_id, content FROM uplinks ORDER BY 1, 2"
            ).fetchall()
            policies = db.execute("SELECT switch, port_group, policy FROM teaming_policies ORDER BY 1, 2").fetchall()
        found = [
            (UplinkDefinition(switch, uplink, _trunk(trunk), nic), Origin(*origin))
            for switch, uplink, trunk, nic, *origin in uplinks
        ]
        return found, {(switch, group): _policy(text) for switch, group, text in policies}

    def add(self, uplink: UplinkDefinition, origin: Origin) -> None:
        """Record an uplink, whose port is recorded."""
        row = (uplink.switch, uplink.uplink, _trunk_text(uplink.trunk), uplink.nic, origin.request_id, origin.content)
        with self._store.transaction() as db:
            db.execute("INSERT INTO uplinks VALUES (?, ?, ?, ?, ?, ?)", row)

    def update(self, uplink: UplinkDefinition) -> None:
        """Record the VLANs of an uplink."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE uplinks SET trunk = ? WHERE switch = ? AND uplink = ?",
                (_trunk_text(uplink.trunk), uplink.switch, uplink.uplink),
            )

    def save_policy(self, switch: str, port_group: str, policy: TeamingPolicy) -> None:
        """Record how a port group shares uplinks."""
        parts = [int(policy.balancing), policy.active, policy.standby, policy.no_failback, policy.announce]
        with self._store.transaction() as db:
            db.execute("DELETE FROM teaming_policies WHERE switch = ? AND port_group = ?", (switch, port_group))
            if policy != TeamingPolicy():
                row = (switch, port_group, json.dumps(parts))
                db.execute("INSERT INTO teaming_policies VALUES (?, ?, ?)", row)


def _trunk_text(trunk: Trunk) -> str:
    return json.dumps([trunk.ranges, trunk.native, trunk.provider_tags])


def _trunk(text: str) -> Trunk:
    try:
        ranges, native, provider_tags = json.loads(text)
        return Trunk(tuple((int(first), int(last)) for first, last in ranges), int(native), bool(provider_tags))
    except (TypeError, ValueError) as error:
        raise _corrupt(text) from error


def _policy(text: str) -> TeamingPolicy:
    try:
        parts: list[Any] = json.loads(text)
        balancing, active, standby, no_failback, announce = parts
        return TeamingPolicy(Balancing(balancing), tuple(active), tuple(standby), bool(no_failback), bool(announce))
    except (TypeError, ValueError) as error:
        raise _corrupt(text) from error


def _corrupt(text: str) -> DataLoss:
    return DataLoss(
        f"The database holds {text[:80]!r} where an uplink or a teaming policy should be.",
        reason="STORE_CORRUPT",
        next_step="Restore it from a copy, or move it away to start without switches.",
    )
