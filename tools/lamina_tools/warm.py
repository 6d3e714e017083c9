"""Fills the cache of compiled numba functions: `python -m lamina_tools.warm VENV [all]`.

numba notices a change in the file of a function but not in what that file imports: a changed constant or callee would
keep its old machine code. So the cache lies in a folder that is named after the text of every module that takes part;
when one changes, a new folder is filled. `./run` calls this when a source file is newer than the stamp.

A module takes part when it imports numba, or decorates a function with what such a module offers (`native.compiled`),
and so does all of ours that it imports. Importing a module compiles what
it declares with a signature; a module whose functions compile at their first call offers `warm()`, which calls them.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from lamina_tools.tree import ROOT, module_name, python_files

KEPT = 3
"""Cache folders that are kept, so that switching between two states of the tree does not compile each time."""

_LAYERS = ("lamina_hardware.", "lamina_mmu.", "lamina_vswitch.", "lamina_hypervisor.", "lamina_container_runtime.")

LATE = ("lamina_mmu.replay.",)
"""What a stack never runs: compiled only with `all`, which `./run` asks for before replays, tests and benchmarks."""

FULL = ".full"
"""Marks a cache folder that was filled to the end; with `all` the mark is `.full-all`."""


def imported(path: Path) -> Iterator[str]:
    """Yields every dotted name that a file imports, wherever in the file; of `from a import b` both a and a.b."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def decorators(path: Path) -> Iterator[str]:
    """Yields the full names of a file's decorators that it imported: of `from a import b; @b.c(…)`, a.b and a.b.c."""
    tree = ast.parse(path.read_bytes())
    full = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
    for node in ast.walk(tree):
        for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            first, _, rest = ast.unparse(called).partition(".")
            if first in full:
                yield f"{full[first]}.{rest}" if rest else full[first]


def compiled_modules(sources: dict[str, Path]) -> list[str]:
    """Returns the modules that import numba or borrow a decorator from one that does, in alphabetical order."""
    direct = {
        name
        for name, path in sources.items()
        if b"numba" in path.read_bytes() and any(found.split(".")[0] == "numba" for found in imported(path))
    }
    borrowing = {
        name
        for name, path in sources.items()
        if b"\n@" in path.read_bytes() and any(found.rpartition(".")[0] in direct for found in decorators(path))
    }
    return sorted(direct | borrowing)


def closure(modules: Iterable[str], sources: dict[str, Path]) -> list[str]:
    """Returns these modules and all of ours that they import, directly or not, in alphabetical order."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and name in sources:
            found.add(name)
            waiting.extend(imported(sources[name]))
    return sorted(found)


def digest(modules: Iterable[str], sources: dict[str, Path]) -> str:
    """Returns the name of the cache folder for these modules' text under this Python and this numba."""
    from importlib.metadata import version

    state = hashlib.sha256(f"{platform.python_version()} {version('numba')} {version('llvmlite')}".encode())
    for name in modules:
        state.update(f"\n{name}\n".encode() + sources[name].read_bytes())
    return state.hexdigest()[:16]


def compile_all(modules: list[str]) -> int:
    """Imports each module, which compiles it; returns how many failed, each of which was reported."""
    failed = 0
    start = time.monotonic()
    for number, name in enumerate(modules, 1):
        print(f"[{time.monotonic() - start:4.0f} s] compiling {name} ({number} of {len(modules)})", file=sys.stderr)
        try:
            module = importlib.import_module(name)
            if hasattr(module, "warm"):
                module.warm()
        except Exception as failure:  # reported here, and raised again for whoever imports the module
            print(f"run: {name} does not compile: {type(failure).__name__}: {failure}", file=sys.stderr)
            failed += 1
    return failed


def compile_packages(modules: list[str]) -> int:
    """Compiles the modules, those of each layer in a process of its own; returns how many modules failed.

    What layers share (the kit) is compiled first, in this process, so that no two processes do the same.
    """
    shared = [name for name in modules if not name.startswith(_LAYERS)]
    failed = compile_all(shared)
    packages = list(dict.fromkeys(name.split(".")[0] for name in modules if name.startswith(_LAYERS)))
    children = [
        subprocess.Popen([sys.executable, "-m", "lamina_tools.warm", "--only", *_of(package, modules)])
        for package in packages
    ]
    return failed + sum(child.wait() for child in children)


def _of(package: str, modules: list[str]) -> list[str]:
    return [name for name in modules if name.split(".")[0] == package]


def prune(folder: Path, kept: int = KEPT) -> None:
    """Removes all but the newest cache folders."""
    caches = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for stale in caches[kept:]:
        shutil.rmtree(stale, ignore_errors=True)


def own_sources() -> dict[str, Path]:
    """Returns the modules of the kit, the command line and the services, by name."""
    return {
        name: ROOT / path
        for below in ("kit", "cli", "services")
        for path in python_files(ROOT, below)
        if (name := module_name(path))
    }


def main(arguments: list[str]) -> int:
    """Fills the cache if it is not full, and writes its path into the stamp that `./run` reads. Returns 0.

    The stamp is `.lamina-warm`, with `all` `.lamina-warm-all`.

    With `--only` compiles the modules that follow into the cache that NUMBA_CACHE_DIR names; returns how many failed.
    """
    if arguments[0] == "--only":
        return min(compile_all(arguments[1:]), 100)
    venv = Path(arguments[0]).absolute()
    sources = own_sources()
    modules = compiled_modules(sources)
    cache = venv / "numba" / digest(closure(modules, sources), sources)
    kind = "-all" if arguments[1:] == ["all"] else ""
    started = time.time()
    if not (cache / (FULL + kind)).exists():
        cache.mkdir(parents=True, exist_ok=True)
        os.environ["NUMBA_CACHE_DIR"] = str(cache)
        wanted = [name for name in modules if kind or not name.startswith(LATE)]
        if not compile_packages(wanted):
            (cache / (FULL + kind)).touch()
    os.utime(cache)
    prune(cache.parent)
    scratch = venv / f".lamina-warm{kind}.{os.getpid()}"
    scratch.write_text(f"{cache}\n")
    os.utime(scratch, (started, started))  # a file that changes while we compile is newer than the stamp
    scratch.replace(venv / f".lamina-warm{kind}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
