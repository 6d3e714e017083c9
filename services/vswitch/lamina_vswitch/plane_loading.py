"""The compiled plane of an engine: one for all who bring frames that lie in memory, loaded at its first use."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

from lamina_kit.rng import Rng
from lamina_vswitch.engines.interface import SwitchEngine
from lamina_vswitch.engines.model.engine import ModelEngine

if TYPE_CHECKING:
    from lamina_vswitch.plane.switching import Plane


class PlaneLoader:
    """Loads the plane once. An engine that has switches of its own has none."""

    def __init__(self, engine: SwitchEngine, rng: Rng) -> None:
        self._engine = engine
        self._rng = rng
        self._plane: Plane | None = None

    async def load(self) -> Plane | None:
        """Return the plane, or None where the engine has none.

        A thread loads it: where it was never compiled that takes seconds, in which the service has others to serve.
        """
        if not isinstance(self._engine, ModelEngine):
            return None
        if self._plane is None:
            module = await asyncio.to_thread(import_module, "lamina_vswitch.plane.switching")
            if self._plane is None:
                self._plane = module.Plane(self._engine, int.from_bytes(self._rng.bytes(8), "little"))
        return self._plane
