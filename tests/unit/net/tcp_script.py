"""Scripts that play the peer of one TCP, line by line, in the spirit of packetdrill.

    +0    listen
    +0    < S 0 win 8000 mss 1000 sackOK         a segment comes: flags, first number, then what it carries
    +0    > SA 0 ack 1 mss 1000                  a segment must go, now; only what is named is compared
    +0    < A 1 ack 1
    +0    send 3000
    +0    > A 1:1001 ack 1                       first:last numbers, so 1000 bytes
    +0.2  > A 1:1001                             goes 200 ms later and not before
    +0    ? state ESTABLISHED                    what is said must be so

Numbers are relative to the initial ones of who sends. Each segment that goes must be named, in its order; so a line
that comes too early, too late or not at all fails. Bytes have the value of their number modulo 251.
`E` and `W` are the flags ECE and CWR, `tos` is the byte of DSCP and ECN in the packet.
"""

from __future__ import annotations

from lamina_net.tcp.config import SocketOptions, TcpConfig
from lamina_net.tcp.interface import Endpoint, Event, Handle, IcmpKind, Packet, Refused
from lamina_net.tcp.layer import TcpLayer
from lamina_net.tcp.segment import SYN, Options, Segment, build, parse
from lamina_net.tcp.sequence import MASK, unwrap

US, PEER = 0x0A000001, 0x0A000002
OUR_PORT, PEER_PORT = 80, 5000
PEER_ISN = 0xFFFF_FE00  # wraps in most scripts
PLAIN = TcpConfig(timestamps=False, window_scaling=False, tail_probes=False, spurious_timeouts=False)
"""Tail probes and doubted timeouts have scripts of their own."""
_FLAGS = "FSRPAUEW"


def content(first: int, last: int) -> bytes:
    """Return the bytes with the numbers [first, last)."""
    return bytes(number % 251 for number in range(first, last))


class Script:
    """One TCP under test, and its peer as the script says."""

    def __init__(
        self, config: TcpConfig = PLAIN, options: SocketOptions | None = None, mtu: int = 1040, backlog: int = 8
    ) -> None:
        self.now = 0
        self.mtu = mtu
        self.backlog = backlog
        self.options = options or SocketOptions()
        self.layer = TcpLayer(config, b"script")
        self.handle: Handle = 0
        self.listener: Handle = 0
        self.isn: int | None = None
        self.port = OUR_PORT
        self.peer_port = PEER_PORT
        self.sent = self.read = 1
        self.events: list[str] = []
        self.pending: list[Packet] = []
        self.last = Segment(0, 0, 0, 0, 0, 0)
        """The segment that was expected last."""

    def expect(self, text: str) -> None:
        """Play a script; fails with the line that is not so."""
        for line in text.splitlines():
            if not line.strip():
                continue
            at, word, *rest = line.split()
            try:
                self._step(self.now + round(float(at) * 1_000_000_000), word, rest)
            except AssertionError as error:
                error.add_note(f"at {self.now / 1e9:.6f}: {line.strip()}")
                raise
        assert [self._show(packet) for packet in self.pending] == [], "more segments went than the script names"

    def _step(self, at: int, word: str, rest: list[str]) -> None:
        if word != ">":
            self._run(at - 1)
            shown = [self._show(packet) for packet in self.pending]
            assert shown == [], f"went unasked, the last at {self.now / 1e9:.6f}"
            self.now = at
            if word not in ("?",):
                self._run(at, timers_now=word == "wait")
            getattr(self, {"<": "come", "?": "_say"}.get(word, f"_{word}"))(*rest)
            self.collect()
            return
        while not self.pending and (wakeup := self.layer.next_wakeup_ns) is not None and wakeup <= at + 1000:
            self._fire(wakeup)
        assert self.pending, f"nothing goes; the next timer is {self.layer.next_wakeup_ns}"
        assert abs(at - self.now) <= 1000, f"goes at {self.now / 1e9:.6f}"
        self._expect(rest)

    def _run(self, until: int, timers_now: bool = True) -> None:
        while timers_now and (wakeup := self.layer.next_wakeup_ns) is not None and wakeup <= until:
            self._fire(wakeup)

    def _fire(self, wakeup: int) -> None:
        self.now = max(self.now, wakeup)
        self.layer.timer(self.now)
        self.collect()

    def collect(self) -> None:
        """Take what came about: segments wait to be expected, events to be named."""
        packets, events = self.layer.drain()
        self.pending += packets
        self.events += [self._word(event) for event in events]

    def _word(self, event: Event) -> str:
        return f"{event.kind}:{event.errno}" if event.errno else str(event.kind)

    # Segments

    def come(self, flags: str, span: str, *rest: str) -> None:
        """Let a segment of the peer come."""
        first, _, last = span.partition(":")
        fields = dict(zip(rest[::2], rest[1::2], strict=False)) if len(rest) % 2 == 0 else {}
        options, fields = _options(list(rest))
        bits = sum(1 << _FLAGS.index(letter) for letter in flags if letter in _FLAGS)
        ack = (int(fields["ack"]) + (self.isn or 0)) & MASK if "ack" in fields else 0
        sack = tuple(
            ((left + (self.isn or 0)) & MASK, (right + (self.isn or 0)) & MASK) for left, right in options.sack
        )
        segment = Segment(
            self.peer_port, self.port, (PEER_ISN + int(first)) & MASK, ack, bits, int(fields.get("win", "8000")),
            content(int(first), int(last or first)), options._replace(sack=sack), int(fields.get("urg", "0")),
        )  # fmt: skip
        self.layer.segment(PEER, US, build(PEER, US, segment), self.now, self.mtu, tos=int(fields.get("tos", "0")))

    def _expect(self, rest: list[str]) -> None:
        packet = self.pending.pop(0)
        segment = parse(packet.src, packet.dst, packet.data)
        assert isinstance(segment, Segment)
        self.last = segment
        if segment.flags & SYN:
            self.isn = segment.sequence
        assert (packet.src, packet.dst) == (US, PEER)
        flags, span, *fields = rest
        first, _, last = span.partition(":")
        shown = self._show(packet)
        assert _letters(segment.flags & ~8) == "".join(sorted(flags, key=_FLAGS.index)).replace("P", ""), shown
        start = unwrap(segment.sequence, self.isn or 0) - (self.isn or 0)
        assert start == int(first), shown
        assert len(segment.payload) == int(last or first) - int(first), shown
        assert segment.payload == content(start, start + len(segment.payload))
        self._compare(packet, segment, fields, shown)

    def _compare(self, packet: Packet, segment: Segment, fields: list[str], shown: str) -> None:
        options, wanted = _options(fields)
        if "ack" in wanted:
            assert (segment.acknowledgment - PEER_ISN) & MASK == int(wanted["ack"]), shown
        if "win" in wanted:
            assert segment.window == int(wanted["win"]), shown
        if "tos" in wanted:
            assert packet.tos == int(wanted["tos"]), f"{shown} tos {packet.tos}"
        if "urg" in wanted:
            assert segment.urgent == int(wanted["urg"]), shown
        blocks = tuple(((left - PEER_ISN) & MASK, (right - PEER_ISN) & MASK) for left, right in segment.options.sack)
        assert blocks == options.sack, shown
        for name in ("mss", "window_scale"):
            if getattr(options, name) is not None:
                assert getattr(segment.options, name) == getattr(options, name), shown
        if options.sack_permitted:
            assert segment.options.sack_permitted, shown

    def _show(self, packet: Packet) -> str:
        segment = parse(packet.src, packet.dst, packet.data)
        assert isinstance(segment, Segment)
        start = unwrap(segment.sequence, self.isn or 0) - (self.isn or 0)
        acknowledged = (segment.acknowledgment - PEER_ISN) & MASK
        return (
            f"{_letters(segment.flags)} {start}:{start + len(segment.payload)} ack {acknowledged} "
            f"win {segment.window} {segment.options}"
        )

    # Calls

    def _listen(self) -> None:
        handle = self.layer.listen(Endpoint(US, OUR_PORT), self.backlog, self.options)
        assert not isinstance(handle, Refused)
        self.listener = handle

    def _connect(self) -> None:
        handle = self.layer.connect(
            US, Endpoint(PEER, PEER_PORT), self.now, self.mtu, port=OUR_PORT, options=self.options
        )
        assert not isinstance(handle, Refused)
        self.handle = handle

    def _accept(self) -> None:
        handle = self.layer.accept(self.listener)
        assert not isinstance(handle, Refused)
        self.handle = handle

    def _send(self, size: str, *flags: str) -> None:
        data = content(self.sent, self.sent + int(size))
        assert self.layer.send(self.handle, data, self.now, urgent="urgent" in flags) == int(size)
        self.sent += int(size)

    def _recv(self, size: str) -> None:
        data = self.layer.recv(self.handle, int(size), self.now)
        assert data == content(self.read, self.read + int(size))
        self.read += int(size)

    def _shutdown(self) -> None:
        assert self.layer.shutdown(self.handle, self.now) is None

    def _close(self) -> None:
        assert self.layer.close(self.handle, self.now) is None

    def _abort(self) -> None:
        assert self.layer.abort(self.handle, self.now) is None

    def _icmp(self, kind: str, first: str, mtu: str = "0") -> None:
        number = (int(first) + (self.isn or 0)) & MASK
        quoted = OUR_PORT.to_bytes(2, "big") + PEER_PORT.to_bytes(2, "big") + number.to_bytes(4, "big")
        self.layer.icmp_error(US, PEER, quoted, IcmpKind(kind), self.now, int(mtu))

    def _wait(self) -> None:
        """Let time pass."""

    def _say(self, what: str, *values: str) -> None:
        if what == "events":
            assert self.events == list(values)
            self.events = []
        elif what == "gone":
            assert self.layer.connections() == []
        elif what == "refused":
            assert self.layer.recv(self.handle, 1, self.now) == Refused(values[0])  # type: ignore[arg-type]
        else:
            status = self.layer.status(self.handle)
            assert not isinstance(status, Refused), status
            value = getattr(status, what)
            assert (value.name if what == "state" else str(value)) == values[0], status


def _letters(flags: int) -> str:
    return "".join(letter for bit, letter in enumerate(_FLAGS) if flags >> bit & 1)


def _options(words: list[str]) -> tuple[Options, dict[str, str]]:
    """Return the options among the words of a line, and its other fields."""
    options, fields = Options(), {}
    while words:
        word = words.pop(0)
        if word == "sackOK":
            options = options._replace(sack_permitted=True)
        elif word == "mss":
            options = options._replace(mss=int(words.pop(0)))
        elif word == "wscale":
            options = options._replace(window_scale=int(words.pop(0)))
        elif word == "ts":
            value, _, echo = words.pop(0).partition(":")
            options = options._replace(timestamp=(int(value), int(echo)))
        elif word == "sack":
            blocks = [block.split("-") for block in words.pop(0).split(",")]
            options = options._replace(sack=tuple((int(left), int(right)) for left, right in blocks))
        else:
            fields[word] = words.pop(0)
    return options, fields
