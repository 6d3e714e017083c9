"""Disks as files: kept whole, or said to be damaged."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_hardware.domain.disk.transfer import Result, TransferFailed
from lamina_hardware.io.disk_files import Description, DiskFolder
from lamina_kit.errors import DataLoss, ResourceExhausted

MIB = 1 << 20
KEPT = Description(MIB, 4096, 0, 0, 32, False)


def test_a_disk_is_sparse(tmp_path: Path) -> None:
    """A disk of 8 TiB takes no room, and zeroed places give theirs back."""
    folder = DiskFolder(tmp_path / "disks")
    file = folder.make("big", Description(8 << 40, 4096, 0, 0, 32, False))
    file.write(1 << 40, b"x" * 65536)
    assert file.read((1 << 40) - 8, 16) == bytes(8) + b"x" * 8
    file.zero(1 << 40, 65536)
    file.sync()
    assert (tmp_path / "disks" / "big.disk").stat().st_blocks < 64
    file.close()


def test_what_is_left_half_made_is_swept(tmp_path: Path) -> None:
    """Content without a description is what a death between two steps leaves; it goes, and others stay."""
    folder = DiskFolder(tmp_path)
    folder.make("whole", KEPT).close()
    (tmp_path / "half.disk").write_bytes(b"x")
    assert folder.load() == {"whole": KEPT}
    assert not (tmp_path / "half.disk").exists()


@pytest.mark.parametrize("damage", ["missing", "short", "garbage", "fields", "types"])
def test_a_damaged_disk_is_told(tmp_path: Path, damage: str) -> None:
    """A disk whose files do not fit is an error that names them, and nothing is deleted."""
    folder = DiskFolder(tmp_path)
    folder.make("d", KEPT).close()
    content, description = tmp_path / "d.disk", tmp_path / "d.json"
    if damage == "missing":
        content.unlink()
    elif damage == "short":
        content.write_bytes(b"x" * 100)
    else:
        description.write_text({"garbage": "{", "fields": '{"size": 5}'}.get(damage, description.read_text()))
        if damage == "types":
            description.write_text(description.read_text().replace("4096", '"4096"'))
    with pytest.raises(DataLoss, match=r"d is damaged") as told:
        folder.load()
    assert told.value.reason == "DISK_DAMAGED"
    assert description.exists()


def test_no_room_for_a_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk whose description finds no room is not made, and a change of one leaves it as it was."""
    folder = DiskFolder(tmp_path)
    folder.make("d", KEPT).close()

    def full(self: Path, text: str) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    for change in (lambda: folder.make("e", KEPT), lambda: folder.describe("d", replace(KEPT, depth=1))):
        with pytest.raises(ResourceExhausted) as told:
            change()
        assert told.value.reason == "DISK_SPACE_EXHAUSTED"
    assert folder.load() == {"d": KEPT}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.disk", "d.json"]


def test_a_file_that_was_cut_loses_sectors(tmp_path: Path) -> None:
    """Bytes that somebody cut off are a medium error where they are missing, not zeros."""
    folder = DiskFolder(tmp_path)
    file = folder.make("d", KEPT)
    with (tmp_path / "d.disk").open("r+b") as cut:
        cut.truncate(6000)
    assert file.read(0, 4096) == bytes(4096)
    with pytest.raises(TransferFailed) as failed:
        file.read(4096, 8192)
    assert (failed.value.result, failed.value.offset) == (Result.MEDIUM_ERROR, 6000)
    file.close()


@given(st.binary(max_size=200))
def test_any_description(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    """Whatever stands in a description, it is read or said to be damaged."""
    path = tmp_path_factory.mktemp("disks")
    (path / "d.json").write_bytes(text)
    with pytest.raises(DataLoss):
        DiskFolder(path).load()
