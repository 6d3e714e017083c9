"""One layer in this process without a stack: for calls that need neither RAM nor the layers below."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina_cli.stack.embedded import builder
from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc.inproc.local import LocalChannel

HOST = "alone"


@contextmanager
def alone(layer: str) -> Iterator[LocalChannel]:
    """Gives a channel to a layer that is built and never started; its scratch folder goes afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="lamina-alone-"))
    clock, rng = RealClock(), Rng(1)
    state = LayerState(layer, HOST, clock, rng.child(layer))
    try:
        yield local(builder(layer)(Environment(HOST, clock, rng, folder, state, {})), state)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
