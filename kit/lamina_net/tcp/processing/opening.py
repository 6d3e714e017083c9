"""How a connection begins: what SYNs carry, and the states before ESTABLISHED.

Source: RFC 9293, 3.10.7.2 to 3.10.7.4; RFC 7323, 2 and 3 for scale and timestamps; RFC 5681, 3.1 for the first window.
"""

from __future__ import annotations

from lamina_net.tcp.config import Congestion
from lamina_net.tcp.connection.congestion import controller
from lamina_net.tcp.connection.control_block import DEFAULT_MSS, Connection
from lamina_net.tcp.connection.loss import Recovery
from lamina_net.tcp.interface import Errno, EventKind
from lamina_net.tcp.processing import ecn, output
from lamina_net.tcp.segment import ACK, RST, SYN, Segment
from lamina_net.tcp.sequence import MASK, unwrap
from lamina_net.tcp.states import State

_ABOVE = MASK + 1
"""Added to initial numbers, so that nothing below them is negative."""
_MOST_SCALE = 14
"""Source: RFC 7323, 2.3."""


def begin(conn: Connection, state: State, iss: int, stamp_offset: int, mtu: int) -> None:
    """Give a new connection its first number and what our SYN offers."""
    conn.state = state
    conn.iss = conn.una = conn.nxt = iss + _ABOVE
    conn.buffer_start = conn.iss + 1
    conn.stamp_offset = stamp_offset
    conn.mtu = mtu
    conn.receiver.shift = output.scale_for(conn.config.max_buffer) if conn.scaling else 0


def take_syn(conn: Connection, segment: Segment, now_ns: int) -> None:
    """Take the peer's first number and what it offers; what it does not offer is off."""
    options = segment.options
    receiver = conn.receiver
    number = segment.sequence + _ABOVE
    receiver.begin(number + 1)
    receiver.advertised = receiver.nxt + min(receiver.size, 0xFFFF)  # as our SYN offers
    conn.scaling = conn.scaling and options.window_scale is not None
    conn.send_shift = min(options.window_scale or 0, _MOST_SCALE) if conn.scaling else 0
    if not conn.scaling:
        receiver.shift = 0
    conn.selective_ack = conn.selective_ack and options.sack_permitted
    conn.timestamps = conn.timestamps and options.timestamp is not None
    if conn.timestamps and options.timestamp is not None:
        conn.ts_recent, conn.ts_recent_ns = options.timestamp[0], now_ns
    conn.peer_mss = options.mss if options.mss else DEFAULT_MSS
    conn.window = conn.max_window = segment.window
    conn.wl1, conn.wl2 = number, conn.iss
    conn.heard_ns = now_ns
    ecn.take_syn(conn, segment)


def establish(conn: Connection, now_ns: int) -> None:
    """Enter ESTABLISHED: the peer has acknowledged our SYN."""
    syn_was_lost = conn.retransmitted > 0
    conn.state = State.ESTABLISHED
    conn.recovery = Recovery()
    conn.congestion = controller(Congestion(conn.options.congestion), DEFAULT_MSS)
    conn.use_mss(conn.mtu)
    conn.congestion.window = conn.congestion.mss if syn_was_lost else conn.congestion.initial()
    conn.round_trip.begin_data()
    conn.progress_ns = now_ns
    conn.retransmit_at = 0


def in_syn_sent(conn: Connection, segment: Segment, now_ns: int) -> bool:
    """Follow a segment that answers our SYN, or crosses it; return whether the connection is established now."""
    flags = segment.flags
    acknowledged = unwrap(segment.acknowledgment, conn.nxt)
    if flags & ACK and not conn.iss < acknowledged <= conn.nxt:
        output.reset_reply(conn.out, conn.four, segment)
        return False
    if flags & RST:
        if flags & ACK:
            conn.over(Errno.CONNREFUSED)
        return False
    if not flags & SYN:
        return False
    take_syn(conn, segment, now_ns)
    if not flags & ACK:  # both opened at once
        conn.state = State.SYN_RECEIVED
        conn.flight.acknowledge(conn.nxt, now_ns)
        output.send_syn(conn, now_ns)
        return False
    sample = conn.flight.acknowledge(acknowledged, now_ns)
    conn.una = acknowledged
    conn.wl2 = acknowledged
    establish(conn, now_ns)
    if sample >= 0 and not conn.flight.ambiguous:
        conn.round_trip.sample(now_ns - sample)
    conn.ack_now = True
    conn.tell(EventKind.CONNECTED)
    return True


def is_newer(conn: Connection, segment: Segment) -> bool:
    """Tell whether a SYN may end a connection in TIME-WAIT: it is newer than anything of it. Source: RFC 6191, 2."""
    if segment.flags & (SYN | ACK | RST) != SYN:
        return False
    stamp = segment.options.timestamp
    if conn.timestamps and stamp is not None and stamp[0] != conn.ts_recent & MASK:
        return (stamp[0] - conn.ts_recent) & MASK < 0x8000_0000
    return 0 < (segment.sequence - conn.receiver.nxt) & MASK < 0x8000_0000
