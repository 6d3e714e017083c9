"""When a KVM core's round may be one compiled call, and when it looks at everything first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.hardware.kvm_bench import variant

from lamina_hardware.engines.interface import CoreRun, Stopped
from lamina_hardware.io.kvm import core as core_module
from lamina_hardware.io.kvm.core import KvmCore
from lamina_hardware.io.kvm.fast_round import DONE, step
from lamina_hardware.io.kvm.vm import KvmHost
from lamina_hardware.io.reset import reset_registers
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import DIRTY_ALL, DIRTY_GPRS, ExitReason, RunPage

pytestmark = pytest.mark.real_time("the cores are processors of the host")
__all__ = ["variant"]

RAM, TEXT = 4 << 20, 0x10_0000
LOOP = bytes.fromhex("48ffc0e780ebf9")  # again: inc rax; out 0x80, eax; jmp again
TABLES = {0x1000: 0x2003, 0x2000: 0x3003, 0x3000: 0x83, 0x5000: 0x6007, 0x6000: 0x7007, 0x7000: 0xB7}
ROOT, EPTP = 0x1000, 0x5000


class Rig:
    """A core, contexts that send RAX to a port and add 1 for ever, and what each compiled call returned."""

    def __init__(self, bus: MemoryBus, host: KvmHost, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bus, self.host, self.core = bus, host, KvmCore(host)
        self.taken: list[int] = []
        for place, entry in TABLES.items():
            bus.store64(place, entry)
        bus.write(TEXT, LOOP)
        monkeypatch.setattr(core_module, "step", self._step)

    def _step(self, block: int) -> int:
        self.taken.append(step(block))
        return self.taken[-1]

    def context(self, number: int) -> CoreRun:
        """Makes a context that begins at the loop, with 1000 for each context in RAX."""
        reset_registers(self.bus.run_page(number), 0)
        page = RunPage(self.bus.run_page(number))
        page.cr3, page.rip, page.rax, page.dirty = ROOT, TEXT, 1000 * number, DIRTY_ALL
        return CoreRun(context=number, run_page=number, eptp=EPTP, exceptions=0, syscall=False)

    def out(self, work: CoreRun) -> int:
        """Runs to the next OUT; returns what it sent."""
        stopped: Stopped = self.core.run(work)
        record = RunPage(self.bus.run_page(work.run_page)).load_exit()
        assert stopped.reason == record.reason == ExitReason.IO
        return record.io_data

    def quick(self, work: CoreRun) -> bool:
        """Runs to the next OUT; returns whether that was one compiled call."""
        self.taken.clear()
        self.out(work)
        return len(self.taken) == 1 and bool(self.taken[0] & DONE)


@pytest.fixture
def rig(variant: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Returns a core over 4 MiB of RAM."""
    with MemoryBus.create(tmp_path / "ram", RAM, 8) as bus:
        host = KvmHost(bus)
        yield Rig(bus, host, monkeypatch)
        host.close()


def test_contexts_that_take_turns_stay_quick(rig: Rig) -> None:
    """Two contexts that take turns on a core, and one of them on another core, are each run by one compiled call."""
    first, second = rig.context(1), rig.context(2)
    for work in (first, second):
        for _ in range(2):
            rig.out(work)
    assert [rig.quick(work) for work in (first, second, first, second)] == [True] * 4
    rig.core = KvmCore(rig.host)
    assert [rig.quick(work) for work in (first, second)] == [True, True]
    assert (rig.out(first), rig.out(second)) == (1006, 2006)


def test_another_thread_is_looked_at_first(rig: Rig) -> None:
    """A context that runs in another thread is made known there, so that it can be stopped, and is quick from then."""
    work = rig.context(1)
    for _ in range(3):
        rig.out(work)
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.extend(rig.quick(work) for _ in range(3)))
    thread.start()
    thread.join()
    assert found == [False, True, True]
    assert rig.out(work) == 1007


def test_what_was_fetched_or_changed_is_looked_at(rig: Rig) -> None:
    """After a shootdown, after somebody read all registers, and as another `CoreRun`, a context is looked at once."""
    work = rig.context(1)
    page = RunPage(rig.bus.run_page(1))
    for _ in range(2):
        rig.out(work)
    assert rig.quick(work)
    rig.core.holds(ROOT, EPTP)
    rig.core.flush()
    assert [rig.quick(work), rig.quick(work)] == [False, True]
    rig.host.fetch(1, page)
    assert [rig.quick(work), rig.quick(work)] == [False, True]
    again = CoreRun(context=1, run_page=1, eptp=EPTP, exceptions=0, syscall=False)
    assert [rig.quick(again), rig.quick(again)] == [False, True]
    assert not rig.quick(work), "the lane is the other's"
    page.rax, page.dirty = 5, DIRTY_GPRS
    assert (rig.quick(work), page.rax) == (True, 6)


def test_a_request_ends_the_next_run(rig: Rig) -> None:
    """A cancellation before a run ends it before its first instruction; the run behind it goes on where that was."""
    work = rig.context(1)
    for _ in range(2):
        rig.out(work)
    rig.core.cancel()
    assert rig.core.run(work).reason == ExitReason.CANCELED
    assert rig.out(work) == 1003
    rig.core.pause()
    assert rig.core.run(work).paused
    assert rig.out(work) == 1004
    assert rig.quick(work)
