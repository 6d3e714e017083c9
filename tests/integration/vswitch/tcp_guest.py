"""A modelled guest with a TCP of its own, that of the stack."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.integration.vswitch.guest import Guest

from lamina_kit.clock import Clock, RealClock
from lamina_net.packets import ethernet, ipv4
from lamina_net.tcp.config import SocketOptions, TcpConfig
from lamina_net.tcp.interface import Endpoint, Errno, Refused
from lamina_net.tcp.layer import TcpLayer

NODELAY = SocketOptions(nodelay=True)


class TcpGuest:
    """Connections of a guest that has an address and knows its router, on the machine's clock."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.tcp = TcpLayer(TcpConfig(), guest.mac)
        self.clock: Clock = RealClock()
        self.peers: set[int] = set()
        """Source addresses of the segments that came."""
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._pump = self._loop.create_task(self._carry())

    def stop(self) -> None:
        """End: nothing is sent or taken any more."""
        self._pump.cancel()
        if self._timer is not None:
            self._timer.cancel()

    async def connect(self, address: int, port: int) -> int:
        """Connect, and return the connection; the test fails when it is not made."""
        handle = self.dial(address, port)
        await self.until(lambda: self.ready(handle) or self.error(handle) is not None)
        assert self.error(handle) is None
        return handle

    def dial(self, address: int, port: int) -> int:
        """Begin to connect."""
        handle = self.tcp.connect(self.guest.address, Endpoint(address, port), self.clock.now_ns(), options=NODELAY)
        assert isinstance(handle, int)
        return handle

    def listen(self, port: int) -> int:
        """Take connections at a port."""
        handle = self.tcp.listen(Endpoint(0, port), options=NODELAY)
        assert isinstance(handle, int)
        return handle

    async def accept(self, listener: int) -> int:
        """Return the next connection that came."""
        await self.until(lambda: self.ready(listener))
        handle = self.tcp.accept(listener)
        assert isinstance(handle, int)
        return handle

    async def exchange(self, handle: int, data: bytes) -> bytes:
        """Send bytes and the end, and return all that comes."""
        sent, came = 0, b""
        while sent < len(data):
            taken = self.tcp.send(handle, data[sent:], self.clock.now_ns())
            sent += 0 if isinstance(taken, Refused) else taken
            if isinstance(taken, Refused):
                await self.step()
        self.tcp.shutdown(handle, self.clock.now_ns())
        while True:
            part = self.tcp.recv(handle, 1 << 16, self.clock.now_ns())
            if part == b"":
                return came
            if isinstance(part, Refused):
                assert part.errno is Errno.AGAIN
                await self.step()
            else:
                came += part

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds."""
        self._send()
        while not condition():
            await self.step()

    async def step(self) -> None:
        """Send what is to be sent, and wait until something comes or is due."""
        self._send()
        async with asyncio.timeout(10):
            await self._changed.wait()
        self._changed.clear()

    def ready(self, handle: int) -> bool:
        """Tell whether a connection is writable, or a listener has somebody to accept."""
        found = self.tcp.poll(handle)
        return not isinstance(found, Refused) and (found.writable or found.readable)

    def readable(self, handle: int) -> bool:
        """Tell whether bytes, or the end, can be taken."""
        found = self.tcp.poll(handle)
        return not isinstance(found, Refused) and found.readable

    def error(self, handle: int) -> Errno | None:
        """Return why a connection ended."""
        found = self.tcp.poll(handle)
        return found.errno if isinstance(found, Refused) else found.error

    async def _carry(self) -> None:
        frames = self.guest.take_waiting()
        while True:
            for data in frames:
                frame = ethernet.parse(data)
                assert isinstance(frame, ethernet.Frame)
                self.guest.answer_arp(frame)
                self._took(frame)
            frames = (await self.guest.device.call.read()).frames.frames

    def _took(self, frame: ethernet.Frame) -> None:
        packet = ipv4.parse(frame.payload) if frame.ethertype == ethernet.IPV4 else None
        if isinstance(packet, ipv4.Packet) and packet.dst == self.guest.address and packet.protocol == ipv4.TCP:
            self.peers.add(packet.src)
            self.tcp.segment(packet.src, packet.dst, packet.payload, self.clock.now_ns())
            self._send()
            self._changed.set()

    def _due(self) -> None:
        self.tcp.timer(self.clock.now_ns())
        self._send()
        self._changed.set()

    def _send(self) -> None:
        frames = []
        for each in self.tcp.drain().packets:
            packet = ipv4.build(ipv4.Packet(each.src, each.dst, ipv4.TCP, each.data, dont_fragment=True))
            frames.append(ethernet.build(self.guest.router_mac, self.guest.mac, ethernet.IPV4, packet))
        if frames:
            self.guest.device.send(frames)
        if self._timer is not None:
            self._timer.cancel()
        due = self.tcp.next_wakeup_ns
        self._timer = self._loop.call_later((due - self.clock.now_ns()) / 1e9, self._due) if due else None
