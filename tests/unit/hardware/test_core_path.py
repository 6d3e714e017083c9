"""Which verdicts of the walker core's self-test are kept."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from lamina_hardware.io.cores import path
from lamina_kit.bus import run_page


def _ends(*outcomes: Any) -> Any:
    left = list(outcomes)

    def run(*arguments: Any, **named: Any) -> Any:
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return run


def _done(last: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], code, stdout=f"{last}\n", stderr="")


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(path, "_cache_folder", lambda: tmp_path / "cache")


def test_a_self_test_that_came_to_an_end_is_not_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it found, good or bad, holds for the next start."""
    monkeypatch.setattr(subprocess, "run", _ends(_done("page faults differ", 1)))
    first = path.examine(tmp_path)
    assert (first.passed, first.reason) == (False, "page faults differ")
    assert path.examine(tmp_path) == first


def test_a_self_test_that_took_too_long_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that was busy once does not have the portable core for ever."""
    late = subprocess.TimeoutExpired("selftest", 300)
    monkeypatch.setattr(subprocess, "run", _ends(late, _done("ok")))
    busy = path.examine(tmp_path)
    assert not busy.passed and "did not end" in busy.reason
    assert path.examine(tmp_path).passed


@pytest.mark.parametrize("name", path.COMPILED_IN)
def test_a_verdict_ends_with_the_code_that_is_compiled_into_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A change there has compiled code forgotten: the self-test compiles it at the start, not the first run."""
    for file in path.COMPILED_IN:
        (tmp_path / file).write_text("before")
    monkeypatch.setattr(run_page, "__file__", str(tmp_path / "run_page.py"))
    before = path.fingerprint()
    assert path.fingerprint() == before
    (tmp_path / name).write_text("changed")
    assert path.fingerprint() != before
