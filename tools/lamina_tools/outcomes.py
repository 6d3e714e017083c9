"""A pytest plugin that writes what became of every test, one JSON object a line: `--outcomes FILE`.

pytest's own reports give counts for people; `./run test` needs each skipped test with its reason, under xdist too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

PASSED, FAILED, SKIPPED, EXPECTED = "passed", "failed", "skipped", "expected failure"


@dataclass(frozen=True)
class Outcome:
    """What became of one test, or of one file that could not be collected."""

    test: str
    """Its node id, relative to the root: `tests/unit/kit/test_errors.py::test_reason`."""
    result: str
    reason: str = ""
    """Why it was skipped, or is expected to fail."""
    seconds: float = 0.0
    """How long it took, what it was set up with and torn down included."""


def read(path: Path) -> list[Outcome]:
    """Returns the outcomes in a file that the plugin wrote; none when there is no file. The last word on a test counts:
    a test that passed and failed to tear down has failed."""
    if not path.exists():
        return []
    found = [Outcome(**json.loads(line)) for line in path.read_text().splitlines()]
    return list({outcome.test: outcome for outcome in found}.values())


def seconds_by_file(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """Returns how long each file of tests took, the longest first."""
    seconds: dict[str, float] = {}
    for outcome in outcomes:
        file = outcome.test.partition("::")[0]
        seconds[file] = seconds.get(file, 0.0) + outcome.seconds
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


class Writer:
    """Writes the outcomes as the reports come in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, float] = {}
        self._last: dict[str, tuple[str, str]] = {}
        path.write_text("")

    def _write(self, test: str, result: str, reason: str = "") -> None:
        self._last[test] = (result, reason)
        with self._path.open("a") as out:
            out.write(json.dumps(asdict(Outcome(test, result, reason, self._seconds.get(test, 0.0)))) + "\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes what decided a test, and when it is over how long it took."""
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration
        self._decide(report)
        if report.when == "teardown":
            if report.nodeid in self._last:
                self._write(report.nodeid, *self._last[report.nodeid])
            self._seconds.pop(report.nodeid)

    def _decide(self, report: pytest.TestReport) -> None:
        """Notes what decided a test: a skip or a failure in any phase, or a call that passed."""
        expected = getattr(report, "wasxfail", None)
        if expected is not None and report.skipped:
            self._write(report.nodeid, EXPECTED, expected.removeprefix("reason: "))
        elif report.skipped:
            self._write(report.nodeid, SKIPPED, skip_reason(report))
        elif report.failed:
            self._write(report.nodeid, FAILED)
        elif report.when == "call":
            self._write(report.nodeid, PASSED)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Notes files that skip themselves as a whole, and those that cannot be imported."""
        if report.skipped:
            self._write(report.nodeid, SKIPPED, skip_reason(report))
        elif report.failed:
            self._write(report.nodeid, FAILED)


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Returns the reason that a skipped test gave."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option that turns the plugin on."""
    parser.addoption("--outcomes", metavar="FILE", help="write what became of every test to FILE, as JSON lines")


def pytest_configure(config: pytest.Config) -> None:
    """Starts to write, in the process that hears of every test: not in the workers of xdist."""
    path = config.getoption("--outcomes")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer(Path(path)), "lamina-outcomes")
