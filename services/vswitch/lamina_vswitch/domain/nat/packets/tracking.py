"""What a flow is doing, read off its packets, and how long it may be silent.

TCP is followed by flags alone: a translator that also judged sequence numbers would break flows of which it missed a
part, as after a start. So a reset is believed with care (RFC 7857, 2.2): the flow ends after 10 s, but when the side
that was reset goes on with anything else than a reset, it did not believe it, and the flow is what it was.

    OPENING ──both sent SYN──► ESTABLISHED ──a FIN──► CLOSING ──both sent FIN──► CLOSED
       ▲                            │                    │                        │
       └──────── SYN of either ─────┼──── RST ───────────┴──────── RST ──────────►┘
                                    └──────────────────────────────────────────────

Source: RFC 5382, 5; RFC 7857, 2; RFC 4787, 4.3; RFC 5508, 3.2.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from lamina_vswitch.domain.nat.packets.packet import ACK, ECHO_REQUEST, FIN, ICMP, RST, SYN, TCP

SECOND_NS = 1_000_000_000


class State(enum.IntEnum):
    """State of an entry; the numbers are those of the contract's enum."""

    OPENING = 1
    ESTABLISHED = 2
    CLOSING = 3
    CLOSED = 4
    UNREPLIED = 5
    REPLIED = 6


_TIMEOUT_SECONDS = {
    State.OPENING: 240,
    State.ESTABLISHED: 7440,
    State.CLOSING: 240,
    State.CLOSED: 10,
    State.UNREPLIED: 300,
    State.REPLIED: 300,
}
_ECHO_SECONDS = 60
LONGEST_SECONDS = max(_TIMEOUT_SECONDS.values())

_INSIDE, _OUTSIDE = 1, 2
_BOTH = _INSIDE | _OUTSIDE


def timeout_seconds(protocol: int, state: State) -> int:
    """Return after how many seconds without packets an entry goes."""
    return _ECHO_SECONDS if protocol == ICMP else _TIMEOUT_SECONDS[state]


def begins_flow(protocol: int, flags: int) -> bool:
    """Tell whether a packet may begin a flow: of TCP a SYN that is nothing else, of ICMP an echo request."""
    if protocol == ICMP:
        return flags == ECHO_REQUEST
    return protocol != TCP or flags & (SYN | ACK | RST | FIN) == SYN


@dataclass(slots=True)
class Track:
    """Where a flow is. `first` is the side whose packet came first: 1 inside, 2 outside."""

    protocol: int
    state: State
    first: int
    syns: int = 0
    fins: int = 0
    resets: int = 0

    @classmethod
    def begun(cls, protocol: int, *, inside: bool) -> Track:
        """Return the track of a flow whose first packet comes from inside or from outside; `follow` is told it too."""
        state = State.OPENING if protocol == TCP else State.UNREPLIED
        return cls(protocol, state, _INSIDE if inside else _OUTSIDE)

    def follow(self, flags: int, *, inside: bool) -> bool:
        """Take in a packet from inside or from outside. False: it fits no state and must not pass."""
        side = _INSIDE if inside else _OUTSIDE
        if self.protocol != TCP:
            if side != self.first:
                self.state = State.REPLIED
            return True
        if not _possible(flags):
            return False
        if flags & RST:
            self.resets |= side
        elif flags & SYN:
            self._synchronize(side, flags)
        else:
            if flags & FIN:
                if not self.syns & side:
                    return False
                self.fins |= side
            self.resets &= side
        self.state = self._tcp_state()
        return True

    def _synchronize(self, side: int, flags: int) -> None:
        """A SYN begins the flow, answers it, or begins it anew after it was done."""
        if self.state is State.CLOSED and not flags & ACK:
            self.syns = self.fins = self.resets = 0
            self.first = side
        self.resets &= side
        self.syns |= side

    def _tcp_state(self) -> State:
        if self.resets or self.fins == _BOTH:
            return State.CLOSED
        if self.fins:
            return State.CLOSING
        return State.ESTABLISHED if self.syns == _BOTH else State.OPENING


def _possible(flags: int) -> bool:
    """Tell whether a sender that keeps to RFC 9293 can set these flags together."""
    kinds = flags & (SYN | FIN | RST)
    if kinds not in (0, SYN, FIN, RST):
        return False
    return bool(flags & ACK) or kinds in (SYN, RST)
