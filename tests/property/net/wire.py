"""Two TCP layers and what lies between them: a wire that loses, delays, reorders, doubles and damages, by a seed.

Everything happens on one list of events ordered by time; there is no clock but `World.now`.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass, field, replace

from tests.property.net.tcp_invariants import Invariants

from lamina_kit.rng import Rng
from lamina_net.tcp.config import SocketOptions, TcpConfig
from lamina_net.tcp.interface import Endpoint, EventKind, Handle, IcmpKind, Packet, Refused
from lamina_net.tcp.layer import TcpLayer

MS = 1_000_000
IP_HEADER = 20
CLIENT, SERVER = 0x0A000001, 0x0A000002
PORT = 80


@dataclass(frozen=True)
class Badness:
    """What the wire does to packets of one direction. Probabilities, ns, bytes per second, bytes."""

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    """How many packets are late by up to `late_ns`."""
    late_ns: int = 5 * MS
    delay_ns: int = 5 * MS
    rate: int = 0
    """Bytes per second of a bottleneck, 0 for none."""
    queue: int = 1 << 30
    """Bytes that wait at the bottleneck; more are dropped."""
    mark: float = 0.0
    """How many packets that may be marked are, as a router does that is congested."""
    mtu: int = 1500
    """Packets that are longer come back as ICMP errors."""


@dataclass
class Application:
    """One end's user: sends `data`, collects what comes, reads in portions, closes at the end, perhaps aborts."""

    data: bytes
    portion: int = 1 << 20
    abort_after: int = -1
    """Bytes received after which it resets the connection, -1 for never."""
    close_early: bool = False
    """Whether it gives up its handle at the end of both streams, or keeps it until the connection is over."""
    handle: Handle = 0
    sent: int = 0
    received: bytearray = field(default_factory=bytearray)
    errors: list[str] = field(default_factory=list)
    is_shut: bool = False
    saw_end: bool = False
    aborted: bool = False
    is_closed: bool = False


class World:
    """Client and server, joined by two directions of a wire."""

    def __init__(self, seed: int, there: Badness, back: Badness, config: TcpConfig, mtu: int = 1500) -> None:
        self.now = 0
        self.rng = Rng(seed)
        self.mtu = mtu
        self.layers = {CLIENT: TcpLayer(config, b"client%d" % seed), SERVER: TcpLayer(config, b"server%d" % seed)}
        self.badness = {CLIENT: there, SERVER: back}
        self.free_at = {CLIENT: 0, SERVER: 0}
        self.apps: dict[tuple[int, Handle], Application] = {}
        self.waiting: list[Application] = []
        """Applications of the server, in the order in which they accept."""
        self.trace = hashlib.sha256()
        self.counts: Counter[str] = Counter()
        self.bytes_by_connection: Counter[int] = Counter()
        self.invariants = Invariants()
        self.is_checked = True
        self._events: list[tuple[int, int, str, int, Packet | None]] = []
        self._order = 0
        listener = self.layers[SERVER].listen(Endpoint(0, PORT))
        assert not isinstance(listener, Refused)
        self.listener = listener

    def connect(self, client: Application, server: Application, options: SocketOptions | None = None) -> None:
        """Begin a connection between two applications."""
        remote = Endpoint(SERVER, PORT)
        handle = self.layers[CLIENT].connect(CLIENT, remote, self.now, self.mtu, options=options and replace(options))
        assert not isinstance(handle, Refused)
        client.handle = handle
        self.apps[CLIENT, handle] = client
        self.waiting.append(server)
        self.flush()

    def run(self, until_ns: int) -> None:
        """Let everything happen up to `until_ns`, or until nothing is left to happen."""
        while True:
            at = self._next()
            if at is None or at > until_ns:
                return
            self.now = at
            if self._events and self._events[0][0] <= at:
                self._deliver()
            else:
                for layer in self.layers.values():
                    layer.timer(at)
            self.flush()

    def _next(self) -> int | None:
        times = [at for layer in self.layers.values() if (at := layer.next_wakeup_ns) is not None]
        if self._events:
            times.append(self._events[0][0])
        return max(self.now, min(times)) if times else None

    def _deliver(self) -> None:
        _, _, kind, to, packet = heapq.heappop(self._events)
        assert packet is not None
        layer = self.layers[to]
        if kind == "packet":
            layer.segment(packet.src, packet.dst, packet.data, self.now, self.mtu, tos=packet.tos)
        else:
            mtu = self.badness[packet.src].mtu
            layer.icmp_error(packet.src, packet.dst, packet.data[:8], IcmpKind.TOO_BIG, self.now, mtu)

    def flush(self) -> None:
        """Hand packets to the wire and events to the applications until there are none."""
        busy = True
        while busy:
            busy = False
            for address, layer in self.layers.items():
                packets, events = layer.drain()
                for packet in packets:
                    self._send(packet)
                for event in events:
                    busy = True
                    self._tell(address, event.handle, event.kind, event.errno)
        if self.is_checked:
            for layer in self.layers.values():
                self.invariants.check(layer)

    def _send(self, packet: Packet) -> None:
        bad = self.badness[packet.src]
        self.trace.update(packet.data + self.now.to_bytes(8, "big"))
        self.counts["packets"] += 1
        size = len(packet.data) + IP_HEADER
        if size > bad.mtu:
            self.counts["too big"] += 1
            self._at(self.now + 2 * bad.delay_ns, "icmp", packet.src, packet)
            return
        if bad.loss and self.rng.random() < bad.loss:
            self.counts["lost"] += 1
            return
        at = self.now
        if bad.rate:
            free = max(self.free_at[packet.src], at)
            if (free - at) * bad.rate // 1_000_000_000 > bad.queue:
                self.counts["queue full"] += 1
                return
            at = self.free_at[packet.src] = free + size * 1_000_000_000 // bad.rate
        if packet.tos & 3 and bad.mark and self.rng.random() < bad.mark:
            self.counts["marked"] += 1
            packet = packet._replace(tos=packet.tos | 3)
        at += bad.delay_ns
        if bad.reorder and self.rng.random() < bad.reorder:
            at += self.rng.randrange(bad.late_ns)
        if bad.corrupt and self.rng.random() < bad.corrupt:
            packet = packet._replace(data=self._damaged(packet.data))
        self._at(at, "packet", packet.dst, packet)
        if bad.duplicate and self.rng.random() < bad.duplicate:
            self._at(at + self.rng.randrange(bad.late_ns), "packet", packet.dst, packet)

    def _damaged(self, data: bytes) -> bytes:
        """Flip one bit: the checksum always sees that."""
        self.counts["damaged"] += 1
        place = self.rng.randrange(len(data))
        return data[:place] + bytes((data[place] ^ 1 << self.rng.randrange(8),)) + data[place + 1 :]

    def _at(self, at: int, kind: str, to: int, packet: Packet) -> None:
        self._order += 1
        heapq.heappush(self._events, (at, self._order, kind, to, packet))

    def _tell(self, address: int, handle: Handle, kind: EventKind, errno: object) -> None:
        layer = self.layers[address]
        if kind is EventKind.ACCEPTABLE:
            accepted = layer.accept(handle)
            assert not isinstance(accepted, Refused)
            app = self.waiting.pop(0)
            app.handle = accepted
            self.apps[address, accepted] = app
        else:
            app = self.apps[address, handle]
        if kind is EventKind.ERROR:
            app.errors.append(str(errno))
        self._work(layer, app)

    def _work(self, layer: TcpLayer, app: Application) -> None:
        """Do what an application can do now: read, send, close."""
        while not app.aborted and not app.is_closed:
            got = layer.recv(app.handle, app.portion, self.now)
            if isinstance(got, Refused):
                break
            if not got:
                app.saw_end = True
                break
            app.received += got
            if 0 <= app.abort_after <= len(app.received):
                app.aborted = True
                layer.abort(app.handle, self.now)
        while not app.aborted and not app.is_closed and app.sent < len(app.data):
            taken = layer.send(app.handle, app.data[app.sent : app.sent + (1 << 18)], self.now)
            if isinstance(taken, Refused):
                break
            app.sent += taken
        if app.sent == len(app.data) and not app.is_shut and not app.aborted and not app.errors:
            app.is_shut = layer.shutdown(app.handle, self.now) is None
        if app.close_early and app.is_shut and app.saw_end and not app.is_closed and not app.errors:
            app.is_closed = True
            layer.close(app.handle, self.now)
