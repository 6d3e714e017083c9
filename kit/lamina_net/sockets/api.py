"""Sockets: what users of the stack call. Pure, and nothing blocks.

A call returns its result, or `Refused` with the name of an errno; AGAIN means that an event will tell when to try
again. Handles are numbers, never used twice.

    server = sockets.open_tcp()
    sockets.bind(server, Endpoint(0, 80)); sockets.listen(server, 16)
    ...                                     # frames go in and out; an event says ACCEPTABLE
    handle = sockets.accept(server, now_ns)
    data = sockets.recv(handle, 4096, now_ns)
    sockets.send(handle, b"answer", now_ns); sockets.close(handle, now_ns)

Bytes, frames and events that come of a call lie in the stack until its `drain`.
"""

from __future__ import annotations

from collections.abc import Callable

from lamina_net.sockets.datagrams import DatagramLayer, DatagramOptions
from lamina_net.sockets.ping import PingLayer
from lamina_net.sockets.tcp import TcpSockets
from lamina_net.sockets.udp import UdpLayer
from lamina_net.tcp.config import SocketOptions
from lamina_net.tcp.interface import Endpoint, Errno, Event, Handle, Readiness, Refused


class Sockets:
    """All sockets of a stack, at most `limit`. `settle(now_ns)` lets the stack do what a call began."""

    def __init__(
        self, udp: UdpLayer, ping: PingLayer, tcp: TcpSockets, settle: Callable[[int], None], limit: int
    ) -> None:
        self._udp, self._ping, self._tcp = udp, ping, tcp
        self._settle, self._limit = settle, limit
        self._families: dict[Handle, DatagramLayer | TcpSockets] = {}
        self._last: Handle = 0

    def __len__(self) -> int:
        return len(self._families)

    def open_udp(self) -> Handle | Refused:
        """Return a new UDP socket. NOBUFS: too many."""
        return self._open(self._udp)

    def open_ping(self) -> Handle | Refused:
        """Return a new ping socket. NOBUFS: too many."""
        return self._open(self._ping)

    def open_tcp(self) -> Handle | Refused:
        """Return a new TCP socket. NOBUFS: too many."""
        return self._open(self._tcp)

    def bind(self, handle: Handle, local: Endpoint) -> Refused | None:
        """Bind to an address, 0 for all, and a port (a ping socket's identifier), 0 for any that is free.

        BADF; INVAL: bound already; ADDRINUSE; ADDRNOTAVAIL: not an address of ours, or no port is free.
        """
        family = self._families.get(handle)
        return Refused(Errno.BADF) if family is None else family.bind(handle, local)

    def connect(self, handle: Handle, remote: Endpoint, now_ns: int) -> Refused | None:
        """Name a datagram socket's peer, or begin a TCP connection, of which an event tells the end.

        BADF; NETUNREACH: no way; ISCONN; ACCES: broadcast without leave; ADDRINUSE, ADDRNOTAVAIL, NOBUFS, INVAL.
        """
        family = self._families.get(handle)
        if family is None:
            return Refused(Errno.BADF)
        refused = family.connect(handle, remote, now_ns)
        self._settle(now_ns)
        return refused

    def listen(self, handle: Handle, backlog: int) -> Refused | None:
        """Wait for TCP connections. BADF; INVAL: no TCP socket, or connected; ADDRINUSE, NOBUFS."""
        tcp = self._tcp_of(handle)
        return tcp if isinstance(tcp, Refused) else tcp.listen(handle, backlog)

    def accept(self, handle: Handle, now_ns: int) -> Handle | Refused:
        """Return a socket for the connection that waits longest. BADF; INVAL: no listener; AGAIN: none; NOBUFS."""
        tcp = self._tcp_of(handle)
        if isinstance(tcp, Refused):
            return tcp
        if len(self._families) >= self._limit:
            return Refused(Errno.NOBUFS)
        fresh = self._last + 1
        refused = tcp.accept(handle, fresh)
        if refused is not None:
            return refused
        self._last, self._families[fresh] = fresh, tcp
        self._settle(now_ns)
        return fresh

    def send(
        self, handle: Handle, data: bytes, now_ns: int, to: Endpoint | None = None, *, urgent: bool = False
    ) -> int | Refused:
        """Send a datagram to `to` or the peer, or as many bytes of a stream as there is room for; return how many.

        `urgent`: the last byte that a stream takes ends urgent data (RFC 6093); a datagram knows no such thing.

        BADF; AGAIN: no room; NOTCONN, PIPE, ISCONN (a stream with `to`); DESTADDRREQ, MSGSIZE, ACCES, NETUNREACH; or
        the error that a datagram socket has met since.
        """
        family = self._families.get(handle)
        if family is None:
            return Refused(Errno.BADF)
        if isinstance(family, DatagramLayer):
            result = family.send(handle, data, to, now_ns)
        elif to is not None:
            return Refused(Errno.ISCONN)
        else:
            result = family.send(handle, data, now_ns, urgent=urgent)
        self._settle(now_ns)
        return result

    def recv(self, handle: Handle, size: int, now_ns: int) -> bytes | Refused:
        """Return up to `size` bytes: of a stream, b"" at its end; of a datagram, whose rest is lost."""
        received = self.recv_from(handle, size, now_ns)
        return received if isinstance(received, Refused) else received[0]

    def recv_from(self, handle: Handle, size: int, now_ns: int) -> tuple[bytes, Endpoint] | Refused:
        """Return what `recv` does, and whence it came.

        BADF; INVAL: negative size; AGAIN: nothing yet; NOTCONN; or the error that the socket has met since.
        """
        family = self._families.get(handle)
        if family is None or size < 0:
            return Refused(Errno.BADF if family is None else Errno.INVAL)
        if isinstance(family, DatagramLayer):
            received = family.recv(handle)
            return received if isinstance(received, Refused) else (received[0][:size], received[1])
        data = family.recv(handle, size, now_ns)
        self._settle(now_ns)
        if isinstance(data, Refused):
            return data
        return data, family.names(handle)[1] or Endpoint(0, 0)

    def shutdown(self, handle: Handle, now_ns: int) -> Refused | None:
        """Close our half of a stream. BADF; INVAL: no TCP socket; NOTCONN."""
        tcp = self._tcp_of(handle)
        if isinstance(tcp, Refused):
            return tcp
        refused = tcp.shutdown(handle, now_ns)
        self._settle(now_ns)
        return refused

    def close(self, handle: Handle, now_ns: int) -> Refused | None:
        """End a socket. BADF."""
        return self._close(handle, now_ns, abort=False)

    def abort(self, handle: Handle, now_ns: int) -> Refused | None:
        """End a socket; a connection of it is reset. BADF."""
        return self._close(handle, now_ns, abort=True)

    def join(self, handle: Handle, group: int, interface: str) -> Refused | None:
        """Take packets to a multicast group. BADF; INVAL: no datagram socket, group or interface; ADDRINUSE; NOBUFS."""
        family = self._families.get(handle)
        if not isinstance(family, DatagramLayer):
            return Refused(Errno.BADF if family is None else Errno.INVAL)
        return family.join(handle, group, interface)

    def set_options(self, handle: Handle, options: DatagramOptions | SocketOptions, now_ns: int) -> Refused | None:
        """Set what holds for a socket, all at once. BADF; INVAL: those of another kind, or out of range."""
        family = self._families.get(handle)
        if family is None:
            return Refused(Errno.BADF)
        if isinstance(family, DatagramLayer):
            return family.set_options(handle, options) if isinstance(options, DatagramOptions) else _wrong()
        return family.set_options(handle, options, now_ns) if isinstance(options, SocketOptions) else _wrong()

    def names(self, handle: Handle) -> tuple[Endpoint, Endpoint | None] | Refused:
        """Return where a socket is bound, and its peer or None. BADF."""
        family = self._families.get(handle)
        return Refused(Errno.BADF) if family is None else family.names(handle)

    def poll(self, handle: Handle) -> Readiness | Refused:
        """Return what calls would find now. BADF."""
        family = self._families.get(handle)
        return Refused(Errno.BADF) if family is None else family.poll(handle)

    def translated(self, event: Event) -> Event | None:
        """Return an event of TCP as one of a socket; None when no socket has it."""
        return self._tcp.translated(event)

    def _open(self, family: DatagramLayer | TcpSockets) -> Handle | Refused:
        if len(self._families) >= self._limit:
            return Refused(Errno.NOBUFS)
        self._last += 1
        self._families[self._last] = family
        family.open(self._last)
        return self._last

    def _tcp_of(self, handle: Handle) -> TcpSockets | Refused:
        family = self._families.get(handle)
        if isinstance(family, TcpSockets):
            return family
        return Refused(Errno.BADF if family is None else Errno.INVAL)

    def _close(self, handle: Handle, now_ns: int, *, abort: bool) -> Refused | None:
        family = self._families.pop(handle, None)
        if family is None:
            return Refused(Errno.BADF)
        if isinstance(family, DatagramLayer):
            family.close(handle)
        else:
            family.close(handle, now_ns, abort=abort)
        self._settle(now_ns)
        return None


def _wrong() -> Refused:
    return Refused(Errno.INVAL)
