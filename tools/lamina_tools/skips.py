"""Which tests may be skipped, and why: `tests/allowed_skips.toml`."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lamina_tools.outcomes import SKIPPED, Outcome

ALLOWED = Path("tests/allowed_skips.toml")


@dataclass(frozen=True)
class Allowed:
    """One kind of skip that is accepted where a complete run is asked for."""

    test: str
    """Shell pattern of node ids."""
    reason: str
    """Regular expression that is found in the reason."""
    why: str
    """Why this is acceptable, for people."""

    def covers(self, outcome: Outcome) -> bool:
        """Says whether a skipped test is of this kind."""
        return fnmatch.fnmatchcase(outcome.test, self.test) and re.search(self.reason, outcome.reason) is not None


class AllowedSkipsMalformed(Exception):
    """The list of allowed skips cannot be understood; the message names the entry."""


def load(path: Path) -> list[Allowed]:
    """Reads the list; raises AllowedSkipsMalformed for an entry that lacks a part or has one too many."""
    entries = tomllib.loads(path.read_text()).get("skip", []) if path.exists() else []
    allowed = []
    for number, entry in enumerate(entries, 1):
        if set(entry) != {"test", "reason", "why"} or not all(isinstance(v, str) and v for v in entry.values()):
            raise AllowedSkipsMalformed(
                f"{path}: entry {number} needs exactly test, reason and why, each a text: {entry}"
            )
        try:
            re.compile(entry["reason"])
        except re.error as failure:
            raise AllowedSkipsMalformed(
                f"{path}: entry {number}: reason is no regular expression: {failure}"
            ) from failure
        allowed.append(Allowed(**entry))
    return allowed


def unexpected(outcomes: Iterable[Outcome], allowed: Iterable[Allowed]) -> list[Outcome]:
    """Returns the skipped tests that no entry of the list covers."""
    entries = list(allowed)
    return [o for o in outcomes if o.result == SKIPPED and not any(entry.covers(o) for entry in entries)]
