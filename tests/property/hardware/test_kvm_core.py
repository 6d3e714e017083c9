"""KVM cores with random second stages, guest tables, code and registers: always an exit, never a crash or a hang."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina_hardware.domain.apic.pending import Pending
from lamina_hardware.engines.interface import CoreRun
from lamina_hardware.io.kvm.core import KvmCore
from lamina_hardware.io.kvm.engine import KvmEngine
from lamina_hardware.io.kvm.opcodes import stores_first
from lamina_hardware.io.kvm.vm import KvmHost
from lamina_hardware.io.reset import reset_registers
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import ENGINE_OFFSET, GPR_OFFSET, ExitReason, RunPage

RAM = 4 << 20
SLICE_NS = 2_000_000
REASONS = {int(reason) for reason in ExitReason}


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[MemoryBus]:
    """Returns 4 MiB of RAM with eight run pages."""
    with MemoryBus.create(tmp_path / "ram", RAM, 8) as made:
        yield made


@pytest.fixture(params=["kvm"])
def host(request: pytest.FixtureRequest, bus: MemoryBus) -> Iterator[KvmHost]:
    """Returns what KVM cores share; skips where KVM is not."""
    if reasons := KvmEngine.missing():
        pytest.skip("; ".join(reasons))
    made = KvmHost(bus)
    yield made
    made.close()


def entry(rng: random.Random) -> int:
    """Returns a table entry: often one that leads somewhere, sometimes nonsense."""
    if rng.random() < 0.15:
        return rng.getrandbits(64)
    if rng.random() < 0.2:
        return 0
    address = rng.randrange(0, RAM + 0x4000, 4096)
    return address | rng.choice((7, 7, 7, 7, 3, 1, 5, 2)) | rng.choice((0, 0, 0, 0x80)) | rng.choice((0, 0x100, 0x300))


def fill(bus: MemoryBus, rng: random.Random) -> int:
    """Fills RAM with tables that lead to one another, and code; returns an address for a root."""
    for frame in rng.sample(range(RAM >> 12), 40):
        for n in (0, 1, 2, 3, 255, 256, 511, *rng.sample(range(512), 8)):
            bus.store64((frame << 12) + 8 * n, entry(rng))
    for frame in rng.sample(range(RAM >> 12), 40):
        bus.write(frame << 12, rng.randbytes(64))
    return rng.randrange(0, RAM, 4096)


@pytest.mark.parametrize("seed", range(24))
def test_random_machines(host: KvmHost, bus: MemoryBus, seed: int) -> None:
    """Whatever RAM and registers hold, a run ends with a reason of the contract."""
    rng = random.Random(seed)
    told: list[str] = []
    host.note = lambda context, what: told.append(what)
    core = KvmCore(host)
    page = RunPage(bus.run_page(0))
    for turn in range(4):
        root = fill(bus, rng)
        reset_registers(bus.run_page(0), 0)
        if rng.random() < 0.5:
            page.view[GPR_OFFSET : GPR_OFFSET + 0x1F0] = rng.randbytes(0x1F0)
        if rng.random() < 0.2:
            page.view[16:ENGINE_OFFSET] = rng.randbytes(ENGINE_OFFSET - 16)
        page.cr3 = rng.randrange(0, RAM, 4096)
        page.rip = rng.choice((0, 0x1000, rng.getrandbits(20), rng.getrandbits(64)))
        page.dirty = (1 << 7) - 1
        work = CoreRun(
            context=1 + turn, run_page=0, eptp=root, exceptions=0, syscall=False, budget=SLICE_NS, interrupts=Pending()
        )
        for _ in range(3):
            stopped = core.run(work)
            assert stopped.paused or stopped.reason in REASONS
            record = page.load_exit()
            assert record.reason == stopped.reason
            if stopped.reason == ExitReason.ENTRY_FAILED:
                assert told, "what KVM cannot go on with is told"
                break
        core.forget(1 + turn)


def test_a_table_that_points_at_itself(host: KvmHost, bus: MemoryBus) -> None:
    """An EPT whose every entry is its own root is looked through in bounded time, and the run ends."""
    for n in range(512):
        bus.store64(0x10_0000 + 8 * n, 0x10_0000 | 7)
    reset_registers(bus.run_page(0), 0)
    page = RunPage(bus.run_page(0))
    page.cr3, page.rip = 0x1000, 0x2000
    stopped = KvmCore(host).run(CoreRun(1, 0, eptp=0x10_0000, exceptions=0, syscall=False, budget=SLICE_NS))
    assert stopped.reason == ExitReason.ENTRY_FAILED, "no guest's memory lies in so many pieces"


@pytest.mark.parametrize(
    ("code", "stores"),
    [("8901", True), ("8b01", False), ("50", True), ("66c70100000000", True), ("0f1101", True), ("0f1001", False),
     ("f3aa", True), ("f3a4", False), ("e800000000", True), ("c3", False), ("", False), ("66", False), ("0f", False)],
)  # fmt: skip
def test_which_instructions_store_first(code: str, stores: bool) -> None:
    """Stores, pushes and calls store first; loads, moves of strings and what is cut off do not."""
    assert stores_first(bytes.fromhex(code)) is stores
