"""Loop detection: probes that a switch sends and finds again, and addresses that jump to and fro.

    byte   0         6         12       14        15              23             31
           +---------+---------+--------+---------+---------------+--------------+-----------
           |   dst   |   src   | 0x88b5 | version | id of switch  | number       | zero to 60
           +---------+---------+--------+---------+---------------+--------------+-----------

A number is drawn for each probe, so that nobody can answer for a port but by handing on what came out of it. Probes of
four rounds are remembered, which is how long one may be under way.

Source: IEEE 802, 9.2.3 (0x88b5, local experimental EtherType 1).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from lamina_kit.rng import Rng
from lamina_vswitch.domain.policy.settings import NS_PER_SECOND, LoopDetection

PROBE_TYPE = 0x88B5
PROBE_GROUP = bytes.fromhex("0300000088b5")
PROBE_BYTES = 60
MOVES = 32
WINDOW_NS = NS_PER_SECOND
_VERSION = b"\x01"
_ROUNDS = 4
_WATCHED = 4096
"""Most addresses whose moves are watched; the one that moved longest ago makes room."""


class Loop(NamedTuple):
    """Slots of the two ports of a loop; equal when a port hears itself."""

    shut: int
    peer: int


@dataclass(slots=True)
class _Moves:
    """Moves of one address between the same two ports: when the last ones were."""

    ports: tuple[int, int]
    times_ns: deque[int] = field(default_factory=lambda: deque(maxlen=MOVES))


class LoopWatch:
    """What one switch knows of its probes and of the addresses that move."""

    def __init__(self, detection: LoopDetection, rng: Rng) -> None:
        self.detection = detection
        self._rng = rng
        self._id = rng.bytes(8)
        self._source = b"\x02" + self._id[:5]
        self._rounds: deque[dict[bytes, int]] = deque(maxlen=_ROUNDS)
        self._moves: dict[tuple[int, bytes], _Moves] = {}

    def probes(self, slots: list[int]) -> list[tuple[int, bytes]]:
        """Begin a round: return (slot, frame) of a probe for each port."""
        numbers = {self._rng.bytes(8): slot for slot in slots}
        self._rounds.append(numbers)
        head = PROBE_GROUP + self._source + PROBE_TYPE.to_bytes(2, "big") + _VERSION + self._id
        return [(slot, (head + number).ljust(PROBE_BYTES, b"\0")) for number, slot in numbers.items()]

    def sender(self, payload: bytes) -> int | None:
        """Return the slot that a probe went out of, by what follows its EtherType; None when it is no probe of ours."""
        if payload[:9] != _VERSION + self._id:
            return None
        return next((numbers[payload[9:17]] for numbers in self._rounds if payload[9:17] in numbers), None)

    def moved(self, vlan: int, mac: bytes, old: int, new: int, now_ns: int) -> Loop | None:
        """Note that an address moved from one port to another. Return the loop that this shows, if it does."""
        key, ports = (vlan, mac), (min(old, new), max(old, new))
        moves = self._moves.pop(key, None)
        if moves is None or moves.ports != ports:
            moves = _Moves(ports)
        self._moves[key] = moves
        if len(self._moves) > _WATCHED:
            del self._moves[next(iter(self._moves))]
        moves.times_ns.append(now_ns)
        if len(moves.times_ns) < MOVES or now_ns - moves.times_ns[0] > WINDOW_NS:
            return None
        del self._moves[key]
        return loop_of(old, new)


def loop_of(one: int, other: int) -> Loop:
    """Return the loop between two ports: the one with the higher slot is shut."""
    return Loop(max(one, other), min(one, other))
