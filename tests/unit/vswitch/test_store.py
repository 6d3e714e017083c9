"""The store of definitions: what it keeps through death, slots and generations, and a broken database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lamina_kit.errors import DataLoss, Unavailable
from lamina_vswitch.domain.definitions.switches import (
    Origin,
    PortDefinition,
    PortGroupDefinition,
    StaticEntry,
    SwitchDefinition,
)
from lamina_vswitch.io.store.definitions import SqliteStore

SWITCH = SwitchDefinition("s1", 9000, 60, 16)
GROUP = PortGroupDefinition("s1", "web", 100)


def opened(path: Path) -> SqliteStore:
    """Return an open store."""
    store = SqliteStore(path / "vswitch.sqlite")
    store.open()
    return store


def port(name: str, slot: int, generation: int, group: str = "") -> PortDefinition:
    """Return a port."""
    return PortDefinition("s1", name, group, True, "", slot, generation)


def test_everything_comes_back(tmp_path: Path) -> None:
    """What was recorded is loaded by the next start, origins included."""
    store = opened(tmp_path)
    owned = PortDefinition("s1", "vm", "web", False, "h1/hypervisor", 1, 1)
    store.add_switch(SWITCH, Origin("r1", "content"))
    store.add_port_group(GROUP, Origin())
    store.add_port(owned, Origin("r2", "other"))
    store.put_static_entry(StaticEntry("s1", 100, bytes(5) + b"\x01", "vm"))
    store.close()
    recorded = opened(tmp_path).load()
    assert recorded.switches == [(SWITCH, Origin("r1", "content"))]
    assert recorded.port_groups == [(GROUP, Origin())]
    assert recorded.ports == [(owned, Origin("r2", "other"))]
    assert recorded.static_entries == [StaticEntry("s1", 100, bytes(5) + b"\x01", "vm")]


def test_slots_are_used_again_with_another_generation(tmp_path: Path) -> None:
    """The lowest free slot is given next; its generation only grows, also over a restart."""
    store = opened(tmp_path)
    store.add_switch(SWITCH, Origin())
    assert store.claim_slot() == (1, 1)
    store.add_port(port("a", 1, 1), Origin())
    assert store.claim_slot() == (2, 1)
    store.add_port(port("b", 2, 1), Origin())
    store.remove_port(port("a", 1, 1))
    store.close()
    store = opened(tmp_path)
    assert store.claim_slot() == (1, 2)
    store.add_port(port("c", 1, 2), Origin())
    assert store.claim_slot() == (3, 1)


def test_a_switch_takes_everything_in_it_along(tmp_path: Path) -> None:
    """Removing a switch leaves no group, port or entry behind."""
    store = opened(tmp_path)
    store.add_switch(SWITCH, Origin())
    store.add_port_group(GROUP, Origin())
    store.add_port(port("a", 1, 1, "web"), Origin())
    store.put_static_entry(StaticEntry("s1", 100, bytes(6), "a"))
    store.remove_switch("s1")
    recorded = store.load()
    assert not (recorded.switches or recorded.port_groups or recorded.ports or recorded.static_entries)


def test_starts_are_counted(tmp_path: Path) -> None:
    """Every start has a higher number than the one before."""
    numbers = []
    for _ in range(3):
        store = opened(tmp_path)
        numbers.append(store.next_epoch())
        store.close()
    assert numbers == [1, 2, 3]


DYING = """
import os, signal, sys
from pathlib import Path
from lamina_vswitch.domain.definitions.switches import Origin, PortDefinition, SwitchDefinition
from lamina_vswitch.io.store.definitions import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
store.open()
store.add_switch(SwitchDefinition("s1"), Origin())
store.add_port(PortDefinition("s1", "a", "", True, "", 1, 1), Origin())
store._db.execute("BEGIN IMMEDIATE")
store._db.execute("DELETE FROM ports")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    """A process that dies within a transaction leaves what was committed before, and nothing else."""
    died = subprocess.run([sys.executable, "-c", DYING, str(tmp_path / "vswitch.sqlite")], timeout=30, check=False)
    assert died.returncode == -9
    recorded = opened(tmp_path).load()
    assert [entry.switch for entry, _ in recorded.switches] == ["s1"]
    assert [entry.port for entry, _ in recorded.ports] == ["a"]


def test_a_broken_database_is_data_loss(tmp_path: Path) -> None:
    """Bytes that are no database are told as such, with the path and the next step."""
    (tmp_path / "vswitch.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(DataLoss) as caught:
        opened(tmp_path)
    assert caught.value.reason == "STORE_CORRUPT"
    assert "vswitch.sqlite" in caught.value.message


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    """A schema that this version does not know is not touched."""
    store = opened(tmp_path)
    store._db.execute("PRAGMA user_version=99")
    store.close()
    with pytest.raises(DataLoss, match="schema 99"):
        opened(tmp_path)


def test_a_place_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    """A folder that cannot be made is told before anything starts."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable) as caught:
        opened(tmp_path / "file")
    assert caught.value.reason == "STORE_UNAVAILABLE"


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """Using a store after its end is refused, not answered with an empty list."""
    store = opened(tmp_path)
    store.close()
    store.close()
    with pytest.raises(Unavailable):
        store.load()
