"""What holds for every connection after every step, looked up the naive way."""

from __future__ import annotations

from itertools import pairwise

from lamina_net.tcp.connection.control_block import Connection
from lamina_net.tcp.layer import TcpLayer
from lamina_net.tcp.states import State


class Invariants:
    """Remembers how far each connection was, and complains about what goes back or out of bounds."""

    def __init__(self) -> None:
        self._seen: dict[Connection, tuple[int, int, int, int, State]] = {}
        self.steps = 0

    def check(self, layer: TcpLayer) -> None:
        """Check all connections of a layer that are not over."""
        for conn in layer._table.by_four.values():
            self.steps += 1
            check_numbers(conn)
            check_bounds(conn)
            if self.steps % 16 == 0:
                check_flight(conn)
            now = (conn.una, conn.nxt, conn.receiver.nxt, conn.receiver.advertised, conn.state)
            before = self._seen.get(conn)
            if before is not None and before[4] is not State.SYN_SENT:
                for name, old, new in zip(("una", "nxt", "rcv.nxt", "window's edge"), before[:4], now[:4], strict=True):
                    assert new >= old, f"{name} went back from {old} to {new}"
                assert now[4] >= before[4] or before[4] is State.CLOSE_WAIT, f"{before[4]!r} to {now[4]!r}"
            self._seen[conn] = now
        for handle in list(layer._table.waiting):
            assert layer._table.waiting[handle].state is State.TIME_WAIT


def check_numbers(conn: Connection) -> None:
    """What is acknowledged was sent, what was sent exists."""
    assert conn.una <= conn.nxt
    assert conn.nxt <= conn.buffer_end + (conn.fin_sent_at is not None) + (conn.state < State.ESTABLISHED)
    if conn.fin_sent_at is not None and conn.state is not State.TIME_WAIT:
        assert conn.fin_queued
        assert conn.fin_sent_at == conn.buffer_end
    assert conn.nxt - conn.una <= conn.max_window + 1 or conn.state < State.ESTABLISHED


def check_bounds(conn: Connection) -> None:
    """Nothing is longer than its bound."""
    receiver, config = conn.receiver, conn.config
    assert len(conn.buffer) <= conn.capacity <= max(config.buffer, config.max_buffer)
    assert len(receiver.ready) + max(0, receiver.advertised - receiver.nxt) <= receiver.size
    assert receiver.size <= max(config.buffer, config.max_buffer)
    assert len(receiver.waiting) <= max(0, receiver.advertised - receiver.nxt)
    assert len(receiver.ranges) <= config.max_ranges
    assert conn.congestion.window >= min(conn.congestion.mss, conn.mss)


def check_flight(conn: Connection) -> None:
    """The records lie side by side from `una` to `nxt`, and the pipe counts what is on its way."""
    at, pipe = conn.una, 0
    for record in conn.flight.queue:
        assert record.start == at
        assert record.end > record.start
        assert not (record.counted and (record.lost or record.sacked))
        at = record.end
        pipe += (record.end - record.start) * record.counted
    assert at == conn.nxt
    assert pipe == conn.flight.pipe
    assert conn.flight.credit >= 0
    ranges = list(conn.receiver.ranges)
    for (_, end), (start, _) in pairwise(ranges):
        assert end < start
    if ranges:
        assert ranges[0][0] > conn.receiver.nxt
        assert ranges[-1][1] == conn.receiver.nxt + len(conn.receiver.waiting)
