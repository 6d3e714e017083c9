"""One host a module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from tests.integration.hypervisor.lab import Lab, make_kernel, running_lab


@pytest.fixture
def kernel_of() -> Callable[[bytes], bytes]:
    """Makes kernels of a few instructions."""
    return make_kernel


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab() -> AsyncIterator[Lab]:
    """A running host."""
    async with running_lab() as made:
        yield made
