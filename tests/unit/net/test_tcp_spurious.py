"""Timeouts that are none: after two acknowledgments of what was never sent again all is as before (RFC 5682)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.net.tcp_script import PLAIN, Script

from lamina_net.tcp.config import Congestion, SocketOptions
from lamina_net.tcp.connection.congestion import controller
from lamina_net.tcp.connection.flight import Flight, Sent

DOUBTS = replace(PLAIN, spurious_timeouts=True)


def timed_out(
    congestion: Congestion = Congestion.NEWRENO, size: int = 6000, *, sack: bool = True, nodelay: bool = True,
    syn: str = "S",
) -> Script:  # fmt: skip
    """Returns a script in which five segments went, the timeout passed and the first has gone again."""
    script = Script(replace(DOUBTS, selective_ack=sack), SocketOptions(congestion=congestion, nodelay=nodelay))
    answer = "SAE" if syn == "SEW" else "SA"
    script.expect(f"""
        +0    listen
        +0    < {syn} 0 win 5000 mss 1000 sackOK
        +0    > {answer} 0 ack 1
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


def test_everything_acknowledged_at_once_lets_new_bytes_go_in_slow_start() -> None:
    """With new bytes, too, an ACK of all that was sent tells nothing, nor does the one after it."""
    script = timed_out(size=8000)
    script.expect("""
        +0.1  < A 1 ack 5001 win 60000
        +0    > A 5001:6001
        +0.1  < A 1 ack 6001 win 60000
        +0    > A 6001:7001
        +0    > A 7001:8001
        +0    ? congestion_window 2000
    """)
    assert script.layer.repairs.spurious == 0


def test_an_acknowledgment_of_all_after_new_bytes_undoes_a_timeout() -> None:
    """The second ACK may cover everything: what it covers was sent once, so nothing was lost (2.1, step 3b)."""
    script = timed_out(size=8000)
    script.expect("""
        +0    < A 1 ack 1001 win 60000
        +0    > A 5001:6001
        +0    > A 6001:7001
        +0    < A 1 ack 5001 win 60000
        +0    > A 7001:8001
        +0    ? retransmitted 1
    """)
    assert script.layer.repairs.spurious == 1


def test_new_bytes_that_wait_for_more_leave_nothing_to_doubt_with() -> None:
    """Nagle keeps a short segment while others are on their way: recovery goes on without another timeout."""
    script = timed_out(size=5500, nodelay=False)
    script.expect("""
        +0.1  < A 1 ack 1001 win 60000
        +0    > A 1001:2001
        +0    > A 2001:3001
    """)


def test_what_is_lost_after_an_undone_timeout_is_found() -> None:
    """Three records above a hole are news of a loss, though all of them were taken for lost before."""
    script = timed_out(size=8000)
    script.expect("""
        +0    < A 1 ack 1001 win 60000
        +0    > A 5001:6001
        +0    > A 6001:7001
        +0    < A 1 ack 2001 win 60000
        +0    > A 7001:8001
        +0    < A 1 ack 2001 win 60000 sack 3001-6001
        +0    > A 2001:3001
    """)


def test_an_undone_timeout_says_nothing_of_slowing_down() -> None:
    """New bytes say CWR only when the window stays cut; an echo of a mark is heeded after it, and then they do."""
    script = timed_out(size=8000, syn="SEW")
    script.expect("""
        +0    < A 1 ack 1001 win 60000
        +0    > A 5001:6001
        +0    > A 6001:7001
        +0    < A 1 ack 2001 win 60000
        +0    > A 7001:8001
        +0    < AE 1 ack 4001 win 60000
        +0    < A 1 ack 8001 win 60000
        +0    send 1000
        +0    > AW 8001:9001
    """)
    assert (script.layer.repairs.spurious, script.layer.repairs.slowed) == (1, 1)


def test_a_believed_timeout_says_that_it_slowed_down() -> None:
    """Once the doubt is over the next new bytes say CWR."""
    script = timed_out(size=5000, syn="SEW")
    script.expect("""
        +0.1  < A 1 ack 5001 win 60000
        +0    send 1000
        +0    > AW 5001:6001
    """)


def test_a_revived_flight_is_on_its_way_again() -> None:
    """What was taken for lost counts as before."""
    flight = Flight()
    for start in (0, 1000, 2000):
        flight.add(Sent(start, start + 1000, 5))
    flight.lose_all()
    assert flight.on_the_way == 0
    flight.revive()
    assert flight.on_the_way == 3000 and flight.next_lost() is None


@pytest.mark.parametrize("kind", list(Congestion))
def test_what_is_restored_is_what_was(kind: Congestion) -> None:
    """Windows and curve are as before the timeout, and slow start leads to a window that was above the threshold."""
    control = controller(kind, 1000)
    control.lost(30_000, 5)
    for number in range(1, 40):
        control.acknowledged(1000, number * 50_000_000, 50_000_000, careful=False)
    window, _, *curve = before = control.saved()
    control.timed_out(8000, 3_000_000_000, again=False)
    control.restore(before)
    now = control.saved()
    assert (now[0], list(now[2:])) == (window, curve)
    assert control.threshold == max(window, before[1])
    assert window > before[1]
