"""The console blocks of a page: what a reader types, and what the page says that comes back.

A block is fenced as `console`. A line that begins with `$ ` is a command; it goes on while lines end with a backslash,
and to the end of a here-document. The lines up to the next command are its output. HTML comments in front of a block,
which readers do not see, say more:

    <!-- needs: root, busybox -->     run only as root, and where there is such a program
    <!-- not run: REASON -->          never run here; the reason says who does
    <!-- varies: EXPRESSION -->       text that matches the regular expression is never twice the same
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FENCE = "```"
HERE = re.compile(r"<<'?(\w+)")
REMARK = re.compile(r"<!-- (needs|not run|varies): (.+) -->")


@dataclass(frozen=True)
class Step:
    """One command of a page, and its output."""

    line: int
    """Line of the page, from 1."""
    command: str
    """As bash reads it; may have several lines."""
    output: tuple[str, ...]
    """Empty where the page shows none, which says nothing of whether there is any."""


@dataclass(frozen=True)
class Block:
    """One console block of a page."""

    line: int
    steps: tuple[Step, ...]
    needs: tuple[str, ...] = ()
    """`root`, `kvm`, or the names of programs."""
    not_run: str = ""
    """Why nobody runs it here; empty for a block that is run."""
    varies: tuple[str, ...] = ()
    """Regular expressions of what is different each time."""


class PageMalformed(Exception):
    """A block of a page is not one; the message names the line."""


def blocks(text: str) -> tuple[Block, ...]:
    """Returns the console blocks of a page in order.

    Raises:
        PageMalformed: a block begins with output, or does not end.
    """
    found: list[Block] = []
    remarks: list[tuple[str, str]] = []
    opened, console = 0, False
    inside: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(FENCE) and not opened:
            opened, console, inside = number, line == FENCE + "console", []
        elif line.startswith(FENCE):
            if console:
                found.append(_block(opened, inside, remarks))
            opened, remarks = 0, []
        elif opened:
            inside.append(line)
        elif remark := REMARK.fullmatch(line):
            remarks.append((remark[1], remark[2]))
        elif line.strip():
            remarks = []
    if opened:
        raise PageMalformed(f"line {opened}: a block that does not end")
    return tuple(found)


def _block(line: int, inside: list[str], remarks: list[tuple[str, str]]) -> Block:
    return Block(
        line,
        tuple(_steps(line, inside)),
        tuple(word.strip() for kind, said in remarks if kind == "needs" for word in said.split(",")),
        "".join(said for kind, said in remarks if kind == "not run"),
        tuple(said for kind, said in remarks if kind == "varies"),
    )


def _steps(opened: int, inside: list[str]) -> list[Step]:
    steps: list[Step] = []
    continued, document = False, ""
    for number, line in enumerate(inside, opened + 1):
        if continued or document:
            last = steps[-1]
            steps[-1] = Step(last.line, f"{last.command}\n{line}", ())
        elif line.startswith("$ "):
            steps.append(Step(number, line[2:], ()))
        elif not steps:
            raise PageMalformed(f"line {number}: output without a command")
        else:
            last = steps[-1]
            steps[-1] = Step(last.line, last.command, (*last.output, line))
            continue
        begun = HERE.search(line)
        document = begun[1] if begun else "" if line == document else document
        continued = line.endswith("\\")
    return steps
