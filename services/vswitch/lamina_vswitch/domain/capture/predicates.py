"""What a filter can ask of one frame: predicates over its bytes, each made once and called for every frame.

`shift` is how many bytes of VLAN tags a filter has skipped: after `vlan` the rest of the expression looks behind the
tag, as in libpcap. A predicate never raises; bytes that a frame does not have meet no test.

Source: pcap-filter(7); RFC 791, 3.1; RFC 826; RFC 8200, 3; RFC 9293, 3.1; IEEE 802.1Q-2022, 9.6.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

Predicate = Callable[[bytes, int], bool]
"""Called with the bytes of a frame, perhaps only its head, and its whole length in bytes."""

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
TAG_TYPES = (0x8100, 0x88A8, 0x9100)
ICMP, TCP, UDP, IPV6_FRAGMENT, ICMP6, SCTP = 1, 6, 17, 44, 58, 132
WITH_PORTS = (TCP, UDP, SCTP)
HEADER_BYTES, TAG_BYTES, IPV6_HEADER_BYTES = 14, 4, 40
FRAGMENT_OFFSET_MASK = 0x1FFF
VLAN_ID_MASK = 0x0FFF

_IPV4_TYPE, _IPV6_TYPE = IPV4.to_bytes(2, "big"), IPV6.to_bytes(2, "big")

RELATIONS: dict[str, Callable[[int, int], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}


def number(frame: bytes, at: int, size: int) -> int:
    """Return the unsigned big-endian number of `size` bytes at an offset, or -1 where the frame ends before it."""
    return int.from_bytes(frame[at : at + size], "big") if len(frame) >= at + size else -1


def everything(frame: bytes, length: int) -> bool:
    """Pass every frame: the empty filter."""
    return True


def ether(frame: bytes, length: int) -> bool:
    """Pass every frame that has a whole Ethernet header."""
    return len(frame) >= HEADER_BYTES


def ethertype(kind: int, shift: int) -> Predicate:
    """Pass frames of an EtherType, behind the tags that were skipped."""
    wanted, at = kind.to_bytes(2, "big"), slice(12 + shift, 14 + shift)
    return lambda frame, length: frame[at] == wanted


def vlan(vlan_id: int | None, shift: int) -> Predicate:
    """Pass frames with a tag there, of that VLAN if one is given."""

    def test(frame: bytes, length: int) -> bool:
        if number(frame, 12 + shift, 2) not in TAG_TYPES:
            return False
        found = number(frame, 14 + shift, 2)
        return found >= 0 and vlan_id in (None, found & VLAN_ID_MASK)

    return test


def no_longer(limit: int) -> Predicate:
    """Pass frames of at most so many bytes."""
    return lambda frame, length: length <= limit


def no_shorter(limit: int) -> Predicate:
    """Pass frames of at least so many bytes."""
    return lambda frame, length: length >= limit


def broadcast(frame: bytes, length: int) -> bool:
    """Pass frames for everybody."""
    return frame[:6] == b"\xff" * 6


def multicast(frame: bytes, length: int) -> bool:
    """Pass frames for a group, everybody included."""
    return bool(frame) and bool(frame[0] & 1)


def any_bytes(value: bytes, offsets: Sequence[int]) -> Predicate:
    """Pass frames that have these bytes at one of the offsets."""
    size = len(value)
    return lambda frame, length: any(frame[at : at + size] == value for at in offsets)


def any_prefix(value: int, mask: int, size: int, offsets: Sequence[int]) -> Predicate:
    """Pass frames with a number of `size` bytes at one of the offsets whose bits under `mask` are those of `value`."""
    return lambda frame, length: any(
        len(frame) >= at + size and int.from_bytes(frame[at : at + size], "big") & mask == value for at in offsets
    )


def both(first: Predicate, second: Predicate) -> Predicate:
    """Pass what both pass."""
    return lambda frame, length: first(frame, length) and second(frame, length)


def either(tests: Sequence[Predicate]) -> Predicate:
    """Pass what any passes."""
    return lambda frame, length: any(test(frame, length) for test in tests)


def negated(test: Predicate) -> Predicate:
    """Pass what `test` does not."""
    return lambda frame, length: not test(frame, length)


def ip_protocol(protocol: int, shift: int) -> Predicate:
    """Pass IPv4 packets of a protocol, fragments too."""
    return both(ethertype(IPV4, shift), _equals(HEADER_BYTES + shift + 9, protocol))


def ip6_protocol(protocol: int, shift: int) -> Predicate:
    """Pass IPv6 packets whose next header is a protocol, directly or behind a fragment header."""
    base = HEADER_BYTES + shift
    fragment = both(_equals(base + 6, IPV6_FRAGMENT), _equals(base + IPV6_HEADER_BYTES, protocol))
    return both(ethertype(IPV6, shift), either((_equals(base + 6, protocol), fragment)))


def transport_at(frame: bytes, shift: int, protocols: Sequence[int]) -> int:
    """Return where the payload of an IPv4 packet of one of the protocols begins; -1: not one, or a later fragment."""
    base = HEADER_BYTES + shift
    if frame[base - 2 : base] != _IPV4_TYPE or len(frame) < base + 20 or frame[base + 9] not in protocols:
        return -1
    later_fragment = number(frame, base + 6, 2) & FRAGMENT_OFFSET_MASK
    return -1 if later_fragment else base + 4 * (frame[base] & 0x0F)


def transport6_at(frame: bytes, shift: int, protocols: Sequence[int]) -> int:
    """Return where the payload of an IPv6 packet of one of the protocols begins, or -1."""
    base = HEADER_BYTES + shift
    if frame[base - 2 : base] != _IPV6_TYPE or len(frame) < base + IPV6_HEADER_BYTES:
        return -1
    return base + IPV6_HEADER_BYTES if frame[base + 6] in protocols else -1


def ports(low: int, high: int, sides: Sequence[int], protocols: Sequence[int], shift: int) -> Predicate:
    """Pass packets with a port from `low` to `high` on one of the sides: 0 is the source's, 2 the destination's."""

    def test(frame: bytes, length: int) -> bool:
        at = transport_at(frame, shift, protocols)
        if at < 0:
            at = transport6_at(frame, shift, protocols)
        return at >= 0 and any(low <= number(frame, at + side, 2) <= high for side in sides)

    return test


def index(start: Callable[[bytes], int], offset: int, size: int, relation: str, value: int) -> Predicate:
    """Pass frames whose number of `size` bytes at `offset` behind `start` stands in a relation to a value.

    `start` returns -1 for a frame that has no such header.
    """
    holds = RELATIONS[relation]

    def test(frame: bytes, length: int) -> bool:
        at = start(frame)
        found = number(frame, at + offset, size) if at >= 0 else -1
        return found >= 0 and holds(found, value)

    return test


def _equals(at: int, value: int) -> Predicate:
    return lambda frame, length: len(frame) > at and frame[at] == value
