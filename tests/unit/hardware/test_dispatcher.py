"""The dispatcher with cores that do as they are told: failures, and what idle cores are made to forget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lamina_hardware.domain.contexts.counts import NOTHING
from lamina_hardware.domain.paging.tlb import EMPTY, TlbContent
from lamina_hardware.engines.interface import CoreEngine, CoreRun, Stopped
from lamina_hardware.engines.model.engine import ContextWish, Ended, ModelEngine
from lamina_hardware.io.cores.dispatcher import Dispatcher
from lamina_hardware.io.cores.time_slice import TimeSlice
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import ExitReason
from lamina_kit.clock import RealClock

SYSCALL = int(ExitReason.SYSCALL)
BUDGET = int(ExitReason.BUDGET)


class ScriptedCore:
    """A core whose runs end as a script says; an exception in the script is raised."""

    path = "scripted"
    is_ready = True
    capabilities: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.script: list[Stopped | Exception] = []
        self.told: list[str] = []

    def run(self, work: CoreRun) -> Stopped:
        """Does what the script says next."""
        self.told.append("run")
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def cancel(self) -> None:
        """Notes it."""
        self.told.append("cancel")

    def relent(self) -> None:
        """Notes it."""
        self.told.append("relent")

    def pause(self) -> None:
        """Notes it."""
        self.told.append("pause")

    def holds(self, root: int, eptp: int) -> bool:
        """Says yes to root 0x1000."""
        return root == 0x1000

    def tlb(self) -> TlbContent:
        """Holds nothing."""
        return EMPTY

    def flush(self) -> None:
        """Notes it."""
        self.told.append("flush")

    def drop_code(self, frames: Iterable[int] | None) -> None:
        """Notes it."""
        self.told.append(f"drop {sorted(frames) if frames is not None else 'all'}")

    def forget(self, context: int) -> None:
        """Notes it."""
        self.told.append("forget")

    def counters(self) -> Sequence[int]:
        """Returns nothing counted."""
        return NOTHING

    def close(self) -> None:
        """Notes it."""
        self.told.append("close")


class Rig:
    """A dispatcher over scripted cores."""

    def __init__(self, bus: MemoryBus) -> None:
        self.cores = [ScriptedCore(), ScriptedCore()]
        self.engine = ModelEngine(2, 4)
        self.bus = bus
        self.lost: list[tuple[int, str]] = []
        self.ends: list[Ended] = []
        engines: list[CoreEngine] = [*self.cores]
        self.dispatcher = Dispatcher(
            self.engine, engines, bus, RealClock(), TimeSlice(), lambda group: None,
            lambda core, error: self.lost.append((core, str(error))),
        )  # fmt: skip

    def begin(self) -> Any:
        """Begins a run of a new context."""
        made = self.engine.create_context(ContextWish("", "", 0, 0, False, True, "", ""))
        return self.dispatcher.begin(made.handle, 0, 0, self.ends.append)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """Returns a started rig."""
    with MemoryBus.create(tmp_path / "ram", 4 << 20, run_pages=4) as bus:
        made = Rig(bus)
        made.dispatcher.start()
        yield made
        await made.dispatcher.stop()


async def test_a_failed_core_takes_no_more_work(rig: Rig, eventually: Any) -> None:
    """A core whose thread fails is lost; its run ends, later runs use the others."""
    rig.cores[0].script = [Stopped(BUDGET, 100_000), OSError("the thread broke")]
    run = rig.begin()
    await eventually(lambda: rig.ends, "the run ends")
    assert (rig.ends[0].reason, run.core) == (int(ExitReason.CANCELED), 0)
    assert rig.lost == [(0, "the thread broke")]
    rig.cores[1].script = [Stopped(SYSCALL, 5)]
    assert rig.begin().core == 1
    assert rig.ends[1].reason == SYSCALL


async def test_an_idle_core_forgets_before_it_runs(rig: Rig) -> None:
    """Shootdowns and changed code reach an idle core before its next instruction, once."""
    rig.cores[0].script = [Stopped(SYSCALL, 1), Stopped(SYSCALL, 1)]
    assert await rig.dispatcher.shootdown(0x1000, 0) == 2
    assert await rig.dispatcher.shootdown(0x2000, 0) == 0
    rig.bus.set_exec(5)
    rig.bus.write(5 << 12, b"new")
    rig.begin()
    assert rig.cores[0].told == ["flush", "drop [5]", "run"]
    rig.begin()
    assert rig.cores[0].told[3:] == ["run"]
    assert not rig.bus.state(5) & 1


async def test_a_cancellation_that_comes_late_hits_no_other_run(rig: Rig, eventually: Any) -> None:
    """A core that had stopped when it was told to cancel forgets that before it runs another context."""
    rig.cores[0].script = [Stopped(BUDGET, 100_000), Stopped(SYSCALL, 100_001)]
    run = rig.begin()
    while rig.cores[0].script:
        pass  # the core's thread works; its report waits for this loop
    assert rig.dispatcher.cancel(run.context)
    await eventually(lambda: rig.ends, "the run ends")
    assert rig.cores[0].told[-2:] == ["cancel", "relent"]
    rig.cores[0].script = [Stopped(SYSCALL, 1)]
    rig.begin()
    assert [ended.reason for ended in rig.ends] == [SYSCALL, SYSCALL]


async def test_a_run_that_nobody_waits_beside_may_go_on(rig: Rig, eventually: Any) -> None:
    """A first slice that does not end the run hands it to the core's thread, with all accounts as they should be."""
    first, second = Stopped(SYSCALL, 1), Stopped(SYSCALL, 2)
    rig.cores[0].script = [first, second, Stopped(BUDGET, 100_000), Stopped(SYSCALL, 100_005)]
    context = rig.begin().context
    for ends in (2, 3):
        run = rig.dispatcher.begin(context.handle, 0, ends, rig.ends.append)
        await eventually(lambda ends=ends: len(rig.ends) == ends, "the run ends")
        assert (run.core, run.sequence, rig.ends[-1].run) == (0, ends, run)
    assert [ended.run.consumed for ended in rig.ends] == [1, 2, 100_005]
    assert context.counts.instructions == rig.engine.core_counts[0].instructions == 100_008
    assert context.counts.exits[SYSCALL] == 3
    assert rig.engine.arbiter.running == [None, None]


async def test_stopping_ends_every_run(rig: Rig) -> None:
    """Stop cancels what runs and waits for it, then frees the cores; a later run is refused."""
    rig.cores[0].script = [Stopped(BUDGET, 100_000), Stopped(0, 200_000, paused=True)]
    rig.begin()
    await asyncio.sleep(0)
    await rig.dispatcher.stop()
    assert [ended.reason for ended in rig.ends] == [int(ExitReason.CANCELED)]
    assert rig.cores[0].told[-1] == rig.cores[1].told[-1] == "close"
    with pytest.raises(Exception, match="stops"):
        rig.begin()
