"""A pytest plugin that records which tests execute which line. The folder comes from the environment.

A line belongs to the test that runs. What a fixture executes that several tests share belongs to the fixture, so to all
tests that use it; what runs while modules are imported belongs to nobody.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

from lamina_tools.mutation import hook

NOBODY = ""


def fixture_context(name: str, scope: str, test: str) -> str:
    """Returns the context of a shared fixture: one a file for those of classes and modules, else one for all."""
    return f"@{name} {test.partition('::')[0] if scope in ('class', 'module') else ''}"


class Recorder:
    """Switches the context as tests and shared fixtures begin and end."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder = folder
        self._contexts = [NOBODY]
        self._coverage = coverage.Coverage(str(folder / f"lines.{os.getpid()}"), source=[source], config_file=False)
        self._coverage.start()

    def _switch(self) -> None:
        self._coverage.switch_context(self._contexts[-1])
        os.environ[hook.CONTEXT] = self._contexts[-1]
        if self._contexts[-1] == NOBODY:
            del os.environ[hook.CONTEXT]

    def _within(self, context: str) -> Iterator[None]:
        self._contexts.append(context)
        self._switch()
        try:
            yield
        finally:
            self._contexts.pop()
            self._switch()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """A test with what belongs to it alone."""
        yield from self._within(item.nodeid)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: pytest.FixtureRequest) -> Iterator[None]:
        """A fixture that others use too."""
        if fixturedef.scope == "function":
            yield
        else:
            yield from self._within(fixture_context(fixturedef.argname, fixturedef.scope, self._contexts[-1]))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Writes which tests use which shared fixture."""
        users: dict[str, list[str]] = {}
        for item in items:
            info: Any = getattr(item, "_fixtureinfo", None)
            for name, found in (info.name2fixturedefs if info else {}).items():
                for scope in {fixture.scope for fixture in found} - {"function"}:
                    users.setdefault(fixture_context(name, scope, item.nodeid), []).append(item.nodeid)
        (self._folder / f"users.{os.getpid()}.json").write_text(json.dumps(users))

    def pytest_sessionfinish(self) -> None:
        """Writes the lines."""
        self._coverage.stop()
        self._coverage.save()


def pytest_configure(config: pytest.Config) -> None:
    """Starts to record, in the processes that run tests."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        recorder = Recorder(Path(os.environ[hook.LINES]), os.environ[hook.SOURCE])
        config.pluginmanager.register(recorder, "lamina-recorder")
