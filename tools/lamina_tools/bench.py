"""`./run bench [NAME …]`: runs the measurements in `bench/`, each a script of its own.

A measurement compares with its peers in one run, and prints ratios; it exits with 0 when it could be made. Files whose
names begin with an underscore are what measurements share.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lamina_tools.tree import ROOT


def available(root: Path = ROOT) -> list[str]:
    """Returns the names of the measurements, in alphabetical order."""
    return sorted(path.stem for path in (root / "bench").glob("*.py") if not path.name.startswith("_"))


def main(arguments: Sequence[str]) -> int:
    """Runs the named measurements, or all; returns 0 if each could be made, 2 for one that there is not."""
    names = available()
    unknown = [name for name in arguments if name not in names]
    if unknown:
        print(f"run: there is no measurement {unknown[0]!r}; there are {', '.join(names) or 'none'}", file=sys.stderr)
        return 2
    if not names:
        print("run: bench/ holds no measurements", file=sys.stderr)
        return 1
    failed = []
    for name in arguments or names:
        print(f"── {name} ──", flush=True)
        if subprocess.run([sys.executable, str(ROOT / "bench" / f"{name}.py")], cwd=ROOT).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))
