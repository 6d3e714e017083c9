"""Which device answers which port."""

from __future__ import annotations

import pytest

from lamina_hypervisor.domain.devices.ports import PortBus
from lamina_hypervisor.domain.devices.serial import Serial


@pytest.fixture
def bus() -> PortBus:
    """A bus with a serial port at 0x3f8."""
    ports = PortBus()
    ports.attach(0x3F8, 8, Serial())
    return ports


def test_an_empty_port_reads_all_ones_and_is_counted(bus: PortBus) -> None:
    """Nobody at a port: reads give ones in every byte, writes vanish, both are counted."""
    assert bus.read(0x80, 1) == 0xFF
    assert bus.read(0x80, 4) == 0xFFFF_FFFF
    bus.write(0x80, 2, 0x1234)
    assert bus.unclaimed == 1 + 4 + 2


def test_a_wide_access_reaches_consecutive_registers(bus: PortBus) -> None:
    """OUT of two bytes at 0x3fe writes MSR, which ignores it, and the scratch register."""
    bus.write(0x3FE, 2, 0x7711)
    assert bus.read(0x3FF, 1) == 0x77
    assert bus.read(0x3FE, 2) == 0x77B0


def test_the_ledger_gets_direction_port_and_register(bus: PortBus) -> None:
    """An access is named by what it reaches; ports without a device share one name."""
    assert bus.qualifier(0x3F8, write=True) == "out 0x3f8 thr"
    assert bus.qualifier(0x3FD, write=False) == "in 0x3fd lsr"
    assert bus.qualifier(0x1234, write=True) == "out unknown"


def test_ranges_do_not_overlap(bus: PortBus) -> None:
    """Two devices cannot answer one port."""
    with pytest.raises(ValueError, match="taken"):
        bus.attach(0x3FF, 1, Serial())
