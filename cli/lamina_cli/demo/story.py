"""The demo as a sequence of chapters; each line that claims something is a check that can fail."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TextIO

from lamina_cli.output import printing

INDENT = "   "


class Story:
    """Prints the chapters and counts the checks."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.passed = 0
        self.failed: list[str] = []
        self._out = out if out is not None else sys.stdout
        self._chapter = 0
        self._start = time.monotonic()

    def chapter(self, title: str) -> None:
        """Begins a chapter."""
        self._chapter += 1
        print(f"\n{self._chapter}. {title}", file=self._out, flush=True)

    def show(self, text: str = "") -> None:
        """Prints lines of output, indented; the empty text prints an empty line."""
        for line in text.splitlines() or [""]:
            print(f"{INDENT}{line}".rstrip(), file=self._out, flush=True)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Prints a table, indented."""
        printing.table(headers, rows, out=_Indented(self._out))  # type: ignore[arg-type]

    def check(self, claim: str, holds: bool, otherwise: str = "") -> bool:
        """Prints a claim with its verdict. `otherwise` says what was found when it does not hold. Returns `holds`."""
        if holds:
            self.passed += 1
            print(f"{INDENT}✓ {claim}", file=self._out, flush=True)
        else:
            self.failed.append(f"{self._chapter}. {claim}")
            found = f" (found: {otherwise})" if otherwise else ""
            print(f"{INDENT}✗ {claim}{found}", file=self._out, flush=True)
        return holds

    def equal(self, claim: str, found: object, expected: object) -> bool:
        """Checks that two values are equal and names both when they are not."""
        return self.check(claim, found == expected, f"{found!r}, expected {expected!r}")

    def end(self) -> int:
        """Prints the verdict. Returns the exit status: 0 only if every check held."""
        seconds = time.monotonic() - self._start
        print(file=self._out)
        for claim in self.failed:
            print(f"did not hold: {claim}", file=self._out)
        total = self.passed + len(self.failed)
        print(f"{self.passed} of {total} checks hold, {seconds:.1f} s", file=self._out, flush=True)
        return 1 if self.failed else 0


class _Indented:
    """A stream whose lines begin with the indent."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._fresh = True

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            self._out.write((INDENT if self._fresh and line.strip() else "") + line)
            self._fresh = line.endswith("\n")
        return len(text)
