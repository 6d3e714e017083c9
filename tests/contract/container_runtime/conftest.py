"""Fixtures of the runtime's contract suite: it runs once for each engine that is registered and can run here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract import outside
from tests.contract.container_runtime.runtime_stack import Stack, running

from lamina_kit.engines import engines_of


@pytest.fixture(params=sorted(engines_of("container-runtime")))
def engine(request: pytest.FixtureRequest) -> str:
    """Returns the name of an engine; skips one that cannot run here with the reason that it gives."""
    reasons = engines_of("container-runtime")[request.param].missing()
    if reasons:
        pytest.skip("; ".join(reasons))
    return str(request.param)


@pytest.fixture
async def stack(engine: str, short_dir: Path) -> AsyncIterator[Stack]:
    """Returns a runtime on real layers below, or the one that runs outside."""
    if outside.targets():
        found = Stack(short_dir, engine, channels=outside.channels(), names=int.from_bytes(os.urandom(4)))
        yield found
        await found.remove_all()
        return
    async with running(short_dir, engine) as made:
        yield made
