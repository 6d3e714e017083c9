"""`./run mutate`: what is changed in a text, which tests are chosen, how the change reaches their processes."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from lamina_tools.mutation import chosen, hook, machine_code, process, report, rooms, sample, selection
from lamina_tools.mutation.mutants import Mutant, mutant, near, places
from lamina_tools.mutation.trial import KILLED, SURVIVED, Verdict, judge

TOOLS = str(Path(rooms.__file__).parents[2])


def changes(text: str) -> set[str]:
    """Returns every text that comes of one change of a text."""
    raw = text.encode()
    found = [mutant(Path("a.py"), raw, place, choice) for place in places(raw) for choice in place.choices]
    return {made.text.decode() for made in found if made}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a < b\n", {"a <= b\n", "a >= b\n"}),
        ("a == b\n", {"a != b\n"}),
        ("a is  not b\n", {"a is b\n"}),
        ("a in b\n", {"a not in b\n"}),
        ("x = (a +  # < not this\n     b)\n", {"x = (a -  # < not this\n     b)\n"}),
        ("a << b\n", {"a >> b\n"}),
        ("a |= b\n", {"a &= b\n"}),
        ("x = Some | b\n", {"x = Some & b\n"}),
        ("a and b or c\n", {"a or b or c\n", "a and b and c\n"}),
        ("x = True\n", {"x = False\n"}),
        ("x = 0x0f\n", {"x = 0x10\n", "x = 0x0e\n"}),
        ("x = 'ä', 9\n", {"x = 'ä', 10\n", "x = 'ä', 8\n"}),
        ("x = not (a)\n", {"x = (a)\n"}),
        ("if a(b):\n    c = d\n", {"if not (a(b)):\n    c = d\n"}),
        ("x = a if b else c\n", {"x = a if not (b) else c\n"}),
        ("x = [a for a in b if a]\n", {"x = [a for a in b if not (a)]\n"}),
        ("f(\n    a,\n)\ng = 0 * a\n", {"pass\n\n\ng = 0 * a\n", "f(\n    a,\n)\ng = 0 // a\n"}),
        ("async def f():\n    await g()\n", {"async def f():\n    pass\n"}),
        ("def f(a: int = 1) -> int: ...\n", {"def f(a: int = 2) -> int: ...\n", "def f(a: int = 0) -> int: ...\n"}),
    ],
)
def test_one_place_is_changed(text: str, wanted: set[str]) -> None:
    """Every kind of change is found at its place, and nothing else of the text changes."""
    found = changes(text)
    assert wanted <= found
    assert all(text.count("\n") == made.count("\n") for made in found)
    assert found == wanted or "0 *" in text  # the number beside the operator is another place


@pytest.mark.parametrize(
    "text",
    [
        "class A(Protocol):\n    def f(self, a: int = 1) -> int: ...\n",
        "x: Literal[1] = y\n",
        "Kind = Literal[1, 2]\n",
        "Either = int | None\n",
        "Either = Some | Other[Thing]\n",
        "x: object = Some | None | list[int]\n",
        "assert a == 1\n",
        "log.info('a', count=1)\n",
        "self._log.warning('a', not b)\n",
        "'''A text: 1 < 2.'''\n",
        "x = f'{a + 1:>{2}}'\n",
        "__slots__ = (1,)\n",
        "@dataclass(frozen=True)\nclass A:\n    a: int\n",
        "if TYPE_CHECKING:\n    x = 1\n",
        "if __name__ == '__main__':\n    main()\n",
        "x = 'a' + b\n",
        "x = zip(a, b, strict=True)\n",
        "x = field(repr=False)\n",
    ],
)
def test_what_no_test_could_notice_is_left_alone(text: str) -> None:
    """Annotations, protocols, decorators, assertions, the log and texts for people are no places."""
    ast.parse(text)
    assert changes(text) == set()


def test_a_change_that_gives_no_other_program_is_none() -> None:
    """A change that gives the same program, or none, makes no mutant."""
    text = b"x = 1\n"
    place = places(text)[0]
    assert mutant(Path("a.py"), text, place, "0x1") is None
    assert mutant(Path("a.py"), text, place, "(") is None


def test_numbers_stay_as_they_are_written() -> None:
    """The neighbours of a number have its base, its width and its underscores."""
    assert near(0x00FF, "0x00ff") == ("0x0100", "0x00fe")
    assert near(1_000, "1_000") == ("1_001", "999")
    assert near(0, "0") == ("1", "-1")
    assert near(0b11, "0b11") == ("0b100", "0b10")


FUNCTIONS = b"""LIMIT = 3

def plain(a, b=1):
    return a + b

@compiled
def fast(a):
    return (
        a
        * 2)
"""


def test_places_know_when_they_run() -> None:
    """Defaults run with the module, a function's body with its calls; decorators are noted, for they may compile it."""
    found = {FUNCTIONS[p.start : p.end].decode(): p for p in places(FUNCTIONS)}
    assert [(k, p.in_function, p.decorated, p.line, p.statement) for k, p in found.items()] == [
        ("3", False, False, 1, (1, 1)),
        ("1", False, False, 3, (3, 3)),
        ("+", True, False, 4, (4, 4)),
        ("*", True, True, 10, (8, 10)),
        ("2", True, True, 10, (8, 10)),
    ]


def test_a_mutant_shows_its_line() -> None:
    """Old and new are the whole line; of a call that goes, all its lines as one."""
    text = b"def f():\n    go(\n        1)\n    return 7\n"
    made = {place.kind: mutant(Path("a.py"), text, place, place.choices[0]) for place in places(text)}
    shown = {kind: (found.old, found.new, found.where) for kind, found in made.items() if found}
    assert shown["call removed"] == ("go( 1)", "pass", "a.py:2")
    assert shown["number"] == ("return 7", "return 8", "a.py:4")


def test_a_sample_is_repeatable_and_takes_no_line_twice() -> None:
    """The same seed draws the same mutants, another one others; every line with a place is drawn once at most."""
    texts = [(Path(f"{name}.py"), b"".join(b"x = %d + %d\n" % (n, n) for n in range(50))) for name in "ab"]
    drawn = sample.chosen(texts, 20, Random(1))
    assert drawn == sample.chosen(texts, 20, Random(1)) != sample.chosen(texts, 20, Random(2))
    assert len({made.where for made in drawn}) == 20
    assert {made.path.stem for made in drawn} == {"a", "b"}
    assert len(sample.chosen(texts, 1000, Random(1))) == 100


def test_rooms_hold_ordinary_sources() -> None:
    """Each room of the tree has code and tests; starters and generated files are no part of it."""
    for room in rooms.ROOMS.values():
        assert room.sources() and room.tests, room.name
        assert not [path for path in room.sources() if path.name.startswith("__")]
    assert not rooms.is_ordinary(Path("a.py"), b'"""Generated by a tool."""\nx = 1\n')
    assert not rooms.is_ordinary(Path("__main__.py"), b"x = 1\n")
    assert rooms.is_ordinary(Path("a.py"), b"x = 1\n")


# Which tests are chosen.

A, B, C, D = "a.py::a", "a.py::b", "c.py::c", "d.py::d"
SECONDS = {A: 3.0, B: 1.0, C: 1.0, D: 0.5}
LINES: Mapping[Path, dict[int, set[str]]] = {
    Path("fast.py"): {1: {""}, 3: {""}, 4: {B}},
    Path("user.py"): {1: {""}, 9: {C, A}},
    Path("other.py"): {1: {D}},
}


def select(line: int, compiled: bool = False, most_s: float = 100, text: bytes = FUNCTIONS) -> selection.Selection:
    """Returns the tests for the first place of a line of `fast.py`, which `user.py` imports."""
    place = next(p for p in places(text) if p.line == line)
    path, importers = Path("fast.py"), [Path("user.py")]
    return selection.select(place, path, LINES.__getitem__, importers, compiled, SECONDS, most_s)


def test_tests_that_executed_the_line_are_chosen() -> None:
    """A line of a function is tried by the tests that executed it, and by no others."""
    assert select(4) == selection.Selection((B,))


def test_what_an_import_executes_is_tried_by_all_that_use_the_module() -> None:
    """First come tests of the module, then those of modules that import it, the files with the quickest tests first."""
    assert select(1) == selection.Selection((B, C, A))


def test_machine_code_is_tried_by_those_that_import_it() -> None:
    """Nobody sees which test runs a compiled line; a line that is not compiled and never ran has no tests."""
    assert select(10, compiled=True).tests == (B, C, A)
    assert select(10).tests == ()


def test_a_line_inside_a_statement_counts_as_the_statement() -> None:
    """What Python attributes to another line of the same statement is executed all the same."""
    text = b"\n\ndef f(a):\n    return (a,\n        a + a)\n"
    assert select(5, text=text).tests == (B,)


def test_time_is_limited() -> None:
    """Tests beyond the time are left out and counted; the first one runs at any rate."""
    assert select(1, most_s=2.5) == selection.Selection((B, C), 1)
    assert select(1, most_s=0.1) == selection.Selection((B,), 2)


def judged(status: int | None, failed: list[str], seen: bool = True, left_out: int = 0) -> tuple[str, str]:
    """Returns the verdict on a run of two tests."""
    return judge(status, failed, selection.Selection((A, B), left_out), seen)


def test_verdicts() -> None:
    """A failure, a hang and a crash kill; a run that passed, or that never saw the mutant, does not."""
    assert judged(1, [A]) == (KILLED, A)
    assert judged(None, []) == (KILLED, "it had to be stopped: it hung")
    assert judged(-11, []) == (KILLED, "pytest ended with status -11")
    assert judged(0, [], left_out=3) == (SURVIVED, "2 tests passed; 3 more were left out for their time")
    assert judged(0, [], seen=False) == (SURVIVED, "no test imports this module")


# How the change reaches the tests.


def test_the_hook_hands_out_the_mutant(tmp_path: Path) -> None:
    """Every process imports the mutant's text for its module, whatever bytecode there is; the file stays as it is."""
    (tmp_path / "lib").mkdir()
    module = tmp_path / "lib" / "answer.py"
    module.write_text("VALUE = 1\n")
    (tmp_path / "lib" / "other.py").write_text("VALUE = 1\n")
    text = tmp_path / "mutant.py"
    text.write_text("VALUE = 2\n")
    paths = f"{hook.site_folder(tmp_path)}:{TOOLS}:{tmp_path / 'lib'}"
    ask = "import answer, other; print(answer.VALUE, other.VALUE)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}])"
    mutated = {"PYTHONPATH": paths, hook.MODULE: str(module), hook.TEXT: str(text)}
    for environment, wanted in (({"PYTHONPATH": paths}, "1 1"), (mutated, "2 1"), ({"PYTHONPATH": paths}, "1 1")):
        done = subprocess.run([sys.executable, "-c", child], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == wanted, done.stderr
    assert module.read_text() == "VALUE = 1\n"
    assert (tmp_path / hook.SEEN).exists()


SUITE = """
import subprocess, sys
import pytest
sys.path.insert(0, {lib!r})
import code_under

@pytest.fixture(scope="module")
def shared(): return code_under.shared()

def test_first(shared): assert shared == 1
def test_second(shared): assert code_under.own() == 2
def test_child(): subprocess.run([sys.executable, "-c", "import sys; sys.path.insert(0, {lib!r}); "
                                 "import code_under; code_under.child()"], check=True)
def test_fails(): assert not code_under.own()
"""
CODE = """
def shared():
    return 1
def own():
    return 2
def child():
    return 3
"""


def run_suite(folder: Path, plugin: str, environment: dict[str, str], *arguments: str) -> int:
    """Runs the suite with one of the tool's plugins; returns pytest's status."""
    (folder / "lib").mkdir(exist_ok=True)
    (folder / "lib" / "code_under.py").write_text(CODE)
    (folder / "test_suite.py").write_text(SUITE.format(lib=str(folder / "lib")))
    own = ["-p", f"lamina_tools.mutation.{plugin}", "--rootdir", str(folder), *arguments, str(folder / "test_suite.py")]
    with process.Scratch() as scratch:
        return process.pytest(["-n", "0", *own], environment, scratch, subprocess.DEVNULL).wait()


def test_lines_are_recorded_by_test(tmp_path: Path) -> None:
    """A line belongs to the tests that executed it, in a child of theirs too; a shared fixture's to all its users."""
    from lamina_tools.mutation import recording

    report_file = tmp_path / "outcomes.jsonl"
    environment = {hook.LINES: str(tmp_path), hook.SOURCE: str(tmp_path / "lib")}
    run_suite(tmp_path, "recorder", environment, "-p", "lamina_tools.outcomes", "--outcomes", str(report_file))
    found = recording.load(tmp_path)
    lines = {
        line: {test.rpartition("::")[2] for test in tests}
        for line, tests in found.lines(tmp_path / "lib" / "code_under.py").items()
    }
    assert {line: tests for line, tests in lines.items() if line in (3, 5, 7)} == {
        3: {"test_first", "test_second"},
        5: {"test_second"},
        7: {"test_child"},
    }
    assert recording.IMPORTED in lines[2]
    assert [test.rpartition("::")[2] for test in found.failed] == ["test_fails"]


def test_chosen_tests_run_in_the_wanted_order(tmp_path: Path) -> None:
    """Only what the file names runs, in its order, and what failed is written down."""
    wanted = tmp_path / "wanted.json"
    names = [f"test_suite.py::{name}" for name in ("test_fails", "test_first")]
    wanted.write_text(json.dumps(names))
    assert run_suite(tmp_path, "chosen", {}, "--chosen", str(wanted)) == 1
    assert (tmp_path / chosen.FAILED).read_text().splitlines() == ["test_suite.py::test_fails"]
    wanted.write_text(json.dumps(names[1:]))
    assert run_suite(tmp_path, "chosen", {}, "--chosen", str(wanted)) == 0


# Machine code.

MODULES = {
    "a.walker": "from numba import njit\nfrom a.layout import PRESENT\n",
    "a.layout": "from a import words\nPRESENT = 1\n",
    "a.words": "X = 1\n",
    "a.own": "from numba import njit\n",
}


def test_stale_machine_code_is_left_behind(tmp_path: Path) -> None:
    """The copy of the cache lacks what imports the mutant, and keeps what does not."""
    sources = {name: tmp_path / "a" / f"{name[2:]}.py" for name in MODULES}
    (tmp_path / "a").mkdir()
    for name, path in sources.items():
        path.write_text(MODULES[name])
    stale = machine_code.dependents("a.words", sources, ["a.own", "a.walker"])
    assert stale == ["a.walker"]
    assert machine_code.importers("a.words", sources) == ["a.layout"]
    cache = tmp_path / "cache" / "a_0123"
    cache.mkdir(parents=True)
    for name in ("walker.step-3.py311.nbi", "walker.step-3.py311.1.nbc", "own.f-1.py311.nbi", "walkers.f-1.py311.nbi"):
        (cache / name).write_text(name)
    (tmp_path / "cache" / "verdict.json").write_text("{}")
    machine_code.copy_without(tmp_path / "cache", stale, sources, tmp_path / "copy")
    copied = sorted(path.name for path in (tmp_path / "copy").rglob("*") if path.is_file())
    assert copied == ["own.f-1.py311.nbi", "walkers.f-1.py311.nbi"]


def test_only_what_is_compiled_or_imported_reaches_machine_code() -> None:
    """The body of an ordinary function does not, not even beside compiled ones."""
    found = {FUNCTIONS[p.start : p.end].decode(): p for p in places(FUNCTIONS)}
    assert machine_code.concerns(found["3"], "a", [], False)
    assert machine_code.concerns(found["*"], "a", ["a"], False)
    assert not machine_code.concerns(found["*"], "a", ["b"], False)
    assert not machine_code.concerns(found["+"], "a", ["a"], False)
    assert machine_code.concerns(found["+"], "a", ["a"], True)


# What is told.


def some_verdicts() -> list[Verdict]:
    """Returns a killed mutant and a survivor."""
    text = b"x = 1\n"
    made: list[Mutant] = [m for m in (mutant(Path("a.py"), text, p, c) for p in places(text) for c in p.choices) if m]
    return [Verdict(made[0], KILLED, A, 2, 0.51), Verdict(made[1], SURVIVED, "2 tests passed", 2)]


def test_the_table_tells_the_sum_and_the_survivors() -> None:
    """Each mutant is a row, each survivor is shown with its lines, and the last line is the sum."""
    told = report.table(some_verdicts())
    assert "number  a.py:1  x = 1 → x = 2  killed by a.py::a" in told
    assert "  a.py:1: number (2 tests passed)\n    - x = 1\n    + x = 0\n" in told
    assert told.endswith("1 of 2 mutants were killed: 50 %")


def test_json_tells_the_same() -> None:
    """Programs get every mutant and the sum."""
    told = json.loads(report.as_json("net", 7, some_verdicts()))
    assert (told["room"], told["seed"], told["killed"], told["count"], told["percentage"]) == ("net", 7, 1, 2, 50.0)
    assert told["mutants"][0] == {
        "kind": "number", "file": "a.py", "line": 1, "old": "x = 1", "new": "x = 2",
        "result": "killed", "by": A, "tests": 2, "seconds": 0.5,
    }  # fmt: skip


def test_numbers_are_changed_when_that_is_asked_for() -> None:
    """Without `numbers` a sample changes what decides and computes, and no number."""
    texts = [(Path("a.py"), b"LIMIT = 4096\n\ndef f(a):\n    return a + LIMIT\n")]
    assert [m.place.line for m in sample.chosen(texts, 9, Random(1), numbers=False)] == [4]
    assert sorted(m.place.line for m in sample.chosen(texts, 9, Random(1))) == [1, 4]
