"""What a path's reordering teaches a sender: how long it waits before it takes what is late for lost."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.net.tcp_script import PLAIN, Script

from lamina_net.tcp.config import Congestion, SocketOptions
from lamina_net.tcp.connection.reordering import Reordering

RENO = SocketOptions(congestion=Congestion.NEWRENO, nodelay=True)


def opened(sent: int) -> Script:
    """Returns a script of a connection with SACK whose round trip is 100 ms, after so many segments of 1000 bytes."""
    script = Script(replace(PLAIN, tail_probes=True), RENO)
    script.expect("""
        +0    listen
        +0    < S 0 win 60000 mss 1000 sackOK
        +0    > SA 0 ack 1
        +0.1  < A 1 ack 1 win 60000
        +0    accept
    """)
    send(script, 1, sent)
    return script


def send(script: Script, first: int, count: int) -> None:
    """Send segments from the number `first` on."""
    ats = range(first, first + 1000 * count, 1000)
    script.expect(f"+0 send {1000 * count}\n" + "".join(f"+0 > A {at}:{at + 1000}\n" for at in ats))


def test_three_above_are_enough_while_nothing_came_out_of_order() -> None:
    """The hole goes again at the third SACKed segment, and in recovery a second hole at the first."""
    opened(8).expect("""
        +0.1  < A 1 ack 1 win 60000 sack 1001-3001
        +0    < A 1 ack 1 win 60000 sack 1001-4001
        +0    > A 1:1001
        +0    < A 1 ack 1 win 60000 sack 5001-6001,1001-4001
        +0    > A 4001:5001
        +0.1  < A 1 ack 8001 win 60000
    """)


def test_what_came_late_once_is_waited_for() -> None:
    """After a segment came behind later ones four above a hole are not enough: it has a quarter of a round trip."""
    script = opened(3)
    script.expect("""
        +0.1  < A 1 ack 1 win 60000 sack 1001-3001
        +0    < A 1 ack 3001 win 60000
    """)
    send(script, 3001, 6)
    script.expect("""
        +0.1   < A 1 ack 3001 win 60000 sack 4001-8001
        +0.02  < A 1 ack 9001 win 60000
        +0     ? retransmitted 0
    """)
    send(script, 9001, 6)
    script.expect("""
        +0.1   < A 1 ack 9001 win 60000 sack 10001-14001
        +0.025 > A 9001:10001
        +0.1   < A 1 ack 15001 win 60000
    """)


def test_each_round_in_which_something_came_twice_lengthens_the_wait() -> None:
    """A receiver that names what went again as a duplicate (RFC 2883) gives the next hole 50 ms, then 75 ms."""
    script = opened(6)
    script.expect("""
        +0.1   < A 1 ack 1 win 60000 sack 1001-4001
        +0     > A 1:1001
        +0.01  < A 1 ack 6001 win 60000
        +0.09  < A 1 ack 6001 win 60000 sack 1-1001
    """)
    first = 6001
    for wait in ("0.05", "0.075"):
        send(script, first, 2)
        script.expect(f"""
            +0.1    < A 1 ack {first} win 60000 sack {first + 1000}-{first + 2000}
            +{wait} > A {first}:{first + 1000}
            +0.001  < A 1 ack {first + 2000} win 60000
            +0.1    < A 1 ack {first + 2000} win 60000 sack {first}-{first + 1000}
        """)
        first += 2000


def test_a_lost_segment_is_no_reordering() -> None:
    """What fills a hole because it went again teaches nothing: the next hole goes at the third segment again."""
    script = opened(10)
    script.expect("""
        +0.1  < A 1 ack 1 win 60000 sack 1001-10001
        +0    > A 1:1001
        +0.1  < A 1 ack 10001 win 60000
    """)
    send(script, 10_001, 4)
    script.expect("""
        +0.1  < A 1 ack 10001 win 60000 sack 11001-14001
        +0    > A 10001:11001
    """)


def test_an_acknowledgment_that_fills_and_jumps_is_in_order() -> None:
    """One ACK that takes three segments and names a later one tells of no reordering, as the others may be lost."""
    script = opened(8)
    script.expect("""
        +0.1  < A 1 ack 3001 win 60000 sack 4001-5001
        +0    < A 1 ack 3001 win 60000 sack 4001-7001
        +0    > A 3001:4001
    """)


def test_what_the_network_doubled_teaches_nothing() -> None:
    """Duplicates of what went once are the network's own: the wait stays."""
    state = Reordering()
    state.came_twice(5000, 9000, retransmitted=0)
    assert (state.seen, state.multiplier) == (False, 1)


def test_a_round_counts_once_and_sixteen_recoveries_forget() -> None:
    """Duplicates within a round trip count as one; the wait never exceeds a round trip, and shrinks after 16."""
    state = Reordering()
    for una, nxt in ((1000, 9000), (4000, 12_000), (9000, 20_000)):
        state.came_twice(una, nxt, retransmitted=10)
    assert state.multiplier == 3
    assert state.window(100, 110, is_sure=True) == 75
    state.multiplier = 9
    assert state.window(100, 110, is_sure=False) == 110
    for _ in range(15):
        state.recovered()
    assert state.multiplier == 9
    state.recovered()
    assert state.window(100, 110, is_sure=True) == 25
