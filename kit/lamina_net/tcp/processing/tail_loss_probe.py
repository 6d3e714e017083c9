"""The end of what was sent: a probe asks for it before the timeout, and its answer tells what was lost.

Where the last segments of a burst are lost, nothing comes after them that would show it. Two round trips after the
last news one segment goes: a new one, or the last one again. Its answer shows holes by SACK, and recovery is a fast
one. When it was the only one missing, the probe repaired a loss that nobody noticed, and the window pays for it. The
ACK of a single segment may be delayed by the peer: its probe goes where the timeout would come, which then waits anew.

The same timer waits for what was overtaken (`Flight.overtaken_at`). Source: RFC 8985, 7 and 6.2, step 5.
"""

from __future__ import annotations

from lamina_net.tcp.config import MILLISECOND
from lamina_net.tcp.connection.control_block import Connection
from lamina_net.tcp.connection.loss import Phase
from lamina_net.tcp.processing import ecn, output, recovery
from lamina_net.tcp.states import State

_LEAST_NS = 2 * MILLISECOND
"""A probe waits so long at least, for clocks and loops that are late by as much. Linux waits for two ticks more."""
_DELAYED_ACK_NS = 200 * MILLISECOND
"""What a peer may wait with the acknowledgment of a single segment. Source: RFC 8985, 7.2."""


def arm(conn: Connection) -> None:
    """Set the timer for the first that can be due."""
    at = conn.flight.overtaken_at
    if not at and not conn.early_at:
        at = _due(conn)
    if at and (not conn.early_at or at < conn.early_at):
        conn.early_at = at


def _due(conn: Connection) -> int:
    """Return when a probe is due if nothing happens before, 0 for never."""
    flight, smoothed = conn.flight, conn.round_trip.smoothed
    if not flight.queue or not smoothed or flight.sacked.starts or conn.state < State.ESTABLISHED:
        return 0
    if not conn.config.tail_probes or conn.recovery.phase is not Phase.OPEN or conn.recovery.tail or conn.probing:
        return 0
    wait = max(2 * smoothed, _LEAST_NS)
    if len(flight.queue) == 1:
        wait += _DELAYED_ACK_NS
    due = max(conn.last_sent_ns, conn.progress_ns) + wait
    return min(due, conn.retransmit_at) if conn.retransmit_at else due  # in its place: RFC 8985, 7.2


def fire(conn: Connection, now_ns: int) -> None:
    """Find what was overtaken, or send a probe, if it is time; the timer may be early."""
    overtaken_at = conn.flight.overtaken_at
    if overtaken_at and now_ns >= overtaken_at:
        recovery.find_lost(conn, now_ns)
        return
    due = _due(conn)
    if due and now_ns < due:
        conn.early_at = due
    elif due:
        _probe(conn, now_ns)


def _probe(conn: Connection, now_ns: int) -> None:
    """Send one segment beyond the congestion window: new bytes if the peer takes them, else the last ones again."""
    size = min(conn.buffer_end - conn.nxt, conn.una + conn.window - conn.nxt, output.payload_limit(conn))
    conn.recovery.tail_again = size <= 0
    if size > 0:
        output.send_new_record(conn, size, False, now_ns)
    else:
        last = conn.flight.queue[-1]
        if not last.lost:
            conn.flight.lose(last)
        output.send_again(conn, last, now_ns)
    conn.recovery.tail = conn.nxt
    conn.retransmit_at = 0  # the timeout is counted from the probe: RFC 8985, 7.3
    conn.out.repairs.tail_probes += 1


def answered(conn: Connection, duplicate: bool, twice: bool, now_ns: int) -> None:
    """Follow an ACK while a probe's answer is awaited. `duplicate`: it brings nothing, not even SACK blocks.

    `twice`: it says that the probe's bytes came twice. Source: RFC 8985, 7.4.2.
    """
    state = conn.recovery
    if conn.una < state.tail:
        return
    if state.tail_again and not twice and conn.una > state.tail:
        if state.phase is Phase.OPEN:
            conn.congestion.lost(min(conn.nxt - state.tail, conn.congestion.window), now_ns)
            ecn.slowed(conn)
        conn.out.repairs.tail_losses += 1
    elif state.tail_again and not twice and not duplicate:
        return  # the answer to the first copy, or to the second one: the next ACK tells
    state.tail = 0
