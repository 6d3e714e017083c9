"""Prints page walks: every table entry visited on the way to an address."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina_cli.output import printing


def steps(walk: Iterable[Any]) -> None:
    """Prints the steps of a walk as a table."""
    printing.table(
        ("TABLE", "INDEX", "INPUT", "ENTRY AT", "ENTRY", "BITS"),
        (
            (
                step.table,
                step.index,
                f"{step.input_address:#x}",
                f"{step.entry_address:#x}",
                f"{step.entry:#018x}",
                " ".join(step.bits),
            )
            for step in walk
        ),
    )
