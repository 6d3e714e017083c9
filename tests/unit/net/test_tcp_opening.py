"""How TCP opens: handshakes, refusals, backlogs, repeated SYNs."""

from __future__ import annotations

from tests.unit.net.tcp_script import PEER, PLAIN, US, Script

from lamina_net.tcp.config import TcpConfig
from lamina_net.tcp.interface import Endpoint, Errno, Refused
from lamina_net.tcp.layer import TcpLayer

HANDSHAKE = """
    +0  listen
    +0  < S 0 win 8000 mss 1000 sackOK
    +0  > SA 0 ack 1 mss 1000 sackOK
    +0  < A 1 ack 1 win 8000
    +0  accept
"""


def test_a_passive_open_shakes_hands() -> None:
    """SYN is answered by SYN-ACK with our options, its ACK establishes the connection (RFC 9293, 3.5)."""
    script = Script()
    script.expect(HANDSHAKE + "+0 ? state ESTABLISHED\n +0 ? events ACCEPTABLE\n +0 ? mss 1000")


def test_an_active_open_shakes_hands() -> None:
    """connect sends SYN; the SYN-ACK is acknowledged and told."""
    script = Script()
    script.expect("""
        +0    connect
        +0    > S 0 mss 1000 sackOK
        +0.1  < SA 0 ack 1 win 8000 mss 900
        +0    > A 1 ack 1
        +0    ? state ESTABLISHED
        +0    ? events CONNECTED
        +0    ? mss 900
        +0    ? smoothed_rtt_ns 100000000
    """)


def test_both_can_open_at_once() -> None:
    """SYNs that cross make one connection (RFC 9293, figure 7)."""
    script = Script()
    script.expect("""
        +0    connect
        +0    > S 0
        +0.1  < S 0 win 8000 mss 1000
        +0    > SA 0 ack 1
        +0    ? state SYN_RECEIVED
        +0.1  < SA 0 ack 1
        +0    > A 1 ack 1
    """)
    script.expect("+0.1 < A 1 ack 1\n +0 ? state ESTABLISHED\n +0 ? events CONNECTED")


def test_a_peer_without_options_gets_small_segments() -> None:
    """A SYN without an MSS means 536 bytes, without SACK, scale and timestamps (RFC 9293, MUST-15)."""
    script = Script(TcpConfig(), mtu=1500)
    script.expect("""
        +0  listen
        +0  < S 0 win 8000
        +0  > SA 0 ack 1 mss 1460
        +0  < A 1 ack 1 win 8000
        +0  accept
        +0  send 600
        +0  > A 1:537 ack 1
        +0  < A 1 ack 537
        +0  > A 537:601
        +0  < A 1 ack 601
    """)
    assert script.last.options.timestamp is None


def test_a_refused_connection_says_so() -> None:
    """RST in answer to our SYN ends the attempt with CONNREFUSED."""
    script = Script()
    script.expect("""
        +0  connect
        +0  > S 0
        +0  < RA 0 ack 1
        +0  ? events ERROR:CONNREFUSED
        +0  ? refused CONNREFUSED
        +0  ? gone
    """)


def test_a_reset_for_another_number_is_no_refusal() -> None:
    """A RST whose ACK does not cover our SYN is dropped (RFC 9293, 3.10.7.3)."""
    script = Script()
    script.expect("+0 connect\n +0 > S 0\n +0 < RA 0 ack 0\n +0 < R 0\n +0 ? state SYN_SENT")


def test_an_old_answer_is_reset() -> None:
    """An ACK of what we never sent in SYN-SENT is answered by RST with that number (RFC 9293, figure 9)."""
    script = Script()
    script.expect("""
        +0    connect
        +0    > S 0
        +0    < SA 0 ack 500
        +0    > R 500
        +0    ? state SYN_SENT
    """)


def test_a_syn_is_repeated_until_its_time_is_over() -> None:
    """SYNs go after 1, 2, 4 … s; after `connect_timeout_ns` the attempt ends with TIMEDOUT."""
    script = Script(TcpConfig(timestamps=False, connect_timeout_ns=5_000_000_000))
    script.expect("""
        +0  connect
        +0  > S 0
        +1  > S 0
        +2  > S 0
        +2  wait
        +0  ? events ERROR:TIMEDOUT
        +0  ? gone
    """)


def test_a_lost_syn_makes_a_careful_sender() -> None:
    """After a repeated SYN the first window is one segment and the timeout 3 s (RFC 5681, 3.1; RFC 6298, 5.7)."""
    script = Script()
    script.expect("""
        +0    connect
        +0    > S 0
        +1    > S 0
        +0.1  < SA 0 ack 1 win 8000 mss 1000
        +0    > A 1 ack 1
        +0    ? congestion_window 1000
        +0    ? rto_ns 3000000000
    """)


def test_a_repeated_syn_gets_the_same_answer() -> None:
    """The peer did not get our SYN-ACK and sends its SYN again; the SYN-ACK goes again, by the timer too."""
    script = Script()
    script.expect("""
        +0    listen
        +0    < S 0 win 8000 mss 1000
        +0    > SA 0 ack 1
        +0.5  < S 0 win 8000 mss 1000
        +0    > SA 0 ack 1
        +0.5  > SA 0 ack 1
        +0    < A 1 ack 1
        +0    ? events ACCEPTABLE
    """)


def test_a_wrong_first_ack_is_reset() -> None:
    """An ACK in SYN-RECEIVED that does not cover our SYN is answered by RST (RFC 9293, 3.10.7.4, fifth)."""
    script = Script()
    script.expect("""
        +0  listen
        +0  < S 0 win 8000 mss 1000
        +0  > SA 0 ack 1
        +0  < A 1 ack 77
        +0  > R 77
        +0  ? events
    """)


def test_a_reset_forgets_a_half_open_connection() -> None:
    """RST in SYN-RECEIVED returns to LISTEN: nobody hears of it."""
    script = Script()
    script.expect("""
        +0  listen
        +0  < S 0 win 8000 mss 1000
        +0  > SA 0 ack 1
        +0  < R 1
        +0  ? gone
        +0  ? events
    """)


def test_nobody_listens() -> None:
    """A segment for nobody is answered by RST: with its ACK's number, or acknowledging it (RFC 9293, 3.10.7.1)."""
    script = Script()
    script.expect("""
        +0  < S 0 win 8000
        +0  > RA 0 ack 1
        +0  < A 0:10 ack 7
        +0  > R 7
        +0  < R 0
        +0  < FA 5 ack 9
        +0  > R 9
    """)


def test_a_full_backlog_drops_syns() -> None:
    """Without cookies no more than `syn_backlog` half-open connections are answered; the peer's repetition may be."""
    script = Script(TcpConfig(timestamps=False, syn_backlog=2, syn_cookies=False))
    script.expect("+0 listen")
    for port in (5000, 5001, 5002):
        script.peer_port = port
        script.expect("+0 < S 0 win 8000" + ("\n +0 > SA 0 ack 1" if port < 5002 else ""))
    assert script.layer.counters.syns_dropped == 1
    assert len(script.layer.connections()) == 2


def test_half_open_connections_end() -> None:
    """Whoever never acknowledges our SYN-ACK is forgotten, and makes room."""
    script = Script(TcpConfig(timestamps=False, connect_timeout_ns=2_000_000_000))
    script.expect("""
        +0  listen
        +0  < S 0 win 8000
        +0  > SA 0 ack 1
        +1  > SA 0 ack 1
        +1  wait
        +0  ? gone
        +0  ? events
    """)


def test_a_full_accept_queue_waits() -> None:
    """With a full queue the last ACK is not heard; after an accept the repeated SYN-ACK finds its answer."""
    script = Script(backlog=1)
    script.expect("+0 listen\n +0 < S 0 win 8000\n +0 > SA 0 ack 1")
    first = script.isn
    script.peer_port = 5001
    script.expect("+0 < S 0 win 8000\n +0 > SA 0 ack 1\n +0 < A 1 ack 1")
    script.peer_port, script.isn, second = 5000, first, script.isn
    script.expect("+0 < A 1 ack 1\n +0 ? events ACCEPTABLE")
    script.expect("+1 > SA 0 ack 1\n +0 accept")
    assert script.isn == first != second
    script.expect("+0 < A 1 ack 1\n +0 ? events ACCEPTABLE\n +0 accept\n +0 ? state ESTABLISHED")


def test_who_is_not_accepted_is_reset_with_the_listener() -> None:
    """Closing a listener resets half-open and waiting connections."""
    script = Script()
    script.expect("+0 listen\n +0 < S 0 win 8000\n +0 > SA 0 ack 1\n +0 < A 1 ack 1")
    script.handle = script.listener
    script.expect("+0 close\n +0 > RA 1 ack 1\n +0 ? gone")


def test_initial_numbers_differ_by_peer_and_grow_with_time() -> None:
    """Initial numbers are a keyed hash of the four-tuple plus a clock of 4 µs (RFC 6528, 3)."""

    def first_number(seed: bytes, peer: int, now_ns: int) -> int:
        layer = TcpLayer(PLAIN, seed)
        layer.connect(US, Endpoint(peer, 80), now_ns, port=4000)
        return int.from_bytes(layer.drain().packets[0].data[4:8], "big")

    base = first_number(b"a", PEER, 0)
    assert (first_number(b"a", PEER, 4_000_000) - base) % 2**32 == 1000
    assert len({base, first_number(b"a", PEER + 1, 0), first_number(b"b", PEER, 0)}) == 3


def test_ephemeral_ports_are_not_used_twice() -> None:
    """Each connection to one peer gets its own port, in another order for each seed, until there are none."""
    orders = []
    for seed in (b"a", b"b"):
        layer = TcpLayer(TcpConfig(first_ephemeral_port=60_000, last_ephemeral_port=60_009), seed)
        made = [layer.connect(US, Endpoint(PEER, 80), 0) for _ in range(11)]
        assert made[10] == Refused(Errno.ADDRNOTAVAIL)
        ports = [int.from_bytes(packet.data[:2], "big") for packet in layer.drain().packets]
        assert sorted(ports) == list(range(60_000, 60_010))
        orders.append(ports)
    assert orders[0] != orders[1]


def test_connections_are_bounded() -> None:
    """Beyond `max_connections` calls are refused and SYNs dropped."""
    layer = TcpLayer(TcpConfig(max_connections=2), b"")
    assert layer.connect(US, Endpoint(PEER, 1), 0) == 1
    assert layer.listen(Endpoint(0, 80)) == 2
    assert layer.connect(US, Endpoint(PEER, 2), 0) == Refused(Errno.NOBUFS)
    assert layer.listen(Endpoint(0, 81)) == Refused(Errno.NOBUFS)


def test_who_gives_up_before_accept_is_still_accepted() -> None:
    """A connection that was reset in the queue is given out: its bytes can be read, then the error."""
    script = Script()
    script.expect("""
        +0  listen
        +0  < S 0 win 8000
        +0  > SA 0 ack 1
        +0  < A 1:11 ack 1
        +0  < R 11
        +0  ? events ACCEPTABLE
        +0  accept
        +0  ? events READABLE ERROR:CONNRESET
        +0  recv 10
        +0  ? refused CONNRESET
        +0  ? gone
    """)
