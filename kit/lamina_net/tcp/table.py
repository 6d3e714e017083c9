"""Who is there: listeners, connections by four-tuple and by handle, and the bounds on how many.

Source: RFC 9293, 3.10.7.1; RFC 6056, 3.3.3 for ephemeral ports (simple hash-based selection).
"""

from __future__ import annotations

from collections import deque

from lamina_net.tcp.config import SocketOptions, TcpConfig
from lamina_net.tcp.connection.control_block import Connection
from lamina_net.tcp.identity import FourTuple, Identity
from lamina_net.tcp.interface import Endpoint, Handle
from lamina_net.tcp.states import State


class Listener:
    """A port that waits for SYNs."""

    __slots__ = ("backlog", "cookies_until_ns", "half_open", "handle", "local", "options", "queue")

    def __init__(self, handle: Handle, local: Endpoint, backlog: int, options: SocketOptions) -> None:
        self.handle = handle
        self.local = local
        self.backlog = backlog
        self.options = options
        self.half_open: dict[Handle, Connection] = {}
        """Connections in SYN-RECEIVED, oldest first."""
        self.queue: deque[Connection] = deque()
        """Connections that wait for `accept`."""
        self.cookies_until_ns = -1
        """Until when an ACK may bring back a cookie; before the first one no ACK may."""

    @property
    def is_full(self) -> bool:
        """Whether nobody more can wait for `accept`."""
        return len(self.queue) >= self.backlog


class Table:
    """Listeners and connections of a layer."""

    __slots__ = (
        "_config", "_identity", "_last_handle", "_port_step", "by_four", "by_handle", "given_up", "listeners",
        "waiting",
    )  # fmt: skip

    def __init__(self, config: TcpConfig, identity: Identity) -> None:
        self._config = config
        self._identity = identity
        self._last_handle = 0
        self._port_step = 0
        self.by_four: dict[FourTuple, Connection] = {}
        self.by_handle: dict[Handle, Connection | Listener] = {}
        self.listeners: dict[Endpoint, Listener] = {}
        self.waiting: dict[Handle, Connection] = {}
        """Connections in TIME-WAIT, in the order in which they came to it."""
        self.given_up: dict[Handle, Connection] = {}
        """Those of them whose handle nobody has any more, in the order in which both came true."""

    def new_handle(self) -> Handle:
        """Return a handle that was never used."""
        self._last_handle += 1
        return self._last_handle

    def listener(self, address: int, port: int) -> Listener | None:
        """Return who listens there: for this address, else for all."""
        return self.listeners.get(Endpoint(address, port)) or self.listeners.get(Endpoint(0, port))

    def has_room(self) -> bool:
        """Tell whether one more connection may be; in TIME-WAIT the oldest that was given up makes room.

        Ending one whose user has its handle yet would make none.
        """
        if len(self.by_handle) >= self._config.max_connections:
            self._end_oldest(self.given_up)
        return len(self.by_handle) < self._config.max_connections

    def _end_oldest(self, waiting: dict[Handle, Connection]) -> None:
        for conn in waiting.values():
            conn.over()
            self.follow(conn)
            return

    def add(self, conn: Connection) -> None:
        """Take a new connection."""
        self.by_four[conn.four] = conn
        self.by_handle[conn.handle] = conn

    def follow(self, conn: Connection) -> None:
        """Follow a connection to TIME-WAIT or CLOSED: who is closed keeps its handle until the user gives it up."""
        if conn.state is State.CLOSED:
            self.waiting.pop(conn.handle, None)
            self.given_up.pop(conn.handle, None)
            if self.by_four.get(conn.four) is conn:
                del self.by_four[conn.four]
            if conn.orphaned:
                self.by_handle.pop(conn.handle, None)
        elif conn.state is State.TIME_WAIT:
            self.waiting.setdefault(conn.handle, conn)
            if conn.orphaned:
                self.given_up.setdefault(conn.handle, conn)
            if len(self.waiting) > self._config.max_time_wait:
                self._end_oldest(self.waiting)

    def free_port(self, address: int, remote: Endpoint) -> int:
        """Return a port that no connection to `remote` and no listener has, 0 if there is none."""
        first = self._config.first_ephemeral_port
        count = self._config.last_ephemeral_port - first + 1
        offset = self._identity.port_offset(address, remote.address, remote.port)
        for _ in range(count):
            port = first + (offset + self._port_step) % count
            self._port_step += 1
            if (address, port, remote.address, remote.port) in self.by_four:
                continue
            if self.listener(address, port) is None:
                return port
        return 0
