"""How TCP receives and holds back: acknowledgments, windows, probes, Nagle, buffers."""

from __future__ import annotations

from tests.unit.net.tcp_script import Script
from tests.unit.net.test_tcp_closing import opened
from tests.unit.net.test_tcp_opening import HANDSHAKE

from lamina_net.tcp.config import SECOND, SocketOptions, TcpConfig
from lamina_net.tcp.interface import Errno, Readiness, Refused

NODELAY = SocketOptions(nodelay=True)


def small(buffer: int = 4000) -> TcpConfig:
    """Returns a configuration with a small buffer that does not grow."""
    return TcpConfig(timestamps=False, window_scaling=False, buffer=buffer, max_buffer=buffer)


# Receiving


def test_every_second_segment_is_acknowledged() -> None:
    """One segment waits 40 ms for an ACK, the second gets it at once (RFC 1122, 4.2.3.2)."""
    script = opened()
    script.expect("""
        +0     < A 1:1001 ack 1
        +0.04  > A 1 ack 1001
        +0     < A 1001:2001 ack 1
        +0     < A 2001:3001 ack 1
        +0     > A 1 ack 3001
    """)


def test_bytes_carry_the_acknowledgment() -> None:
    """What we send meanwhile takes the ACK along, and the timer is off."""
    script = opened()
    script.expect("+0 < A 1:101 ack 1\n +0 send 10\n +0 > A 1:11 ack 101\n +0.1 < A 101 ack 11\n +1 wait")


def test_a_gap_is_told_at_once() -> None:
    """Out of order: a duplicate ACK with SACK, newest block first; the gap filled: an ACK at once (RFC 5681, 4.2)."""
    script = opened()
    script.expect("""
        +0  < A 1001:2001 ack 1
        +0  > A 1 ack 1 sack 1001-2001
        +0  < A 3001:4001 ack 1
        +0  > A 1 ack 1 sack 3001-4001,1001-2001
        +0  < A 5001:6001 ack 1
        +0  > A 1 ack 1 sack 5001-6001,3001-4001,1001-2001
        +0  < A 2001:3001 ack 1
        +0  > A 1 ack 1 sack 1001-4001,5001-6001
        +0  < A 1:1001 ack 1
        +0  > A 1 ack 4001 sack 5001-6001
        +0  < A 4001:5001 ack 1
        +0  > A 1 ack 6001
        +0  recv 6000
    """)


def test_a_duplicate_is_named() -> None:
    """What came before is acknowledged anew, with a block that says so (RFC 2883)."""
    script = opened()
    script.expect("""
        +0  < A 1:1001 ack 1
        +0  < A 1001:2001 ack 1
        +0  > A 1 ack 2001
        +0  < A 1:1001 ack 1
        +0  > A 1 ack 2001 sack 1-1001
    """)


def test_overlaps_are_cut() -> None:
    """Segments that overlap what is there bring only what is new."""
    script = opened()
    script.expect("""
        +0  < A 501:1501 ack 1
        +0  > A 1 ack 1 sack 501-1501
        +0  < A 1:1001 ack 1
        +0  > A 1 ack 1501
        +0  < A 1001:2001 ack 1
        +0.04 > A 1 ack 2001 sack 1001-1501
        +0  recv 2000
    """)
    assert script.layer.recv(script.handle, 1, script.now) == Refused(Errno.AGAIN)


def test_what_exceeds_the_window_is_cut() -> None:
    """Bytes beyond the window that was offered are not taken."""
    script = opened(small())
    script.expect("""
        +0  < A 1:3001 ack 1
        +0  > A 1 ack 3001 win 1000
        +0  < A 3001:5001 ack 1
        +0  > A 1 ack 4001 win 0
        +0  < A 4001:5001 ack 1
        +0  > A 1 ack 4001 win 0
        +0  ? unread 4000
    """)


def test_the_window_opens_by_what_is_worth_it() -> None:
    """Small reads do not open a closed window; one segment's worth does, and it is told at once (SWS avoidance)."""
    script = opened(small())
    script.expect("""
        +0  < A 1:2001 ack 1
        +0  > A 1 ack 2001 win 2000
        +0  < A 2001:4001 ack 1
        +0  > A 1 ack 4001 win 0
        +0  recv 400
        +0  recv 400
        +0  recv 200
        +0  > A 1 ack 4001 win 1000
    """)


def test_the_right_edge_never_goes_back() -> None:
    """The window that is offered shrinks only by what came."""
    script = opened(small())
    script.expect("""
        +0  < A 1:101 ack 1
        +0  < A 101:201 ack 1
        +0  > A 1 ack 201 win 3800
        +0  recv 100
        +0  < A 201:301 ack 1
        +0  < A 301:401 ack 1
        +0  > A 1 ack 401 win 3600
    """)


# Sending


def test_small_segments_wait_for_an_acknowledgment() -> None:
    """Nagle: while bytes are on their way, less than a segment waits (RFC 9293, 3.7.4)."""
    script = opened()
    script.expect("""
        +0    send 10
        +0    > A 1:11
        +0    send 10
        +0    send 10
        +0.1  < A 1 ack 11
        +0    > A 11:31
        +0    send 1500
        +0    > A 31:1031
        +0    < A 1 ack 31
        +0    < A 1 ack 1031
        +0    > A 1031:1531
        +0    < A 1 ack 1531
    """)


def test_nodelay_sends_at_once() -> None:
    """With `nodelay` nothing waits; switched on later, what waited goes."""
    script = opened(options=NODELAY)
    script.expect("+0 send 10\n +0 > A 1:11\n +0 send 10\n +0 > A 11:21\n +0 < A 1 ack 21")
    script = opened()
    script.expect("+0 send 10\n +0 > A 1:11\n +0 send 10")
    assert script.layer.set_options(script.handle, script.now, nodelay=True) is None
    script.collect()
    script.expect("+0 > A 11:21")


def test_no_more_goes_than_the_window_takes() -> None:
    """The peer's window bounds what is on its way; an ACK moves it."""
    script = opened()
    script.expect("""
        +0    < A 1 ack 1 win 2500
        +0    send 5000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0    < A 1 ack 1001 win 2500
        +0    > A 2001:3001
        +0    < A 1 ack 3001 win 2500
        +0    > A 3001:4001
        +0    > A 4001:5001
        +0    < A 1 ack 5001 win 2500
    """)


def test_a_closed_window_is_probed() -> None:
    """One byte asks after RTO, 2 RTO …; while the peer answers the connection lives (RFC 9293, MUST-35 to 37)."""
    script = opened(options=SocketOptions(user_timeout_ns=2 * SECOND))
    script.expect("""
        +0    < A 1 ack 1 win 0
        +0    send 2001
        +0.2  > A 1:2
        +0    < A 1 ack 1 win 0
        +0.4  > A 1:2
        +0    < A 1 ack 1 win 0
        +0.8  > A 1:2
        +0    < A 1 ack 1 win 0
        +1.6  > A 1:2
        +0    < A 1 ack 1 win 0
        +0    ? state ESTABLISHED
        +0.1  < A 1 ack 1 win 8000
        +0    > A 1:2
        +0    > A 2:1002
        +0    > A 1002:2002
        +0    < A 1 ack 2002 win 8000
        +0    ? congestion_window 10000
    """)


def test_a_probe_can_be_taken() -> None:
    """When the probe's byte is acknowledged the rest follows in the window that comes with it."""
    script = opened()
    script.expect("""
        +0    < A 1 ack 1 win 0
        +0    send 1001
        +0.2  > A 1:2
        +0    < A 1 ack 2 win 4000
        +0    > A 2:1002
        +0    < A 1 ack 1002 win 4000
    """)


def test_a_silent_peer_with_a_closed_window_times_out() -> None:
    """Without any answer to probes the user's timeout ends the connection."""
    script = opened(options=SocketOptions(user_timeout_ns=SECOND))
    script.expect("""
        +0    < A 1 ack 1 win 0
        +0    send 10
        +0.2  > A 1:2
        +0.4  > A 1:2
        +0.6  wait
        +0    ? events ERROR:TIMEDOUT
    """)


def test_fin_passes_a_closed_window_as_a_probe() -> None:
    """With nothing else to send FIN is the probe."""
    script = opened()
    script.expect("""
        +0    < A 1 ack 1 win 0
        +0    shutdown
        +0.2  > FA 1
        +0    < A 1 ack 2 win 0
        +0    ? state FIN_WAIT_2
    """)


def test_a_small_window_is_used_at_last() -> None:
    """A window below a segment and half of the largest waits for a better one, one timeout long (SWS avoidance)."""
    script = opened()
    script.expect("""
        +0    < A 1 ack 1 win 300
        +0    send 2000
        +0.2  > A 1:301
        +0    < A 1 ack 301 win 8000
        +0    > A 301:1301
        +0    < A 1 ack 1301 win 8000
        +0    > A 1301:2001
        +0    < A 1 ack 2001 win 8000
    """)


def test_an_older_segment_does_not_change_the_window() -> None:
    """Of two ACKs the one with the higher numbers says how the window is (SND.WL1, SND.WL2)."""
    script = opened()
    script.expect("""
        +0  < A 11:21 ack 1 win 500
        +0  > A 1 ack 1 sack 11-21
        +0  < A 1:11 ack 1 win 9000
        +0  > A 1 ack 21
        +0  ? send_window 500
    """)


def test_a_full_buffer_says_so_and_when_not() -> None:
    """send takes what fits, then AGAIN; when a third is free again WRITABLE comes."""
    script = opened(small(3000))
    script.events.clear()
    script.expect("+0 < A 1 ack 1 win 1000\n +0 send 3000\n +0 > A 1:1001")
    assert script.layer.send(script.handle, b"x", script.now) == Refused(Errno.AGAIN)
    assert script.layer.poll(script.handle) == Readiness()
    script.expect("+0 < A 1 ack 1001 win 1000\n +0 > A 1001:2001\n +0 ? events WRITABLE")
    assert script.layer.poll(script.handle) == Readiness(writable=True)


def test_buffers_grow_with_what_a_round_trip_carries() -> None:
    """Who reads as fast as bytes come is offered twice as much after each round trip, up to `max_buffer`."""
    script = Script(TcpConfig(timestamps=False, buffer=20_000, max_buffer=70_000))
    script.expect("""
        +0  listen
        +0  < S 0 win 8000 mss 1000 wscale 0
        +0  > SA 0 ack 1 win 20000 wscale 1
        +0  < A 1 ack 1 win 8000
        +0  accept
    """)
    first, offered = 1, []
    for _ in range(150):
        for _ in range(2):
            script.expect(f"+0.001 < A {first}:{first + 1000} ack 1\n+0 recv 1000") if False else None
            script.now += 1_000_000
            script.come("A", f"{first}:{first + 1000}", "ack", "1")
            assert script.layer.recv(script.handle, 5000, script.now) != Refused(Errno.AGAIN)
            first += 1000
        offered.append(script.layer.status(script.handle))
    script.layer.drain()
    windows = [status.receive_window for status in offered if not isinstance(status, Refused)]
    assert max(windows[:5]) <= 20_000
    assert 60_000 <= windows[-1] <= 70_000


def test_buffers_do_not_grow_for_slow_readers() -> None:
    """Who does not read is offered no more."""
    script = Script(TcpConfig(timestamps=False, buffer=20_000, max_buffer=70_000))
    script.expect(HANDSHAKE)
    for first in range(1, 16_001, 1000):
        script.come("A", f"{first}:{first + 1000}", "ack", "1")
    status = script.layer.status(script.handle)
    assert not isinstance(status, Refused)
    assert status.unread == 16_000
    assert status.unread + status.receive_window <= 20_000


def test_acknowledgments_stay_in_the_window_during_a_probe() -> None:
    """While a probe's byte lies beyond the window, ACKs carry a number that the peer can accept."""
    script = opened()
    script.expect("""
        +0     < A 1 ack 1 win 0
        +0     send 100
        +0.2   > A 1:2
        +0     < A 1:101 ack 1 win 0
        +0.04  > A 1 ack 101
    """)


def test_a_window_that_is_taken_back_is_no_congestion() -> None:
    """A peer that closes the window over what is on its way is asked with the first segment, and nothing shrinks."""
    script = opened()
    script.expect("""
        +0    send 2000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0.1  < A 1 ack 1 win 0
        +0.1  > A 1:1001
        +0    ? congestion_window 10000
        +0.1  < A 1 ack 1 win 8000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0    < A 1 ack 2001 win 8000
        +0    ? congestion_window 10000
    """)
