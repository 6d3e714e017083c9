"""Rules about folders of source: how much lies in one, and that includes of C run one way."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from os.path import normpath
from pathlib import Path

from lamina_tools.style.source import Source

MOST, FEWEST = 24, 3
C = frozenset({".c", ".h", ".S"})
SUFFIXES = C | {".py"}
UNCOUNTED = frozenset({"__init__", "__main__"})
"""What every package may have, whatever it is about."""

INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


@dataclass
class Folder:
    """A folder of source: its modules (a C file and its header are one), and the folders in it that hold source."""

    modules: set[str] = field(default_factory=set)
    subfolders: set[str] = field(default_factory=set)


def folders(paths: Iterable[Path]) -> dict[Path, Folder]:
    """Returns the folders that some files of source lie in, by path."""
    found: dict[Path, Folder] = defaultdict(Folder)
    for path in paths:
        if path.suffix in SUFFIXES:
            found[path.parent].modules |= {path.stem} - UNCOUNTED
    for path in sorted(found):
        if path.parent in found:
            found[path.parent].subfolders.add(path.name)
    return dict(found)


def sizes(found: Mapping[Path, Folder], excused: Iterable[str]) -> Iterator[str]:
    """Yields the folders with more than 24 modules, and those with fewer than three parts that nobody excuses."""
    excuses = set(excused)
    for path, folder in sorted(found.items()):
        parts = len(folder.modules) + len(folder.subfolders)
        if len(folder.modules) > MOST:
            yield f"{path}: {len(folder.modules)} modules; {MOST} is the limit: which of them make a folder?"
        elif parts < FEWEST and str(path) not in excuses:
            yield f"{path}: {parts} modules and subfolders; fewer than {FEWEST} make no folder without a reason"
        elif parts >= FEWEST and str(path) in excuses:
            yield f"{path}: is excused for being small, and is not"
    yield from (f"{name}: is excused, and does not exist" for name in sorted(excuses - {str(path) for path in found}))


def include_circle(sources: Iterable[Source]) -> Iterator[str]:
    """Yields one circle of includes among C files, if there is one; a file and its header are one node."""
    graph: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        node = source.path.with_suffix("")
        included = {normpath(node.parent / Path(name).with_suffix("")) for name in INCLUDE.findall(source.text)}
        graph[str(node)] |= included - {str(node)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        yield f"includes in a circle: {' → '.join(reversed(circle.args[1]))}"
