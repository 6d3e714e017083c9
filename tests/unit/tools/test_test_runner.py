"""`./run test`: what runs, what is counted, which skips are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lamina_tools import outcomes, skips, testing, trials
from lamina_tools.outcomes import EXPECTED, FAILED, PASSED, SKIPPED, Outcome
from lamina_tools.skips import Allowed, AllowedSkipsMalformed
from lamina_tools.testing import Options, Run
from lamina_tools.trials import Trial, TrialsMalformed

TOOLS = str(Path(outcomes.__file__).parents[1])
SUITE = """
import pytest

@pytest.fixture
def breaks_at_the_end():
    yield
    raise RuntimeError

def test_passes(): assert True
def test_fails(): assert False
def test_skips(): pytest.skip("needs root")
@pytest.mark.skipif(True, reason="needs KVM")
def test_marked(): assert False
@pytest.mark.xfail(reason="model differs", strict=True)
def test_expected(): assert False
@pytest.mark.xfail(reason="no longer", strict=True)
def test_unexpected(): assert True
def test_breaks(breaks_at_the_end): assert True
"""

SLOW = """
import pytest, time

@pytest.fixture
def slow():
    time.sleep(0.01)
    yield
    time.sleep(0.01)

def test_takes(slow): time.sleep(0.01)
def test_breaks(slow): assert False
"""


def run_pytest(folder: Path, *arguments: str) -> dict[str, Outcome]:
    """Runs pytest on a folder with the plugin; returns the outcomes by test name."""
    report = folder / "report.jsonl"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "lamina_tools.outcomes", "--outcomes", str(report)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    subprocess.run(
        [*command, "--rootdir", str(folder), "-c", os.devnull, "--continue-on-collection-errors", *arguments, "."],
        cwd=folder,
        env=environment | {"PYTHONPATH": TOOLS},
        stdout=subprocess.DEVNULL,
    )
    return {outcome.test.rpartition("::")[2]: outcome for outcome in outcomes.read(report)}


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_every_outcome_is_written(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """The plugin tells passes, failures, skips with reasons and expected failures apart, with and without xdist."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    found = run_pytest(tmp_path, *arguments)
    assert {name: (outcome.result, outcome.reason) for name, outcome in found.items()} == {
        "test_passes": (PASSED, ""),
        "test_fails": (FAILED, ""),
        "test_skips": (SKIPPED, "needs root"),
        "test_marked": (SKIPPED, "needs KVM"),
        "test_expected": (EXPECTED, "model differs"),
        "test_unexpected": (FAILED, ""),
        "test_breaks": (FAILED, ""),
    }


def test_how_long_a_test_took_is_written(tmp_path: Path) -> None:
    """The time counts what a test was set up with and torn down, whatever became of it."""
    (tmp_path / "test_slow.py").write_text(SLOW)
    found = run_pytest(tmp_path)
    assert 0.03 <= found["test_takes"].seconds < 10
    assert found["test_takes"].result == PASSED
    assert found["test_breaks"].seconds >= 0.02
    assert found["test_breaks"].result == FAILED


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_files_that_skip_or_break_are_written(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A file that skips itself as a whole is a skip, one that cannot be imported is a failure."""
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.skip('needs Docker', allow_module_level=True)\n")
    (tmp_path / "test_broken.py").write_text("import no_such_module\n")
    found = run_pytest(tmp_path, *arguments)
    assert found["test_whole.py"] == Outcome("test_whole.py", SKIPPED, "needs Docker")
    assert found["test_broken.py"].result == FAILED


def test_the_last_word_on_a_test_counts(tmp_path: Path) -> None:
    """A test that passed and then broke at its end has failed."""
    lines = [{"test": "a", "result": PASSED}, {"test": "a", "result": FAILED}, {"test": "b", "result": PASSED}]
    (tmp_path / "report").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert outcomes.read(tmp_path / "report") == [Outcome("a", FAILED), Outcome("b", PASSED)]


def test_no_report_has_no_outcomes(tmp_path: Path) -> None:
    """When pytest could not even start there are no outcomes."""
    assert outcomes.read(tmp_path / "report") == []


def test_the_list_of_skips_is_read(tmp_path: Path) -> None:
    """An entry covers a skip when both its pattern and its reason fit."""
    path = tmp_path / "allowed.toml"
    path.write_text('[[skip]]\ntest = "tests/linux/*"\nreason = "needs (root|KVM)"\nwhy = "not everywhere"\n')
    allowed = skips.load(path)
    assert allowed == [Allowed("tests/linux/*", "needs (root|KVM)", "not everywhere")]
    covered = Outcome("tests/linux/test_a.py::test_b", SKIPPED, "needs KVM here")
    others = [
        Outcome("tests/unit/test_a.py::test_b", SKIPPED, "needs KVM here"),
        Outcome("tests/linux/test_a.py::test_c", SKIPPED, "flaky"),
    ]
    passed = Outcome("tests/unit/test_a.py::test_d", PASSED)
    assert skips.unexpected([covered, *others, passed], allowed) == others


@pytest.mark.parametrize(
    "entry", ['test = "a"\nreason = "b"', 'test = "a"\nreason = "b"\nwhy = ""', 'test = "a"\nreason = "("\nwhy = "c"']
)
def test_a_malformed_entry_is_refused(tmp_path: Path, entry: str) -> None:
    """An entry without a reason why, or with a reason that is no pattern, is refused by its number."""
    path = tmp_path / "allowed.toml"
    path.write_text(f"[[skip]]\n{entry}\n")
    with pytest.raises(AllowedSkipsMalformed, match="entry 1"):
        skips.load(path)


def test_arguments_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own option, paths of tests and arguments of pytest are told apart."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_a.py").touch()
    options = testing.parse(["--all", "test_a.py::test_b", "-k", "swap"], {})
    assert options == Options(True, True, (str(tmp_path / "test_a.py::test_b"),), ("-k", "swap"))


@pytest.mark.parametrize(
    ("arguments", "environment", "everything", "strict"),
    [([], {}, False, False), ([], {"CI": "true"}, False, True), (["--all"], {}, True, True)],
)
def test_complete_runs_are_strict(
    arguments: list[str], environment: dict[str, str], everything: bool, strict: bool
) -> None:
    """--all and CI refuse unknown skips; --all alone adds kinds."""
    options = testing.parse(arguments, environment)
    assert (options.everything, options.strict) == (everything, strict)


def test_slow_tests_wait_for_all(tmp_path: Path) -> None:
    """Slow tests run with --all, when they are named, or when the caller selects by mark."""

    def selects(everything: bool, paths: tuple[str, ...], extra: tuple[str, ...]) -> bool:
        return "not slow" in testing.command("unit", ["x"], Options(everything, False, paths, extra), tmp_path, 1)

    assert selects(False, (), ())
    assert not selects(True, (), ())
    assert not selects(False, ("tests/unit/test_a.py",), ())
    assert not selects(False, (), ("-m", "slow"))


def test_kinds_run_in_parallel_where_it_pays(tmp_path: Path) -> None:
    """Two processes are used for kinds that are worth it, on more than one core, and not under a debugger."""

    def parallel(kind: str, cores: int, *extra: str) -> bool:
        return "loadfile" in testing.command(kind, ["x"], Options(False, False, (), extra), tmp_path, cores)

    assert parallel("unit", 2)
    assert not parallel("unit", 1)
    assert not parallel("style", 2)
    assert not parallel("unit", 2, "--pdb")


def test_what_waits_for_docker_runs_beside_what_needs_one_process() -> None:
    """On two cores kinds of one process come last, beside the one that waits; else all run in their order."""
    everything = Options(True, True, (), ())
    first, last = testing.in_turns(testing.KINDS + testing.MORE_KINDS, everything, 2)
    assert first == ["unit", "property", "contract", "integration", "simulation"]
    assert last == ["golden", "style", "linux", "e2e"]
    assert testing.in_turns(["style", "e2e"], everything, 1) == (["style", "e2e"], [])
    assert testing.in_turns(["style", "linux"], everything, 2) == (["style", "linux"], [])
    assert testing.in_turns(["style", "e2e"], Options(True, True, (), ("--pdb",)), 2) == (["style", "e2e"], [])


def test_a_kind_that_ran_beside_others_is_told_in_one_piece(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its output, errors too, comes after that of the others, and the runs are in the order of the kinds."""
    says = [sys.executable, "-c", "import sys; print(sys.argv[1]); print('and', sys.argv[1], file=sys.stderr)"]
    monkeypatch.setattr(testing, "command", lambda kind, *rest: [*says, kind])
    monkeypatch.setattr(testing, "has_tests", lambda kind: kind in ("unit", "style", "e2e", "linux"))
    monkeypatch.setattr(testing, "in_turns", lambda kinds, *rest: (["unit"], ["style", "linux", "e2e"]))
    runs = testing.run_all(Options(True, True, (), ()))
    assert [(run.kind, run.status) for run in runs] == [("unit", 0), ("style", 0), ("linux", 0), ("e2e", 0)]
    told = capfd.readouterr()
    assert "".join(told.out.split()) == "──unit──unit──style──style──linux──linux──e2e──e2eande2e"
    assert told.err == "and unit\nand style\nand linux\n"


def test_the_summary_closes_with_the_sum() -> None:
    """The summary tells each kind, each skip with its reason, and closes with a line for CI."""
    runs = [
        Run("unit", 1, 1.0, (Outcome("a", PASSED), Outcome("b", FAILED), Outcome("c", SKIPPED, "needs root"))),
        Run("golden", testing.NO_TESTS, 0.1, ()),
        Run("contract", 0, 0.1, (Outcome("d", EXPECTED, "differs"), Outcome("e", PASSED))),
    ]
    text = testing.summary(runs, [])
    assert "unit         1 passed, 1 failed, 1 skipped (1.0 s)" in text
    assert "golden       no tests" in text
    assert "  c: needs root" in text
    assert "  d: differs" in text
    assert text.splitlines()[-1] == "2 passed, 1 failed, 2 skipped"


def test_the_summary_names_the_files_that_took_long() -> None:
    """Times of a file's tests are added; files that took little are not told."""
    long = [Outcome(f"tests/unit/test_a.py::test_{n}", PASSED, seconds=6.0) for n in range(2)]
    longer = Outcome("tests/unit/test_c.py::test_d", FAILED, seconds=70.4)
    short = Outcome("tests/unit/test_b.py::test_c", PASSED, seconds=9.0)
    text = testing.summary([Run("unit", 1, 1.0, (*long, short, longer))], [])
    assert "longest files:\n  tests/unit/test_c.py: 70 s\n  tests/unit/test_a.py: 12 s\n\n" in text


def test_a_pytest_that_stops_is_a_failure() -> None:
    """When pytest itself stops and no test shows it, the sum does."""
    stopped = Run("unit", 3, 0.1, (Outcome("a", PASSED),))
    text = testing.summary([stopped], [])
    assert stopped.failed
    assert "pytest stopped with status 3" in text
    assert text.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"


def test_refused_skips_are_named() -> None:
    """A skip that nobody wrote down is named as such."""
    skip = Outcome("tests/unit/test_a.py::test_b", SKIPPED, "flaky")
    text = testing.summary([Run("unit", 0, 0.1, (skip,))], [skip])
    assert "skipped for a reason that tests/allowed_skips.toml does not list:\n  tests/unit/test_a.py::test_b" in text


def test_few_failures_on_the_kernel_are_tried_again() -> None:
    """Only when every failed test is of a listed kind and they are few; else none of them."""
    listed = [Trial("tests/*[[]*linux*", "the kernel's state")]
    kernel = [Outcome(f"tests/contract/test_a.py::test_{n}[real-linux]", FAILED) for n in range(trials.MOST + 1)]
    ours = Outcome("tests/contract/test_a.py::test_b[real-model]", FAILED)
    passed = Outcome("tests/contract/test_a.py::test_c[real-linux]", PASSED)
    assert trials.to_try_again([*kernel[:2], passed], listed) == [o.test for o in kernel[:2]]
    assert trials.to_try_again([*kernel[:1], ours], listed) == []
    assert trials.to_try_again(kernel, listed) == []


def test_a_second_trial_has_its_own_word() -> None:
    """A test that passes it is unstable and named; one that fails again leaves the run failed."""
    run = Run("contract", 1, 1.0, (Outcome("a", FAILED), Outcome("b", FAILED), Outcome("c", PASSED)))
    both = testing.after_trial(run, {"a", "b"})
    assert not both.failed and both.unstable == ("a", "b")
    assert "unstable, failed and then passed alone; mend them:\n  a\n  b" in testing.summary([both], [])
    one = testing.after_trial(run, {"a"})
    assert one.failed and testing.summary([one], []).splitlines()[-1] == "2 passed, 1 failed, 0 skipped"
    assert testing.after_trial(run, set()) == run


def test_a_malformed_trial_is_refused(tmp_path: Path) -> None:
    """An entry that does not say why is refused by its number."""
    path = tmp_path / "trials.toml"
    path.write_text('[[trial]]\ntest = "a"\n')
    with pytest.raises(TrialsMalformed, match="entry 1"):
        trials.load(path)
