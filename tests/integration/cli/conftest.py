"""Runs the `lamina` command as people do, on a stack of the tests' own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.ports import take

from lamina_cli import main

PORTS = 11
"""Those of two hosts and an orchestrator."""


@dataclass(frozen=True)
class Lamina:
    """The command with a home of its own."""

    home: Path

    def run(self, *words: str, expect: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs one command, which has to end with the status `expect`. Returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "lamina_cli.main", *words],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=120,
            env={**os.environ, "LAMINA_HOME": str(self.home)},
        )
        assert done.returncode == expect, f"{words}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def here(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs one command as `run` does, in this process: without the start of another it costs a fifth.

        For commands that only call layers, in tests without a loop of their own.
        """
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as changed, redirect_stdout(out), redirect_stderr(err):
            changed.setenv("LAMINA_HOME", str(self.home))
            changed.setenv("GRPC_VERBOSITY", "NONE")  # what the command would set, and leave
            try:
                status = main.main(words)
            except SystemExit as misused:
                status = int(misused.code or 0)
            finally:
                structlog.reset_defaults()  # its log goes to the standard error of the command, which ends here
        assert status == expect, f"{words}: status {status}\n{out.getvalue()}\n{err.getvalue()}"
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts one command, with its output on a pipe. Ctrl-C ends it, also where the tests run in the background."""
        return subprocess.Popen(
            [sys.executable, "-m", "lamina_cli.main", *words],
            stdout=subprocess.PIPE,
            env={**os.environ, "LAMINA_HOME": str(self.home)},
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def json(self, *words: str) -> Any:
        """Runs a command with `-o json`. Returns what it printed."""
        return json.loads(self.run(*words, "-o", "json").stdout)


def free_ports() -> int:
    """Returns the first of some ports in a row that nobody listens on."""
    return take(PORTS)


@pytest.fixture
def ports() -> int:
    """The first of some free ports in a row."""
    return free_ports()


@pytest.fixture
def lamina(tmp_path: Path) -> Iterator[Lamina]:
    """The command with an empty home; a stack that the test left up is stopped."""
    command = Lamina(tmp_path)
    yield command
    if (tmp_path / "default" / "stack.json").exists():
        command.run("down")


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lamina]:
    """The command with a stack that is up for all tests that leave it as they found it."""
    with running(tmp_path_factory) as command:
        yield command


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lamina]:
    """The command with a stack that is up for the tests of a module, which break it."""
    with running(tmp_path_factory) as command:
        yield command


@contextmanager
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lamina]:
    """Has a stack up for a `with` block."""
    command = Lamina(tmp_path_factory.mktemp("home"))
    command.run("up", "--port", str(free_ports()))
    yield command
    command.run("down")
