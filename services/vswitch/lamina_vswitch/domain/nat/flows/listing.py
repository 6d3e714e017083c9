"""The order in which entries are listed, kept up for who reads a long table page by page while flows come and go.

Nothing is kept before somebody lists, nor when more has changed since than is worth following. A few changes are put in
their places; of many, what came is merged into what was sorted and what went is left out, in one pass.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from lamina_vswitch.domain.nat.flows.entry import Entry
from lamina_vswitch.domain.nat.packets.packet import ICMP, TCP, UDP

_PROTOCOL_ORDER = {TCP: 1, UDP: 2, ICMP: 3}
"""As the contract numbers them."""
_LEAST_CHANGES = 1024
_FEW = 128
"""Changes that are put in their places one by one: each costs a search and moving pointers, not a pass."""

Key = tuple[int, tuple[int, int], tuple[int, int], tuple[int, int], int]


def order(entry: Entry) -> Key:
    """Return what entries are sorted by: protocol, inside; then whom it talks to, outside."""
    return (_PROTOCOL_ORDER[entry.protocol], entry.inside, entry.dialled, entry.outside, entry.number)


class Listing:
    """The entries of a table in their order."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Key, Entry]] | None = None
        self._entries: list[Entry] = []
        self._came: list[Entry] = []
        self._gone: dict[int, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Follow an entry that came."""
        if self._pairs is not None:
            self._came.append(entry)
            self._forget_if_many(self._pairs)

    def remove(self, entry: Entry) -> None:
        """Follow an entry that went."""
        if self._pairs is not None:
            if self._came and self._came[-1] is entry:
                self._came.pop()
                return
            self._gone[entry.number] = entry
            self._forget_if_many(self._pairs)

    def entries(self, live: Iterable[Entry]) -> Sequence[Entry]:
        """Return the entries in order; `live` are all of them, in any order."""
        pairs = self._pairs
        if pairs is None:
            pairs = sorted((order(entry), entry) for entry in live)
        elif len(self._came) + len(self._gone) <= _FEW:
            self._place_few(pairs)
            return self._entries
        else:
            pairs += [(order(entry), entry) for entry in self._came]
            if self._gone:
                gone = self._gone
                pairs = [pair for pair in pairs if pair[1].number not in gone]
            pairs.sort()  # two sorted runs and a few in between: merged, not sorted anew
        self._forget()
        self._pairs, self._entries = pairs, [entry for _, entry in pairs]
        return self._entries

    def of(self, live: Iterable[Entry], inside: int | None, protocol: int | None) -> Sequence[Entry]:
        """Return the entries of an inside address and a protocol; None: of all."""
        entries = self.entries(live)
        if inside is None and protocol is None:
            return entries
        found: list[Entry] = []
        for number in _PROTOCOL_ORDER if protocol is None else (protocol,):
            place = _PROTOCOL_ORDER[number]
            first, last = ((place,), (place + 1,)) if inside is None else ((place, (inside,)), (place, (inside + 1,)))
            found += entries[self._place(first) : self._place(last)]
        return found

    def _place_few(self, pairs: list[tuple[Key, Entry]]) -> None:
        """Put what came in its place, and take out what went; it may be the same."""
        for entry in self._came:
            key = order(entry)
            at = self._place(key)
            pairs.insert(at, (key, entry))
            self._entries.insert(at, entry)
        for entry in self._gone.values():
            at = self._place(order(entry))
            del pairs[at], self._entries[at]
        self._came, self._gone = [], {}

    def _place(self, key: tuple[object, ...]) -> int:
        assert self._pairs is not None
        return bisect_left(self._pairs, key, key=lambda pair: pair[0])

    def _forget_if_many(self, pairs: list[tuple[Key, Entry]]) -> None:
        if len(self._came) + len(self._gone) > _LEAST_CHANGES + len(pairs) // 4:
            self._forget()

    def _forget(self) -> None:
        self._pairs = None
        self._entries, self._came, self._gone = [], [], {}
