"""Questions that the responder passes on: host sockets to the servers that the network names. Real clock only.

A question gets a number and a socket of its own, so nobody who does not see the traffic can answer in a server's place
(RFC 5452). An answer may be as long as a datagram: how much the asker takes stands in its question. A server that does
not answer in 2 s is followed by the next; after the last the asker is told SERVFAIL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from lamina_kit.clock import Clock
from lamina_kit.rng import Rng
from lamina_net.packets.address import format_address
from lamina_vswitch.domain.network.dns.message import HEADER_BYTES, Code, failure

PATIENCE_NS = 2_000_000_000
MAX_OPEN = 64

Answered = Callable[[bytes], None]


class DnsUpstream:
    """The questions of one network that wait for an answer, at most 64; those above are told SERVFAIL."""

    def __init__(self, servers: Sequence[tuple[int, int]], clock: Clock, rng: Rng) -> None:
        self._servers = servers
        self._clock = clock
        self._rng = rng
        self._open: dict[int, asyncio.Task[None]] = {}
        self._count = 0

    def ask(self, question: bytes, answered: Answered) -> None:
        """Pass a question on, and call `answered` with what to send to the asker."""
        if len(self._open) >= MAX_OPEN:
            answered(failure(question, Code.SERVFAIL))
            return
        self._count += 1
        number = self._count
        task = asyncio.get_running_loop().create_task(self._ask(question, answered))
        self._open[number] = task
        task.add_done_callback(lambda _: self._open.pop(number, None))

    def close(self) -> None:
        """Forget all questions."""
        for task in list(self._open.values()):
            task.cancel()

    async def _ask(self, question: bytes, answered: Answered) -> None:
        number = self._rng.randrange(1 << 16).to_bytes(2, "big")
        for address, port in self._servers:
            answer = await self._one(number + question[2:], format_address(address), port)
            if answer is not None:
                answered(question[:2] + answer[2:])
                return
        answered(failure(question, Code.SERVFAIL))

    async def _one(self, question: bytes, host: str, port: int) -> bytes | None:
        loop = asyncio.get_running_loop()
        exchange = _Exchange(question, loop.create_future())
        try:
            transport, _ = await loop.create_datagram_endpoint(lambda: exchange, remote_addr=(host, port))
        except OSError:
            return None
        waited = loop.create_task(self._clock.sleep_ns(PATIENCE_NS))
        waited.add_done_callback(lambda _: exchange.end(None))
        try:
            transport.sendto(question)
            return await exchange.answer
        finally:
            waited.cancel()
            transport.close()


class _Exchange(asyncio.DatagramProtocol):
    """One question to one server: done with the first datagram that answers it, or an error of the socket."""

    def __init__(self, question: bytes, answer: asyncio.Future[bytes | None]) -> None:
        self._question = question
        self.answer = answer

    def end(self, result: bytes | None) -> None:
        """Take the result, if there was none yet."""
        if not self.answer.done():
            self.answer.set_result(result)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Take a datagram that has the question's number and is an answer."""
        fits = len(data) >= HEADER_BYTES and data[2] & 0x80
        if fits and data[:2] == self._question[:2]:
            self.end(data)

    def error_received(self, exc: Exception) -> None:
        """Take it that nobody is there."""
        self.end(None)
