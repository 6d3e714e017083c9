"""Choosing the core path: the self-test's verdict, its file, and what follows from it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from lamina_hardware.io import core_path
from lamina_hardware.io.core_path import Verdict, choose, examine
from lamina_kit.errors import FailedPrecondition
from lamina_kit.membus import MemoryBus


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps verdicts out of the folder of compiled code."""
    monkeypatch.setattr(core_path, "_cache_folder", lambda: tmp_path / "none")
    return tmp_path


@pytest.fixture
def bus(tmp_path: Path) -> Any:
    """Returns a small RAM."""
    with MemoryBus.create(tmp_path / "ram", 4 << 20, run_pages=1) as made:
        yield made


def test_the_verdict_is_kept(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test runs once; its verdict is read from the state directory afterwards."""
    runs: list[int] = []

    def run() -> Verdict:
        runs.append(1)
        return Verdict(True, "passed")

    monkeypatch.setattr(core_path, "run_selftest", run)
    assert examine(alone) == examine(alone) == Verdict(True, "passed")
    assert runs == [1]
    monkeypatch.setattr(core_path, "fingerprint", lambda: "another library")
    assert examine(alone).passed
    assert runs == [1, 1]


def test_a_torn_file_is_no_verdict(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict file that cannot be read means testing again."""
    monkeypatch.setattr(core_path, "run_selftest", lambda: Verdict(False, "EIP is elsewhere"))
    (alone / "walker-selftest.json").write_text('{"key": ')
    assert examine(alone) == Verdict(False, "EIP is elsewhere")


def test_failing_means_portable_or_an_error(alone: Path, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `auto` a failed self-test gives the portable core and says why; with `walker` it is an error."""
    monkeypatch.setattr(core_path, "examine", lambda folder: Verdict(False, "EIP is elsewhere"))
    path = choose("auto", alone, bus)
    assert (path.name, path.reason) == ("portable", "the walker core's self-test failed: EIP is elsewhere")
    with pytest.raises(FailedPrecondition) as refused:
        choose("walker", alone, bus)
    assert refused.value.reason == "CORE_SELFTEST_FAILED"


def test_passing_means_walker(alone: Path, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a passed self-test `auto` gives the walker core; `portable` is given when asked for."""
    monkeypatch.setattr(core_path, "examine", lambda folder: Verdict(True, "passed"))
    assert choose("auto", alone, bus).name == "walker"
    assert choose("portable", alone, bus).name == "portable"


def test_a_crash_is_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A self-test that is killed by a signal fails with that signal's number."""
    crashed: subprocess.CompletedProcess[str] = subprocess.CompletedProcess([], -11, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: crashed)
    assert core_path.run_selftest() == Verdict(False, "it was killed by signal 11")
