"""The engines that are registered for the MMU layer, each behind its service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract import outside
from tests.contract.mmu.stack import OutsideStack, Stack

from lamina_kit.engines import engines_of

ENGINES = engines_of("mmu")


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    """Returns the name of an engine that can run here; one that cannot is skipped with its own reason."""
    name: str = request.param
    reasons = ENGINES[name].missing()
    if reasons:
        pytest.skip(f"engine {name}: {'; '.join(reasons)}")
    return name


@pytest.fixture
async def stack(tmp_path: Path, engine_name: str) -> AsyncIterator[Stack]:
    """Returns an MMU with 16 MiB of RAM and 4 MiB of swap, or the one that runs outside, emptied afterwards."""
    if outside.targets():
        async with OutsideStack(outside.channels()["mmu"], outside.bus_path()) as made:
            yield made
        return
    async with Stack(tmp_path, engine=engine_name) as made:
        yield made
