"""When connections must be looked at again: one heap for a layer, in which entries may be out of date.

A connection has one entry that counts, at its `scheduled_at`. A timer that moves later leaves it where it is, so that
an acknowledgment costs no heap operation; the wakeup then comes early and does nothing but look for the next one.
"""

from __future__ import annotations

import heapq

from lamina_net.tcp.connection.control_block import Connection
from lamina_net.tcp.interface import Handle
from lamina_net.tcp.table import Listener

_STALE = 8
"""How many entries there may be for each connection before those out of date go."""


class Wakeups:
    """The wakeups of the connections in `by_handle`, ordered by time and then by handle."""

    __slots__ = ("_by_handle", "_heap")

    def __init__(self, by_handle: dict[Handle, Connection | Listener]) -> None:
        self._by_handle = by_handle
        self._heap: list[tuple[int, Handle]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def schedule(self, conn: Connection) -> None:
        """See to it that the connection is looked at when its first timer is due."""
        at = conn.next_timer()
        if not at or (conn.scheduled_at and conn.scheduled_at <= at):
            return
        conn.scheduled_at = at
        heapq.heappush(self._heap, (at, conn.handle))
        if len(self._heap) > _STALE * (len(self._by_handle) + _STALE):
            self._heap = [entry for entry in self._heap if self._counts(entry)]
            heapq.heapify(self._heap)

    def first(self) -> int | None:
        """Return when the first wakeup is, None if there is none."""
        while self._heap:
            if self._counts(self._heap[0]):
                return self._heap[0][0]
            heapq.heappop(self._heap)
        return None

    def due(self, now_ns: int) -> Connection | None:
        """Take out and return a connection whose wakeup is not after `now_ns`, None if there is none."""
        at = self.first()
        if at is None or at > now_ns:
            return None
        conn = self._by_handle[heapq.heappop(self._heap)[1]]
        assert isinstance(conn, Connection)  # only those are scheduled
        conn.scheduled_at = 0
        return conn

    def _counts(self, entry: tuple[int, Handle]) -> bool:
        conn = self._by_handle.get(entry[1])
        return isinstance(conn, Connection) and conn.scheduled_at == entry[0]
