"""What a connection sends: segments of new bytes, lost ones again, acknowledgments, SYN, RST.

Source: RFC 9293, 3.8.6.2.1 (when to send), 3.7.4 (Nagle); RFC 6675, 5 (what is lost goes first).
"""

from __future__ import annotations

from lamina_net.tcp.connection.control_block import Connection, Outbox
from lamina_net.tcp.connection.flight import Sent
from lamina_net.tcp.connection.loss import Doubt
from lamina_net.tcp.identity import FourTuple
from lamina_net.tcp.interface import Packet
from lamina_net.tcp.processing import ecn
from lamina_net.tcp.processing.recovery import believe
from lamina_net.tcp.segment import ACK, FIN, NO_OPTIONS, PSH, RST, SYN, URG, Options, Segment, build
from lamina_net.tcp.sequence import MASK
from lamina_net.tcp.states import State

_TIMESTAMP_BYTES = 12
_MOST_SCALE = 14
_MOST_URGENT = 0xFFFF


def emit(
    conn: Connection, now_ns: int, sequence: int, flags: int, payload: bytes = b"", *, fresh: bool = False, cut: int = 0
) -> None:
    """Send one segment; it acknowledges what came, unless it is a first SYN.

    `fresh`: its bytes were never sent. `cut`: bytes of each of the segments that somebody makes of it, 0 for one.
    """
    receiver = conn.receiver
    local, local_port, remote, remote_port = conn.four
    if flags & SYN:
        window = min(receiver.edge(1) - receiver.nxt, 0xFFFF)
        receiver.advertised = max(receiver.advertised, receiver.nxt + window)
        options = _syn_options(conn, now_ns)
        flags |= ecn.syn_flags(conn)
    else:
        window = receiver.window(conn.our_mss)
        options = _options(conn, now_ns)
    acknowledgment = 0
    if flags & ACK:
        acknowledgment = receiver.nxt & MASK
        conn.last_ack_sent = receiver.nxt
        conn.ack_now = False
        conn.ack_pending = conn.ack_at = 0
    tos = conn.options.dscp << 2
    if conn.marking.is_on and not flags & SYN:
        more, bits = ecn.flags_of(conn, fresh)
        flags |= more
        tos |= bits
    urgent = 0
    if conn.urgent_end > sequence and payload:
        urgent = min(conn.urgent_end - sequence, _MOST_URGENT)
        flags |= URG
    segment = Segment(local_port, remote_port, sequence & MASK, acknowledgment, flags, window, payload, options, urgent)
    data = build(local, remote, segment, with_checksum=not cut)
    conn.out.packets.append(Packet(local, remote, data, tos, conn.options.ttl, cut))


def _syn_options(conn: Connection, now_ns: int) -> Options:
    """Offer what we can; in a SYN-ACK what the peer can, too, which `Connection` holds by then."""
    scale = conn.receiver.shift if conn.scaling else None
    stamp = (stamp_of(conn, now_ns), conn.ts_recent) if conn.timestamps else None
    return Options(conn.our_mss, scale, conn.selective_ack, (), stamp)


def _options(conn: Connection, now_ns: int) -> Options:
    blocks: tuple[tuple[int, int], ...] = ()
    receiver = conn.receiver
    if conn.selective_ack and (receiver.ranges.starts or receiver.duplicate is not None):
        blocks = tuple((start & MASK, end & MASK) for start, end in receiver.blocks())
        if conn.timestamps:
            blocks = blocks[:3]
    if conn.timestamps:
        return Options(None, None, False, blocks, (stamp_of(conn, now_ns), conn.ts_recent))
    return Options(None, None, False, blocks, None) if blocks else NO_OPTIONS


def stamp_of(conn: Connection, now_ns: int) -> int:
    """Return the connection's clock: milliseconds of 32 bits."""
    return stamp_at(conn.stamp_offset, now_ns)


def stamp_at(offset: int, now_ns: int) -> int:
    """Return the clock of connections with this offset."""
    return (now_ns // 1_000_000 + offset) & MASK


def payload_limit(conn: Connection) -> int:
    """Return the longest payload that fits beside the options that go along now. Source: RFC 6691."""
    room = conn.mss
    if conn.timestamps:
        room -= _TIMESTAMP_BYTES
    receiver = conn.receiver
    if conn.selective_ack and (receiver.ranges.starts or receiver.duplicate is not None):
        most = 3 if conn.timestamps else 4
        room -= 4 + 8 * min(most, len(receiver.ranges) + (receiver.duplicate is not None))
    return max(1, room)


def send_syn(conn: Connection, now_ns: int) -> None:
    """Send the first SYN of a connection, or SYN-ACK."""
    record = Sent(conn.iss, conn.iss + 1, now_ns, syn=True)
    conn.flight.add(record)
    conn.nxt = conn.iss + 1
    conn.progress_ns = now_ns
    _send_record(conn, record, now_ns)


def acknowledge(conn: Connection, now_ns: int) -> None:
    """Send an ACK without data. Its number lies in the peer's window even while a probe lies beyond it."""
    right = conn.una + conn.window
    emit(conn, now_ns, conn.nxt if conn.nxt <= right else max(conn.una, right), ACK)


def transmit(conn: Connection, now_ns: int) -> None:
    """Send what may be sent now: what is lost, then what is new."""
    stopped = _send_lost(conn, now_ns)
    unsent = conn.buffer_end > conn.nxt or conn.fin_queued
    if not stopped and unsent and conn.fin_sent_at is None and conn.state >= State.ESTABLISHED:
        stopped = _send_new(conn, now_ns)
    if conn.recovery.doubt is Doubt.SECOND and not conn.flight.pipe:
        believe(conn)  # new bytes wait for more of them (Nagle), so nothing would tell: RFC 5682, 2.1, step 2b
        stopped = _send_lost(conn, now_ns)
    if stopped:
        conn.is_limited = True
    elif 2 * conn.flight.on_the_way < conn.congestion.window:
        conn.is_limited = False


def _send_lost(conn: Connection, now_ns: int) -> bool:
    """Send lost records again; return whether the congestion window ended it."""
    flight = conn.flight
    if conn.recovery.doubt and (conn.recovery.doubt is Doubt.SECOND or flight.pipe):
        return conn.recovery.doubt is Doubt.FIRST
    while (record := flight.next_lost()) is not None:
        size = min(record.end - record.start, conn.congestion.mss)
        is_held = flight.on_the_way and flight.on_the_way + size > conn.congestion.window
        if is_held and not conn.recovery.at_once:
            return True
        conn.recovery.at_once = False
        send_again(conn, record, now_ns)
    return False


def send_again(conn: Connection, record: Sent, now_ns: int) -> None:
    """Send a lost record again, cut to what a segment takes now, whatever the windows say."""
    limit = payload_limit(conn)
    if record.end - record.fin - record.start > limit:
        conn.flight.split(record, limit)
    conn.flight.sent_again(record, now_ns)
    conn.retransmitted += 1
    conn.out.retransmitted += 1
    _send_record(conn, record, now_ns)


def _send_new(conn: Connection, now_ns: int) -> bool:
    """Send bytes for the first time, and FIN after the last; return whether the congestion window ended it."""
    records: list[Sent] = []
    stopped = _take_new(conn, records, now_ns)
    most = conn.config.burst // (records[0].end - records[0].start) if len(records) > 1 else 0
    if most < 2 or conn.urgent_end > records[0].start:
        for record in records:
            _send_record(conn, record, now_ns)
        return stopped
    place = 0
    if conn.marking.reduced:  # CWR is for the first one only
        _send_record(conn, records[0], now_ns)
        place = 1
    for begin in range(place, len(records), most):
        _send_together(conn, records[begin : begin + most], now_ns)
    return stopped


def _take_new(conn: Connection, records: list[Sent], now_ns: int) -> bool:
    """Put what may be sent for the first time among what is on its way, and into `records`."""
    congestion, flight = conn.congestion, conn.flight
    if not flight.queue and conn.last_sent_ns and now_ns - conn.last_sent_ns > conn.round_trip.timeout:
        congestion.idle()
    end = conn.buffer_end
    right = conn.una + conn.window
    _take_full(conn, records, min(end, right) - conn.nxt - 1, now_ns)
    while conn.fin_sent_at is None:
        pending, usable = end - conn.nxt, right - conn.nxt
        size = min(pending, usable, payload_limit(conn))
        if pending and not _is_worth_sending(conn, size, pending):
            return False
        fin = conn.fin_queued and size == pending and usable > size
        if size <= 0 and not fin:
            return False
        if flight.on_the_way and flight.on_the_way + size > congestion.window:
            return True
        if len(flight.queue) >= conn.config.max_records:
            return True
        records.append(_new_record(conn, size, fin, now_ns))
    return False


def _take_full(conn: Connection, records: list[Sent], most: int, now_ns: int) -> None:
    """Take full segments of up to `most` bytes in all, as far as the congestion window and the records' bound let.

    These are what bulk data consist of; what is left, a last segment at least, is looked at one by one.
    """
    flight, limit = conn.flight, payload_limit(conn)
    count = min(most, conn.congestion.window - flight.on_the_way) // limit
    count = min(count, conn.config.max_records - len(flight.queue))
    if count < 2 or conn.fin_sent_at is not None:
        return
    if not flight.queue:
        conn.progress_ns = now_ns
        conn.retransmit_at = 0  # it waited for a window
    first, end = conn.nxt, conn.nxt + count * limit
    made = [Sent(start, start + limit, now_ns) for start in range(first, end, limit)]
    records += made
    flight.queue += made
    flight.pipe += end - first
    conn.nxt = end


def _is_worth_sending(conn: Connection, size: int, pending: int) -> bool:
    """Decide as RFC 9293, 3.8.6.2.1 does: a full segment, the last bytes, or half of the largest window."""
    if size <= 0:
        return False
    if size < pending:
        return size >= payload_limit(conn) or 2 * size >= conn.max_window
    return (
        size >= payload_limit(conn) or conn.options.nodelay or conn.fin_queued or not conn.flight.queue
        or conn.urgent_end > conn.nxt
    )  # fmt: skip


def send_new_record(conn: Connection, size: int, fin: bool, now_ns: int) -> None:
    """Send the next `size` bytes for the first time, and FIN with them, whatever the windows say."""
    _send_record(conn, _new_record(conn, size, fin, now_ns), now_ns)


def _new_record(conn: Connection, size: int, fin: bool, now_ns: int) -> Sent:
    record = Sent(conn.nxt, conn.nxt + size + fin, now_ns, fin=fin)
    if not conn.flight.queue:
        conn.progress_ns = now_ns
        conn.retransmit_at = 0  # it waited for a window
    conn.flight.add(record)
    conn.nxt = record.end
    if fin:
        conn.fin_sent_at = record.end - 1
    return record


def _send_record(conn: Connection, record: Sent, now_ns: int) -> None:
    conn.last_sent_ns = now_ns
    if record.syn:
        emit(conn, now_ns, record.start, SYN if conn.state is State.SYN_SENT else SYN | ACK)
        return
    flags, payload = _content(conn, record, record)
    fresh = record.sends == 1 and bool(payload) and not conn.probing
    emit(conn, now_ns, record.start, flags, payload, fresh=fresh)


def _send_together(conn: Connection, records: list[Sent], now_ns: int) -> None:
    """Send new records, all as long as the first one but the last, as one packet."""
    first = records[0]
    conn.last_sent_ns = now_ns
    flags, payload = _content(conn, first, records[-1])
    cut = first.end - first.start if len(records) > 1 else 0
    emit(conn, now_ns, first.start, flags, payload, fresh=bool(payload), cut=cut)


def _content(conn: Connection, first: Sent, last: Sent) -> tuple[int, bytes]:
    """Return flags and bytes of the records from `first` to `last`."""
    begin = first.start - conn.buffer_start
    end = last.end - last.fin - conn.buffer_start
    flags = ACK | (FIN if last.fin else 0)
    if end == len(conn.buffer) and end > begin:
        flags |= PSH
    return flags, conn.buffer.slice(begin, end)


def send_reset(conn: Connection, now_ns: int) -> None:
    """Tell the peer that the connection is gone."""
    if conn.state > State.SYN_SENT:
        emit(conn, now_ns, min(conn.nxt, max(conn.una, conn.una + conn.window)), RST | ACK)


def reset_reply(out: Outbox, four: FourTuple, segment: Segment) -> None:
    """Answer a segment that belongs to no connection. Source: RFC 9293, 3.10.7.1."""
    if segment.flags & RST:
        return
    local, local_port, remote, remote_port = four
    if segment.flags & ACK:
        reply = Segment(local_port, remote_port, segment.acknowledgment, 0, RST, 0)
    else:
        number = (segment.sequence + segment.length) & MASK
        reply = Segment(local_port, remote_port, 0, number, RST | ACK, 0)
    out.packets.append(Packet(local, remote, build(local, remote, reply)))


def scale_for(size: int) -> int:
    """Return the smallest scale with which a window of `size` bytes can be offered."""
    scale = 0
    while scale < _MOST_SCALE and size > 0xFFFF << scale:
        scale += 1
    return scale
