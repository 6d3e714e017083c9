"""How TCP closes: in order, by halves, at once, by reset, and what is left in TIME-WAIT."""

from __future__ import annotations

import pytest
from tests.unit.net.tcp_script import PLAIN, Script
from tests.unit.net.test_tcp_opening import HANDSHAKE

from lamina_net.tcp.config import SocketOptions, TcpConfig
from lamina_net.tcp.interface import Errno, Readiness, Refused
from lamina_net.tcp.states import State


def opened(config: TcpConfig = PLAIN, options: SocketOptions | None = None) -> Script:
    """Returns a script after a passive open."""
    script = Script(config, options)
    script.expect(HANDSHAKE)
    script.events.clear()
    return script


def test_we_close_first() -> None:
    """FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT for twice the MSL, CLOSED (RFC 9293, figure 12)."""
    script = opened()
    script.expect("""
        +0   shutdown
        +0   > FA 1 ack 1
        +0   ? state FIN_WAIT_1
        +0   < A 1 ack 2
        +0   ? state FIN_WAIT_2
        +1   < FA 1 ack 2
        +0   > A 2 ack 2
        +0   ? state TIME_WAIT
        +0   ? events READABLE CLOSED
        +59  ? state TIME_WAIT
        +2   ? state CLOSED
        +0   ? gone
    """)


def test_the_peer_closes_first() -> None:
    """CLOSE-WAIT, where we still send, then LAST-ACK, then CLOSED."""
    script = opened()
    script.expect("""
        +0   < FA 1 ack 1
        +0   > A 1 ack 2
        +0   ? state CLOSE_WAIT
        +0   ? events READABLE
        +0   recv 0
        +0   send 10
        +0   > A 1:11 ack 2
        +0   < A 2 ack 11
        +0   shutdown
        +0   > FA 11 ack 2
        +0   ? state LAST_ACK
        +0   < A 2 ack 12
        +0   ? events CLOSED
        +0   ? state CLOSED
        +0   ? gone
    """)


def test_both_close_at_once() -> None:
    """FINs that cross lead through CLOSING to TIME-WAIT (RFC 9293, figure 13)."""
    script = opened()
    script.expect("""
        +0   shutdown
        +0   > FA 1 ack 1
        +0   < FA 1 ack 1
        +0   > A 2 ack 2
        +0   ? state CLOSING
        +0   < A 2 ack 2
        +0   ? state TIME_WAIT
    """)


def test_half_a_connection_goes_on() -> None:
    """After shutdown the peer sends on, and we acknowledge and read; sending is refused with PIPE."""
    script = opened()
    script.expect("""
        +0   shutdown
        +0   > FA 1 ack 1
        +0   < A 1 ack 2
        +0   < A 1:1001 ack 2
        +0   < A 1001:2001 ack 2
        +0   > A 2 ack 2001
        +0   recv 2000
    """)
    assert script.layer.send(script.handle, b"x", script.now) == Refused(Errno.PIPE)


def test_fin_goes_with_the_last_bytes() -> None:
    """FIN rides on the last segment, after all that was sent before."""
    script = opened()
    script.expect("""
        +0   send 1500
        +0   > A 1:1001
        +0   shutdown
        +0   > FA 1001:1501 ack 1
        +0   < A 1 ack 1502
        +0   ? state FIN_WAIT_2
    """)


def test_fin_waits_for_bytes_before_it() -> None:
    """A FIN that comes before bytes that are missing is taken when they are there."""
    script = opened()
    script.expect("""
        +0   < FA 11:21 ack 1
        +0   > A 1 ack 1 sack 11-22
        +0   ? state ESTABLISHED
        +0   < A 1:11 ack 1
        +0   > A 1 ack 22
        +0   ? state CLOSE_WAIT
        +0   recv 20
        +0   recv 0
    """)


def test_a_lost_fin_is_sent_again() -> None:
    """FIN has a number and is retransmitted like bytes."""
    script = opened()
    script.expect("""
        +0    shutdown
        +0    > FA 1 ack 1
        +0.2  > FA 1 ack 1
        +0.4  > FA 1 ack 1
        +0.1  < A 1 ack 2
        +0    ? state FIN_WAIT_2
    """)


def test_a_repeated_fin_is_acknowledged_again() -> None:
    """In TIME-WAIT the peer's FIN is acknowledged anew, and the wait begins anew."""
    script = opened()
    script.expect("""
        +0   shutdown
        +0   > FA 1 ack 1
        +0   < FA 1 ack 2
        +0   > A 2 ack 2
        +50  < FA 1 ack 2
        +0   > A 2 ack 2
        +50  ? state TIME_WAIT
        +11  ? state CLOSED
    """)


def test_close_with_unread_bytes_resets() -> None:
    """Who closes without having read tells the peer by RST that bytes were lost (RFC 1122, 4.2.2.13)."""
    script = opened()
    script.expect("""
        +0   < A 1:101 ack 1
        +0   close
        +0   > RA 1 ack 101
        +0   ? gone
    """)


def test_bytes_after_close_are_reset() -> None:
    """Bytes that come after close cannot be delivered: RST."""
    script = opened()
    script.expect("""
        +0   close
        +0   > FA 1 ack 1
        +0   < A 1 ack 2
        +0   < A 1:101 ack 2
        +0   > RA 2 ack 1
        +0   ? gone
    """)


def test_who_closed_does_not_wait_for_ever() -> None:
    """A closed connection leaves FIN-WAIT-2 after `fin_wait_ns`; one that is only shut waits on."""
    script = opened()
    script.expect("+0 close\n +0 > FA 1 ack 1\n +0 < A 1 ack 2\n +59 wait")
    assert len(script.layer.connections()) == 1
    script.expect("+2 ? gone")
    script = opened()
    script.expect("+0 shutdown\n +0 > FA 1 ack 1\n +0 < A 1 ack 2\n +600 ? state FIN_WAIT_2")


def test_abort_resets() -> None:
    """abort sends RST and forgets the connection and its handle."""
    script = opened()
    script.expect("+0 send 10\n +0 > A 1:11 ack 1\n +0 abort\n +0 > RA 11 ack 1\n +0 ? gone")
    assert script.layer.status(script.handle) == Refused(Errno.BADF)


def test_a_reset_ends_the_connection() -> None:
    """RST with the next number ends it: what came can be read, then CONNRESET."""
    script = opened()
    script.expect("""
        +0   < A 1:101 ack 1
        +0   < R 101
        +0   ? events READABLE ERROR:CONNRESET
        +0   ? gone
        +0   recv 100
        +0   ? refused CONNRESET
    """)
    assert script.layer.send(script.handle, b"x", script.now) == Refused(Errno.CONNRESET)
    assert script.layer.poll(script.handle) == Readiness(True, True, True, Errno.CONNRESET)


def test_a_reset_does_not_end_time_wait() -> None:
    """RST in TIME-WAIT is ignored (RFC 1337)."""
    script = opened()
    script.expect("+0 shutdown\n +0 > FA 1 ack 1\n +0 < FA 1 ack 2\n +0 > A 2 ack 2\n +0 < R 2\n +0 ? state TIME_WAIT")


@pytest.mark.parametrize(("first", "answered"), [(2000, True), (1, False)])
def test_a_newer_syn_ends_time_wait(first: int, answered: bool) -> None:
    """A SYN with a higher number than the old connection's begins a new one, with a higher one of ours (RFC 6191)."""
    script = opened()
    script.expect("+0 close\n +0 > FA 1 ack 1\n +0 < FA 1 ack 2\n +0 > A 2 ack 2")
    before = script.isn
    assert before is not None
    if answered:
        script.expect(f"+1 < S {first} win 8000 mss 1000\n +0 > SA 0 ack {first + 1}")
        assert script.isn is not None
        assert 2 < (script.isn - before) % 2**32 < 2**31
    else:
        script.expect(f"+1 < S {first} win 8000 mss 1000\n +0 > A 2 ack 2")


def test_time_wait_is_bounded() -> None:
    """Beyond `max_time_wait` the oldest ends, and nothing else does."""
    script = Script(TcpConfig(timestamps=False, window_scaling=False, max_time_wait=2))
    script.expect("+0 listen")
    for port in (5000, 5001, 5002):
        script.peer_port = port
        script.expect("""
            +0  < S 0 win 8000
            +0  > SA 0 ack 1
            +0  < A 1 ack 1
            +0  accept
            +0  shutdown
            +0  > FA 1 ack 1
            +0  < FA 1 ack 2
            +0  > A 2 ack 2
        """)
    assert len(script.layer.connections()) == 2
    script.expect("+61 ? gone")


def test_closing_twice_is_refused() -> None:
    """A handle ends with close: what follows is BADF."""
    script = opened()
    script.expect("+0 close\n +0 > FA 1 ack 1")
    assert script.layer.close(script.handle, script.now) == Refused(Errno.BADF)
    assert script.layer.recv(script.handle, 1, script.now) == Refused(Errno.BADF)


@pytest.mark.parametrize(("stamp", "answered"), [(5000, True), (900, False)])
def test_a_newer_timestamp_ends_time_wait(stamp: int, answered: bool) -> None:
    """With timestamps the newer one decides, whatever the numbers say (RFC 6191, 2)."""
    script = Script(TcpConfig(window_scaling=False))
    script.expect("+0 listen\n +0 < S 0 win 8000 ts 1000:0\n +0 > SA 0 ack 1\n +0 < A 1 ack 1 ts 1001:0\n +0 accept")
    script.expect("+0 close\n +0 > FA 1 ack 1\n +0 < FA 1 ack 2 ts 1002:0\n +0 > A 2 ack 2")
    if answered:
        script.expect(f"+1 < S 1 win 8000 ts {stamp}:0\n +0 > SA 0 ack 2")
    else:
        script.expect(f"+1 < S 2000 win 8000 ts {stamp}:0\n +0 > A 2 ack 2")


def test_who_was_given_up_makes_room() -> None:
    """In a full layer TIME-WAIT ends for the oldest that nobody has; one whose user has it stays as it is."""
    script = Script(TcpConfig(timestamps=False, window_scaling=False, max_connections=3))
    script.expect("+0 listen")
    handles = []
    for port, ending in ((5000, "shutdown"), (5001, "close")):
        script.peer_port = port
        script.expect(f"""
            +0  < S 0 win 8000
            +0  > SA 0 ack 1
            +0  < A 1 ack 1
            +0  accept
            +0  {ending}
            +0  > FA 1 ack 1
            +0  < FA 1 ack 2
            +0  > A 2 ack 2
        """)
        handles.append(script.handle)
    script.peer_port = 5002
    script.expect("+0 < S 0 win 8000\n +0 > SA 0 ack 1")
    kept, gone = (script.layer.status(handle) for handle in handles)
    assert not isinstance(kept, Refused)
    assert (kept.state, gone) == (State.TIME_WAIT, Refused(Errno.BADF))
    script.peer_port = 5003
    script.expect("+0 < S 0 win 8000")
    assert script.layer.counters.syns_dropped == 1
    assert script.layer.status(handles[0]) == kept
