"""Where compiled code is cached."""

from __future__ import annotations

import os
import tempfile

import pytest

from lamina_kit import numba_cache


@pytest.mark.parametrize(
    ("told", "writable", "chosen"),
    [
        (None, True, ""),
        (None, False, f"{tempfile.gettempdir()}/lamina-numba-{os.getuid()}"),
        ("/elsewhere", True, "/elsewhere"),
        ("/elsewhere", False, "/elsewhere"),
    ],
)
def test_the_folder_of_compiled_code(
    monkeypatch: pytest.MonkeyPatch, told: str | None, writable: bool, chosen: str
) -> None:
    """Beside the sources where they may be written, else a user's folder; what a user says stands above both."""
    monkeypatch.setenv(numba_cache.VARIABLE, "")  # has it put back
    monkeypatch.delenv(numba_cache.VARIABLE)
    if told is not None:
        monkeypatch.setenv(numba_cache.VARIABLE, told)
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    assert numba_cache.choose() == chosen
    assert os.environ.get(numba_cache.VARIABLE, "") == chosen
