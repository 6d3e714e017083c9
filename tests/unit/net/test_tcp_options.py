"""What TCP can do beyond the plain stream: window scale, timestamps, urgent data, keepalive."""

from __future__ import annotations

from tests.unit.net.tcp_script import Script
from tests.unit.net.test_tcp_closing import opened
from tests.unit.net.test_tcp_opening import HANDSHAKE

from lamina_net.tcp.config import SocketOptions, TcpConfig


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
    assert script.events.count("URGENT") == 1


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
