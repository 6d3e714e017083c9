"""The rules for the tree as a whole: what it holds, and that its tables agree with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lamina_tools import documents, systems_table
from lamina_tools.style.pages import layer_readme
from lamina_tools.style.verdict import expect_none
from lamina_tools.tree import CODE_AREAS, LAYERS, PRUNED, ROOT, SOURCE_ROOTS, Layer, files, python_files

LARGEST = 512 * 1024
"""Bytes that one file may have: nothing that a program could make is committed."""


@pytest.fixture(scope="module")
def project() -> dict[str, dict[str, object]]:
    """Returns the tables of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_every_layer_has_a_readme_in_three_parts(layer: Layer) -> None:
    """A layer's README explains the concept, then its files in reading order, then three calls."""
    expect_none(layer_readme(ROOT, layer))


def test_nothing_ignored_is_tracked() -> None:
    """git tracks no file that .gitignore names: no environment, cache or build gets committed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    listed = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    tracked = subprocess.run(listed, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert tracked[:10] == [], f"{len(tracked)} files; take them out of the index: git rm -r --cached …"


def test_gitignore_names_what_the_tools_leave_out() -> None:
    """What the tools regard as made, git ignores too."""
    ignored = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    assert ignored >= PRUNED - {".git"}


def test_no_file_is_large() -> None:
    """No file of the tree is larger than what somebody could have written or a generator needs."""
    large = [f"{path}: {size} bytes" for path in files(ROOT) if (size := (ROOT / path).lstat().st_size) > LARGEST]
    assert large == []


def test_scripts_can_be_started() -> None:
    """The scripts that people and CI start are executable."""
    assert [name for name in ("run", ".ci/run") if not os.access(ROOT / name, os.X_OK)] == []


def test_all_python_code_has_an_owner() -> None:
    """Every Python file lies in a folder that the rules are applied to."""
    assert [str(path) for path in python_files(ROOT) if not str(path).startswith(tuple(CODE_AREAS))] == []


def test_test_folders_can_be_imported() -> None:
    """Folders of tests have names that Python can import, so that type checkers can read them."""
    folders = {part for path in python_files(ROOT, "tests") for part in path.parent.parts}
    assert sorted(name for name in folders if not name.isidentifier()) == []


def test_source_roots_agree(project: dict[str, dict[str, object]]) -> None:
    """hatchling, mypy and the tools have the same list of folders on the import path."""
    expected = sorted(str(path) for path in SOURCE_ROOTS)
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert sorted(tool["hatch"]["build"]["dev-mode-dirs"]) == expected
    assert sorted(tool["mypy"]["mypy_path"]) == expected


def import_contracts() -> list[dict[str, Any]]:
    """Returns the contracts about imports."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert isinstance(contracts, list)
    return contracts


LISTS = ("modules", "containers", "ancestors", "source_modules", "forbidden_modules")
"""Where a contract about imports names what it is about."""


def test_import_rules_cover_every_layer() -> None:
    """Every import contract that is about more than one layer is about all six."""
    packages = {layer.package for layer in LAYERS}
    for contract in import_contracts():
        listed = {name.partition(".")[0] for key in LISTS for name in contract.get(key, [])}
        assert len(listed & packages) <= 1 or packages <= listed, contract["id"]


def test_everything_is_held_to_no_circles() -> None:
    """The contract against circles is about every package on the import path, and leaves no import out."""
    (circles,) = [contract for contract in import_contracts() if contract["type"] == "acyclic_siblings"]
    packages = {path.parent.name for root in SOURCE_ROOTS for path in (ROOT / root).glob("*/__init__.py")}
    assert set(circles["ancestors"]) == packages
    assert circles.keys() == {"id", "name", "type", "ancestors"}
    assert "exclude_type_checking_imports" not in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("package", ["lamina_kit", "lamina_net", "lamina_cli", *(layer.package for layer in LAYERS)])
def test_every_room_says_who_stands_above_whom(package: str) -> None:
    """Each part at the root of a room has its place in a contract of the room's own."""
    found = [contract for contract in import_contracts() if contract.get("containers") == [package]]
    assert [(contract["type"], contract["exhaustive"]) for contract in found] == [("layers", True)]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_entry_points_lead_to_files(layer: Layer, project: dict[str, dict[str, object]]) -> None:
    """The service and the engine that the entry points name exist."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    engines = tables[f"lamina.engines.{layer.package.removeprefix('lamina_')}"]
    for target in (tables["lamina.services"][layer.name], *engines.values()):
        module, _, attribute = target.partition(":")
        path = ROOT / layer.folder / Path(*module.split(".")).with_suffix(".py")
        assert path.exists(), target
        assert f"def {attribute}(" in path.read_text() or f"class {attribute}" in path.read_text(), target


def test_every_system_has_its_row() -> None:
    """docs/systems.md has one row for each system, and what the rows name exists."""
    expect_none(systems_table.findings(ROOT))


def test_decisions_have_their_own_numbers() -> None:
    """No two decisions share a number, and each has a title."""
    numbers = [decision.number for decision in documents.decisions(ROOT)]
    assert numbers == sorted(set(numbers))
    assert all(decision.title for decision in documents.decisions(ROOT))
