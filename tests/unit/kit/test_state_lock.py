"""One process at a time works in a state directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina_kit.errors import FailedPrecondition
from lamina_kit.process.state_lock import LOCK_FILE, STARTS_FILE, StateLock


def test_a_second_holder_is_told_who_has_it(tmp_path: Path) -> None:
    """The refusal names the folder and the process that works in it."""
    with StateLock(tmp_path / "mmu", "mmu"):
        with pytest.raises(FailedPrecondition) as caught, StateLock(tmp_path / "mmu", "mmu"):
            raise AssertionError("the lock was taken twice")
        assert caught.value.reason == "STATE_DIR_IN_USE"
        assert caught.value.metadata["pid"] == str(os.getpid())
        assert str(tmp_path / "mmu") in caught.value.message and str(os.getpid()) in caught.value.message


def test_a_released_directory_can_be_taken(tmp_path: Path) -> None:
    """Leaving the block gives the directory free; the file that stays means nothing."""
    with StateLock(tmp_path, "mmu"):
        assert (tmp_path / LOCK_FILE).exists()
    with StateLock(tmp_path, "vswitch"):
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()} vswitch\n"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file in the place of the folder is a clear error."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition) as caught, StateLock(tmp_path / "file", "mmu"):
        raise AssertionError("a file was taken for a folder")
    assert caught.value.reason == "STATE_DIR_UNUSABLE"


def test_starts_are_counted_over_processes(tmp_path: Path) -> None:
    """The number goes on when the directory is taken again, and begins at 1 where nothing readable is kept."""
    numbers = []
    for _ in range(3):
        with StateLock(tmp_path, "mmu") as lock:
            numbers.append(lock.count_start())
    assert numbers == [1, 2, 3]
    (tmp_path / STARTS_FILE).write_bytes(b"\xff?")
    with StateLock(tmp_path, "mmu") as lock:
        assert lock.count_start() == 1
