"""The end of what was sent: probes before the timeout, what their answers mean, and what was overtaken."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.net.tcp_script import PLAIN, Script

from lamina_net.tcp.config import Congestion, SocketOptions
from lamina_net.tcp.connection.flight import Flight, Sent
from lamina_net.tcp.processing import timers

PROBES = replace(PLAIN, tail_probes=True)
RENO = SocketOptions(congestion=Congestion.NEWRENO, nodelay=True)


def opened() -> Script:
    """Returns a script of a connection with SACK whose round trip is 100 ms."""
    script = Script(PROBES, RENO)
    script.expect("""
        +0    listen
        +0    < S 0 win 60000 mss 1000 sackOK
        +0    > SA 0 ack 1
        +0.1  < A 1 ack 1 win 60000
        +0    accept
    """)
    return script


def test_a_lost_end_is_asked_for_after_two_round_trips() -> None:
    """The last segment goes again 200 ms after the last news, and its SACK block shows the hole before it."""
    script = opened()
    script.expect("""
        +0    send 4000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0    > A 2001:3001
        +0    > A 3001:4001
        +0.1  < A 1 ack 2001 win 60000
        +0.2  > A 3001:4001
        +0.1  < A 1 ack 2001 win 60000 sack 3001-4001
        +0    > A 2001:3001
        +0.1  < A 1 ack 4001 win 60000
        +0    ? retransmitted 2
    """)
    assert (script.layer.repairs.tail_probes, script.layer.repairs.timeouts) == (1, 0)


def test_new_bytes_are_the_better_probe() -> None:
    """What waits for the congestion window goes as the probe, and nothing twice."""
    script = opened()
    script.expect("+0 send 11000\n" + "".join(f"+0 > A {at}:{at + 1000}\n" for at in range(1, 10001, 1000)))
    script.expect("""
        +0.2  > A 10001:11001
        +0.1  < A 1 ack 11001 win 60000
        +0    ? retransmitted 0
    """)
    assert script.layer.repairs.tail_losses == 0


def test_a_loss_that_the_probe_repaired_costs_the_window() -> None:
    """The probe was the only segment missing: the ACK of what follows says so, and the window is cut (7.4.2)."""
    script = opened()
    script.expect("""
        +0    send 3000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0    > A 2001:3001
        +0.2  > A 2001:3001
        +0.05 < A 1 ack 3001 win 60000
        +0    send 1000
        +0    > A 3001:4001
        +0    ? congestion_window 10000
        +0.1  < A 1 ack 4001 win 60000
        +0    ? congestion_window 2000
    """)
    assert script.layer.repairs.tail_losses == 1


def test_a_probe_that_came_twice_costs_nothing() -> None:
    """The receiver names the probe's bytes as a duplicate (RFC 2883): only the ACK was late."""
    script = opened()
    script.expect("""
        +0    send 3000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0    > A 2001:3001
        +0.2  > A 2001:3001
        +0.05 < A 1 ack 3001 win 60000
        +0.05 < A 1 ack 3001 win 60000 sack 2001-3001
        +0    send 1000
        +0    > A 3001:4001
        +0.1  < A 1 ack 4001 win 60000
        +0    ? congestion_window 10000
    """)
    assert script.layer.repairs.tail_losses == 0


def test_one_segment_waits_for_a_late_acknowledgment() -> None:
    """A single segment's probe goes when the timeout would come, as its ACK may be delayed; the timeout waits anew."""
    script = opened()
    script.expect("""
        +0    send 1000
        +0    > A 1:1001
        +0.3  > A 1:1001
        +0    ? congestion_window 10000
        +0.3  > A 1:1001
        +0    ? congestion_window 1000
    """)
    assert (script.layer.repairs.tail_probes, script.layer.repairs.timeouts) == (1, 1)


def test_a_user_who_waits_no_longer_gets_no_probe() -> None:
    """Where the user's patience ends before the timeout, the connection ends then."""
    script = opened()
    assert script.layer.set_options(script.handle, script.now, user_timeout_ns=250_000_000) is None
    script.expect("""
        +0    send 1000
        +0    > A 1:1001
        +0.251 wait
        +0    ? gone
    """)
    assert script.layer.repairs.tail_probes == 0


def test_patience_that_is_cut_short_while_a_probe_is_due_ends_the_connection() -> None:
    """The user's limit lies behind when the probe comes due, before the timeout: it is over, not looked at for ever."""
    script = opened()
    script.expect("""
        +0    send 2000
        +0    > A 1:1001
        +0    > A 1001:2001
    """)
    assert script.layer.set_options(script.handle, script.now, user_timeout_ns=1_000_000) is None
    due = script.layer.next_wakeup_ns
    assert due is not None
    connection = script.layer._table.by_handle[script.handle]
    timers.fire(connection, due)  # type: ignore[arg-type]
    timers.settle(connection, due)  # type: ignore[arg-type]
    assert connection.next_timer() == 0 or connection.next_timer() > due  # type: ignore[union-attr]
    script.expect("""
        +0.201 wait
        +0    ? gone
    """)
    assert script.layer.repairs.tail_probes == 0


def test_one_probe_at_a_time_and_then_the_timeout() -> None:
    """When the probe is lost, too, no second one follows; the timeout does its work."""
    script = opened()
    script.expect("""
        +0    send 2000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0.2  > A 1001:2001
        +0.3  > A 1:1001
        +0.1  < A 1 ack 2001 win 60000
        +0    send 1000
        +0    > A 2001:3001
        +0.1  < A 1 ack 3001 win 60000
    """)
    assert script.layer.repairs.tail_losses == 0, "the timeout has repaired it, and was paid for"
    assert (script.layer.repairs.tail_probes, script.layer.repairs.timeouts) == (1, 1)


def test_what_was_overtaken_is_lost_a_quarter_of_a_round_trip_later() -> None:
    """Two segments above a hole are not three; 25 ms later the hole is lost all the same (RFC 8985, 6.2)."""
    script = opened()
    script.expect("""
        +0    send 3000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0    > A 2001:3001
        +0.1  < A 1 ack 1 win 60000 sack 1001-3001
        +0.025 > A 1:1001
        +0.1  < A 1 ack 3001 win 60000
    """)
    assert script.layer.repairs.overtaken == 1


def test_what_was_only_late_is_not_sent_again() -> None:
    """The hole fills within the quarter of a round trip: nothing goes twice."""
    script = opened()
    script.expect("""
        +0    send 3000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0    > A 2001:3001
        +0.1  < A 1 ack 1 win 60000 sack 1001-3001
        +0.02 < A 1 ack 3001 win 60000
        +1    wait
        +0    ? retransmitted 0
    """)
    assert script.layer.repairs.overtaken == 0


def test_what_was_overtaken_is_found_behind_what_was_sent_again() -> None:
    """A second hole with two segments above it does not wait for the answer to the first one, which goes again."""
    script = opened()
    script.expect("+0 send 8000\n" + "".join(f"+0 > A {at}:{at + 1000}\n" for at in range(1, 8001, 1000)))
    script.expect("""
        +0.1  < A 1 ack 1 win 60000 sack 1001-4001
        +0    > A 1:1001
        +0    < A 1 ack 1 win 60000 sack 5001-7001,1001-4001
        +0    > A 4001:5001
        +0.1  < A 1 ack 8001 win 60000
    """)


def test_a_copy_that_arrives_too_soon_overtakes_nothing() -> None:
    """What was sent again and is acknowledged sooner than any round trip was the first copy (RFC 8985, 6.2)."""
    for soon in (True, False):
        flight = Flight()
        for start, sent_ns in ((0, 0), (1000, 50), (2000, 0)):
            flight.add(Sent(start, start + 1000, sent_ns))
        last = flight.queue[2]
        flight.lose(last)
        flight.sent_again(last, 100)
        flight.sack([(2000, 3000)], 105 if soon else 150, 40)
        flight.find_overtaken(10, 1000)
        assert flight.queue[1].lost is not soon


def test_no_probe_goes_while_something_is_repaired() -> None:
    """In a fast recovery the timeout watches over what is left, also when no block is left (RFC 8985, 7.2)."""
    script = opened()
    script.expect("+0 send 6000\n" + "".join(f"+0 > A {at}:{at + 1000}\n" for at in range(1, 6001, 1000)))
    script.expect("""
        +0.1  < A 1 ack 1 win 60000 sack 1001-4001
        +0    > A 1:1001
        +0    < A 1 ack 4001 win 60000
        +0.25 wait
    """)
    assert script.layer.repairs.tail_probes == 0


def test_a_probe_is_answered_by_its_end_only() -> None:
    """News of what went before the probe lets no second one go: the timeout, 475 ms now, comes first."""
    script = opened()
    script.expect("+0 send 11000\n" + "".join(f"+0 > A {at}:{at + 1000}\n" for at in range(1, 10001, 1000)))
    script.expect("""
        +0.2  > A 10001:11001
        +0.1  < A 1 ack 5001 win 60000
        +0.475 > A 5001:6001
    """)
    assert script.layer.repairs.tail_probes == 1


def test_a_duplicate_told_with_later_news_costs_nothing() -> None:
    """The ACK of what followed the probe may be the one that says that it came twice."""
    script = opened()
    script.expect("""
        +0    send 3000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0    > A 2001:3001
        +0.2  > A 2001:3001
        +0.05 < A 1 ack 3001 win 60000
        +0    send 1000
        +0    > A 3001:4001
        +0.1  < A 1 ack 4001 win 60000 sack 2001-3001
    """)
    assert script.layer.repairs.tail_losses == 0


def test_another_duplicate_does_not_excuse_the_loss() -> None:
    """The block has to end where the probe did."""
    script = opened()
    script.expect("""
        +0    send 3000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0    > A 2001:3001
        +0.2  > A 2001:3001
        +0.05 < A 1 ack 3001 win 60000
        +0    send 1000
        +0    > A 3001:4001
        +0.1  < A 1 ack 4001 win 60000 sack 1-1001
    """)
    assert script.layer.repairs.tail_losses == 1
