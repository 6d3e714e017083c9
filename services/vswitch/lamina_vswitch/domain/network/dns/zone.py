"""The names of one network that were told: sets of answers by name and type, each with the source that set it.

A source counts its changes: a change at or below its newest revision changes nothing, so a source may repeat and
reorder. A name belongs to the source that set it first, for all of its types, until it has no set left.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lamina_vswitch.domain.network.dns.message import Type


class RecordSet(NamedTuple):
    """Answers of one name and type. `ttl` is 0 for the responder's; `source` says who set it."""

    name: str
    type: Type
    answers: tuple[str, ...]
    ttl: int
    source: str


Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Change:
    """What an update does: sets to write and sets to remove, by (name, type), and the source's revision after it."""

    written: tuple[RecordSet, ...]
    removed: tuple[Key, ...]
    revision: int


class Zone:
    """The sets of one network."""

    def __init__(self) -> None:
        self._sets: dict[Key, RecordSet] = {}
        self._types: dict[str, list[int]] = {}
        self._below: dict[str, int] = {}
        self._of_source: dict[str, dict[Key, None]] = {}
        self._revisions: dict[str, int] = {}
        self._turns: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._sets)

    def revision(self, source: str) -> int:
        """Return the newest revision of a source, 0 when it gave none."""
        return self._revisions.get(source, 0)

    def count(self, source: str) -> int:
        """Return how many sets a source has."""
        return len(self._of_source.get(source, ()))

    def owner(self, name: str) -> str:
        """Return who set a name; empty when nobody did."""
        types = self._types.get(name)
        return self._sets[name, types[0]].source if types else ""

    def sets(self) -> Iterator[RecordSet]:
        """Yield all sets, ordered by name, then type."""
        for name in sorted(self._types):
            for kind in self._types[name]:
                yield self._sets[name, kind]

    def plan(self, sets: Sequence[RecordSet], source: str, revision: int, *, replace_all: bool) -> Change | None:
        """Return what an update changes, or None when its revision is not newer. Later sets of a key win."""
        if revision and revision <= self.revision(source):
            return None
        wanted = {(each.name, int(each.type)): each for each in sets}
        written = tuple(each for each in wanted.values() if each.answers)
        gone = [key for key, each in wanted.items() if not each.answers and key in self._sets]
        if replace_all:
            gone += [key for key in self._of_source.get(source, {}) if key not in wanted]
        return Change(written, tuple(gone), max(revision, self.revision(source)))

    def apply(self, change: Change, source: str) -> None:
        """Make a change that was planned and recorded."""
        for key in change.removed:
            self._remove(key)
        for each in change.written:
            self._write(each)
        self._revisions[source] = change.revision

    def restore(self, sets: Sequence[RecordSet], revisions: Sequence[tuple[str, int]]) -> None:
        """Take over what is recorded."""
        for each in sets:
            self._write(each)
        self._revisions.update(revisions)

    def types(self, name: str) -> Sequence[int]:
        """Return the types that a name has, a wildcard's when it has none itself; ascending."""
        return self._types.get(self._holder(name), ())

    def exists(self, name: str) -> bool:
        """Tell whether a name, or one below it, is there; then an absent type is no absent name."""
        return self._holder(name) in self._types or self._below.get(name, 0) > 0

    def find(self, name: str, kind: int) -> RecordSet | None:
        """Return the set of a name and type, a wildcard's under the name that was asked for."""
        holder = self._holder(name)
        found = self._sets.get((holder, kind))
        return found._replace(name=name) if found is not None else None

    def find_own(self, name: str, kind: int) -> RecordSet | None:
        """Return the set of a name and type as it was told, without wildcards."""
        return self._sets.get((name, int(kind)))

    def turned(self, found: RecordSet) -> tuple[str, ...]:
        """Return the answers of a set, beginning with the next one each time."""
        key = (self._holder(found.name), int(found.type))
        turn = self._turns.get(key, 0) % len(found.answers)
        self._turns[key] = turn + 1
        return found.answers[turn:] + found.answers[:turn]

    def _holder(self, name: str) -> str:
        """Return under which name the sets of a name lie: its own, or `*.` in the place of its first label.

        A name that is there, or that has names below it, is not covered by a wildcard. Source: RFC 4592, 2.2.
        """
        if name in self._types or self._below.get(name, 0):
            return name
        return f"*.{name.partition('.')[2]}"

    def _write(self, each: RecordSet) -> None:
        key = (each.name, int(each.type))
        old = self._sets.get(key)
        if old is None:
            insort(self._types.setdefault(each.name, []), key[1])
            self._count_parents(each.name, 1)
        else:
            del self._of_source[old.source][key]
        self._sets[key] = each
        self._of_source.setdefault(each.source, {})[key] = None

    def _remove(self, key: Key) -> None:
        old = self._sets.pop(key)
        del self._of_source[old.source][key]
        self._turns.pop(key, None)
        types = self._types[key[0]]
        del types[bisect_left(types, key[1])]
        if not types:
            del self._types[key[0]]
        self._count_parents(key[0], -1)

    def _count_parents(self, name: str, by: int) -> None:
        parent = name.partition(".")[2]
        while parent:
            self._below[parent] = self._below.get(parent, 0) + by
            if not self._below[parent]:
                del self._below[parent]
            parent = parent.partition(".")[2]
