"""The compiled plane of an engine: one for all who bring frames that lie in memory, loaded at its first use.

Where it was never compiled that takes half a minute. A process of its own does it then, which fills the cache on disk:
it takes no turns from the loop, and can be ended at any time, which a thread cannot be. What is compiled is loaded in
about a second, by a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lamina_kit import numba_cache
from lamina_kit.rng import Rng
from lamina_vswitch.engines.interface import SwitchEngine
from lamina_vswitch.engines.model.engine import ModelEngine

if TYPE_CHECKING:
    from lamina_vswitch.plane.switching import Plane

_MODULE = "lamina_vswitch.plane.switching"
_LAST = f"intake.read-*.py{sys.version_info.major}{sys.version_info.minor}.nbi"
"""What numba's cache has of the function that is compiled last."""


class PlaneLoader:
    """Loads the plane once. An engine that has switches of its own has none."""

    def __init__(self, engine: SwitchEngine, rng: Rng) -> None:
        self._engine = engine
        self._rng = rng
        self._plane: Plane | None = None
        self._loading: asyncio.Task[Plane] | None = None

    async def load(self) -> Plane | None:
        """Return the plane, or None where the engine has none. The service has others to serve meanwhile."""
        if not isinstance(self._engine, ModelEngine):
            return None
        if self._plane is None:
            if self._loading is None or self._loading.done():
                self._loading = asyncio.get_running_loop().create_task(self._load(self._engine))
            self._plane = await asyncio.shield(self._loading)
        return self._plane

    def stop(self) -> None:
        """Load no longer: whoever waits is cancelled. Idempotent."""
        if self._loading is not None:
            self._loading.cancel()

    async def _load(self, engine: ModelEngine) -> Plane:
        if _MODULE not in sys.modules and not is_compiled():
            await compile_apart()
        module = await asyncio.to_thread(import_module, _MODULE)
        plane: Plane = module.Plane(engine, int.from_bytes(self._rng.bytes(8), "little"))
        return plane


def is_compiled() -> bool:
    """Tell whether the cache has the plane as its sources are now. An error costs time, and nothing else."""
    plane = Path(__file__).parent / "compiled"
    newest = max(source.stat().st_mtime for source in sorted(plane.glob("*.py")))
    named = numba_cache.choose()
    found = sorted((Path(named) if named else plane / "__pycache__").rglob(_LAST))
    return any(file.stat().st_mtime >= newest for file in found)


async def compile_apart() -> None:
    """Fill the cache by a process of its own, which ends with whoever waits for it.

    If it fails, so will loading, which says why.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"import {_MODULE}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
