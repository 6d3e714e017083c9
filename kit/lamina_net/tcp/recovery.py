"""What to do about loss: fast recovery, and recovery after a timeout.

    OPEN ── a record is lost ──> FAST ── everything up to `point` acknowledged ──> OPEN
      └──── timeout ──> LOSS <── timeout ──┘   └── everything up to `point` acknowledged ──> OPEN

FAST: the window is cut once; lost records go out as the pipe allows (RFC 6675, 5); without SACK each partial
acknowledgment says that the next record is lost too (RFC 6582, 3.2). LOSS: all is lost, slow start (RFC 5681, 3.1).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamina_net.tcp.connection import Connection

DUPLICATES = 3
"""Duplicate ACKs after which a segment is taken for lost. Source: RFC 5681, 3.2."""


class Phase(enum.IntEnum):
    """What a sender is busy with."""

    OPEN = 0
    FAST = 1
    LOSS = 2


class Recovery:
    """The phase of a sender, and when it ends."""

    __slots__ = ("at_once", "duplicates", "phase", "point", "stalled")

    def __init__(self) -> None:
        self.phase = Phase.OPEN
        self.point = 0
        """The number that ends the phase; afterwards, the last one that did (RFC 6582's `recover`)."""
        self.duplicates = 0
        self.at_once = False
        """The next lost record goes whatever the window says (RFC 6675, 5, step 4.3; RFC 6582, 3.2, step 2)."""
        self.stalled = False
        """A timeout passed and nothing was acknowledged since: another one leaves the threshold (RFC 5681, 3.1)."""


def on_acknowledgment(conn: Connection, acked: int, duplicate: bool, now_ns: int) -> None:
    """Follow an acceptable ACK: `acked` new numbers, or a `duplicate`. SACK blocks are in the flight already."""
    recovery = conn.recovery
    if acked:
        recovery.duplicates = 0
        recovery.stalled = False
        _progress(conn, acked, now_ns)
    elif duplicate and not conn.selective_ack:
        _count_duplicate(conn)
    found = conn.flight.find_lost(conn.round_trip.smoothed >> 2) if conn.selective_ack else _reno_lost(conn)
    if found and recovery.phase is Phase.OPEN:
        _enter_fast(conn, now_ns)


def _progress(conn: Connection, acked: int, now_ns: int) -> None:
    recovery, flight = conn.recovery, conn.flight
    flight.credit = max(0, flight.credit - max(0, acked - conn.congestion.mss)) if flight.queue else 0
    if recovery.phase is Phase.OPEN:
        flight.credit = 0
        if conn.is_limited:
            conn.congestion.acknowledged(acked, now_ns, conn.round_trip.smoothed, careful=False)
    elif conn.una >= recovery.point:
        if recovery.phase is Phase.FAST:
            conn.congestion.window = conn.congestion.threshold
        recovery.phase = Phase.OPEN
        flight.credit = 0
    elif recovery.phase is Phase.LOSS:
        conn.congestion.acknowledged(acked, now_ns, conn.round_trip.smoothed, careful=True)
    elif not conn.selective_ack and flight.queue and flight.queue[0].counted:
        flight.lose(flight.queue[0])
        recovery.at_once = True


def _count_duplicate(conn: Connection) -> None:
    """Take a duplicate ACK for the news that one more segment has arrived."""
    conn.recovery.duplicates += 1
    flight = conn.flight
    flight.credit = min(flight.credit + conn.congestion.mss, max(0, flight.pipe - conn.congestion.mss))


def _reno_lost(conn: Connection) -> bool:
    """Without SACK: take the first record for lost at the third duplicate, once for each window of data."""
    recovery, flight = conn.recovery, conn.flight
    if recovery.duplicates < DUPLICATES or recovery.phase is not Phase.OPEN or not flight.queue:
        return False
    if conn.una <= recovery.point or not flight.queue[0].counted:
        return False
    flight.lose(flight.queue[0])
    return True


def _enter_fast(conn: Connection, now_ns: int) -> None:
    recovery = conn.recovery
    recovery.phase = Phase.FAST
    recovery.point = conn.nxt
    recovery.at_once = True
    conn.congestion.lost(min(conn.nxt - conn.una, conn.congestion.window), now_ns)


def on_timeout(conn: Connection, now_ns: int) -> None:
    """Take everything for lost that did not arrive, and begin anew with one segment."""
    recovery = conn.recovery
    conn.congestion.timed_out(min(conn.nxt - conn.una, conn.congestion.window), now_ns, recovery.stalled)
    recovery.phase = Phase.LOSS
    recovery.point = conn.nxt
    recovery.duplicates = 0
    recovery.stalled = True
    conn.flight.lose_all()
