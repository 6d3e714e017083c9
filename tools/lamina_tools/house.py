"""docs/house.md: the packages of every room with the sentences that say what lives in each.

A sentence is the docstring of a package's `__init__.py`; who stands above whom is the room's contract about imports in
`pyproject.toml`. So the page says nothing that is not held elsewhere.
"""

from __future__ import annotations

import ast
import os
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina_tools.tree import LAYERS, files

PAGE = Path("docs/house.md")

INTRODUCTION = """\
# The house

One rule decides where a line lives: the sentence of its package. A line that no sentence of a room fits is in the wrong
room, or wants a package that does not exist yet; a sentence that needs "and also" is two packages. Each package states
its own in its `__init__.py`, which holds nothing else.

How to read this page: choose the room, then go down the names. Indented names lie inside the one above; the number
counts the modules that lie directly in a package. A layer imports no other room but the kit, TCP/IP
(`lamina_net`) and the generated contracts; the command line alone puts layers together. Inside a room imports run one
way, in the order that is given below its heading: what stands before an arrow may import what stands behind it. No two
parts of a package import each other, not even through others. `./run check imports` holds all of that.

`./run gen` writes this page from the packages and from [pyproject.toml](../pyproject.toml).
"""


@dataclass(frozen=True)
class Room:
    """One package on the import path, which is read as a whole."""

    title: str
    folder: Path
    """Folder of the package, relative to the root."""

    @property
    def package(self) -> str:
        """Name of its Python package."""
        return self.folder.name


ROOMS = (
    *(Room(f"The layer {layer.name}", layer.folder / layer.package) for layer in LAYERS),
    Room("The kit: what all layers share", Path("kit/lamina_kit")),
    Room("TCP/IP, for whoever needs a host's stack", Path("kit/lamina_net")),
    Room("The command line", Path("cli/lamina_cli")),
    Room("Tools of those who change Lamina", Path("tools/lamina_tools")),
)
"""All packages on the import path but the generated code, in reading order."""


def packages(root: Path, room: Room) -> Iterator[tuple[Path, int, str]]:
    """Yields a room's packages, each before those in it: path in the room, number of modules, sentence."""
    sources = [path.relative_to(room.folder) for path in files(root, str(room.folder)) if path.suffix == ".py"]
    modules = Counter(path.parent for path in sources if path.stem not in ("__init__", "__main__"))
    for folder in sorted({path.parent for path in sources}):
        yield folder, modules[folder], sentence(root / room.folder / folder)


def sentence(folder: Path) -> str:
    """Returns what a package says of itself; nothing when it does not."""
    path = folder / "__init__.py"
    return (ast.get_docstring(ast.parse(path.read_text())) or "") if path.exists() else ""


def orders(root: Path) -> dict[str, list[str]]:
    """Returns, by package, its parts from the top down as the contracts about imports have them."""
    path = root / "pyproject.toml"
    tools = tomllib.loads(path.read_text())["tool"] if path.exists() else {}
    contracts = tools.get("importlinter", {}).get("contracts", [])
    layered = [contract for contract in contracts if contract["type"] == "layers"]
    return {c["containers"][0]: c["layers"] for c in layered if len(c.get("containers", ())) == 1}


def chapter(root: Path, room: Room, order: Sequence[str]) -> str:
    """Returns a room as a heading, its sentence, its order and a table with a line for each package."""
    (_, count, rule), *inner = packages(root, room)
    place = os.path.relpath(room.folder, PAGE.parent)
    lines = [f"## {room.title}", "", f"[`{room.folder}`]({place}), {_modules(count)} at its root. {rule}", ""]
    if order:
        parts = [", ".join(f"`{name.strip()}`" for name in layer.replace("|", ":").split(":")) for layer in order]
        lines += [" → ".join(parts), ""]
    lines += ["| package | modules | what lives there |", "|---|---|---|"]
    for path, modules, says in inner:
        name = "&emsp;" * (len(path.parts) - 1) + f"[`{path.name}`]({place}/{path})"
        lines.append(f"| {name} | {modules} | {says} |")
    return "\n".join(lines) + "\n"


def _modules(count: int) -> str:
    return f"{count} module{'s' if count != 1 else ''}"


def page(root: Path) -> str:
    """Returns docs/house.md; a room that a tree does not have is left out."""
    found = [room for room in ROOMS if (root / room.folder / "__init__.py").exists()]
    order = orders(root)
    return "\n".join([INTRODUCTION, *(chapter(root, room, order.get(room.package, ())) for room in found)])
