"""One host a module and engine: every engine that is registered for the hypervisor passes this suite.

The suite runs over both kinds of cores as well: modelled ones, and processors of the host (the engine `kvm` of the
hardware layer), which do more by themselves.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.contract import outside
from tests.integration.hypervisor.lab import Lab, make_kernel

from lamina_kit.engines import engines_of


@pytest.fixture
def kernel_of() -> Callable[[bytes], bytes]:
    """Makes kernels of a few instructions."""
    return make_kernel


VARIANTS = {name: (name, "model") for name in engines_of("hypervisor")} | {"kvm": ("model", "kvm")}
"""Engine of the hypervisor and of the hardware below it, by the name of the variant."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(VARIANTS))
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """A running host with one engine over one kind of cores; what cannot run here is skipped with its reasons."""
    engine, cores = VARIANTS[request.param]
    reasons = engines_of("hypervisor")[engine].missing() + engines_of("hardware")[cores].missing()
    if reasons:
        pytest.skip("; ".join(reasons))
    if cores != "model" and outside.targets():
        pytest.skip("services that run elsewhere have the cores that they have")
    folder = Path(tempfile.mkdtemp(prefix="lamina-hv-"))
    made = Lab(folder)
    try:
        if outside.targets():
            made.channels = outside.channels()
            await made.compile()
        else:
            await made.start(engine, cores)
        yield made
    finally:
        if outside.targets():
            await made.remove_all()
        await made.stop()
        shutil.rmtree(folder)
