"""Whose RAM a memory bus is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina_kit.bus.file import Identity, read_identity
from lamina_kit.bus.identity import check_bus
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.errors import LaminaError

SIZE = 2 << 20


def test_a_bus_says_whose_it_is(tmp_path: Path) -> None:
    """Host and boot stand in the file; a reset gives it those of the new boot."""
    path = tmp_path / "ram"
    MemoryBus.create(path, SIZE, identity=Identity("h1", "boot-a")).close()
    assert read_identity(path) == Identity("h1", "boot-a")
    check_bus(path, "h1", "boot-a")
    MemoryBus.create(path, SIZE, reset=True, identity=Identity("h1", "boot-b")).close()
    assert read_identity(path).boot_id == "boot-b"


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (None, "BUS_MISSING"),
        (Identity("h2", "boot-a"), "BUS_FOREIGN"),
        (Identity("h1", "boot-b"), "BUS_FOREIGN"),
        (Identity(), "BUS_FOREIGN"),
        ("not a bus", "BUS_FOREIGN"),
    ],
)
def test_a_wrong_bus_is_named_with_host_and_boot(tmp_path: Path, made: Identity | str | None, reason: str) -> None:
    """A missing bus, another host's, an older boot's and a file that is none are told apart from the right one."""
    path = tmp_path / "ram"
    if isinstance(made, Identity):
        MemoryBus.create(path, SIZE, identity=made).close()
    elif made is not None:
        path.write_text(made)
    with pytest.raises(LaminaError) as caught:
        check_bus(path, "h1", "boot-a")
    assert caught.value.reason == reason
    assert caught.value.metadata == {"path": str(path), "host": "h1", "boot_id": "boot-a"}
    assert str(path) in caught.value.message


def test_a_cut_bus_is_no_bus(tmp_path: Path) -> None:
    """A file that is shorter than what its head promises is named as such, with host and boot."""
    path = tmp_path / "ram"
    MemoryBus.create(path, SIZE, identity=Identity("h1", "boot-a")).close()
    os.truncate(path, SIZE // 2)
    with pytest.raises(LaminaError) as caught:
        check_bus(path, "h1", "boot-a")
    assert caught.value.reason == "BUS_TRUNCATED"
    assert caught.value.metadata["boot_id"] == "boot-a"
