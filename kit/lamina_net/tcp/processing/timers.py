"""The timers of a connection: retransmission and probes, delayed ACK, keepalive, the end of waiting.

One wakeup serves all of a connection's timers; a timer that moved later lets it come early, and then it does nothing.
Source: RFC 6298, 5; RFC 9293, 3.8.6.1 (probes), 3.8.4 (keepalive), 3.8.3 (failures).
"""

from __future__ import annotations

from lamina_net.tcp.connection.control_block import Connection
from lamina_net.tcp.interface import Errno
from lamina_net.tcp.processing import output, recovery, tail_loss_probe
from lamina_net.tcp.segment import ACK
from lamina_net.tcp.states import State


def fire(conn: Connection, now_ns: int) -> None:
    """Do what is due at `now_ns`."""
    if conn.end_at and now_ns >= conn.end_at:
        conn.over()
        return
    if conn.early_at and now_ns >= conn.early_at:
        conn.early_at = 0
        if now_ns - conn.progress_ns < _limit(conn):
            tail_loss_probe.fire(conn, now_ns)  # first, as a probe takes the place of a timeout
        elif conn.flight.queue:
            conn.retransmit_at = now_ns  # the user's patience is at its end, which may have been cut short
    if conn.retransmit_at and now_ns >= conn.retransmit_at:
        conn.retransmit_at = 0
        _not_acknowledged(conn, now_ns)
    if conn.ack_at and now_ns >= conn.ack_at:
        conn.ack_at = 0
        conn.ack_now = True
    if conn.keepalive_at and now_ns >= conn.keepalive_at:
        conn.keepalive_at = 0
        _keep_alive(conn, now_ns)


def settle(conn: Connection, now_ns: int) -> None:
    """After anything happened: send what may be sent, acknowledge what must be, set the timers."""
    if conn.state in (State.CLOSED, State.TIME_WAIT):
        if conn.ack_now and conn.state is State.TIME_WAIT:
            output.acknowledge(conn, now_ns)
        return
    if conn.flight.queue or conn.buffer or conn.fin_queued:
        output.transmit(conn, now_ns)
    if conn.ack_now:
        output.acknowledge(conn, now_ns)
    elif conn.ack_pending and not conn.ack_at:
        conn.ack_at = now_ns + conn.config.delayed_ack_ns
    if not conn.retransmit_at and (conn.flight.queue or _waits_for_window(conn)):
        conn.retransmit_at = now_ns + _patience(conn, now_ns)
    if conn.selective_ack and conn.flight.queue and (not conn.early_at or conn.flight.overtaken_at):
        tail_loss_probe.arm(conn)
    if conn.options.keepalive and not conn.keepalive_at and conn.state >= State.ESTABLISHED:
        conn.keepalive_at = now_ns + conn.config.keepalive_idle_ns


def _waits_for_window(conn: Connection) -> bool:
    unsent = conn.buffer_end > conn.nxt or (conn.fin_queued and conn.fin_sent_at is None)
    return unsent and conn.state >= State.ESTABLISHED


def _limit(conn: Connection) -> int:
    """Return how long the peer may stay silent."""
    if conn.state in (State.SYN_SENT, State.SYN_RECEIVED):
        return conn.config.connect_timeout_ns
    return conn.options.user_timeout_ns or conn.config.user_timeout_ns


def _patience(conn: Connection, now_ns: int) -> int:
    """Return how long to wait for an acknowledgment: the timeout, but not beyond the user's."""
    if not conn.flight.queue:
        return conn.round_trip.timeout
    left = conn.progress_ns + _limit(conn) - now_ns
    return max(1, min(conn.round_trip.timeout, left))


def _not_acknowledged(conn: Connection, now_ns: int) -> None:
    """Send again what nobody acknowledged, or ask whether the window is still closed."""
    flight = conn.flight
    if flight.queue and now_ns - conn.progress_ns >= _limit(conn):
        conn.over(conn.soft_errno or Errno.TIMEDOUT)
        return
    if not flight.queue:
        if _waits_for_window(conn):
            _probe(conn, now_ns)
    elif conn.probing or (conn.window == 0 and conn.state >= State.ESTABLISHED):
        conn.probing = True
        head = flight.queue[0]
        if not head.lost:
            flight.lose(head)
        output.send_again(conn, head, now_ns)  # its answer tells how the window is
    else:
        recovery.on_timeout(conn, now_ns)
    conn.round_trip.back_off()


def _probe(conn: Connection, now_ns: int) -> None:
    """Send one byte, or FIN, beyond a closed window; into a small one what fits. Source: RFC 9293, MUST-36."""
    pending = conn.buffer_end - conn.nxt
    usable = conn.una + conn.window - conn.nxt
    size = min(pending, max(1, usable), output.payload_limit(conn))
    conn.probing = usable <= 0
    output.send_new_record(conn, size, size == 0, now_ns)


def _keep_alive(conn: Connection, now_ns: int) -> None:
    """Ask a silent peer whether it is still there. Source: RFC 9293, 3.8.4."""
    if not conn.options.keepalive or conn.state < State.ESTABLISHED:
        return
    config = conn.config
    due = conn.heard_ns + config.keepalive_idle_ns
    if now_ns < due or conn.flight.queue:
        conn.keepalive_sent = 0
        conn.keepalive_at = max(due, now_ns + config.keepalive_interval_ns)
        return
    if conn.keepalive_sent >= config.keepalive_probes:
        output.send_reset(conn, now_ns)
        conn.over(conn.soft_errno or Errno.TIMEDOUT)
        return
    conn.keepalive_sent += 1
    output.emit(conn, now_ns, conn.una - 1, ACK)
    conn.keepalive_at = now_ns + config.keepalive_interval_ns
