"""Small parts between domain and machine: which memory an address is of, a NIC as a device, registers of a page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.hardware.nic_world import MAC, RING

from lamina_hardware.devices.nic import NicDevice
from lamina_hardware.domain.nic.ring import Ring
from lamina_hardware.domain.nic.settings import Settings
from lamina_hardware.io import register_file
from lamina_hardware.io.physical import HostPhysical
from lamina_kit.bus import run_page
from lamina_kit.bus.dma import DMA_BASE

RAM, DMA = 1 << 20, 1 << 16


class Memory:
    """Notes what is asked of it."""

    def __init__(self, name: str, asked: list[tuple[str, str, int]]) -> None:
        self._name, self._asked = name, asked
        self.has_code_writes = False
        self.size = RAM

    def contains(self, pa: int, n: int) -> bool:
        """Says whether bytes are DMA memory."""
        return pa >= DMA_BASE and pa + n <= DMA_BASE + DMA

    def __getattr__(self, call: str) -> Any:
        def note(pa: int, *more: object) -> None:
            self._asked.append((self._name, call, pa))

        return note


def physical() -> tuple[HostPhysical, Any, list[tuple[str, str, int]], list[None]]:
    """Returns memory, its bus, what is asked of it, and a list that grows when code was written."""
    asked: list[tuple[str, str, int]] = []
    stale: list[None] = []
    bus: Any = Memory("ram", asked)
    bus.dma = Memory("dma", asked)
    return HostPhysical(bus, lambda: stale.append(None)), bus, asked, stale


@pytest.mark.parametrize(("pa", "name"), [(0, "ram"), (DMA_BASE - 8, "ram"), (DMA_BASE, "dma"), (DMA_BASE + 8, "dma")])
def test_an_address_is_of_ram_or_of_dma_memory(pa: int, name: str) -> None:
    """Below the base of DMA memory it is of RAM, from there on of DMA memory, whatever is done."""
    memory, _, asked, _ = physical()
    memory.read(pa, 1)
    memory.write(pa, b"x")
    memory.load64(pa)
    memory.cas64(pa, 0, 1)
    memory.take64(pa, 3)
    assert asked == [(name, call, pa) for call in ("read", "write", "load64", "cas64", "take64")]
    assert memory.is_dma(pa) is (name == "dma")


def test_what_is_memory() -> None:
    """All bytes lie in RAM, or all in DMA memory."""
    memory, _, _, _ = physical()
    inside = [(0, RAM), (RAM - 1, 1), (DMA_BASE, DMA), (DMA_BASE + DMA - 1, 1)]
    outside = [(RAM, 1), (RAM - 1, 2), (-1, 1), (DMA_BASE - 1, 2), (DMA_BASE + DMA, 1)]
    assert [memory.contains(pa, n) for pa, n in inside] == [True] * 4
    assert [memory.contains(pa, n) for pa, n in outside] == [False] * 5


def test_written_code_is_told() -> None:
    """A store to RAM where code was translated is told, one to DMA memory never."""
    memory, bus, _, stale = physical()
    memory.write(0, b"x")
    assert stale == []
    bus.has_code_writes = True
    memory.write(DMA_BASE, b"x")
    assert stale == []
    memory.write(0, b"x")
    assert len(stale) == 1


class Ports:
    """Ports of a device that note what it shows."""

    def __init__(self) -> None:
        self.queues: list[int] = []
        self.links: list[tuple[bool, int]] = []

    def set_queues(self, count: int) -> None:
        """Notes how many queues there are."""
        self.queues.append(count)

    def set_link(self, up: bool, rate: int) -> None:
        """Notes the link."""
        self.links.append((up, rate))

    def record(self, event: str, **inputs: object) -> None:
        """Ignores events."""


def nic() -> tuple[NicDevice, Ports]:
    """Returns a NIC that is plugged in."""
    device, ports = NicDevice(MAC), Ports()
    shown: Any = ports
    device.connect(shown)
    return device, ports


def test_queues_of_a_nic_are_shown() -> None:
    """The device's page tells how many queues there are, up to the highest number; none without rings."""
    device, ports = nic()
    assert device.queue_count == 0
    device.configure([Ring(5, RING, 16, 0, vector=1), Ring(0, RING, 16, 2048, vector=0)])
    device.configure([])
    assert ports.queues == [6, 0]


def test_the_link_of_a_nic_is_shown() -> None:
    """Up with its rate while the wire carries, the driver wants it and nothing broke it; a change is told once."""
    device, ports = nic()
    up: list[bool] = []
    device.link_changed = up.append
    device.carrier(True, 1000)
    device.carrier(True, 1000)
    device.break_link(True)
    device.carrier(False, 1000)
    device.carrier(True, 2000)
    device.break_link(False)
    device.change(Settings(MAC, admin_up=False))
    device.reset()
    states = [state for state, _ in ports.links]
    assert states == [True, False, True, False, True]
    assert [rate for state, rate in ports.links if state] == [1000, 2000, 2000]
    assert up == states
    device.carrier(True, 3000)
    assert (ports.links[-1], up) == ((True, 3000), states), "another rate is no other state"


@pytest.mark.parametrize(
    ("number", "group"),
    [
        (0x174, run_page.DIRTY_MSRS), (0xC000_0081, run_page.DIRTY_MSRS), (0xC000_0103, run_page.DIRTY_MSRS),
        (0xC000_0080, run_page.DIRTY_CONTROL), (0xC000_0100, run_page.DIRTY_SEGMENTS),
        (0xC000_0101, run_page.DIRTY_SEGMENTS),
    ],
)  # fmt: skip
def test_a_register_that_is_written_is_marked(number: int, group: int) -> None:
    """A model-specific register is read as it was written, and its group is loaded next; others stay marked."""
    page = register_file.scratch()
    page.dirty = run_page.DIRTY_FPU
    register_file.write_msr(page, number, 0x1234_5678_9ABC)
    assert register_file.read_msr(page, number) == 0x1234_5678_9ABC
    assert page.dirty == run_page.DIRTY_FPU | group


def test_registers_have_places_of_their_own() -> None:
    """No write changes another register; the page's own fields show them."""
    page = register_file.scratch()
    numbers = (0x174, 0x175, 0x176, 0x277, *range(0xC000_0080, 0xC000_0085), *range(0xC000_0100, 0xC000_0104))
    for number in numbers:
        register_file.write_msr(page, number, number << 8)
    assert [register_file.read_msr(page, number) for number in numbers] == [number << 8 for number in numbers]
    found = SimpleNamespace(fs=page.segment("fs").base, gs=page.segment("gs").base)
    assert (found.fs, found.gs, page.efer) == (0xC000_0100 << 8, 0xC000_0101 << 8, 0xC000_0080 << 8)
    assert (page.star, page.lstar, page.sfmask) == (0xC000_0081 << 8, 0xC000_0082 << 8, 0xC000_0084 << 8)
    assert page.kernel_gs_base == 0xC000_0102 << 8


def test_a_state_that_is_no_state_changes_nothing() -> None:
    """Bytes too few, too many, or with more CPUID answers than a page has are refused; the page stays."""
    page = register_file.scratch()
    register_file.seed(page, 7)
    page.set_cpuid((run_page.CpuidEntry(1, 2, 3, 4, 5, 6),))
    state, before = register_file.save(page), bytes(page.view)
    size = 24
    place = len(state) - size - 4
    many = (run_page.CPUID_ENTRIES + 1).to_bytes(4, "little")
    for wrong in (b"", state[:-1], state + b"\0", state[:place], state[:place] + many + bytes(size) * 100_000):
        assert register_file.restore(page, wrong) is False
        assert bytes(page.view) == before
    other = register_file.scratch()
    assert register_file.restore(other, state) is True
    assert register_file.save(other) == state
    assert other.dirty == run_page.DIRTY_ALL
