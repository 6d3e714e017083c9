"""Teaming: which of a switch's uplinks carry frames, and which of them one frame takes.

A team is what a port group says: active uplinks in order, standby ones in order. Those in use follow from which are
up, and, for a team without failback, from which were in use before. Among several, the one with the highest hash of
frame and uplink is taken (rendezvous hashing), so that an uplink that goes moves only what it carried, and gets the
same back.

Source: Thaler and Ravishankar, Using Name-Based Mappings to Increase Hit Rates, 1998; IEEE 802.1AX-2020, 6.2.4 (frames
of a conversation keep to one link); SplitMix64 (the finalizer of the hash).
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_64_BITS = (1 << 64) - 1

DEFAULT = ""
"""Key of the team of all that belong to no group."""


class Balancing(enum.IntEnum):
    """What decides which uplink a frame takes; the numbers are those of the contract's enum of the same name."""

    PORT = 1
    SOURCE_MAC = 2
    FLOW = 3
    FAILOVER = 4


@dataclass(frozen=True, slots=True)
class Team:
    """How uplinks are shared: slots of active and of standby ones, in order of preference, none of them twice."""

    balancing: Balancing = Balancing.PORT
    active: tuple[int, ...] = ()
    standby: tuple[int, ...] = ()
    no_failback: bool = False
    announce: bool = False


class Shift(NamedTuple):
    """A team that uses other uplinks now, or in another way: its key, what it is, and what it was and used before."""

    key: str
    team: Team
    was: Team
    before: tuple[int, ...]


def in_use(team: Team, up: Callable[[int], bool], before: Sequence[int] = ()) -> tuple[int, ...]:
    """Return the uplinks that carry frames, in order of preference: as many as are active, one for FAILOVER.

    Standby uplinks fill the places of active ones that are down. Without failback what is in use and up stays so.
    """
    order = (*team.active, *team.standby)
    places = 1 if team.balancing is Balancing.FAILOVER else len(team.active)
    ready = [slot for slot in order if up(slot)]
    kept = [slot for slot in ready if slot in before] if team.no_failback else []
    chosen = (kept + [slot for slot in ready if slot not in kept])[:places]
    return tuple(slot for slot in order if slot in chosen)


def choose(uplinks: Sequence[int], key: int) -> int:
    """Return one of some uplinks, at least one, by a hash: always the same while that one is among them."""
    if len(uplinks) == 1:
        return uplinks[0]
    return max(uplinks, key=lambda slot: (_mixed(key, slot), slot))


def _mixed(key: int, slot: int) -> int:
    mixed = (key ^ (slot * 0x9E3779B97F4A7C15)) & _64_BITS
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return mixed ^ (mixed >> 31)


class Teams:
    """The uplinks of one switch, the teams that share them, and which port belongs to which team.

    `shifts` are the teams that came to use other uplinks, or in another way, since somebody took note of it.
    """

    def __init__(self) -> None:
        self.uplinks: tuple[int, ...] = ()
        """Slots of the ports that lead out of the host, ascending."""
        self.shifts: list[Shift] = []
        self._teams: dict[str, Team] = {}
        self._were: dict[str, Team] = {}
        self._used: dict[str, tuple[int, ...]] = {}
        self._of_port: dict[int, str] = {}

    def set_uplink(self, slot: int, uplink: bool) -> None:
        """Let a port lead out of the host, or no more."""
        others = {*self.uplinks} - {slot}
        self.uplinks = tuple(sorted(others | {slot} if uplink else others))

    def set_teams(self, teams: dict[str, Team]) -> None:
        """Share the uplinks in this way. What was in use stays noted; a new team was part of the default one."""
        default = self._teams.get(DEFAULT)
        self._were = {key: self._teams.get(key, default or team) for key, team in teams.items()}
        self._used = {key: self.used(key) for key in teams}
        self._teams = dict(teams)

    def join(self, slot: int, key: str) -> bool:
        """Let a port belong to a team; a key that names none is the default one's. Return whether that is news."""
        old = self._of_port.get(slot, DEFAULT)
        self._of_port[slot] = key
        return key != old

    def forget(self, slot: int) -> None:
        """Forget a port that is gone."""
        self.set_uplink(slot, uplink=False)
        self._of_port.pop(slot, None)

    def settle(self, up: Callable[[int], bool]) -> None:
        """Find out anew which uplinks are in use."""
        for key, team in self._teams.items():
            was, before = self._were.get(key, team), self._used[key]
            self._used[key] = used = in_use(team, up, before)
            if used != before or was.balancing is not team.balancing:
                self.shifts.append(Shift(key, team, was, before))
        self._were = {}

    def used(self, key: str) -> tuple[int, ...]:
        """Return the uplinks that a team, the default one for a key that names none, uses now, in order."""
        return self._used.get(key, self._used.get(DEFAULT, ()))

    def key_of(self, slot: int) -> str:
        """Return the key of the team of a port."""
        key = self._of_port.get(slot, DEFAULT)
        return key if key in self._teams else DEFAULT

    def team_of(self, slot: int) -> Team:
        """Return the team of a port; one without uplinks when the switch has none."""
        return self._teams.get(self.key_of(slot), Team())

    def used_by(self, slot: int) -> tuple[int, ...]:
        """Return the uplinks that the team of a port uses now."""
        return self.used(self.key_of(slot))


def key_hash(balancing: Balancing, slot: int, src: bytes, flow: Callable[[], int]) -> int:
    """Return what decides about a frame from a port; `flow` computes the hash of its flow when that is asked for."""
    if balancing is Balancing.FLOW:
        return flow()
    return zlib.crc32(src) if balancing is Balancing.SOURCE_MAC else slot
