"""One host a module and engine: every engine that is registered for the hypervisor passes this suite."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.contract import outside

from lamina_kit.engines import engines_of

_LAB_PATH = Path(__file__).parents[2] / "integration" / "hypervisor" / "lab.py"
_FILE = importlib.util.spec_from_file_location("hypervisor_lab", _LAB_PATH)
assert _FILE is not None and _FILE.loader is not None
_LAB = importlib.util.module_from_spec(_FILE)
_FILE.loader.exec_module(_LAB)


@pytest.fixture
def kernel_of() -> Callable[[bytes], bytes]:
    """Makes kernels of a few instructions."""
    return _LAB.make_kernel  # type: ignore[no-any-return]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(engines_of("hypervisor")))
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A running host with one engine; an engine that cannot run here is skipped with its reasons."""
    reasons = engines_of("hypervisor")[request.param].missing()
    if reasons:
        pytest.skip("; ".join(reasons))
    folder = Path(tempfile.mkdtemp(prefix="lamina-hv-"))
    made = _LAB.Lab(folder)
    try:
        if outside.targets():
            made.channels = outside.channels()
            await made.compile()
        else:
            await made.start(request.param)
        yield made
    finally:
        if outside.targets():
            await made.remove_all()
        await made.stop()
        shutil.rmtree(folder)
