"""What a reload of the configuration came to, and how the process tells it to who asked.

A process is asked by SIGHUP, which carries nothing and returns nothing; so it writes its report beside its state, and
counts: who reads the number first, sends the signal, and then waits for a higher one, has the answer to that signal.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lamina_kit.errors import LaminaError

FILE = "reload.json"


@dataclass(frozen=True)
class Change:
    """One value that is another one now; `effect` says whether it is in force or needs a restart."""

    name: str
    old: str
    new: str
    effect: str

    def text(self) -> str:
        """Returns it as a line for people."""
        return f"{self.name}: {self.old or '(unset)'} -> {self.new or '(unset)'}, {self.effect}"


@dataclass(frozen=True)
class Reloaded:
    """The report of a reload. With a `reason` it was refused, and nothing has changed."""

    changes: tuple[Change, ...] = ()
    code: str = ""
    reason: str = ""
    message: str = ""
    next_step: str = ""

    @classmethod
    def refused(cls, error: LaminaError) -> Reloaded:
        """Returns the report of a reload whose configuration is wrong; each wrong field is named."""
        fields = "; ".join(f"{found.field} {found.description}" for found in error.violations)
        message = f"{error.message} {fields}" if fields and fields not in error.message else error.message
        return cls((), error.code, error.reason, message, error.next_step)


@dataclass(frozen=True)
class Written:
    """A report as it lies beside the state: the `number` of the reload since the process `pid` started."""

    number: int
    pid: int
    report: Reloaded


def write(folder: Path, number: int, pid: int, report: Reloaded) -> None:
    """Writes a report so that a reader sees all of it or the one before."""
    scratch = folder / f"{FILE}.new"
    scratch.write_text(json.dumps({"number": number, "pid": pid, "report": asdict(report)}) + "\n")
    scratch.replace(folder / FILE)


def read(folder: Path) -> Written | None:
    """Returns the newest report in a folder; None when there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return None
    report = found["report"]
    changes = tuple(Change(**change) for change in report.pop("changes"))
    return Written(found["number"], found["pid"], Reloaded(changes, **report))


class HangUp:
    """Reloads at SIGHUP, one reload after another, and writes each report into `folder`.

    `then`, when given, is told each report, for processes that have others to pass the signal on to.
    """

    def __init__(
        self,
        reload: Callable[[], Awaitable[Reloaded]],
        folder: Path,
        then: Callable[[Reloaded], None] = lambda report: None,
    ) -> None:
        self._reload = reload
        self._folder = folder
        self._then = then
        self._number = 0
        self._tasks: dict[asyncio.Task[None], None] = {}

    def install(self) -> None:
        """Takes the signal on the running loop."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._heard)

    def _heard(self) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(), name="reload")
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _answer(self) -> None:
        report = await self._reload()
        self._number += 1
        self._then(report)
        write(self._folder, self._number, os.getpid(), report)
