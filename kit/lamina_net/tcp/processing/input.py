"""What a connection does with a segment: RFC 9293, 3.10.7.4 in its order, with the checks of RFC 5961 and RFC 7323."""

from __future__ import annotations

from lamina_net.tcp.config import SECOND
from lamina_net.tcp.connection.control_block import Connection
from lamina_net.tcp.interface import Errno, EventKind
from lamina_net.tcp.processing import ecn, opening, output
from lamina_net.tcp.processing.acknowledgment import take_acknowledgment
from lamina_net.tcp.segment import ACK, FIN, RST, SYN, URG, Segment
from lamina_net.tcp.sequence import MASK, unwrap
from lamina_net.tcp.states import CLOSING_DOWN, RECEIVING, State

_STAMP_HALF = 0x8000_0000
_STAMP_LIFE_NS = 24 * 24 * 3600 * SECOND
"""After so long a silence the peer's timestamps may have wrapped. Source: RFC 7323, 5.5."""


def is_next(conn: Connection, segment: Segment) -> bool:
    """Tell whether a segment is plainly the next one of a stream that has no gaps."""
    receiver = conn.receiver
    return conn.state is State.ESTABLISHED and segment.sequence == receiver.nxt & MASK and not receiver.ranges.starts


def may_be_run(conn: Connection, segment: Segment, size: int, now_ns: int) -> bool:
    """Tell whether `size` bytes do as one what they do in segments that differ from this one in number alone.

    They are bytes that are taken, in the window and before no FIN that came, and each tells the newest window; what
    their acknowledgment and timestamp say is nothing that is answered each time, nor that something came twice.
    """
    receiver, options = conn.receiver, segment.options
    if not is_next(conn, segment) or receiver.fin_at is not None:
        return False
    if (segment.acknowledgment - conn.una) & MASK > conn.nxt - conn.una or options.sack:
        return False
    if receiver.nxt + size > receiver.advertised or conn.wl1 > receiver.nxt:
        return False
    stamp = options.timestamp
    return not conn.timestamps or (stamp is not None and not _is_old(conn, stamp[0], now_ns))


def arrive(conn: Connection, segment: Segment, now_ns: int, marks: int = 0) -> None:
    """Follow a segment with a right checksum, then `timers.settle` sends what is due. `marks`: the two bits of ECN."""
    if conn.state is State.CLOSED:
        output.reset_reply(conn.out, conn.four, segment)
        return
    if conn.state is State.SYN_SENT:
        if not opening.in_syn_sent(conn, segment, now_ns) or not (segment.payload or segment.flags & FIN):
            return
        segment = segment._replace(flags=segment.flags & ~SYN, sequence=(segment.sequence + 1) & MASK)
    sequence = unwrap(segment.sequence, conn.receiver.nxt)
    if not _is_acceptable(conn, segment, sequence, now_ns):
        return
    flags = segment.flags
    if flags & RST:
        _take_reset(conn, sequence, now_ns)
        return
    if flags & SYN:
        challenge(conn, now_ns)
        return
    if not flags & ACK:
        return
    conn.heard_ns = now_ns
    ecn.take_mark(conn, segment, marks)
    if not _follow_acknowledgment(conn, segment, sequence, now_ns):
        return
    if flags & URG and conn.state in RECEIVING:
        _take_urgent(conn, sequence + segment.urgent)
    if (segment.payload or flags & FIN) and conn.state in RECEIVING:
        _take_text(conn, segment, sequence, now_ns)
    elif segment.payload or flags & FIN:
        conn.ack_now = True
        if conn.state is State.TIME_WAIT:
            conn.end_at = now_ns + 2 * conn.config.msl_ns


def _is_acceptable(conn: Connection, segment: Segment, sequence: int, now_ns: int) -> bool:
    """Check number and timestamp; answer what does not lie in the window. Source: RFC 9293, 3.10.7.4, first."""
    receiver = conn.receiver
    nxt, flags = receiver.nxt, segment.flags
    length = segment.length
    end = sequence + length
    if sequence > receiver.advertised or (end <= nxt if length else sequence < nxt):
        if flags & RST:
            return False
        if conn.state is State.SYN_RECEIVED and flags & SYN and sequence == nxt - 1 and not flags & ACK:
            _repeat_syn(conn, now_ns)
        elif length == 0 or flags & SYN:
            challenge(conn, now_ns)
        else:
            _answer_duplicate(conn, sequence, end)
            if flags & FIN and conn.state is State.TIME_WAIT:
                conn.end_at = now_ns + 2 * conn.config.msl_ns
        return False
    return not conn.timestamps or _follow_stamp(conn, segment, sequence, now_ns)


def _answer_duplicate(conn: Connection, sequence: int, end: int) -> None:
    """Acknowledge anew what had come, and name it in a SACK block (RFC 2883)."""
    conn.ack_now = True
    if end <= conn.receiver.nxt and end - sequence > 0 and conn.state in RECEIVING:
        conn.receiver.duplicate = (sequence, end)


def _follow_stamp(conn: Connection, segment: Segment, sequence: int, now_ns: int) -> bool:
    """Protect against old duplicates (PAWS), and remember the timestamp to echo. Source: RFC 7323, 4.3 and 5.3."""
    stamp = segment.options.timestamp
    if segment.flags & RST:
        return True
    if stamp is None:
        return False  # promised in every segment: RFC 7323, 3.2
    if _is_old(conn, stamp[0], now_ns):
        conn.ack_now = True
        return False
    if sequence <= conn.last_ack_sent:
        conn.ts_recent, conn.ts_recent_ns = stamp[0], now_ns
    return True


def _is_old(conn: Connection, stamp: int, now_ns: int) -> bool:
    age = (conn.ts_recent - stamp) & MASK
    return 0 < age < _STAMP_HALF and now_ns - conn.ts_recent_ns < _STAMP_LIFE_NS


def challenge(conn: Connection, now_ns: int) -> None:
    """Answer what may be forged with an ACK, so often as the limit allows. Source: RFC 5961, 3 to 5 and 7."""
    if now_ns - conn.challenge_from_ns >= SECOND:
        conn.challenge_from_ns = now_ns
        conn.challenges = 0
    if conn.challenges < conn.config.challenge_acks:
        conn.challenges += 1
        conn.ack_now = True


def _repeat_syn(conn: Connection, now_ns: int) -> None:
    """Repeat our SYN-ACK for a peer that repeats its SYN, within the limit of challenge ACKs."""
    challenge(conn, now_ns)
    if conn.ack_now and conn.flight.queue:
        conn.ack_now = False
        output.emit(conn, now_ns, conn.iss, SYN | ACK)
        conn.flight.queue[0].sends += 1


def _take_reset(conn: Connection, sequence: int, now_ns: int) -> None:
    """End the connection if the number is exactly the next, else ask. Source: RFC 5961, 3.2."""
    if sequence != conn.receiver.nxt:
        challenge(conn, now_ns)
        return
    if conn.state is State.SYN_RECEIVED:
        conn.over(Errno.CONNREFUSED)
    elif conn.state is State.TIME_WAIT:
        return  # RFC 1337: a reset does not cut TIME-WAIT short
    elif conn.state in CLOSING_DOWN and conn.receiver.finished:
        conn.over(Errno.CONNRESET if conn.una < conn.buffer_end else None)
    else:
        conn.over(Errno.CONNRESET)


def _follow_acknowledgment(conn: Connection, segment: Segment, sequence: int, now_ns: int) -> bool:
    """Take the ACK field and step on; return whether the rest of the segment counts. Source: 3.10.7.4, fifth."""
    acknowledged = unwrap(segment.acknowledgment, conn.una)
    if conn.state is State.SYN_RECEIVED:
        if not conn.una < acknowledged <= conn.nxt:
            output.reset_reply(conn.out, conn.four, segment)
            return False
        opening.establish(conn, now_ns)
        conn.window = conn.max_window = segment.window << conn.send_shift
        conn.wl1, conn.wl2 = sequence, acknowledged
        if conn.fin_queued:
            conn.state = State.FIN_WAIT_1
        conn.tell(EventKind.CONNECTED)
    elif acknowledged > conn.nxt or acknowledged < conn.una - conn.max_window:
        challenge(conn, now_ns)
        return False
    take_acknowledgment(conn, segment, sequence, acknowledged, now_ns)
    if conn.fin_sent_at is not None and conn.una > conn.fin_sent_at:
        _fin_acknowledged(conn, now_ns)
    return conn.state is not State.CLOSED


def _fin_acknowledged(conn: Connection, now_ns: int) -> None:
    if conn.state is State.FIN_WAIT_1:
        conn.state = State.FIN_WAIT_2
        if conn.orphaned:
            conn.end_at = now_ns + conn.config.fin_wait_ns
    elif conn.state is State.CLOSING:
        wait(conn, now_ns)
    elif conn.state is State.LAST_ACK:
        conn.over()


def wait(conn: Connection, now_ns: int) -> None:
    """Enter TIME-WAIT: both halves are closed, what is on its way must die."""
    conn.tell(EventKind.CLOSED)
    conn.state = State.TIME_WAIT
    conn.stop_timers()
    conn.drop_sending()
    conn.end_at = now_ns + 2 * conn.config.msl_ns


def _take_urgent(conn: Connection, end: int) -> None:
    """Keep where urgent data end, and tell of it; they stay in the stream. Source: RFC 6093, 3; RFC 9293, MUST-32."""
    receiver = conn.receiver
    if end > receiver.nxt and (receiver.urgent is None or end > receiver.urgent):
        receiver.urgent = end
        conn.tell(EventKind.URGENT)


def _take_text(conn: Connection, segment: Segment, sequence: int, now_ns: int) -> None:
    """Take bytes and FIN; acknowledge at once whatever is not plainly the next (RFC 5681, 4.2; RFC 1122, 4.2.3.2)."""
    receiver = conn.receiver
    end = sequence + len(segment.payload)
    if conn.orphaned and end > receiver.nxt:  # nobody will read it: RFC 1122, 4.2.2.13
        output.send_reset(conn, now_ns)
        conn.over(Errno.CONNABORTED)
        return
    before = receiver.nxt
    in_order = receiver.take(sequence, segment.payload) if segment.payload else False
    has_fin = segment.flags & FIN and end <= receiver.advertised
    finished = receiver.finish(end) if has_fin else receiver.check_finished()
    if not in_order or finished or receiver.ranges.starts:
        conn.ack_now = True
    else:
        conn.ack_pending += 1 if len(segment.payload) <= conn.our_mss else 2
        if conn.ack_pending >= 2:
            conn.ack_now = True
    if receiver.nxt > before:
        conn.tell(EventKind.READABLE)
    if finished:
        _peer_finished(conn, now_ns)


def _peer_finished(conn: Connection, now_ns: int) -> None:
    """Step on after the peer's FIN. Source: RFC 9293, 3.10.7.4, eighth."""
    if conn.state is State.ESTABLISHED:
        conn.state = State.CLOSE_WAIT
    elif conn.state is State.FIN_WAIT_1:
        conn.state = State.CLOSING
    elif conn.state is State.FIN_WAIT_2:
        wait(conn, now_ns)
