"""Where compiled code is cached."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from lamina_kit import numba_cache


@pytest.mark.parametrize(
    ("told", "writable", "chosen"),
    [
        (None, True, ""),
        (None, False, "{tmp}/lamina-numba-{uid}"),
        ("/elsewhere", True, "/elsewhere"),
        ("/elsewhere", False, "/elsewhere"),
    ],
)
def test_the_folder_of_compiled_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str | None, writable: bool, chosen: str
) -> None:
    """Beside the sources where they may be written, else a user's folder; what a user says stands above both."""
    monkeypatch.setenv(numba_cache.VARIABLE, "")  # has it put back
    monkeypatch.delenv(numba_cache.VARIABLE)
    if told is not None:
        monkeypatch.setenv(numba_cache.VARIABLE, told)
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    wanted = chosen.format(tmp=tmp_path, uid=os.getuid())
    assert [numba_cache.choose(), numba_cache.choose()] == [wanted, wanted]
    assert os.environ.get(numba_cache.VARIABLE, "") == wanted


@pytest.mark.parametrize("kind", ["a folder for all", "a link", "a file"])
def test_code_is_not_loaded_from_where_others_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    """What lies in the cache runs: a folder of its name that another could have filled is left alone."""
    monkeypatch.setenv(numba_cache.VARIABLE, "")  # has it put back
    monkeypatch.delenv(numba_cache.VARIABLE)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    name = tmp_path / f"lamina-numba-{os.getuid()}"
    if kind == "a folder for all":
        name.mkdir()
        name.chmod(0o777)
    elif kind == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        name.symlink_to(tmp_path / "elsewhere")
    else:
        name.touch(0o600)
    chosen = Path(numba_cache.choose())
    assert chosen.parent == tmp_path and chosen != name
    assert chosen.is_dir() and chosen.stat().st_mode & 0o777 == 0o700
