"""One host a module."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

_FILE = importlib.util.spec_from_file_location("hypervisor_lab", Path(__file__).with_name("lab.py"))
assert _FILE is not None and _FILE.loader is not None
_LAB = importlib.util.module_from_spec(_FILE)
_FILE.loader.exec_module(_LAB)


@pytest.fixture
def kernel_of() -> Callable[[bytes], bytes]:
    """Makes kernels of a few instructions."""
    return _LAB.make_kernel  # type: ignore[no-any-return]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab() -> AsyncIterator[Any]:
    """A running host."""
    folder = Path(tempfile.mkdtemp(prefix="lamina-hv-"))
    made = _LAB.Lab(folder)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
        shutil.rmtree(folder)
