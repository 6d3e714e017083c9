"""Mutants of what numba compiles: machine code of the unchanged text must not be loaded from the cache.

numba looks at the text of a function's own file alone, so everything that imports the mutant is compiled anew, in a
copy of the cache that goes with the run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from lamina_tools import warm
from lamina_tools.mutation.mutants import Place


def dependents(module: str, sources: dict[str, Path], compiled: Iterable[str]) -> list[str]:
    """Returns the compiled modules that import a module, directly or not, or are it."""
    return [name for name in compiled if module in warm.closure([name], sources)]


def importers(module: str, sources: Mapping[str, Path]) -> list[str]:
    """Returns the modules that import a module directly, in alphabetical order."""
    return sorted(name for name, path in sources.items() if name != module and module in warm.imported(path))


def concerns(place: Place, module: str, compiled: Iterable[str], imported: bool) -> bool:
    """Says whether a change can reach machine code: in a compiled function, or in what runs at `imported` time."""
    return imported or not place.in_function or (place.decorated and module in compiled)


def copy_without(cache: Path, modules: Iterable[str], sources: Mapping[str, Path], copy: Path) -> None:
    """Makes a copy of a cache without the entries of some modules, and without what else was concluded from them.

    Files are shared where they can be: numba replaces them, it never writes into one.
    """
    stale = [(f"{sources[name].parent.name}_", f"{name.rpartition('.')[2]}.") for name in modules]
    for folder, _, names in os.walk(cache):
        target = copy / Path(folder).relative_to(cache)
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            gone = any(target.name.startswith(parent) and name.startswith(module) for parent, module in stale)
            if name.endswith((".nbi", ".nbc")) and not gone:
                _share(Path(folder) / name, target / name)


def _share(file: Path, copy: Path) -> None:
    try:
        os.link(file, copy)
    except OSError:  # another file system
        shutil.copy2(file, copy)
