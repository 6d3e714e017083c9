"""One supervised process: started, watched, started again when it dies, and given up when it dies too often.

STARTING ──serves──▶ SERVING ──exits──▶ WAITING ──pause over──▶ STARTING
    └──────exits──────────────────────────▲  └──a crash loop, or status 2──▶ FAILED
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina_cli.client import home
from lamina_cli.stack.backoff import Backoff
from lamina_kit.errors import CLASSES, Internal, LaminaError
from lamina_kit.process.main import MISCONFIGURED
from lamina_kit.telemetry import log

_LAST_WORDS = re.compile(r"^([A-Z_]+) ([A-Z][A-Z0-9_]+): (.+)$")
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Command:
    """What to run: the words, the whole environment, and where standard output and error go."""

    layer: str
    words: Sequence[str]
    environ: Mapping[str, str]
    log: Path


class Child:
    """The process of one layer. `serves` returns once the layer serves; `on_change` is told every change of state."""

    def __init__(self, command: Command, serves: Callable[[], Awaitable[None]], on_change: Callable[[], None]) -> None:
        self.command = command
        self.state = "starting"
        self.pid = 0
        self.start_ticks = -1
        self.restarts = 0
        self.problem: LaminaError | None = None
        self._serves = serves
        self._on_change = on_change
        self._may_restart = True
        self._backoff = Backoff()
        self._serving_since: float | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._log = log.logger("supervisor")

    def start(self) -> None:
        """Starts the process and keeps it running."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=f"keep/{self.command.layer}")

    async def settled(self) -> None:
        """Returns once the layer serves.

        Raises:
            LaminaError: what the process said when it ended before it served, or that it is given up.
        """
        await self._settled.wait()
        if self.problem is not None and self.state != "serving":
            raise self.problem

    def give_up_early(self, early: bool) -> None:
        """Says whether the first death ends the attempts: at a stack's start a mistake is to be seen at once."""
        self._may_restart = not early

    def tell(self, number: int) -> None:
        """Sends a signal to the process; nothing when it has ended, even if another one has its number by now."""
        if home.start_ticks(self.pid) == self.start_ticks >= 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def stop(self, patience_s: float) -> None:
        """Ends the process in order; after `patience_s` by force. Idempotent."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            self._signal(process, signal.SIGTERM)
            try:
                async with asyncio.timeout(patience_s):
                    await process.wait()
            except TimeoutError:
                self._log.warning("process.killed", below=self.command.layer, pid=process.pid, after_s=patience_s)
                self._signal(process, signal.SIGKILL)
                await process.wait()
        self._move("stopped")

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self) -> None:
        while True:
            try:
                status = await self._once()
                self.problem = self._said(status)
            except OSError as error:
                status, self.problem = -1, self._unstartable(error)
            self._log.warning(
                "process.died", process=self.command.layer, pid=self.pid, status=status, reason=self.problem.reason
            )
            pause = self._backoff.died(self._served_s())
            if status == MISCONFIGURED or not self._may_restart or pause is None:
                self._move("failed")
                self._settled.set()
                return
            self._move("waiting")
            await asyncio.sleep(pause)
            self.restarts += 1

    async def _once(self) -> int:
        """Runs the process from its start to its end; returns its status, negative for a signal."""
        with self.command.log.open("ab") as sink:
            self._process = process = await asyncio.create_subprocess_exec(
                *self.command.words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=dict(self.command.environ),
            )
        self.pid = process.pid
        self.start_ticks = home.start_ticks(process.pid)
        self._move("starting")
        watch = asyncio.get_running_loop().create_task(self._until_serving())
        try:
            return await process.wait()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _until_serving(self) -> None:
        await self._serves()
        self.problem = None
        self._serving_since = asyncio.get_running_loop().time()
        self._move("serving")
        self._settled.set()

    def _served_s(self) -> float:
        """Returns how long the life that has just ended had served, in seconds."""
        since, self._serving_since = self._serving_since, None
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    def _said(self, status: int) -> LaminaError:
        """Returns what a process that ended had to say: the last line of its log, if that is an error of ours."""
        layer, path = self.command.layer, self.command.log
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        found = _LAST_WORDS.match(lines[-1]) if lines and status > 0 else None
        if found is not None:
            kind = next((known for known in CLASSES if known.code == found[1]), Internal)
            return kind(found[3], reason=found[2], layer=layer)
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return Internal(
            f"The process of the {layer} layer ended {how}.", reason="PROCESS_DIED", next_step=f"Its log is {path}."
        )

    def _unstartable(self, error: OSError) -> LaminaError:
        """Returns what is wrong when the system does not make the process, or its log."""
        layer, path = self.command.layer, self.command.log
        return Internal(
            f"The process of the {layer} layer cannot be started: {error}.",
            reason="PROCESS_UNSTARTABLE",
            next_step=f"Check memory, limits on processes, and that {path} can be written.",
        )

    def _move(self, state: str) -> None:
        self.state = state
        self._on_change()

    @staticmethod
    def _signal(process: asyncio.subprocess.Process, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
