"""Suites run in virtual time wherever real time is not the subject (`tests/virtual_time.py`)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tests import virtual_time

from lamina_tools.style.source import Source, dotted
from lamina_tools.tree import ROOT, python_files

LAYERS = ("hardware", "mmu", "vswitch", "hypervisor", "container_runtime", "orchestrator")

MIN_REASON = 7
"""Characters of the shortest reason: "sockets"."""


def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Returns the nodes of a Python file's syntax tree."""
    source = Source.read(ROOT, path)
    assert source is not None
    return source.nodes


def async_tests(folder: str) -> list[ast.AsyncFunctionDef]:
    """Returns the async tests of a folder."""
    paths = sorted((ROOT / "tests" / folder).rglob("test_*.py"))
    nodes = (node for path in paths for node in nodes_of(path.relative_to(ROOT)))
    return [node for node in nodes if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_")]


@pytest.mark.parametrize("folder", [*virtual_time.VIRTUAL, *virtual_time.BOTH])
def test_a_folder_that_runs_in_virtual_time_has_async_tests(folder: str) -> None:
    """A folder that is named has tests whose loop it chooses."""
    assert async_tests(folder)


OWN_CLOCK = ("orchestrator",)
"""Layers whose suite moves a clock of its own: on which loop it does so makes no difference."""


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer not in OWN_CLOCK])
def test_each_layer_has_a_suite_on_both_clocks(layer: str) -> None:
    """What a layer promises is tested in real and in virtual time."""
    both = [folder for folder in virtual_time.BOTH if folder.partition("/")[2] == layer]
    assert sum(len(async_tests(folder)) for folder in both) >= 10


@pytest.mark.parametrize("layer", OWN_CLOCK)
def test_a_suite_with_a_clock_of_its_own_runs_once(layer: str) -> None:
    """Such a suite has its clock beside it, and is not run twice."""
    assert (ROOT / "tests/contract" / layer / "stepped_clock.py").exists()
    assert f"contract/{layer}" in virtual_time.VIRTUAL
    assert len(async_tests(f"contract/{layer}")) >= 10


def test_whoever_needs_real_time_says_why() -> None:
    """Each mark names its reason."""
    marks = [
        node
        for path in python_files(ROOT, "tests")
        for node in nodes_of(path)
        if isinstance(node, ast.Call) and dotted(node.func) == "pytest.mark.real_time"
    ]
    assert len(marks) > 5
    assert all(len(mark.args) == 1 and not mark.keywords for mark in marks)
    short = [mark.args[0].value for mark in marks if isinstance(mark.args[0], ast.Constant)]
    assert [text for text in short if len(str(text)) < MIN_REASON] == []


def test_no_variant_with_sockets_is_virtual() -> None:
    """Of a test with both wires and both clocks, sockets in virtual time are left out."""

    class Item:
        def __init__(self, name: str) -> None:
            self.name = name

    names = ("test_a[real-sockets-x]", "test_a[virtual-sockets-x]", "test_a[virtual-local]", "test_a[real]", "test_a")
    assert [virtual_time.is_possible(Item(name)) for name in names] == [True, False, True, True, True]  # type: ignore[arg-type]


def test_the_folders_exist() -> None:
    """No folder is named that is not there."""
    assert all((ROOT / "tests" / Path(folder)).is_dir() for folder in (*virtual_time.VIRTUAL, *virtual_time.BOTH))
