"""Which suites run on the virtual clock, and how: everywhere but where real time, threads or sockets are the subject.

Async tests of the folders below run on a `VirtualLoop` that raises what nobody handles: in `VIRTUAL` only there, in
`BOTH` on asyncio's loop as well, since what they promise holds on both clocks. They take their clock from
`clock_of_loop()`. A test, class or module that needs the machine's time says so: `@pytest.mark.real_time("why")`.
`--loop-seed N` runs everything in another order. Against services that run elsewhere only real time is left.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import pytest

from lamina_kit.clock import Clock, RealClock
from lamina_kit.virtual.clock import VirtualClock
from lamina_kit.virtual.loop import VirtualLoop

VIRTUAL = ("unit/kit", "contract/orchestrator")
"""Folders whose async tests run in virtual time."""

BOTH = (
    "contract/hardware", "contract/mmu", "contract/hypervisor", "contract/container_runtime", "integration/vswitch",
)  # fmt: skip
"""Folders whose async tests run once on each clock."""

WITHOUT_VIRTUAL = ("sockets", "linux", "kvm")
"""Values of parameters that need the outside or the real machine: such a variant of a test runs in real time only."""

DEFAULT_SEED = 1

Factories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def loop_factories(item: pytest.Item, tests: Path) -> Factories:
    """Returns what makes the loop of a test, by clock: a test with two of them runs twice."""
    seed: int = item.config.getoption("--loop-seed")
    real: Factories = {"real": asyncio.new_event_loop}
    virtual: Factories = {"virtual": partial(VirtualLoop, seed, strict=True)}
    folder = item.path.parent.relative_to(tests).as_posix() if item.path.is_relative_to(tests) else ""
    if item.get_closest_marker("real_time") is not None or os.environ.get("LAMINA_TEST_TARGETS"):
        return real
    if _lies_in(folder, VIRTUAL):
        return virtual
    return {**real, **virtual} if _lies_in(folder, BOTH) else real


def _lies_in(folder: str, folders: Iterable[str]) -> bool:
    return any(folder == name or folder.startswith(f"{name}/") for name in folders)


def is_possible(item: pytest.Item) -> bool:
    """Whether a variant of a test can run: none on the virtual clock has sockets or processors of the host."""
    names = item.name.partition("[")[2].rstrip("]").split("-")
    return "virtual" not in names or not any(name in names for name in WITHOUT_VIRTUAL)


def clock_of_loop() -> Clock:
    """Returns the clock that belongs to the running loop, for the services of a test."""
    loop = asyncio.get_running_loop()
    return VirtualClock(loop) if isinstance(loop, VirtualLoop) else RealClock()
