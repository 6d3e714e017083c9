"""`./run fuzz [NAME …] [--seconds N] [--corpus DIR] [--replay FILE]`: searches for bytes that break a parser.

What it found interesting is kept in DIR, outside of the tree, and begins the next search. Bytes that break a parser are
written to a file there, and it says how to try them again. Exits with 0 when nothing broke, 1 when something did, 2
when it cannot search.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamina_tools.tree import ROOT

TABLE = "tests.property.fuzz.parsers"
_LONGEST_BYTES = 4096
_SLOWEST_SECONDS = 20
_MOST_MEGABYTES = 2048


def main(arguments: Sequence[str]) -> int:
    """Searches, or tries one file again."""
    options = _options(arguments)
    sys.path.insert(0, str(ROOT))
    table = {parser.name: parser for parser in importlib.import_module(options.table).PARSERS}
    unknown = [name for name in options.names if name not in table]
    if unknown:
        print(f"run: there is no parser {unknown[0]!r}; there are {', '.join(table)}", file=sys.stderr)
        return 2
    if options.replay is not None:
        return _replay([table[name] for name in options.names], options.replay)
    if importlib.util.find_spec("atheris") is None:
        print("run: fuzzing needs atheris, which has wheels for Linux on x86-64 and Python to 3.13", file=sys.stderr)
        return 2
    broken = [name for name in options.names or table if _search(table[name], options)]
    print(f"broke: {', '.join(broken)}" if broken else f"nothing broke in {len(options.names or table)} parsers")
    return int(bool(broken))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run fuzz", description="Searches for bytes that break a parser.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="parsers; all when there is none")
    parser.add_argument("--seconds", type=int, default=60, help="how long to search in each, 60")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    parser.add_argument("--corpus", type=Path, default=Path(home) / "lamina" / "fuzz", help="folder of what was found")
    parser.add_argument("--seed", type=int, default=0, help="of the search; 0 takes another one each time")
    parser.add_argument("--replay", type=Path, help="try the bytes in a file again, without a search")
    parser.add_argument("--table", default=TABLE, help=argparse.SUPPRESS)
    options = parser.parse_args(list(arguments))
    if options.replay is not None and len(options.names) != 1:
        parser.error("--replay needs the one parser that it is for")
    return options


def _replay(parsers: Sequence[Any], file: Path) -> int:
    """Tries bytes again; what breaks is raised, with its place."""
    for parser in parsers:
        parser.check(file.read_bytes())
        print(f"{parser.name} takes the {file.stat().st_size} bytes of {file}")
    return 0


def _search(parser: Any, options: argparse.Namespace) -> bool:
    """Searches in one parser; True when it broke."""
    corpus = options.corpus.absolute() / parser.name
    failures = options.corpus.absolute() / "failures" / parser.name
    for folder in (corpus, failures):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in parser.seeds:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    known = set(failures.iterdir())
    print(f"── {parser.name}, {options.seconds} s ──", flush=True)
    flags = [
        f"-max_total_time={options.seconds}", f"-seed={options.seed}", f"-artifact_prefix={failures}/",
        f"-max_len={_LONGEST_BYTES}", f"-timeout={_SLOWEST_SECONDS}", f"-rss_limit_mb={_MOST_MEGABYTES}",
        "-print_final_stats=0", "-verbosity=0", str(corpus),
    ]  # fmt: skip
    command = [sys.executable, "-m", "lamina_tools.fuzz_child", options.table, parser.name, *flags]
    paths = [str(ROOT), str(ROOT / "tools"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    failed = subprocess.run(command, cwd=ROOT, env=environment).returncode != 0
    for file in sorted(set(failures.iterdir()) - known):
        print(f"   these bytes broke it: {file}\n   again:  ./run fuzz {parser.name} --replay {file}")
    return failed
