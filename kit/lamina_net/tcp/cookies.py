"""SYN cookies: a listener whose backlog is full answers without remembering, and knows its answer again. Pure.

    number of the SYN-ACK    │ keyed hash of four-tuple, peer's number, period, index: 29 bits │ index: 3 │
    timestamp of the SYN-ACK │ our clock, up to 64 ms ago: 26 │ ECN: 1 │ SACK: 1 │ scale, 15 for none: 4 │

The peer sends both back with its ACK. A number is good in its period of 64 s and the next one. The index names what the
peer takes in a segment, rounded down; scale, SACK and ECN are for peers with timestamps only, as in Linux. What is
lost: a SYN-ACK is not repeated, and peers without timestamps have small windows and no SACK.

Source: RFC 4987, 3.6 and appendix A; Linux, net/ipv4/syncookies.c.
"""

from __future__ import annotations

from typing import NamedTuple

from lamina_net.tcp.config import SECOND
from lamina_net.tcp.identity import FourTuple, Identity
from lamina_net.tcp.segment import Options, Segment
from lamina_net.tcp.sequence import MASK

LIFE_NS = 128 * SECOND
"""How long after a cookie an ACK may bring it back, at most."""

_SIZES = (64, 216, 536, 1220, 1400, 1440, 1460, 8960)
_PERIOD_NS = 64 * SECOND
_NO_SCALE = 15
_SACK, _ECN = 0x10, 0x20
_STAMP_BITS = 0x3F


class Offer(NamedTuple):
    """What the peer's SYN said, as far as a cookie holds it."""

    options: Options
    ecn: bool


def number(identity: Identity, four: FourTuple, syn: Segment, now_ns: int) -> int:
    """Return the initial number for the answer to a SYN, 32 bits."""
    size = syn.options.mss or 536
    index = max((place for place, each in enumerate(_SIZES) if each <= size), default=0)
    return _number(identity, four, syn.sequence, now_ns // _PERIOD_NS, index)


def stamp(clock: int, syn: Segment, *, ecn: bool) -> int:
    """Return the timestamp for the answer to a SYN that has one: not later than `clock`, 32 bits."""
    scale = syn.options.window_scale
    bits = _NO_SCALE if scale is None else min(scale, 14)
    bits |= (_SACK if syn.options.sack_permitted else 0) | (_ECN if ecn else 0)
    value = (clock & ~_STAMP_BITS) | bits
    return (value if value <= clock else value - _STAMP_BITS - 1) & MASK


def recognized(identity: Identity, four: FourTuple, answer: Segment, now_ns: int) -> Offer | None:
    """Return what the SYN said whose answer comes back in an ACK, or None when it is none of ours."""
    cookie, syn = (answer.acknowledgment - 1) & MASK, (answer.sequence - 1) & MASK
    period, index = now_ns // _PERIOD_NS, cookie & 7
    if cookie not in (_number(identity, four, syn, each, index) for each in (period, period - 1)):
        return None
    echoed = answer.options.timestamp
    if echoed is None:
        return Offer(Options(_SIZES[index]), False)
    scale = echoed[1] & 15
    sack = bool(echoed[1] & _SACK)
    options = Options(_SIZES[index], None if scale == _NO_SCALE else scale, sack, (), (echoed[0], 0))
    return Offer(options, bool(echoed[1] & _ECN))


def _number(identity: Identity, four: FourTuple, syn: int, period: int, index: int) -> int:
    return identity.cookie(four, syn, period, index) & ~7 & MASK | index
