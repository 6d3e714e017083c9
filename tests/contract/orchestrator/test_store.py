"""What every store of the orchestrator does: revisions, history, compaction, watches."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamina_kit.errors import Aborted, DataLoss, FailedPrecondition, OutOfRange
from lamina_orchestrator.engines.interface import Store, Write
from lamina_orchestrator.io.store.memory import MemoryStore
from lamina_orchestrator.io.store.sqlite import SqliteStore

Make = Callable[[Path], Store]
STORES: dict[str, Make] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "store.sqlite"),
}


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each store, empty."""
    made = STORES[request.param](tmp_path)
    yield made
    made.close()


def put(store: Store, path: str, value: str) -> int:
    """Writes a value over whatever is there."""
    known = store.get(path)
    return store.commit([Write(path, value, known.revision if known else 0)])


def delete(store: Store, path: str) -> int:
    """Deletes what is there."""
    known = store.get(path)
    assert known is not None
    return store.commit([Write(path, known.value, known.revision, deleted=True)])


def test_every_write_gets_the_next_revision(store: Store) -> None:
    """Revisions count from 1; a record knows the one that wrote it and the one that created it."""
    assert store.revision == 0
    assert put(store, "pods/a/x", "1") == 1
    assert put(store, "pods/a/x", "2") == 2
    record = store.get("pods/a/x")
    assert record is not None
    assert (record.revision, record.created, record.value) == (2, 1, "2")


def test_commit_is_all_or_nothing(store: Store) -> None:
    """A batch with one wrong expectation writes nothing; a right one gets consecutive revisions."""
    put(store, "a", "1")
    with pytest.raises(Aborted):
        store.commit([Write("b", "1", 0), Write("a", "2", 7)])
    assert store.revision == 1
    assert store.get("b") is None
    assert store.commit([Write("b", "1", 0), Write("a", "2", 1), Write("c", "", 0)]) == 4
    assert [record.revision for record in store.list("")] == [3, 2, 4]


def test_listing_is_ordered_and_bounded(store: Store) -> None:
    """A listing comes in the order of paths, with a prefix, behind a path, and at most as long as asked."""
    for path in ("pods/b/x", "pods/a/y", "nodes/h1", "pods/a/x", "podsx/a"):
        put(store, path, path)
    assert [record.path for record in store.list("pods/")] == ["pods/a/x", "pods/a/y", "pods/b/x"]
    assert [record.path for record in store.list("pods/a/")] == ["pods/a/x", "pods/a/y"]
    assert [record.path for record in store.list("pods/", after="pods/a/x", limit=1)] == ["pods/a/y"]
    assert len(store.list("")) == 5


def test_past_revisions_can_be_listed(store: Store) -> None:
    """A listing at an old revision shows what was there then, deleted objects included."""
    put(store, "a", "1")
    put(store, "b", "1")
    delete(store, "a")
    put(store, "b", "2")
    assert [(record.path, record.value) for record in store.list("", revision=2)] == [("a", "1"), ("b", "1")]
    assert [(record.path, record.value) for record in store.list("", revision=3)] == [("b", "1")]
    assert [(record.path, record.value) for record in store.list("")] == [("b", "2")]


def test_changes_name_what_was_before(store: Store) -> None:
    """A change carries the new text and the one before it; a deletion carries the last text."""
    put(store, "a", "1")
    put(store, "a", "2")
    delete(store, "a")
    put(store, "a", "3")
    seen = [(change.revision, change.value, change.previous, change.deleted) for change in store.changes(0, 10)]
    assert seen == [(1, "1", "", False), (2, "2", "1", False), (3, "2", "2", True), (4, "3", "", False)]
    assert [change.revision for change in store.changes(2, 1)] == [3]
    assert list(store.changes(4, 10)) == []


def test_compaction_keeps_the_present(store: Store) -> None:
    """Compaction forgets replaced and deleted versions, and refuses to read behind it."""
    for value in "123":
        put(store, "a", value)
    put(store, "b", "1")
    delete(store, "b")
    put(store, "a", "4")
    store.compact(5)
    assert store.compacted == 5
    assert [(record.path, record.value) for record in store.list("", revision=5)] == [("a", "3")]
    assert [(change.value, change.previous) for change in store.changes(5, 9)] == [("4", "3")]
    for revision in (1, 4):
        with pytest.raises(OutOfRange, match="too old"):
            store.list("", revision=revision)
        with pytest.raises(OutOfRange, match="too old"):
            store.changes(revision, 1)
    store.compact(2)
    assert store.compacted == 5
    store.compact(99)
    assert store.compacted == store.revision == 6


def test_future_revisions_are_refused(store: Store) -> None:
    """A revision that does not exist yet is refused."""
    put(store, "a", "1")
    with pytest.raises(OutOfRange, match="does not exist yet"):
        store.list("", revision=2)
    with pytest.raises(OutOfRange, match="does not exist yet"):
        store.changes(2, 1)


def test_a_deleted_path_can_be_taken_anew(store: Store) -> None:
    """A path that was deleted is free, and what is created there is a new object."""
    put(store, "a", "1")
    delete(store, "a")
    assert store.get("a") is None
    put(store, "a", "2")
    record = store.get("a")
    assert record is not None
    assert record.created == 3


def test_sqlite_survives_closing(tmp_path: Path) -> None:
    """A store on disk has everything again when it is opened anew, revision and compaction included."""
    first = SqliteStore(tmp_path / "s")
    put(first, "a", "1")
    put(first, "a", "2")
    put(first, "b", "1")
    delete(first, "b")
    first.compact(4)
    first.close()
    again = SqliteStore(tmp_path / "s")
    assert (again.revision, again.compacted) == (4, 4)
    assert [(record.path, record.value) for record in again.list("")] == [("a", "2")]
    assert put(again, "a", "3") == 5
    again.close()


def test_sqlite_refuses_a_second_owner(tmp_path: Path) -> None:
    """A store that is open cannot be opened again."""
    first = SqliteStore(tmp_path / "s")
    put(first, "a", "1")
    with pytest.raises(FailedPrecondition) as caught:
        SqliteStore(tmp_path / "s")
    assert caught.value.reason == "STORE_IN_USE"
    first.close()


def test_sqlite_refuses_foreign_files(tmp_path: Path) -> None:
    """A file that is no store, and one of a later format, are refused with a reason."""
    (tmp_path / "junk").write_bytes(b"no database at all, and long enough to be read as a header" * 20)
    with pytest.raises(DataLoss) as lost:
        SqliteStore(tmp_path / "junk")
    assert lost.value.reason == "STORE_CORRUPT"
    later = sqlite3.connect(tmp_path / "later")
    later.execute("PRAGMA user_version=9")
    later.close()
    with pytest.raises(FailedPrecondition) as caught:
        SqliteStore(tmp_path / "later")
    assert caught.value.reason == "STORE_FORMAT"
