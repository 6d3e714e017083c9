"""Which suites run on the virtual clock, and how: everywhere but where real time, threads or sockets are the subject.

Async tests of the folders below run on a `VirtualLoop` that raises what nobody handles. A test, class or module that
needs the machine's time says so: `@pytest.mark.real_time("why")`. `--loop-seed N` runs everything in another order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from lamina_kit.clock import Clock, RealClock
from lamina_kit.virtual import VirtualClock, VirtualLoop

FOLDERS = ("unit/kit", "unit/orchestrator", "contract/orchestrator")
"""The folders whose async tests run in virtual time."""

DEFAULT_SEED = 1


def loop_factories(item: pytest.Item, tests: Path) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Returns what makes the loop of a test."""
    seed: int = item.config.getoption("--loop-seed")
    folder = item.path.parent.relative_to(tests).as_posix() if item.path.is_relative_to(tests) else ""
    virtual = any(folder == name or folder.startswith(f"{name}/") for name in FOLDERS)
    if virtual and item.get_closest_marker("real_time") is None:
        return {"virtual": partial(VirtualLoop, seed, strict=True)}
    return {"real": asyncio.new_event_loop}


def clock_of_loop() -> Clock:
    """Returns the clock that belongs to the running loop, for the services of a test."""
    loop = asyncio.get_running_loop()
    return VirtualClock(loop) if isinstance(loop, VirtualLoop) else RealClock()
