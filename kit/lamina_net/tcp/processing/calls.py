"""What a user and ICMP do to one connection. Each gives its result or `Refused`; `TcpLayer` sends what is due then."""

from __future__ import annotations

from lamina_net.tcp.connection.control_block import IP_AND_TCP_HEADER, Connection
from lamina_net.tcp.interface import Errno, IcmpKind, Readiness, Refused, Status
from lamina_net.tcp.processing import output
from lamina_net.tcp.sequence import unwrap
from lamina_net.tcp.states import RECEIVING, SENDING, State

LEAST_PATH_MTU = 552
"""What ICMP can bring a path's MTU down to, so that a forger cannot make every byte a packet. Linux has the same."""

_PLATEAUS = (65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 552)
"""MTUs that are usual, for routers that do not say theirs. Source: RFC 1191, 7."""

_SOFT = {
    IcmpKind.PORT_UNREACHABLE: Errno.CONNREFUSED,
    IcmpKind.HOST_UNREACHABLE: Errno.HOSTUNREACH,
    IcmpKind.NETWORK_UNREACHABLE: Errno.NETUNREACH,
}


def send(conn: Connection, data: bytes, urgent: bool = False) -> int | Refused:
    """Take as many bytes of `data` as the send buffer has room for; return how many, at least one unless data is empty.

    AGAIN: no room, or not connected yet. PIPE: our half is closed. The connection's error, or NOTCONN, when it is over.
    `urgent`: the last byte taken ends urgent data (RFC 6093).
    """
    if conn.state is State.CLOSED:
        return Refused(conn.errno or Errno.NOTCONN)
    if conn.fin_queued or conn.state is State.TIME_WAIT:
        return Refused(Errno.PIPE)
    if conn.state not in SENDING:
        conn.wants_room = True
        return Refused(Errno.AGAIN)
    size = min(len(data), conn.room)
    if size < len(data):
        conn.wants_room = True
    if size <= 0 < len(data):
        return Refused(Errno.AGAIN)
    conn.buffer.append(data if size == len(data) else data[:size])
    if urgent and size:
        conn.urgent_end = conn.buffer_end
    return size


def recv(conn: Connection, size: int) -> bytes | Refused:
    """Return up to `size` bytes in order, b"" at the end of the stream.

    AGAIN: none are there. What came before an error can be read, then the error; NOTCONN after an end in order.
    """
    receiver = conn.receiver
    if receiver.ready:
        data = receiver.read(size)
        if conn.state in RECEIVING and receiver.should_tell(conn.our_mss):
            conn.ack_now = True
        return data
    if receiver.finished:
        return b""
    if conn.errno is not None:
        return Refused(conn.errno)
    if conn.state in (State.CLOSED, State.TIME_WAIT):
        return Refused(Errno.NOTCONN)
    return Refused(Errno.AGAIN)


def shutdown(conn: Connection) -> None | Refused:
    """Close our half: FIN follows what was sent. The peer's half stays open. Again: nothing. NOTCONN when not open."""
    if conn.state in (State.CLOSED, State.SYN_SENT):
        return Refused(conn.errno or Errno.NOTCONN)
    if not conn.fin_queued and conn.state is not State.TIME_WAIT:
        conn.fin_queued = True
        if conn.state is State.ESTABLISHED:
            conn.state = State.FIN_WAIT_1
        elif conn.state is State.CLOSE_WAIT:
            conn.state = State.LAST_ACK
    return None


def close(conn: Connection, now_ns: int) -> None:
    """Give the connection up: it ends in order in its time, or by RST where bytes are unread (RFC 1122, 4.2.2.13)."""
    conn.orphaned = True
    conn.options.keepalive = False
    if conn.state is State.SYN_SENT:
        conn.over()
    elif conn.receiver.ready and conn.state not in (State.CLOSED, State.TIME_WAIT):
        abort(conn, now_ns)
    elif conn.state is State.FIN_WAIT_2:
        conn.end_at = now_ns + conn.config.fin_wait_ns
    elif conn.state is not State.CLOSED:
        shutdown(conn)
    conn.receiver.ready.clear()


def abort(conn: Connection, now_ns: int) -> None:
    """End the connection by RST; what was not acknowledged is dropped. In TIME-WAIT there is nobody to tell."""
    if conn.state not in (State.CLOSED, State.TIME_WAIT):
        output.send_reset(conn, now_ns)
    conn.over(Errno.CONNABORTED if conn.state is not State.TIME_WAIT else None)


def readiness(conn: Connection) -> Readiness:
    """Return what calls would find now."""
    over = conn.state in (State.CLOSED, State.TIME_WAIT)
    readable = bool(conn.receiver.ready) or conn.receiver.finished or over
    writable = over or (conn.state in SENDING and not conn.fin_queued and conn.room > 0)
    return Readiness(readable, writable, over, conn.errno)


def status(conn: Connection) -> Status:
    """Return how the connection is."""
    receiver = conn.receiver
    read_so_far = receiver.nxt - receiver.finished - len(receiver.ready)
    return Status(
        state=conn.state,
        local=conn.local,
        remote=conn.remote,
        errno=conn.errno,
        soft_errno=conn.soft_errno,
        unread=len(receiver.ready),
        unsent=max(0, conn.buffer_end - conn.nxt),
        unacknowledged=conn.nxt - conn.una,
        mss=conn.mss,
        send_window=conn.window,
        receive_window=receiver.advertised - receiver.nxt,
        congestion_window=conn.congestion.window,
        slow_start_threshold=conn.congestion.threshold,
        smoothed_rtt_ns=conn.round_trip.smoothed,
        rto_ns=conn.round_trip.timeout,
        retransmitted=conn.retransmitted,
        urgent_ahead=max(0, receiver.urgent - read_so_far) if receiver.urgent is not None else 0,
    )


def icmp_error(conn: Connection, sequence: int, kind: IcmpKind, mtu: int) -> None:
    """Follow an ICMP error about a segment of ours; one whose number is not on its way is forged or late (RFC 5927, 4).

    While a connection that we open waits for an answer, an unreachable host or port ends it, as in Linux (RFC 5461);
    afterwards these are hints (RFC 1122, 4.2.3.9).
    """
    if not conn.una <= unwrap(sequence, conn.una) < conn.nxt:
        return
    if kind is IcmpKind.TOO_BIG:
        _shrink(conn, mtu)
        return
    errno = _SOFT[kind]
    if conn.state in (State.SYN_SENT, State.SYN_RECEIVED) and not conn.listener:
        conn.over(errno)
    else:
        conn.soft_errno = errno


def _shrink(conn: Connection, mtu: int) -> None:
    """Send shorter segments from now on, and again at once what was too long; that is no congestion (RFC 1191, 6.4)."""
    now = conn.mss + IP_AND_TCP_HEADER
    if mtu == 0:
        mtu = next((plateau for plateau in _PLATEAUS if plateau < now), LEAST_PATH_MTU)
    mtu = max(mtu, LEAST_PATH_MTU)
    if mtu >= now or conn.state < State.ESTABLISHED:
        return
    conn.use_mss(mtu - IP_AND_TCP_HEADER)
    conn.flight.lose_longer(output.payload_limit(conn))
