"""The flat MAC table against the one of Python: the same calls, the same answers."""

from __future__ import annotations

from types import FunctionType

import pytest

from lamina_kit.rng import Rng
from lamina_vswitch.domain.switch.fdb import Fdb, Learned
from lamina_vswitch.plane.compiled import mac_table
from lamina_vswitch.plane.flat_fdb import SMALLEST, FlatFdb

AGEING = 100
STORAGE = {"_vlans", "_size", "_behind", "_serial", "_heap"}


def mac(number: int) -> bytes:
    """Return the address of station `number`."""
    return b"\x02\x00" + number.to_bytes(4, "big")


class Tables:
    """Both tables, and calls that are made to both."""

    def __init__(self, rng: Rng, stations: int, limit: int, leap: int = AGEING) -> None:
        self.rng, self.stations, self.now, self.leap = rng, stations, 0, leap
        self.flat, self.plain = FlatFdb(AGEING, limit, rng.randrange(1 << 64)), Fdb(AGEING, limit)

    def step(self) -> None:
        """Make one call, and compare what it returns."""
        vlan, address = (1, 2, 4094)[self.rng.randrange(3)], mac(self.rng.randrange(self.stations))
        port, kind, other = 1 + self.rng.randrange(90), self.rng.randrange(40), mac(self.rng.randrange(self.stations))
        port = port if port % 9 else 728 * port  # slots of up to 65536, of which a record keeps parts in two places
        self.now += self.rng.randrange(4) if self.rng.randrange(500) else (AGEING, self.leap)[self.rng.randrange(2)]
        wide, limit = (None, (vlan,), (vlan, 1, 2))[self.rng.randrange(3)], 1 + self.rng.randrange(2 * self.stations)
        answers: list[object] = []
        for fdb in (self.flat, self.plain):
            if kind < 26:
                answers.append(
                    (fdb.would_learn(vlan, address, port, self.now), fdb.learn(vlan, address, port, self.now))
                )
                answers[-1] = (answers[-1], fdb.moved_from)
            elif kind < 30:
                answers.append(fdb.known_route(vlan, address, other, port, self.now))
            elif kind < 33:
                answers.append(fdb.remove(vlan, address))
            elif kind < 35:
                answers.append(fdb.add_static(vlan, address, port, self.now))
            elif kind < 37:
                answers.append(fdb.flush(self.now, vlans=wide, port=port, static=port > 60))
            elif kind < 38:
                answers.append(fdb.behind(port, self.now))
            elif kind < 39:
                answers.append((fdb.count(self.now), fdb.vlans()))
            else:
                answers.append(fdb.resize(AGEING, limit, self.now))
        assert answers[0] == answers[1]

    def listings(self) -> list[list[tuple[int, bytes, int, int, bool]]]:
        """Return what both list."""
        return [
            [(vlan, address, entry.port, entry.seen_ns, entry.static) for vlan, address, entry in fdb.entries(self.now)]
            for fdb in (self.flat, self.plain)
        ]


@pytest.mark.parametrize("stations", [3, 40, 600])
def test_both_tables_answer_alike(stations: int) -> None:
    """Learning, ageing, moving, limits, static entries, flushes and new limits are the same, call by call."""
    for seed in range(6):
        leap = AGEING if seed % 2 else 1 << 48
        tables = Tables(Rng(f"fdb/{stations}/{seed}"), stations, 1 + seed * stations // 2, leap)
        for _ in range(12):
            for _ in range(40):
                tables.step()
            flat, plain = tables.listings()
            assert flat == plain


def test_a_table_is_taken_over_with_its_ages() -> None:
    """What was learned before the plane came ages on, static entries stay, and the version says that it is another."""
    plain = Fdb(AGEING, 4)
    plain.learn(1, mac(1), 7, 0)
    plain.learn(1, mac(2), 8, 30)
    plain.add_static(2, mac(3), 9, 30)
    flat = FlatFdb.of(plain, 40, 1)
    assert [entry for *_, entry in flat.entries(40)] == [entry for *_, entry in plain.entries(40)]
    assert (flat.limit, flat.ageing_ns) == (4, AGEING) and flat.version > plain.version
    assert [flat.count(now) for now in (99, 100, 130)] == [3, 2, 1]


def test_a_table_grows_and_keeps_everything() -> None:
    """A hundred thousand addresses fit, each behind its port; then the limit holds."""
    flat = FlatFdb(AGEING, 100_000, 99)
    assert {flat.learn(1, mac(number), number % 50, 0) for number in range(100_000)} == {Learned.NEW}
    assert flat.learn(1, mac(100_000), 1, 0) is Learned.FULL
    assert all(flat.lookup(1, mac(number), 1) is not None for number in range(0, 100_000, 997))
    assert flat.behind(7, 0) == 2000
    assert flat.count(AGEING) == 0


@pytest.mark.parametrize("start", [0, 1_795_000_000 * 10**9])
def test_ages_are_exact_for_months(start: int) -> None:
    """Times are kept in 50 bits: over months, entries of the longest life there is die to the nanosecond."""
    ageing = 1_000_000 * 10**9
    flat, plain = FlatFdb(ageing, 100, 7), Fdb(ageing, 100)
    rng, now = Rng("months"), start
    for fdb in (flat, plain):
        fdb.add_static(1, mac(99), 65536, now)
    for turn in range(600):
        now += rng.randrange(4 * 10**14) if turn % 7 else rng.randrange(3)
        for fdb in (flat, plain):
            fdb.learn(1, mac(turn % 8), 1 + turn % 3, now)
        assert [*flat.entries(now)] == [*plain.entries(now)]
        for _, address, entry in [*plain.entries(now)]:
            last = entry.seen_ns + ageing - 1
            assert flat.lookup(1, address, last) == entry
            assert entry.static or flat.lookup(1, address, last + 1) is None
    assert flat.count(now) == plain.count(now)
    assert now - start > 8 * ageing


@pytest.mark.parametrize("key", [0, (1 << 48) - 1])
def test_the_least_and_the_greatest_address_are_entries(key: int) -> None:
    """No address and no VLAN looks like a free place, or like part of a port."""
    address = key.to_bytes(6, "big")
    flat = FlatFdb(AGEING, 8, 3)
    for vlan in (0, 1, 4095):
        assert flat.add_static(vlan, address, 65536, 5)
    assert [found[:2] for found in flat.entries(10**15)] == [(vlan, address) for vlan in (0, 1, 4095)]
    assert {(entry.port, entry.seen_ns) for *_, entry in flat.entries(10**15)} == {(65536, 5)}
    assert flat.learn(0, address, 65536, 10**15) is Learned.STATIC
    assert flat.learn(0, address, 1, 10**15) is Learned.STATIC_ELSEWHERE
    assert flat.vlans() == [0, 1, 4095]


def test_the_heap_stays_bounded() -> None:
    """Entries that are made and removed for ever leave no places behind."""
    flat = FlatFdb(10**12, 8, 5)
    for turn in range(5000):
        flat.learn(1, mac(turn % 3), 7, turn)
        flat.remove(1, mac(turn % 3))
    assert flat._numbers[mac_table.PLACES >> 3] <= SMALLEST + 66


def test_a_flood_of_addresses_takes_no_more_than_the_limit_needs() -> None:
    """Also while entries age: a table grows by what is alive, at most half of its places."""
    flat = FlatFdb(AGEING, 100, 5)
    for turn in range(4000):
        flat.learn(turn % 4094, mac(turn), 1, turn // 9)
    assert len(flat._table) == 256 and flat.count(4000 // 9) == 100


def test_every_method_that_touches_the_storage_has_a_flat_form() -> None:
    """A method that `Fdb` gains is answered from flat memory too."""
    public = {name: what for name, what in vars(Fdb).items() if not name.startswith("_")}
    touching = {
        name for name, what in public.items() if isinstance(what, FunctionType) and STORAGE & {*what.__code__.co_names}
    }
    assert {"lookup", "learn", "behind"} & touching
    assert touching <= vars(FlatFdb).keys()
