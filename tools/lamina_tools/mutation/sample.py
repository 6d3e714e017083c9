"""Which mutants are tried: every line that can be changed is as likely as any other, and no line is taken twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from lamina_tools.mutation.mutants import Mutant, Place, mutant, places
from lamina_tools.mutation.rooms import Room
from lamina_tools.tree import ROOT


def sample(room: Room, count: int, seed: int, numbers: bool = False) -> list[Mutant]:
    """Returns so many mutants of a room, or fewer when it has no more lines; the same for the same text and seed.

    Numbers are changed only when that is asked for: of many (a bound of 4096 or of 4097) nobody promised which it is.
    """
    texts = [(path, (ROOT / path).read_bytes()) for path in room.sources()]
    return chosen(texts, count, Random(f"{room.name} {seed}"), numbers)


def chosen(texts: Sequence[tuple[Path, bytes]], count: int, rng: Random, numbers: bool = True) -> list[Mutant]:
    """Returns so many mutants of some files, in the order in which they were drawn."""
    lines: dict[tuple[Path, int], list[Place]] = {}
    for path, text in texts:
        for place in places(text):
            if place.kind == "number" and not numbers:
                continue
            lines.setdefault((path, place.line), []).append(place)
    drawn: list[Mutant] = []
    by_path = dict(texts)
    for path, line in rng.sample(list(lines), len(lines)):
        if len(drawn) == count:
            break
        place = rng.choice(lines[path, line])
        found = mutant(path, by_path[path], place, rng.choice(place.choices))
        drawn += [found] if found else []
    return drawn
