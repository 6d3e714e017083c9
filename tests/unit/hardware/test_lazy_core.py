"""A core that is made at its first run, and what it is told before that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.hardware.test_dispatcher import SYSCALL, Rig, ScriptedCore

from lamina_hardware.engines.interface import CorePath, Stopped
from lamina_hardware.io.cores.lazy import LazyCore
from lamina_kit.bus.memory import MemoryBus

WORK: Any = None
ASK = """
import sys
import lamina_hardware.server, lamina_hardware.engines.model.engine
if "numba" in sys.modules:
    print("numba")
from numba.core.dispatcher import Dispatcher
for name, module in sorted(sys.modules.items()):
    own = (value for value in vars(module).values() if isinstance(value, Dispatcher))
    if name.startswith("lamina_hardware") and any(value.py_func.__module__ == name for value in own):
        print(name)
"""


@pytest.mark.parametrize(
    ("asked", "heard"),
    [
        ((), []),
        (("pause",), ["pause"]),
        (("cancel", "pause", "cancel"), ["pause", "cancel"]),
        (("cancel", "relent"), []),
    ],
)
def test_what_it_is_asked_before_it_exists_it_hears_then(asked: tuple[str, ...], heard: list[str]) -> None:
    """A pause and a cancellation come before the first run; one that was taken back does not; asking makes no core."""
    made: list[ScriptedCore] = []

    def make() -> ScriptedCore:
        made.append(ScriptedCore())
        made[0].script = [Stopped(SYSCALL, 1), Stopped(SYSCALL, 1)]
        return made[0]

    loaded = False
    core = LazyCore(CorePath("scripted", "", (), make, loaded=lambda: loaded))
    for wish in asked:
        getattr(core, wish)()
    assert not made and not core.is_ready
    loaded = True
    assert core.is_ready
    loaded = False
    core.run(WORK)
    assert core.is_ready and made[0].told == [*heard, "run"]
    core.run(WORK)
    core.pause()
    assert made[0].told[len(heard) :] == ["run", "run", "pause"] and len(made) == 1


async def test_the_first_run_makes_its_core_on_a_thread(
    tmp_path: Path, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop waits for no code to be loaded; once it is, short runs end where they begin."""
    with MemoryBus.create(tmp_path / "ram", 4 << 20, run_pages=4) as bus:
        rig = Rig(bus)
        rig.cores[0].script = [Stopped(SYSCALL, 1), Stopped(SYSCALL, 1)]
        monkeypatch.setattr(ScriptedCore, "is_ready", False)
        rig.dispatcher.start()
        rig.begin()
        assert not rig.ends
        await eventually(lambda: rig.ends, "the first run ends")
        rig.begin()
        assert len(rig.ends) == 2
        await rig.dispatcher.stop()


def test_a_host_without_runs_loads_no_compiled_code() -> None:
    """Importing the service loads neither numba nor compiled modules of the cores: most of a second, and memory."""
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
