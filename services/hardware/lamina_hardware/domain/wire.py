"""A wire: what every station on it sends, the others hear, after the time that its rate and delay ask for.

Each sender has a queue of its own before the medium (full duplex); what does not fit is dropped at the tail. A frame
occupies the sender's side for its bytes and the 24 bytes that Ethernet adds (preamble, check sequence, gap): that makes
of 1 Gbit/s the well-known 1.488 million smallest frames.

Pure: time, chance and timers come from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

OVERHEAD_BYTES = 24
"""Preamble 8, frame check sequence 4, gap 12. Source: IEEE 802.3."""

DEFAULT_QUEUE = 1 << 20
MOST_UNDER_WAY = 256 << 20
"""Bytes on a wire at once: 20 ms of 100 Gbit/s, 2 s of 1 Gbit/s. Whatever it is told, it keeps no more in memory."""
MILLION = 1_000_000
_NS = 1_000_000_000

Receiver = Callable[[Sequence[bytes]], None]
Capture = Callable[[Sequence[bytes], int], None]


class WirePorts(Protocol):
    """What a wire may have from outside."""

    def now_ns(self) -> int:
        """Returns nanoseconds since the stack's start."""
        ...

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> None:
        """Calls back once at a time, or soon when it has passed; never before this returns."""
        ...

    def draw(self, below: int) -> int:
        """Returns an integer of 0 to `below` - 1, by chance."""
        ...


@dataclass(frozen=True, slots=True)
class Quality:
    """How a wire carries; ranges are the contract's. `rate` in bits a second, 0 for as fast as it goes."""

    rate: int = 0
    delay_ns: int = 0
    jitter_ns: int = 0
    loss_ppm: int = 0
    queue_bytes: int = DEFAULT_QUEUE
    is_cut: bool = False


@dataclass(slots=True)
class _Sender:
    """One side of the wire: until when it is busy, and when its last frame arrives (later ones do not overtake it)."""

    free_ns: int = 0
    last_arrival_ns: int = 0


class Wire:
    """One wire with its stations, by name. `outside` takes what leaves for another medium (a socket, another host)."""

    def __init__(self, name: str, quality: Quality, ports: WirePorts) -> None:
        self.name = name
        self.quality = quality
        self._ports = ports
        self._stations: dict[str, Receiver] = {}
        self._senders: dict[str, _Sender] = {}
        self._cuts = 0
        self._under_way_bytes = 0
        self.outside: Receiver | None = None
        self.captures: list[Capture] = []
        self.frames = 0
        self.bytes = 0
        self.lost = 0

    @property
    def stations(self) -> list[str]:
        """Who is on the wire, in order of names."""
        return sorted(self._stations)

    def connect(self, station: str, receiver: Receiver) -> None:
        """Puts a station on the wire; it hears what others send from now on."""
        self._stations[station] = receiver
        self._senders.setdefault(station, _Sender())

    def disconnect(self, station: str) -> None:
        """Takes a station off; frames under way to it are lost to it."""
        self._stations.pop(station, None)
        self._senders.pop(station, None)

    def change(self, quality: Quality) -> None:
        """Takes a new quality. Frames under way keep what they had, but are lost where the wire is cut."""
        if quality.is_cut and not self.quality.is_cut:
            self._cuts += 1
        self.quality = quality

    def send(self, station: str, frames: Sequence[bytes]) -> None:
        """Takes frames of a station, in order. Those that survive arrive later, never before this returns."""
        sender = self._senders.setdefault(station, _Sender())
        now = self._ports.now_ns()
        for capture in self.captures:
            capture(frames, now)
        batch: list[bytes] = []
        at = 0
        for frame in frames:
            arrival = self._arrival(sender, len(frame), now)
            if arrival is None:
                self.lost += 1
                continue
            if batch and arrival != at:
                self._under_way(station, batch, at)
                batch = []
            batch.append(frame)
            self._under_way_bytes += len(frame)
            at = arrival
        if batch:
            self._under_way(station, batch, at)

    def arrive(self, frames: Sequence[bytes]) -> None:
        """Takes frames that came from outside, as if a station that is not here had sent them."""
        for capture in self.captures:
            capture(frames, self._ports.now_ns())
        if self.quality.is_cut:
            self.lost += len(frames)
            return
        self._passed(frames)
        self._hear("", frames)

    def _arrival(self, sender: _Sender, size: int, now: int) -> int | None:
        """Returns when a frame arrives; None when it is lost."""
        quality = self.quality
        if quality.is_cut or self._under_way_bytes + size > MOST_UNDER_WAY:
            return None
        begin = max(now, sender.free_ns)
        if quality.rate:
            waiting = (begin - now) * quality.rate // (8 * _NS)
            if waiting + size > quality.queue_bytes:
                return None
            begin += -(-(size + OVERHEAD_BYTES) * 8 * _NS // quality.rate)
            sender.free_ns = begin
        if quality.loss_ppm and self._ports.draw(MILLION) < quality.loss_ppm:
            return None
        arrival = begin + quality.delay_ns
        if quality.jitter_ns:
            arrival += self._ports.draw(quality.jitter_ns + 1)
        sender.last_arrival_ns = max(arrival, sender.last_arrival_ns)
        return sender.last_arrival_ns

    def _under_way(self, station: str, frames: list[bytes], arrival: int) -> None:
        cuts = self._cuts

        def arrived() -> None:
            self._under_way_bytes -= sum(map(len, frames))
            if self._cuts != cuts:
                self.lost += len(frames)
                return
            self._passed(frames)
            self._hear(station, frames)
            if self.outside is not None:
                self.outside(frames)

        self._ports.call_at(arrival, arrived)

    def _passed(self, frames: Sequence[bytes]) -> None:
        self.frames += len(frames)
        self.bytes += sum(map(len, frames))

    def _hear(self, sender: str, frames: Sequence[bytes]) -> None:
        for name in self.stations:
            receiver = self._stations.get(name)
            if name != sender and receiver is not None:
                receiver(frames)
