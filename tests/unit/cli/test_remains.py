"""A new stack waits for the processes of one whose supervisor was killed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from lamina_cli.client import home
from lamina_cli.stack import orphans
from lamina_kit.errors import FailedPrecondition


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that goes on until it is killed."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def record(**processes: dict[str, Any]) -> home.StackRecord:
    """Returns the record of a stack with these processes, whose supervisor is gone."""
    return home.StackRecord("default", 1, -1, "h1", topology="split", processes=processes)


def test_nothing_is_waited_for_where_nothing_is_left(sleeper: subprocess.Popen[bytes]) -> None:
    """No record, a layer without a process, an ended process, and one that only has its number hold nobody up."""
    ticks = home.start_ticks(sleeper.pid)
    other = {"pid": sleeper.pid, "start_ticks": ticks - 1}
    never = {"pid": 0, "start_ticks": -1}
    assert orphans.left(record(mmu=other, vswitch=never)) == []
    sleeper.kill()
    sleeper.wait()
    orphans.wait_out(record(mmu={"pid": sleeper.pid, "start_ticks": ticks}))
    orphans.wait_out(None)


def test_what_does_not_end_is_named(sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """After the wait the processes and what ends them are told."""
    monkeypatch.setattr(orphans, "PATIENCE_SECONDS", 0.0)
    own = {"pid": sleeper.pid, "start_ticks": home.start_ticks(sleeper.pid)}
    with pytest.raises(FailedPrecondition) as caught:
        orphans.wait_out(record(mmu=own))
    assert caught.value.reason == "STACK_STILL_STOPS"
    assert f"kill -9 {sleeper.pid}" in caught.value.next_step


def test_a_process_is_known_by_more_than_its_number() -> None:
    """The test's own process is left of a record that names it with its start."""
    own = {"pid": os.getpid(), "start_ticks": home.start_ticks(os.getpid())}
    assert orphans.left(record(mmu=own)) == [os.getpid()]
