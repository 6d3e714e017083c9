"""Which failed tests get a second trial, and why: `tests/second_trials.toml`."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina_tools.outcomes import FAILED, Outcome

TRIALS = Path("tests/second_trials.toml")
MOST = 3
"""Most failures of a run that are tried again: more of them have a cause in common, and that is ours."""


@dataclass(frozen=True)
class Trial:
    """One kind of test that stands on what is not ours."""

    test: str
    """Shell pattern of node ids."""
    why: str
    """What it stands on, for people."""


class TrialsMalformed(Exception):
    """The list of second trials cannot be understood; the message names the entry."""


def load(path: Path) -> list[Trial]:
    """Reads the list; raises TrialsMalformed for an entry that lacks a part or has one too many."""
    entries = tomllib.loads(path.read_text()).get("trial", []) if path.exists() else []
    for number, entry in enumerate(entries, 1):
        if set(entry) != {"test", "why"} or not all(isinstance(v, str) and v for v in entry.values()):
            raise TrialsMalformed(f"{path}: entry {number} needs exactly test and why, each a text: {entry}")
    return [Trial(**entry) for entry in entries]


def to_try_again(results: Sequence[Outcome], trials: Sequence[Trial]) -> list[str]:
    """Returns the failed tests of a run when each of them may be tried again and they are few; else none."""
    failed = [outcome.test for outcome in results if outcome.result == FAILED]
    allowed = [test for test in failed if any(fnmatch.fnmatchcase(test, trial.test) for trial in trials)]
    return failed if len(failed) <= MOST and len(allowed) == len(failed) else []
