"""Hosts on one link, for tests: every frame reaches every other host after a delay, unless a seed loses it."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

from lamina_net.ip.routes import Route
from lamina_net.packets.address import Subnet, format_address
from lamina_net.stack import Stack, StackConfig
from lamina_net.tcp.interface import Event, EventKind

SECOND = 1_000_000_000
NETWORK = 0x0A000000
"""10.0.0.0/24; the hosts are .1, .2 and so on."""


@dataclass
class Host:
    """A stack with one interface `eth0`, and the events of its sockets."""

    number: int
    stack: Stack
    events: list[Event] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)

    @property
    def address(self) -> int:
        """Its address."""
        return NETWORK + self.number

    @property
    def mac(self) -> bytes:
        """Its MAC address."""
        return bytes([2, 0, 0, 0, 0, self.number])

    def kinds(self, handle: int) -> list[EventKind]:
        """Return what happened to a socket."""
        return [event.kind for event in self.events if event.handle == handle]


class Lan:
    """`count` hosts; time stands still but in `run`."""

    def __init__(
        self, count: int = 2, *, delay_ns: int = 1000, loss: float = 0.0, seed: int = 0, mtu: int = 1500,
        config: StackConfig | None = None,
    ) -> None:  # fmt: skip
        self.now_ns = 0
        self.loss = loss
        self._delay_ns = delay_ns
        self._rng = random.Random(seed)
        self._queue: list[tuple[int, int, int, bytes]] = []
        self._sequence = 0
        self.hosts: list[Host] = []
        for number in range(1, count + 1):
            host = Host(number, Stack(b"%d %d" % (seed, number), config))
            host.stack.internet.add_interface("eth0", host.mac, mtu)
            assert host.stack.internet.add_address("eth0", host.address, 24), format_address(host.address)
            self.hosts.append(host)

    def default_route(self, host: Host, via: Host) -> None:
        """Send what leaves the subnet to another host."""
        assert host.stack.internet.routes.add(Route(Subnet(0, 0), "eth0", via=via.address))

    def inject(self, host: Host, frame: bytes) -> None:
        """Let a frame come in at a host now."""
        host.stack.frame("eth0", frame, self.now_ns)
        self._collect(host)

    def run(self, duration_ns: int = SECOND) -> None:
        """Let time pass: frames arrive and timers end in their order."""
        end_ns = self.now_ns + duration_ns
        for host in self.hosts:
            self._collect(host)
        while (at := self._next()) is not None and at <= end_ns:
            self.now_ns = max(self.now_ns, at)
            if self._queue and self._queue[0][0] <= self.now_ns:
                _, _, index, frame = heapq.heappop(self._queue)
                self.inject(self.hosts[index], frame)
                continue
            for host in self.hosts:
                wakeup = host.stack.next_wakeup_ns
                if wakeup is not None and wakeup <= self.now_ns:
                    host.stack.timer(self.now_ns)
                    self._collect(host)
        self.now_ns = end_ns

    def _next(self) -> int | None:
        times = [host.stack.next_wakeup_ns for host in self.hosts]
        times += [entry[0] for entry in self._queue[:1]]
        return min((at for at in times if at is not None), default=None)

    def _collect(self, host: Host) -> None:
        frames, events = host.stack.drain()
        host.events += events
        for name, frame in frames:
            assert name == "eth0"
            host.sent.append(frame)
            for index, other in enumerate(self.hosts):
                if other is not host and self._rng.random() >= self.loss:
                    self._sequence += 1
                    heapq.heappush(self._queue, (self.now_ns + self._delay_ns, self._sequence, index, frame))
