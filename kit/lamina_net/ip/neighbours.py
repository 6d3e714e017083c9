"""Who is where on a link: a bounded table of neighbours, found by ARP. Pure.

    send                   answer                  30 s                send, asked 3 times
    ────▶ INCOMPLETE ──────────────▶ REACHABLE ──────────▶ STALE ─────────────────────────▶ FAILED
          asked 3 times, 1 s apart ───────────────────────────────────────────────────────▶

REACHABLE fades to STALE by computation, no timer does it; only a question that is open has a timer. A stale neighbour
is used at once and asked meanwhile, to its own address. A packet for a failed one asks anew.

What a stranger can do is bounded. Nobody but who asks us, or whom we ask, gets an entry. An entry whose neighbour
answered us within the last second keeps its address whoever else claims it. A full table gives up failed and stale
entries, then open questions, never a neighbour that answered within 30 s.

Source: RFC 826; RFC 1122, 2.3.2; RFC 5227; the states are those of RFC 4861, 7.3.2, as Linux has them for IPv4 too.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from lamina_net.packets.address import BROADCAST_MAC, Mac
from lamina_net.packets.arp import REPLY, REQUEST, ArpPacket

SECOND = 1_000_000_000
REACHABLE_NS = 30 * SECOND
RETRY_NS = SECOND
TRIES = 3
LOCK_NS = SECOND
"""How long what a neighbour answered is not changed by others. Linux calls it locktime."""
MAX_WAITING = 16
"""Packets that wait for one neighbour; the oldest goes first."""
MAX_WAITING_TOTAL = 256
"""Packets that wait for all neighbours of an interface."""
_LOOKS = 8
"""Entries that are looked at for one to give up."""

P = TypeVar("P")


class NeighbourState(Enum):
    """What is known about a neighbour."""

    INCOMPLETE = "INCOMPLETE"
    """Asked for, no answer yet; packets wait."""
    REACHABLE = "REACHABLE"
    """Answered within 30 s."""
    STALE = "STALE"
    """Not confirmed for 30 s, or only heard of; asked when needed."""
    FAILED = "FAILED"
    """Did not answer three times."""


class Question(NamedTuple):
    """An ARP request to send: who has `target`, from our address `source`, in a frame to `mac`."""

    target: int
    source: int
    mac: Mac


class Neighbour(NamedTuple):
    """An entry as users see it. `mac` is None while it is not known; `age_ns` is 0 for what was never confirmed."""

    address: int
    mac: Mac | None
    state: NeighbourState
    age_ns: int


@dataclass(slots=True)
class Outcome(Generic[P]):
    """What a step wants done: questions to send, packets with the address they go to, packets that cannot go."""

    questions: list[Question] = field(default_factory=list)
    ready: list[tuple[Mac, P]] = field(default_factory=list)
    unreachable: list[P] = field(default_factory=list)


@dataclass(slots=True)
class _Entry(Generic[P]):
    mac: Mac | None
    confirmed_ns: int | None = None
    tries: int = 0  # questions without an answer; 0: none is open
    due_ns: int = 0
    source: int = 0
    failed: bool = False
    waiting: deque[P] = field(default_factory=deque)


class NeighbourTable(Generic[P]):
    """The neighbours of one interface, at most `limit`. `P` is whatever the caller sends: packets, or more."""

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._entries: dict[int, _Entry[P]] = {}
        self._asking: dict[int, None] = {}  # addresses with an open question, by due time: all wait equally long
        self._waiting = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def next_wakeup_ns(self) -> int | None:
        """When `timer` is due, or None while no question is open."""
        for address in self._asking:
            return self._entries[address].due_ns
        return None

    def lookup(self, address: int, now_ns: int) -> Mac | None:
        """Return the MAC address of a reachable neighbour, None for all others, about which `send` decides."""
        entry = self._entries.get(address)
        if entry is None or entry.confirmed_ns is None or now_ns - entry.confirmed_ns >= REACHABLE_NS:
            return None
        return entry.mac

    def send(self, address: int, packet: P, source: int, now_ns: int) -> Outcome[P]:
        """Send a packet to a neighbour: at once, or when it has answered. `source` is our address to ask with.

        The packet is `unreachable` at once when the table is full of neighbours that answer.
        """
        outcome: Outcome[P] = Outcome()
        entry = self._entries.get(address)
        if entry is None:
            if not self._make_room(outcome, now_ns):
                outcome.unreachable.append(packet)
                return outcome
            entry = self._entries[address] = _Entry(None)
        entry.failed = False
        if entry.mac is None:
            self._wait(entry, packet, outcome)
        else:
            outcome.ready.append((entry.mac, packet))
        if not entry.tries and self._state(entry, now_ns) is not NeighbourState.REACHABLE:
            entry.source = source
            self._ask(address, entry, now_ns, outcome)
        return outcome

    def heard(self, packet: ArpPacket, to_us: bool, now_ns: int) -> Outcome[P]:
        """Learn from an ARP packet that came in, and release what waited for its sender.

        `to_us` says that it asks for, or answers to, an address of ours. The caller leaves out packets whose sender is
        outside the link's subnets, or claims an address of the caller's own.
        """
        outcome: Outcome[P] = Outcome()
        entry = self._entries.get(packet.sender)
        if packet.is_probe:
            return outcome
        if entry is None or entry.failed:
            if packet.operation == REQUEST and to_us and (entry is not None or self._make_room(outcome, now_ns)):
                self._entries[packet.sender] = _Entry(packet.sender_mac)
            return outcome
        answers = packet.operation == REPLY and to_us and entry.tries > 0
        if answers:
            entry.mac = packet.sender_mac
            self._confirm(packet.sender, entry, now_ns)
        elif entry.mac != packet.sender_mac and not self._is_locked(entry, now_ns):
            entry.mac, entry.confirmed_ns = packet.sender_mac, None
            if entry.waiting:  # it was incomplete: that somebody has the address is enough to send
                self._end_question(packet.sender, entry)
        self._release(entry, outcome)
        return outcome

    def timer(self, now_ns: int) -> Outcome[P]:
        """Ask again whom the time to answer is over for, and give up who did not answer three times."""
        outcome: Outcome[P] = Outcome()
        while self._asking:
            address = next(iter(self._asking))
            entry = self._entries[address]
            if entry.due_ns > now_ns:
                break
            if entry.tries < TRIES:
                self._ask(address, entry, now_ns, outcome)
                continue
            self._end_question(address, entry)
            entry.mac, entry.failed = None, True
            self._give_up(entry, outcome)
        return outcome

    def forget(self, address: int) -> Outcome[P]:
        """Remove an entry; what waited for it is unreachable."""
        outcome: Outcome[P] = Outcome()
        self._remove(address, outcome)
        return outcome

    def neighbours(self, now_ns: int) -> list[Neighbour]:
        """Return all entries by address."""
        return [
            Neighbour(address, entry.mac, self._state(entry, now_ns), now_ns - since if since is not None else 0)
            for address, entry in sorted(self._entries.items())
            for since in (entry.confirmed_ns,)
        ]

    @staticmethod
    def _state(entry: _Entry[P], now_ns: int) -> NeighbourState:
        if entry.failed:
            return NeighbourState.FAILED
        if entry.mac is None:
            return NeighbourState.INCOMPLETE
        if entry.confirmed_ns is not None and now_ns - entry.confirmed_ns < REACHABLE_NS:
            return NeighbourState.REACHABLE
        return NeighbourState.STALE

    @staticmethod
    def _is_locked(entry: _Entry[P], now_ns: int) -> bool:
        return entry.confirmed_ns is not None and now_ns - entry.confirmed_ns < LOCK_NS

    def _ask(self, address: int, entry: _Entry[P], now_ns: int, outcome: Outcome[P]) -> None:
        entry.tries += 1
        entry.due_ns = now_ns + RETRY_NS
        self._asking.pop(address, None)
        self._asking[address] = None
        outcome.questions.append(Question(address, entry.source, entry.mac or BROADCAST_MAC))

    def _end_question(self, address: int, entry: _Entry[P]) -> None:
        entry.tries = 0
        self._asking.pop(address, None)

    def _confirm(self, address: int, entry: _Entry[P], now_ns: int) -> None:
        self._end_question(address, entry)
        entry.confirmed_ns = now_ns
        self._entries[address] = self._entries.pop(address)  # the front is who was confirmed or made longest ago

    def _wait(self, entry: _Entry[P], packet: P, outcome: Outcome[P]) -> None:
        if len(entry.waiting) >= MAX_WAITING:
            outcome.unreachable.append(entry.waiting.popleft())
            self._waiting -= 1
        if self._waiting >= MAX_WAITING_TOTAL:
            outcome.unreachable.append(packet)
            return
        entry.waiting.append(packet)
        self._waiting += 1

    def _release(self, entry: _Entry[P], outcome: Outcome[P]) -> None:
        if entry.waiting and entry.mac is not None:
            self._waiting -= len(entry.waiting)
            outcome.ready.extend((entry.mac, packet) for packet in entry.waiting)
            entry.waiting.clear()

    def _give_up(self, entry: _Entry[P], outcome: Outcome[P]) -> None:
        self._waiting -= len(entry.waiting)
        outcome.unreachable.extend(entry.waiting)
        entry.waiting.clear()

    def _remove(self, address: int, outcome: Outcome[P]) -> None:
        entry = self._entries.pop(address, None)
        if entry is not None:
            self._asking.pop(address, None)
            self._give_up(entry, outcome)

    def _make_room(self, outcome: Outcome[P], now_ns: int) -> bool:
        """Give up one of the entries at the front of a full table; those that are kept go to its end."""
        if len(self._entries) < self._limit:
            return True
        incomplete = None
        for address in [address for address, _ in zip(self._entries, range(_LOOKS), strict=False)]:
            entry = self._entries[address]
            state = self._state(entry, now_ns)
            if state in (NeighbourState.FAILED, NeighbourState.STALE):
                self._remove(address, outcome)
                return True
            if state is NeighbourState.INCOMPLETE and incomplete is None:
                incomplete = address
            self._entries[address] = self._entries.pop(address)
        if incomplete is None:
            return False
        self._remove(incomplete, outcome)
        return True
