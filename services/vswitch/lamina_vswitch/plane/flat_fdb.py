"""A forwarding database in flat memory: what `domain.fdb.Fdb` is, and what compiled code reads and writes too.

There is one table: a switch whose frames pass through the plane has this one, and everything that asks it (listings,
traces, the slow path) goes through the methods of `Fdb`, each of which is answered from the flat memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lamina_vswitch.domain.fdb import Entry, Fdb, Learned
from lamina_vswitch.plane import macs, memory

SMALLEST = 64
_OUTCOMES = tuple(Learned)
_VLAN_MASK = (1 << macs.MAC_SHIFT) - 1
_TABLE, _MASK, _SIZE, _LIMIT, _AGEING, _SECRET, _SERIAL, _VERSION, _HEAP, _PLACES, _MOVED, _BEHIND = range(
    macs.HEAD_WORDS
)


class FlatFdb(Fdb):
    """Entries of one switch, at most `limit`. `head` is the address of the table's head, for compiled code.

    `secret` is a number of 64 bits that strangers do not know; no answer depends on it.
    """

    def __init__(self, ageing_ns: int, limit: int, secret: int) -> None:
        self._words: Any = np.zeros(macs.HEAD_WORDS, np.int64)
        self._numbers = memoryview(self._words.data)
        self.head: int = self._words.ctypes.data
        self._numbers[_AGEING], self._numbers[_LIMIT] = ageing_ns, limit
        self._numbers[_SECRET] = secret - (1 << 64) if secret >= 1 << 63 else secret
        self._counts: Any = np.zeros(0, np.int64)
        self._heap_rows: Any = np.zeros((0, macs.PLACE_WORDS), np.int64)
        self._take(SMALLEST)

    @classmethod
    def of(cls, fdb: Fdb, now_ns: int, secret: int) -> FlatFdb:
        """Return a flat table with the live entries of another one."""
        flat = cls(fdb.ageing_ns, fdb.limit, secret)
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
        record = macs.find(self.head, _key(vlan, mac))
        return self._entry(record) if macs.alive(self.head, record, now_ns) else None

    def learn(self, vlan: int, mac: bytes, port: int, now_ns: int) -> Learned:
        """Note that `mac` was seen as a source at `port`."""
        self.reach(port)
        key = _key(vlan, mac)
        outcome = macs.learn_at(self.head, macs.find(self.head, key), key, port, now_ns)
        if outcome == macs.GROW:
            self.grow()
            return self.learn(vlan, mac, port, now_ns)
        return _OUTCOMES[outcome]

    def known_route(self, vlan: int, dst: bytes, src: bytes, port: int, now_ns: int) -> int:
        """Return the port of `dst` if both addresses are known and nothing about them is news, else 0."""
        return int(macs.route(self.head, _key(vlan, src), _key(vlan, dst), port, now_ns))

    def remove(self, vlan: int, mac: bytes) -> bool:
        """Forget one entry. Return whether there was one."""
        record = macs.find(self.head, _key(vlan, mac))
        if not self._record(record)[0]:
            return False
        macs.remove(self.head, record)
        return True

    def flush(self, now_ns: int, *, vlan: int | None = None, port: int | None = None, static: bool = False) -> int:
        """Forget the dynamic entries (and, when asked, the static ones) of a VLAN, a port, or all. Return how many."""
        self.count(now_ns)
        rows = self._table[self._table[:, 0] != 0]
        chosen = np.ones(len(rows), np.bool_)
        if vlan is not None:
            chosen &= (rows[:, 0] & _VLAN_MASK) == vlan
        if port is not None:
            chosen &= (rows[:, 2] & macs.SLOT_MASK) == port
        if not static:
            chosen &= (rows[:, 2] & macs.STATIC_BIT) == 0
        doomed = rows[chosen, 0].tolist()
        for key in doomed:
            macs.remove(self.head, macs.find(self.head, key))
        macs.pack(self.head)
        return len(doomed)

    def count(self, now_ns: int) -> int:
        """Return how many entries are alive, taking back the places of the dead."""
        return int(macs.count(self.head, now_ns))

    def entries(self, now_ns: int) -> Iterator[tuple[int, bytes, Entry]]:
        """Yield (vlan, mac, entry) of all live entries, ordered by VLAN, then by address."""
        rows = self._table[self._table[:, 0] != 0].tolist()
        found = [(*_parts(row[0]), Entry(*_values(row))) for row in rows]
        found.sort(key=lambda one: one[:2])
        for vlan, mac, entry in found:
            if self._alive(entry, now_ns):
                yield vlan, mac, entry

    def behind(self, port: int, now_ns: int) -> int:
        """Return how many live dynamic entries name a port."""
        self.count(now_ns)
        return int(self._counts[port]) if port < len(self._counts) else 0

    def vlans(self) -> list[int]:
        """Return the VLANs that have entries, dead ones perhaps, in ascending order."""
        keys = self._table[:, 0]
        return [int(vlan) for vlan in np.unique(keys[keys != 0] & _VLAN_MASK)]

    def reach(self, port: int) -> None:
        """Make room to count behind ports up to this one."""
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
        self.reach(port)
        slot = port | macs.STATIC_BIT if static else port
        if macs.insert(self.head, _key(vlan, mac), slot, now_ns) == macs.GROW:
            self.grow()
            self._insert(vlan, mac, port, now_ns, static=static)

    def _take(self, places: int) -> None:
        """Move everything into a table of that many places, and a heap that is large enough for it."""
        table: Any = memory.words(places, macs.RECORD_WORDS)
        heap: Any = memory.words(2 * places // macs.EMPTIEST + 128, macs.PLACE_WORDS)
        used = self._numbers[_PLACES]
        if used:
            heap[:used] = self._heap_rows[:used]
        if self._numbers[_TABLE]:
            macs.rehash(self.head, table.ctypes.data, places - 1)
        self._numbers[_TABLE], self._numbers[_MASK] = table.ctypes.data, places - 1
        self._numbers[_HEAP] = heap.ctypes.data
        self._table, self._heap_rows = table, heap

    def _record(self, address: int) -> list[int]:
        """Return the words of the record at an address."""
        row: list[int] = self._table[(address - self._numbers[_TABLE]) >> macs.RECORD_SHIFT].tolist()
        return row

    def _entry(self, address: int) -> Entry:
        return Entry(*_values(self._record(address)))


def _key(vlan: int, mac: bytes) -> int:
    return int.from_bytes(mac, "little") << macs.MAC_SHIFT | vlan | macs.OCCUPIED


def _parts(key: int) -> tuple[int, bytes]:
    """Return VLAN and address of a key."""
    return key & _VLAN_MASK, ((key & ~macs.OCCUPIED) >> macs.MAC_SHIFT).to_bytes(6, "little")


def _values(row: list[int]) -> tuple[int, int, bool, int]:
    """Return port, time, whether static, and serial number of a record."""
    return row[2] & macs.SLOT_MASK, row[1], bool(row[2] & macs.STATIC_BIT), row[3]
