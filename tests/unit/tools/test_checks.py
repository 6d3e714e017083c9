"""`./run check` and `./run bench`: every step runs, and what fails is told."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from lamina_tools import __main__ as words
from lamina_tools import bench, checks, testing, tree
from lamina_tools.contracts import ContractsFailed


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the steps by three, of which the first finds something and the second breaks; returns who ran."""
    ran: list[str] = []

    def step(name: str, findings: list[str]) -> list[str]:
        ran.append(name)
        return findings

    def broken() -> list[str]:
        ran.append("b")
        raise ContractsFailed("protoc says no")

    made = {"a": lambda: step("a", ["x.py:1: bad"]), "b": broken, "c": lambda: step("c", [])}
    monkeypatch.setattr(checks, "STEPS", made)
    return ran


def test_every_step_runs(steps: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A step that fails does not keep the next ones from running, and findings are told."""
    assert checks.main([], ("a", "b", "c")) == 1
    assert steps == ["a", "b", "c"]
    told = capsys.readouterr().out
    assert "    x.py:1: bad" in told
    assert "    protoc says no" in told
    assert told.splitlines()[-1] == "failed: a, b"


def test_a_long_step_runs_beside_the_others(
    steps: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It begins before the first of the others, is told after the last, and fails the run as they do."""
    began, other = threading.Event(), threading.Event()

    def first() -> list[str]:
        other.set()
        return [] if began.wait(10) else ["the long step did not begin"]

    def long() -> list[str]:
        began.set()
        return ["y.py:1: bad"] if other.wait(10) else []

    monkeypatch.setattr(checks, "STEPS", {"long": long, "first": first})
    monkeypatch.setattr(checks, "BESIDE", ("long",))
    assert checks.main([], ("long", "first")) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in told] == [
        ["first", "ok"],
        ["long", "FAILED"],
        ["y.py:1:", "bad"],
        ["failed:", "long"],
    ]


def test_some_steps_can_be_chosen(steps: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Named steps run alone."""
    assert checks.main(["c"]) == 0
    assert steps == ["c"]
    assert "everything is in order" in capsys.readouterr().out


def test_some_steps_can_be_left_out(steps: list[str]) -> None:
    """All others run, those that come to be later too."""
    assert checks.main(["--but", "a", "b"], ("a", "b", "c")) == 0
    assert steps == ["c"]
    assert checks.main(["--but", "d"]) == 2


def test_ci_leaves_out_what_its_tests_run() -> None:
    """The one step that CI does not run is a kind of test, and CI runs all kinds."""
    script = (tree.ROOT / ".ci/run").read_text()
    assert re.findall(r"./run check(.*?)(?: #.*)?$", script, re.MULTILINE) == [" --but style"]
    assert "./run test --all |" in script and "style" in testing.KINDS


def test_an_unknown_step_is_refused(steps: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A step that there is not is refused with the names of those that there are."""
    assert checks.main(["d"]) == 2
    assert steps == []
    assert "the steps are a, b, c" in capsys.readouterr().err


def test_a_tool_that_is_not_content_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tool prints is a finding only when it fails."""
    assert checks.tool("platform") == []
    assert checks.tool("no_such_tool")[-1].endswith("No module named no_such_tool")


def test_an_unknown_word_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A word that there is not is refused with the names of those that there are."""
    assert words.main(["build"]) == 2
    assert "test, check, gen, bench" in capsys.readouterr().err


def test_measurements_are_scripts(tmp_path: Path) -> None:
    """Each script below bench/ is a measurement; those with an underscore are shared code."""
    folder = tmp_path / "bench" / "network"
    folder.mkdir(parents=True)
    for name in ("core.py", "_timing.py", "calls.py", "README.md"):
        (folder / name).touch()
    assert list(bench.available(tmp_path).items()) == [("calls", folder / "calls.py"), ("core", folder / "core.py")]


def test_measurements_have_names_of_their_own() -> None:
    """No two measurements share a name, whatever folders they lie in."""
    scripts = [path for path in (tree.ROOT / "bench").rglob("*.py") if not path.name.startswith("_")]
    assert len(bench.available()) == len(scripts) > 0


def test_an_unknown_measurement_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A measurement that there is not is refused."""
    assert bench.main(["no-such"]) == 2
    assert "no measurement 'no-such'" in capsys.readouterr().err


def test_made_folders_are_left_out(tmp_path: Path) -> None:
    """Environments, whatever they are called, and caches do not belong to the tree."""
    made = ("env/pyvenv.cfg", "env/lib/b.py", "kit/__pycache__/a.pyc", ".git/config", "x.egg-info/PKG-INFO")
    for path in ("kit/a.py", *made):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert [str(path) for path in tree.files(tmp_path)] == ["kit/a.py"]


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("kit/lamina_kit/bus/memory.py", "lamina_kit.bus.memory"),
        ("services/container-runtime/lamina_container_runtime/domain/__init__.py", "lamina_container_runtime.domain"),
        ("tests/conftest.py", None),
    ],
)
def test_modules_have_the_name_of_their_path(path: str, module: str | None) -> None:
    """A file on a source root is imported under the rest of its path; others have no name."""
    assert tree.module_name(Path(path)) == module
