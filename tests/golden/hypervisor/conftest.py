"""One host a module, as the integration tests have it."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

_LAB_PATH = Path(__file__).parents[2] / "integration" / "hypervisor" / "lab.py"
_FILE = importlib.util.spec_from_file_location("hypervisor_lab", _LAB_PATH)
assert _FILE is not None and _FILE.loader is not None
_LAB = importlib.util.module_from_spec(_FILE)
_FILE.loader.exec_module(_LAB)


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
