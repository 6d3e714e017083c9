"""A connection: its transmission control block, without behaviour of its own but for what keeps it consistent.

    una ........ nxt ........ buffer_end       [una, nxt) is on its way, the rest was never sent; `buffer` begins
     └─ flight ──┘ └─ unsent ──┘                at `buffer_start`, which is `una` once the SYN is acknowledged

Source: RFC 9293, 3.3.1.
"""

from __future__ import annotations

from lamina_net.tcp.config import SocketOptions, TcpConfig
from lamina_net.tcp.connection.byte_queue import ByteQueue
from lamina_net.tcp.connection.congestion import NewReno, controller
from lamina_net.tcp.connection.flight import Flight
from lamina_net.tcp.connection.loss import Marking, Recovery
from lamina_net.tcp.connection.receive import Receiver
from lamina_net.tcp.connection.retransmission import RoundTrip
from lamina_net.tcp.counters import Repairs
from lamina_net.tcp.identity import FourTuple
from lamina_net.tcp.interface import Endpoint, Errno, Event, EventKind, Handle, Packet
from lamina_net.tcp.states import State

DEFAULT_MSS = 536
"""What a peer takes that does not say it. Source: RFC 9293, 3.7.1 (MUST-15)."""
LEAST_MSS = 48
"""Options take up to 40 bytes of a segment's room; shorter ones would carry nothing. Linux has the same bound."""
IP_AND_TCP_HEADER = 40


def our_mss(config: TcpConfig, mtu: int) -> int:
    """Return the payload that we take in a segment without options from a link with this MTU."""
    return max(LEAST_MSS, min(mtu - IP_AND_TCP_HEADER, config.max_segment))


class Outbox:
    """What a layer has to hand out: packets, events, connections whose timers or life changed."""

    __slots__ = ("events", "packets", "repairs", "retransmitted")

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.events: list[Event] = []
        self.retransmitted = 0
        self.repairs = Repairs()


class Connection:
    """One connection in any state but LISTEN. Times are ns of the caller's clock; a timer of 0 is off."""

    __slots__ = (
        "accepted", "ack_at", "ack_now", "ack_pending", "buffer", "buffer_start", "capacity", "challenge_from_ns",
        "challenges", "config", "congestion", "early_at", "end_at", "errno", "fin_queued", "fin_sent_at", "flight",
        "four", "handle", "heard_ns", "is_limited", "iss", "keepalive_at", "keepalive_sent", "last_ack_sent",
        "last_sent_ns", "listener", "marking", "max_window", "mss", "mtu", "nxt", "options", "orphaned", "out",
        "peer_mss", "probing", "progress_ns", "receiver", "recovery", "retransmit_at", "retransmitted", "round_trip",
        "scaling", "scheduled_at", "selective_ack", "send_shift", "soft_errno", "stamp_offset", "state", "timestamps",
        "ts_recent", "ts_recent_ns", "una", "urgent_end", "wants_room", "window", "wl1", "wl2",
    )  # fmt: skip

    def __init__(self, handle: Handle, four: FourTuple, config: TcpConfig, options: SocketOptions, out: Outbox) -> None:
        self.handle = handle
        self.four = four
        self.config = config
        self.options = options
        self.out = out
        self.state = State.CLOSED
        self.listener: Handle = 0
        self.accepted = True
        self.orphaned = False
        self.errno: Errno | None = None
        self.soft_errno: Errno | None = None
        self._begin_sending()
        self._begin_receiving()
        self._begin_timers()

    def _begin_sending(self) -> None:
        self.iss = self.una = self.nxt = self.buffer_start = 0
        self.window = self.max_window = self.wl1 = self.wl2 = self.send_shift = 0
        self.buffer = ByteQueue()
        self.capacity = self.config.buffer
        self.wants_room = False
        self.fin_queued = False
        self.fin_sent_at: int | None = None
        self.urgent_end = 0
        self.mtu = 0
        self.peer_mss = self.mss = DEFAULT_MSS
        self.flight = Flight()
        self.recovery = Recovery()
        self.round_trip = RoundTrip(self.config)
        self.congestion: NewReno = controller(self.options.congestion, DEFAULT_MSS)
        self.is_limited = False
        self.marking = Marking()
        self.retransmitted = 0

    def _begin_receiving(self) -> None:
        self.receiver = Receiver(self.config)
        self.ack_now = False
        self.ack_pending = 0
        self.last_ack_sent = 0
        self.timestamps = self.config.timestamps
        self.selective_ack = self.config.selective_ack
        self.scaling = self.config.window_scaling
        self.stamp_offset = self.ts_recent = self.ts_recent_ns = 0
        self.challenges = self.challenge_from_ns = 0

    def _begin_timers(self) -> None:
        self.retransmit_at = self.ack_at = self.keepalive_at = self.end_at = self.scheduled_at = 0
        self.early_at = 0
        """When a loss may be known, or is to be asked about, before the timeout (`tail`)."""
        self.probing = False
        self.keepalive_sent = 0
        self.heard_ns = self.progress_ns = self.last_sent_ns = 0

    @property
    def local(self) -> Endpoint:
        """Our end."""
        return Endpoint(self.four[0], self.four[1])

    @property
    def remote(self) -> Endpoint:
        """The peer's end."""
        return Endpoint(self.four[2], self.four[3])

    @property
    def our_mss(self) -> int:
        """The payload that we take in a segment without options, by our MTU."""
        return our_mss(self.config, self.mtu)

    @property
    def buffer_end(self) -> int:
        """The sequence number after the last byte that the user gave."""
        return self.buffer_start + len(self.buffer)

    @property
    def room(self) -> int:
        """Bytes that the send buffer takes; it grows with the congestion window."""
        wanted = min(2 * self.congestion.window, self.config.max_buffer)
        self.capacity = max(self.capacity, wanted)
        return self.capacity - len(self.buffer)

    def use_mss(self, limit: int) -> None:
        """Send payloads of at most `limit` bytes from now on."""
        self.mss = max(LEAST_MSS, min(limit, self.peer_mss, self.our_mss))
        self.congestion.resize(self.mss - (12 if self.timestamps else 0))

    def tell(self, kind: EventKind, errno: Errno | None = None) -> None:
        """Tell the user, if there is one, that something changed."""
        if self.accepted and not self.orphaned:
            self.out.events.append(Event(self.handle, kind, errno))

    def stop_timers(self) -> None:
        """Switch every timer off."""
        self.retransmit_at = self.ack_at = self.keepalive_at = self.end_at = self.early_at = 0

    def next_timer(self) -> int:
        """Return when the first timer that is on is due, 0 if none is."""
        first = 0
        for at in (self.retransmit_at, self.early_at, self.ack_at, self.keepalive_at, self.end_at):
            if at and (not first or at < first):
                first = at
        return first

    def drop_sending(self) -> None:
        """Forget what was to be sent: nobody will acknowledge it any more."""
        self.buffer = ByteQueue()
        self.flight = Flight()
        self.buffer_start = self.una = self.nxt

    def over(self, errno: Errno | None = None) -> None:
        """Enter CLOSED; with `errno` before its time. What was received stays readable."""
        if self.state is State.CLOSED:
            return
        was_open = self.state is not State.TIME_WAIT
        self.state = State.CLOSED
        self.stop_timers()
        self.drop_sending()
        self.ack_now = False
        self.ack_pending = 0
        if errno is not None:
            self.errno = errno
            self.tell(EventKind.ERROR, errno)
        elif was_open:
            self.tell(EventKind.CLOSED)
