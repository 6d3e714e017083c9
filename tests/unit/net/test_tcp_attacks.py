"""What strangers try who cannot see the segments: blind resets, SYNs, bytes, ACKs; and floods (RFC 5961)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.net.tcp_invariants import Invariants
from tests.unit.net.tcp_script import PEER, US, Script
from tests.unit.net.test_tcp_closing import opened

from lamina_kit.rng import Rng
from lamina_net.tcp.config import SECOND, SocketOptions, TcpConfig
from lamina_net.tcp.interface import Endpoint, Handle, IcmpKind, Refused
from lamina_net.tcp.layer import TcpLayer
from lamina_net.tcp.segment import ACK, FIN, PSH, RST, SYN, URG, Options, Segment, build
from lamina_net.tcp.sequence import MASK


def test_a_reset_within_the_window_is_asked_about() -> None:
    """RST that is not exactly the next number gets a challenge ACK; the true peer answers with the right one (3.2)."""
    script = opened()
    script.expect("""
        +0  < R 500
        +0  > A 1 ack 1
        +0  ? state ESTABLISHED
        +0  < R 1
        +0  ? state CLOSED
    """)


def test_a_reset_outside_of_the_window_is_dropped() -> None:
    """Not even an answer."""
    script = opened()
    script.expect("+0 < R 70000\n +0 < R 0\n +0 ? state ESTABLISHED")


def test_a_syn_does_not_end_a_connection() -> None:
    """SYN in a synchronized state gets a challenge ACK, whatever its number (4.2)."""
    script = opened()
    script.expect("+0 < S 50\n +0 > A 1 ack 1\n +0 < S 900000\n +0 > A 1 ack 1\n +0 ? state ESTABLISHED")


def test_an_ack_of_what_was_never_sent_is_not_taken() -> None:
    """ACKs beyond nxt, and ones older than a window, bring a challenge ACK, and their bytes nothing (5.2)."""
    script = opened()
    script.expect("""
        +0  < A 1:11 ack 2
        +0  > A 1 ack 1
        +0  < A 1:11 ack -20000
        +0  > A 1 ack 1
        +0  ? unread 0
        +0  < A 1:11 ack -100
        +0  ? unread 10
    """)


def test_challenges_are_limited() -> None:
    """Of one connection at most `challenge_acks` go in a second (7)."""
    script = opened()
    for _ in range(10):
        script.expect("+0 < R 500\n +0 > A 1 ack 1")
    script.expect("+0 < R 500\n +0.9 < R 500\n +0.2 < R 500\n +0 > A 1 ack 1")


def test_wrong_checksums_are_counted_and_dropped() -> None:
    """A damaged segment changes nothing."""
    script = opened()
    good = build(PEER, US, Segment(5000, 80, 0xFFFFFE01, (script.isn or 0) + 1, ACK, 8000, b"hello"))
    for place in range(0, len(good), 3):
        damaged = good[:place] + bytes((good[place] ^ 4,)) + good[place + 1 :]
        script.layer.segment(PEER, US, damaged, script.now)
    script.expect("+0 ? unread 0")
    assert sum(script.layer.counters.refused.values()) == len(range(0, len(good), 3))


def test_tiny_ranges_are_bounded() -> None:
    """Single bytes with gaps between take no more than `max_ranges` ranges and the window's bytes."""
    script = opened(TcpConfig(timestamps=False, window_scaling=False, max_ranges=20))
    for number in range(3, 203, 2):
        script.come("A", f"{number}:{number + 1}", "ack", "1")
        script.collect()
    assert len(script.pending) == 100
    connection = next(iter(script.layer._table.by_four.values()))
    assert len(connection.receiver.ranges) == 20
    assert len(connection.receiver.waiting) <= 41


def test_a_syn_flood_is_bounded() -> None:
    """10,000 SYNs from as many addresses leave `syn_backlog` connections, and the listener serves others later."""
    layer = TcpLayer(TcpConfig(syn_backlog=64, syn_cookies=False, connect_timeout_ns=SECOND), b"")
    layer.listen(Endpoint(0, 80))
    body = Segment(1000, 80, 7, 0, SYN, 1000)
    for number in range(10_000):
        layer.segment(0x0B000000 + number, US, build(0x0B000000 + number, US, body), 0)
    assert len(layer.connections()) == 64
    assert layer.counters.syns_dropped == 10_000 - 64
    layer.timer(2 * SECOND)
    assert layer.connections() == []
    layer.drain()
    layer.segment(PEER, US, build(PEER, US, body), 3 * SECOND)
    assert len(layer.drain().packets) == 1


def test_a_flood_of_resets_costs_nothing() -> None:
    """Segments for nobody leave nothing behind."""
    layer = TcpLayer(TcpConfig(), b"")
    for number in range(1000):
        layer.segment(PEER, US, build(PEER, US, Segment(number, 80, 7, 9, ACK, 1000)), 0)
    assert len(layer.drain().packets) == 1000
    assert layer.next_wakeup_ns is None
    assert layer.connections() == []


def test_many_short_connections_leave_no_wakeups() -> None:
    """Timers of connections that are over do not pile up, however far away they were."""
    layer = TcpLayer(TcpConfig(), b"")
    for number in range(2000):
        handle = layer.connect(US, Endpoint(PEER, 80), number, options=SocketOptions(keepalive=True))
        assert not isinstance(handle, Refused)
        layer.close(handle, number)
    assert layer.connections() == []
    assert len(layer._wakeups) < 100


def test_short_segments_on_their_way_are_bounded() -> None:
    """A user that sends single bytes gets no more than `max_records` on their way; the rest waits and then goes."""
    script = opened(TcpConfig(timestamps=False, window_scaling=False, max_records=50), SocketOptions(nodelay=True))
    for _ in range(200):
        assert script.layer.send(script.handle, b"x", script.now) == 1
    assert len(script.layer.drain().packets) == 50
    script.come("A", "1", "ack", "51")
    (rest,) = script.layer.drain().packets
    assert len(rest.data) == 20 + 150


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_taken(data: bytes, source: int) -> None:
    """Whatever comes as a segment or as what ICMP quotes, nothing raises."""
    layer = TcpLayer(TcpConfig(), b"")
    layer.listen(Endpoint(0, int.from_bytes(data[2:4], "big") or 1))
    layer.segment(source, US, data, 0, verify=False)
    for kind in IcmpKind:
        layer.icmp_error(US, source, data, kind, 0, len(data))
    assert len(layer.connections()) <= 1


def random_segment(rng: Rng, near: tuple[int, int]) -> Segment:
    """Draw a segment whose numbers lie near those of a connection, so that it is often nearly right."""
    flags = 0
    for bit, chance in ((ACK, 0.85), (SYN, 0.06), (FIN, 0.1), (RST, 0.04), (PSH, 0.2), (URG, 0.1)):
        flags |= bit * (rng.random() < chance)
    reach = rng.choice([2, 1500, 70_000, 2**31])
    sequence, acknowledgment = ((number + rng.randrange(-reach, reach)) % 2**32 for number in near)
    exact = rng.random()
    options = Options(
        mss=rng.choice([None, 0, 1, 536, 65535]),
        window_scale=rng.choice([None, 0, 7, 255]),
        sack_permitted=rng.random() < 0.5,
        sack=tuple((rng.randrange(9000) + near[1] & MASK, rng.randrange(9000) + near[1] & MASK) for _ in range(2)),
        timestamp=rng.choice([None, (rng.randrange(2**32), rng.randrange(2**32))]),
    )  # fmt: skip
    return Segment(
        5000, 80, near[0] if exact < 0.4 else sequence, near[1] if exact < 0.6 else acknowledgment, flags,
        rng.choice([0, 1, 500, 65535]), rng.randbytes(rng.choice([0, 0, 1, 100, 1460])), options, rng.randrange(2000),
    )  # fmt: skip


def numbers(layer: TcpLayer) -> tuple[int, int]:
    """Returns what a connection expects next, and what it would like to see acknowledged."""
    for connection in layer._table.by_four.values():
        return connection.receiver.nxt % 2**32, connection.nxt % 2**32
    return 0, 0


def test_random_segments_in_every_state() -> None:
    """Segments that are nearly right, ICMP, timers and calls in any order never raise and keep every bound."""
    for seed in range(150):
        rng = Rng(f"fuzz/{seed}")
        stamps, sack = rng.random() < 0.5, rng.random() < 0.7
        config = TcpConfig(timestamps=stamps, selective_ack=sack, buffer=20_000, max_buffer=60_000)
        layer, invariants, now = TcpLayer(config, b""), Invariants(), 0
        listener = layer.listen(Endpoint(0, 80), 2)
        handles: list[Handle] = []
        if rng.random() < 0.4:
            made = layer.connect(US, Endpoint(PEER, 5000), 0, port=80)
            assert not isinstance(made, Refused)
            handles.append(made)
        for _ in range(80):
            now += rng.choice([0, 1_000_000, SECOND // 3, 40 * SECOND if rng.random() < 0.1 else 0])
            segment = random_segment(rng, numbers(layer))
            layer.segment(PEER, US, build(PEER, US, segment), now, rng.choice([68, 576, 1500, 65535]))
            if (wakeup := layer.next_wakeup_ns) is not None and wakeup <= now:
                layer.timer(now)
            _call(rng, layer, handles, now)
            assert not isinstance(listener, Refused)
            accepted = layer.accept(listener)
            if not isinstance(accepted, Refused):
                handles.append(accepted)
            invariants.check(layer)
            assert len(layer.drain().packets) < 200
        assert len(layer.connections()) <= 3


def _call(rng: Rng, layer: TcpLayer, handles: list[Handle], now: int) -> None:
    """Do anything that a user could."""
    handle = rng.choice([*handles, 99])
    what = rng.randrange(14)
    if what < 5:
        layer.send(handle, rng.randbytes(rng.choice([1, 3000, 30_000])), now, urgent=what == 0)
    elif what < 9:
        layer.recv(handle, rng.choice([1, 5000]), now)
    elif what == 9 and rng.random() < 0.3:
        layer.shutdown(handle, now)
    elif what == 10 and rng.random() < 0.2:
        layer.close(handle, now)
    elif what == 11 and rng.random() < 0.1:
        layer.abort(handle, now)
    elif what == 12:
        layer.icmp_error(
            US, PEER, b"\x00\x50\x13\x88" + numbers(layer)[1].to_bytes(4, "big"), rng.choice(list(IcmpKind)), now, 600
        )
    else:
        layer.poll(handle)
        layer.status(handle)


def test_a_script_is_a_script() -> None:
    """The harness itself fails when a segment goes that the script does not name."""
    script = Script()
    try:
        script.expect("+0 connect\n +0 ? state SYN_SENT")
    except AssertionError:
        return
    raise AssertionError("the SYN went unnoticed")
