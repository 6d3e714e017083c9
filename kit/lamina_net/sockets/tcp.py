"""TCP as sockets have it: a handle exists before its connection does, and is bound, listens or connects. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lamina_kit.rng import Rng
from lamina_net.ip.internet import Internet
from lamina_net.packets.address import ANY, is_unicast
from lamina_net.tcp.config import SocketOptions
from lamina_net.tcp.interface import Endpoint, Errno, Event, Handle, Readiness, Refused
from lamina_net.tcp.layer import TcpLayer

NOWHERE = Endpoint(ANY, 0)


@dataclass(slots=True, eq=False)
class _TcpSocket:
    """A socket. `inner` is the layer's handle of its connection or listener, once there is one."""

    handle: Handle
    local: Endpoint = NOWHERE
    remote: Endpoint | None = None
    options: SocketOptions = field(default_factory=SocketOptions)
    inner: Handle | None = None
    is_bound: bool = False
    is_listening: bool = False


class TcpSockets:
    """All TCP sockets of a host; every handle that its calls are given is one of `open` or `accept`."""

    def __init__(self, tcp: TcpLayer, internet: Internet, rng: Rng, ephemeral: range) -> None:
        self._tcp, self._internet, self._rng, self._ephemeral = tcp, internet, rng, ephemeral
        self._sockets: dict[Handle, _TcpSocket] = {}
        self._by_inner: dict[Handle, Handle] = {}
        self._bound: dict[int, list[_TcpSocket]] = {}

    def open(self, handle: Handle) -> None:
        """Make a socket."""
        self._sockets[handle] = _TcpSocket(handle)

    def set_options(self, handle: Handle, options: SocketOptions, now_ns: int) -> Refused | None:
        """Set options; of a connection or listener that there is, all but congestion control.

        INVAL: one that is out of its range.
        """
        socket = self._sockets[handle]
        if not options.is_valid:
            return Refused(Errno.INVAL)
        socket.options = replace(options)
        if socket.inner is None:
            return None
        return self._tcp.set_options(
            socket.inner,
            now_ns,
            nodelay=options.nodelay,
            keepalive=options.keepalive,
            user_timeout_ns=options.user_timeout_ns,
            dscp=options.dscp,
            ttl=options.ttl,
        )

    def names(self, handle: Handle) -> tuple[Endpoint, Endpoint | None]:
        """Return where a socket is bound, and its peer."""
        return self._sockets[handle].local, self._sockets[handle].remote

    def inner(self, handle: Handle) -> Handle | None:
        """Return the handle that TCP knows the connection or listener by, for its status."""
        return self._sockets[handle].inner

    def bind(self, handle: Handle, local: Endpoint) -> Refused | None:
        """Bind a socket, once; port 0 chooses one.

        INVAL: bound or connected already, or no port. ADDRNOTAVAIL: not ours, or no port is free. ADDRINUSE.
        """
        socket = self._sockets[handle]
        if socket.is_bound or socket.inner is not None or not 0 <= local.port <= 0xFFFF:
            return Refused(Errno.INVAL)
        if local.address != ANY and not self._internet.is_ours(local.address):
            return Refused(Errno.ADDRNOTAVAIL)
        if local.port and self._is_taken(local):
            return Refused(Errno.ADDRINUSE)
        port = local.port or self._free_port(local.address)
        if not port:
            return Refused(Errno.ADDRNOTAVAIL)
        socket.local, socket.is_bound = Endpoint(local.address, port), True
        self._bound.setdefault(port, []).append(socket)
        return None

    def listen(self, handle: Handle, backlog: int) -> Refused | None:
        """Wait for connections, at an ephemeral port if not bound. INVAL: connected, or listens; TCP's otherwise."""
        socket = self._sockets[handle]
        if socket.inner is not None:
            return Refused(Errno.INVAL)
        if not socket.is_bound and (refused := self.bind(handle, NOWHERE)) is not None:
            return refused
        inner = self._tcp.listen(socket.local, backlog, replace(socket.options))
        if isinstance(inner, Refused):
            return inner
        socket.is_listening = True
        self._attach(socket, inner)
        return None

    def connect(self, handle: Handle, remote: Endpoint, now_ns: int) -> Refused | None:
        """Begin a connection; an event CONNECTED or ERROR tells how it went.

        ISCONN: there is one, or a listener. NETUNREACH: no way, also from where it is bound, or to more than one host.
        TCP's otherwise.
        """
        socket, internet = self._sockets[handle], self._internet
        if socket.inner is not None:
            return Refused(Errno.ISCONN)
        source = socket.local.address or internet.source_for(remote.address)
        if not source or not is_unicast(remote.address) or internet.is_group(remote.address):
            return Refused(Errno.NETUNREACH)
        if not internet.is_ours(remote.address) and not internet.may_leave_from(source):
            return Refused(Errno.NETUNREACH)
        mtu, options = internet.mtu_for(remote.address), replace(socket.options)
        inner = self._tcp.connect(source, remote, now_ns, mtu, port=socket.local.port, options=options)
        if isinstance(inner, Refused):
            return inner
        self._attach(socket, inner)
        return None

    def accept(self, handle: Handle, fresh: Handle) -> Refused | None:
        """Make a socket, by the handle `fresh`, of the connection that waits longest. AGAIN: none does. INVAL."""
        listener = self._sockets[handle]
        if listener.inner is None or not listener.is_listening:
            return Refused(Errno.INVAL)
        inner = self._tcp.accept(listener.inner)
        if isinstance(inner, Refused):
            return inner
        socket = self._sockets[fresh] = _TcpSocket(fresh, options=replace(listener.options))
        self._attach(socket, inner)
        return None

    def send(self, handle: Handle, data: bytes, now_ns: int, *, urgent: bool = False) -> int | Refused:
        """Take bytes to send. NOTCONN: not connected; TCP's otherwise."""
        inner = self._connection(handle)
        return inner if isinstance(inner, Refused) else self._tcp.send(inner, data, now_ns, urgent=urgent)

    def recv(self, handle: Handle, size: int, now_ns: int) -> bytes | Refused:
        """Return bytes that came. NOTCONN: not connected; TCP's otherwise."""
        inner = self._connection(handle)
        return inner if isinstance(inner, Refused) else self._tcp.recv(inner, size, now_ns)

    def shutdown(self, handle: Handle, now_ns: int) -> Refused | None:
        """Close our half. NOTCONN: not connected."""
        inner = self._connection(handle)
        return inner if isinstance(inner, Refused) else self._tcp.shutdown(inner, now_ns)

    def poll(self, handle: Handle) -> Readiness:
        """Return what calls would find now; a socket that was never connected is over before it begins."""
        socket = self._sockets[handle]
        ready = Refused(Errno.BADF) if socket.inner is None else self._tcp.poll(socket.inner)
        return Readiness(hangup=True) if isinstance(ready, Refused) else ready

    def close(self, handle: Handle, now_ns: int, *, abort: bool = False) -> None:
        """End a socket; its connection ends in its own time, or with `abort` by RST."""
        socket = self._sockets.pop(handle)
        if socket.is_bound:
            others = self._bound[socket.local.port]
            others.remove(socket)
            if not others:
                del self._bound[socket.local.port]
        if socket.inner is not None:
            del self._by_inner[socket.inner]
            if abort and not socket.is_listening:
                self._tcp.abort(socket.inner, now_ns)
            else:
                self._tcp.close(socket.inner, now_ns)

    def translated(self, event: Event) -> Event | None:
        """Return an event of TCP with the socket's handle; None for a connection that no socket has."""
        handle = self._by_inner.get(event.handle)
        return None if handle is None else event._replace(handle=handle)

    def _attach(self, socket: _TcpSocket, inner: Handle) -> None:
        socket.inner = inner
        self._by_inner[inner] = socket.handle
        status = self._tcp.status(inner)
        if not isinstance(status, Refused):
            socket.local, socket.remote = status.local, status.remote

    def _connection(self, handle: Handle) -> Handle | Refused:
        socket = self._sockets[handle]
        return Refused(Errno.NOTCONN) if socket.inner is None or socket.is_listening else socket.inner

    def _is_taken(self, local: Endpoint) -> bool:
        return any(
            ANY in (local.address, other.local.address) or other.local.address == local.address
            for other in self._bound.get(local.port, ())
        )

    def _free_port(self, address: int) -> int:
        count = len(self._ephemeral)
        first = self._rng.randrange(count)
        ports = (self._ephemeral[(first + n) % count] for n in range(count))
        return next((port for port in ports if not self._is_taken(Endpoint(address, port))), 0)
