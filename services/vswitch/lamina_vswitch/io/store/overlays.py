"""Overlays and the remote ends that they were told of, in the layer's database: in tables of their own.

An overlay goes with its switch and with the switch of its uplink, and its remote ends with it; the database sees to it.
"""

from __future__ import annotations

import json

from lamina_kit.errors import DataLoss
from lamina_net.packets.address import Subnet
from lamina_vswitch.domain.definitions.switches import Origin
from lamina_vswitch.domain.overlay.definition import OverlayDefinition, RemoteDefinition
from lamina_vswitch.domain.overlay.end import Learning, Way
from lamina_vswitch.io.store.definitions import SqliteStore

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS overlays (
    switch TEXT NOT NULL REFERENCES switches (switch) ON DELETE CASCADE, overlay TEXT NOT NULL,
    uplink_switch TEXT NOT NULL REFERENCES switches (switch) ON DELETE CASCADE, settings TEXT NOT NULL,
    mac BLOB NOT NULL, request_id TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (switch, overlay))""",
    """CREATE TABLE IF NOT EXISTS remote_endpoints (
    switch TEXT NOT NULL, overlay TEXT NOT NULL, address INTEGER NOT NULL, macs BLOB NOT NULL,
    PRIMARY KEY (switch, overlay, address),
    FOREIGN KEY (switch, overlay) REFERENCES overlays (switch, overlay) ON DELETE CASCADE)""",
)
_MAC_BYTES = 6

Recorded = tuple[OverlayDefinition, Origin, list[RemoteDefinition]]


class OverlayStore:
    """Keeps overlays through `kill -9`. Every method is one transaction; errors as of the store that it stands on."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def open(self) -> None:
        """Make the tables where they are missing."""
        with self._store.transaction() as db:
            for statement in _SCHEMA:
                db.execute(statement)

    def load(self) -> list[Recorded]:
        """Return the overlays with their remote ends. Raises DataLoss `STORE_CORRUPT` for a row that is none."""
        with self._store.transaction() as db:
            overlays = db.execute("SELECT * FROM overlays ORDER BY switch, overlay").fetchall()
            remotes = db.execute("SELECT * FROM remote_endpoints ORDER BY switch, overlay, address").fetchall()
        told: dict[tuple[str, str], list[RemoteDefinition]] = {}
        for switch, overlay, address, macs in remotes:
            cut = tuple(macs[place : place + _MAC_BYTES] for place in range(0, len(macs), _MAC_BYTES))
            told.setdefault((switch, overlay), []).append(RemoteDefinition(address, cut))
        return [(_definition(*row[:5]), Origin(*row[5:]), told.get((row[0], row[1]), [])) for row in overlays]

    def add(self, overlay: OverlayDefinition, origin: Origin) -> None:
        """Record an overlay."""
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO overlays VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(overlay.switch, overlay.overlay, overlay.uplink[0], _text(overlay), overlay.mac),
                    *(origin.request_id, origin.content),
                ),
            )

    def update(self, overlay: OverlayDefinition) -> None:
        """Record what changed of an overlay."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE overlays SET settings = ? WHERE switch = ? AND overlay = ?",
                (_text(overlay), overlay.switch, overlay.overlay),
            )

    def remove(self, overlay: OverlayDefinition) -> None:
        """Forget an overlay with its remote ends."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM overlays WHERE switch = ? AND overlay = ?", (overlay.switch, overlay.overlay))

    def set_remotes(self, overlay: OverlayDefinition, remotes: list[RemoteDefinition]) -> None:
        """Record remote ends, each in place of what was told of it before."""
        with self._store.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO remote_endpoints VALUES (?, ?, ?, ?)",
                [(overlay.switch, overlay.overlay, each.address, b"".join(each.macs)) for each in remotes],
            )

    def remove_remote(self, overlay: OverlayDefinition, address: int) -> None:
        """Forget a remote end."""
        with self._store.transaction() as db:
            db.execute(
                "DELETE FROM remote_endpoints WHERE switch = ? AND overlay = ? AND address = ?",
                (overlay.switch, overlay.overlay, address),
            )


def _text(overlay: OverlayDefinition) -> str:
    way, learning = overlay.way, overlay.learning
    parts = (
        overlay.vni,
        overlay.vlan,
        overlay.uplink[1],
        overlay.address,
        way.subnet.length,
        way.gateway,
        way.udp_port,
    )
    return json.dumps([*parts, learning.nothing, learning.accept_unknown])


def _definition(switch: str, overlay: str, uplink_switch: str, text: str, mac: bytes) -> OverlayDefinition:
    try:
        vni, vlan, uplink, address, length, gateway, udp_port, nothing, accept_unknown = json.loads(text)
        way = Way(Subnet(address & (0xFFFFFFFF << (32 - length)), length), gateway, udp_port)
        learning = Learning(bool(nothing), bool(accept_unknown))
        return OverlayDefinition(switch, overlay, vni, vlan, (uplink_switch, uplink), address, way, learning, mac)
    except (TypeError, ValueError) as error:
        raise DataLoss(
            f"The database holds {text[:80]!r} where an overlay should be.",
            reason="STORE_CORRUPT",
            next_step="Restore it from a copy, or move it away to start without switches.",
        ) from error
