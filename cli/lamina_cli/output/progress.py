"""Shows that long work goes on: a line that changes on a terminal, and one line a step elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class Line:
    """Progress of one piece of work, on standard error."""

    def __init__(self, work: str) -> None:
        self._work = work
        self._live = sys.stderr.isatty()
        self._start = time.monotonic()

    def step(self, what: str) -> None:
        """Shows what is being done."""
        text = f"{self._work}: {what} …"
        if self._live:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def done(self, outcome: str = "") -> None:
        """Ends the line with the time it took."""
        start = "\r\x1b[K" if self._live else ""
        outcome = outcome or f"done in {time.monotonic() - self._start:.1f} s"
        print(f"{start}{self._work}: {outcome}", file=sys.stderr, flush=True)

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done("failed" if kind is not None else "")
