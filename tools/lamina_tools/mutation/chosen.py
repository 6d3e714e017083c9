"""A pytest plugin that runs the tests that a file names, in its order, and tells which failed: `--chosen FILE`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FAILED = "failed"
"""Name of the file, beside the one with the tests, into which the failed ones are written, one a line."""


class Chooser:
    """Chooses among what was collected."""

    def __init__(self, path: Path) -> None:
        self._wanted = {test: place for place, test in enumerate(json.loads(path.read_text()))}
        self._failed = path.parent / FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keeps the tests that are wanted; all, when the mutant has renamed every one of them."""
        kept = sorted((i for i in items if i.nodeid in self._wanted), key=lambda item: self._wanted[item.nodeid])
        if kept:
            config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in self._wanted])
            items[:] = kept

    def _write(self, test: str) -> None:
        with self._failed.open("a") as out:
            out.write(f"{test}\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes a test that failed, in any phase."""
        if report.failed:
            self._write(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Notes a file that can no longer be imported."""
        if report.failed:
            self._write(report.nodeid)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option."""
    parser.addoption("--chosen", metavar="FILE", help="run the tests that FILE, a JSON list of node ids, names")


def pytest_configure(config: pytest.Config) -> None:
    """Chooses when the option is given."""
    if path := config.getoption("--chosen"):
        config.pluginmanager.register(Chooser(Path(path)), "lamina-chosen")
