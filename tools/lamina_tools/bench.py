"""`./run bench [NAME …]`: runs the measurements in `bench/`, each a script of its own.

A measurement compares with its peers in one run, and prints ratios; it exits with 0 when it could be made. Its folder
says what it is about; its name is its own among all. Files whose names begin with an underscore are what measurements
share.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lamina_tools.tree import ROOT


def available(root: Path = ROOT) -> dict[str, Path]:
    """Returns the measurements by name, in alphabetical order."""
    paths = sorted((root / "bench").rglob("*.py"), key=lambda path: path.stem)
    return {path.stem: path for path in paths if not path.name.startswith("_")}


def main(arguments: Sequence[str]) -> int:
    """Runs the named measurements, or all; returns 0 if each could be made, 2 for one that there is not."""
    scripts = available()
    unknown = [name for name in arguments if name not in scripts]
    if unknown:
        print(f"run: there is no measurement {unknown[0]!r}; there are {', '.join(scripts) or 'none'}", file=sys.stderr)
        return 2
    if not scripts:
        print("run: bench/ holds no measurements", file=sys.stderr)
        return 1
    failed = []
    for name in arguments or scripts:
        print(f"── {name} ──", flush=True)
        if subprocess.run([sys.executable, str(scripts[name])], cwd=ROOT).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))
