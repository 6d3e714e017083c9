"""How connections begin at a listener: a SYN makes a half-open one, its answer puts it before `accept`.

When the backlog of half-open ones is full, as in a flood of forged SYNs, each further SYN is answered by a cookie
(`cookies`): nothing is kept, and who really is there brings it back.

Source: RFC 9293, 3.10.7.2 to 3.10.7.4; RFC 4987.
"""

from __future__ import annotations

from dataclasses import replace

from lamina_net.tcp import cookies
from lamina_net.tcp.config import Ecn, SocketOptions, TcpConfig
from lamina_net.tcp.connection.control_block import Connection, Outbox, our_mss
from lamina_net.tcp.cookies import Offer
from lamina_net.tcp.counters import Counters
from lamina_net.tcp.identity import FourTuple, Identity
from lamina_net.tcp.interface import Event, EventKind, Packet
from lamina_net.tcp.processing import input, opening, output
from lamina_net.tcp.segment import ACK, CWR, ECE, RST, SYN, Options, Segment, build
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
        self, four: FourTuple, segment: Segment, now_ns: int, mtu: int, before: Connection | None, marks: int
    ) -> Connection | None:
        """Answer a segment that belongs to no connection, or that may follow one in TIME-WAIT; return what begins.

        `marks`: the two bits of ECN.
        """
        listener = self._table.listener(four[0], four[1])
        flags = segment.flags
        if listener is None or flags & ACK:
            if listener is not None and flags & (ACK | RST | SYN) == ACK and now_ns <= listener.cookies_until_ns:
                offer = cookies.recognized(self._identity, four, segment, now_ns)
                if offer is not None:
                    return self._returned(listener, four, segment, offer, now_ns, mtu, marks)
            self._counters.resets_for_nobody += not flags & RST
            output.reset_reply(self._out, four, segment)
            return None
        if flags & RST or not flags & SYN:
            return None
        is_flooded = len(listener.half_open) >= self._config.syn_backlog
        has_place = not listener.is_full and self._table.has_room()
        if not has_place or (is_flooded and (before is not None or not self._config.syn_cookies)):
            self._counters.syns_dropped += 1
            return None
        if is_flooded:
            self._answer_by_cookie(listener, four, segment, now_ns, mtu)
            return None
        least = 0
        if before is not None:
            # beyond whatever the peer may still take for the old one (RFC 1122, 4.2.2.13)
            least = before.nxt + 0x1_0000
            before.over()
            self._table.follow(before)
        return self._half_open(listener, four, segment, now_ns, mtu, least)

    def _answer_by_cookie(self, listener: Listener, four: FourTuple, syn: Segment, now_ns: int, mtu: int) -> None:
        """Answer a SYN as a connection would that does not offer more than a cookie holds."""
        config, offered = self._config, syn.options
        listener.cookies_until_ns = now_ns + cookies.LIFE_NS
        self._counters.cookies_sent += 1
        options = Options(our_mss(config, mtu))
        flags = SYN | ACK
        if config.timestamps and offered.timestamp is not None:
            is_ecn = config.ecn is not Ecn.OFF and syn.flags & (ECE | CWR) == ECE | CWR
            flags |= ECE if is_ecn else 0
            clock = output.stamp_at(self._identity.timestamp_offset(four), now_ns)
            scale = output.scale_for(config.max_buffer)
            options = options._replace(
                window_scale=scale if config.window_scaling and offered.window_scale is not None else None,
                sack_permitted=config.selective_ack and offered.sack_permitted,
                timestamp=(cookies.stamp(clock, syn, ecn=is_ecn), offered.timestamp[0]),
            )
        local, port, remote, remote_port = four
        window = min(config.buffer, 0xFFFF)
        number, after = cookies.number(self._identity, four, syn, now_ns), (syn.sequence + 1) & MASK
        answer = Segment(port, remote_port, number, after, flags, window, options=options)
        wanted = listener.options
        self._out.packets.append(Packet(local, remote, build(local, remote, answer), wanted.dscp << 2, wanted.ttl))

    def _returned(
        self, listener: Listener, four: FourTuple, answer: Segment, offer: Offer, now_ns: int, mtu: int, marks: int
    ) -> Connection | None:
        """Return the connection whose SYN-ACK was a cookie, established; None: there is no place, or it is none."""
        if listener.is_full or not self._table.has_room():
            return None  # the peer sends again
        conn = self.begun(four, State.SYN_RECEIVED, replace(listener.options), now_ns, mtu)
        opening.begin(conn, State.SYN_RECEIVED, (answer.acknowledgment - 1) & MASK, conn.stamp_offset, mtu)
        conn.listener, conn.accepted = listener.handle, False
        flags = SYN | (ECE | CWR if offer.ecn else 0)
        syn = Segment(four[3], four[1], (answer.sequence - 1) & MASK, 0, flags, answer.window, options=offer.options)
        opening.take_syn(conn, syn, now_ns)
        conn.nxt = conn.iss + 1
        conn.last_ack_sent = conn.receiver.nxt  # by the cookie
        input.arrive(conn, answer, now_ns, marks)
        if conn.state in (State.SYN_RECEIVED, State.CLOSED):
            conn.orphaned = True
            conn.over()
            self._table.follow(conn)
            return None
        self._counters.cookies_taken += 1
        self._wait_for_accept(listener, conn)
        return conn

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
            self._wait_for_accept(listener, conn)
        return True

    def _wait_for_accept(self, listener: Listener, conn: Connection) -> None:
        listener.queue.append(conn)
        self._out.events.append(Event(listener.handle, EventKind.ACCEPTABLE))

    def forget(self, conn: Connection) -> None:
        """Take a connection that never was established from its listener; nobody else knows it."""
        listener = self._table.by_handle.get(conn.listener)
        if isinstance(listener, Listener) and listener.half_open.pop(conn.handle, None) is not None:
            conn.orphaned = True
