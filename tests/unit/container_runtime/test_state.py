"""What is stored: records, events and blobs, also when nobody closed anything."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lamina_container_runtime.domain.containers.container import (
    ContainerEvent,
    ContainerRecord,
    ContainerSpec,
    ContainerState,
    EventType,
    Exit,
)
from lamina_container_runtime.domain.containers.sandbox import SandboxMetadata, SandboxRecord, SandboxSpec, SandboxState
from lamina_container_runtime.engines.model.changes import KEPT, Changes
from lamina_container_runtime.io.images.blobs import BlobStore
from lamina_container_runtime.io.records import codec
from lamina_container_runtime.io.records.database import Database
from lamina_container_runtime.io.records.logs import LogStore
from lamina_kit.errors import DataLoss, NotFound, OutOfRange

SPEC = ContainerSpec("sb-1", "web", "hello", env=("A=1",), labels=(("app", "web"),))
RECORD = ContainerRecord("c-1", SPEC, "f" * 64, ContainerState.CREATED, 7)
ENDED = replace(RECORD, state=ContainerState.EXITED, exit=Exit(137, "OOMKilled", "m", True), revision=3)


def event(record: ContainerRecord, revision: int, kind: EventType = EventType.CREATED) -> ContainerEvent:
    """Returns an event."""
    return ContainerEvent(revision, kind, replace(record, revision=revision), revision * 10)


@pytest.mark.parametrize("record", [RECORD, ENDED, event(ENDED, 4)])
def test_records_come_back_as_they_were(record: object) -> None:
    """Nested records, enums, tuples and None survive the codec."""
    assert codec.loads(type(record), codec.dumps(record)) == record


def test_older_records_take_defaults() -> None:
    """A field that an older version did not store has its default, one that is unknown is passed over."""
    text = codec.dumps(RECORD).replace('"request_id":""', '"future":1')
    assert codec.loads(ContainerRecord, text) == RECORD


def test_a_state_that_nobody_closed_is_whole(tmp_path: Path) -> None:
    """Files copied while the database is open hold all that was stored: that is what `kill -9` leaves."""
    database = Database(tmp_path / "runtime.db")
    sandbox = SandboxRecord("sb-1", SandboxSpec(SandboxMetadata("pod")), SandboxState.READY, 5)
    database.put_sandbox(sandbox)
    assert database.next_epoch() == 1
    database.put_container(event(RECORD, 2))
    database.put_container(event(ENDED, 3, EventType.STOPPED))
    (tmp_path / "copy").mkdir()
    for file in tmp_path.glob("runtime.db*"):
        shutil.copy(file, tmp_path / "copy")
    found = Database(tmp_path / "copy" / "runtime.db")
    assert list(found.sandboxes()) == [sandbox]
    assert list(found.containers()) == [ENDED]
    assert [item.revision for item in found.events()] == [2, 3]
    assert (found.revision(), found.next_epoch()) == (3, 2)
    found.put_container(event(ENDED, 4, EventType.DELETED))
    assert (list(found.containers()), found.revision()) == ([], 4)


def test_a_damaged_database_says_so(tmp_path: Path) -> None:
    """A file that is no database is DATA_LOSS with a next step."""
    (tmp_path / "runtime.db").write_bytes(b"not a database" * 100)
    with pytest.raises(DataLoss) as caught:
        Database(tmp_path / "runtime.db")
    assert caught.value.reason == "DATABASE_CORRUPT"


def test_history_is_bounded() -> None:
    """Only the newest events are kept; older revisions and future ones are refused."""
    stored: list[ContainerEvent] = []
    changes = Changes((), 0, stored.append)
    for _ in range(KEPT + 5):
        changes.add(EventType.STARTED, RECORD, 1)
    assert len(stored) == KEPT + 5
    assert [item.revision for item in changes.after(changes.revision - 2)] == [changes.revision - 1, changes.revision]
    for revision, reason in ((1, "REVISION_COMPACTED"), (changes.revision + 1, "REVISION_FUTURE")):
        with pytest.raises(OutOfRange) as caught:
            changes.after(revision)
        assert caught.value.reason == reason


def test_blobs_are_checked_when_they_are_read(tmp_path: Path) -> None:
    """A blob that changed on disk is STORE_CORRUPT, one that is gone is unknown, and leftovers are removed."""
    store = BlobStore(tmp_path)
    digest = store.put(b"content")
    store.writer().write(b"half")
    store = BlobStore(tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert (store.read_all(digest, 100), store.read(digest, 3, 2), store.size(digest)) == (b"content", b"te", 7)
    store.path(digest).write_bytes(b"CONTENT")
    for check in (lambda: store.read_all(digest, 100), lambda: store.verify(digest)):
        with pytest.raises(DataLoss) as caught:
            check()
        assert caught.value.reason == "STORE_CORRUPT"
    assert store.delete(digest) == 7
    with pytest.raises(NotFound):
        store.read(digest, 0, 1)


def test_logs_go_on_behind_a_restart(tmp_path: Path) -> None:
    """A log is read from any offset, by tail, and after its writer is gone; a full one drops what comes."""
    full: list[str] = []
    store = LogStore(tmp_path, lambda: 10**18, full.append)
    store.open("c")
    store.write("c", "stdout", b"one\ntwo\nthr")
    lines, offset = store.read("c", 0)
    assert [line.data for line in lines] == [b"one", b"two"]
    assert store.read("c", offset) == ([], offset)
    store.close("c")
    again = LogStore(tmp_path, lambda: 0, full.append)
    assert [line.data for line in again.read("c", again.offset_of_tail("c", 2))[0]] == [b"two", b"thr"]
    assert [line.data for line in again.read("c", again.offset_of_tail("c", 99))[0]] == [b"one", b"two", b"thr"]
    assert again.read("absent", 0) == ([], 0)
    again.delete("c")
    assert again.read("c", 0)[0] == []
