"""The forwarding database (fdb): which address is behind which port, in which VLAN, since when.

Ageing is closed-form. An entry is alive while `now - seen < ageing`; nothing runs when it dies. A dead entry answers as
if it were not there, and its place is taken back when a new address needs one: a heap holds, for every dynamic entry, a
time at which it was last known to be alive. That time is never later than the true one, so when the top of the heap is
alive, everything is. Refreshing an entry does not touch the heap, which keeps the common case at one store; an entry
that turns out younger than its place in the heap is put back once per ageing period.

Source: IEEE 802.1Q-2022, 8.8; Linux net/bridge/br_fdb.c (an entry expires at `updated + ageing <= now`).
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass


class Learned(enum.Enum):
    """What came of learning one source address."""

    NEW = "new"
    REFRESHED = "refreshed"
    MOVED = "moved"
    FULL = "full"
    STATIC = "static"
    STATIC_ELSEWHERE = "static_elsewhere"


@dataclass(slots=True)
class Entry:
    """One entry: port slot, time last seen in nanoseconds, whether it is static, serial number of its making."""

    port: int
    seen_ns: int
    static: bool
    serial: int


class Fdb:
    """Entries of one switch, at most `limit`, static ones included.

    `version` changes whenever the answer to a lookup may have changed for another reason than the passing of time.
    `moved_from` is the port at which the address that moved last was before.
    """

    def __init__(self, ageing_ns: int, limit: int) -> None:
        self.ageing_ns = ageing_ns
        self.limit = limit
        self.version = 0
        self.moved_from = 0
        self._vlans: dict[int, dict[bytes, Entry]] = {}
        self._size = 0
        self._behind: dict[int, int] = {}
        self._serial = 0
        self._heap: list[tuple[int, int, int, bytes]] = []

    def lookup(self, vlan: int, mac: bytes, now_ns: int) -> Entry | None:
        """Return the live entry of an address, or None."""
        table = self._vlans.get(vlan)
        entry = table.get(mac) if table is not None else None
        return entry if entry is not None and self._alive(entry, now_ns) else None

    def would_learn(self, vlan: int, mac: bytes, port: int, now_ns: int) -> Learned:
        """Return what `learn` would, without changing what any lookup answers."""
        entry = self.lookup(vlan, mac, now_ns)
        if entry is None:
            return Learned.FULL if self.count(now_ns) >= self.limit else Learned.NEW
        if entry.static:
            return Learned.STATIC if entry.port == port else Learned.STATIC_ELSEWHERE
        return Learned.REFRESHED if entry.port == port else Learned.MOVED

    def learn(self, vlan: int, mac: bytes, port: int, now_ns: int) -> Learned:
        """Note that `mac` was seen as a source at `port`. A full table learns nothing; static entries never change."""
        table = self._vlans.get(vlan)
        entry = table.get(mac) if table is not None else None
        if entry is None or not self._alive(entry, now_ns):
            if self.count(now_ns) >= self.limit:
                return Learned.FULL
            self._insert(vlan, mac, port, now_ns, static=False)
            return Learned.NEW
        if entry.static:
            return Learned.STATIC if entry.port == port else Learned.STATIC_ELSEWHERE
        entry.seen_ns = now_ns
        if entry.port == port:
            return Learned.REFRESHED
        self._left(entry)
        self.moved_from, entry.port = entry.port, port
        self._behind[port] = self._behind.get(port, 0) + 1
        self.version += 1
        return Learned.MOVED

    def known_route(self, vlan: int, dst: bytes, src: bytes, port: int, now_ns: int) -> int:
        """Return the port of `dst` if both addresses are known and nothing about them is news, else 0.

        That is: `src` is a live dynamic entry at `port`, which is refreshed, and `dst` one at another port.
        """
        table = self._vlans.get(vlan)
        if table is None:
            return 0
        source, target = table.get(src), table.get(dst)
        if source is None or target is None or source.static or target.static:
            return 0
        oldest = now_ns - self.ageing_ns
        if source.port != port or target.port == port or source.seen_ns <= oldest or target.seen_ns <= oldest:
            return 0
        source.seen_ns = now_ns
        return target.port

    def add_static(self, vlan: int, mac: bytes, port: int, now_ns: int) -> bool:
        """Make a static entry in place of a dynamic one. Return False, and change nothing, when the table is full."""
        if self.lookup(vlan, mac, now_ns) is None and self.count(now_ns) >= self.limit:
            return False
        self.remove(vlan, mac)
        self._insert(vlan, mac, port, now_ns, static=True)
        return True

    def remove(self, vlan: int, mac: bytes) -> bool:
        """Forget one entry. Return whether there was one."""
        table = self._vlans.get(vlan)
        entry = table.pop(mac, None) if table is not None else None
        if table is None or entry is None:
            return False
        if not entry.static:
            self._left(entry)
        self._size -= 1
        self.version += 1
        if not table:
            del self._vlans[vlan]
        return True

    def resize(self, ageing_ns: int, limit: int, now_ns: int) -> bool:
        """Set the ageing time and the limit. Entries above the limit go: dynamic ones, those seen longest ago first.

        Return False, and change nothing, when there are more static entries than the new limit.
        """
        self.count(now_ns)
        if sum(entry.static for _, _, entry in self.entries(now_ns)) > limit:
            return False
        self.ageing_ns, self.limit = ageing_ns, limit
        self.version += 1
        surplus = self.count(now_ns) - limit
        if surplus > 0:
            for vlan, mac in self._longest_unseen(now_ns)[:surplus]:
                self.remove(vlan, mac)
        return True

    def flush(
        self, now_ns: int, *, vlans: Collection[int] | None = None, port: int | None = None, static: bool = False
    ) -> int:
        """Forget the dynamic entries (and, when asked, the static ones) of VLANs, a port, or all. Return how many."""
        self.count(now_ns)
        doomed = [
            (number, mac)
            for number, table in self._vlans.items()
            if vlans is None or number in vlans
            for mac, entry in table.items()
            if (port is None or entry.port == port) and (static or not entry.static)
        ]
        for number, mac in doomed:
            self.remove(number, mac)
        self._rebuild_heap()
        return len(doomed)

    def count(self, now_ns: int) -> int:
        """Return how many entries are alive, taking back the places of the dead. Amortized O(log n) an entry."""
        heap = self._heap
        horizon = now_ns - self.ageing_ns
        while heap and heap[0][0] <= horizon:
            _, serial, vlan, mac = heapq.heappop(heap)
            entry = self._vlans.get(vlan, {}).get(mac)
            if entry is None or entry.serial != serial:
                continue
            if entry.seen_ns > horizon:
                heapq.heappush(heap, (entry.seen_ns, serial, vlan, mac))
            else:
                self.remove(vlan, mac)
        return self._size

    def entries(self, now_ns: int) -> Iterator[tuple[int, bytes, Entry]]:
        """Yield (vlan, mac, entry) of all live entries, ordered by VLAN, then by address."""
        for vlan in sorted(self._vlans):
            table = self._vlans[vlan]
            for mac in sorted(table):
                if self._alive(table[mac], now_ns):
                    yield vlan, mac, table[mac]

    def behind(self, port: int, now_ns: int) -> int:
        """Return how many live dynamic entries name a port. Amortized O(log n) an entry."""
        self.count(now_ns)
        return self._behind.get(port, 0)

    def vlans(self) -> list[int]:
        """Return the VLANs that have entries, dead ones perhaps, in ascending order."""
        return sorted(self._vlans)

    def _left(self, entry: Entry) -> None:
        """Count one dynamic entry less behind its port."""
        left = self._behind[entry.port] - 1
        if left:
            self._behind[entry.port] = left
        else:
            del self._behind[entry.port]

    def _longest_unseen(self, now_ns: int) -> list[tuple[int, bytes]]:
        """Return VLAN and address of the live dynamic entries, those seen longest ago first."""
        live = [(entry, vlan, mac) for vlan, mac, entry in self.entries(now_ns) if not entry.static]
        live.sort(key=lambda one: (one[0].seen_ns, one[0].serial))
        return [(vlan, mac) for _, vlan, mac in live]

    def _alive(self, entry: Entry, now_ns: int) -> bool:
        return entry.static or now_ns - entry.seen_ns < self.ageing_ns

    def _insert(self, vlan: int, mac: bytes, port: int, now_ns: int, *, static: bool) -> None:
        self._serial += 1
        self.version += 1
        self._size += 1
        self._vlans.setdefault(vlan, {})[mac] = Entry(port, now_ns, static, self._serial)
        if static:
            return
        self._behind[port] = self._behind.get(port, 0) + 1
        heapq.heappush(self._heap, (now_ns, self._serial, vlan, mac))
        if len(self._heap) > 2 * self._size + 64:
            self._rebuild_heap()

    def _rebuild_heap(self) -> None:
        """Drop places in the heap whose entries are gone, so that it stays within twice the table."""
        self._heap = [
            (entry.seen_ns, entry.serial, vlan, mac)
            for vlan, table in self._vlans.items()
            for mac, entry in table.items()
            if not entry.static
        ]
        heapq.heapify(self._heap)
