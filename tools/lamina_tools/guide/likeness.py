"""Whether what a command printed is what a page says, where time, processes and names are different each time.

`…` in a page stands for anything within a line; alone on a line, for any number of lines. What differs from run to run
matches whatever is of its kind (`VOLATILE`), and columns may be wider or narrower.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ANYTHING = "…"

VOLATILE = (
    r"\d+(?:\.\d+)? (?:ns|µs|ms|s|min|h)\b",
    r"\b(?:\d+(?:\.\d+)?(?:ms|d|h|m|s))+\b",
    r"\bsha256:[0-9a-f]{12,64}\b",
    r"\b[0-9a-f]{64}\b",
    r"\b[0-9a-f]{32}\b",
    r"\b[a-z][a-z0-9-]*-[0-9a-f]{8,10}-[a-z0-9]{5}\b",
    r"\bboot-[a-z0-9]{8}(?:\.mmu-[a-z0-9]{8})?\b",
    r"\b(?!02:00:00)[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b",
    r"\bprocess \d{2,}\b",
    r"\b(?:127\.0\.0\.1|localhost):\d+\b",
)
"""Times with their units, ages, digests, ids of traces, names of pods, boot ids, MAC addresses that were drawn,
processes, ports."""


def difference(said: Sequence[str], printed: Sequence[str], varies: Sequence[str] = ()) -> str:
    """Returns what of a page's lines is not in what was printed, in words; empty when all is as the page says.

    Args:
        said: the page's lines.
        printed: the command's lines.
        varies: regular expressions of what else is different each time.
    """
    place = 0
    parts = _parts(said)
    for number, part in enumerate(parts):
        first, last = number == 0, number == len(parts) - 1
        patterns = [pattern(line, varies) for line in part]
        latest = len(printed) - len(part)
        starts = range(place, latest + 1)
        if first:
            starts = range(min(1, latest + 1))
        if last:
            starts = range(max(starts.start, latest), starts.stop)
        found = next((at for at in starts if _fits(patterns, printed[at : at + len(part)])), None)
        if found is None:
            return _told(part, patterns, printed, place)
        place = found + len(part)
    return ""


def pattern(line: str, varies: Sequence[str] = ()) -> re.Pattern[str]:
    """Returns what a line of the page matches."""
    kinds = [*VOLATILE, *varies]
    token = re.compile("|".join(f"(?P<k{number}>{kind})" for number, kind in enumerate(kinds)))
    made, place = "", 0
    for match in token.finditer(line):
        made += _literal(line[place : match.start()])
        made += f"(?:{kinds[int(str(match.lastgroup)[1:])]})"
        place = match.end()
    return re.compile(made + _literal(line[place:]).removesuffix(r"\s*") + r"\s*")


def _literal(text: str) -> str:
    """Returns an expression for text as it stands, with any distance between columns."""
    words = (ANYTHING.join(re.escape(part) for part in piece.split(ANYTHING)) for piece in re.split(r"\s{2,}", text))
    return r"\s+".join(words).replace(ANYTHING, ".*")


def _parts(said: Sequence[str]) -> list[list[str]]:
    """Returns the runs of lines between those that stand for any number of lines."""
    parts: list[list[str]] = [[]]
    for line in said:
        if line.strip() == ANYTHING:
            parts.append([])
        else:
            parts[-1].append(line)
    return parts


def _fits(patterns: Sequence[re.Pattern[str]], printed: Sequence[str]) -> bool:
    return len(patterns) == len(printed) and all(p.fullmatch(line) for p, line in zip(patterns, printed, strict=True))


def _told(part: Sequence[str], patterns: Sequence[re.Pattern[str]], printed: Sequence[str], place: int) -> str:
    alone = [line for line, p in zip(part, patterns, strict=True) if not any(p.fullmatch(has) for has in printed)]
    wrong = alone or ["(each of these lines is there, but not in this order or not next to one another)", *part]
    return "\n".join(["the page says:", *wrong, f"printed, from line {place + 1}:", *printed[place:]])
