"""A forwarding database in flat memory: what `domain.fdb.Fdb` is, and what compiled code reads and writes too.

There is one table: a switch whose frames pass through the plane has this one, and everything that asks it (listings,
traces, the slow path) goes through the methods of `Fdb`, each of which is answered from the flat memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from lamina_vswitch.domain.switch.fdb import Entry, Fdb, Learned
from lamina_vswitch.plane import memory
from lamina_vswitch.plane.compiled import mac_table

SMALLEST = 64
_OUTCOMES = tuple(Learned)
_VLAN_MASK = (1 << mac_table.MAC_SHIFT) - 1
_ADDRESS_MASK = (1 << 48) - 1
_FURTHEST = mac_table.ALWAYS - 1
"""Nanoseconds that a time may be after BASE, or before it."""
_TABLE, _MASK, _SIZE, _LIMIT, _AGEING, _SECRET, _SERIAL, _VERSION, _HEAP, _PLACES, _MOVED, _BEHIND, _BASE, _ASIDE = (
    range(mac_table.HEAD_WORDS)
)


class FlatFdb(Fdb):
    """Entries of one switch, at most `limit`. `head` is the address of the table's head, for compiled code.

    `secret` is a number of 64 bits that strangers do not know; no answer depends on it.
    """

    def __init__(self, ageing_ns: int, limit: int, secret: int) -> None:
        self._words: Any = np.zeros(mac_table.HEAD_WORDS, np.int64)
        self._numbers = memoryview(self._words.data)
        self.head: int = self._words.ctypes.data
        self._numbers[_AGEING], self._numbers[_LIMIT] = ageing_ns, limit
        self._numbers[_BASE] = _FURTHEST
        self._until_ns = 2 * _FURTHEST
        self._numbers[_SECRET] = secret - (1 << 64) if secret >= 1 << 63 else secret
        self._counts: Any = np.zeros(0, np.int64)
        self._heap_rows: Any = np.zeros((0, mac_table.PLACE_WORDS), np.int64)
        self._take(SMALLEST)

    @classmethod
    def of(cls, fdb: Fdb, now_ns: int, secret: int) -> FlatFdb:
        """Return a flat table with the live entries of another one."""
        flat = cls(fdb.ageing_ns, fdb.limit, secret)
        flat.reach(0, now_ns)
        live = sorted(fdb.entries(now_ns), key=lambda found: found[2].serial)
        for vlan, mac, entry in live:
            flat._insert(vlan, mac, entry.port, entry.seen_ns, static=entry.static)
        flat.version, flat.moved_from = fdb.version + 1, fdb.moved_from
        return flat

    # What `Fdb` keeps in attributes

    @property
    def ageing_ns(self) -> int:
        """How long an entry lives, in nanoseconds."""
        return self._numbers[_AGEING]

    @ageing_ns.setter
    def ageing_ns(self, value: int) -> None:
        self._numbers[_AGEING] = value

    @property
    def limit(self) -> int:
        """Most entries."""
        return self._numbers[_LIMIT]

    @limit.setter
    def limit(self, value: int) -> None:
        self._numbers[_LIMIT] = value

    @property
    def version(self) -> int:
        """A number that changes whenever the answer to a lookup may have."""
        return self._numbers[_VERSION]

    @version.setter
    def version(self, value: int) -> None:
        self._numbers[_VERSION] = value

    @property
    def moved_from(self) -> int:
        """The port at which the address that moved last was before."""
        return self._numbers[_MOVED]

    @moved_from.setter
    def moved_from(self, value: int) -> None:
        self._numbers[_MOVED] = value

    # What `Fdb` does

    def lookup(self, vlan: int, mac: bytes, now_ns: int) -> Entry | None:
        """Return the live entry of an address, or None."""
        record = mac_table.find(self.head, _key(vlan, mac))
        if not mac_table.alive(self.head, record, now_ns):
            return None
        place = self._place(record)
        return _entry(self._table[place].tolist(), self._aside[place].tolist(), self._numbers[_BASE])

    def learn(self, vlan: int, mac: bytes, port: int, now_ns: int) -> Learned:
        """Note that `mac` was seen as a source at `port`."""
        self.reach(port, now_ns)
        key = _key(vlan, mac)
        outcome = mac_table.learn_at(self.head, mac_table.find(self.head, key), key, port, now_ns)
        if outcome == mac_table.GROW:
            self.grow()
            return self.learn(vlan, mac, port, now_ns)
        return _OUTCOMES[outcome]

    def known_route(self, vlan: int, dst: bytes, src: bytes, port: int, now_ns: int) -> int:
        """Return the port of `dst` if both addresses are known and nothing about them is news, else 0."""
        self.reach(port, now_ns)
        return int(mac_table.route(self.head, _key(vlan, src), _key(vlan, dst), port, now_ns))

    def remove(self, vlan: int, mac: bytes) -> bool:
        """Forget one entry. Return whether there was one."""
        record = mac_table.find(self.head, _key(vlan, mac))
        if not self._table[self._place(record), 0]:
            return False
        mac_table.remove(self.head, record)
        return True

    def flush(
        self, now_ns: int, *, vlans: Collection[int] | None = None, port: int | None = None, static: bool = False
    ) -> int:
        """Forget the dynamic entries (and, when asked, the static ones) of VLANs, a port, or all. Return how many."""
        if port is not None and not static and not self.behind(port, now_ns):
            return 0
        self.count(now_ns)
        rows = self._table[self._table[:, 0] != 0]
        chosen = np.ones(len(rows), np.bool_)
        if vlans is not None:
            chosen &= np.isin(rows[:, 0] & _VLAN_MASK, list(vlans))
        if port is not None:
            chosen &= _ports(rows) == port
        if not static:
            chosen &= rows[:, 1] >> mac_table.TIME_SHIFT != mac_table.ALWAYS
        doomed = (rows[chosen, 0] & mac_table.KEY_MASK).tolist()
        for key in doomed:
            mac_table.remove(self.head, mac_table.find(self.head, key))
        mac_table.pack(self.head)
        return len(doomed)

    def count(self, now_ns: int) -> int:
        """Return how many entries are alive, taking back the places of the dead."""
        return int(mac_table.count(self.head, now_ns))

    def entries(self, now_ns: int) -> Iterator[tuple[int, bytes, Entry]]:
        """Yield (vlan, mac, entry) of all live entries, ordered by VLAN, then by address."""
        places = np.flatnonzero(self._table[:, 0])
        times, base = self._table[places, 1] >> mac_table.TIME_SHIFT, self._numbers[_BASE]
        places = places[(times == mac_table.ALWAYS) | (now_ns - base - times < self.ageing_ns)]
        vlans, addresses = _parts(self._table[places, 0])
        order = np.argsort(vlans << 48 | addresses)
        rows, aside = self._table[places[order]], self._aside[places[order]]
        times = rows[:, 1] >> mac_table.TIME_SHIFT
        static = times == mac_table.ALWAYS
        seen = np.where(static, aside[:, 1], times + base)
        columns = (vlans[order], addresses[order], _ports(rows), seen, static, aside[:, 0])
        for vlan, address, *entry in zip(*(column.tolist() for column in columns), strict=True):
            yield vlan, address.to_bytes(6, "big"), Entry(*entry)

    def behind(self, port: int, now_ns: int) -> int:
        """Return how many live dynamic entries name a port."""
        self.count(now_ns)
        return int(self._counts[port]) if port < len(self._counts) else 0

    def vlans(self) -> list[int]:
        """Return the VLANs that have entries, dead ones perhaps, in ascending order."""
        keys = self._table[:, 0]
        return [int(vlan) for vlan in np.unique(keys[keys != 0] & _VLAN_MASK)]

    def reach(self, port: int, now_ns: int) -> None:
        """Make room to count behind ports up to this one, and for times up to now."""
        if now_ns > self._until_ns:
            self._rebase(now_ns)
        if port >= len(self._counts):
            counts: Any = np.zeros(max(64, 2 * port), np.int64)
            counts[: len(self._counts)] = self._counts
            self._counts = counts
            self._numbers[_BEHIND] = counts.ctypes.data

    def grow(self) -> None:
        """Double the table."""
        self._take(2 * len(self._table))

    # What its other methods are made of

    def _insert(self, vlan: int, mac: bytes, port: int, now_ns: int, *, static: bool) -> None:
        self.reach(port, now_ns)
        if mac_table.insert(self.head, _key(vlan, mac), port, now_ns, static) == mac_table.GROW:
            self.grow()
            self._insert(vlan, mac, port, now_ns, static=static)

    def _rebase(self, now_ns: int) -> None:
        """Forget the dead, and count times from another one: the oldest that can be of interest is as far as goes."""
        self.count(now_ns)
        base = now_ns - self.ageing_ns + _FURTHEST
        mac_table.rebase(self.head, base)
        self._until_ns = base + _FURTHEST

    def _take(self, places: int) -> None:
        """Move everything into a table of that many places, and a heap that is large enough for it."""
        table: Any = memory.words(places, mac_table.RECORD_WORDS)
        aside: Any = memory.words(places, mac_table.ASIDE_WORDS)
        heap: Any = memory.words(2 * places // mac_table.EMPTIEST + 128, mac_table.PLACE_WORDS)
        used = self._numbers[_PLACES]
        if used:
            heap[:used] = self._heap_rows[:used]
        if self._numbers[_TABLE]:
            mac_table.rehash(self.head, table.ctypes.data, aside.ctypes.data, places - 1)
        self._numbers[_TABLE], self._numbers[_MASK] = table.ctypes.data, places - 1
        self._numbers[_ASIDE], self._numbers[_HEAP] = aside.ctypes.data, heap.ctypes.data
        self._table, self._aside, self._heap_rows = table, aside, heap

    def _place(self, record: int) -> int:
        """Return the number of the place of a record."""
        return (record - self._numbers[_TABLE]) >> mac_table.RECORD_SHIFT


def _key(vlan: int, mac: bytes) -> int:
    return int.from_bytes(mac, "little") << mac_table.MAC_SHIFT | vlan | mac_table.OCCUPIED


def _parts(keys: Any) -> tuple[Any, Any]:
    """Return VLANs and addresses, as big-endian numbers, of first halves of records."""
    return keys & _VLAN_MASK, ((keys >> mac_table.MAC_SHIFT & _ADDRESS_MASK) << 16).byteswap()


def _entry(row: list[int], aside: list[int], base: int) -> Entry:
    """Return the entry that a record and what is aside of it tell; `base` is the time from which records count."""
    port = row[1] & mac_table.PORT_MASK | row[0] >> mac_table.UPPER_SHIFT & mac_table.UPPER_MASK
    time = row[1] >> mac_table.TIME_SHIFT
    if time == mac_table.ALWAYS:
        return Entry(port, aside[1], True, aside[0])
    return Entry(port, base + time, False, aside[0])


def _ports(rows: Any) -> Any:
    """Return the slots of the ports of records."""
    return rows[..., 1] & mac_table.PORT_MASK | rows[..., 0] >> mac_table.UPPER_SHIFT & mac_table.UPPER_MASK
