"""Policies in the database of the definitions: one row for each switch, group or port whose policy is not the default.

A policy is stored as canonical JSON of its parts. Rows go with the thing that they belong to.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from lamina_kit.errors import DataLoss
from lamina_vswitch.domain.definitions.switches import PortGroupDefinition, SwitchDefinition
from lamina_vswitch.domain.policy.settings import (
    GroupPolicy,
    LoopDetection,
    PortPolicy,
    Security,
    Shaping,
    StormControl,
)
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.io.store.definitions import SqliteStore

T = TypeVar("T")

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS switch_loop_detection (
    switch TEXT PRIMARY KEY REFERENCES switches (switch) ON DELETE CASCADE, detection TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS port_group_policies (
    switch TEXT NOT NULL, port_group TEXT NOT NULL, policy TEXT NOT NULL, PRIMARY KEY (switch, port_group),
    FOREIGN KEY (switch, port_group) REFERENCES port_groups (switch, port_group) ON DELETE CASCADE)""",
    """CREATE TABLE IF NOT EXISTS port_policies (
    switch TEXT NOT NULL, port TEXT NOT NULL, policy TEXT NOT NULL, PRIMARY KEY (switch, port),
    FOREIGN KEY (switch, port) REFERENCES ports (switch, port) ON DELETE CASCADE)""",
)


@dataclass(frozen=True, slots=True)
class RecordedPolicies:
    """What the store holds, by the ids of switch, group and port."""

    loops: dict[str, LoopDetection]
    groups: dict[tuple[str, str], GroupPolicy]
    ports: dict[tuple[str, str], PortPolicy]


class PolicyStore:
    """Policies beside the definitions, on the same connection. Every method is one transaction."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def open(self) -> None:
        """Make the tables if they are not there."""
        with self._store.transaction() as db:
            for statement in _SCHEMA:
                db.execute(statement)

    def load(self) -> RecordedPolicies:
        """Return everything. Raises DataLoss `STORE_CORRUPT` for a row that is no policy."""
        with self._store.transaction() as db:
            loops = db.execute("SELECT switch, detection FROM switch_loop_detection ORDER BY switch").fetchall()
            groups = db.execute("SELECT switch, port_group, policy FROM port_group_policies ORDER BY 1, 2").fetchall()
            ports = db.execute("SELECT switch, port, policy FROM port_policies ORDER BY 1, 2").fetchall()
        return RecordedPolicies(
            {switch: _made(LoopDetection, text) for switch, text in loops},
            {(switch, group): _group_policy(text) for switch, group, text in groups},
            {(switch, port): _port_policy(text) for switch, port, text in ports},
        )

    def save_switch(self, switch: SwitchDefinition, loop: LoopDetection | None) -> None:
        """Record the settings of a switch."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE switches SET mtu_bytes = ?, ageing_seconds = ?, mac_limit = ? WHERE switch = ?",
                (switch.mtu_bytes, switch.ageing_seconds, switch.mac_limit, switch.switch),
            )
            db.execute("DELETE FROM switch_loop_detection WHERE switch = ?", (switch.switch,))
            if loop is not None:
                db.execute("INSERT INTO switch_loop_detection VALUES (?, ?)", (switch.switch, _text(loop)))

    def save_group(self, switch: str, port_group: str, policy: GroupPolicy) -> None:
        """Record the policy of a group."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM port_group_policies WHERE switch = ? AND port_group = ?", (switch, port_group))
            if policy != GroupPolicy():
                row = (switch, port_group, _text(policy))
                db.execute("INSERT INTO port_group_policies VALUES (?, ?, ?)", row)

    def save_port(self, switch: str, port: str, policy: PortPolicy) -> None:
        """Record a port's own policy."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM port_policies WHERE switch = ? AND port = ?", (switch, port))
            if policy != PortPolicy():
                db.execute("INSERT INTO port_policies VALUES (?, ?, ?)", (switch, port, _text(policy)))

    def move_group(self, group: PortGroupDefinition, moved: list[tuple[int, bytes]]) -> None:
        """Record a group's new VLAN; static entries `moved`, as (old VLAN, address), come into it."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE port_groups SET vlan = ? WHERE switch = ? AND port_group = ?",
                (group.vlan, group.switch, group.port_group),
            )
            db.executemany(
                "UPDATE static_entries SET vlan = ? WHERE switch = ? AND vlan = ? AND mac = ?",
                [(group.vlan, group.switch, vlan, mac) for vlan, mac in moved],
            )


def _text(policy: LoopDetection | GroupPolicy | PortPolicy) -> str:
    return json.dumps(asdict(policy), sort_keys=True, default=lambda value: value.hex())


def _fields(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _corrupt(text) from error
    if not isinstance(found, dict):
        raise _corrupt(text)
    return found


def _made(kind: type[T], text: str) -> T:
    return _part(kind, _fields(text), text)


def _part(kind: type[T], fields: Any, text: str) -> T:
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise _corrupt(text) from error


def _shared(fields: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the parts that groups and ports both have."""
    kinds = {
        "security": Security,
        "storm_control": StormControl,
        "ingress_shaping": Shaping,
        "egress_shaping": Shaping,
    }
    return {name: _part(kind, fields[name], text) for name, kind in kinds.items() if fields.get(name) is not None}


def _group_policy(text: str) -> GroupPolicy:
    fields = _fields(text)
    trunk = fields.get("trunk")
    if trunk is not None:
        trunk = _part(Trunk, trunk, text)
        trunk = Trunk(tuple((first, last) for first, last in trunk.ranges), trunk.native, trunk.provider_tags)
    return GroupPolicy(trunk, isolated=bool(fields.get("isolated")), **_shared(fields, text))


def _port_policy(text: str) -> PortPolicy:
    fields = _fields(text)
    try:
        mac = bytes.fromhex(fields.get("mac", ""))
    except (TypeError, ValueError) as error:
        raise _corrupt(text) from error
    return PortPolicy(mac, **_shared(fields, text))


def _corrupt(text: str) -> DataLoss:
    return DataLoss(
        f"The database holds {text[:80]!r} where a policy should be.",
        reason="STORE_CORRUPT",
        next_step="Restore it from a copy, or move it away to start without switches.",
    )
