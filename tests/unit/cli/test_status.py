"""What `lamina status` says of a layer that does not answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lamina_cli.client import home
from lamina_cli.commands.stack.status import known_process, missing

SAID = "Port 50052 is in use."


def record(**process: Any) -> home.StackRecord:
    """Returns the record of a stack whose MMU is in this state."""
    own = {"pid": 0, "start_ticks": -1, "restarts": 0, "state": "starting", "message": "", **process}
    return home.StackRecord("default", 1, -1, "h1", {"mmu": "unix:/m"}, topology="split", processes={"mmu": own})


@pytest.mark.parametrize(
    ("process", "told"),
    [
        ({"state": "starting"}, {"problem": "no answer"}),
        ({"state": "starting", "message": SAID}, {"problem": f"{SAID} It is starting again."}),
        ({"state": "serving"}, {"problem": "Its process 0 does not answer at unix:/m: no answer"}),
        (
            {"state": "serving", "pid": 2**22 + 1, "start_ticks": 7},
            {"problem": f"Its process {2**22 + 1} has just ended; the supervisor starts it again."},
        ),
    ],
)
def test_the_best_known_reason_is_told(process: dict[str, Any], told: dict[str, str]) -> None:
    """The words of the process stand above those of the transport."""
    assert missing("mmu", record(**process), "no answer") == told


def test_a_pause_and_a_crash_loop_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """While it waits a process will come back; one that was given up needs somebody, who is told what to do."""
    monkeypatch.setenv("LAMINA_HOME", str(tmp_path))
    waits = missing("mmu", record(state="waiting", message=SAID), "no answer")
    assert SAID in waits["problem"] and "again in a moment" in waits["problem"]
    given_up = missing("mmu", record(state="failed", message=SAID, restarts=10), "no answer")
    assert given_up["state"] == "failed"
    for words in ("10 restarts", SAID, str(tmp_path / "default" / "logs" / "mmu.log"), "lamina up --split"):
        assert words in given_up["problem"]


def test_a_process_has_an_age_as_long_as_it_lives() -> None:
    """A living process is shown with pid and age; of one that ended neither is known."""
    own = {"pid": os.getpid(), "start_ticks": home.start_ticks(os.getpid())}
    alive = known_process("mmu", record(**own))
    assert alive["pid"] == os.getpid() and 0 <= alive["uptime_s"] < 10**6
    gone = known_process("mmu", record(pid=os.getpid(), start_ticks=own["start_ticks"] - 1))
    assert (gone["pid"], gone["uptime"], gone["uptime_s"]) == ("-", "-", None)
