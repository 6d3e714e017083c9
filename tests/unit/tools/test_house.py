"""docs/house.md: the tree of packages with their sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina_tools import house
from lamina_tools.tree import ROOT, SOURCE_ROOTS

CONTRACTS = """
[[tool.importlinter.contracts]]
type = "independence"
modules = ["lamina_kit"]

[[tool.importlinter.contracts]]
type = "layers"
containers = ["lamina_kit", "lamina_net"]
layers = ["x"]

[[tool.importlinter.contracts]]
type = "layers"
containers = ["lamina_kit"]
layers = ["process", "rpc | bus", "clock : errors"]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Returns a tree with two rooms, one of them with a contract."""
    for path, text in {
        "kit/lamina_kit/__init__.py": '"""What all share."""\n',
        "kit/lamina_kit/clock.py": "",
        "kit/lamina_kit/rpc/__init__.py": '"""One call."""\n',
        "kit/lamina_kit/rpc/__main__.py": "",
        "kit/lamina_kit/rpc/inproc/__init__.py": '"""In one process."""\n',
        "kit/lamina_kit/rpc/inproc/a.py": "",
        "kit/lamina_kit/rpc/inproc/b.py": "",
        "kit/lamina_kit/rpc_text.md": "",
        "kit/lamina_net/__init__.py": '"""A stack."""\n',
        "pyproject.toml": CONTRACTS,
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_a_room_is_its_packages_with_their_sentences(root: Path) -> None:
    """A line a package, those inside it below it, with its modules counted and a link to its folder."""
    chapters = house.page(root).split("\n## ")[1:]
    assert len(chapters) == 2
    assert chapters[0].splitlines()[1:] == [
        "",
        "[`kit/lamina_kit`](../kit/lamina_kit), 1 module at its root. What all share.",
        "",
        "`process` → `rpc`, `bus` → `clock`, `errors`",
        "",
        "| package | modules | what lives there |",
        "|---|---|---|",
        "| [`rpc`](../kit/lamina_kit/rpc) | 0 | One call. |",
        "| &emsp;[`inproc`](../kit/lamina_kit/rpc/inproc) | 2 | In one process. |",
    ]
    assert "0 modules at its root. A stack.\n\n| package" in chapters[1]


def test_every_room_is_on_the_page() -> None:
    """The page has a chapter for each package on the import path, none longer than a screen."""
    packages = {path.parent for root in SOURCE_ROOTS for path in (ROOT / root).glob("*/__init__.py")}
    assert {ROOT / room.folder for room in house.ROOMS} == packages
    chapters = house.page(ROOT).split("\n## ")[1:]
    assert len(chapters) == len(house.ROOMS)
    assert all(chapter.count("\n") <= 70 for chapter in chapters)
