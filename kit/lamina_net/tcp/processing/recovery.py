"""What to do about loss: fast recovery, and recovery after a timeout.

The phases are those of `connection/loss.py`. FAST: the window is cut once; lost records go out as the pipe allows (RFC
6675, 5); without SACK each partial acknowledgment says that the next record is lost too (RFC 6582, 3.2). LOSS: all is
lost, slow start (RFC 5681, 3.1).

A timeout is doubted at first (F-RTO, RFC 5682, 2.1): only the first record goes again; an acknowledgment of part of the
rest lets two new segments go; one more says that what was never sent again arrives, so nothing was lost, and all is as
before. An acknowledgment that brings nothing, or of all at once, ends the doubt, and so does having no news to send.
"""

from __future__ import annotations

from lamina_net.tcp.connection.control_block import Connection
from lamina_net.tcp.connection.loss import Doubt, Phase
from lamina_net.tcp.connection.reordering import DUPLICATES
from lamina_net.tcp.processing import ecn
from lamina_net.tcp.states import State


def on_acknowledgment(conn: Connection, acked: int, duplicate: bool, news: bool, now_ns: int) -> None:
    """Follow an acceptable ACK: `acked` new numbers, or a `duplicate`. `news`: SACK, in the flight already, has."""
    recovery = conn.recovery
    if recovery.doubt:
        _decide(conn, acked, duplicate or news)
    if acked:
        recovery.duplicates = 0
        recovery.stalled = False
        _progress(conn, acked, now_ns)
    elif duplicate and not conn.selective_ack:
        _count_duplicate(conn)
    find_lost(conn, now_ns)


def find_lost(conn: Connection, now_ns: int) -> None:
    """Look for what is lost, and begin to recover."""
    if not conn.selective_ack:
        found = _reno_lost(conn)
    else:
        flight, times = conn.flight, conn.round_trip
        before = flight.overtaken_at
        is_sure = conn.recovery.phase is not Phase.OPEN or flight.sacked_records >= DUPLICATES
        found = flight.find_lost(flight.reordering.window(times.minimum, times.smoothed, is_sure=is_sure), now_ns)
        if found and before and now_ns >= before and conn.recovery.phase is Phase.OPEN:
            conn.out.repairs.overtaken += 1
    if found and conn.recovery.phase is Phase.OPEN:
        _enter_fast(conn, now_ns)


def _decide(conn: Connection, acked: int, nothing: bool) -> None:
    """Decide whether the timeout was one, as far as an acknowledgment tells. Source: RFC 5682, 2.1, steps 2 and 3."""
    recovery = conn.recovery
    if acked and recovery.doubt is Doubt.SECOND:
        _undo(conn)
    elif acked and conn.una < recovery.point and conn.buffer_end > conn.nxt and conn.una + conn.window > conn.nxt:
        recovery.doubt = Doubt.SECOND
    elif acked or nothing:
        believe(conn)


def believe(conn: Connection) -> None:
    """End the doubt about a timeout: it was one, or nobody can tell."""
    conn.recovery.doubt = Doubt.NONE
    ecn.slowed(conn)


def _undo(conn: Connection) -> None:
    """Be as before the timeout, without a burst: what is on its way, and a first window. Source: RFC 4015, 3.2."""
    recovery, congestion = conn.recovery, conn.congestion
    conn.flight.revive()
    congestion.restore(recovery.before)
    congestion.window = min(congestion.window, conn.flight.pipe + congestion.initial())
    recovery.phase, recovery.doubt = Phase.OPEN, Doubt.NONE
    conn.out.repairs.spurious += 1


def _progress(conn: Connection, acked: int, now_ns: int) -> None:
    recovery, flight = conn.recovery, conn.flight
    flight.credit = max(0, flight.credit - max(0, acked - conn.congestion.mss)) if flight.queue else 0
    if recovery.phase is Phase.OPEN:
        flight.credit = 0
        if conn.is_limited and conn.una > conn.marking.point:
            conn.congestion.acknowledged(acked, now_ns, conn.round_trip.smoothed, careful=False)
    elif conn.una >= recovery.point:
        if recovery.phase is Phase.FAST:
            conn.congestion.window = conn.congestion.threshold
        recovery.phase = Phase.OPEN
        flight.credit = 0
        flight.reordering.recovered()
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
    ecn.slowed(conn)


def on_timeout(conn: Connection, now_ns: int) -> None:
    """Take everything for lost that did not arrive, and begin anew with one segment."""
    recovery = conn.recovery
    is_doubted = conn.config.spurious_timeouts and recovery.phase is Phase.OPEN and conn.state >= State.ESTABLISHED
    recovery.doubt = Doubt.FIRST if is_doubted else Doubt.NONE
    recovery.before = conn.congestion.saved()
    conn.out.repairs.timeouts += 1
    conn.congestion.timed_out(min(conn.nxt - conn.una, conn.congestion.window), now_ns, recovery.stalled)
    recovery.phase = Phase.LOSS
    recovery.point = conn.nxt
    recovery.duplicates = 0
    recovery.stalled = True
    recovery.tail = 0
    conn.flight.lose_all()
    if not is_doubted:
        ecn.slowed(conn)
