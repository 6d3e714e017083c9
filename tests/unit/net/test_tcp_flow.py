"""How TCP receives and holds back: acknowledgments, windows, probes, Nagle, keepalive, urgent data, timestamps."""

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


# Scale, timestamps, urgent, keepalive


def test_windows_are_scaled() -> None:
    """Both SYNs offer a scale: later windows are shifted by it, those of SYNs are not (RFC 7323, 2.2)."""
    script = Script(TcpConfig(timestamps=False, buffer=1 << 20, max_buffer=1 << 20))
    script.expect("""
        +0  listen
        +0  < S 0 win 1000 mss 1000 wscale 3
        +0  > SA 0 ack 1 wscale 5 win 65535
        +0  < A 1 ack 1 win 1000
        +0  accept
        +0  ? send_window 8000
        +0  < A 1:2 ack 1 win 2000
        +0  ? send_window 16000
        +0.04 > A 1 ack 2 win 32767
    """)


def test_a_scale_beyond_14_is_14() -> None:
    """RFC 7323, 2.3."""
    script = Script(TcpConfig(timestamps=False))
    script.expect(HANDSHAKE.replace("mss 1000 sackOK\n    +0  >", "mss 1000 sackOK wscale 200\n    +0  >"))
    script.expect("+0 < A 1 ack 1 win 2\n +0 ? send_window 32768")


STAMPED = """
    +0  listen
    +0  < S 0 win 8000 mss 1000 ts 1000:0
    +0  > SA 0 ack 1
    +0  < A 1 ack 1 win 8000 ts 1001:{ours}
    +0  accept
"""


def stamped() -> tuple[Script, int]:
    """Returns a script after a passive open with timestamps, and our first timestamp."""
    script = Script(TcpConfig(window_scaling=False))
    script.expect("\n".join(STAMPED.splitlines()[:4]))
    assert script.last.options.timestamp is not None
    value, echo = script.last.options.timestamp
    assert echo == 1000
    script.expect("\n".join(STAMPED.format(ours=value).splitlines()[4:]))
    return script, value


def test_timestamps_are_echoed() -> None:
    """Segments carry our clock in ms and echo the peer's, and have 12 bytes less (RFC 7323, 3)."""
    script, first = stamped()
    script.expect("+0.5 < A 1:11 ack 1 ts 1500:0\n +0 send 2000\n +0 > A 1:989 ack 11\n +0 > A 989:1977")
    assert script.last.options.timestamp == ((first + 500) % 2**32, 1500)


def test_old_timestamps_are_refused() -> None:
    """A segment with an older timestamp than the last is a duplicate from before: ACK, nothing else (PAWS)."""
    script, _ = stamped()
    script.expect("+0 < A 1:11 ack 1 ts 999:0\n +0 > A 1 ack 1\n +0 < A 1:11 ack 1 ts 1001:0\n +0.04 > A 1 ack 11")


def test_a_segment_without_the_promised_timestamp_is_dropped() -> None:
    """RFC 7323, 3.2; but a reset needs none."""
    script, _ = stamped()
    script.expect("+0 < A 1:11 ack 1\n +0 ? unread 0\n +0 < R 1\n +0 ? state CLOSED")


def test_a_stale_timestamp_does_not_last_for_ever() -> None:
    """After 24 days of silence any timestamp is taken (RFC 7323, 5.5)."""
    script, _ = stamped()
    script.expect(f"+{24 * 24 * 3600} < A 1:11 ack 1 ts 5:0\n +0 ? unread 10\n +0.04 > A 1 ack 11")


def test_urgent_data_stay_in_the_stream() -> None:
    """The urgent pointer is kept, the bytes are read like others (RFC 6093); ours names the byte after them."""
    script = opened()
    script.expect("""
        +0  < AU 1:101 ack 1 urg 51
        +0  ? urgent_ahead 51
        +0  recv 20
        +0  ? urgent_ahead 31
        +0  recv 80
        +0  ? urgent_ahead 0
        +0  send 10 urgent
        +0  > AU 1:11 urg 10
        +0  < A 101 ack 11
        +0  send 5
        +0  > A 11:16
    """)


def test_keepalive_asks_and_gives_up() -> None:
    """After two hours of silence nine probes in 75 s each; without an answer RST and TIMEDOUT (RFC 9293, 3.8.4)."""
    script = opened(options=SocketOptions(keepalive=True))
    script.expect("+7200 > A 0 ack 1\n +75 > A 0 ack 1\n +0 < A 1 ack 1")
    script.expect("+7200 > A 0 ack 1\n" + "+75 > A 0 ack 1\n" * 8 + "+75 > RA 1 ack 1\n +0 ? events ERROR:TIMEDOUT")


def test_without_keepalive_nothing_goes() -> None:
    """It is off unless asked for (RFC 9293, MUST-25)."""
    script = opened()
    script.expect("+1000000 ? state ESTABLISHED")
    assert script.layer.next_wakeup_ns is None


def test_a_probe_of_the_peer_is_answered() -> None:
    """A segment below the window without bytes, a keepalive of the peer, is answered by an ACK."""
    script = opened()
    script.expect("+0 < A 0 ack 1\n +0 > A 1 ack 1\n +0 < A 0:1 ack 1\n +0 > A 1 ack 1 sack 0-1")
