"""Fixtures of the runtime's integration tests: the stack of the contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.container_runtime.runtime_stack import Stack, running


@pytest.fixture
async def stack(short_dir: Path) -> AsyncIterator[Stack]:
    """Returns a runtime on real layers below."""
    async with running(short_dir) as made:
        yield made


@pytest.fixture
async def split_stack(short_dir: Path) -> AsyncIterator[Stack]:
    """Returns a runtime whose layers talk over sockets."""
    async with running(short_dir, sockets=True) as made:
        yield made
