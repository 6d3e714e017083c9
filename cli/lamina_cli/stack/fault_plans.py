"""Where a stack's plan of RPC faults comes from: `--fault-plan FILE`, or `LAMINA_FAULT_PLAN` in the environment."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

VARIABLE = "LAMINA_FAULT_PLAN"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--fault-plan`."""
    parser.add_argument(
        "--fault-plan",
        type=Path,
        metavar="FILE",
        help=f"plan of RPC faults between the layers, in TOML (default: ${VARIABLE}, or none)",
    )


def path_of(given: Path | None) -> Path | None:
    """Returns the file of the plan: the one given, or the environment's, or None; absolute."""
    text = os.environ.get(VARIABLE, "")
    found = given or (Path(text) if text else None)
    return found.absolute() if found is not None else None


def read(given: Path | None) -> dict[str, Any] | None:
    """Returns the plan as a table, checked; None when there is none.

    Raises:
        NotFound: `CONFIG_NOT_FOUND`.
        InvalidArgument: `CONFIG_MALFORMED` or `FAULT_PLAN_INVALID`.
    """
    from lamina_kit.config import read_file
    from lamina_kit.faults.plan import FaultPlan
    from lamina_kit.rng import Rng

    path = path_of(given)
    if path is None:
        return None
    table = read_file(path)
    FaultPlan.parse(table, Rng(0))
    return table
