"""Marks of congestion: who asks for them, what is marked, who echoes them, and what the sender does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.net.tcp_script import PLAIN, Script, content

from lamina_net.tcp.config import Congestion, Ecn, SocketOptions

RENO = SocketOptions(congestion=Congestion.NEWRENO)
ASKS = replace(PLAIN, ecn=Ecn.ASK)


def accepted() -> Script:
    """Returns a script of a connection whose peer asked for marks."""
    script = Script(PLAIN, RENO)
    script.expect("""
        +0    listen
        +0    < SEW 0 win 60000 mss 1000 sackOK
        +0    > SAE 0 ack 1 tos 0
        +0.1  < A 1 ack 1 win 60000
        +0    accept
    """)
    return script


def test_who_is_asked_accepts_and_its_data_can_be_marked() -> None:
    """A SYN with ECE and CWR is answered with ECE; new bytes are ECT(0), what goes again and pure ACKs are not."""
    script = accepted()
    script.expect("""
        +0    send 1000
        +0    > A 1:1001 tos 2
        +0.3  > A 1:1001 tos 0
        +0.1  < A 1:1001 ack 1001 win 60000
        +0.04 > A 1001 ack 1001 tos 0
    """)


@pytest.mark.parametrize(
    ("answer", "tos"), [("SAE", "2"), ("SA", "0"), ("SAEW", "0")], ids=["agrees", "does not know", "reflects"]
)
def test_who_asks_needs_an_answer(answer: str, tos: str) -> None:
    """Marks are on when the SYN-ACK has ECE and not CWR; an old peer that sends our bits back does not agree."""
    script = Script(ASKS)
    script.expect(f"""
        +0    connect
        +0    > SEW 0 tos 0
        +0.1  < {answer} 0 ack 1 win 60000 mss 1000
        +0    > A 1 ack 1
        +0    send 100
        +0    > A 1:101 tos {tos}
    """)


def test_a_repeated_syn_does_not_ask() -> None:
    """An old router may have dropped the SYN for its flags, so the second one is plain (RFC 3168, 6.1.1.1)."""
    script = Script(ASKS)
    script.expect("""
        +0    connect
        +0    > SEW 0
        +1    > S 0
        +0.1  < SAE 0 ack 1 win 60000 mss 1000
        +0    > A 1
        +0    send 100
        +0    > A 1:101 tos 0
    """)


def test_who_does_not_want_marks_says_nothing() -> None:
    """With marks off a SYN that asks is answered as any other."""
    script = Script(replace(PLAIN, ecn=Ecn.OFF))
    script.expect("""
        +0    listen
        +0    < SEW 0 win 60000 mss 1000
        +0    > SA 0 ack 1
        +0.1  < A 1 ack 1 win 60000
        +0    accept
        +0    send 100
        +0    > A 1:101 tos 0
    """)


def test_a_mark_is_echoed_until_the_peer_has_slowed_down() -> None:
    """From a marked segment on every ACK has ECE, at once; data with CWR end it, unless they are marked themselves."""
    script = accepted()
    script.expect("""
        +0    < A 1:1001 ack 1 win 60000 tos 3
        +0    > AE 1 ack 1001
        +0    < A 1001:2001 ack 1 win 60000 tos 2
        +0.04 > AE 1 ack 2001
        +0    < AW 2001:3001 ack 1 win 60000 tos 2
        +0.04 > A 1 ack 3001
        +0    < AW 3001:4001 ack 1 win 60000 tos 3
        +0    > AE 1 ack 4001
    """)
    assert script.layer.repairs.marks == 2


def test_an_echo_halves_the_window_once_a_round_trip() -> None:
    """The first ACK with ECE cuts the window and the next new bytes say CWR; further echoes of it do nothing."""
    script = accepted()
    script.expect("+0 send 10000\n" + "".join(f"+0 > A {at}:{at + 1000} tos 2\n" for at in range(1, 10001, 1000)))
    script.expect("""
        +0.1  < AE 1 ack 2001 win 60000
        +0    ? congestion_window 5000
        +0    < AE 1 ack 6001 win 60000
        +0    ? congestion_window 5000
        +0    send 2000
        +0    > AW 10001:11001 tos 2
        +0    < AE 1 ack 10001 win 60000
        +0    > A 11001:12001 tos 2
        +0    ? retransmitted 0
    """)
    assert script.layer.repairs.slowed == 1


def test_a_loss_says_cwr_too() -> None:
    """Whatever made the sender slow down, its next new bytes say so (RFC 3168, 6.1.2)."""
    script = accepted()
    script.expect("+0 send 5000\n" + "".join(f"+0 > A {at}:{at + 1000}\n" for at in range(1, 5001, 1000)))
    script.expect("""
        +0.1  < A 1 ack 1 win 60000 sack 1001-4001
        +0    > A 1:1001 tos 0
        +0    < A 1 ack 5001 win 60000
        +0    send 1000
        +0    > AW 5001:6001 tos 2
    """)


def test_options_name_service_and_time_to_live() -> None:
    """Every packet of a connection carries the DSCP and the time to live that its options say, also beside ECN."""
    script = Script(ASKS, SocketOptions(dscp=46, ttl=7))
    script.expect("""
        +0    connect
        +0    > SEW 0 tos 184
        +0.1  < SAE 0 ack 1 win 60000 mss 1000
        +0    > A 1 tos 184
    """)
    assert script.layer.send(script.handle, content(1, 101), script.now) == 100
    script.collect()
    assert [packet.ttl for packet in script.pending] == [7]
    script.expect("+0 > A 1:101 tos 186")


def test_the_window_does_not_grow_in_the_round_trip_that_cut_it() -> None:
    """What was sent before the window was cut opens nothing when it is acknowledged; what comes after it does."""
    script = accepted()
    script.expect("+0 send 20000\n" + "".join(f"+0 > A {at}:{at + 1000} tos 2\n" for at in range(1, 10001, 1000)))
    script.expect("""
        +0.1  < AE 1 ack 2001 win 60000
        +0    ? congestion_window 5000
        +0    < A 1 ack 6001 win 60000
        +0    > AW 10001:11001 tos 2
        +0    ? congestion_window 5000
    """)


def test_an_end_that_a_probe_repaired_says_cwr() -> None:
    """The window pays for a loss that nobody saw, so the next new bytes say so."""
    script = Script(replace(PLAIN, tail_probes=True), replace(RENO, nodelay=True))
    script.expect("""
        +0    listen
        +0    < SEW 0 win 60000 mss 1000 sackOK
        +0    > SAE 0 ack 1
        +0.1  < A 1 ack 1 win 60000
        +0    accept
        +0    send 2000
        +0    > A 1:1001
        +0    > A 1001:2001
        +0.2  > A 1001:2001
        +0.05 < A 1 ack 2001 win 60000
        +0    send 1000
        +0    > A 2001:3001
        +0.1  < A 1 ack 3001 win 60000
        +0    send 1000
        +0    > AW 3001:4001
    """)


def test_a_timeout_that_is_not_doubted_says_cwr() -> None:
    """A timeout cuts the window, too."""
    script = accepted()
    script.expect("""
        +0    send 1000
        +0    > A 1:1001 tos 2
        +0.3  > A 1:1001 tos 0
        +0.1  < AE 1 ack 1001 win 60000
        +0    send 1000
        +0    > AW 1001:2001 tos 2
    """)
    assert script.layer.repairs.slowed == 0, "once is enough"


def test_marks_on_what_carries_nothing_tell_nothing() -> None:
    """Pure ACKs may not be marked, so nobody echoes it when they are; window probes of ours cannot be marked."""
    script = accepted()
    script.expect("""
        +0    < A 1 ack 1 win 0 tos 3
        +0    send 100
        +0.3  > A 1:2 tos 0
    """)
    assert script.layer.repairs.marks == 0
