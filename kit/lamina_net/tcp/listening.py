"""How connections begin at a listener: a SYN makes a half-open one, its answer puts it before `accept`.

Source: RFC 9293, 3.10.7.2 to 3.10.7.4.
"""

from __future__ import annotations

from dataclasses import replace

from lamina_net.tcp import input, opening, output
from lamina_net.tcp.config import SocketOptions, TcpConfig
from lamina_net.tcp.connection import Connection, Outbox
from lamina_net.tcp.counters import Counters
from lamina_net.tcp.identity import FourTuple, Identity
from lamina_net.tcp.interface import Event, EventKind
from lamina_net.tcp.segment import ACK, RST, SYN, Segment
from lamina_net.tcp.sequence import MASK
from lamina_net.tcp.states import State
from lamina_net.tcp.table import Listener, Table


class Listening:
    """What segments do at the listeners of a layer, whose parts it is given."""

    __slots__ = ("_config", "_counters", "_identity", "_out", "_table")

    def __init__(self, config: TcpConfig, identity: Identity, table: Table, out: Outbox, counters: Counters) -> None:
        self._config, self._identity, self._table = config, identity, table
        self._out, self._counters = out, counters

    def begun(self, four: FourTuple, state: State, options: SocketOptions, now_ns: int, mtu: int) -> Connection:
        """Return a new connection, which the table has."""
        conn = Connection(self._table.new_handle(), four, self._config, options, self._out)
        iss = self._identity.initial_sequence(four, now_ns)
        opening.begin(conn, state, iss, self._identity.timestamp_offset(four), mtu)
        self._table.add(conn)
        return conn

    def arrive(
        self, four: FourTuple, segment: Segment, now_ns: int, mtu: int, before: Connection | None
    ) -> Connection | None:
        """Answer a segment that belongs to no connection, or that may follow one in TIME-WAIT; return what begins."""
        listener = self._table.listener(four[0], four[1])
        if listener is None or segment.flags & ACK:
            self._counters.resets_for_nobody += not segment.flags & RST
            output.reset_reply(self._out, four, segment)
            return None
        if segment.flags & RST or not segment.flags & SYN:
            return None
        if listener.is_full or len(listener.half_open) >= self._config.syn_backlog or not self._table.has_room():
            self._counters.syns_dropped += 1
            return None
        least = 0
        if before is not None:
            # beyond whatever the peer may still take for the old one (RFC 1122, 4.2.2.13)
            least = before.nxt + 0x1_0000
            before.over()
            self._table.follow(before)
        return self._half_open(listener, four, segment, now_ns, mtu, least)

    def _half_open(
        self, listener: Listener, four: FourTuple, segment: Segment, now_ns: int, mtu: int, least: int
    ) -> Connection:
        conn = self.begun(four, State.SYN_RECEIVED, replace(listener.options), now_ns, mtu)
        if least and (conn.iss - least) & MASK >= 0x8000_0000:
            opening.begin(conn, State.SYN_RECEIVED, least & MASK, conn.stamp_offset, mtu)
        conn.listener = listener.handle
        conn.accepted = False
        listener.half_open[conn.handle] = conn
        opening.take_syn(conn, segment, now_ns)
        output.send_syn(conn, now_ns)
        return conn

    def answered(self, conn: Connection, segment: Segment, now_ns: int, marks: int) -> bool:
        """Follow a segment for a connection in SYN-RECEIVED; established, it waits for `accept`. False: ignored."""
        listener = self._table.by_handle.get(conn.listener)
        if not isinstance(listener, Listener):
            return False
        if listener.is_full and segment.flags & (ACK | RST | SYN) == ACK:
            return False  # the peer sends again, or we SYN-ACK
        input.arrive(conn, segment, now_ns, marks)
        if conn.state not in (State.SYN_RECEIVED, State.CLOSED):
            del listener.half_open[conn.handle]
            listener.queue.append(conn)
            self._out.events.append(Event(listener.handle, EventKind.ACCEPTABLE))
        return True

    def forget(self, conn: Connection) -> None:
        """Take a connection that never was established from its listener; nobody else knows it."""
        listener = self._table.by_handle.get(conn.listener)
        if isinstance(listener, Listener) and listener.half_open.pop(conn.handle, None) is not None:
            conn.orphaned = True
