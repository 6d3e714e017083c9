"""TCP at a router's own addresses: DNS at port 53, and RST for every other port.

Over TCP a message has its length in two bytes before it, and several follow each other. Who says nothing for 10 s, or
has more than 16 connections, is cut off: an open connection costs memory. Source: RFC 7766; RFC 1035, 4.2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lamina_net.tcp.config import TcpConfig
from lamina_net.tcp.interface import Endpoint, Event, EventKind, Handle, Packet, Refused
from lamina_net.tcp.layer import TcpLayer
from lamina_vswitch.domain.network.dns.message import HEADER_BYTES, MAX_QUERY_BYTES, PORT

IDLE_NS = 10_000_000_000
MAX_CONNECTIONS = 256
CONNECTIONS_PER_ADDRESS = 16
MAX_OPEN_QUESTIONS = 16
_BUFFER_BYTES = 1 << 16
_CONFIG = TcpConfig(
    buffer=_BUFFER_BYTES, max_buffer=_BUFFER_BYTES, max_connections=MAX_CONNECTIONS, max_time_wait=64, syn_backlog=64
)

Say = Callable[[bytes, int], list[Packet]]
"""Sends an answer, at a time; returns the segments that this brings about."""
Answer = Callable[[bytes, int, Say], bytes | None]
"""Answers a question at a time, or returns None and says the answer later."""


@dataclass(slots=True)
class _Conversation:
    peer: int
    due_ns: int
    heard: bytes = b""
    to_say: bytes = b""
    open_questions: int = 0
    finished: bool = False


@dataclass(slots=True)
class DnsStream:
    """The TCP of one router. `seed` makes its sequence numbers; `answer` is None while no DNS is served."""

    seed: bytes
    answer: Answer | None = None
    _tcp: TcpLayer = field(init=False)
    _listener: Handle | Refused = field(init=False)
    _talks: dict[Handle, _Conversation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tcp = TcpLayer(_CONFIG, self.seed)
        self._listener = self._tcp.listen(Endpoint(0, PORT))

    def wants(self, payload: bytes) -> bool:
        """Tell whether a segment is for port 53, and DNS is served there."""
        return self.answer is not None and payload[2:4] == PORT.to_bytes(2, "big")

    def segment(self, src: int, dst: int, payload: bytes, now_ns: int, mtu: int) -> list[Packet]:
        """Take a segment to one of the router's addresses; return segments to send."""
        self._tcp.segment(src, dst, payload, now_ns, mtu)
        return list(self._work(now_ns))

    def timer(self, now_ns: int) -> list[Packet]:
        """Do what is due; return segments to send."""
        for handle in [handle for handle, talk in self._talks.items() if talk.due_ns <= now_ns]:
            self._cut(handle, now_ns)
        self._tcp.timer(now_ns)
        return list(self._work(now_ns))

    @property
    def next_wakeup_ns(self) -> int | None:
        """When `timer` is due, or None."""
        due = [talk.due_ns for talk in self._talks.values()]
        if self._tcp.next_wakeup_ns is not None:
            due.append(self._tcp.next_wakeup_ns)
        return min(due, default=None)

    def _work(self, now_ns: int) -> Iterator[Packet]:
        """Follow the events to their end; yield what has to be sent."""
        while True:
            output = self._tcp.drain()
            yield from output.packets
            if not output.events:
                return
            for event in output.events:
                self._event(event, now_ns)

    def _event(self, event: Event, now_ns: int) -> None:
        if event.kind is EventKind.ACCEPTABLE:
            self._accept(now_ns)
        elif event.handle not in self._talks:
            return
        elif event.kind is EventKind.READABLE:
            self._read(event.handle, now_ns)
        elif event.kind is EventKind.WRITABLE:
            self._write(event.handle, now_ns)
        elif event.kind in (EventKind.ERROR, EventKind.CLOSED):
            del self._talks[event.handle]
            self._tcp.close(event.handle, now_ns)

    def _accept(self, now_ns: int) -> None:
        while not isinstance(self._listener, Refused):
            handle = self._tcp.accept(self._listener)
            if isinstance(handle, Refused):
                return
            status = self._tcp.status(handle)
            peer = 0 if isinstance(status, Refused) else status.remote.address
            held = sum(talk.peer == peer for talk in self._talks.values())
            if self.answer is None or held >= CONNECTIONS_PER_ADDRESS:
                self._tcp.abort(handle, now_ns)
                self._tcp.close(handle, now_ns)
                continue
            self._tcp.set_options(handle, now_ns, nodelay=True)  # an answer is whole when it is said
            self._talks[handle] = _Conversation(peer, now_ns + IDLE_NS)
            self._read(handle, now_ns)

    def _read(self, handle: Handle, now_ns: int) -> None:
        talk = self._talks[handle]
        while True:
            data = self._tcp.recv(handle, _BUFFER_BYTES, now_ns)
            if isinstance(data, Refused):
                break
            if not data:
                talk.finished = True
                break
            talk.heard += data
            self._questions(handle, talk, now_ns)
            if handle not in self._talks:
                return
        self._write(handle, now_ns)

    def _questions(self, handle: Handle, talk: _Conversation, now_ns: int) -> None:
        while len(talk.heard) >= 2:
            size = talk.heard[0] << 8 | talk.heard[1]
            if not HEADER_BYTES <= size <= MAX_QUERY_BYTES or talk.open_questions >= MAX_OPEN_QUESTIONS:
                self._cut(handle, now_ns)
                return
            if len(talk.heard) < 2 + size:
                return
            question, talk.heard = talk.heard[2 : 2 + size], talk.heard[2 + size :]
            talk.due_ns = now_ns + IDLE_NS
            talk.open_questions += 1
            told = self.answer(question, now_ns, self._later(handle)) if self.answer is not None else b""
            if told is not None:
                self._told(talk, told)

    def _later(self, handle: Handle) -> Say:
        """Return what sends an answer to a connection that may be gone then."""

        def say(answer: bytes, now_ns: int) -> list[Packet]:
            talk = self._talks.get(handle)
            if talk is None:
                return []
            self._told(talk, answer)
            self._write(handle, now_ns)
            return list(self._work(now_ns))

        return say

    @staticmethod
    def _told(talk: _Conversation, answer: bytes) -> None:
        talk.open_questions -= 1
        talk.to_say += len(answer).to_bytes(2, "big") + answer if answer else b""

    def _write(self, handle: Handle, now_ns: int) -> None:
        talk = self._talks[handle]
        taken = self._tcp.send(handle, talk.to_say, now_ns) if talk.to_say else 0
        talk.to_say = talk.to_say[taken:] if isinstance(taken, int) else talk.to_say
        if len(talk.to_say) > 4 * _BUFFER_BYTES:
            self._cut(handle, now_ns)  # asks on and on, and reads nothing
        elif talk.finished and not talk.to_say and not talk.open_questions:
            del self._talks[handle]
            self._tcp.close(handle, now_ns)

    def _cut(self, handle: Handle, now_ns: int) -> None:
        del self._talks[handle]
        self._tcp.abort(handle, now_ns)
        self._tcp.close(handle, now_ns)
