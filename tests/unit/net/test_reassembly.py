"""Reassembly: datagrams that come in parts, and those that never become whole."""

from __future__ import annotations

import pytest

from lamina_net.ip.reassembly import LIFETIME_NS, MAX_FRAGMENTS, Reassembly
from lamina_net.packets import ipv4
from lamina_net.packets.ipv4 import Packet
from lamina_net.packets.refusal import Refusal
from lamina_net.rate_limiter import RateLimiter

WHOLE = Packet(1, 2, ipv4.UDP, bytes(range(200)), identification=7, options=b"\x94\x04\x00\x00")


def parts(packet: Packet = WHOLE, mtu: int = 68) -> list[Packet]:
    """Return a packet in fragments."""
    found = ipv4.fragment(packet, mtu)
    assert isinstance(found, list)
    return found


def piece(start: int, end: int, more: bool = True, identification: int = 1, src: int = 1) -> Packet:
    """Return a fragment with the bytes from `start` to `end`."""
    return Packet(src, 2, ipv4.UDP, bytes(end - start), identification=identification, more=more, offset=start)


@pytest.mark.parametrize("order", [1, -1])
def test_parts_become_the_packet(order: int) -> None:
    """In whatever order they come, the last one that was missing gives the packet."""
    table = Reassembly()
    *others, last = parts()[::order]
    assert [table.add(part, 0) for part in others] == [None] * len(others)
    assert table.add(last, 0) == WHOLE
    assert (len(table), table.held_bytes, table.next_wakeup_ns) == (0, 0, None)


def test_a_repeated_part_does_not_matter() -> None:
    """The same fragment twice is left out once."""
    table = Reassembly()
    first, *others = parts()
    assert table.add(first, 0) is None
    assert [table.add(part, 0) for part in [first, *others]][-1] == WHOLE


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (piece(0, 16), piece(8, 24)),
        (piece(8, 24), piece(0, 16)),
        (piece(0, 24), piece(8, 16)),
        (piece(8, 16), piece(0, 24)),
        (piece(8, 16), piece(8, 24)),
        (piece(8, 16, more=False), piece(16, 24)),
        (piece(8, 16, more=False), piece(24, 32, more=False)),
        (piece(16, 24), piece(0, 8, more=False)),
    ],
)
def test_overlaps_give_the_datagram_up(first: Packet, second: Packet) -> None:
    """Bytes that come twice, or beyond the end, drop the datagram with all that still comes of it."""
    table = Reassembly()
    assert table.add(first, 0) is None
    assert table.add(second, 0) is Refusal.OVERLAP
    assert table.add(piece(0, 8), 0) is Refusal.OVERLAP
    assert table.held_bytes == 0


def test_datagrams_are_kept_apart() -> None:
    """Source, destination, protocol and identification tell whose a fragment is."""
    table = Reassembly()
    first, second = parts()[0], parts()[1]
    table.add(first, 0)
    table.add(second._replace(src=9), 0)
    table.add(second._replace(dst=9), 0)
    table.add(second._replace(protocol=9), 0)
    table.add(second._replace(identification=9), 0)
    assert len(table) == 5


def test_a_datagram_waits_30_seconds_from_its_first_fragment() -> None:
    """Later fragments do not prolong it; who got the first part is told, who did not is not."""
    table = Reassembly()
    table.add(piece(0, 8), 0)
    table.add(piece(8, 16, identification=2), 1)
    table.add(piece(8, 16), LIFETIME_NS - 1)
    assert table.next_wakeup_ns == LIFETIME_NS
    assert table.expired(LIFETIME_NS - 1) == []
    assert table.expired(LIFETIME_NS) == [piece(0, 8)]
    assert table.expired(LIFETIME_NS + 1) == []
    assert len(table) == 0


def test_what_ended_is_not_joined() -> None:
    """A last part that comes too late begins a new datagram."""
    table = Reassembly()
    *others, last = parts()
    for part in others:
        table.add(part, 0)
    assert table.add(last, LIFETIME_NS) is None
    assert len(table) == 1


def test_the_oldest_makes_room() -> None:
    """Of 64 datagrams of one source the oldest goes for a 65th; another source's stays."""
    table = Reassembly(limit=100, limit_per_source=64)
    table.add(piece(0, 8, src=9), 0)
    for n in range(65):
        table.add(piece(0, 8, identification=n), n)
    assert len(table) == 65
    assert table.add(piece(8, 16, more=False, identification=0), 99) is None
    assert isinstance(table.add(piece(8, 16, more=False, src=9), 99), Packet)
    assert isinstance(table.add(piece(8, 16, more=False, identification=64), 99), Packet)


def test_a_flood_of_fragments_is_bounded() -> None:
    """100,000 datagrams that never become whole hold 64 places and no more than the bytes that are allowed."""
    table = Reassembly(max_bytes=10_000)
    for n in range(100_000):
        table.add(piece(0, 1480, identification=n & 0xFFFF, src=n >> 4), n)
        assert table.held_bytes <= 10_000
    assert len(table) <= 64


def test_one_datagram_has_so_many_fragments() -> None:
    """Fragments of eight bytes fill no more than the bound of one datagram."""
    table = Reassembly()
    results = [table.add(piece(n * 16, n * 16 + 8), 0) for n in range(MAX_FRAGMENTS + 1)]
    assert results[-2:] == [None, Refusal.FRAGMENT]


def test_congestion_that_a_part_met_is_the_packets() -> None:
    """CE of one fragment marks the whole (RFC 3168, 5.3)."""
    first, *others = parts(WHOLE._replace(tos=0x02))
    table = Reassembly()
    table.add(first, 0)
    *_, whole = [table.add(part._replace(tos=0x03), 0) for part in others]
    assert whole == WHOLE._replace(tos=0x03)


def test_a_packet_is_no_longer_than_its_length_can_say() -> None:
    """Options of the first fragment may make the whole too long; then there is none."""
    table = Reassembly()
    table.add(piece(0, 65472)._replace(options=bytes(40)), 0)
    assert table.add(piece(65472, 65515, more=False), 0) is Refusal.FRAGMENT


def test_a_rate_has_a_burst_and_a_long_run() -> None:
    """Ten at once, then one each 10 ms, however long nobody asked."""
    limiter = RateLimiter(100, burst=10)
    assert [limiter.take(10**12) for _ in range(11)] == [True] * 10 + [False]
    assert not limiter.take(10**12 + 9_999_999)
    assert limiter.take(10**12 + 10_000_000)
    assert sum(limiter.take(10**13 + n * 1_000_000) for n in range(1000)) == 10 + 99
