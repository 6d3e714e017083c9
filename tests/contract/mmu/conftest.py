"""The engines that are registered for the MMU layer, each behind its service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract import outside
from tests.contract.mmu.on_kernel import DIFFERS, ON_KERNEL, skip_what_cannot_run
from tests.contract.mmu.stack import OutsideStack, Stack

from lamina_kit.engines import engines_of

ENGINES = engines_of("mmu")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Has a test run on each engine; on those that work on the kernel only when it is of what they can do."""
    if "engine_name" in metafunc.fixturenames:
        served, test = ON_KERNEL.get(metafunc.module.__name__.rpartition(".")[2], ()), metafunc.function.__name__
        names: list[Any] = []
        for name, engine in ENGINES.items():
            if not engine.on_kernel or test in served:
                names.append(name)
            elif test in DIFFERS:
                names.append(pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=DIFFERS[test])))
        metafunc.parametrize("engine_name", names, indirect=True)


@pytest.fixture
def engine_name(request: pytest.FixtureRequest) -> str:
    """Returns the name of an engine that can run here; one that cannot is skipped with its own reason."""
    name: str = request.param
    reasons = ENGINES[name].missing()
    if reasons:
        pytest.skip(f"engine {name}: {'; '.join(reasons)}")
    return name


@pytest.fixture
async def stack(tmp_path: Path, engine_name: str, request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    """Returns an MMU with 16 MiB of RAM and 4 MiB of swap, or the one that runs outside, emptied afterwards."""
    if outside.targets():
        async with OutsideStack(outside.channels()["mmu"], outside.bus_path()) as made:
            yield made
        return
    async with Stack(tmp_path, engine=engine_name) as made:
        if ENGINES[engine_name].on_kernel:
            skip_what_cannot_run(request.function.__name__, made)
        yield made
