"""`./run mutate` from its arguments to its answer: what is recorded, tried, distrusted and told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lamina_tools import warm
from lamina_tools.mutation import command, process, recording, rooms, sample, trial
from lamina_tools.mutation.mutants import Mutant, mutant, places
from lamina_tools.mutation.recording import NotRecorded, Recording
from lamina_tools.mutation.rooms import Room
from lamina_tools.mutation.trial import KILLED, SURVIVED, Trials, Verdict

CODE = """from __future__ import annotations

LIMIT = 3


def is_small(number):
    return number < LIMIT


def twice(number):
    return 2 * number


def never(number):
    return number - 1
"""
TESTS = """
from lamina_tiny import numbers

def test_small():
    assert numbers.is_small(2) and not numbers.is_small(3)

def test_twice():
    assert numbers.twice(0) == 0

def test_fails():
    assert numbers.twice(1) == 1
"""
TINY = Room("tiny", Path("kit/lamina_tiny"))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a checkout with one room, whose environment is empty."""
    for name, text in {
        "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--import-mode=importlib'\n",
        "kit/lamina_tiny/__init__.py": "",
        "kit/lamina_tiny/numbers.py": CODE,
        "tests/unit/tiny/test_numbers.py": TESTS,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for module in (process, recording, rooms, sample, trial, warm):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setitem(rooms.ROOMS, "tiny", TINY)
    return tmp_path


@pytest.mark.slow
def test_a_room_is_tried(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Changes that tests notice are killed by them, others survive, and the checkout stays as it is."""
    assert command.main(["tiny", "--count", "9", "--processes", "1", "--numbers", "-o", "json"]) == 1
    told = capsys.readouterr()
    found = {made["line"]: (made["result"], made["by"].rpartition("::")[2]) for made in json.loads(told.out)["mutants"]}
    assert found == {
        3: ("killed", "test_small"),
        7: ("killed", "test_small"),
        11: ("survived", "1 tests passed"),
        15: ("survived", "no test executes this line"),
    }
    assert "failed without a mutation: tests/unit/tiny/test_numbers.py::test_fails" in told.err
    assert (tree / "kit/lamina_tiny/numbers.py").read_text() == CODE


def test_a_recording_is_kept_for_a_state_of_the_tree(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are recorded again when the room's code, or a test of it, has changed; old recordings go."""
    made: list[Path] = []

    def record(room: Room, folder: Path, processes: int) -> None:
        made.append(folder)
        (folder / "outcomes.jsonl").write_text(json.dumps({"test": f"a.py::{len(made)}", "result": "passed"}) + "\n")

    monkeypatch.setattr(recording, "record", record)
    assert list(recording.recorded(TINY, 1).seconds) == list(recording.recorded(TINY, 1).seconds) == ["a.py::1"]
    (tree / "tests/unit/tiny/test_numbers.py").write_text(TESTS + "\n")
    assert list(recording.recorded(TINY, 1).seconds) == ["a.py::2"]
    for number in range(recording.KEPT):
        (tree / "kit/lamina_tiny/numbers.py").write_text(CODE + f"X = {number}\n")
        recording.recorded(TINY, 1)
    assert len(made) == 2 + recording.KEPT
    assert len(list((tree / "venv/mutation").iterdir())) == recording.KEPT


def test_a_recording_without_a_test_is_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When no test could run there is nothing to try, which is no success."""

    def record(room: Room, folder: Path, processes: int) -> None:
        raise NotRecorded("no test of tiny ran")

    monkeypatch.setattr(recording, "record", record)
    assert command.main(["tiny"]) == 2
    assert capsys.readouterr().err.endswith("run: no test of tiny ran\n")


def tiny_mutant(line: int, choice: str) -> Mutant:
    """Returns a mutant of the tiny room."""
    place = next(place for place in places(CODE.encode()) if place.line == line and choice in place.choices)
    made = mutant(Path("kit/lamina_tiny/numbers.py"), CODE.encode(), place, choice)
    assert made
    return made


def recorded_lines(lines: dict[int, set[str]]) -> Callable[[Recording, Path], dict[int, set[str]]]:
    """Returns a stand-in for what was recorded of every file."""
    return lambda recording, path: lines


def test_distrusted_tests_are_not_chosen(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that fails without a mutation is chosen for no mutant any more."""
    monkeypatch.setattr(Recording, "lines", recorded_lines({7: {"a.py::a", "a.py::b"}}))
    trials = Trials(Recording(tree, {"a.py::a": 1.0, "a.py::b": 1.0}, []), 10)
    assert trials.select(tiny_mutant(7, "<=")).tests == ("a.py::a", "a.py::b")
    trials.distrust(["a.py::a"])
    assert trials.select(tiny_mutant(7, "<=")).tests == ("a.py::b",)


def test_compiled_modules_that_import_a_mutant_are_stale(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed constant makes machine code stale that was made of it, a change in an ordinary function does not."""
    (tree / "kit/lamina_tiny/fast.py").write_text("import numba\nfrom lamina_tiny import numbers\n")
    monkeypatch.setattr(Recording, "lines", recorded_lines({3: {""}, 7: {"a.py::a"}}))
    trials = Trials(Recording(tree, {"a.py::a": 1.0}, []), 10)
    assert trials.stale(tiny_mutant(3, "4")) == ["lamina_tiny.fast"]
    assert trials.stale(tiny_mutant(7, "<=")) == []


class Unsound(Trials):
    """Trials in which the first of two tests fails with or without a mutation."""

    def __init__(self) -> None:
        self.distrusted: list[str] = []

    def try_one(self, mutant: Mutant) -> Verdict:
        """The first test kills all, as long as it is trusted; the other one kills nothing."""
        return Verdict(mutant, SURVIVED, "1 tests passed", 1) if self.distrusted else Verdict(mutant, KILLED, "a", 2)

    def confirm(self, verdicts: Sequence[Verdict]) -> list[str]:
        """Finds the first test."""
        return sorted({verdict.by for verdict in verdicts} & {"a"})

    def distrust(self, tests: Sequence[str]) -> None:
        """Notes what is distrusted."""
        self.distrusted += tests


def test_what_an_unsound_test_killed_is_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A failure that has nothing to do with the mutant does not count, and is told."""
    mutants = [tiny_mutant(7, "<="), tiny_mutant(7, ">=")]
    found = command.try_all(Unsound(), mutants, 2, 0.0)
    assert [(verdict.mutant, verdict.result) for verdict in found] == [(made, SURVIVED) for made in mutants]
    assert "distrusted, because it fails without a mutation: a\n" in capsys.readouterr().err


def test_a_run_is_stopped_as_a_whole() -> None:
    """What a run has started ends with it; to stop one that has ended is no error."""
    script = "sleep 60 & echo $!; wait"
    running = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert running.stdout
    child = int(running.stdout.readline())
    process.stop(running)
    process.stop(running)
    assert running.stdout.read() == b"", "the child holds its output open"
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


@pytest.mark.slow
@pytest.mark.parametrize(("most_s", "hung"), [((1, 60), False), ((60, 5), True)], ids=["one test", "all"])
def test_what_hangs_is_ended(tree: Path, most_s: tuple[float, float], hung: bool) -> None:
    """A test that takes longer than it may fails by its name; a run that takes longer is stopped."""
    (tree / "tests/unit/tiny/test_numbers.py").write_text("import time\ndef test_hangs(): time.sleep(60)\n")
    tests = ["tests/unit/tiny/test_numbers.py::test_hangs"]
    with process.Scratch() as scratch:
        assert trial.run(tests, {}, scratch, most_s, []) == ((None, []) if hung else (1, tests))


def test_an_interrupted_search_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was started is ended and what waits is not begun, for neither hears of the interruption."""
    began: list[subprocess.Popen[bytes]] = []

    class Interrupted(Unsound):
        """Trials of which the first is interrupted while it runs."""

        def try_one(self, mutant: Mutant) -> Verdict:
            """Starts something that takes long."""
            began.append(subprocess.Popen(["sleep", "60"], start_new_session=True))
            monkeypatch.setattr(process, "_running", set(began))
            ready.set()
            began[-1].wait()
            return super().try_one(mutant)

    def interrupted(running: object) -> Iterator[Any]:
        ready.wait(30)
        raise KeyboardInterrupt
        yield

    ready = threading.Event()
    monkeypatch.setattr(command, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.try_all(Interrupted(), [tiny_mutant(7, "<=")] * 9, 1, 0.0)
    assert [child.returncode for child in began] == [-signal.SIGKILL]
