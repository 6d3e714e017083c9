"""Where a stack keeps its files and how it is found again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina_cli.client import home
from lamina_kit.errors import DataLoss, FailedPrecondition, InvalidArgument


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives each test a home of its own."""
    monkeypatch.setenv("LAMINA_HOME", str(tmp_path))
    return tmp_path


def make_record(pid: int, ticks: int) -> home.StackRecord:
    """Returns a record of a stack run by a process."""
    return home.StackRecord(name="default", pid=pid, start_ticks=ticks, host="h1", targets={"mmu": "127.0.0.1:50052"})


def test_a_record_is_read_as_it_was_written() -> None:
    """Writing and reading a record returns the same one."""
    record = make_record(os.getpid(), home.start_ticks(os.getpid()))
    home.write_record(record)
    assert home.read_record() == record
    assert home.running() == record


def test_a_dead_stack_is_not_up() -> None:
    """A record whose process is gone, or whose pid another process has now, means no stack."""
    home.write_record(make_record(os.getpid(), home.start_ticks(os.getpid()) - 1))
    with pytest.raises(FailedPrecondition) as caught:
        home.running()
    assert caught.value.reason == "STACK_NOT_UP"
    assert "`lamina up`" in caught.value.next_step


def test_the_command_that_starts_a_stack_has_its_name() -> None:
    """What stands in an error can be typed as it is: a stack of another name than the usual one is named."""
    with pytest.raises(FailedPrecondition, match="no stack is up under the name 'two'") as caught:
        home.running("two")
    assert "`lamina up --stack two`" in caught.value.next_step


def test_no_record_means_no_stack() -> None:
    """Without a record the error names the command that starts a stack."""
    with pytest.raises(FailedPrecondition, match="no stack is up"):
        home.running("other")


def test_a_malformed_record_is_said_to_be_so(own_home: Path) -> None:
    """A record that is not JSON, or not a record, is an error that names the file."""
    home.record_path().parent.mkdir(parents=True)
    home.record_path().write_text('{"pid": "x"')
    with pytest.raises(DataLoss) as caught:
        home.read_record()
    assert str(own_home) in caught.value.next_step


def test_a_pid_that_no_process_has_started_never() -> None:
    """The start time of no process is -1."""
    assert home.start_ticks(2**22 + 1) == -1


def test_buses_of_dead_processes_are_swept(tmp_path: Path) -> None:
    """A memory bus whose process is gone is removed; those of live processes and other files stay."""
    dead = tmp_path / f"lamina-{os.getuid()}-{2**22 + 1}-h1.ram"
    alive = tmp_path / home.bus_name("h1")
    other = tmp_path / f"lamina-{os.getuid()}-notes.ram"
    for path in (dead, alive, other):
        path.touch()
    home.sweep_buses(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, other])


@pytest.mark.parametrize("name", ["../outside", "a/b", "", "Big", "x" * 80])
def test_a_stacks_name_leads_nowhere_else(name: str) -> None:
    """A name that is no identifier is refused: it could lead out of the home."""
    with pytest.raises(InvalidArgument) as caught:
        home.stack_dir(name)
    assert caught.value.reason == "STACK_NAME_INVALID"
