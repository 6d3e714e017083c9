"""One host a module, as the integration tests have it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from tests.integration.hypervisor.lab import Lab, running_lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab() -> AsyncIterator[Lab]:
    """A running host."""
    async with running_lab() as made:
        yield made
