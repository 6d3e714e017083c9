"""One thread a core: takes work, runs it without the GIL, reports back to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue

from lamina_hardware.engines.interface import CoreEngine, CoreRun, Stopped

Report = Callable[[int, Stopped | BaseException, int], None]
"""Called on the event loop with the core's number, how it stopped (or what went wrong), and the time it took in ns."""


class CoreThread:
    """The thread of one core. `run` hands it work; one piece at a time."""

    def __init__(
        self, number: int, core: CoreEngine, now_ns: Callable[[], int], loop: asyncio.AbstractEventLoop, report: Report
    ) -> None:
        self._number = number
        self._core = core
        self._now_ns = now_ns
        self._loop = loop
        self._report = report
        self._work: SimpleQueue[CoreRun | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"lamina-core-{number}", daemon=True)
        self._thread.start()

    def run(self, work: CoreRun) -> None:
        """Has the core run `work`; the report comes later."""
        self._work.put(work)

    def stop(self) -> None:
        """Ends the thread; waits for it. Ask the core to cancel first."""
        self._work.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            began = self._now_ns()
            outcome: Stopped | BaseException
            try:
                outcome = self._core.run(work)
            except BaseException as error:  # handed to the loop, which fails the run with it
                outcome = error
            took = self._now_ns() - began
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._report, self._number, outcome, took)
