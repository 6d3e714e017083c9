"""Sockets of the host for gateways: non-blocking, driven by the event loop. Real clocks only.

They belong to the process that serves and need no privilege; ICMP echo works where the kernel gives this group ping
sockets (`net.ipv4.ping_group_range`). After each thing that happened `settled` is called, so that what the gateway then
has to send is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import struct
from collections.abc import Callable

from lamina_net.packets.address import format_address, parse_address
from lamina_vswitch.domain.nat.flows.entry import Endpoint
from lamina_vswitch.domain.nat.sockets.host import (
    Accepted,
    Arrived,
    DatagramUser,
    HostError,
    HostPort,
    StreamUser,
)

READ_BYTES = 65536
STREAM_BYTES = 1 << 18
"""Of a connection at once: what the gateway then sends in few long packets."""
ONE_TURN = 64
"""Datagrams or connections that one socket brings before others have their turn."""
BACKLOG = 128

_ERRORS = {
    errno.ECONNREFUSED: HostError.REFUSED,
    errno.ECONNRESET: HostError.RESET,
    errno.EPIPE: HostError.RESET,
    errno.EACCES: HostError.FORBIDDEN,
    errno.EPERM: HostError.FORBIDDEN,
    errno.EADDRINUSE: HostError.IN_USE,
    errno.EADDRNOTAVAIL: HostError.NO_ADDRESS,
    errno.EMFILE: HostError.EXHAUSTED,
    errno.ENFILE: HostError.EXHAUSTED,
    errno.ENOBUFS: HostError.EXHAUSTED,
    errno.ENOMEM: HostError.EXHAUSTED,
}
_NOW = Callable[[], int]
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class SocketBudget:
    """How many sockets the gateways of this process may have open together.

    Half of the descriptors that the process may have: guests must not take those of the service's own calls and files.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit or resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self.open = 0

    def allows(self) -> bool:
        """Tell whether one more may be opened."""
        return self.open < self.limit


class HostSockets:
    """Makes sockets: a `Host`. `now_ns` is the stack's time; `settled` is set by whom the gateway belongs to."""

    def __init__(self, now_ns: _NOW, budget: SocketBudget) -> None:
        self._now_ns = now_ns
        self.budget = budget
        self.settled: Callable[[], None] = lambda: None

    def datagrams(self, peer: Endpoint, user: DatagramUser) -> Datagrams | HostError:
        """Return a UDP socket to a peer."""
        return self._to(socket.SOCK_DGRAM, socket.IPPROTO_UDP, peer, user)

    def echo(self, address: int, user: DatagramUser) -> Datagrams | HostError:
        """Return a ping socket to an address."""
        return self._to(socket.SOCK_DGRAM, socket.IPPROTO_ICMP, (address, 0), user)

    def _to(self, kind: int, protocol: int, peer: Endpoint, user: DatagramUser) -> Datagrams | HostError:
        opened = self._opened(kind, protocol)
        if isinstance(opened, HostError):
            return opened
        try:
            opened.connect(_address(peer))
        except OSError as error:
            opened.close()
            return host_error(error)
        return Datagrams(self, opened, user)

    def stream(self, peer: Endpoint, user: StreamUser) -> Stream | HostError:
        """Begin a TCP connection to a peer."""
        opened = self._opened(socket.SOCK_STREAM)
        if isinstance(opened, HostError):
            return opened
        code = opened.connect_ex(_address(peer))
        if code not in (0, errno.EINPROGRESS):
            opened.close()
            return host_error(OSError(code, "connect"))
        stream = Stream(self, opened)
        stream.await_connection(user)
        return stream

    def listen(self, at: Endpoint, accepted: Accepted) -> HostPort | HostError:
        """Take TCP connections at an address and port."""
        opened = self._bound(socket.SOCK_STREAM, at)
        if isinstance(opened, HostError):
            return opened
        return ListeningPort(self, opened, accepted)

    def receive(self, at: Endpoint, arrived: Arrived) -> HostPort | HostError:
        """Take UDP datagrams at an address and port."""
        opened = self._bound(socket.SOCK_DGRAM, at)
        return opened if isinstance(opened, HostError) else DatagramPort(self, opened, arrived)

    def _bound(self, kind: int, at: Endpoint) -> socket.socket | HostError:
        opened = self._opened(kind)
        if isinstance(opened, HostError):
            return opened
        try:
            if kind == socket.SOCK_STREAM:
                # So that a forward of before can be made again while its last connections are in TIME-WAIT.
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(_address(at))
            if kind == socket.SOCK_STREAM:
                opened.listen(BACKLOG)  # where two have bound the port, the second is refused here
        except OSError as error:
            opened.close()
            return host_error(error)
        return opened

    def _opened(self, kind: int, protocol: int = 0) -> socket.socket | HostError:
        """Return a socket that waits for nothing, if the budget and the machine have one."""
        if not self.budget.allows():
            return HostError.EXHAUSTED
        try:
            opened = socket.socket(socket.AF_INET, kind, protocol)
        except OSError as error:
            return host_error(error)
        opened.setblocking(False)
        return opened

    def now(self) -> int:
        """Return the stack's time."""
        return self._now_ns()


class _Socket:
    """A socket in the event loop."""

    def __init__(self, host: HostSockets, opened: socket.socket) -> None:
        self._host, self._socket = host, opened
        self._number = opened.fileno()  # the loop takes a socket, too, but spells its name out each time
        self._loop = asyncio.get_running_loop()
        self.local: Endpoint = _endpoint(opened.getsockname())
        host.budget.open += 1

    def close(self) -> None:
        """End. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._number)
            self._loop.remove_writer(self._number)
            self._socket.close()
            self._host.budget.open -= 1

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._socket.fileno() < 0


class Datagrams(_Socket):
    """A socket for datagrams to and from one peer."""

    def __init__(self, host: HostSockets, opened: socket.socket, user: DatagramUser) -> None:
        super().__init__(host, opened)
        self._user = user
        self._loop.add_reader(self._number, self._readable)

    def send(self, data: bytes) -> None:
        """Send a datagram, or lose it: the network may lose it as well."""
        try:
            self._socket.send(data)
        except BlockingIOError:
            return
        except OSError as error:
            # An error of an earlier datagram, which kept this one from going, or of this one: it is told from the loop,
            # when nobody is in a call, and the datagram gets a second chance.
            self._loop.call_soon(self._failed, host_error(error))
            with contextlib.suppress(OSError):
                self._socket.send(data)

    def _readable(self) -> None:
        for _ in range(ONE_TURN):
            if self.closed:
                break
            try:
                data = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self._user.failed(host_error(error), self._host.now())
                continue
            self._user.got(data, self._host.now())
        self._host.settled()

    def _failed(self, error: HostError) -> None:
        if not self.closed:
            self._user.failed(error, self._host.now())
            self._host.settled()


class Stream(_Socket):
    """A TCP connection. Bytes are read only when asked for, one chunk at a time, and written one `write` at a time."""

    def __init__(self, host: HostSockets, opened: socket.socket) -> None:
        super().__init__(host, opened)
        self._user: StreamUser | None = None
        self._left = memoryview(b"")
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def await_connection(self, user: StreamUser) -> None:
        """Tell the user when the connection is made."""
        self._user = user
        self._loop.add_writer(self._number, self._connected)

    def belongs_to(self, user: StreamUser) -> None:
        """Give a connection that was accepted to its user."""
        self._user = user

    def read(self) -> None:
        """Ask for bytes."""
        if not self.closed:
            self._loop.add_reader(self._number, self._readable)

    def write(self, data: bytes) -> bool:
        """Send bytes. False: some wait, and `written` follows."""
        if self.closed:
            return True
        self._left = memoryview(data)
        return self._write_on()

    def finish(self) -> None:
        """Tell the peer that nothing more will be sent."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._loop.call_soon(self._broke, error)

    def abort(self) -> None:
        """End with a reset. Idempotent."""
        if not self.closed:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.close()

    def _connected(self) -> None:
        self._loop.remove_writer(self._number)
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._broke(OSError(code, "connect"))
            return
        if self._user is not None:
            self._user.connected(self._host.now())
        self._host.settled()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(STREAM_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._broke(error)
            return
        self._loop.remove_reader(self._number)
        if self._user is not None:
            self._user.received(data, self._host.now())
        self._host.settled()

    def _writable(self) -> None:
        if self._write_on():
            self._loop.remove_writer(self._number)
            if self._user is not None:
                self._user.written(self._host.now())
            self._host.settled()

    def _write_on(self) -> bool:
        """Write what is left; True when nothing is, or nothing can be any more."""
        while self._left:
            try:
                sent = self._socket.send(self._left)
            except BlockingIOError:
                self._loop.add_writer(self._number, self._writable)
                return False
            except OSError as error:
                self._left = memoryview(b"")
                self._loop.call_soon(self._broke, error)
                return True
            self._left = self._left[sent:]
        return True

    def _broke(self, error: OSError) -> None:
        if self.closed:
            return
        if self._user is not None:
            self._user.failed(host_error(error), self._host.now())
        self.close()
        self._host.settled()


class ListeningPort(_Socket):
    """A port at which TCP connections come in."""

    def __init__(self, host: HostSockets, opened: socket.socket, accepted: Accepted) -> None:
        super().__init__(host, opened)
        self._accepted = accepted
        self._loop.add_reader(self._number, self._readable)

    def send(self, data: bytes, peer: Endpoint) -> None:
        """Nothing: datagrams have no place here."""

    def _readable(self) -> None:
        for _ in range(ONE_TURN):
            try:
                opened, peer = self._socket.accept()
            except OSError:
                # Nobody there, gone before it was taken, or no descriptor is free: whoever waits goes on waiting.
                break
            opened.setblocking(False)
            if not self._host.budget.allows():
                opened.close()
                continue
            stream = Stream(self._host, opened)
            user = self._accepted(stream, _endpoint(peer), self._host.now())
            if user is None:
                stream.abort()
            else:
                stream.belongs_to(user)
        self._host.settled()


class DatagramPort(_Socket):
    """A port at which UDP datagrams come in."""

    def __init__(self, host: HostSockets, opened: socket.socket, arrived: Arrived) -> None:
        super().__init__(host, opened)
        self._arrived = arrived
        self._loop.add_reader(self._number, self._readable)

    def send(self, data: bytes, peer: Endpoint) -> None:
        """Send a datagram from here, or lose it."""
        try:
            self._socket.sendto(data, _address(peer))
        except OSError:
            return  # Lost, as on any network; the errors of an unconnected socket belong to no flow.

    def _readable(self) -> None:
        for _ in range(ONE_TURN):
            if self.closed:
                break
            try:
                data, peer = self._socket.recvfrom(READ_BYTES)
            except OSError:
                break  # Nothing there, or an error of an earlier datagram, which the call has taken away.
            self._arrived(data, _endpoint(peer), self._host.now())
        self._host.settled()


def host_error(error: OSError) -> HostError:
    """Return what an error of a socket comes down to."""
    return _ERRORS.get(error.errno or 0, HostError.UNREACHABLE)


def _address(endpoint: Endpoint) -> tuple[str, int]:
    return format_address(endpoint[0]), endpoint[1]


def _endpoint(address: tuple[str, int]) -> Endpoint:
    return parse_address(address[0]) or 0, address[1]
