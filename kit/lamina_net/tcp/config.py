"""What can be set: of a layer, and of one connection."""

from __future__ import annotations

import enum
from dataclasses import dataclass

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


class Congestion(enum.StrEnum):
    """The congestion control of a connection."""

    CUBIC = "CUBIC"
    """RFC 9438."""
    NEWRENO = "NEWRENO"
    """RFC 5681 and RFC 6582."""


class Ecn(enum.StrEnum):
    """Whether routers may mark packets of connections instead of dropping them. Source: RFC 3168, 6.1.1."""

    OFF = "OFF"
    ACCEPT = "ACCEPT"
    """When the peer asks for it, as Linux does by default."""
    ASK = "ASK"
    """Asked for in every SYN but repeated ones, which some old router may have dropped for it."""


@dataclass(frozen=True, slots=True)
class TcpConfig:
    """What holds for a layer and all its connections. Times in ns, sizes in bytes.

    The bounds make the layer's memory at most `max_connections * 2 * max_buffer`, and in practice what is unread and
    unacknowledged. Beyond `syn_backlog` half-open connections a listener answers SYNs by cookies, which it need not
    remember; without `syn_cookies` it drops them, and their senders repeat them.
    """

    buffer: int = 256 * 1024
    """Size of a send buffer, and of a receive buffer to begin with."""
    max_buffer: int = 4 * 1024 * 1024
    """How far both grow with what a round trip carries. Equal to `buffer`: they do not."""
    max_connections: int = 16_384
    """Connections of any state; the oldest in TIME-WAIT that their users gave up make room for new ones."""
    max_time_wait: int = 4096
    syn_backlog: int = 256
    """Half-open connections of one listener."""
    syn_cookies: bool = True
    """Whether a full backlog goes on answering. Source: RFC 4987, 3.6."""
    max_ranges: int = 512
    """Ranges of bytes that wait out of order at one connection; further ones are dropped."""
    max_records: int = 16_384
    """Segments of one connection on their way, so that many short ones are not many records."""
    max_segment: int = 65_495
    """Bytes of payload in one segment, whatever the MTU."""
    burst: int = 0
    """Bytes of payload that leave as one packet, to be cut behind us (`Packet.segment_bytes`); 0: each leaves alone."""
    rto_initial_ns: int = SECOND
    """Source: RFC 6298, 2.1."""
    rto_min_ns: int = 200 * MILLISECOND
    """RFC 6298 (2.4) asks for 1 s, for clocks that tick with 500 ms; ours tick with 1 ns, and 200 ms is usual."""
    rto_max_ns: int = 60 * SECOND
    """Source: RFC 6298, 2.5."""
    delayed_ack_ns: int = 40 * MILLISECOND
    """Below 500 ms, and below the smallest retransmission timeout of the peer. Source: RFC 9293, MUST-40."""
    connect_timeout_ns: int = 180 * SECOND
    """How long SYNs are repeated. Source: RFC 9293, 3.8.3 (MUST-23)."""
    user_timeout_ns: int = 300 * SECOND
    """How long sent data may stay unacknowledged. Source: RFC 9293, 3.9.1.1."""
    msl_ns: int = 30 * SECOND
    """TIME-WAIT lasts twice this long. RFC 9293 says 2 min and allows less; 30 s is what is usual."""
    fin_wait_ns: int = 60 * SECOND
    """How long a closed connection waits in FIN-WAIT-2 for the peer's FIN."""
    keepalive_idle_ns: int = 7200 * SECOND
    """Source: RFC 9293, MUST-28."""
    keepalive_interval_ns: int = 75 * SECOND
    keepalive_probes: int = 9
    challenge_acks: int = 10
    """Challenge ACKs of one connection in a second; a limit for all would tell strangers. Source: RFC 5961, 7."""
    ecn: Ecn = Ecn.ACCEPT
    tail_probes: bool = True
    """Whether the end of what was sent is asked for before the timeout. Source: RFC 8985, 7."""
    spurious_timeouts: bool = True
    """Whether a timeout that turns out to be none is undone. Source: RFC 5682."""
    window_scaling: bool = True
    timestamps: bool = True
    selective_ack: bool = True
    first_ephemeral_port: int = 49_152
    last_ephemeral_port: int = 65_535


@dataclass(slots=True)
class SocketOptions:
    """What holds for one connection; a listener's hold for what it accepts."""

    nodelay: bool = False
    """Small segments are sent at once. Else they wait while data are on their way (Nagle). Source: RFC 9293, 3.7.4."""
    keepalive: bool = False
    user_timeout_ns: int = 0
    """0: the layer's."""
    congestion: Congestion = Congestion.CUBIC
    dscp: int = 0
    """0 to 63: the service that its packets ask for. Source: RFC 9293, MUST-48; RFC 2474."""
    ttl: int = 64
    """1 to 255: how many routers its packets pass. Source: RFC 9293, MUST-49."""

    @property
    def is_valid(self) -> bool:
        """Whether all of them lie in their ranges."""
        return self.user_timeout_ns >= 0 and 0 <= self.dscp < 64 and 0 < self.ttl < 256
