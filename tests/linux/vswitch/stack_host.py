"""A modelled host: the stack of `lamina_net` at an attached device, on the machine's clock, with a server of pages."""

from __future__ import annotations

import asyncio
from typing import Any

from lamina_kit.clock import RealClock
from lamina_net.stack import Stack
from lamina_net.tcp.interface import Endpoint, Handle, Refused


class StackHost:
    """A stack `eth0` behind a port; `serve` answers every connection at a TCP port with the same bytes."""

    def __init__(self, device: Any, mac: bytes, address: int, length: int = 24) -> None:
        self.stack, self.asked = Stack(mac), list[bytes]()
        self.stack.internet.add_interface("eth0", mac, 1500)
        assert self.stack.internet.add_address("eth0", address, length)
        self._device, self._clock = device, RealClock()
        self._page = b""
        self._listener: Handle | None = None
        self._open: dict[Handle, memoryview | None] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._carrying = self._loop.create_task(self._carry())

    def stop(self) -> None:
        """End: nothing is sent or taken any more."""
        self._carrying.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def serve(self, port: int, page: bytes) -> None:
        """Answer every request at a port with a page, and close."""
        sockets = self.stack.sockets
        listener = sockets.open_tcp()
        assert not isinstance(listener, Refused)
        assert sockets.bind(listener, Endpoint(0, port)) is None and sockets.listen(listener, 8) is None
        self._listener, self._page = listener, page

    async def _carry(self) -> None:
        while True:
            for data in (await self._device.call.read()).frames.frames:
                self.stack.frame("eth0", data, self._clock.now_ns())
            self._work()

    def _due(self) -> None:
        self.stack.timer(self._clock.now_ns())
        self._work()

    def _work(self) -> None:
        now_ns = self._clock.now_ns()
        self._answer(now_ns)
        frames, _ = self.stack.drain()
        if frames:
            self._device.send([frame for _, frame in frames])
        if self._timer is not None:
            self._timer.cancel()
        due = self.stack.next_wakeup_ns
        self._timer = self._loop.call_later(max(0, due - now_ns) / 1e9, self._due) if due is not None else None

    def _answer(self, now_ns: int) -> None:
        sockets = self.stack.sockets
        while self._listener is not None and not isinstance(made := sockets.accept(self._listener, now_ns), Refused):
            self._open[made] = None
        for handle, left in list(self._open.items()):
            if left is None:
                asked = sockets.recv(handle, 4096, now_ns)
                if isinstance(asked, Refused):
                    continue
                self.asked.append(asked)
                left = memoryview(self._page)
            while left and not isinstance(taken := sockets.send(handle, bytes(left[:65536]), now_ns), Refused):
                left = left[taken:]
            self._open[handle] = left
            if not left:
                sockets.close(handle, now_ns)
                del self._open[handle]
