"""Timeouts that are none: after two acknowledgments of what was never sent again all is as before (RFC 5682)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.net.tcp_script import PLAIN, Script

from lamina_net.tcp.config import Congestion, SocketOptions

DOUBTS = replace(PLAIN, spurious_timeouts=True)


def timed_out(congestion: Congestion = Congestion.NEWRENO, size: int = 6000, *, sack: bool = True) -> Script:
    """Returns a script in which five segments went, the timeout passed and the first has gone again."""
    script = Script(replace(DOUBTS, selective_ack=sack), SocketOptions(congestion=congestion, nodelay=True))
    script.expect(f"""
        +0    listen
        +0    < S 0 win 5000 mss 1000 sackOK
        +0    > SA 0 ack 1
        +0.1  < A 1 ack 1 win 5000
        +0    accept
        +0    send {size}
        +0    > A 1:1001
        +0    > A 1001:2001
        +0    > A 2001:3001
        +0    > A 3001:4001
        +0    > A 4001:5001
        +0.3  > A 1:1001
        +0    ? congestion_window 1000
    """)
    return script


@pytest.mark.parametrize("congestion", list(Congestion))
@pytest.mark.parametrize("sack", [True, False])
def test_late_acknowledgments_undo_a_timeout(congestion: Congestion, sack: bool) -> None:
    """The first ACK lets new bytes go, the second undoes it: nothing else goes again, the window is what it was."""
    script = timed_out(congestion, 8000, sack=sack)
    script.expect("""
        +0    < A 1 ack 1001 win 60000
        +0    > A 5001:6001
        +0    > A 6001:7001
        +0    < A 1 ack 2001 win 60000
        +0    > A 7001:8001
        +0    ? congestion_window 11000
        +0    ? retransmitted 1
        +0    < A 1 ack 8001 win 60000
    """)
    assert (script.layer.repairs.timeouts, script.layer.repairs.spurious) == (1, 1)


def test_a_duplicate_after_new_bytes_says_that_it_was_a_timeout() -> None:
    """New bytes bring a duplicate ACK only: what follows the first segment was lost, too, and goes again."""
    script = timed_out(size=8000)
    script.expect("""
        +0.1  < A 1 ack 1001 win 60000
        +0    > A 5001:6001
        +0    > A 6001:7001
        +0.1  < A 1 ack 1001 win 60000 sack 5001-6001
        +0    > A 1001:2001
        +0.1  < A 1 ack 2001 win 60000 sack 5001-7001
        +0    > A 2001:3001
        +0    > A 3001:4001
        +0    > A 4001:5001
    """)
    assert script.layer.repairs.spurious == 0


def test_without_new_bytes_recovery_goes_on_as_ever() -> None:
    """Nothing is there to find out with, so the next segment goes again."""
    script = timed_out(size=5000)
    script.expect("""
        +0.1  < A 1 ack 1001 win 60000
        +0    > A 1001:2001
        +0    > A 2001:3001
    """)


def test_everything_acknowledged_at_once_tells_nothing() -> None:
    """An ACK of all that was sent ends the recovery; whether the timeout was one nobody knows."""
    script = timed_out(size=5000)
    script.expect("""
        +0.1  < A 1 ack 5001 win 60000
        +0    ? retransmitted 1
        +0    ? slow_start_threshold 2500
    """)
    assert script.layer.repairs.spurious == 0


def test_a_second_timeout_is_believed() -> None:
    """When the first segment goes for the third time nobody doubts any more."""
    script = timed_out(size=8000)
    script.expect("""
        +0.6  > A 1:1001
        +0.1  < A 1 ack 1001 win 60000
        +0    > A 1001:2001
        +0    > A 2001:3001
    """)
