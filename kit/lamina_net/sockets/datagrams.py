"""Sockets that take whole datagrams: what UDP and ping sockets have in common. Pure.

A socket is bound to an address, 0 for all, and to a port; connected, it hears its peer alone. Of the sockets that a
datagram fits, the one that says most about it gets it; what goes to a group goes to all. Errors that ICMP brings are
kept for the next call, as in Linux: a connected socket hears of what refuses it, of the rest only who asks for it.

Source: RFC 1122, 4.1.4; Linux, udp(7), ip(7), icmp(7).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field, replace

from lamina_kit.rng import Rng
from lamina_net.ip.internet import Internet
from lamina_net.packets.address import ANY, is_multicast
from lamina_net.packets.ipv4 import DEFAULT_TTL, Packet
from lamina_net.tcp.interface import Endpoint, Errno, Event, EventKind, Handle, Readiness, Refused

NOWHERE = Endpoint(ANY, 0)
RECEIVE_BUFFER = 212_992
"""Bytes that wait in a socket, as Linux has it."""
_OVERHEAD = 256
"""Bytes that a datagram takes beside its own, so that empty ones are bounded too."""


@dataclass(frozen=True, slots=True)
class DatagramOptions:
    """What can be set at a socket. `interface`: its name, "" for any; `all_errors`: hear of unreachable hosts too."""

    reuse: bool = False
    broadcast: bool = False
    ttl: int = DEFAULT_TTL
    multicast_ttl: int = 1
    dont_fragment: bool = False
    all_errors: bool = False
    interface: str = ""
    receive_buffer: int = RECEIVE_BUFFER


@dataclass(slots=True, eq=False)
class DatagramSocket:
    """One socket. `error` waits for the next call; `dropped` counts what did not fit.

    `is_bound` tells an address that `bind` named from one that `connect` chose, which ends with the peer.
    """

    handle: Handle
    options: DatagramOptions = field(default_factory=DatagramOptions)
    local: Endpoint = NOWHERE
    is_bound: bool = False
    remote: Endpoint | None = None
    queue: deque[tuple[bytes, Endpoint]] = field(default_factory=deque)
    queued: int = 0
    dropped: int = 0
    error: Errno | None = None
    groups: list[tuple[str, int]] = field(default_factory=list)

    def take_error(self) -> Refused | None:
        """Return the error that waits, and forget it."""
        error, self.error = self.error, None
        return None if error is None else Refused(error)


class DatagramLayer(ABC):
    """All sockets of one protocol. `ephemeral`: the ports to choose from, in an order that `rng` decides."""

    protocol: int

    def __init__(self, internet: Internet, rng: Rng, events: list[Event], ephemeral: range) -> None:
        self._internet, self._rng, self._events, self._ephemeral = internet, rng, events, ephemeral
        self._sockets: dict[Handle, DatagramSocket] = {}
        self._by_port: dict[int, list[DatagramSocket]] = {}

    @abstractmethod
    def _encode(self, socket: DatagramSocket, src: int, to: Endpoint, data: bytes) -> bytes | Refused:
        """Return the payload of the packet, or why there is none."""

    # Calls; every handle that they are given is one of `open`

    def open(self, handle: Handle) -> None:
        """Make a socket."""
        self._sockets[handle] = DatagramSocket(handle)

    def options(self, handle: Handle) -> DatagramOptions:
        """Return what is set."""
        return self._sockets[handle].options

    def set_options(self, handle: Handle, options: DatagramOptions) -> Refused | None:
        """Set options. INVAL: out of range, or an interface that is not there."""
        known = not options.interface or options.interface in self._internet.interfaces
        in_range = 1 <= options.ttl <= 255 and 0 <= options.multicast_ttl <= 255 and options.receive_buffer >= 0
        if not known or not in_range:
            return Refused(Errno.INVAL)
        self._sockets[handle].options = options
        return None

    def names(self, handle: Handle) -> tuple[Endpoint, Endpoint | None]:
        """Return where a socket is bound, and its peer."""
        return self._sockets[handle].local, self._sockets[handle].remote

    def bind(self, handle: Handle, local: Endpoint) -> Refused | None:
        """Bind a socket, once; port 0 chooses one.

        INVAL: bound already, or no port. ADDRNOTAVAIL: not an address of ours, or no port is free. ADDRINUSE.
        """
        socket = self._sockets[handle]
        if socket.local.port or not 0 <= local.port <= 0xFFFF:
            return Refused(Errno.INVAL)
        internet, address = self._internet, local.address
        if address != ANY and not internet.is_ours(address) and not internet.is_group(address):
            return Refused(Errno.ADDRNOTAVAIL)
        if local.port and self._is_taken(socket, local):
            return Refused(Errno.ADDRINUSE)
        port = local.port or self._free_port(socket, address)
        if not port:
            return Refused(Errno.ADDRNOTAVAIL)
        socket.local, socket.is_bound = Endpoint(address, port), address != ANY
        self._by_port.setdefault(port, []).append(socket)
        return None

    def connect(self, handle: Handle, remote: Endpoint, now_ns: int) -> Refused | None:
        """Name the peer, or none with an address of 0. NETUNREACH: no way. ACCES: broadcast, and not allowed to."""
        socket = self._sockets[handle]
        if remote.address == ANY:
            socket.remote = None
            if not socket.is_bound:
                socket.local = Endpoint(ANY, socket.local.port)
            return None
        if self._internet.is_group(remote.address) and not self._may_send_to_group(socket, remote.address):
            return Refused(Errno.ACCES)
        source = self._internet.source_for(remote.address, socket.options.interface)
        if source is None:
            return Refused(Errno.NETUNREACH)
        if not socket.local.port and (refused := self.bind(handle, NOWHERE)) is not None:
            return refused
        if socket.local.address == ANY:
            socket.local = Endpoint(source, socket.local.port)
        socket.remote = remote
        return None

    def send(self, handle: Handle, data: bytes, to: Endpoint | None, now_ns: int) -> int | Refused:
        """Send a datagram to `to`, or to the peer; return its size. An error that waits comes first.

        DESTADDRREQ: to nobody. MSGSIZE: too long. ACCES: broadcast, and not allowed to. NETUNREACH: no way. INVAL: to
        port 0.
        """
        socket = self._sockets[handle]
        if (waiting := socket.take_error()) is not None:
            return waiting
        to = to or socket.remote
        if to is None:
            return Refused(Errno.DESTADDRREQ)
        if not socket.local.port and (refused := self.bind(handle, NOWHERE)) is not None:
            return refused
        is_group = self._internet.is_group(to.address)
        if is_group and not self._may_send_to_group(socket, to.address):
            return Refused(Errno.ACCES)
        bound = socket.local.address
        src = bound if bound and not self._internet.is_group(bound) else self._source(socket, to)
        if src is None:
            return Refused(Errno.NETUNREACH)
        payload = self._encode(socket, src, to, data)
        if isinstance(payload, Refused):
            return payload
        options = socket.options
        ttl = options.multicast_ttl if is_multicast(to.address) else options.ttl
        packet = Packet(src, to.address, self.protocol, payload, ttl, dont_fragment=options.dont_fragment)
        errno = self._internet.send(packet, now_ns, options.interface)
        return len(data) if errno is None else Refused(errno)

    def recv(self, handle: Handle) -> tuple[bytes, Endpoint] | Refused:
        """Return the datagram that waits longest and whence it came. An error that waits comes first. AGAIN: none."""
        socket = self._sockets[handle]
        if (waiting := socket.take_error()) is not None:
            return waiting
        if not socket.queue:
            return Refused(Errno.AGAIN)
        data, source = socket.queue.popleft()
        socket.queued -= len(data) + _OVERHEAD
        return data, source

    def join(self, handle: Handle, group: int, interface: str) -> Refused | None:
        """Take packets to a multicast group that come in at an interface. INVAL; ADDRINUSE: joined; NOBUFS."""
        socket, found = self._sockets[handle], self._internet.interfaces.get(interface)
        if found is None or not is_multicast(group):
            return Refused(Errno.INVAL)
        if (interface, group) in socket.groups:
            return Refused(Errno.ADDRINUSE)
        if not found.join(group):
            return Refused(Errno.NOBUFS)
        socket.groups.append((interface, group))
        return None

    def poll(self, handle: Handle) -> Readiness:
        """Return what calls would find now; a datagram can always be sent."""
        socket = self._sockets[handle]
        return Readiness(readable=bool(socket.queue) or socket.error is not None, writable=True, error=socket.error)

    def close(self, handle: Handle) -> None:
        """End a socket; what waits in it is gone."""
        socket = self._sockets.pop(handle)
        for name, group in socket.groups:
            if (interface := self._internet.interfaces.get(name)) is not None:
                interface.leave(group)
        if socket.local.port:
            others = self._by_port[socket.local.port]
            others.remove(socket)
            if not others:
                del self._by_port[socket.local.port]

    # What comes from the network

    def deliver(self, port: int, source: Endpoint, dst: int, data: bytes, interface: str, to_group: bool) -> bool:
        """Give a datagram to its socket, or to all that want it. False: nobody does."""
        fitting = [
            (score, socket)
            for socket in self._by_port.get(port, ())
            if (score := _score(socket, source, dst, interface)) is not None
        ]
        if to_group:
            for _, socket in fitting:
                self._enqueue(socket, data, source)
        elif fitting:
            self._enqueue(max(fitting, key=lambda entry: entry[0])[1], data, source)
        return bool(fitting)

    def failed(self, local: Endpoint, remote: Endpoint, errno: Errno, is_hard: bool) -> None:
        """Tell the socket whose datagram from `local` to `remote` met with an error that it did.

        Who does not want to be fragmented hears in any case that a datagram was too long for the way.
        """
        for socket in self._by_port.get(local.port, ()):
            is_peer = self._is_peer(socket, remote)
            is_its = socket.local.address in (ANY, local.address) and (socket.remote is None or is_peer)
            is_wanted = socket.options.all_errors or (errno is Errno.MSGSIZE and socket.options.dont_fragment)
            if is_its and (is_wanted or (is_hard and is_peer)):
                socket.error = errno
                self._events.append(Event(socket.handle, EventKind.ERROR, errno))
                return

    def _is_peer(self, socket: DatagramSocket, remote: Endpoint) -> bool:
        return socket.remote == remote

    def _enqueue(self, socket: DatagramSocket, data: bytes, source: Endpoint) -> None:
        if socket.queued + len(data) + _OVERHEAD > socket.options.receive_buffer:
            socket.dropped += 1
            return
        socket.queue.append((data, source))
        socket.queued += len(data) + _OVERHEAD
        self._events.append(Event(socket.handle, EventKind.READABLE))

    # Ports

    def _is_taken(self, socket: DatagramSocket, local: Endpoint) -> bool:
        """Tell whether another socket has the port, at this or all addresses, and not both share it."""
        mine = socket.options
        return any(
            (ANY in (local.address, other.local.address) or local.address == other.local.address)
            and (not mine.interface or not other.options.interface or mine.interface == other.options.interface)
            and not (mine.reuse and other.options.reuse)
            for other in self._by_port.get(local.port, ())
        )

    def _free_port(self, socket: DatagramSocket, address: int) -> int:
        """Return an ephemeral port, the first free one from a random one on; 0 without any. Source: RFC 6056, 3.3.1."""
        count = len(self._ephemeral)
        first = self._rng.randrange(count)
        alone = DatagramSocket(0, replace(socket.options, reuse=False))
        ports = (self._ephemeral[(first + n) % count] for n in range(count))
        return next((port for port in ports if not self._is_taken(alone, Endpoint(address, port))), 0)

    def _source(self, socket: DatagramSocket, to: Endpoint) -> int | None:
        return self._internet.source_for(to.address, socket.options.interface)

    @staticmethod
    def _may_send_to_group(socket: DatagramSocket, address: int) -> bool:
        return socket.options.broadcast or is_multicast(address)


def _score(socket: DatagramSocket, source: Endpoint, dst: int, interface: str) -> int | None:
    """Return how much a socket says about a datagram that fits it, or None when it does not fit."""
    score = 0
    if socket.remote is not None:
        if socket.remote.address != source.address or socket.remote.port not in (0, source.port):
            return None
        score += 4
    if socket.local.address != ANY:
        if socket.local.address != dst:
            return None
        score += 2
    if socket.options.interface:
        if socket.options.interface != interface:
            return None
        score += 1
    return score
