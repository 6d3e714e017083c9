"""What `./run mutate` prints: a table and the survivors for people, or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lamina_tools.mutation.trial import KILLED, Verdict

WIDTH = 60
"""Characters of a changed expression that the table shows."""


def killed(verdicts: Sequence[Verdict]) -> int:
    """Returns how many mutants were killed."""
    return sum(verdict.result == KILLED for verdict in verdicts)


def percentage(verdicts: Sequence[Verdict]) -> float:
    """Returns the percentage of killed mutants; of no mutants all are killed."""
    return 100 * killed(verdicts) / len(verdicts) if verdicts else 100.0


def table(verdicts: Sequence[Verdict]) -> str:
    """Returns one row for each mutant, then the survivors by their place, then the sum."""
    rows = [(v.mutant.place.kind, v.mutant.where, change(v), told(v)) for v in verdicts]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    lines = ["  ".join((*(row[c].ljust(widths[c]) for c in range(3)), row[3])) for row in rows]
    survivors = [verdict for verdict in verdicts if verdict.result != KILLED]
    if survivors:
        lines += ["", "survivors:"]
        for verdict in survivors:
            lines.append(f"  {verdict.mutant.where}: {verdict.mutant.place.kind} ({verdict.by})")
            lines += [f"    - {verdict.mutant.old}", f"    + {verdict.mutant.new}"]
    lines += ["", f"{killed(verdicts)} of {len(verdicts)} mutants were killed: {percentage(verdicts):.0f} %"]
    return "\n".join(lines)


def change(verdict: Verdict) -> str:
    """Returns old and new text, cut to their difference."""
    old, new = verdict.mutant.old, verdict.mutant.new
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    first = max(0, same - WIDTH // 3)
    return f"{cut(old, first)} → {cut(new, first)}"


def cut(text: str, first: int) -> str:
    """Returns a part of a text, with dots where something is missing."""
    part = text[first : first + WIDTH]
    return ("…" if first else "") + part + ("…" if first + WIDTH < len(text) else "")


def told(verdict: Verdict) -> str:
    """Returns what became of a mutant, and by what."""
    return f"killed by {verdict.by}" if verdict.result == KILLED else f"{verdict.result} ({verdict.by})"


def as_json(room: str, seed: int, verdicts: Sequence[Verdict]) -> str:
    """Returns everything as one JSON object."""
    mutants = [
        {
            "kind": verdict.mutant.place.kind,
            "file": str(verdict.mutant.path),
            "line": verdict.mutant.place.line,
            "old": verdict.mutant.old,
            "new": verdict.mutant.new,
            "result": verdict.result.lower(),
            "by": verdict.by,
            "tests": verdict.tests,
            "seconds": round(verdict.seconds, 1),
        }
        for verdict in verdicts
    ]
    found = {"room": room, "seed": seed, "mutants": mutants, "killed": killed(verdicts), "count": len(verdicts)}
    return json.dumps(found | {"percentage": round(percentage(verdicts), 1)}, indent=2)
