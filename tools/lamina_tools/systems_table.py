"""Checks `docs/systems.md`: which of the systems S-01 … S-38 stand, where, and how to see them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TABLE = Path("docs/systems.md")
NUMBERS = tuple(f"S-{number:02d}" for number in range(1, 39))
STATES = ("stands", "part", "open")


@dataclass(frozen=True)
class Row:
    """One system: number, what it is, its state, the calls that serve it, code, tests, and a command."""

    number: str
    system: str
    state: str
    contract: str
    """Calls in back quotes: `mmu Spaces.Fault`; `planned_table` compares them with the contracts."""
    code: str
    test: str
    command: str


def rows(text: str) -> Iterator[Row]:
    """Yields the rows of the table; lines with another number of cells are not rows."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if re.fullmatch(r"S-\d\d", cells[0]) and len(cells) == 7:
            yield Row(*cells)


def paths(cell: str) -> list[str]:
    """Returns the paths that a cell names in back quotes; a test may be named behind `::`."""
    return [named.partition("::")[0] for named in re.findall(r"`([^`]+)`", cell)]


def findings(root: Path) -> list[str]:
    """Returns what is wrong with the table, one line a fault."""
    if not (root / TABLE).exists():
        return [f"{TABLE}: missing"]
    found = list(rows((root / TABLE).read_text()))
    numbers = [row.number for row in found]
    faults = [f"{TABLE}: no row for {number}" for number in NUMBERS if number not in numbers]
    faults += [f"{TABLE}: a second row for {n}" for n in NUMBERS if numbers.count(n) > 1]
    faults += [f"{TABLE}: there is no system {n}" for n in numbers if n not in NUMBERS]
    for row in found:
        faults += [f"{TABLE}: {row.number} {fault}" for fault in row_faults(root, row)]
    return faults


def row_faults(root: Path, row: Row) -> Iterator[str]:
    """Yields what is wrong with one row."""
    if row.state not in STATES:
        yield f"has the state {row.state!r}; there are {', '.join(STATES)}"
    for path in paths(row.code) + paths(row.test):
        if not (root / path).exists():
            yield f"names {path}, which does not exist"
    if row.state != "open":
        if not paths(row.code):
            yield f"is {row.state} but names no code"
        if not paths(row.test):
            yield f"is {row.state} but names no test"
        if "`" not in row.command:
            yield f"is {row.state} but no command shows it"
