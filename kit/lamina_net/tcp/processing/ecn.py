"""Marks of congestion instead of loss: asked for by SYNs, set by routers, echoed by the receiver, obeyed by the sender.

    SYN  ECE CWR ->      data ECT(0) ──router──> CE
    <- SYN ACK ECE       <- ACK ECE, until data with CWR come; the sender slows down once a round trip, and says CWR

Pure ACKs, retransmissions and window probes are never ECT. ECT(1) is not sent: RFC 8311 keeps it for others. A mark
means what a loss means; that is how RFC 3168 has it, and who counts marks has to agree with the peer first.
Source: RFC 3168, 6.1; RFC 8311, 4.
"""

from __future__ import annotations

from lamina_net.tcp.config import Ecn
from lamina_net.tcp.connection.control_block import Connection
from lamina_net.tcp.segment import ACK, CWR, ECE, Segment
from lamina_net.tcp.states import State

ECT_0 = 0b10
CE = 0b11
"""Both bits of ECN in the byte of DSCP and ECN. Source: RFC 3168, 5."""


def syn_flags(conn: Connection) -> int:
    """Return the flags that our SYN or SYN-ACK carries."""
    marking = conn.marking
    if conn.state is not State.SYN_SENT:
        return ECE if marking.is_on else 0
    marking.asked = conn.config.ecn is Ecn.ASK and not conn.retransmitted
    return ECE | CWR if marking.asked else 0


def take_syn(conn: Connection, segment: Segment) -> None:
    """Take what the peer's SYN, or its answer to ours, says."""
    said = segment.flags & (ECE | CWR)
    if segment.flags & ACK:
        conn.marking.is_on = conn.marking.asked and said == ECE
    else:
        conn.marking.is_on = conn.config.ecn is not Ecn.OFF and said == ECE | CWR


def take_mark(conn: Connection, segment: Segment, ecn: int) -> None:
    """Take a segment of the peer with the two bits of its packet. Source: RFC 3168, 6.1.3."""
    marking = conn.marking
    if not marking.is_on or not segment.payload:
        return
    if segment.flags & CWR:
        marking.echo = False
    if ecn == CE:
        conn.out.repairs.marks += 1
        if not marking.echo:
            conn.ack_now = True
        marking.echo = True


def take_echo(conn: Connection, acked: int, now_ns: int) -> None:
    """Slow down as for a loss when an ACK of `acked` numbers echoes a mark, once for each window. Source: 6.1.2."""
    if conn.recovery.phase or conn.una <= conn.marking.point:
        return  # slowed down in this window already
    conn.congestion.lost(min(conn.nxt - conn.una + acked, conn.congestion.window), now_ns)
    conn.out.repairs.slowed += 1
    slowed(conn)


def slowed(conn: Connection) -> None:
    """Remember that we have slowed down, for whatever reason."""
    if conn.marking.is_on:
        conn.marking.point = conn.nxt
        conn.marking.reduced = True


def flags_of(conn: Connection, fresh: bool) -> tuple[int, int]:
    """Return flags for a segment that is no SYN, and the bits of its packet; `fresh`: it carries bytes never sent."""
    marking = conn.marking
    flags = ECE if marking.echo else 0
    if not fresh:
        return flags, 0
    if marking.reduced:
        marking.reduced = False
        flags |= CWR
    return flags, ECT_0
