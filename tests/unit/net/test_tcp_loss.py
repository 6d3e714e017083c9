"""What TCP does about loss: timeouts, fast retransmit, SACK, limited transmit, and how long it goes on."""

from __future__ import annotations

from tests.unit.net.tcp_script import PLAIN, Script
from tests.unit.net.test_tcp_closing import opened

from lamina_net.tcp.config import SECOND, Congestion, SocketOptions, TcpConfig

RENO = SocketOptions(congestion=Congestion.NEWRENO)
NO_SACK = TcpConfig(timestamps=False, window_scaling=False, selective_ack=False)


def without_sack() -> Script:
    """Returns a script after a passive open, of two ends without SACK, with NewReno."""
    script = Script(NO_SACK, RENO)
    script.expect("""
        +0    listen
        +0    < S 0 win 60000 mss 1000
        +0    > SA 0 ack 1
        +0.1  < A 1 ack 1 win 60000
        +0    accept
    """)
    return script


def with_sack(congestion: Congestion = Congestion.NEWRENO) -> Script:
    """Returns the same with SACK."""
    script = Script(PLAIN, SocketOptions(congestion=congestion))
    script.expect("""
        +0    listen
        +0    < S 0 win 60000 mss 1000 sackOK
        +0    > SA 0 ack 1
        +0.1  < A 1 ack 1 win 60000
        +0    accept
    """)
    return script


def burst(first: int, count: int) -> str:
    """Returns the lines that expect so many full segments from `first` on."""
    return "".join(f"+0 > A {at}:{at + 1000}\n" for at in range(first, first + 1000 * count, 1000))


def test_the_timeout_doubles() -> None:
    """Without answer the first segment goes again after RTO, 2 RTO, 4 RTO … (RFC 6298, 5.5), window one segment."""
    script = with_sack()
    script.expect("+0 send 2000\n" + burst(1, 2))
    script.expect("""
        +0.3  > A 1:1001
        +0.6  > A 1:1001
        +1.2  > A 1:1001
        +0    ? congestion_window 1000
        +0    ? slow_start_threshold 2000
        +0.1  < A 1 ack 1001 win 60000
        +0    > A 1001:2001
        +0.1  < A 1 ack 2001 win 60000
        +0    ? retransmitted 4
    """)


def test_a_round_trip_is_not_measured_by_what_was_sent_twice() -> None:
    """An ACK of a segment that went twice says nothing of the path (Karn, RFC 6298, 3)."""
    script = with_sack()
    script.expect("""
        +0    send 1000
        +0    > A 1:1001
        +0.3  > A 1:1001
        +0.01 < A 1 ack 1001 win 60000
        +0    ? smoothed_rtt_ns 100000000
        +0    ? rto_ns 600000000
        +0    send 1000
        +0    > A 1001:2001
        +0.1  < A 1 ack 2001 win 60000
        +0    ? rto_ns 300000000
    """)


def test_the_timeout_follows_rfc_6298() -> None:
    """SRTT and RTTVAR after two samples of 100 and 200 ms: 112.5 ms and 62.5 ms."""
    script = with_sack()
    script.expect("""
        +0    send 1000
        +0    > A 1:1001
        +0.2  < A 1 ack 1001 win 60000
        +0    ? smoothed_rtt_ns 112500000
        +0    ? rto_ns 362500000
    """)


def test_three_duplicates_retransmit_at_once() -> None:
    """Without SACK the third duplicate ACK sends the first segment again; the first two let new ones go (RFC 3042)."""
    script = without_sack()
    script.expect("+0 send 20000\n" + burst(1, 10))
    script.expect("""
        +0.1  < A 1 ack 1 win 60000
        +0    > A 10001:11001
        +0    < A 1 ack 1 win 60000
        +0    > A 11001:12001
        +0    < A 1 ack 1 win 60000
        +0    > A 1:1001
        +0    ? slow_start_threshold 5000
        +0    ? congestion_window 5000
    """)


def test_a_partial_ack_retransmits_the_next() -> None:
    """In fast recovery an ACK that does not cover everything says that the next segment is lost too (RFC 6582)."""
    script = without_sack()
    script.expect("+0 send 10000\n" + burst(1, 10))
    script.expect("""
        +0.1  < A 1 ack 1 win 60000
        +0    < A 1 ack 1 win 60000
        +0    < A 1 ack 1 win 60000
        +0    > A 1:1001
        +0.1  < A 1 ack 3001 win 60000
        +0    > A 3001:4001
        +0.1  < A 1 ack 10001 win 60000
        +0    ? congestion_window 5000
        +0    ? unacknowledged 0
    """)


def test_sack_retransmits_only_holes() -> None:
    """Records below three that arrived are lost and go again; nothing else does (RFC 6675)."""
    script = with_sack()
    script.expect("+0 send 10000\n" + burst(1, 10))
    script.expect("""
        +0.1  < A 1 ack 1001 win 60000 sack 2001-3001
        +0    < A 1 ack 1001 win 60000 sack 4001-5001,2001-3001
        +0    < A 1 ack 1001 win 60000 sack 4001-6001,2001-3001
        +0    > A 1001:2001
        +0    < A 1 ack 1001 win 60000 sack 4001-8001,2001-3001
        +0    > A 3001:4001
        +0.1  < A 1 ack 10001 win 60000
        +0    ? unacknowledged 0
        +0    ? retransmitted 2
    """)


def test_two_that_arrived_are_no_loss() -> None:
    """Reordering by two segments retransmits nothing (duplicate threshold 3)."""
    script = with_sack()
    script.expect("+0 send 4000\n" + burst(1, 4))
    script.expect("""
        +0.1  < A 1 ack 1 win 60000 sack 1001-2001
        +0    < A 1 ack 1 win 60000 sack 1001-3001
        +0    < A 1 ack 4001 win 60000
        +0    ? retransmitted 0
    """)


def test_a_lost_retransmission_is_noticed() -> None:
    """What was sent again and did not arrive, while later segments did, goes a third time without a timeout."""
    script = with_sack()
    script.expect("+0 send 30000\n" + burst(1, 10))
    script.expect("""
        +0.1  < A 1 ack 1 win 60000 sack 1001-4001
        +0    > A 1:1001
        +0    < A 1 ack 1 win 60000 sack 1001-8001
        +0    > A 10001:11001
        +0    > A 11001:12001
        +0.1  < A 1 ack 1 win 60000 sack 1001-11001
        +0    > A 12001:13001
        +0    > A 13001:14001
        +0    > A 14001:15001
        +0.1  < A 1 ack 1 win 60000 sack 1001-13001
        +0    > A 1:1001
        +0    > A 15001:16001
        +0    > A 16001:17001
    """)


def test_a_receiver_may_forget_what_it_had() -> None:
    """After a timeout with the first record reported as arrived everything goes again (RFC 2018, 8)."""
    script = with_sack()
    script.expect("+0 send 3000\n" + burst(1, 3))
    script.expect("""
        +0.1  < A 1 ack 1 win 60000 sack 1001-3001
        +0    < A 1 ack 1001 win 60000
        +0.3  > A 1001:2001
        +0.1  < A 1 ack 2001 win 60000
        +0    > A 2001:3001
        +0.1  < A 1 ack 3001 win 60000
    """)


def test_blocks_beyond_what_was_sent_are_ignored() -> None:
    """A SACK block outside of what is on its way changes nothing."""
    script = with_sack()
    script.expect("+0 send 2000\n" + burst(1, 2))
    script.expect("""
        +0.1  < A 1 ack 1 win 60000 sack 5001-9001
        +0    < A 1 ack 1 win 60000 sack 2001-1001
        +0    < A 1 ack 2001 win 60000
        +0    ? retransmitted 0
    """)


def test_the_first_window_is_ten_segments() -> None:
    """IW10 (RFC 6928), then two segments more for each acknowledged pair in slow start."""
    script = with_sack()
    script.expect("+0 send 20000\n" + burst(1, 10))
    script.expect("+0.1 < A 1 ack 2001 win 60000\n" + burst(10001, 4) + "+0 ? congestion_window 12000")


def test_an_idle_connection_begins_anew() -> None:
    """After more than a timeout without sending the window is the first one again (RFC 5681, 4.1)."""
    script = with_sack()
    script.expect("+0 send 20000\n" + burst(1, 10))
    script.expect("+0.1 < A 1 ack 10001 win 60000\n" + burst(10001, 10) + "+0.1 < A 1 ack 20001 win 60000")
    script.expect("+0 ? congestion_window 14000\n +2 send 20000\n" + burst(20001, 10))


def test_the_user_s_timeout_ends_it() -> None:
    """What stays unacknowledged for `user_timeout_ns` ends the connection with TIMEDOUT."""
    script = Script(PLAIN, SocketOptions(user_timeout_ns=2 * SECOND))
    script.expect("""
        +0    listen
        +0    < S 0 win 8000 mss 1000 sackOK
        +0    > SA 0 ack 1
        +0.1  < A 1 ack 1
        +0    accept
        +0    send 10
        +0    > A 1:11
        +0.3  > A 1:11
        +0.6  > A 1:11
    """)
    script.events.clear()
    script.expect("+1.1 wait\n +0 ? events ERROR:TIMEDOUT\n +0 ? gone")


def test_a_hint_of_icmp_names_the_failure() -> None:
    """Unreachable is a hint while the connection stands, and the error when it times out (RFC 1122, 4.2.3.9)."""
    script = opened(options=SocketOptions(user_timeout_ns=SECOND // 2))
    script.expect("""
        +0    send 10
        +0    > A 1:11
        +0    icmp HOST_UNREACHABLE 1
        +0    ? soft_errno HOSTUNREACH
        +0    ? state ESTABLISHED
        +0.2  > A 1:11
        +0.4  wait
        +0    ? events ERROR:HOSTUNREACH
    """)


def test_icmp_refuses_what_is_being_opened() -> None:
    """Unreachable ends an attempt to open; about a number that is not on its way it is ignored (RFC 5927)."""
    script = Script()
    script.expect("""
        +0  connect
        +0  > S 0
        +0  icmp PORT_UNREACHABLE 5
        +0  ? state SYN_SENT
        +0  icmp PORT_UNREACHABLE 0
        +0  ? events ERROR:CONNREFUSED
    """)


def test_a_smaller_path_is_followed_at_once() -> None:
    """ICMP "too big" shortens segments and sends what was too long again, and the window stays (RFC 1191, 6.4)."""
    script = with_sack()
    script.expect("+0 send 2000\n" + burst(1, 2))
    script.expect("""
        +0.1  icmp TOO_BIG 1 640
        +0    > A 1:601
        +0    > A 601:1001
        +0    > A 1001:1601
        +0    > A 1601:2001
        +0    ? mss 600
        +0    icmp TOO_BIG 1 100
        +0    > A 1:513
        +0    > A 513:601
        +0    > A 1001:1513
        +0    > A 1513:1601
        +0    ? mss 512
        +0    < A 1 ack 2001 win 60000
        +0    icmp TOO_BIG 1 60
        +0    ? mss 512
    """)


def test_blocks_about_the_future_mean_nothing_later() -> None:
    """A SACK block about bytes that are sent only afterwards makes no later record lost."""
    script = with_sack()
    script.expect("+0 send 1000\n +0 > A 1:1001\n +0.1 < A 1 ack 1001 win 60000 sack 4001-9001")
    script.expect("+0 send 8000\n" + burst(1001, 8) + "+0.1 < A 1 ack 2001 win 60000\n +0 ? retransmitted 0")


def test_fin_stays_at_the_end_of_what_is_cut() -> None:
    """When a record with FIN no longer fits through the path, FIN goes with its last part."""
    script = with_sack()
    script.expect("""
        +0    send 1000
        +0    > A 1:1001
        +0    send 900
        +0    shutdown
        +0    > FA 1001:1901
        +0.1  < A 1 ack 1001 win 60000
        +0    icmp TOO_BIG 1001 640
        +0    > A 1001:1601
        +0    > FA 1601:1901
        +0.1  < A 1 ack 1902 win 60000
        +0    ? state FIN_WAIT_2
    """)


def test_duplicates_of_the_past_retransmit_nothing() -> None:
    """Without SACK, duplicates that name just the end of the last recovery are echoes of it (RFC 6582, 3.2, step 2)."""
    script = without_sack()
    script.expect("+0 send 10000\n" + burst(1, 10))
    script.expect("+0.1 < A 1 ack 1 win 60000\n +0 < A 1 ack 1 win 60000\n +0 < A 1 ack 1 win 60000\n +0 > A 1:1001")
    script.expect("+0.1 < A 1 ack 10001 win 60000\n +0 send 4000\n" + burst(10_001, 4))
    script.expect("+0.01 < A 1 ack 10001 win 60000\n" * 4 + "+0 ? retransmitted 1")
