"""What an acceptable ACK changes for the sending half. Source: RFC 9293, 3.10.7.4, fifth; RFC 5681, 2; RFC 7323, 4."""

from __future__ import annotations

from lamina_net.tcp.connection.control_block import Connection
from lamina_net.tcp.interface import EventKind
from lamina_net.tcp.processing import ecn, recovery, tail_loss_probe
from lamina_net.tcp.processing.output import stamp_of
from lamina_net.tcp.segment import ECE, FIN, Segment
from lamina_net.tcp.sequence import unwrap


def take_acknowledgment(conn: Connection, segment: Segment, sequence: int, acknowledged: int, now_ns: int) -> None:
    """Take an ACK that lies in [una - max_window, nxt]: bytes that arrived, SACK blocks, the window."""
    window_before = conn.window
    _take_window(conn, segment, sequence, acknowledged)
    flight = conn.flight
    news = twice = False
    flight.reordering.edge_before = flight.reordering.edge
    if segment.options.sack and conn.selective_ack:
        news = _take_blocks(conn, segment, now_ns) > 0
        twice = _tells_twice(conn, segment, acknowledged)
    acked = acknowledged - conn.una
    if acked > 0:
        _take_progress(conn, segment, acknowledged, now_ns)
    elif conn.window == 0 and acknowledged == conn.una and not conn.orphaned:
        conn.progress_ns = now_ns  # alive, only full: RFC 9293, MUST-37
        if conn.probing:
            conn.retransmit_at = conn.last_sent_ns + conn.round_trip.timeout
    duplicate = (
        acked == 0
        and not segment.payload
        and not segment.flags & FIN
        and conn.window == window_before
        and bool(flight.queue)
        and not conn.probing
    )
    if conn.probing and conn.window:
        conn.probing = False
        flight.lose_all()
        conn.round_trip.reopened()
        conn.retransmit_at = 0
    elif flight.queue or acked > 0:
        if segment.flags & ECE and conn.marking.is_on:
            ecn.take_echo(conn, max(0, acked), now_ns)
        recovery.on_acknowledgment(conn, max(0, acked), duplicate, news, now_ns)
    if conn.recovery.tail:
        tail_loss_probe.answered(conn, duplicate and not segment.options.sack, twice, now_ns)


def _take_window(conn: Connection, segment: Segment, sequence: int, acknowledged: int) -> None:
    """Take the window of the newest segment. Source: RFC 9293, 3.10.7.4 (SND.WL1, SND.WL2)."""
    if acknowledged < conn.una:
        return
    if conn.wl1 < sequence or (conn.wl1 == sequence and conn.wl2 <= acknowledged):
        conn.window = segment.window << conn.send_shift
        conn.wl1, conn.wl2 = sequence, acknowledged
        if conn.window > conn.max_window:
            conn.max_window = conn.window


def _take_blocks(conn: Connection, segment: Segment, now_ns: int) -> int:
    """Take the SACK blocks that lie in what is on its way; return how many bytes of it are news."""
    blocks = []
    for left, right in segment.options.sack:
        start, end = unwrap(left, conn.una), unwrap(right, conn.una)
        if conn.una < start < end <= conn.nxt:
            blocks.append((start, end))
    return conn.flight.sack(blocks, now_ns, conn.round_trip.minimum) if blocks else 0


def _tells_twice(conn: Connection, segment: Segment, acknowledged: int) -> bool:
    """Take the news that bytes came twice; return whether they are the end of a tail probe, which is awaited.

    The first block tells it that lies below the ACK or within the second one. Source: RFC 2883, 4; RFC 8985, 7.4.2.
    """
    (left, right), *others = segment.options.sack
    start, end = unwrap(left, conn.una), unwrap(right, conn.una)
    if start >= end or (end > acknowledged and not (others and _lies_in(conn, start, end, others[0]))):
        return False
    if conn.recovery.tail and end == conn.recovery.tail:
        return True
    conn.flight.reordering.came_twice(max(conn.una, acknowledged), conn.nxt, conn.retransmitted)
    return False


def _lies_in(conn: Connection, start: int, end: int, block: tuple[int, int]) -> bool:
    return unwrap(block[0], conn.una) <= start and end <= unwrap(block[1], conn.una)


def _take_progress(conn: Connection, segment: Segment, acknowledged: int, now_ns: int) -> None:
    """Move `una`: drop what arrived, measure the round trip, restart the timer (RFC 6298, 5.3)."""
    sample = conn.flight.acknowledge(acknowledged, now_ns)
    conn.una = acknowledged
    done = min(acknowledged, conn.buffer_end) - conn.buffer_start
    if done > 0:
        conn.buffer.drop(done)
        conn.buffer_start += done
    if sample >= 0 and (not conn.flight.ambiguous or _echoes(conn, segment, sample)):
        conn.round_trip.sample(now_ns - sample)
    conn.progress_ns = now_ns
    conn.soft_errno = None
    conn.retransmit_at = 0
    if conn.wants_room and conn.room >= conn.capacity // 3:
        conn.wants_room = False
        conn.tell(EventKind.WRITABLE)


def _echoes(conn: Connection, segment: Segment, sent_ns: int) -> bool:
    """Tell whether the ACK answers what was sent last, at `sent_ns`, and not a copy of it or something before.

    RFC 7323, 4.1 would measure those too; then one lost ACK makes a round trip of a whole timeout.
    """
    stamp = segment.options.timestamp
    return conn.timestamps and stamp is not None and stamp[1] == stamp_of(conn, sent_ns)
