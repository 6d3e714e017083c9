"""What the contracts promise, the layers serve; what the layers answer, the contracts name."""

from __future__ import annotations

import re

import pytest

from lamina_tools import contracts, planned_table, rpc_reference, systems_table
from lamina_tools.style import promises
from lamina_tools.style.source import Source
from lamina_tools.style.verdict import expect_none
from lamina_tools.tree import LAYERS, ROOT, Layer, python_files

ADAPTERS = {"container-runtime": ("runtime.v1",)}
"""Contracts of others that a layer serves beside its own, by protobuf package."""


TIMES = re.compile(r"((?:^ *//.*\n)+) *(?:optional |repeated )?int64 (\w+) = ", re.MULTILINE)
"""Comment and name of the fields that may be times."""


@pytest.fixture(scope="module")
def packages() -> dict[str, rpc_reference.Package]:
    """Returns the packages of the contracts by name."""
    found = rpc_reference.packages(contracts.image(ROOT), set(contracts.proto_files(ROOT)))
    return {package.name: package for package in found}


def sources_of(folder: str) -> list[Source]:
    """Returns the Python files below a folder."""
    return [source for path in python_files(ROOT, folder) if (source := Source.read(ROOT, path))]


def promises_of(layer: Layer) -> list[str]:
    """Returns the texts of the contracts that a layer serves, its own and the one that all serve, and its README."""
    protos = ROOT / "protos/lamina"
    folders = (protos / layer.package.removeprefix("lamina_"), protos / "common")
    paths = [path for folder in folders for path in sorted(folder.rglob("*.proto"))]
    paths.append(ROOT / layer.folder / "README.md")
    return [path.read_text() for path in paths if path.exists()]


def test_every_rpc_says_how_it_fails(packages: dict[str, rpc_reference.Package]) -> None:
    """The comment of every RPC names the codes with which it fails, or says that it does not."""
    expect_none(promises.rpcs_say_how_they_fail(packages.values()))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_every_rpc_is_served(layer: Layer, packages: dict[str, rpc_reference.Package]) -> None:
    """Every RPC of a layer's contract is defined by a servicer of that layer."""
    names = (f"lamina.{layer.package.removeprefix('lamina_')}.v1", *ADAPTERS.get(layer.name, ()))
    for name in names:
        expect_none(promises.contract_is_served(packages[name], sources_of(str(layer.folder))))


def test_what_waits_agrees_with_the_systems(packages: dict[str, rpc_reference.Package]) -> None:
    """Each system that does not stand has calls that wait for it, and each that stands has calls that are served."""
    rows = systems_table.rows((ROOT / systems_table.TABLE).read_text())
    expect_none(planned_table.disagreements(packages.values(), rows))


def test_the_common_service_is_served(packages: dict[str, rpc_reference.Package]) -> None:
    """Every RPC of the service that all layers serve is defined in the kit."""
    expect_none(promises.contract_is_served(packages["lamina.common.v1"], sources_of("kit")))


def test_a_time_says_whose_clock_it_is_of() -> None:
    """Unix time has `wall` in its name, and only it has: all other times count from the stack's start."""
    found = [
        pair
        for path in contracts.proto_files(ROOT)
        if not path.startswith("lamina/cri/")
        for pair in TIMES.findall((ROOT / contracts.PROTOS / path).read_text())
    ]
    assert len(found) > 100
    assert [name for comment, name in found if ("Unix" in comment) != ("wall" in name)] == []


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_every_reason_is_promised(layer: Layer) -> None:
    """Every reason that a layer's code gives is named in its contracts, or in its README if it is one of the start."""
    expect_none(promises.reasons_are_promised(promises_of(layer), sources_of(str(layer.folder))))


def test_every_rpc_is_in_the_reference(packages: dict[str, rpc_reference.Package]) -> None:
    """The committed reference has an entry for every RPC that is served."""
    index = (ROOT / "docs/rpc.md").read_text()
    calls = [f"{s.name}.{m.name}" for package in packages.values() for s in package.services for m in s.methods]
    assert [call for call in calls if f"[{call}](" not in index] == []
