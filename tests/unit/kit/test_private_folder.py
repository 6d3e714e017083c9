"""Folders for one user alone, whatever the umask and whatever was there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina_kit.errors import FailedPrecondition
from lamina_kit.process.state_lock import StateLock
from lamina_kit.security.private_folder import make_private


def mode(path: Path) -> int:
    """Returns the rights to a file."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """Everything is made as openly as can be, unless the code says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_state_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    """A state folder has mode 0700 and its lock 0600 under an open umask."""
    with StateLock(tmp_path / "a" / "mmu", "mmu"):
        assert mode(tmp_path / "a" / "mmu") == 0o700
        assert mode(tmp_path / "a" / "mmu" / "lock") == 0o600


@pytest.mark.parametrize("rights", [0o755, 0o750, 0o701])
def test_a_folder_that_others_can_read_is_closed_to_them(rights: int, tmp_path: Path) -> None:
    """What an earlier version left readable is tightened."""
    folder = tmp_path / "state"
    folder.mkdir(mode=rights)
    make_private(folder)
    assert mode(folder) == 0o700


@pytest.mark.parametrize("rights", [0o777, 0o770, 0o702, 0o1777])
def test_a_folder_that_others_can_write_is_refused(rights: int, tmp_path: Path) -> None:
    """Who can write a state folder could change what is stored and run: it is refused, and left as it is."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(rights)
    with pytest.raises(FailedPrecondition) as caught:
        make_private(folder)
    assert caught.value.reason == "STATE_DIR_UNSAFE" and str(folder) in caught.value.message
    assert f"chmod 700 {folder}" in caught.value.next_step
    assert mode(folder) == rights


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Root does not keep its state where another user owns the folder."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(FailedPrecondition) as caught:
        make_private(folder)
    assert caught.value.reason == "STATE_DIR_UNSAFE"
