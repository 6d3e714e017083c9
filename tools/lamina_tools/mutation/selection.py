"""Which tests are run against a mutant, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lamina_tools.mutation.mutants import Place
from lamina_tools.mutation.recording import IMPORTED

FEW = 4
"""Of a test with many parameters so many run before any other's are continued: seeds and sizes resemble each other."""

Lines = Callable[[Path], dict[int, set[str]]]
"""Who executed each line of a file."""


@dataclass(frozen=True)
class Selection:
    """The tests for one mutant."""

    tests: tuple[str, ...]
    """In the order in which they run."""
    left_out: int = 0
    """How many more there would be, had they been given the time."""


def select(
    place: Place, path: Path, lines: Lines, importers: Collection[Path], compiled: bool, seconds: Mapping[str, float],
    most_s: float,
) -> Selection:  # fmt: skip
    """Returns the tests that can notice a change, those that are nearer and quicker first, for at most `most_s`.

    Those that executed the line are near. Where the line is executed by an import, or by machine code that nobody can
    watch (`compiled`), those follow that executed any line of the file, then those that executed any line of a file
    that imports it (`importers`). Of tests with many parameters a few come first, the rest when all others had a turn.
    """
    found = lines(path)
    near = executed(place, found)
    groups = [near - {IMPORTED}]
    if not place.in_function or IMPORTED in near or (compiled and not groups[0]):
        groups.append(everyone(found))
        groups.append(everyone(*(lines(importer) for importer in importers)))
    ordered: dict[str, None] = {}
    for group in groups:
        ordered |= dict.fromkeys(few_of_each(by_file(group - ordered.keys(), seconds)))
    for group in groups:
        ordered |= dict.fromkeys(by_file(group - ordered.keys(), seconds))
    taken = within(ordered, seconds, most_s)
    return Selection(taken, len(ordered) - len(taken))


def executed(place: Place, found: Mapping[int, set[str]]) -> set[str]:
    """Returns who executed a line, or else any line of its statement."""
    first, last = place.statement
    return found.get(place.line) or set().union(*(found.get(line, set()) for line in range(first, last + 1)))


def everyone(*files: Mapping[int, set[str]]) -> set[str]:
    """Returns the tests that executed any line of some files."""
    return set().union(*(tests for found in files for tests in found.values())) - {IMPORTED}


def by_file(tests: Iterable[str], seconds: Mapping[str, float]) -> list[str]:
    """Returns tests by file, those of the quickest file first; within one in the order in which they ran."""
    place = {test: number for number, test in enumerate(seconds)}
    files: dict[str, list[str]] = {}
    for test in sorted(tests, key=place.__getitem__):
        files.setdefault(test.partition("::")[0], []).append(test)
    quickest = sorted(files, key=lambda file: (sum(seconds[test] for test in files[file]), file))
    return [test for file in quickest for test in files[file]]


def few_of_each(tests: Iterable[str]) -> list[str]:
    """Returns the first `FEW` of every test with parameters, in the same order."""
    count: Counter[str] = Counter()
    taken: list[str] = []
    for test in tests:
        name = test.partition("[")[0]
        count[name] += 1
        taken += [test] if count[name] <= FEW else []
    return taken


def within(tests: Iterable[str], seconds: Mapping[str, float], most_s: float) -> tuple[str, ...]:
    """Returns the first tests that together take no longer; the first one at any rate."""
    taken: list[str] = []
    total = 0.0
    for test in tests:
        total += seconds[test]
        if taken and total > most_s:
            break
        taken.append(test)
    return tuple(taken)
