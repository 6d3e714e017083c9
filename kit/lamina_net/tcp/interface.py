"""What TCP and its user say to each other: addresses, packets, events, results. See ADR 0036.

The user is the stack (`lamina_net.stack`), or a test. All of it is synchronous and pure: a call, a segment or a timer
goes into `TcpLayer` with the instant `now_ns`; afterwards `drain()` gives the packets to send and the events, in the
order in which they came about, and `next_wakeup_ns` says when `timer(now_ns)` is due.

    tcp = TcpLayer(TcpConfig(), seed=b"any bytes")
    listener = tcp.listen(Endpoint(0, 80), backlog=16)                       # -> Handle | Refused
    handle = tcp.connect(address, Endpoint(peer, 80), now_ns, mtu=1500)      # -> Handle | Refused
    tcp.segment(src, dst, segment_bytes, now_ns, mtu=1500)                   # an IPv4 payload with protocol 6
    tcp.icmp_error(src, dst, quoted_segment, kind, now_ns, mtu=0)            # quoted: at least its first 8 bytes
    tcp.timer(now_ns)                                                        # when now_ns >= tcp.next_wakeup_ns
    packets, events = tcp.drain()

    tcp.accept(listener)                  # -> Handle | Refused(AGAIN)
    tcp.send(handle, data, now_ns)        # -> bytes taken | Refused(AGAIN when the buffer is full)
    tcp.recv(handle, size, now_ns)        # -> bytes, b"" at the end of the stream | Refused(AGAIN when there is none)
    tcp.shutdown(handle, now_ns)          # closes our half: FIN after what was sent
    tcp.close(handle, now_ns)             # the handle ends at once, the connection in its own time
    tcp.abort(handle, now_ns)             # RST
    tcp.poll(handle)                      # -> Readiness: level-triggered
    tcp.status(handle)                    # -> Status | Refused
    tcp.set_options(handle, now_ns, nodelay=True)

An event says that something changed (edge-triggered); `poll` says how it is.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from lamina_net.tcp.states import State

Handle = int
"""Names a listener or a connection, from 1 on, never used twice."""


class Endpoint(NamedTuple):
    """One end of a connection: `address` an IPv4 address of 32 bits (0 listens on all), `port` 0..65535."""

    address: int
    port: int


class Packet(NamedTuple):
    """A segment to send: addresses of 32 bits, `data` header and payload with a right checksum.

    `tos` is the byte of DSCP and ECN, `ttl` the time to live. The stack sets Don't Fragment, so that a path's MTU comes
    back as `IcmpKind.TOO_BIG`. With `segment_bytes` it is several segments in one, of so many bytes of payload each: a
    device, or `lamina_net.offload`, cuts it, and its checksum is that of the pseudo header only.
    """

    src: int
    dst: int
    data: bytes
    tos: int = 0
    ttl: int = 64
    segment_bytes: int = 0


class Errno(enum.StrEnum):
    """Why a call was refused or a connection ended, by the names of errno(3) without the E."""

    AGAIN = "AGAIN"
    """Nothing to read, no room to write, nobody to accept: wait for an event."""
    BADF = "BADF"
    """The handle is unknown, or closed."""
    INVAL = "INVAL"
    """The call does not fit the kind of handle, or an argument is out of its range."""
    ADDRINUSE = "ADDRINUSE"
    """Somebody listens there, or the four-tuple has a connection."""
    ADDRNOTAVAIL = "ADDRNOTAVAIL"
    """No ephemeral port is free."""
    NOBUFS = "NOBUFS"
    """The layer has `max_connections`."""
    NOTCONN = "NOTCONN"
    """Not connected yet, or not any more."""
    PIPE = "PIPE"
    """Our half is closed: nothing more can be sent."""
    CONNREFUSED = "CONNREFUSED"
    """The peer answered our SYN with RST."""
    CONNRESET = "CONNRESET"
    """The peer sent RST."""
    CONNABORTED = "CONNABORTED"
    """We aborted."""
    TIMEDOUT = "TIMEDOUT"
    """The peer did not answer in time."""
    HOSTUNREACH = "HOSTUNREACH"
    """ICMP, or the stack, says that there is no way to the host."""
    NETUNREACH = "NETUNREACH"
    """ICMP, or the stack, says that there is no way to the network."""
    MSGSIZE = "MSGSIZE"
    """A datagram is longer than can be sent. TCP never says so, nor what follows."""
    DESTADDRREQ = "DESTADDRREQ"
    """A datagram without destination, on a socket that is not connected."""
    ISCONN = "ISCONN"
    """The socket has a peer already."""
    ACCES = "ACCES"
    """A broadcast, on a socket that was not allowed to."""


class Refused(NamedTuple):
    """A call that was not done, and why. Nothing changed."""

    errno: Errno


class EventKind(enum.StrEnum):
    """What changed for a handle."""

    CONNECTED = "CONNECTED"
    """A connection that `connect` began is established; it is writable."""
    ACCEPTABLE = "ACCEPTABLE"
    """A connection waits at this listener for `accept`."""
    READABLE = "READABLE"
    """Bytes came, or the end of the stream."""
    WRITABLE = "WRITABLE"
    """The send buffer, which had refused bytes, takes some again."""
    ERROR = "ERROR"
    """The connection ended before its time; `Event.errno` says why. What was received can still be read."""
    URGENT = "URGENT"
    """The peer says that urgent data come; `Status.urgent_ahead` tells how many bytes. Source: RFC 9293, MUST-32."""
    CLOSED = "CLOSED"
    """The connection is over (CLOSED or TIME-WAIT) in order: everything that was sent is acknowledged."""


class Event(NamedTuple):
    """Something changed for `handle`."""

    handle: Handle
    kind: EventKind
    errno: Errno | None = None


class Output(NamedTuple):
    """What came about since the last `drain`, each in its order."""

    packets: list[Packet]
    events: list[Event]


class Readiness(NamedTuple):
    """What a call would find now. `hangup`: the connection is over; `error`: why, if not in order."""

    readable: bool = False
    writable: bool = False
    hangup: bool = False
    error: Errno | None = None


class IcmpKind(enum.StrEnum):
    """What an ICMP error says about a segment of ours. Source: RFC 1122, 4.2.3.9; RFC 5461; RFC 5927."""

    TOO_BIG = "TOO_BIG"
    """Fragmentation needed; with the next hop's MTU, or 0 where the router does not say it."""
    PORT_UNREACHABLE = "PORT_UNREACHABLE"
    """Port or protocol unreachable: refuses a connection that is being opened, else a hint."""
    HOST_UNREACHABLE = "HOST_UNREACHABLE"
    """A hint: kept, and told if the connection then times out."""
    NETWORK_UNREACHABLE = "NETWORK_UNREACHABLE"
    """A hint, as HOST_UNREACHABLE."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a connection is. Lengths in bytes, times in ns."""

    state: State
    local: Endpoint
    remote: Endpoint
    errno: Errno | None
    soft_errno: Errno | None
    """The last hint of ICMP: an error only if the connection fails."""
    unread: int
    """Bytes that `recv` would give."""
    unsent: int
    """Bytes that were never sent."""
    unacknowledged: int
    """Sequence numbers on their way: bytes, and SYN and FIN with one each."""
    mss: int
    """The longest payload that is sent now."""
    send_window: int
    """What the peer takes beyond what it has acknowledged."""
    receive_window: int
    """What we take beyond what we have acknowledged."""
    congestion_window: int
    slow_start_threshold: int
    smoothed_rtt_ns: int
    """0 before the first sample."""
    rto_ns: int
    retransmitted: int
    """Segments that were sent again."""
    urgent_ahead: int
    """Bytes to read until the urgent data end, 0 if there are none. Source: RFC 6093, 3.1: they stay in the stream."""
