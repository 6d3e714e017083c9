"""TCP as its user sees it: `TcpLayer`. The calls are listed in `interface.py`; nothing in here waits, sleeps or draws.

A call, segment or timer changes one connection (`calls`, `input`, `timers`); then `_after` sends what is due and notes
when the connection must be looked at again. Wakeups lie in one heap and may come early, never late.
"""

from __future__ import annotations

from dataclasses import replace

from lamina_net.packets import ipv4
from lamina_net.packets.refusal import Refusal
from lamina_net.tcp.config import SocketOptions, TcpConfig
from lamina_net.tcp.connection.control_block import Connection, Outbox
from lamina_net.tcp.counters import Counters, Repairs
from lamina_net.tcp.identity import Identity
from lamina_net.tcp.interface import (
    Endpoint,
    Errno,
    EventKind,
    Handle,
    IcmpKind,
    Output,
    Readiness,
    Refused,
    Status,
)  # fmt: skip
from lamina_net.tcp.processing import calls, ecn, input, opening, output, timers
from lamina_net.tcp.processing.listening import Listening
from lamina_net.tcp.segment import Segment, parse
from lamina_net.tcp.states import State
from lamina_net.tcp.table import Listener, Table
from lamina_net.tcp.wakeups import Wakeups

_QUOTED = 8
"""Bytes of a segment that an ICMP error quotes at least: ports and number. Source: RFC 792."""


class TcpLayer:
    """All listeners and connections of a stack. `seed`: bytes that strangers do not know; `now_ns` only grows."""

    def __init__(self, config: TcpConfig, seed: bytes) -> None:
        self.config = config
        self.counters = Counters()
        identity = Identity(seed)
        self._table = Table(config, identity)
        self._out = Outbox()
        self._listening = Listening(config, identity, self._table, self._out, self.counters)
        self._held: dict[Handle, Connection] | None = None
        self._wakeups = Wakeups(self._table.by_handle)

    # What comes out

    @property
    def next_wakeup_ns(self) -> int | None:
        """When `timer` wants to be called, None if never. It may turn out that nothing is due then."""
        return self._wakeups.first()

    @property
    def repairs(self) -> Repairs:
        """What was done about loss since the start."""
        return self._out.repairs

    @property
    def retransmitted(self) -> int:
        """Segments that were sent again since the start."""
        return self._out.retransmitted

    def hold(self) -> None:
        """Let what is due in answer to segments wait for `release`, so that many are answered together.

        Only connections in ESTABLISHED whose bytes come in order wait: else it is answered at once.
        """
        self._held = {} if self._held is None else self._held

    def release(self, now_ns: int) -> None:
        """Send what has waited since `hold`."""
        held, self._held = self._held, None
        for conn in (held or {}).values():
            self._after(conn, now_ns)

    def drain(self) -> Output:
        """Return and forget what came about since the last time."""
        out = self._out
        result = Output(out.packets, out.events)
        self.counters.sent += len(out.packets)
        out.packets, out.events = [], []
        return result

    # What comes from the network and the clock

    def segment(
        self, src: int, dst: int, data: bytes, now_ns: int, mtu: int = 1500, *, verify: bool = True, tos: int = 0
    ) -> None:
        """Take the payload of an IPv4 packet from `src` to `dst` (ours). `mtu`: of the interface it came through.

        Any bytes may come; what cannot be parsed is counted by its reason. `verify`: whether to check the checksum.
        `tos`: the packet's byte of DSCP and ECN.
        """
        self.counters.received += 1
        parsed = parse(src, dst, data, verify=verify)
        if isinstance(parsed, Refusal):
            refused = self.counters.refused
            refused[parsed] = refused.get(parsed, 0) + 1
            return
        four = (dst, parsed.destination_port, src, parsed.source_port)
        conn = self._table.by_four.get(four)
        if conn is None or (conn.state is State.TIME_WAIT and self._may_reuse(conn, parsed)):
            begun = self._listening.arrive(four, parsed, now_ns, mtu, conn, tos & 3)
            if begun is not None:
                self._after(begun, now_ns)
        elif conn.state is State.SYN_RECEIVED and conn.listener:
            if self._listening.answered(conn, parsed, now_ns, tos & 3):
                self._after(conn, now_ns)
        else:
            waits = self._held is not None and input.is_next(conn, parsed)
            if self._held and not waits and self._held.pop(conn.handle, None) is not None:
                self._after(conn, now_ns)  # what waits is answered by itself, so that this one brings a duplicate
            input.arrive(conn, parsed, now_ns, tos & 3)
            if self._held is not None and waits and conn.state is State.ESTABLISHED:
                self._held[conn.handle] = conn
            else:
                self._after(conn, now_ns)

    def run(self, packet: ipv4.Packet, payload: bytes, count: int, now_ns: int) -> bool:
        """Take `count` segments that go on where the one before ends: `packet` is the first, `payload` that of all.

        They differ in nothing else and their checksums are right. All that answering them together could not tell from
        answering each is taken, between `hold` and `release`; False: nothing was, let them come one by one.
        """
        segment = parse(packet.src, packet.dst, packet.payload, verify=False)
        if isinstance(segment, Refusal) or packet.tos & ecn.CE == ecn.CE or self._held is None:
            return False
        conn = self._table.by_four.get((packet.dst, segment.destination_port, packet.src, segment.source_port))
        if conn is None or not input.may_be_run(conn, segment, len(payload), now_ns):
            return False
        self.counters.received += count
        input.arrive(conn, segment._replace(payload=payload), now_ns, packet.tos & 3)
        conn.wl1 += len(payload) - len(segment.payload)  # the window is the last one's
        conn.ack_now = True  # as after any two
        self._held[conn.handle] = conn
        return True

    def icmp_error(self, src: int, dst: int, quoted: bytes, kind: IcmpKind, now_ns: int, mtu: int = 0) -> None:
        """Take an ICMP error about a packet from `src` (ours) to `dst`; `quoted` is what it quotes after the IP header.

        `mtu`: of the next hop, for TOO_BIG; 0 where the router does not say it.
        """
        if len(quoted) < _QUOTED:
            return
        four = (src, int.from_bytes(quoted[:2], "big"), dst, int.from_bytes(quoted[2:4], "big"))
        conn = self._table.by_four.get(four)
        if conn is not None:
            calls.icmp_error(conn, int.from_bytes(quoted[4:8], "big"), kind, mtu)
            self._after(conn, now_ns)

    def timer(self, now_ns: int) -> None:
        """Do what is due at `now_ns`."""
        while (conn := self._wakeups.due(now_ns)) is not None:
            timers.fire(conn, now_ns)
            self._after(conn, now_ns)

    # Calls: opening

    def listen(self, local: Endpoint, backlog: int = 128, options: SocketOptions | None = None) -> Handle | Refused:
        """Wait for SYNs to `local`, for all addresses where its address is 0. ADDRINUSE, INVAL, NOBUFS."""
        if not 0 < local.port <= 0xFFFF or backlog < 1:
            return Refused(Errno.INVAL)
        if local in self._table.listeners:
            return Refused(Errno.ADDRINUSE)
        if not self._table.has_room():
            return Refused(Errno.NOBUFS)
        listener = Listener(self._table.new_handle(), local, backlog, replace(options) if options else SocketOptions())
        self._table.listeners[local] = listener
        self._table.by_handle[listener.handle] = listener
        return listener.handle

    def connect(
        self,
        address: int,
        remote: Endpoint,
        now_ns: int,
        mtu: int = 1500,
        *,
        port: int = 0,
        options: SocketOptions | None = None,
    ) -> Handle | Refused:
        """Begin a connection from `address` to `remote`; CONNECTED or ERROR tells how it went.

        `port` 0 chooses an ephemeral one. INVAL, ADDRINUSE, ADDRNOTAVAIL, NOBUFS.
        """
        if not 0 < remote.port <= 0xFFFF or not 0 <= port <= 0xFFFF:
            return Refused(Errno.INVAL)
        if not self._table.has_room():
            return Refused(Errno.NOBUFS)
        port = port or self._table.free_port(address, remote)
        if port == 0:
            return Refused(Errno.ADDRNOTAVAIL)
        four = (address, port, remote.address, remote.port)
        if four in self._table.by_four:
            return Refused(Errno.ADDRINUSE)
        opened = replace(options) if options else SocketOptions()
        conn = self._listening.begun(four, State.SYN_SENT, opened, now_ns, mtu)
        output.send_syn(conn, now_ns)
        self._after(conn, now_ns)
        return conn.handle

    def accept(self, handle: Handle) -> Handle | Refused:
        """Return the connection that waits longest. AGAIN: none does. What came meanwhile is told by an event."""
        listener = self._table.by_handle.get(handle)
        if not isinstance(listener, Listener):
            return Refused(Errno.INVAL if listener else Errno.BADF)
        if not listener.queue:
            return Refused(Errno.AGAIN)
        conn = listener.queue.popleft()
        conn.accepted = True
        if conn.receiver.ready or conn.receiver.finished:
            conn.tell(EventKind.READABLE)
        if conn.errno is not None:
            conn.tell(EventKind.ERROR, conn.errno)
        return conn.handle

    # Calls: transfer

    def send(self, handle: Handle, data: bytes, now_ns: int, *, urgent: bool = False) -> int | Refused:
        """Take bytes to send, as many as there is room for; see `calls.send`."""
        conn = self._connection(handle)
        if isinstance(conn, Refused):
            return conn
        result = calls.send(conn, data, urgent)
        if isinstance(result, int):
            self._after(conn, now_ns)
        return result

    def recv(self, handle: Handle, size: int, now_ns: int) -> bytes | Refused:
        """Return up to `size` bytes that came; see `calls.recv`."""
        conn = self._connection(handle)
        if isinstance(conn, Refused):
            return conn
        result = calls.recv(conn, size)
        if conn.ack_now:
            self._after(conn, now_ns)
        return result

    # Calls: closing

    def shutdown(self, handle: Handle, now_ns: int) -> Refused | None:
        """Close our half; see `calls.shutdown`."""
        conn = self._connection(handle)
        if isinstance(conn, Refused):
            return conn
        result = calls.shutdown(conn)
        self._after(conn, now_ns)
        return result

    def close(self, handle: Handle, now_ns: int) -> Refused | None:
        """Give up a handle. A connection ends in its own time; a listener resets whoever was not accepted."""
        if isinstance(listener := self._table.by_handle.get(handle), Listener):
            self._close_listener(listener, now_ns)
            return None
        conn = self._connection(handle)
        if isinstance(conn, Refused):
            return conn
        calls.close(conn, now_ns)
        self._after(conn, now_ns)
        return None

    def abort(self, handle: Handle, now_ns: int) -> Refused | None:
        """Reset a connection and give up its handle."""
        conn = self._connection(handle)
        if isinstance(conn, Refused):
            return conn
        conn.orphaned = True
        calls.abort(conn, now_ns)
        self._after(conn, now_ns)
        return None

    # Calls: looking

    def poll(self, handle: Handle) -> Readiness | Refused:
        """Return what calls would find now; a listener is readable when somebody waits for `accept`."""
        if isinstance(listener := self._table.by_handle.get(handle), Listener):
            return Readiness(readable=bool(listener.queue))
        conn = self._connection(handle)
        return conn if isinstance(conn, Refused) else calls.readiness(conn)

    def status(self, handle: Handle) -> Status | Refused:
        """Return how a connection is. INVAL for a listener."""
        conn = self._connection(handle)
        return conn if isinstance(conn, Refused) else calls.status(conn)

    def set_options(
        self,
        handle: Handle,
        now_ns: int,
        *,
        nodelay: bool | None = None,
        keepalive: bool | None = None,
        user_timeout_ns: int | None = None,
        dscp: int | None = None,
        ttl: int | None = None,
    ) -> Refused | None:
        """Change options of a connection, or of what a listener will accept; None leaves one as it is.

        BADF. INVAL: one that is out of its range.
        """
        listener = self._table.by_handle.get(handle)
        holder = listener if isinstance(listener, Listener) else self._connection(handle)
        if isinstance(holder, Refused):
            return holder
        now = holder.options
        wanted = replace(
            now,
            nodelay=now.nodelay if nodelay is None else nodelay,
            keepalive=now.keepalive if keepalive is None else keepalive,
            user_timeout_ns=now.user_timeout_ns if user_timeout_ns is None else user_timeout_ns,
            dscp=now.dscp if dscp is None else dscp,
            ttl=now.ttl if ttl is None else ttl,
        )
        if not wanted.is_valid:
            return Refused(Errno.INVAL)
        holder.options = wanted
        if isinstance(holder, Connection):
            if not wanted.keepalive:
                holder.keepalive_at = 0
            self._after(holder, now_ns)
        return None

    def connections(self) -> list[Handle]:
        """Return the handles of all connections that are not over, given up or not, in the order of their beginning."""
        return sorted(conn.handle for conn in self._table.by_four.values())

    # Inside

    def _connection(self, handle: Handle) -> Connection | Refused:
        conn = self._table.by_handle.get(handle)
        if isinstance(conn, Listener):
            return Refused(Errno.INVAL)
        if conn is None or conn.orphaned or not conn.accepted:
            return Refused(Errno.BADF)
        return conn

    def _after(self, conn: Connection, now_ns: int) -> None:
        timers.settle(conn, now_ns)
        if conn.state in (State.CLOSED, State.TIME_WAIT):
            if not conn.accepted:
                self._listening.forget(conn)
            self._table.follow(conn)
        self._wakeups.schedule(conn)

    def _may_reuse(self, conn: Connection, segment: Segment) -> bool:
        return opening.is_newer(conn, segment) and self._table.listener(conn.four[0], conn.four[1]) is not None

    def _close_listener(self, listener: Listener, now_ns: int) -> None:
        del self._table.listeners[listener.local], self._table.by_handle[listener.handle]
        for conn in [*listener.half_open.values(), *listener.queue]:
            conn.orphaned = True
            calls.abort(conn, now_ns)
            self._after(conn, now_ns)
