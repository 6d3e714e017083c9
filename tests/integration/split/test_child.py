"""One supervised process: started again when it dies, given up when it dies in a loop, ended by force when it must."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lamina_cli.client import home
from lamina_cli.stack import backoff
from lamina_cli.stack.child import Child, Command
from lamina_kit.errors import LaminaError

Make = Callable[[str], Child]


class Seen:
    """The states that a child went through."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.states: list[str] = []

    def note(self) -> None:
        """Notes the present state."""
        assert self.child is not None
        self.states.append(self.child.state)


@pytest.fixture
def seen() -> Seen:
    """What becomes of the child of the test."""
    return Seen()


@pytest.fixture
async def make(tmp_path: Path, seen: Seen, eventually: Any) -> AsyncIterator[Make]:
    """Makes the child of the test, which runs a line of shell; it serves when there is a file `serves`."""

    async def serves() -> None:
        await eventually((tmp_path / "serves").exists, "the process serves", within=600)

    def made(script: str) -> Child:
        command = Command("mmu", ("sh", "-c", script), {**os.environ, "DIR": str(tmp_path)}, tmp_path / "mmu.log")
        seen.child = Child(command, serves, seen.note)
        return seen.child

    yield made
    if seen.child is not None:
        await seen.child.stop(0.1)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes pauses short: what is tested is that they end, not how long they are."""
    monkeypatch.setattr(backoff, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(backoff, "LONGEST_PAUSE_S", 0.002)


async def test_a_killed_process_is_started_again(make: Make, seen: Seen, eventually: Any) -> None:
    """It gets another pid, the restart is counted, and the problem is forgotten once it serves."""
    child = make('touch "$DIR/serves"; exec sleep 600')
    child.start()
    await child.settled()
    first = child.pid
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: child.state == "serving" and child.pid != first, "it serves again")
    assert (child.restarts, child.problem) == (1, None)
    assert seen.states == ["starting", "serving", "waiting", "starting", "serving"]
    assert home.start_ticks(first) < 0 < home.start_ticks(child.pid)


@pytest.mark.usefixtures("quick")
async def test_a_crash_loop_is_told(make: Make, eventually: Any) -> None:
    """A process that dies whenever it starts is given up, with what it said last and how often it was tried."""
    child = make('echo "FAILED_PRECONDITION PORT_IN_USE: Port 7 is in use." >&2; exit 3')
    child.start()
    await eventually(lambda: child.state == "failed", "it is given up", within=60)
    assert child.restarts == backoff.MOST_DEATHS
    assert child.problem is not None
    assert (child.problem.code, child.problem.reason) == ("FAILED_PRECONDITION", "PORT_IN_USE")
    with pytest.raises(LaminaError, match="Port 7 is in use"):
        await child.settled()


async def test_wrong_flags_are_not_tried_again(make: Make, eventually: Any) -> None:
    """Status 2 means that the next start would say the same."""
    child = make('echo "INVALID_ARGUMENT CONFIG_KEY_UNKNOWN: There is no key colour." >&2; exit 2')
    child.start()
    await eventually(lambda: child.state == "failed", "it is given up")
    assert child.restarts == 0 and child.problem is not None and child.problem.reason == "CONFIG_KEY_UNKNOWN"


async def test_the_first_death_of_a_start_ends_it(make: Make) -> None:
    """While a stack starts, nothing is tried twice; a process that says nothing is told by its status and its log."""
    child = make("exit 7")
    child.give_up_early(True)
    child.start()
    with pytest.raises(LaminaError, match="status 7") as caught:
        await child.settled()
    assert caught.value.reason == "PROCESS_DIED" and str(child.command.log) in caught.value.next_step


@pytest.mark.usefixtures("quick")
async def test_a_process_that_cannot_be_made_is_told(make: Make, eventually: Any) -> None:
    """What the system refuses is a problem of the layer with a name, and is tried again like a death."""
    child = make("exit 0")
    child.command = Command("mmu", ("/no/such/program",), {}, child.command.log)
    child.start()
    await eventually(lambda: child.state == "failed", "it is given up", within=60)
    assert child.problem is not None and child.problem.reason == "PROCESS_UNSTARTABLE"


async def test_a_process_that_does_not_stop_is_killed(make: Make, seen: Seen) -> None:
    """One that ignores SIGTERM ends all the same, and is not started again."""
    child = make('trap "" TERM; touch "$DIR/serves"; while :; do sleep 0.01; done')
    child.start()
    await child.settled()
    pid = child.pid
    await child.stop(0.05)
    assert home.start_ticks(pid) < 0
    assert seen.states[-1] == child.state == "stopped"


async def test_a_signal_reaches_the_process_and_nobody_else(make: Make, seen: Seen, eventually: Any) -> None:
    """It gets the signal while it runs; one with its number that started at another time does not."""
    child = make('trap "touch \\"$DIR/told\\"" USR1; touch "$DIR/serves"; while :; do sleep 0.05; done')
    child.start()
    await child.settled()
    child.start_ticks += 1
    child.tell(signal.SIGKILL)
    child.start_ticks -= 1
    child.tell(signal.SIGUSR1)
    await eventually((child.command.log.parent / "told").exists, "it was told", within=60)
    assert child.state == "serving" and child.restarts == 0
