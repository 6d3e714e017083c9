"""The checkout as data: where it is, which folders hold Python code, and which files belong to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Folder of the checkout."""

PRUNED = frozenset(
    {
        ".git",
        ".venv",
        "__pycache__",
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".hypothesis",
        ".import_linter_cache",
        "dist",
        "build",
        "wheels",
    }
)
"""What is made, not written, and belongs to no tree: folders with all that lies in them. `.git` may be a file."""


@dataclass(frozen=True)
class Layer:
    """One of the six services."""

    name: str
    """Name in the architecture, for example `container-runtime`."""

    @property
    def package(self) -> str:
        """Name of its Python package, for example `lamina_container_runtime`."""
        return f"lamina_{self.name.replace('-', '_')}"

    @property
    def folder(self) -> Path:
        """Folder that holds its README and its package, relative to the root."""
        return Path("services") / self.name


LAYERS = tuple(
    Layer(name) for name in ("hardware", "mmu", "vswitch", "hypervisor", "container-runtime", "orchestrator")
)

SOURCE_ROOTS = (
    Path("kit"),
    Path("cli"),
    Path("tools"),
    Path("protos/gen"),
    *(layer.folder for layer in LAYERS),
)
"""Folders on the import path, relative to the root. `pyproject.toml` repeats them for hatchling and for mypy."""

CODE_AREAS = (
    "kit",
    "cli",
    "tools",
    "bench",
    "tests",
    "examples",
    *(str(layer.folder) for layer in LAYERS),
)
"""Folders of written Python code, one an owner, relative to the root."""


def files(root: Path = ROOT, below: str = ".") -> Iterator[Path]:
    """Yields the files of the tree below a folder, relative to the root, in alphabetical order.

    Folders in `PRUNED` and virtual environments are left out. A folder that does not exist has no files.
    """
    for folder, folders, names in os.walk(root / below):
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if name not in PRUNED and not name.endswith(".egg-info"))
        for name in sorted(names):
            if name not in PRUNED and not name.endswith((".pyc", ".swp")):
                yield (Path(folder) / name).relative_to(root)


def python_files(root: Path = ROOT, below: str = ".") -> list[Path]:
    """Returns the written Python files below a folder, relative to the root; generated ones are left out."""
    return [path for path in files(root, below) if path.suffix == ".py" and not path.is_relative_to(Path("protos/gen"))]


def module_name(path: Path) -> str | None:
    """Returns the dotted name under which a file of the tree is imported, or None when it is on no source root."""
    for source_root in SOURCE_ROOTS:
        if path.is_relative_to(source_root) and path.suffix == ".py":
            parts = path.relative_to(source_root).with_suffix("").parts
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return None
