"""A listener under a flood of forged SYNs: honest peers get through, and nobody else does (RFC 4987)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_kit.rng import Rng
from lamina_net.tcp import cookies
from lamina_net.tcp.config import SECOND, Ecn, TcpConfig
from lamina_net.tcp.identity import Identity
from lamina_net.tcp.interface import Endpoint, Handle, Packet, Refused
from lamina_net.tcp.layer import TcpLayer
from lamina_net.tcp.segment import ACK, RST, SYN, Options, Segment, build, parse
from lamina_net.tcp.sequence import MASK
from lamina_net.tcp.states import State

US, PEER = 0x0A000001, 0x0A000002
FORGED = 0x0B000000
MS = 1_000_000
BACKLOG = 64


def flooded(count: int, config: TcpConfig | None = None, backlog: int = 128) -> tuple[TcpLayer, Handle]:
    """Return a server to which so many SYNs came from addresses that answer nothing, and its listener."""
    layer = TcpLayer(config or TcpConfig(syn_backlog=BACKLOG, ecn=Ecn.ACCEPT), b"server")
    listener = layer.listen(Endpoint(0, 80), backlog)
    assert not isinstance(listener, Refused)
    for number in range(count):
        body = Segment(1000 + (number & 0xFFF), 80, number, 0, SYN, 1000, options=Options(1460))
        layer.segment(FORGED + number, US, build(FORGED + number, US, body), 0)
    layer.drain()
    return layer, listener


def carried(client: TcpLayer, server: TcpLayer, now_ns: int) -> list[Packet]:
    """Carry packets between client and server until there are none; return the server's."""
    told = []
    while packets := client.drain().packets:
        for each in packets:
            server.segment(each.src, each.dst, each.data, now_ns, tos=each.tos)
        for each in server.drain().packets:
            if each.dst == PEER:
                told.append(each)
                client.segment(each.src, each.dst, each.data, now_ns, tos=each.tos)
    return told


def read(packet: Packet) -> Segment:
    """Return a packet's segment."""
    found = parse(packet.src, packet.dst, packet.data)
    assert isinstance(found, Segment)
    return found


@pytest.mark.parametrize("timestamps", [True, False])
def test_an_honest_peer_gets_through_a_flood(timestamps: bool) -> None:
    """After 2,000 forged SYNs one who answers is connected, and bytes go both ways; the backlog is what it was."""
    server, listener = flooded(2000)
    assert (server.counters.cookies_sent, server.counters.syns_dropped) == (2000 - BACKLOG, 0)
    client = TcpLayer(TcpConfig(timestamps=timestamps, ecn=Ecn.ASK), b"client")
    handle = client.connect(PEER, Endpoint(US, 80), 5 * MS)
    assert not isinstance(handle, Refused)
    carried(client, server, 5 * MS)
    accepted = server.accept(listener)
    assert not isinstance(accepted, Refused)
    assert len(server.connections()) == BACKLOG + 1
    assert client.send(handle, b"question" * 100, 6 * MS) == 800
    carried(client, server, 6 * MS)
    assert server.recv(accepted, 10_000, 6 * MS) == b"question" * 100
    assert server.send(accepted, b"answer", 7 * MS) == 6
    for each in server.drain().packets:
        client.segment(each.src, each.dst, each.data, 7 * MS, tos=each.tos)
    assert client.recv(handle, 100, 7 * MS) == b"answer"
    assert server.counters.cookies_taken == 1


@pytest.mark.parametrize("asks", [Ecn.ASK, Ecn.OFF])
def test_a_cookie_offers_what_a_backlog_would(asks: Ecn) -> None:
    """Scale, SACK, ECN, size and window are agreed as without a flood, for peers with timestamps."""
    seen = []
    for count in (0, 200):
        server, listener = flooded(count)
        client = TcpLayer(TcpConfig(ecn=asks), b"client")
        handle = client.connect(PEER, Endpoint(US, 80), 100 * MS, 9000)
        assert not isinstance(handle, Refused)
        answer = read(carried(client, server, 100 * MS)[0])
        accepted = server.accept(listener)
        assert not isinstance(accepted, Refused)
        client_status, status = client.status(handle), server.status(accepted)
        assert not isinstance(status, Refused) and not isinstance(client_status, Refused)
        ends = [layer._table.by_handle[each] for layer, each in ((client, handle), (server, accepted))]
        agreed = [(end.selective_ack, end.scaling, end.timestamps, end.marking.is_on) for end in ends]  # type: ignore[union-attr]
        seen.append((
            answer.flags, answer.window, answer.options._replace(timestamp=None), agreed, client_status.mss,
            status.receive_window, client_status.send_window, status.send_window, status.mss,
        ))  # fmt: skip
        assert answer.options.timestamp is not None and answer.options.timestamp[1] == read_stamp(client, handle)
    assert seen[0][:-1] == seen[1][:-1]
    assert (seen[0][-1], seen[1][-1]) == (1460, 1460), "our own link is the shorter one"


def read_stamp(client: TcpLayer, handle: Handle) -> int:
    """Return the timestamp of a connection's SYN at 100 ms."""
    return (100 + client._table.by_handle[handle].stamp_offset) & MASK  # type: ignore[union-attr]


def test_nobody_guesses_a_cookie() -> None:
    """ACKs of any numbers, and true ones from elsewhere, about another SYN or too late, are reset and begin nothing."""
    server, _ = flooded(100)
    syn = Segment(7000, 80, 5, 0, SYN, 1000)
    server.segment(PEER, US, build(PEER, US, syn), 0)
    cookie = read(server.drain().packets[0]).sequence
    right = Segment(7000, 80, 6, (cookie + 1) & MASK, ACK, 1000)
    rng = Rng(1)
    wrong = [right._replace(acknowledgment=rng.getrandbits(32)) for _ in range(500)]
    wrong += [right._replace(sequence=7), right._replace(source_port=7001), right._replace(flags=ACK | SYN)]
    for each in wrong:
        server.segment(PEER, US, build(PEER, US, each), MS)
    server.segment(PEER + 1, US, build(PEER + 1, US, right), MS)
    answers = [read(packet) for packet in server.drain().packets]
    assert len(answers) == len(wrong) + 1
    assert all(each.flags & RST for each in answers)
    server.segment(PEER, US, build(PEER, US, right), 128 * SECOND + 1)
    assert read(server.drain().packets[0]).flags & RST
    assert server.counters.cookies_taken == 0
    server.segment(PEER, US, build(PEER, US, right), 120 * SECOND)
    assert server.counters.cookies_taken == 1


def test_without_a_flood_no_ack_begins_a_connection() -> None:
    """A cookie that is right is none while the backlog was never full."""
    server, _ = flooded(100)
    server.segment(PEER, US, build(PEER, US, Segment(7000, 80, 5, 0, SYN, 1000)), 0)
    cookie = read(server.drain().packets[0]).sequence
    calm, _ = flooded(10)
    calm.segment(PEER, US, build(PEER, US, Segment(7000, 80, 6, (cookie + 1) & MASK, ACK, 1000)), MS)
    assert read(calm.drain().packets[0]).flags & RST


def test_bytes_behind_a_cookie_are_echoed_by_their_own_stamp() -> None:
    """The SYN-ACK has acknowledged the SYN, so that the first bytes bring the stamp to echo (RFC 7323, 4.3)."""
    server, _ = flooded(100)
    syn = Segment(7000, 80, 5, 0, SYN, 1000, options=Options(1460, timestamp=(10, 0)))
    server.segment(PEER, US, build(PEER, US, syn), 0)
    answer = read(server.drain().packets[0])
    assert answer.options.timestamp is not None
    for stamp, sequence, payload in ((20, 6, b""), (500, 6, bytes(1000)), (500, 1006, bytes(1000))):
        body = ack_of(answer)._replace(
            sequence=sequence, payload=payload, options=Options(timestamp=(stamp, answer.options.timestamp[0]))
        )
        server.segment(PEER, US, build(PEER, US, body), MS)
    told = read(server.drain().packets[-1]).options.timestamp
    assert told is not None and told[1] == 500


def test_a_peer_in_time_wait_gets_no_cookie() -> None:
    """The number would have to be beyond the old ones: the SYN is dropped, and what waits goes on waiting."""
    server, listener = flooded(0)
    client = TcpLayer(TcpConfig(), b"client")
    handle = client.connect(PEER, Endpoint(US, 80), MS, port=7000)
    assert not isinstance(handle, Refused)
    carried(client, server, MS)
    accepted = server.accept(listener)
    assert not isinstance(accepted, Refused)
    server.close(accepted, MS)
    for each in server.drain().packets:
        client.segment(each.src, each.dst, each.data, MS)
    client.close(handle, MS)
    carried(client, server, MS)
    for port in range(1000, 1000 + BACKLOG):
        server.segment(FORGED, US, build(FORGED, US, Segment(port, 80, 5, 0, SYN, 1000)), MS)
    server.drain()
    old = server._table.by_four[US, 80, PEER, 7000]
    again = Segment(7000, 80, (old.receiver.nxt + 9) & MASK, 0, SYN, 1000)
    server.segment(PEER, US, build(PEER, US, again), MS)
    assert (server.counters.syns_dropped, server.counters.cookies_sent) == (1, 0)
    assert server.drain().packets == []
    assert server._table.by_four[US, 80, PEER, 7000] is old and old.state is State.TIME_WAIT


def test_cookies_repeat_with_the_seed() -> None:
    """The same flood twice is answered by the same bytes; nothing but the seed makes them."""
    told = []
    for seed in (b"one", b"one", b"two"):
        layer = TcpLayer(TcpConfig(syn_backlog=0), seed)
        layer.listen(Endpoint(0, 80))
        for port in range(7000, 7020):
            syn = Segment(port, 80, 5, 0, SYN, 1000, options=Options(1460, timestamp=(10, 0)))
            layer.segment(PEER, US, build(PEER, US, syn), MS)
        told.append([packet.data for packet in layer.drain().packets])
    assert told[0] == told[1]
    assert not {read_number(data) for data in told[0]} & {read_number(data) for data in told[2]}


def read_number(data: bytes) -> int:
    """Return the sequence number of a segment's bytes."""
    return int.from_bytes(data[4:8], "big")


def test_a_full_accept_queue_makes_the_ack_come_again() -> None:
    """Whoever brings a cookie while nobody is accepted hears nothing; repeated, it is taken once there is room."""
    server, listener = flooded(100, backlog=1)
    for port, taken in ((7000, 1), (7001, 1)):
        server.segment(PEER, US, build(PEER, US, Segment(port, 80, 5, 0, SYN, 1000)), 0)
        if port == 7000:
            first = read(server.drain().packets[0])
            server.segment(PEER, US, build(PEER, US, ack_of(first)), MS)
        assert server.counters.cookies_taken == taken
    assert server.counters.syns_dropped == 1, "no cookie while the queue is full"
    assert not isinstance(server.accept(listener), Refused)
    server.segment(PEER, US, build(PEER, US, Segment(7001, 80, 5, 0, SYN, 1000)), 2 * MS)
    second, third = read(server.drain().packets[0]), Segment(7002, 80, 5, 0, SYN, 1000)
    server.segment(PEER, US, build(PEER, US, third), 2 * MS)
    third_answer = read(server.drain().packets[0])
    for answer in (second, third_answer):
        server.segment(PEER, US, build(PEER, US, ack_of(answer)), 3 * MS)
    assert server.counters.cookies_taken == 2
    assert server.drain().packets == []
    assert not isinstance(server.accept(listener), Refused)
    server.segment(PEER, US, build(PEER, US, ack_of(third_answer)), 4 * MS)
    accepted = server.accept(listener)
    assert not isinstance(accepted, Refused)
    status = server.status(accepted)
    assert not isinstance(status, Refused) and status.state is State.ESTABLISHED


def ack_of(answer: Segment) -> Segment:
    """Return what a peer says to a SYN-ACK."""
    number = (answer.sequence + 1) & MASK
    return Segment(answer.destination_port, answer.source_port, answer.acknowledgment, number, ACK, 1000)


OPTIONS = st.builds(
    Options,
    st.none() | st.integers(1, 65_535),
    st.none() | st.integers(0, 255),
    st.booleans(),
    st.just(()),
    st.tuples(st.integers(0, MASK), st.just(0)),
)


@given(OPTIONS, st.integers(0, MASK), st.integers(0, 1 << 50), st.integers(0, MASK), st.booleans())
def test_a_cookie_brings_back_what_the_syn_said(
    options: Options, syn_number: int, now_ns: int, clock: int, ecn: bool
) -> None:
    """Within a period all that it holds comes back, the size rounded down; the stamp is no later than the clock."""
    identity, four = Identity(b"x"), (US, 80, PEER, 7000)
    syn = Segment(7000, 80, syn_number, 0, SYN, 1000, options=options)
    number, stamp = cookies.number(identity, four, syn, now_ns), cookies.stamp(clock, syn, ecn=ecn)
    assert (clock - stamp) & MASK <= 64
    answer = Segment(
        7000, 80, (syn_number + 1) & MASK, (number + 1) & MASK, ACK, 1000, options=Options(timestamp=(9, stamp))
    )
    for later in (0, 64 * SECOND):
        offer = cookies.recognized(identity, four, answer, now_ns + later)
        assert offer is not None and offer.ecn is ecn
        assert offer.options.mss is not None and offer.options.mss <= max(64, options.mss or 536)
        scale = None if options.window_scale is None else min(options.window_scale, 14)
        assert offer.options._replace(mss=None) == Options(None, scale, options.sack_permitted, (), (9, 0))
    assert cookies.recognized(identity, four, answer, now_ns + 128 * SECOND) is None
    assert cookies.recognized(identity, four, replace_number(answer), now_ns) is None


def replace_number(answer: Segment) -> Segment:
    """Return an answer to another SYN."""
    return answer._replace(sequence=(answer.sequence + 1) & MASK)


def test_a_listener_that_always_answers_by_cookies_serves_all() -> None:
    """With a backlog of none each of fifty peers is connected."""
    server, listener = flooded(0, replace(TcpConfig(), syn_backlog=0))
    client = TcpLayer(TcpConfig(), b"client")
    for _ in range(50):
        assert not isinstance(client.connect(PEER, Endpoint(US, 80), MS), Refused)
        carried(client, server, MS)
        assert not isinstance(server.accept(listener), Refused)
    assert server.counters.cookies_taken == 50
