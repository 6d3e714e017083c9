"""Both stores against a list: the naive store is the list of everything that was ever written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_kit.errors import LaminaError
from lamina_orchestrator.engines.interface import Store, Write
from lamina_orchestrator.io.store.memory import MemoryStore
from lamina_orchestrator.io.store.sqlite import SqliteStore

PATHS = ("a", "a/b", "ab", "b/x", "b/y")


@dataclass
class Oracle:
    """Every write, in order: path, value, deleted. Position plus one is the revision."""

    writes: list[tuple[str, str, bool]] = field(default_factory=list)
    compacted: int = 0

    def at(self, path: str, revision: int) -> tuple[int, str] | None:
        """Revision and value of a path as of a revision."""
        for number in range(revision, 0, -1):
            written, value, deleted = self.writes[number - 1]
            if written == path:
                return None if deleted else (number, value)
        return None

    def newest(self, path: str) -> int:
        """Revision of a path now; 0 if it is not there."""
        found = self.at(path, len(self.writes))
        return found[0] if found else 0

    def listed(self, prefix: str, revision: int, after: str, limit: int) -> list[tuple[str, int, str]]:
        """What a listing shows."""
        found = []
        for path in sorted(PATHS):
            seen = self.at(path, revision)
            if seen and path.startswith(prefix) and path > after:
                found.append((path, *seen))
        return found[:limit] if limit else found


@dataclass(frozen=True)
class Commit:
    """Write the paths; those in `deleted` that exist are deleted. With `stale`, one expectation is wrong."""

    paths: tuple[str, ...]
    deleted: bool
    stale: bool


@dataclass(frozen=True)
class Compact:
    """Compact up to a share of what was written."""

    percent: int


@dataclass(frozen=True)
class Reopen:
    """Close the store and open it again."""


steps = st.lists(
    st.one_of(
        st.builds(
            Commit,
            st.lists(st.sampled_from(PATHS), min_size=1, max_size=3, unique=True).map(tuple),
            st.booleans(),
            st.sampled_from([False, False, False, True]),
        ),
        st.builds(Compact, st.integers(0, 110)),
        st.builds(Reopen),
    ),
    max_size=30,
)


def commit(store: Store, oracle: Oracle, step: Commit) -> None:
    """Does a commit to both."""
    writes = []
    for number, path in enumerate(step.paths):
        newest = oracle.newest(path)
        deleted = step.deleted and newest > 0
        value = f"v{len(oracle.writes)}.{number}"
        writes.append(Write(path, value, newest + (1 if step.stale and number == 0 else 0), deleted))
    if step.stale:
        with pytest.raises(LaminaError):
            store.commit(writes)
        return
    store.commit(writes)
    oracle.writes += [(write.path, write.value, write.deleted) for write in writes]


def check(store: Store, oracle: Oracle) -> None:
    """Compares all that can be read."""
    newest = len(oracle.writes)
    assert (store.revision, store.compacted) == (newest, oracle.compacted)
    for path in PATHS:
        record = store.get(path)
        seen = oracle.at(path, newest)
        assert (record and (record.revision, record.value)) == seen
    for revision in {oracle.compacted, (oracle.compacted + newest) // 2, newest} - {0}:
        for prefix, after, limit in (("", "", 0), ("a", "", 2), ("b/", "b/x", 0)):
            records = store.list(prefix, revision=revision, after=after, limit=limit)
            found = [(record.path, record.revision, record.value) for record in records]
            assert found == oracle.listed(prefix, revision, after, limit)
    changes = list(store.changes(oracle.compacted, 1000))
    assert [(change.path, change.value, change.deleted) for change in changes] == oracle.writes[oracle.compacted :]
    for change in changes:
        before = oracle.at(change.path, change.revision - 1)
        assert change.previous == (before[1] if before else "")


MAKERS: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "s"),
}


@pytest.mark.parametrize("name", sorted(MAKERS))
@given(plan=steps)
@settings(max_examples=60)
def test_store_is_a_list(name: str, plan: list[Commit | Compact | Reopen]) -> None:
    """Whatever is written, deleted, compacted and reopened, a store reads as the list of all writes does."""
    with tempfile.TemporaryDirectory() as folder:
        store, oracle = MAKERS[name](Path(folder)), Oracle()
        for step in plan:
            if isinstance(step, Commit):
                commit(store, oracle, step)
            elif isinstance(step, Compact):
                target = len(oracle.writes) * step.percent // 100
                store.compact(target)
                oracle.compacted = max(oracle.compacted, min(target, len(oracle.writes)))
            elif name == "sqlite":
                store.close()
                store = MAKERS[name](Path(folder))
            check(store, oracle)
        store.close()
