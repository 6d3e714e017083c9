"""Page faults and resident sizes of the touch programs: in a container as on Linux (`docs/fidelity.md`)."""

from __future__ import annotations

import asyncio
import platform
from pathlib import Path

import pytest
from tests.integration.container_runtime import fidelity
from tests.integration.container_runtime.fidelity import ACCEPTED, PROGRAMS, Measured

PAGE = Path(__file__).parents[3] / "docs" / "fidelity.md"
DIVERGENCES = PAGE.with_name("divergences.md")

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="needs x86-64 Linux as the yardstick"
)


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Returns what the programs cost on this machine's kernel."""
    return fidelity.on_linux(tmp_path_factory.mktemp("linux"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Returns what they cost in containers."""
    return asyncio.run(fidelity.in_the_model(tmp_path_factory.mktemp("model")))


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=ACCEPTED[name])) if name in ACCEPTED else name
        for name in PROGRAMS
    ],
)
def test_a_program_costs_what_it_costs_on_linux(model: Measured, linux: Measured, program: str) -> None:
    """Every phase takes as many minor and major faults as on Linux, and leaves as many pages resident."""
    assert model[program] == linux[program]


def test_every_program_measures_something(linux: Measured) -> None:
    """No program is empty: each tells a phase that faults."""
    assert all(any(phase.minor for phase in linux[name]) for name in PROGRAMS)


def test_the_page_says_what_was_measured(model: Measured, linux: Measured, request: pytest.FixtureRequest) -> None:
    """`docs/fidelity.md` holds these numbers; only the kernel that they are from may be another."""
    text = fidelity.document(model, linux)
    if request.config.getoption("--update-golden"):
        PAGE.write_text(text)
    written = [line for line in PAGE.read_text().splitlines() if not line.startswith("Measured on Linux ")]
    here = [line for line in text.splitlines() if line != fidelity.measured_on()]
    assert written == here, f"{PAGE} differs; --update-golden accepts the difference"


def test_accepted_differences_are_written_down() -> None:
    """Each program that may differ is named in the table of divergences."""
    text = DIVERGENCES.read_text()
    assert all(f"`touch {name}`" in text for name in ACCEPTED)
