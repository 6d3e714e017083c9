"""The forwarding database: learning, ageing without work, limit, static entries."""

from __future__ import annotations

from itertools import pairwise

from lamina_vswitch.domain.switch.fdb import Fdb, Learned

A = bytes.fromhex("020000000001")
B = bytes.fromhex("020000000002")
C = bytes.fromhex("020000000003")


def macs(fdb: Fdb, now_ns: int) -> list[bytes]:
    """Return the live addresses."""
    return [mac for _, mac, _ in fdb.entries(now_ns)]


def test_an_entry_lives_exactly_its_ageing_time() -> None:
    """An address is known until the nanosecond at which its age reaches the limit."""
    fdb = Fdb(ageing_ns=100, limit=4)
    assert fdb.learn(1, A, 7, 1000) is Learned.NEW
    assert fdb.lookup(1, A, 1099) is not None
    assert fdb.lookup(1, A, 1100) is None


def test_seeing_an_address_makes_it_young() -> None:
    """Refreshing an entry starts its age anew."""
    fdb = Fdb(ageing_ns=100, limit=4)
    fdb.learn(1, A, 7, 0)
    assert fdb.learn(1, A, 7, 90) is Learned.REFRESHED
    assert fdb.lookup(1, A, 189) is not None
    assert fdb.count(189) == 1
    assert fdb.count(190) == 0


def test_an_aged_address_is_new_again() -> None:
    """A dead entry is not moved, it is learned."""
    fdb = Fdb(ageing_ns=100, limit=4)
    fdb.learn(1, A, 7, 0)
    assert fdb.learn(1, A, 8, 100) is Learned.NEW
    entry = fdb.lookup(1, A, 100)
    assert entry is not None and entry.port == 8


def test_an_address_moves() -> None:
    """A live address that is seen at another port moves there."""
    fdb = Fdb(ageing_ns=100, limit=4)
    fdb.learn(1, A, 7, 0)
    assert fdb.would_learn(1, A, 8, 1) is Learned.MOVED
    assert fdb.learn(1, A, 8, 1) is Learned.MOVED
    entry = fdb.lookup(1, A, 1)
    assert entry is not None and entry.port == 8


def test_vlans_learn_separately() -> None:
    """The same address in two VLANs is two entries."""
    fdb = Fdb(ageing_ns=100, limit=4)
    fdb.learn(1, A, 7, 0)
    fdb.learn(2, A, 8, 0)
    assert [(vlan, entry.port) for vlan, _, entry in fdb.entries(0)] == [(1, 7), (2, 8)]


def test_a_full_table_learns_nothing_until_something_dies() -> None:
    """The limit holds; the place of an entry that aged is taken back at once."""
    fdb = Fdb(ageing_ns=100, limit=2)
    fdb.learn(1, A, 7, 0)
    fdb.learn(1, B, 7, 50)
    assert fdb.would_learn(1, C, 7, 99) is Learned.FULL
    assert fdb.learn(1, C, 7, 99) is Learned.FULL
    assert macs(fdb, 99) == [A, B]
    assert fdb.learn(1, C, 7, 100) is Learned.NEW
    assert macs(fdb, 100) == [B, C]


def test_a_refreshed_entry_keeps_its_place_in_a_full_table() -> None:
    """The heap's old time for an entry that was seen since does not cost it its place."""
    fdb = Fdb(ageing_ns=100, limit=1)
    fdb.learn(1, A, 7, 0)
    fdb.learn(1, A, 7, 90)
    assert fdb.learn(1, B, 7, 150) is Learned.FULL
    assert fdb.learn(1, B, 7, 190) is Learned.NEW


def test_static_entries_neither_age_nor_move() -> None:
    """Traffic cannot change what a user fixed."""
    fdb = Fdb(ageing_ns=100, limit=4)
    assert fdb.add_static(1, A, 7, 0)
    assert fdb.learn(1, A, 8, 10**12) is Learned.STATIC_ELSEWHERE
    assert fdb.learn(1, A, 7, 10**12) is Learned.STATIC
    entry = fdb.lookup(1, A, 10**12)
    assert entry is not None and entry.port == 7 and entry.static


def test_a_static_entry_replaces_a_dynamic_one_even_in_a_full_table() -> None:
    """Fixing an address that is known needs no further place."""
    fdb = Fdb(ageing_ns=100, limit=1)
    fdb.learn(1, A, 7, 0)
    assert fdb.add_static(1, A, 8, 0)
    assert not fdb.add_static(1, B, 8, 0)
    assert fdb.count(10**12) == 1


def test_flushing_spares_static_entries_and_other_vlans_and_ports() -> None:
    """A flush forgets what it was asked to, and says how much was alive."""
    fdb = Fdb(ageing_ns=100, limit=9)
    fdb.learn(1, A, 7, 0)
    fdb.learn(1, B, 8, 50)
    fdb.learn(2, A, 7, 50)
    fdb.add_static(1, C, 7, 50)
    assert fdb.flush(120, vlans=[1]) == 1
    assert macs(fdb, 120) == [C, A]
    assert fdb.flush(120, port=7) == 1
    assert fdb.flush(120, port=7, static=True) == 1
    assert fdb.count(120) == 0


def test_memory_stays_bounded_when_entries_are_made_and_removed_for_ever() -> None:
    """The heap does not keep a place for every entry that ever was."""
    fdb = Fdb(ageing_ns=10**12, limit=8)
    for turn in range(5000):
        fdb.learn(1, A, 7, turn)
        fdb.remove(1, A)
    assert fdb.count(5000) == 0
    assert len(fdb._heap) <= 66


def test_the_version_changes_when_an_answer_does() -> None:
    """Whoever caches lookups sees a new entry, a move and a removal, and not a refresh."""
    fdb = Fdb(ageing_ns=100, limit=4)
    versions = [fdb.version]
    for act in (
        lambda: fdb.learn(1, A, 7, 0),
        lambda: fdb.learn(1, A, 7, 1),
        lambda: fdb.learn(1, A, 8, 2),
        lambda: fdb.remove(1, A),
    ):
        act()
        versions.append(fdb.version)
    changes = [after != before for before, after in pairwise(versions)]
    assert changes == [True, False, True, True]


def test_entries_are_counted_by_their_port() -> None:
    """Dynamic entries that age, move, are flushed, become static or are evicted leave the count of their port."""
    fdb = Fdb(10, 8)
    for number in range(4):
        fdb.learn(number % 2, bytes([2, 0, 0, 0, 0, number]), 1, number)
    assert (fdb.behind(1, 5), fdb.behind(2, 5), fdb.vlans()) == (4, 0, [0, 1])
    fdb.learn(0, bytes(5) + b"\x02", 2, 6)
    fdb.learn(0, bytes([2, 0, 0, 0, 0, 0]), 2, 6)
    assert (fdb.behind(1, 6), fdb.behind(2, 6)) == (3, 2)
    fdb.add_static(1, bytes([2, 0, 0, 0, 0, 1]), 1, 6)
    assert fdb.behind(1, 6) == 2
    assert (fdb.behind(1, 12), fdb.behind(2, 12)) == (1, 2)
    fdb.flush(12, port=2)
    assert (fdb.behind(1, 12), fdb.behind(2, 12), fdb.count(12)) == (1, 0, 2)


def test_a_lower_limit_keeps_those_seen_last() -> None:
    """Entries above a new limit go, those seen longest ago first; static ones stay, or the limit is refused."""
    fdb = Fdb(ageing_ns=100, limit=4)
    for seen, mac in enumerate((A, B, C)):
        fdb.learn(1, mac, 7, seen)
    fdb.learn(1, A, 7, 50)
    assert fdb.add_static(2, A, 7, 50)
    assert fdb.resize(100, 2, 60)
    assert [(vlan, mac) for vlan, mac, _ in fdb.entries(60)] == [(1, A), (2, A)]
    assert not fdb.resize(50, 0, 60)
    assert (fdb.ageing_ns, fdb.limit) == (100, 2)


def test_a_longer_ageing_time_brings_nobody_back() -> None:
    """What was dead stays dead, and what lives counts by the new time."""
    fdb = Fdb(ageing_ns=100, limit=4)
    fdb.learn(1, A, 7, 0)
    fdb.learn(1, B, 7, 50)
    assert fdb.resize(1000, 4, 120)
    assert macs(fdb, 120) == [B] == macs(fdb, 1049)
    assert fdb.resize(10, 1, 130)
    assert fdb.count(130) == 0
